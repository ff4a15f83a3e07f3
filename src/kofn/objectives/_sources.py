"""Where facility location reads its costs: from rows, from a table, from the entries of a sparse matrix.

All three answer the same questions about cost[i, j] (item i, candidate j; a distance, or minus a similarity):

    column(j)        exact costs of one candidate, float64
    savings(...)     sum_i w_i (old_i - min(max(cost_ij, new_i), old_i)) for many candidates, fast
    look_ahead(...)  the same from costs as they are now, and perhaps after the next picks, which are guessed
    exact(...)       sum_i w_i max(0, old_i - cost_ij) for a few candidates, rounded once
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import first_equal
from kofn.engines.threads import cores, spread
from kofn.objectives.similarity import Geometry, exact_sum, fixed_point, from_fixed_point, is_small

_ITEMS_AT_ONCE = 1 << 14
_COLUMNS_AT_ONCE = 16
# Pairs times features: about half a second of work, after which to ask whether to go on; and the fewest items at once,
# since the coordinates of the candidates are fetched anew each time.
_PRODUCTS_AT_ONCE, _FEWEST_AT_ONCE = 1 << 33, 128
# How many picks `look_ahead` guesses, from how many items on, and how many candidates it looks at twice for each.
_GUESSES, _WORTH_A_GUESS, _LOOKED_AT_TWICE = 3, 8192, 512
# Powers of two up to this are floats, their products with parts of a unit too.
_MOST_POWER = 960


@dataclass(frozen=True)
class Change:
    """Items whose cost falls from `old` to `new`; `pick`, where given, is how far every candidate is from the pick."""

    items: Ints
    old: Floats
    new: Floats
    pick: NDArray[np.float32] | None = None


def _padded(table: Floats, width: int, kind: Any) -> NDArray[Any]:
    """The table with columns of zeros to the right, which weigh nothing."""
    out = np.zeros((len(table), width), kind)
    out[:, : table.shape[1]] = table
    return out


def _nothing(stages: int, items: Ints) -> Floats:
    """New costs of candidates who serve everything as well as they can."""
    return np.full((stages, len(items)), -np.inf)


class Source(Protocol):
    """The costs, however they are held."""

    n: int
    start: float  # the cost of an item for which nothing is picked
    least: float  # no cost is below
    rounding: float  # unit roundoff of `savings`
    pairs: int  # costs looked at so far
    poll: Callable[[], None] | None  # called between blocks of long work; may raise

    def column(self, candidate: int) -> Floats: ...

    def apart(self, candidate: int) -> Floats:
        """How far every candidate is from this one; only where costs come from rows."""
        ...

    def savings(self, candidates: Ints, change: Change, weights: Floats) -> Floats: ...

    def look_ahead(self, candidates: Ints, items: Ints, cost: Floats, weights: Floats) -> tuple[list[int], Floats]:
        """Guessed next picks, and after none, one, ... of them the savings of candidates (guesses + 1, candidates)."""
        ...

    def exact(self, candidates: Ints, old: Floats, weights: Floats) -> Floats: ...

    def error(self, total: float, weight: float) -> float:
        """What rounded costs can add up to over items of this weight, whose costs add up to `total`."""
        ...


class Table:
    """Costs `sign * table[i, j]`, dense and never copied: similarities as given, or the distances of a small pool."""

    def __init__(self, table: NDArray[Any], sign: int, start: float, n_threads: int | None) -> None:
        self.n, self.table, self.sign, self.start = len(table), table, sign, start
        self.least = 0.0 if sign > 0 else -np.inf
        self.rounding = 2.0**-53
        self.pairs = 0
        self.poll: Callable[[], None] | None = None
        self.n_threads = cores(n_threads)
        self.turned = not table.flags.c_contiguous
        # Compiled loops want rows or columns that lie together; a small table is not worth waiting for them.
        self.compiled = not is_small(self.n, 1) and table.flags.forc and table.dtype.isnative

    def column(self, candidate: int) -> Floats:
        self.pairs += self.n
        return self.sign * self.table[:, candidate].astype(np.float64)

    def apart(self, candidate: int) -> Floats:
        return self.sign * self.table[:, candidate].astype(np.float64)

    def savings(self, candidates: Ints, change: Change, weights: Floats) -> Floats:
        self.pairs += len(candidates) * len(change.items)
        # Whole rows are quicker to read than most of their entries.
        everyone = not self.turned and 4 * len(candidates) >= 3 * self.n
        listed = candidates[:0] if everyone else candidates
        out = np.zeros(self.n if everyone else len(candidates))
        if self.compiled:
            from kofn.core import distance_kernels as tiles
            from kofn.objectives import _kernels

            sum_up = _kernels.turned_table_savings if self.turned else _kernels.table_savings
            table = self.table.T if self.turned else self.table
            arguments = (table, self.sign, listed, change.items, change.old, change.new, weights[change.items])
            spread(lambda low, high: sum_up(*arguments, low, high, out), -(-len(out) // tiles.LANES), self.n_threads)
        else:
            step = max(1, (1 << 20) // len(out))
            for low in range(0, len(change.items), step):
                items, old, new = (part[low : low + step] for part in (change.items, change.old, change.new))
                block = self.table[items] if everyone else self.table[items][:, listed]
                block = self.sign * block.astype(np.float64, copy=False)
                out += weights[items] @ (old[:, None] - np.minimum(np.maximum(block, new[:, None]), old[:, None]))
        return out[candidates] if everyone else out

    def look_ahead(self, candidates: Ints, items: Ints, cost: Floats, weights: Floats) -> tuple[list[int], Floats]:
        return [], self.savings(candidates, Change(items, cost[items], _nothing(1, items)[0]), weights)[None]

    def exact(self, candidates: Ints, old: Floats, weights: Floats) -> Floats:
        return np.array([exact_sum(weights * (old - np.minimum(self.column(int(j)), old))) for j in candidates])

    def error(self, total: float, weight: float) -> float:  # noqa: ARG002 (the costs are not rounded)
        return 0.0


class Entries:
    """Costs minus the entries of a SciPy-sparse similarity, 0 where there is none; only entries take time."""

    def __init__(self, similarity: Any) -> None:
        self.n, self.start, self.least, self.rounding, self.pairs = similarity.shape[0], 0.0, -np.inf, 2.0**-53, 0
        self.poll: Callable[[], None] | None = None
        self.by_candidate, self.by_item = similarity.tocsc(), similarity.tocsr()

    def column(self, candidate: int) -> Floats:
        own = slice(*self.by_candidate.indptr[candidate : candidate + 2])
        out = np.zeros(self.n)
        out[self.by_candidate.indices[own]] = -self.by_candidate.data[own].astype(np.float64)
        self.pairs += int(own.stop - own.start)
        return out

    apart = column

    def savings(self, candidates: Ints, change: Change, weights: Floats) -> Floats:
        out = np.zeros(self.n)
        starts = self.by_item.indptr[change.items].astype(np.int64)
        lengths = self.by_item.indptr[change.items + 1] - starts
        for low in range(0, len(starts), _ITEMS_AT_ONCE):
            length = lengths[low : low + _ITEMS_AT_ONCE]
            which = np.repeat(np.arange(low, low + len(length)), length)
            before = np.cumsum(length) - length
            entries = np.arange(len(which)) + np.repeat(starts[low : low + len(length)] - before, length)
            old = change.old[which]
            cost = np.maximum(-self.by_item.data[entries].astype(np.float64), change.new[which])
            saved = weights[change.items[which]] * (old - np.minimum(cost, old))
            out += np.bincount(self.by_item.indices[entries], saved, self.n)
        self.pairs += int(lengths.sum())
        return out[candidates]

    def look_ahead(self, candidates: Ints, items: Ints, cost: Floats, weights: Floats) -> tuple[list[int], Floats]:
        return [], self.savings(candidates, Change(items, cost[items], _nothing(1, items)[0]), weights)[None]

    def exact(self, candidates: Ints, old: Floats, weights: Floats) -> Floats:
        return np.array([exact_sum(weights * (old - np.minimum(self.column(int(j)), old))) for j in candidates])

    def error(self, total: float, weight: float) -> float:  # noqa: ARG002 (the costs are not rounded)
        return 0.0


class Rows:
    """Costs computed from coordinates when they are needed; nothing n x n is held.

    Candidates are the rows of `space`; items are those of `served`, by default the same.
    """

    def __init__(self, space: Geometry, n_threads: int | None, served: Geometry | None = None) -> None:
        self.served = space if served is None else served
        self.space, self.n, self.start, self.least, self.pairs = space, space.n, space.top, 0.0, 0
        self.poll: Callable[[], None] | None = None
        self.n_threads = cores(n_threads)
        self.kind = space.rows.dtype.type
        self.rounding = float(np.finfo(self.kind).eps) / 2
        d = space.rows.shape[1]
        # A squared difference is off by 2 roundings, its way through the sum by 4 and one for every 4 features, at
        # most; a root halves that and adds its own; the item's old cost and weight are rounded too.
        squared = d / 4 + 7
        self.relative = self.rounding * ((squared if space.squared else squared / 2 + 1) + 3)
        # Unit vectors are themselves rounded to float32, by at most one rounding of their length.
        self.moved = 2 * self.rounding if len(space.scale) and space.squared and self.kind is np.float32 else 0.0
        # exp and the subtraction from 1 round by their own size, not by that of a small cost; scaled by 2^e, rows are
        # not rounded, and a decaying cost is off by no more, relative to itself, than its exponent is.
        self.decay = 4 * self.rounding if space.rate else 0.0
        if space.rate:
            self.moved, self.relative = 0.0, self.relative + 2 * self.rounding
        self._recent: dict[int, Floats] = {}
        self._twins: Ints | None = None

    def column(self, candidate: int) -> Floats:
        if candidate not in self._recent:
            self._columns(np.array([candidate], np.int64))
        return self._recent[candidate]

    def _columns(self, candidates: Ints) -> Floats:
        """Exact distances (candidates, items), kept until the next call: the winner of a settled tie is added next."""
        out = self.from_points(self.served, self.space.points(candidates))
        self._recent = dict(zip(candidates.tolist(), out, strict=True))
        return out

    def from_points(self, space: Geometry, points: Floats) -> Floats:
        """Exact distances (points, rows of the space)."""
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _kernels

        out = np.empty((len(points), space.n))

        def work(low: int, high: int) -> None:
            _kernels.distances(space.columns, space.scale, points, space.squared, low, high, out)

        spread(work, -(-space.n // tiles.LANES), self.n_threads)
        self.pairs += out.size
        return space.decayed(out) if space.rate else out

    def apart(self, candidate: int) -> Floats:
        if self.served is self.space:
            return self.column(candidate)
        return self.from_points(self.space, self.space.points(np.array([candidate])))[0]

    def savings(self, candidates: Ints, change: Change, weights: Floats) -> Floats:
        if change.pick is None:
            return self._sums(candidates, change.items, change.old[None], change.new[None], weights)[0]
        # Item i saves nothing for candidate j unless cost_ij < old_i: then j is within old_i + new_i of the pick.
        # What a cost near 1 says of the distance is lost in its rounding, so a decaying cost gives way both ways.
        slack = 2 * (self.decay + 4 * self.relative) if self.decay else 0.0
        reach = self._length(change.old + slack) + self._length(change.new + slack)
        reach = reach * (1 + 4 * self.relative) + 4 * self.moved
        order = np.argsort(-reach, kind="stable")
        reach, far = reach[order], self._length(change.pick.astype(np.float64) - 2 * slack if slack else change.pick)
        near = candidates[far[candidates] < reach[0]]
        few = 5 * len(near) < 4 * len(candidates)
        near = near[np.argsort(far[near], kind="stable")] if few else candidates
        gains = np.zeros(self.n)
        old, new = change.old[None, order], change.new[None, order]
        gains[near] = self._sums(near, change.items[order], old, new, weights, (far, reach))[0]
        return gains[candidates]

    def look_ahead(self, candidates: Ints, items: Ints, cost: Floats, weights: Floats) -> tuple[list[int], Floats]:
        # The distances of one pass over everyone serve several steps of a search whose picks are known. A sample of the
        # items and a second look at the best few guess the next ones well; a wrong guess costs time, not truth.
        costs, guesses = [cost], []
        if 2 * len(candidates) >= self.n and len(items) >= _WORTH_A_GUESS:
            sample = items[:: min(32, len(items) // 256)]
            for _ in range(_GUESSES):
                now = costs[-1]
                rough = self._sums(candidates, sample, now[None, sample], _nothing(1, sample), weights)[0]
                # Of rows that serve other ones there may be fewer.
                best = min(_LOOKED_AT_TWICE, len(candidates)) - 1
                few = candidates[np.argpartition(-rough, best)[: best + 1]]
                close = self._sums(few, items, now[None, items], _nothing(1, items), weights)[0]
                guesses.append(int(few[close == close.max()].min()))
                costs.append(np.minimum(now, self.column(guesses[-1])))
        old = np.array([then[items] for then in costs])
        return guesses, self._sums(candidates, items, old, _nothing(len(old), items), weights)

    def _sums(
        self,
        candidates: Ints,
        items: Ints,
        old: Floats,
        new: Floats,
        weights: Floats,
        near: tuple[NDArray[Any], Floats] | None = None,
    ) -> Floats:
        """Savings (stages, candidates) for old and new costs (stages, items).

        `near`: how far everyone is from a pick and, falling, how near to it a candidate must be to matter to each item.
        """
        from kofn.core import distance_kernels as tiles

        # Coordinates of neighbours in the pool are quicker to fetch than those of most of them one by one.
        everyone = 4 * len(candidates) >= 3 * self.n
        width = self.n if everyone else len(candidates)
        blocks = -(-width // tiles.LANES)
        counts = np.full(blocks, len(items))
        if near is not None and width:
            far, reach = near
            closest = np.minimum.reduceat(far if everyone else far[candidates], np.arange(0, width, tiles.LANES))
            counts = np.searchsorted(-reach, -closest)
        out = np.zeros((len(old), blocks * tiles.LANES))
        listed = candidates[:0] if everyone else candidates
        # A multiple of what the kernel sums together, so that the sums do not depend on it.
        products = max(1, width * self.space.rows.shape[1])
        step = max(_FEWEST_AT_ONCE, min(_ITEMS_AT_ONCE, _PRODUCTS_AT_ONCE // products)) // tiles.GROUP * tiles.GROUP
        for low in range(0, int(counts.max(initial=0)), step):
            if low and self.poll is not None:
                self.poll()
            part = slice(low, low + step)
            here = np.clip(counts - low, 0, step)
            self._add_sums(listed, items[part], old[:, part], new[:, part], weights, here, out)
        self.pairs += int(counts.sum()) * min(width, tiles.LANES)
        return out[:, candidates] if everyone else out[:, :width]

    def _add_sums(
        self, listed: Ints, items: Ints, old: Floats, new: Floats, weights: Floats, counts: Ints, out: Floats
    ) -> None:
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _kernels

        space, kind = self.space, self.kind
        d = space.rows.shape[1]
        points = self.rounded(items)
        old, new, share = (_padded(x, len(points), kind) for x in (old, new, weights[None, items]))
        counts = -(-counts // tiles.GROUP) * tiles.GROUP

        def work(low: int, high: int) -> None:
            lanes, tile = tiles.scratch(d, kind)
            _kernels.savings(
                space.rows, space.columns, space.scale, listed, points, old, new, share[0], counts, space.squared,
                kind(space.rate), low, high, lanes, tile, out,
            )  # fmt: skip

        busy = int(counts.sum()) * tiles.LANES * d > 1 << 22
        spread(work, len(counts), self.n_threads if busy else 1, shares=4)

    def rounded(self, items: Ints) -> NDArray[Any]:
        """Coordinates of items in the precision of the rows, padded with zeros to whole tiles."""
        from kofn.core.distance_kernels import in_whole_tiles

        space = self.served
        return in_whole_tiles(space.rows[items], space.scale[items] if len(space.scale) else space.scale)

    def _length(self, cost: NDArray[Any]) -> NDArray[Any]:
        """Distances that obey the triangle inequality."""
        if self.space.rate:
            with np.errstate(divide="ignore"):
                return np.sqrt(-np.log1p(-np.clip(cost, 0.0, 1.0)) / self.space.rate)
        return np.sqrt(cost) if self.space.squared else cost

    def exact(self, candidates: Ints, old: Floats, weights: Floats) -> Floats:
        from kofn.objectives import _kernels

        # Equal rows have equal gains: one of each is enough, and pools with many copies tie all the time.
        if self._twins is None:
            self._twins = first_equal(self.space.rows)
        kept, back = np.unique(self._twins[candidates], return_inverse=True)
        gains = np.zeros(len(kept))
        most = float((weights * (old - self.least)).max())
        if most > 0:
            scale, fine = fixed_point(most, self.served.n)
            # Compiled code multiplies by the power, which floats hold only up to here; the weights take the rest.
            excess = max(0, min(scale - _MOST_POWER, _MOST_POWER - math.frexp(float(weights.max()))[1]))
            power = min(scale - excess, _MOST_POWER)
            weights = np.ldexp(weights, excess)
            for low in range(0, len(kept), _COLUMNS_AT_ONCE):
                costs = self._columns(kept[low : low + _COLUMNS_AT_ONCE])
                sums = np.empty((len(costs), 2), np.int64)

                def work(first: int, last: int, costs: Floats = costs, sums: Ints = sums) -> None:
                    _kernels.exact_sums(costs, old, weights, 2.0**power, 2.0**fine, first, last, sums)

                spread(work, len(costs), self.n_threads)
                gains[low : low + len(costs)] = [from_fixed_point(a, b, power + excess, fine) for a, b in sums.tolist()]
        return gains[back]

    def error(self, total: float, weight: float) -> float:
        moved = self.moved * (2 * float(np.sqrt(weight * total)) + self.moved * weight)
        return self.relative * total + moved + self.decay * weight
