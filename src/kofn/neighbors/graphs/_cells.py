"""The neighbours of rows among those of nearby cells: each cell is multiplied with the cells whose centres are near."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.engines.threads import cores, linear_algebra, spread
from kofn.neighbors.graphs._found_rows import Centred, OfTask, blocks, exactly, narrow, of_tasks
from kofn.objectives.similarity import Geometry

# Rows of a cell; rows that each row is multiplied with, at least, and for each neighbour that is asked for.
_CELL, _VIEW, _VIEW_OF_EACH = 256, 1 << 14, 32
# Cells that are multiplied at once, and cells whose rows are a task.
_CELLS_AT_ONCE, _OF_TASK = 8, 16
# Rows of a part that say along which line it is cut, and rounds of two means for that.
_SAMPLE, _ROUNDS = 1024, 4
# What a product loses of the squared length of a row, and the share of the squared distance to its farthest neighbour
# that it may lose; the share of rows that may lose more before they are looked at in halves, and how often those are.
_ROUNDING, _BLURRED, _MOST_BLURRED, _MOST_HALVINGS = 2.0**-22, 0.01, 0.02, 4
# A distance that loses half as much of itself has lost this share of the squared length by which it was rounded.
_NARROWED = 2.0**-48 / (_BLURRED / 4)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Rows in cells of equal size, and which cells are near each other.

    Attributes:
        space: the points.
        rows: (n,) the rows, cell by cell.
        points: (n, d) their points in that order, less the mean of all.
        starts: (cells + 1,) where each cell begins.
        near: (cells, looked at) the cells nearest to each, itself first.
        count: how many neighbours are wanted.
    """

    space: Geometry
    rows: NDArray[np.int32]
    points: NDArray[np.float32]
    starts: NDArray[np.int64]
    near: NDArray[np.int64]
    count: int

    def neighbors(self, cell: int) -> NDArray[np.int32]:
        """The neighbours (rows of the cell, count) of its rows, in no order."""
        return self._nearest(cell, np.arange(*self.starts[cell : cell + 2]), 0)

    def _nearest(self, cell: int, positions: NDArray[np.int64], depth: int) -> NDArray[np.int32]:
        """The neighbours of the rows at some positions of a cell.

        Where these lie so far apart that products lose the distances to their neighbours, as in a cell that two distant
        groups share, they are looked at in two halves, each seen from its own centre.
        """
        from kofn.neighbors.graphs import _kernels

        # Single precision does for whole cells; halves begin from the rows themselves.
        read = self._exact if depth else self.points.__getitem__
        own = read(positions)
        # Seen from their own centre, products of rows that are near each other lose no digits.
        centre = own.mean(axis=0)
        own = own - centre
        lengths = np.einsum("ij,ij->i", own, own)
        here = np.column_stack([own, np.ones(len(own))]).astype(np.float32, copy=False)
        values = np.empty((len(own), 4 * self.count), np.float32)
        places = np.empty(values.shape, np.int32)
        kept, least = np.zeros(len(own), np.int64), np.full(len(own), -np.inf, np.float32)
        for low in range(0, self.near.shape[1], _CELLS_AT_ONCE):
            spans = [slice(*self.starts[other : other + 2]) for other in self.near[cell, low : low + _CELLS_AT_ONCE]]
            others = np.concatenate([read(span) for span in spans])
            others -= centre
            # |x - y|^2 is small where x.y - |y|^2 / 2 is large.
            there = np.column_stack([others, np.einsum("ij,ij->i", others, others) / -2])
            products = here @ there.astype(np.float32, copy=False).T
            if low == 0:
                products[np.arange(len(own)), positions - self.starts[cell]] = -np.inf
            numbers = np.concatenate([self.rows[span] for span in spans])
            _kernels.keep_largest(products, numbers, self.count, values, places, kept, least)
        _kernels.trim(self.count, values, places, kept)
        # Products that are no numbers are of no use.
        for row in np.flatnonzero(kept < self.count).tolist():
            places[row, : self.count] = exactly(self.space, int(self.rows[positions[row]]), self.count)
        places = places[:, : self.count]
        farthest = lengths - 2 * values[:, : self.count].min(axis=1)
        blur = _ROUNDING * lengths
        if depth == 0:
            # What single precision took off the points themselves.
            blur = np.maximum(blur, _NARROWED * np.einsum("ij,ij->i", self.points[positions], self.points[positions]))
        lost = float(np.mean(blur > _BLURRED * farthest))
        if lost > _MOST_BLURRED and depth < _MOST_HALVINGS:
            line, middle = _between(own)
            beyond = own @ line > middle
            halves = [half for half in (beyond, ~beyond) if half.any()]
            # Rows that single precision does not tell apart stay together, and are looked at in double precision.
            for half in halves if len(halves) == 2 or depth == 0 else ():
                places[half] = self._nearest(cell, positions[half], depth + 1)
        return places

    def _exact(self, positions: Any) -> Floats:
        """The points at some positions, in double precision."""
        return self.space.points(self.rows[positions])


def by_cells(
    centred: Centred,
    count: int,
    expansion: int | None,
    n_threads: int | None,
    control: Control,
    engine: Engine | None = None,
) -> NDArray[np.int32]:
    """The neighbours of all rows among `expansion` rows of the nearest cells, in no order."""
    n = centred.space.n
    view = max(_VIEW, _VIEW_OF_EACH * count) if expansion is None else checks.count(expansion, "expansion")
    out = np.empty((n, count), np.int32)
    # Linear algebra on one thread gives the same bits for any number of threads of ours.
    with linear_algebra(1, "blas"):
        cells = _cut(centred, count, max(view, count + 1), n_threads, control)
        n_cells = len(cells.near)
        parts = [(low, min(low + _OF_TASK, n_cells)) for low in range(0, n_cells, _OF_TASK)]
        if engine is not None:
            for (low, high), lists in zip(parts, of_tasks(engine, near_rows, parts, cells, control), strict=True):
                out[cells.rows[cells.starts[low] : cells.starts[high]]] = lists
                control.step(int(cells.starts[high]))
            return out
        threads = cores(n_threads)
        for low in range(0, n_cells, _OF_TASK * threads):
            high = min(low + _OF_TASK * threads, n_cells)

            def work(first: int, last: int, low: int = low) -> None:
                for cell in range(low + first, low + last):
                    control.check()
                    out[cells.rows[cells.starts[cell] : cells.starts[cell + 1]]] = cells.neighbors(cell)

            spread(work, high - low, threads, shares=4)
            control.step(int(cells.starts[high]))
    return out


def near_rows(part: tuple[int, int], cells: _Cells) -> NDArray[np.int32]:
    """The neighbours of the rows of some cells, cell by cell."""
    control, lists = OfTask(), []
    for cell in range(*part):
        control.check()
        lists.append(cells.neighbors(cell))
    return np.concatenate(lists)


def _cut(centred: Centred, count: int, view: int, n_threads: int | None, control: Control) -> _Cells:
    """Cut the rows in two, and those again, at right angles to the line between two means, until cells are small."""
    n, width = centred.space.rows.shape
    rows, points = np.arange(n, dtype=np.int32), np.empty((n, width), np.float32)
    for part in blocks(0, n, width):
        control.check()
        points[part] = narrow(centred, part)
    # Where a part begins and ends, and how many cells it will be.
    parts = [(0, n, -(-n // _CELL))]
    while parts[0][2] > 1 or parts[-1][2] > 1:
        cut = [(low, low + (high - low) * (many // 2) // many, high, many) for low, high, many in parts]

        def work(first: int, last: int, cut: list[tuple[int, int, int, int]] = cut) -> None:
            for low, middle, high, many in cut[first:last]:
                control.check()
                if many > 1:
                    own = slice(low, high)
                    order = np.argpartition(points[own] @ _between(points[own])[0], middle - low)
                    points[own], rows[own] = points[own][order], rows[own][order]

        spread(work, len(cut), cores(n_threads), shares=4)
        parts = [
            side
            for low, middle, high, many in cut
            for side in ([(low, middle, many // 2), (middle, high, many - many // 2)] if many > 1 else [(low, high, 1)])
        ]
    starts = np.array([low for low, _, _ in parts] + [n])
    centres = np.stack([points[low:high].mean(axis=0) for low, high, _ in parts])
    half = np.einsum("ij,ij->i", centres, centres) / 2
    smallest = int(np.diff(starts).min())
    looked_at = min(len(parts), max(math.ceil(view / _CELL), math.ceil((count + 1) / smallest)))
    near = np.empty((len(parts), looked_at), np.int64)
    for part in blocks(0, len(parts), len(parts), width):
        control.check()
        far = half - centres[part] @ centres.T
        # A cell is the nearest to itself, and the first of its list.
        far[np.arange(len(far)), np.arange(part.start, part.stop)] = -np.inf
        some = np.argpartition(far, looked_at - 1, axis=1)[:, :looked_at]
        order = np.argsort(np.take_along_axis(far, some, axis=1), axis=1, kind="stable")
        near[part] = np.take_along_axis(some, order, axis=1)
    return _Cells(centred.space, rows, points, starts, near, count)


def _between(points: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """The line between the two means of some of the points, and where on it the second becomes the nearer one."""
    some = points[:: max(1, len(points) // _SAMPLE)]
    first = some[np.argmax(((some - some.mean(axis=0)) ** 2).sum(axis=1))]
    second = some[np.argmax(((some - first) ** 2).sum(axis=1))]
    for _ in range(_ROUNDS):
        nearer = some @ (second - first) > (second @ second - first @ first) / 2
        if nearer.all() or not nearer.any():
            break
        first, second = some[~nearer].mean(axis=0), some[nearer].mean(axis=0)
    return second - first, (second @ second - first @ first) / 2
