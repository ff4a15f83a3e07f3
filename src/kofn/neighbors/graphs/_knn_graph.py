"""The graph of nearest neighbours: each row with the rows nearest to it, exactly, by nearby cells or by usearch."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.neighbors.graphs._boundary import lengths_to
from kofn.neighbors.graphs._cells import by_cells
from kofn.neighbors.graphs._found_rows import ROUNDING, Centred, all_pairs, blocks, by_index, nearest_first
from kofn.neighbors.graphs._sparse_graph import neighbors_of_sparse
from kofn.objectives.similarity import FROM_ROWS, Geometry, geometry

__all__ = ["KnnGraph", "knn_graph"]

# Up to this many rows all pairs are multiplied out, which takes less time than building an index.
_EXACT_ROWS = 1 << 14


@dataclass(frozen=True, eq=False)
class KnnGraph:
    """Each row's nearest neighbours, and how reliable they are.

    Attributes:
        indices: (n, m) the neighbours of each row, the row itself left out; nearest first, ties by row.
        distances: (n, m) their distances, computed from differences in float64, stored in the precision of X.
        engine: "exact" (all pairs were multiplied out), "cells" (those of nearby cells) or "usearch" (an index).
        recall: the share of the true neighbours in the lists of a sample of rows; 1.0 if exact.
        sample: the rows of that sample, drawn independently of each other; all rows where n is no larger.
        missed: for each of them, how much nearer than the farthest listed neighbour the nearest unlisted row is.
        slack: how much nearer than the farthest listed neighbour an unlisted row may be by rounding alone.
    """

    indices: NDArray[np.int32]
    distances: NDArray[Any]
    engine: str
    recall: float
    sample: NDArray[np.int64]
    missed: Floats
    slack: float

    @property
    def csr(self) -> Any:
        """The distances as a SciPy CSR array (n, n); a neighbour at distance 0 is an entry of 0."""
        from scipy.sparse import csr_array

        n, m = self.indices.shape
        indptr = np.arange(0, n * m + 1, m, dtype=np.int32 if n * m < 2**31 else np.int64)
        entries = self.indices.ravel().astype(indptr.dtype, copy=False)
        return csr_array((self.distances.ravel(), entries, indptr), shape=(n, n))


@helper
def knn_graph(
    X: Any,
    n_neighbors: int = 32,
    metric: str = "euclidean",
    *,
    engine: Literal["auto", "exact", "cells", "usearch"] = "auto",
    expansion: int | None = None,
    sample: int = 4096,
    seed: int = 0,
    n_threads: int | None = None,
    control: Control | None = None,
    tasks: Engine | None = None,
) -> KnnGraph:
    """Find the rows nearest to each row.

    Args:
        X: vectors (n, d); with metric "cosine" SciPy-sparse rows too, which are never made dense.
        n_neighbors: how many for each row, at most n - 1; a row is not its own neighbour.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        engine: "exact" multiplies all pairs; "cells" cuts the rows into cells of 256 and multiplies each with those
            that are near; "usearch" builds an approximate index (extra `neighbors`); "auto" takes cells where n is
            above 16,384. Of sparse rows all pairs are looked at.
        expansion: rows that each row is compared with in cells (default 32 n_neighbors, at least 16,384), or that
            usearch keeps in view during a search (default n_neighbors + 1, at least 64); more raise the recall.
        sample: the number of rows on which the recall of an approximate index is measured, against all rows.
        seed: draws those rows.
        n_threads: default all cores; the graph is the same for any number. usearch's index is built by one thread,
            since the graph built by several depends on their speed.
        control: stops the work early and shows its progress.
        tasks: an open engine (`kofn.engines`) that finds the neighbours of parts of the rows, by default threads. The
            graph is the same.

    Returns:
        KnnGraph; `.csr` is the SciPy matrix. Ties go to the lowest row, at the end of an exact list too: among rows
        whose distances in float64 are equal, the lowest are listed, and they stand in their order.

    Raises:
        InputError: bad input, n_neighbors >= n, or engine="usearch" without usearch installed.
        Stopped: `control` stopped the work.

    Costs O(n^2 d) time if exact, O(n * expansion * d) in float32 with cells, about O(n log n d) with usearch; memory
    n * m * 16 bytes and a copy of X in float32, with usearch 300 bytes a row more. Cells share the work among threads;
    a million rows of 64 take some 100 processor seconds. Sparse rows take a share of all products of two entries in a
    column: what common columns can add to a cosine is bounded by the rows' lengths in these, and left out where a
    neighbour would need more. Of texts, 132,000 rows take 80 processor seconds; memory of four copies of X.

    References:
        Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018.
        Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007 (sparse rows).
        Anastasiu, Karypis, "L2Knng: fast exact k-nearest neighbor graph construction with L2-norm pruning", CIKM 2015.

    Examples:
        >>> from kofn.neighbors import knn_graph
        >>> graph = knn_graph([[0.0], [1.0], [3.0]], n_neighbors=1)
        >>> graph.csr.toarray().tolist(), graph.engine, graph.recall
        ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], 'exact', 1.0)
    """
    X = _readable(X, metric, engine)
    checks.choice(metric, "metric", FROM_ROWS)
    checks.choice(engine, "engine", ("auto", "exact", "cells", "usearch"))
    count = checks.count(n_neighbors, "n_neighbors")
    if tasks is not None and not isinstance(tasks, Engine):
        raise InputError(f"tasks is {type(tasks).__name__}; give an open engine, such as kofn.engines.local.Local()")
    n = X.shape[0]
    if count >= n:
        raise InputError(f"n_neighbors={count} of {n} rows: a row has {n - 1} others; ask for at most that")
    if checks.is_sparse(X):
        exactly = neighbors_of_sparse(X, count, n_threads, Control() if control is None else control, tasks)
        indices, lengths, slack = exactly
        kind: type[np.floating[Any]] = np.float32 if X.dtype == np.float32 else np.float64
        rounded = slack + float(lengths.max()) * float(np.finfo(kind).eps)
        return KnnGraph(indices, lengths.astype(kind), "exact", 1.0, np.empty(0, np.int64), np.empty(0), rounded)
    installed = importlib.util.find_spec("usearch") is not None
    if engine == "usearch" and not installed:
        raise InputError("engine='usearch' needs the package usearch: pip install 'kofn[neighbors]'; or engine='exact'")
    if engine == "auto":
        engine = "cells" if n > _EXACT_ROWS else "exact"
    space = geometry(X, metric)
    control = Control() if control is None else control
    centred = Centred.of(space, control)
    rows, recall, missed = np.empty(0, np.int64), 1.0, np.empty(0)
    if engine == "exact":
        neighbors = all_pairs(centred, count, control, tasks)
        indices, lengths = nearest_first(space, neighbors, n_threads, control)
    else:
        by = by_cells if engine == "cells" else by_index
        neighbors = by(centred, count, expansion, n_threads, control, tasks)
        indices, lengths = nearest_first(space, neighbors, n_threads, control)
        rows = _drawn(n, checks.count(sample, "sample"), seed)
        recall, missed = _measure(centred, indices, lengths, rows, metric, control)
    kind = np.float32 if X.dtype == np.float32 else np.float64
    distances = np.empty(lengths.shape, kind)
    for part in blocks(0, n, count):
        distances[part] = _distance(lengths[part], metric, space)
    # Products in float64 distinguish rows whose squared distances differ by more than this; a stored distance may also
    # be rounded up.
    close = math.sqrt(ROUNDING * float(centred.squares.max()))
    rounded = float(distances.max()) * float(np.finfo(kind).eps)
    slack = float(_distance(np.array(close), metric, space)) + rounded
    return KnnGraph(indices, distances, engine, recall, rows, missed, slack)


def _readable(X: Any, metric: str, engine: str) -> Any:
    """The rows, checked; sparse ones stay what they are.

    Raises:
        InputError: sparse rows with another metric than cosine, or with usearch.
    """
    if not checks.is_sparse(X):
        return checks.matrix(X)
    if metric != "cosine":
        raise InputError(f"X is sparse and metric={metric!r}; say metric='cosine', or give a dense array (X.toarray())")
    if engine == "usearch":
        raise InputError("X is sparse and engine='usearch' reads dense rows; say engine='exact' or leave it out")
    return checks.sparse_rows(X)


def _drawn(n: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(seed).integers(0, n, size))


def _distance(lengths: Floats, metric: str, space: Geometry) -> Floats:
    """The metric's distances from lengths between the points of its geometry."""
    if metric == "euclidean":
        return lengths * space.unit
    return lengths**2 * (0.5 if metric == "cosine" else space.unit)


def _measure(
    centred: Centred,
    indices: NDArray[np.int32],
    lengths: Floats,
    rows: NDArray[np.int64],
    metric: str,
    control: Control,
) -> tuple[float, Floats]:
    """Recall on a sample of rows, and how much nearer than the farthest listed neighbour the nearest unlisted row is.

    A float32 product rules out nearly all pairs, with a margin for its rounding; the rest are decided in float64.
    """
    space = centred.space
    n, width = space.rows.shape
    longest = math.sqrt(float(centred.squares.max()))
    sample = centred.points(rows)
    sizes = np.einsum("ij,ij->i", sample, sample)
    margin = (width + 8) * 2.0**-23 * (np.sqrt(sizes) * longest + longest**2)
    # |x - y|^2 < reach^2 where x.y - |y|^2 / 2 > (|x|^2 - reach^2) / 2.
    least = ((sizes - lengths[rows, -1] ** 2) / 2 - margin).astype(np.float32)
    sample32 = np.column_stack([sample, np.ones(len(rows))]).astype(np.float32)
    pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for part in blocks(0, n, len(rows), width):
        control.check()
        block = centred.points(part)
        block32 = np.column_stack([block, np.einsum("ij,ij->i", block, block) / -2]).astype(np.float32)
        row, column = np.divmod(np.flatnonzero((sample32 @ block32.T >= least[:, None]).ravel()), len(block))
        pairs.append((row, column + part.start))
    row, column = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(row, kind="stable")
    ends = np.cumsum(np.bincount(row, minlength=len(rows)))
    hits, missed = 0, np.zeros(len(rows))
    count = indices.shape[1]
    for r, near in enumerate(np.split(column[order], ends[:-1])):
        control.check()
        own = int(rows[r])
        unlisted = near[~np.isin(near, indices[own]) & (near != own)]
        away = lengths_to(space, own, unlisted)
        away = np.sort(away[away < lengths[own, -1]])
        # The unlisted rows among the nearest `count` of all were missed.
        last = np.sort(np.concatenate([lengths[own], away]))[count - 1]
        hits += int((lengths[own] <= last).sum())
        if len(away):
            farthest, nearest = _distance(np.array([lengths[own, -1], away[0]]), metric, space).tolist()
            missed[r] = farthest - nearest
    return hits / (len(rows) * count), missed
