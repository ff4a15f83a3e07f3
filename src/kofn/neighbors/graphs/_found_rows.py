"""The neighbours of rows: by all products, or by an index of usearch; here, or part by part in tasks of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.runtime import Control, Stopped
from kofn.engines.base import Engine, stopping
from kofn.engines.threads import cores, spread
from kofn.neighbors.graphs._boundary import Boundary, lengths_to
from kofn.objectives.similarity import Geometry

# Entries of a block of products and multiplications in it; rows that an index takes or answers between two looks at the
# clock, and their coordinates.
_PRODUCTS, _MULTIPLICATIONS = 1 << 22, 1 << 31
_ROWS_AT_ONCE, _COORDINATES = 1 << 14, 1 << 16
_PIVOTS = 1024
# usearch: links a row, and rows kept in view while a row is added.
_LINKS, _VIEW = 24, 64
# Up to this many entries of neighbours' coordinates NumPy is faster than loading compiled code.
_COMPILED = 1 << 26
# The error of a squared distance from float64 products, relative to the largest squared length, is below this.
ROUNDING = 1e-12
# Multiplications of a task.
_OF_TASK = 1 << 33


def blocks(first: int, stop: int, width: int, depth: int = 1) -> Iterator[slice]:
    """Blocks of rows whose products with `width` rows of `depth` coordinates are few enough to be made at once."""
    step = max(1, min(_PRODUCTS // width, _MULTIPLICATIONS // (width * depth)))
    return (slice(low, min(low + step, stop)) for low in range(first, stop, step))


@dataclass(frozen=True, eq=False)
class Centred:
    """Points less their mean, without which products of rows far from the origin would cancel."""

    space: Geometry
    centre: Floats
    squares: Floats

    @classmethod
    def of(cls, space: Geometry, control: Control) -> Centred:
        n, width = space.rows.shape
        total, squares = np.zeros(width), np.empty(n)
        for part in blocks(0, n, width):
            control.check()
            total += space.points(part).sum(axis=0)
        centre = total / n
        for part in blocks(0, n, width):
            control.check()
            gap = space.points(part) - centre
            squares[part] = np.einsum("ij,ij->i", gap, gap)
        return cls(space, centre, squares)

    def points(self, rows: Any) -> Floats:
        return self.space.points(rows) - self.centre


class OfTask(Control):
    """Stops a task where the engine says so."""

    def stopped(self) -> bool:
        return stopping()


@dataclass(frozen=True, eq=False)
class _AllPairs:
    """What finding neighbours by all products takes."""

    centred: Centred
    points: Floats
    boundary: Boundary
    count: int

    @classmethod
    def of(cls, centred: Centred, count: int, control: Control) -> _AllPairs:
        n, width = centred.space.rows.shape
        points = np.empty((n, width))
        for part in blocks(0, n, width):
            control.check()
            points[part] = centred.points(part)
        error = ROUNDING * float(centred.squares.max())
        return cls(centred, points, Boundary(centred.space, error, n * count * width > _COMPILED), count)

    def fill(self, rows: slice, out: NDArray[np.int32], control: Control) -> None:
        """The neighbours of some rows, in no order."""
        n, width = self.points.shape
        for part in blocks(rows.start, rows.stop, n, width):
            control.check()
            products = self.points[part] @ self.points.T
            products *= -2
            products += self.centred.squares
            products[np.arange(len(products)), np.arange(part.start, part.stop)] = np.inf
            out[part] = self.boundary.nearest(products, part.start, self.count, control)
            control.step(part.stop)


def exact_rows(part: tuple[int, int], pairs: _AllPairs) -> NDArray[np.int32]:
    """The neighbours of rows by all products, in no order."""
    # Of the array for all rows no more takes memory than is written.
    out = np.empty((pairs.centred.space.n, pairs.count), np.int32)
    pairs.fill(slice(*part), out, OfTask())
    return out[slice(*part)].copy()


def all_pairs(centred: Centred, count: int, control: Control, engine: Engine | None = None) -> NDArray[np.int32]:
    """The neighbours of all rows by all products, in no order."""
    pairs, (n, width) = _AllPairs.of(centred, count, control), centred.space.rows.shape
    out = np.empty((n, count), np.int32)
    if engine is None:
        pairs.fill(slice(0, n), out, control)
        return out
    step = max(1, _OF_TASK // (n * width))
    parts = [(low, min(low + step, n)) for low in range(0, n, step)]
    for (low, high), rows in zip(parts, of_tasks(engine, exact_rows, parts, pairs, control), strict=True):
        out[low:high] = rows
        control.step(high)
    return out


def of_tasks(
    engine: Engine, work: Callable[..., Any], parts: Sequence[Any], shared: Any, control: Control
) -> Iterator[Any]:
    """The results of all parts.

    Raises:
        Stopped: `control` stopped the work.
    """
    results = engine.map(work, parts, shared=(engine.share(shared),), stopped=control.stopped)
    for _ in parts:
        try:
            yield next(results)
        except StopIteration:
            raise Stopped from None


@dataclass(frozen=True, eq=False)
class _Lookup:
    """An index, and what it is asked: `stored` are its bytes as usearch saves it."""

    centred: Centred
    stored: NDArray[np.uint8]
    count: int
    view: int


def looked_up(part: NDArray[np.int64], lookup: _Lookup) -> NDArray[np.int32]:
    """The neighbours of rows by the index, in no order."""
    index = _empty_index(lookup.centred.space.rows.shape[1], lookup.view)
    index.view(lookup.stored)
    return _search(index, lookup.centred, part, lookup.count, 1)


def by_index(
    centred: Centred,
    count: int,
    expansion: int | None,
    n_threads: int | None,
    control: Control,
    engine: Engine | None = None,
) -> NDArray[np.int32]:
    """The neighbours of all rows by an index, in no order: one thread builds it, since more would race."""
    n, width = centred.space.rows.shape
    view = max(_VIEW, count + 1) if expansion is None else max(checks.count(expansion, "expansion"), count + 1)
    index = _empty_index(width, view)
    # Neighbours added one after another use the same part of the index, which is then in the cache: this order takes a
    # third of the time.
    order = _near_each_other(centred, control)
    at_once = min(max(16, _COORDINATES // width), _ROWS_AT_ONCE)
    for low in range(0, n, at_once):
        control.check()
        part = order[low : low + at_once]
        index.add(part, narrow(centred, part), threads=1)
        control.step((low + len(part)) // 2)
    out = np.empty((n, count), np.int32)
    parts = [order[low : low + at_once] for low in range(0, n, at_once)]
    if engine is None:
        threads = cores(n_threads)
        results: Iterator[Any] = (_search(index, centred, part, count, threads) for part in parts)
    else:
        lookup = _Lookup(centred, np.frombuffer(index.save(), np.uint8), count, view)
        results = of_tasks(engine, looked_up, parts, lookup, control)
    done = n
    for part, rows in zip(parts, results, strict=True):
        control.check()
        out[part] = rows
        done += len(part)
        control.step(done // 2)
    return out


def _empty_index(width: int, view: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=width, metric="l2sq", dtype="f32", connectivity=_LINKS, expansion_add=_VIEW, expansion_search=view
    )


def narrow(centred: Centred, rows: Any) -> NDArray[np.float32]:
    """Points less their mean, in float32."""
    return centred.points(rows).astype(np.float32)


def _search(index: Any, centred: Centred, part: NDArray[np.int64], count: int, threads: int) -> NDArray[np.int32]:
    """The neighbours of some rows by the index."""
    # For a single row usearch returns another type; so the first row is always searched twice.
    matches: Any = index.search(narrow(centred, np.append(part, part[0])), count + 1, threads=threads)
    keys, counts = np.asarray(matches.keys)[:-1].astype(np.int64), np.asarray(matches.counts)[:-1]
    own = keys == part[:, None]
    # A row missing from its own list loses its farthest neighbour instead.
    short = counts <= count
    own[short] = False
    own[~own.any(axis=1), -1] = True
    out = keys[~own].reshape(len(part), count).astype(np.int32)
    for position in np.flatnonzero(short).tolist():
        out[position] = exactly(centred.space, int(part[position]), count)
    return out


def _near_each_other(centred: Centred, control: Control) -> NDArray[np.int64]:
    """The rows in an order in which neighbours follow each other: by the nearest of some pivots."""
    n, width = centred.space.rows.shape
    pivots = narrow(centred, np.arange(0, n, max(1, n // _PIVOTS))[:_PIVOTS])
    half = np.einsum("ij,ij->i", pivots, pivots) / 2
    nearest = np.empty(n, np.int64)
    for part in blocks(0, n, len(pivots), width):
        control.check()
        nearest[part] = np.argmax(narrow(centred, part) @ pivots.T - half, axis=1)
    return np.argsort(nearest, kind="stable")


def exactly(space: Geometry, row: int, count: int) -> NDArray[np.int32]:
    """The neighbours of one row for which an approximate search did not see enough."""
    away = lengths_to(space, row, np.arange(space.n))
    away[row] = np.inf
    return np.argsort(away, kind="stable")[:count].astype(np.int32)


def nearest_first(
    space: Geometry, indices: NDArray[np.int32], n_threads: int | None, control: Control
) -> tuple[NDArray[np.int32], Floats]:
    """The neighbours with their lengths, nearest first; ties by index."""
    n, count = indices.shape
    lengths = np.empty((n, count))
    if indices.size * space.rows.shape[1] > _COMPILED:
        from kofn.neighbors.graphs import _kernels

        step = min(1024, max(1, _PRODUCTS // (count * space.rows.shape[1])))
        for start in range(0, n, 16 * step):
            control.check()
            stop = min(start + 16 * step, n)

            def work(low: int, high: int, start: int = start, stop: int = stop) -> None:
                ends = start + low * step, min(start + high * step, stop)
                _kernels.lengths(*ends, space.rows, space.scale, indices, lengths)

            spread(work, -(-(stop - start) // step), cores(n_threads), shares=4)
    else:
        for part in blocks(0, n, count * space.rows.shape[1]):
            control.check()
            gap = space.points(indices[part].ravel().astype(np.int64)).reshape(*indices[part].shape, -1)
            gap -= space.points(part)[:, None]
            lengths[part] = np.sqrt(np.einsum("ijk,ijk->ij", gap, gap))
    for part in blocks(0, n, count):
        control.check()
        by_index = np.argsort(indices[part], axis=1)
        order = np.argsort(np.take_along_axis(lengths[part], by_index, axis=1), axis=1, kind="stable")
        order = np.take_along_axis(by_index, order, axis=1)
        indices[part] = np.take_along_axis(indices[part], order, axis=1)
        lengths[part] = np.take_along_axis(lengths[part], order, axis=1)
    return indices, lengths
