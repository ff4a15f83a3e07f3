"""Cells of a pool: rows that lie near one another, brought together in a file so that each cell is read at once.

What is done to a fragment or a cell is a pure function of it and of what all share, so that any engine can run it.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.pools import Fragment, Pool
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.io.stored_rows import temporary, writing
from kofn.selection.training_data._near_vectors import Spread, nearness_of

T = TypeVar("T")
# Rows that are compared with the centres at once, and steps of k-means.
_BLOCK, _STEPS = 2_048, 6
# Of so many rows a cell of the sample the centres are means; a cell may hold so many times the rows it should, and the
# centres of larger ones are so often split.
SAMPLE_A_CELL, _LARGEST, _SPLITS = 32, 16, 3


def watched(results: Iterable[T], control: Control) -> Iterator[T]:
    """The results of tasks, each a step, until the work is interrupted.

    Raises:
        KeyboardInterrupt: it was.
    """
    for done, result in enumerate(results, 1):
        if control.interrupted:
            raise KeyboardInterrupt
        control.step(done)
        yield result


@dataclass(frozen=True)
class Look:
    """What a first look at a fragment shows.

    Attributes:
        digests: (rows, 2) 128 bits of each row, by which equal rows are told.
        rows: how many rows count.
        size: a power of two above every entry.
        mean: the mean of these rows, divided by `size`.
        spread: the sum of squared distances to it, so divided.
        sampled: the vectors of those rows that are in the sample.
    """

    digests: Ints
    rows: int
    size: float
    mean: Floats
    spread: float
    sampled: Array


def look_at(fragment: Fragment, pool: Pool, open_: Mask, sample: Ints) -> Look:
    """Look at a fragment; `open_` are the rows of the pool that count, `sample` row numbers, rising."""
    X = np.ascontiguousarray(pool.read(fragment) + 0.0)  # a zero has one sign
    digests = _digests(X)
    counting = X[open_[fragment.first_row : fragment.stop]].astype(np.float64)
    size = float(2.0 ** np.frexp(np.abs(counting).max(initial=0.0))[1])
    scaled = counting / size
    mean = scaled.sum(axis=0) / max(1, len(scaled))
    scaled -= mean
    low, high = np.searchsorted(sample, (fragment.first_row, fragment.stop))
    spread = float(np.einsum("ij,ij->", scaled, scaled))
    return Look(digests, len(scaled), size, mean, spread, X[sample[low:high] - fragment.first_row])


def _digests(X: Array) -> Ints:
    """128 bits of each row."""
    if not X.size:
        return np.zeros((len(X), 2), np.int64)
    stored, step = X.view(np.uint8).data.cast("B", (X.nbytes,)), X.nbytes // len(X)
    ends = range(step, X.nbytes + 1, step)
    bits = b"".join([hashlib.blake2b(stored[end - step : end], digest_size=16).digest() for end in ends])
    return np.frombuffer(bits, "<i8").reshape(-1, 2)


def spread_of_looks(looks: Sequence[Look]) -> Spread:
    """The spread of the pool whose fragments were looked at."""
    largest = max(look.size for look in looks)
    count, mean, total = 0, np.zeros_like(looks[0].mean), 0.0
    for look in looks:
        if not look.rows:
            continue
        share = look.size / largest
        away = look.mean * share - mean
        total += look.spread * share * share + float(away @ away) * count * look.rows / (count + look.rows)
        count += look.rows
        mean = mean + away * (look.rows / count)
    return Spread(largest, mean, float(np.sqrt(2 * total / max(1, count))) or 1.0)


def learn_centres(X: Array, metric: str, spread: Spread, cells: int, seed: int) -> Array:
    """The centres of so many cells, or fewer, of a sample: k-means, a few steps of it."""
    points = _points(X, metric, spread)
    if not len(points):
        return np.zeros((1, X.shape[1]), np.float32)
    points = np.unique(points, axis=0)
    rng = np.random.default_rng([seed, len(points)])
    cells = min(cells, len(points))
    centres = points[np.sort(rng.choice(len(points), cells, replace=False))]
    for _ in range(_STEPS if cells > 1 else 1):
        nearest = nearest_of(points, centres)
        counts = np.bincount(nearest, minlength=cells)
        order = np.argsort(nearest, kind="stable")
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(points[order].astype(np.float64), np.minimum(starts, len(points) - 1), axis=0)
        filled = counts > 0
        centres = centres.copy()
        centres[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
    return centres


def _points(X: Array, metric: str, spread: Spread) -> Array:
    """Rows where near ones are as far apart as `reach_of` says, in float32; rows of zeros left out by the cosine."""
    nearness, empty = nearness_of(X, 1.0, metric, spread)
    return nearness.rows(np.flatnonzero(~empty)).astype(np.float32)


def nearest_of(points: Array, centres: Array) -> Ints:
    """The nearest centre of each point, the first of those that are equally near."""
    nearest = np.empty(len(points), np.int64)
    halves = np.einsum("ij,ij->i", centres, centres) / 2
    for low in range(0, len(points), _BLOCK):
        products = points[low : low + _BLOCK] @ centres.T
        products -= halves
        nearest[low : low + _BLOCK] = products.argmax(axis=1)
    return nearest


@dataclass(frozen=True)
class Sorted:
    """The different rows of a fragment, cell by cell.

    Attributes:
        rows: their numbers among the different rows of the pool.
        counts: how many lie in each cell.
        vectors: theirs.
    """

    rows: Ints
    counts: Ints
    vectors: Array


def sort_rows(fragment: Fragment, pool: Pool, first: Ints, metric: str, spread: Spread, centres: Array) -> Sorted:
    """Which cell each row lies in; `first` are the pool's different rows, rising."""
    low, high = np.searchsorted(first, (fragment.first_row, fragment.stop))
    X = pool.read(fragment)[first[low:high] - fragment.first_row]
    nearness, empty = nearness_of(X, 1.0, metric, spread)
    nearest = np.zeros(len(X), np.int64)
    for start in range(0, len(X), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(X)))
        block = block[~empty[block]]
        nearest[block] = nearest_of(nearness.rows(block).astype(np.float32), centres)
    order = np.argsort(nearest, kind="stable")
    return Sorted(low + order, np.bincount(nearest, minlength=len(centres)), X[order])


class CellFile:
    """The vectors of a pool's different rows in a temporary file, cell by cell within each fragment.

    Args:
        width: of the vectors.
        dtype: of the vectors.
        cells: how many cells there are.
        work: the folder of the file; by default the system's.
    """

    def __init__(self, width: int, dtype: Any, cells: int, work: str | os.PathLike[str] | None) -> None:
        self.width, self.dtype, self.cells = width, np.dtype(dtype), cells
        self._path = temporary(".rows", work)
        self._finalizer = weakref.finalize(self, self._path.unlink, missing_ok=True)
        self._starts: list[Ints] = []
        self._rows: list[Ints] = []
        self.written = 0

    def write(self, parts: Iterator[Sorted]) -> None:
        """Write the fragments, one after the other."""
        with writing(self._path), self._path.open("wb") as file:
            for part in parts:
                file.write(np.ascontiguousarray(part.vectors, self.dtype).data)
                self._starts.append(self.written + np.concatenate([[0], np.cumsum(part.counts)]))
                self._rows.append(part.rows)
                self.written += len(part.rows)
        self.rows = np.concatenate(self._rows)
        self.starts = np.array(self._starts)
        self.sizes = (self.starts[:, 1:] - self.starts[:, :-1]).sum(axis=0)
        # Where each row lies in the file, and in which cell.
        self.positions = np.empty(self.written, np.int64)
        self.positions[self.rows] = np.arange(self.written)
        of_position = np.concatenate([np.repeat(np.arange(self.cells), np.diff(starts)) for starts in self.starts])
        self.cell = np.empty(self.written, np.int32)
        self.cell[self.rows] = of_position
        self._rows.clear()

    def rows_of(self, cell: int) -> Ints:
        """The rows of a cell, rising."""
        spans = zip(self.starts[:, cell].tolist(), self.starts[:, cell + 1].tolist(), strict=True)
        return np.concatenate([self.rows[low:high] for low, high in spans])

    def vectors(self, rows: Ints) -> Array:
        """The vectors of these rows."""
        if not len(rows):
            return np.empty((0, self.width), self.dtype)
        # Mapped for this one read, so that its pages do not stay in memory.
        stored = np.memmap(self._path, self.dtype, "r", shape=(self.written, self.width))
        return np.asarray(stored[self.positions[rows]])

    def close(self) -> None:
        """Remove the file."""
        self._finalizer()


def bring_together(
    engine: Engine,
    pool: Pool,
    fragments: Sequence[Fragment],
    first: Ints,
    metric: str,
    spread: Spread,
    centres: Array,
    *,
    seed: int,
    work: str | os.PathLike[str] | None,
    control: Control,
) -> tuple[CellFile, Array]:
    """The cells of a pool in a file, and their centres; those of cells that are far too large are split.

    Args:
        engine: where fragments are read.
        pool: the rows.
        fragments: all of the pool.
        first: the rows that differ from all before them, rising.
        metric: of the cells.
        spread: of the pool.
        centres: of the cells.
        seed: draws the rows of large cells whose means are new centres.
        work: the folder of the file.
        control: asked whether to go on.
    """
    most = max(4 * _BLOCK, _LARGEST * len(first) // len(centres))
    for attempt in range(_SPLITS + 1):
        file = CellFile(pool.width, pool.dtype, len(centres), work)
        shared = (engine.share(pool), engine.share(first), metric, spread, engine.share(centres))
        file.write(watched(engine.map(sort_rows, fragments, shared=shared), control))
        large = np.flatnonzero(file.sizes > most)
        if not len(large) or attempt == _SPLITS:
            break
        more = []
        for cell in large.tolist():
            rows, pieces = file.rows_of(cell), int(2 * file.sizes[cell] // most) + 1
            sample = rows[:: max(1, len(rows) // (SAMPLE_A_CELL * pieces))]
            more.append(learn_centres(file.vectors(sample), metric, spread, pieces, seed))
        file.close()
        centres = np.concatenate([np.delete(centres, large, axis=0), *more])
    return file, centres


def different_rows(digests: Ints, open_: Mask) -> tuple[Ints, Ints]:
    """The rows that are unlike all before them, rising, and for each row which of these it is equal to, or -1.

    Args:
        digests: (n, 2) of the rows.
        open_: (n,) rows that count.
    """
    rows = np.flatnonzero(open_)
    own = digests[rows]
    order = np.lexsort((own[:, 1], own[:, 0]))
    ranked = own[order]
    new = np.ones(len(rows), bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    group = np.cumsum(new) - 1
    # A stable sort has the first of equal rows first.
    first = rows[order[new]]
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    of = np.full(len(open_), -1, np.int64)
    of[rows[order]] = rank[group]
    return np.sort(first), of
