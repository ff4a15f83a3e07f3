"""Estimated gains of all rows, from those of a growing sample: candidates near to a sampled row are listed once few."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Mask
from kofn.engines.threads import spread
from kofn.objectives._sources import Rows

# The first picks, a quarter of all at the most, are judged by a part of the sample: no less than so many rows, and so
# many rows a pick, where the whole sample has far fewer for each of the last. A part is so many times the one before.
_FIRST_ROWS, _ROWS_A_PICK, _FIRST_PICKS, _GROWTH = 1_000, 20, 0.25, 5
# An item's near candidates are listed once they are expected to be few, judged by so many rows of the pool; the lists
# hold about half as many bytes as X, and so many entries a row beside.
_PROBES, _ENTRIES = 256, 16
# Pairs of items and rows, and items, that are compared at once: the lists of these items are put in order together.
_PAIRS_AT_ONCE, _ITEMS_AT_ONCE = 1 << 27, 1024


def sizes_of_parts(reference: int, picks: int) -> list[int]:
    """How many rows the growing parts of a sample have, the last of which is all of it."""
    sizes = [reference]
    while picks and sizes[0] > 2 * _FIRST_ROWS:
        sizes.insert(0, max(_FIRST_ROWS, -(-sizes[0] // _GROWTH)))
    return sizes


def picks_of_part(rows: int, picks: int) -> float:
    """How many of so many picks a part of so many rows may judge, if it is not the last."""
    return min(int(_FIRST_PICKS * picks), rows / _ROWS_A_PICK)


def pairs_of_search(n: int, d: int, reference: int, picks: int) -> float:
    """About how many pairs a search for so many picks looks at, on n dense float32 rows with d features.

    The last part of the sample is looked at once, the first until few candidates are nearer to an item than its pick,
    of which one pick leaves a half, the next a third, and so on; and each pick is compared with all rows.
    """
    sizes = sizes_of_parts(reference, picks)
    return n * (sum(sizes) - sizes[0] * math.log(_listed_share(4 * d, sizes[0])) + picks)


def _listed_share(width: int, items: int) -> float:
    """The share of the rows, of `width` bytes each, that may be near to each of these items for those to be listed."""
    return min(1.0, (width / 16 + _ENTRIES) / items)


@dataclass
class _Lists:
    """Near candidates of some items, item by item: those of item i from starts[i] on."""

    near: NDArray[np.int32]
    costs: NDArray[Any]
    starts: Ints
    lengths: Ints


class Estimates:
    """Gains of all candidates for a sample of the rows.

    Items that many candidates would serve better are compared with all rows whenever a pick changes them; once there
    are few such candidates, these are listed with their costs, and further picks are followed along the lists.

    Args:
        source: the pool's rows.
        rows: the sampled rows, rising.
        weights: of each, > 0.
        cost: what each costs the picks so far.

    Attributes:
        cost: what each costs the picks now.
    """

    def __init__(self, source: Rows, rows: Ints, weights: Floats, cost: Floats) -> None:
        self.source, self.rows, self.weights, self.cost = source, rows, weights, cost.copy()
        space, m = source.space, len(rows)
        self._columns = np.ascontiguousarray(space.rows[rows].T)
        self._scale = space.scale[rows] if len(space.scale) else space.scale
        self._gains = np.zeros(source.n)
        # The costs that the gains account for, and the total that they were last taken afresh for.
        self._seen, self._base = self.cost.copy(), math.inf
        self._lists: list[_Lists] = []
        self._list, self._slot = np.full(m, -1, np.int64), np.zeros(m, np.int64)
        probes = np.linspace(0, source.n - 1, min(_PROBES, source.n)).astype(np.int64)
        self._probes = self._distances(probes).astype(np.float32)
        self._most = _listed_share(space.rows.shape[1] * space.rows.itemsize, m)

    def _distances(self, candidates: Ints) -> Floats:
        """Exact costs (candidates, items)."""
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _kernels

        space, out = self.source.space, np.empty((len(candidates), len(self.rows)))
        blocks = -(-len(self.rows) // tiles.LANES)
        _kernels.distances(self._columns, self._scale, space.points(candidates), space.squared, 0, blocks, out)
        self.source.pairs += out.size
        return space.decayed(out) if space.rate else out

    def add(self, item: int) -> None:
        """Take a pick."""
        np.minimum(self.cost, self._distances(np.array([item]))[0], out=self.cost)

    def gains(self) -> Floats:
        """What each candidate saves the sampled rows, (n,), each counted by its weight."""
        changed = self.cost < self._seen
        total = float(self.weights @ self.cost)
        # Gains that fell far carry roundings of the time when they were large.
        if total < self._base / 4 or 2 * int(changed.sum()) > len(self.rows):
            self._base = math.inf
            self._afresh(changed)
            self._base = total
        elif changed.any():
            before, self._base = self._base, math.inf
            self._follow(changed)
            self._base = before
        self._seen[:] = self.cost
        return self._gains

    def _afresh(self, changed: Mask) -> None:
        from kofn.objectives import _sample_kernels

        self._along_lists(changed)
        self._gains[:] = 0.0
        for lists, items in self._listed(np.ones(len(self.rows), bool)):
            _sample_kernels.add_up(
                lists.near, lists.costs, lists.starts, lists.lengths, self._slot[items],
                self._rounded(self.cost, items), self._rounded(self.weights, items), self._gains,
            )  # fmt: skip
        open_items = (self._list < 0) & (self.cost > self.source.least)
        self._look(np.flatnonzero(open_items), self.cost, np.full(len(self.rows), -np.inf), self.weights)

    def _follow(self, changed: Mask) -> None:
        self._along_lists(changed)
        self._look(np.flatnonzero(changed & (self._list < 0)), self._seen, self.cost, -self.weights)

    def _rounded(self, values: Floats, items: Ints) -> NDArray[Any]:
        return values[items].astype(self.source.kind)

    def _listed(self, wanted: Mask) -> Iterator[tuple[_Lists, Ints]]:
        """The items that are wanted and listed, by the lists that they stand in."""
        items = np.flatnonzero(wanted & (self._list >= 0))
        items = items[np.argsort(self._list[items], kind="stable")]
        numbers, starts = np.unique(self._list[items], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(items, starts[1:]), strict=False):
            yield self._lists[number], part

    def _along_lists(self, changed: Mask) -> None:
        """Bring gains up to date with the changed items that are listed, whose lists grow shorter."""
        from kofn.objectives import _sample_kernels

        for lists, items in self._listed(changed):
            old, new, weights = (self._rounded(values, items) for values in (self._seen, self.cost, self.weights))
            _sample_kernels.follow(
                lists.starts, self._slot[items], old, new, weights, lists.near, lists.costs, lists.lengths, self._gains
            )

    def _look(self, items: Ints, old: Floats, new: Floats, weights: Floats) -> None:
        """Compare items with all rows, and list the candidates near to an item where they will be few."""
        share = (self._probes[:, items] < self.cost[items]).mean(axis=0)
        reach = np.where(share <= self._most, self.cost[items], 0.0)
        step = max(64, min(_ITEMS_AT_ONCE, _PAIRS_AT_ONCE // self.source.n))
        for low in range(0, len(items), step):
            if low and self.source.poll is not None:
                self.source.poll()
            part = items[low : low + step]
            self._look_at(part, old[part], new[part], weights[part], reach[low : low + step])

    def _look_at(self, items: Ints, old: Floats, new: Floats, weights: Floats, reach: Floats) -> None:
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _sample_kernels

        source, space, everyone = self.source, self.source.space, np.empty(0, np.int64)
        points, kind = source.rounded(self.rows[items]), source.kind
        # Padding weighs nothing and lists nobody.
        padded = [np.pad(x, (0, len(points) - len(items))).astype(kind) for x in (old, new, weights, reach)]
        room = tiles.LANES * int((reach > 0).sum()) + 1
        blocks = -(-source.n // tiles.LANES)
        lists_of_blocks: list[Any] = [None] * blocks

        def work(low: int, high: int) -> None:
            lanes, tile = tiles.scratch(space.rows.shape[1], kind)
            near, costs, ends = np.empty(room, np.int32), np.empty(room, kind), np.zeros(len(points) + 1, np.int64)
            for block in range(low, high):
                _sample_kernels.look(
                    space.rows, space.columns, space.scale, everyone, points, *padded, space.squared, kind(space.rate),
                    block, lanes, tile, self._gains, near, costs, ends,
                )  # fmt: skip
                lists_of_blocks[block] = (
                    near[: ends[-1]].copy(),
                    costs[: ends[-1]].copy(),
                    ends[: len(items) + 1].copy(),
                )

        spread(work, blocks, source.n_threads, shares=4)
        source.pairs += len(items) * source.n
        listed = reach > 0
        if listed.any():
            self._list[items[listed]] = len(self._lists)
            self._slot[items] = np.arange(len(items))
            self._lists.append(_in_order(lists_of_blocks, kind))


def _in_order(lists_of_blocks: list[Any], kind: type) -> _Lists:
    """The lists of all blocks, item by item."""
    from kofn.objectives import _sample_kernels

    lengths = np.sum([np.diff(ends) for _near, _costs, ends in lists_of_blocks], axis=0)
    starts = np.cumsum(lengths) - lengths
    total, to = int(lengths.sum()), starts.copy()
    near: NDArray[np.int32] = np.empty(total, np.int32)
    costs: NDArray[Any] = np.empty(total, kind)
    for block in lists_of_blocks:
        _sample_kernels.move(*block, to, near, costs)
    return _Lists(near, costs, starts, lengths)
