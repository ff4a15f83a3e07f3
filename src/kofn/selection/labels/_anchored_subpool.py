"""Cut a huge, imbalanced pool down to the k rows most like labelled rows of each class, to score only those."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.integer_programs import unit_of
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.basics._top_k import one_score_an_item
from kofn.selection.labels._labelled_rows import labelled_rows

__all__ = ["anchored_subpool", "subpool_index"]

METRICS = ("cosine", "euclidean", "sqeuclidean")
# Similarities kept at a time, so that no table of pool by anchors is ever built.
_BLOCK = 1 << 21


@method(
    "select",
    draws=Draw(plain={"y": ["a", "-1", "-1", "b", "-1", "-1"]}, states_no_value=True),
    cost="O(a n d) time for a anchors, or a searches of an index handed in; O(a n_neighbors) memory",
    exact="exact neighbours without an index; no promise on the rows outside the subpool",
    paper=169,
)
def anchored_subpool(
    X: Any,
    *,
    y: Any,
    k: int,
    metric: str = "cosine",
    scores: Any = None,
    exclude: Any = None,
    seed: int | None = None,
    unlabelled: Hashable = -1,
    anchors: Literal["kmeans++", "random", "scores", "all"] | None = None,
    n_anchors: int = 10,
    n_neighbors: int = 50,
    index: Any = None,
) -> Selection:
    """Cut a huge, imbalanced pool down to the k rows most like labelled rows of each class, to score only those.

    Each class gives up to `n_anchors` of its labelled rows as anchors, so that a rare class counts as much as a common
    one; every anchor retrieves its nearest unlabelled rows; a row's score is its mean similarity to the anchors that
    retrieved it, and the k best are the subpool. Any acquisition method then runs on the subpool alone. Fresh anchors
    each round (another `seed`) keep active learning from staying at the first decision boundary.

    Args:
        X: (n, d) all rows, labelled or not.
        y: (n,) labels, `unlabelled` where a row has none, as in sklearn.semi_supervised.
        k: the number of rows in the subpool.
        metric: "cosine" (default; the similarity is the cosine, 0 for a row of zeros), "euclidean" or "sqeuclidean"
            (the similarity is minus the distance).
        scores: (n,) acquisition scores, of labelled rows too: the highest-scored labelled rows of each class are its
            anchors.
        exclude: rows that may not be retrieved although they have no label.
        unlabelled: the value in y of rows without a label, default -1.
        anchors: "kmeans++" (spread out by D^2 sampling), "random", "all", or "scores" (the paper's entropy anchors).
            None (default) is "scores" where scores are given, else "kmeans++".
        n_anchors: the most anchors of each class; the paper has 10 to 50.
        n_neighbors: rows that each anchor retrieves; raised to the least that gives k different rows. Where more than
            k rows are retrieved the similarity decides, which favours the denser classes: the paper has
            n_neighbors = k / anchors.
        index: a usearch index over the rows of X under their row numbers (`subpool_index`), searched in place of the
            pool, so that a round's work does not grow with n. Its neighbours are approximate.

    Returns:
        Selection of k unlabelled rows, best first; `gains` are their scores, `info["anchors"]` the anchors' rows.

    Raises:
        InputError: no labelled row, no unlabelled row, an index of another width or metric.
        InfeasibleError: k above the number of open rows.

    Costs O(a n d) time for a anchors in BLAS blocks, or a searches of an index; `info["distance_evals"]` counts the
    distances. O(a n_neighbors) memory beside a block.

    References:
        Lesci, Vlachos, "AnchorAL: Computationally Efficient Active Learning for Large and Imbalanced Datasets",
        NAACL 2024.

    Examples:
        >>> from kofn.selection import anchored_subpool
        >>> X = [[0.0], [0.1], [5.0], [5.2], [9.0]]
        >>> anchored_subpool(X, y=[0, -1, 1, -1, -1], k=2, metric="euclidean", seed=0).indices.tolist()
        [1, 3]
    """
    checks.choice(metric, "metric", METRICS)
    kind = anchors or ("kmeans++" if scores is None else "scores")
    n_anchors, n_neighbors = checks.count(n_anchors, "n_anchors"), checks.count(n_neighbors, "n_neighbors")
    if (scores is not None) != (kind == "scores"):
        raise InputError(f"scores go with anchors='scores', and only with it; anchors is {kind!r}")
    if scores is not None:
        one_score_an_item(scores)
    labelled = labelled_rows(y, unlabelled)
    if not labelled.any():
        raise InputError(
            f"y: no row is labelled, all hold unlabelled={checks.shown(unlabelled)}; label a few first (random_sample)"
        )
    open_rows = ~labelled
    if exclude is not None:
        open_rows[exclude] = False
    most = int(open_rows.sum())
    if k > most:
        raise InfeasibleError(
            f"k={k}, but {most} of {len(X)} rows are neither labelled nor excluded; lower k or exclude fewer"
        )
    space = _Space(X, metric)
    rows, compared = _anchors(space, y, labelled, kind, n_anchors, scores, np.random.default_rng(seed))
    search = _Exact(space, rows, open_rows) if index is None else _Indexed(space, rows, open_rows, index)
    # The least that could give k different rows; neighbourhoods overlap, so it may take more.
    reach = min(max(n_neighbors, -(-k // len(rows))), most)
    while True:
        hits = search.nearest(reach)
        different = len(np.unique(hits[hits >= 0]))
        if different >= k:
            break
        if reach == most:
            raise InfeasibleError(f"the index holds {different} open rows, k={k}; lower k or index every row of X")
        reach = min(2 * reach, most)
    hits = _no_wider(hits, k, n_neighbors)
    retrieved, position = np.unique(hits, return_inverse=True)
    if retrieved[0] < 0:
        retrieved, position = retrieved[1:], position - 1
    similarity = _mean_similarity(space, rows, retrieved, position.reshape(hits.shape))
    best = np.lexsort((retrieved, -similarity))[:k]
    return Selection(
        n=len(X),
        indices=retrieved[best].astype(np.int64),
        gains=similarity[best],
        status="heuristic",
        used={"k": k},
        budget={"k": k},
        info={"anchors": rows, "n_neighbors": hits.shape[1], "distance_evals": compared + search.compared},
    )


@helper
def subpool_index(
    X: ArrayLike, *, metric: Literal["cosine", "euclidean", "sqeuclidean"] = "cosine", n_threads: int | None = None
) -> Any:
    """Build a usearch index of the rows of X under their row numbers, for every round of `anchored_subpool(index=)`.

    Args:
        X: (n, d).
        metric: "cosine", or "euclidean" and "sqeuclidean" (the same index).
        n_threads: threads to build with; only one thread always builds the same graph, which misses the same
            neighbours.

    Returns:
        usearch.index.Index.

    Raises:
        InputError: bad rows, or usearch is not installed.

    Costs O(n log n) distances, once.

    Examples:
        >>> from kofn.selection import subpool_index
        >>> len(subpool_index([[0.0, 1.0], [1.0, 0.0]]))
        2
    """
    rows = checks.matrix(X)
    checks.choice(metric, "metric", METRICS)
    threads = 0 if n_threads is None else checks.count(n_threads, "n_threads")
    try:
        from usearch.index import Index
    except ImportError:
        raise InputError("subpool_index needs usearch; pip install 'kofn[neighbors]'") from None
    index = Index(ndim=rows.shape[1], metric="cos" if metric == "cosine" else "l2sq", dtype="f32")
    index.add(np.arange(len(rows)), np.ascontiguousarray(rows, np.float32), threads=threads)
    return index


class _Space:
    """The rows as points whose squared distances order the pairs: the rows themselves, or the rows at unit length."""

    def __init__(self, X: NDArray[Any], metric: str) -> None:
        self.X, self.metric = X, metric

    def points(self, rows: Any) -> NDArray[Any]:
        """Coordinates of the given rows; a row of zeros has no direction and stays zero."""
        points = self.X[rows]
        if self.metric != "cosine":
            return points
        # The largest entry is taken out first: squares of tiny or huge rows would vanish or overflow.
        top = np.abs(points).max(axis=1, keepdims=True)
        points = points / np.where(top > 0, top, 1)
        norm = np.sqrt((points * points).sum(axis=1, keepdims=True))
        return np.asarray(points / np.where(norm > 0, norm, 1))

    def similarity(self, a: Floats, b: Floats) -> Floats:
        """Similarity of points pair by pair, in float64 from differences."""
        if self.metric == "cosine":
            return np.asarray((a * b).sum(axis=-1))
        gap = a - b
        square = (gap * gap).sum(axis=-1)
        return np.asarray(-np.sqrt(square) if self.metric == "euclidean" else -square)


def _anchors(
    space: _Space,
    y: NDArray[Any],
    labelled: NDArray[np.bool_],
    kind: str,
    most: int,
    scores: Any,
    rng: np.random.Generator,
) -> tuple[Ints, int]:
    """The anchors' rows, class by class, and the number of distances computed to choose them."""
    chosen, compared = [], 0
    for name in np.unique(y[labelled]):
        rows = np.flatnonzero(labelled & (y == name))
        if kind == "all" or len(rows) <= most:
            chosen.append(rows)
        elif kind == "random":
            chosen.append(rng.choice(rows, most, replace=False))
        elif kind == "scores":
            chosen.append(rows[np.argsort(-scores[rows], kind="stable")[:most]])
        else:
            chosen.append(rows[_spread_out(space.points(rows).astype(np.float64), most, rng)])
            compared += len(rows) * most
    return np.concatenate(chosen).astype(np.int64), compared


def _spread_out(points: Floats, count: int, rng: np.random.Generator) -> Ints:
    """k-means++ seeding: each next point with probability proportional to its squared distance to those before."""
    picks = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    for _ in range(count - 1):
        gap = points - points[picks[-1]]
        nearest = np.minimum(nearest, (gap * gap).sum(axis=1))
        nearest[picks] = 0.0
        if nearest.any():
            picks.append(int(rng.choice(len(points), p=nearest / nearest.sum())))
        else:  # only copies of the picks are left
            picks.append(int(rng.choice(np.setdiff1d(np.arange(len(points)), picks))))
    return np.array(picks, np.int64)


def _no_wider(hits: Ints, k: int, n_neighbors: int) -> Ints:
    """The neighbourhoods cut to the width that gives k different rows, or to `n_neighbors` if that is wider.

    Wider ones would contain more than k rows, of which the mean similarity keeps those of the densest class.
    """
    nearest_rank = np.full(hits.max() + 1, hits.shape[1])
    np.minimum.at(nearest_rank, np.maximum(hits, 0), np.where(hits >= 0, np.arange(hits.shape[1]), hits.shape[1]))
    width = int(np.partition(nearest_rank, k - 1)[k - 1]) + 1
    return hits[:, : max(width, n_neighbors)]


class _Exact:
    """The nearest open rows of every anchor, nearest first, from blocks of matrix products."""

    def __init__(self, space: _Space, anchors: Ints, open_rows: NDArray[np.bool_]) -> None:
        self.space, self.rows = space, np.flatnonzero(open_rows)
        # By a power of 2, which changes no order: squares of rows at 1e25 are beyond float32, and at 1e-25 vanish.
        largest = max(abs(float(space.X.max())), abs(float(space.X.min())))
        self.unit = 1.0 if space.metric == "cosine" else unit_of(largest, 0)
        self.points = self._points(anchors)
        # Points are centred at the anchors' mean: far from the origin the digits of the distances would cancel.
        self.centre = 0.0 if space.metric == "cosine" else self.points.mean(axis=0)
        self.points = self.points - self.centre
        self.compared = 0

    def _points(self, rows: Ints) -> NDArray[Any]:
        points = self.space.points(rows)
        return points if self.unit == 1 else points / points.dtype.type(self.unit)

    def nearest(self, count: int) -> Ints:
        """(anchors, count) rows."""
        best = np.empty((len(self.points), 0))
        rows = np.empty(best.shape, np.int64)
        step = max(1, _BLOCK // max(len(self.points), self.points.shape[1]))
        for low in range(0, len(self.rows), step):
            batch = self.rows[low : low + step]
            block = self._points(batch) - self.centre
            # For one anchor a, |x - a|^2 orders the rows x as |x|^2 - 2 x.a does.
            far = (block * block).sum(axis=1) - 2 * (self.points @ block.T)
            best = np.concatenate([best, far], axis=1)
            rows = np.concatenate([rows, np.broadcast_to(batch, far.shape)], axis=1)
            if best.shape[1] > count:
                keep = np.sort(np.argpartition(best, count - 1, axis=1)[:, :count], axis=1)
                best, rows = np.take_along_axis(best, keep, axis=1), np.take_along_axis(rows, keep, axis=1)
            self.compared += far.size
        return np.take_along_axis(rows, np.argsort(best, axis=1, kind="stable"), axis=1)


class _Indexed:
    """The same from an index, which may miss some rows; labelled and excluded rows are passed over."""

    def __init__(self, space: _Space, anchors: Ints, open_rows: NDArray[np.bool_], index: Any) -> None:
        width = getattr(index, "ndim", None)
        if width != space.X.shape[1]:
            raise InputError(f"index has {width} columns, X has {space.X.shape[1]}; build it with subpool_index(X)")
        kind = str(getattr(getattr(index, "metric_kind", None), "name", "")).lower()
        if kind != ("cos" if space.metric == "cosine" else "l2sq"):
            raise InputError(f"index measures {kind!r}, metric={space.metric!r}; use subpool_index(X, metric=...)")
        if len(index) > len(open_rows):
            raise InputError(f"index holds {len(index)} rows, X has {len(open_rows)}; build it from this X")
        self.index, self.open_rows = index, open_rows
        self.points = np.ascontiguousarray(space.X[anchors], np.float32)
        self.closed = int((~open_rows).sum())
        self.compared = 0

    def nearest(self, count: int) -> Ints:
        """(anchors, count) rows, -1 where the index finds no more."""
        ask = count + min(self.closed, count)
        while True:
            matches = self.index.search(self.points, min(ask, len(self.index)))
            self.compared += int(matches.computed_distances)
            keys = np.atleast_2d(np.asarray(matches.keys)).astype(np.int64)
            is_open = np.zeros(keys.shape, bool)
            # A search that finds too few rows fills up with keys that are not rows.
            valid = (keys >= 0) & (keys < len(self.open_rows))
            is_open[valid] = self.open_rows[keys[valid]]
            if is_open.sum(axis=1).min() >= count or ask >= len(self.index):
                break
            ask *= 2
        order = np.argsort(~is_open, axis=1, kind="stable")[:, :count]
        return np.asarray(np.where(np.take_along_axis(is_open, order, 1), np.take_along_axis(keys, order, 1), -1))


def _mean_similarity(space: _Space, anchors: Ints, retrieved: Ints, positions: Ints) -> Floats:
    """(retrieved,) mean similarity of each row to the anchors that retrieved it; positions (anchors, count) or -1."""
    points, targets = space.points(anchors).astype(np.float64), space.points(retrieved).astype(np.float64)
    total, times = np.zeros(len(retrieved)), np.zeros(len(retrieved))
    for anchor, hit in zip(points, positions, strict=True):
        hit = hit[hit >= 0]
        # No anchor retrieves a row twice, so plain indexing adds once.
        total[hit] += space.similarity(targets[hit], anchor)
        times[hit] += 1
    return np.asarray(total / times)
