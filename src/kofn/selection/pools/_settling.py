"""Which rows of a pool stay where rows are compared within their cells and with those of the cells beside.

The rows that stay are those of a search through all rows in the order of preference, in which a row is dropped if it is
near one that was kept before, as far as the two are compared: both in one cell, or one in a cell that the other visits.
A cell is searched by itself; rows that stayed there visit the cells that they may be near a row of; and where one of
them is near a row that is preferred to it, its own cell is searched again without it, until nothing changes. Each time
the most preferred row that was still open is settled, so it ends, and there is one answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.selection.pools._cells import CellFile, watched
from kofn.selection.training_data._near_vectors import (
    Spread,
    near_pairs,
    near_vectors,
    nearness_of,
    reach_of,
    rounding_of,
)

# Centres whose distances to rows are looked at together, and how much further a row may visit for rounding.
_BLOCK, _ROUNDING = 2_048, 1e-4
# Rows that a sample is compared with at once, at least.
_TOGETHER = 8_192


@dataclass(frozen=True)
class Ask:
    """What all cells share.

    Attributes:
        threshold: similarity from which two rows are near.
        metric: "cosine", "euclidean" or "sqeuclidean".
        spread: of the pool.
        centres: of the cells.
        probes: how many other cells a row visits at the most.
    """

    threshold: float
    metric: str
    spread: Spread
    centres: Array
    probes: int


@dataclass(frozen=True)
class CellRows:
    """The rows of one cell, the most preferred first.

    Attributes:
        cell: its number, -1 for rows of several.
        rows: theirs.
        vectors: theirs.
        forced: how many of the first must stay.
    """

    cell: int
    rows: Ints
    vectors: Array
    forced: int


@dataclass(frozen=True)
class Searched:
    """What the search of one cell shows.

    Attributes:
        rows: the rows of the cell, as they were given.
        of: which of the cell's rows each repeats, -1 for a row that stays.
        similarity: of the two.
        visits: (kept, probes) the cells that each row that stays visits, -1 for none.
        cut: how many of these rows may be near rows of further cells.
    """

    rows: Ints
    of: Ints
    similarity: Floats
    visits: NDArray[np.int32]
    cut: int


def search_cell(item: CellRows, ask: Ask) -> Searched:
    """Search one cell by itself."""
    near, similarity = near_vectors(item.vectors, ask.threshold, ask.metric, item.forced, ask.spread)
    dropped = near >= 0
    of = np.full(len(near), -1, np.int64)
    of[dropped] = item.rows[near[dropped]]
    visits, cut = _visits(item.vectors[~dropped], item.cell, ask)
    return Searched(item.rows, of, similarity, visits, cut)


def _visits(X: Array, cell: int, ask: Ask) -> tuple[NDArray[np.int32], int]:
    """The cells that hold rows which rows of one cell may be near, the nearest first, and how many rows have more.

    A row that is near x lies within `reach_of` of it; to lie in another cell it must be beyond the plane between the
    two centres, from which x is ((|x - other|^2 - |x - own|^2) / 2) / |other - own| away.
    """
    visits, cut = np.full((len(X), ask.probes), -1, np.int32), 0
    centres = ask.centres
    if len(centres) == 1:
        return visits, cut
    from kofn.selection.pools import _visit_kernels

    reach = reach_of(ask.threshold, ask.metric) * (1 + _ROUNDING) + _ROUNDING
    nearness, empty = nearness_of(X, ask.threshold, ask.metric, ask.spread)
    apart = np.linalg.norm(centres - centres[cell], axis=1)
    apart[apart == 0] = np.inf
    squares = np.einsum("ij,ij->i", centres, centres)
    # What two products of a row of length 1 may be off by, as a distance.
    slack = 2 * rounding_of(X.shape[1]) * float(np.sqrt(squares.max()) / apart.min())
    for low in range(0, len(X), _BLOCK):
        block = slice(low, min(low + _BLOCK, len(X)))
        rows = nearness.rows(block)
        within = reach + slack * np.linalg.norm(rows, axis=1)
        # A row of zeros has no direction and is near no other cell.
        within[empty[block]] = -np.inf
        products = rows.astype(np.float32) @ centres.T
        cut += _visit_kernels.visits(products, squares / 2, apart, within, cell, visits[block])
    return visits, cut


class Meeting(NamedTuple):
    """Rows that stay in a cell, and rows that visit it.

    Attributes:
        residents, visitors: their numbers.
        new_residents, new_visitors: which of them have not met yet.
        vectors: of the residents and then the visitors.
    """

    residents: Ints
    visitors: Ints
    new_residents: Mask
    new_visitors: Mask
    vectors: Array


class Pairs(NamedTuple):
    """Pairs of rows that are near."""

    left: Ints
    right: Ints
    similarity: Floats


def meet(item: Meeting, ask: Ask) -> Pairs:
    """The near pairs of a visitor and a resident of which one is new."""
    nearness, empty = nearness_of(item.vectors, ask.threshold, ask.metric, ask.spread)
    d, count = item.vectors.shape[1], len(item.residents)
    residents, visitors = np.arange(count), count + np.arange(len(item.visitors))
    open_residents, open_visitors = ~empty[residents], ~empty[visitors]
    first = near_pairs(nearness, visitors[item.new_visitors & open_visitors], residents[open_residents], d)
    old = visitors[~item.new_visitors & open_visitors]
    second = near_pairs(nearness, old, residents[item.new_residents & open_residents], d)
    left, right = (np.concatenate(part) for part in zip(first, second, strict=True))
    similarity = nearness.similarity(left, right, d, ask.metric)
    return Pairs(item.visitors[left - count], item.residents[right], similarity)


class Settling:
    """The search of a pool's different rows, in one order of preference.

    Args:
        file: the rows, cell by cell.
        ask: what is near.
        rank: (n,) of each row, 0 for the most preferred; rows that must stay come first.
        forced: (n,) rows that must stay.
        engine: where cells are searched.
        control: asked whether to go on, and told how far it is.

    Attributes:
        of: (n,) the row that each repeats, -1 for a row that stays.
        similarity: (n,) of the two.
        passes: how often cells were searched and met.
        cut: how many rows that stay may be near rows of cells that they do not visit.
    """

    def __init__(self, file: CellFile, ask: Ask, rank: Ints, forced: Mask, engine: Engine, control: Control) -> None:
        self.file, self.ask, self.rank, self.forced = file, ask, rank, forced
        self.engine, self.control = engine, control
        n = len(rank)
        self.of, self.similarity = np.full(n, -1, np.int64), np.full(n, np.nan)
        self._outside = np.zeros(n, bool)  # dropped for a row of another cell
        self._visits = np.full((n, ask.probes), -1, np.int32)
        self._met = np.zeros(n, bool)
        self._pairs = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        self._cut = np.zeros(file.cells, np.int64)
        self.passes = 0

    @property
    def cut(self) -> int:
        return int(self._cut.sum())

    @property
    def kept(self) -> Mask:
        return self.of < 0

    def run(self) -> None:
        """Search and meet until nothing changes.

        Raises:
            KeyboardInterrupt: it was stopped.
        """
        shared = (self.engine.share(self.ask),)
        cells = np.flatnonzero(self.file.sizes)
        while len(cells):
            self.passes += 1
            searched = watched(self.engine.map(search_cell, self._cells(cells), shared=shared), self.control)
            for cell, result in zip(cells.tolist(), searched, strict=True):
                self.of[result.rows], self.similarity[result.rows] = result.of, result.similarity
                self._visits[result.rows[result.of < 0]] = result.visits
                self._cut[cell] = result.cut
            meetings = watched(self.engine.map(meet, self._meetings(), shared=shared), self.control)
            pairs = [self._pairs, *meetings]
            self._met = self.kept  # what is not kept now meets all others once it is
            self._pairs = Pairs(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
            cells = self._settle()

    def _cells(self, cells: Ints) -> Iterator[CellRows]:
        for cell in cells.tolist():
            rows = self.file.rows_of(cell)
            rows = rows[~self._outside[rows]]
            rows = rows[np.argsort(self.rank[rows], kind="stable")]
            yield CellRows(cell, rows, self.file.vectors(rows), int(self.forced[rows].sum()))

    def _meetings(self) -> Iterator[Meeting]:
        """Every cell with rows that have not met the others; each pair meets once it is there."""
        kept = np.flatnonzero(self.kept)
        places = np.flatnonzero(self._visits[kept].ravel() >= 0)
        visitors, cells = kept[places // self.ask.probes], self._visits[kept].ravel()[places]
        order = np.argsort(cells, kind="stable")
        visitors, ends = visitors[order], np.searchsorted(cells[order], np.arange(self.file.cells + 1))
        for cell in range(self.file.cells):
            guests = visitors[ends[cell] : ends[cell + 1]]
            residents = self.file.rows_of(cell)
            residents = residents[self.kept[residents]]
            new_residents, new_visitors = ~self._met[residents], ~self._met[guests]
            if not len(guests) or not len(residents) or not (new_residents.any() or new_visitors.any()):
                continue
            if not new_residents.any():
                guests, new_visitors = guests[new_visitors], new_visitors[new_visitors]
            vectors = self.file.vectors(np.concatenate([residents, guests]))
            yield Meeting(residents, guests, new_residents, new_visitors, vectors)

    def _settle(self) -> Ints:
        """Drop rows that are near a row of another cell that is preferred to them; the cells to be searched again."""
        left, right, similarity = self._pairs
        ahead = self.rank[left] < self.rank[right]
        better, worse = np.where(ahead, left, right), np.where(ahead, right, left)
        usable = ~self.forced[worse]
        # From the most preferred on, and of what a row is near the most preferred first.
        order = np.lexsort((self.rank[better], self.rank[worse]))
        order = order[usable[order]]
        candidates = self.kept | self._outside
        standing = self.kept & ~self._outside
        now = np.zeros(len(self.rank), bool)
        of, likeness = np.full(len(self.rank), -1, np.int64), np.full(len(self.rank), np.nan)
        for pair in order.tolist():
            q, p = worse[pair], better[pair]
            if candidates[q] and not now[q] and standing[p]:
                now[q], of[q], likeness[q] = True, p, similarity[pair]
                standing[q] = False
        changed = np.flatnonzero(now != self._outside)
        released, dropped = changed[~now[changed]], changed[now[changed]]
        # Rows of its own cell that a dropped row stood for may stay now.
        orphaned = np.isin(self.of, dropped) & ~self._outside
        self._outside = now
        self.of[released], self.similarity[released] = -1, np.nan
        self.of[now], self.similarity[now] = of[now], likeness[now]
        again = np.concatenate([self.file.cell[released], self.file.cell[orphaned]])
        return np.unique(again).astype(np.int64)


class Sample(NamedTuple):
    """Rows that stay, drawn at random, and their vectors."""

    rows: Ints
    vectors: Array


def near_sample(item: CellRows, sample: Sample, ask: Ask) -> Pairs:
    """The near pairs of a row of a sample and another row of a cell."""
    nearness, empty = nearness_of(np.concatenate([sample.vectors, item.vectors]), ask.threshold, ask.metric, ask.spread)
    d, count = item.vectors.shape[1], len(sample.rows)
    own, others = np.flatnonzero(~empty[:count]), count + np.flatnonzero(~empty[count:])
    left, right = near_pairs(nearness, own, others, d)
    apart = sample.rows[left] != item.rows[right - count]
    left, right = left[apart], right[apart]
    return Pairs(sample.rows[left], item.rows[right - count], nearness.similarity(left, right, d, ask.metric))


def kept_rows(file: CellFile, kept: Mask) -> Iterator[CellRows]:
    """The rows that stay, a few cells at a time."""
    runs, count = [], 0
    for cell in np.flatnonzero(file.sizes).tolist():
        rows = file.rows_of(cell)
        runs.append(rows[kept[rows]])
        count += len(runs[-1])
        if count >= _TOGETHER:
            yield _read_together(file, runs)
            runs, count = [], 0
    if count:
        yield _read_together(file, runs)


def _read_together(file: CellFile, runs: list[Ints]) -> CellRows:
    rows = np.concatenate(runs)
    return CellRows(-1, rows, file.vectors(rows), 0)


def most_missed(looked: int, missed: int, doubt: float = 0.05) -> float:
    """The share of rows that is missed at the most, with a doubt, where so many of those looked at were (exact)."""
    from scipy.special import betaincinv

    if not looked:
        return math.nan
    return 1.0 if missed >= looked else float(betaincinv(missed + 1, looked - missed, 1 - doubt))
