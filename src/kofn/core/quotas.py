"""Quotas over several columns at once: which picks can still be completed, told by keeping one completion at hand.

Whether picks can be completed depends only on how many there are in each cell, a combination of one group of every
column. A `Witness` holds such counts: at least the picks, within every quota and what the pool has. An item may be
picked if its cell has a count to spare, or if the counts can be rerouted so that it has. For two columns that is a path
in a flow network; beyond two it is an integer programme, which HiGHS solves where no simple exchange does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InfeasibleError

# Cells that a first, smaller integer programme looks at beside those that hold something.
_FEW_CELLS = 1500
# Cells that may take counts in when a witness is loosened.
_FEW_TAKERS = 300
_NONE, _ENDS = -1, -2


@dataclass(frozen=True)
class Column:
    """The quotas of one column: each item's group as a code into `names`, and the least and most of each code."""

    name: Any
    codes: Ints
    names: tuple[Any, ...]
    least: Ints
    most: Ints

    @property
    def cells(self) -> int:
        """How many groups there are."""
        return len(self.names)

    def label(self, code: int) -> str:
        """A group's quota as an error names it."""
        column = "" if self.name is None else f"[{self.name!r}]"
        return f"quotas{column}[{self.names[code]!r}]"

    def key(self, code: int) -> str:
        """A group's quota as a plan names it."""
        return f"quota {self.names[code]}" if self.name is None else f"quota {self.name}={self.names[code]}"

    def counts(self, items: Any) -> Ints:
        """How many of the items are in each group."""
        return np.bincount(self.codes[items], minlength=len(self.names))


def columns_of(groups: Any, quotas: Mapping[Any, Any]) -> tuple[Column, ...]:
    """The columns of groups and quotas as `kofn.core.checks.resolved` gives them."""
    if not isinstance(groups, Mapping):
        return (_column(None, groups, quotas),)
    return tuple(_column(name, groups[name], quotas[name]) for name in quotas)


def ends_of(groups: Any, quotas: Mapping[Any, Any]) -> dict[str, list[int | None]]:
    """The least and the most of each quota, by its name in a plan; None where there is no most."""
    if not isinstance(groups, Mapping):
        return {f"quota {group}": list(ends) for group, ends in quotas.items()}
    return {f"quota {column}={group}": list(ends) for column, asked in quotas.items() for group, ends in asked.items()}


def _column(name: Any, labels: NDArray[Any], quotas: Mapping[Any, tuple[int, int | None]]) -> Column:
    unique, codes = np.unique(labels, return_inverse=True)
    names = unique.tolist()
    code_of = {group: code for code, group in enumerate(names)}
    least, most = np.zeros(len(names), np.int64), np.full(len(names), len(labels), np.int64)
    for group, (low, high) in quotas.items():
        code = code_of[group]
        least[code] = low
        most[code] = len(labels) if high is None else min(high, len(labels))
    return Column(name, codes.astype(np.int64), tuple(names), least, most)


class Cells:
    """The cells of several columns: groups without a quota of their own count as one."""

    def __init__(self, columns: Sequence[Column]) -> None:
        n = len(columns[0].codes)
        self.columns = columns
        self.least: list[Ints] = []
        self.most: list[Ints] = []
        # Of each column, the groups that a quota names, and one for all others; and each one's code in the column.
        self.origin: list[Ints] = []
        merged = []
        for column in columns:
            free = (column.least == 0) & (column.most >= n)
            named = np.flatnonzero(~free)
            to = np.full(len(free), len(named))
            to[named] = np.arange(len(named))
            merged.append(to[column.codes])
            rest = np.full(int(free.any()), n)
            self.least.append(np.concatenate([column.least[named], 0 * rest]))
            self.most.append(np.concatenate([column.most[named], rest]))
            self.origin.append(named)
        sizes = [len(least) for least in self.least]
        # Of each column, what one group more adds to the number of a combination; none where that is beyond integers.
        self.strides = np.cumprod([1, *sizes[:0:-1]])[::-1] if math.prod(sizes) < 2**62 else None
        numbers = _ranked(merged) if self.strides is None else np.tensordot(self.strides, np.array(merged), 1)
        self.numbers, first, self.of = np.unique(numbers, return_index=True, return_inverse=True)
        self.count = len(self.numbers)
        # (columns, cells) the group of each cell.
        self.group = np.array([codes[first] for codes in merged])

    def margins(self, counts: Ints) -> list[Ints]:
        """How many there are in each group of each column."""
        return [
            np.bincount(group, weights=counts, minlength=len(least)).astype(np.int64)
            for group, least in zip(self.group, self.least, strict=True)
        ]

    def matrix(self, cells: Ints) -> Any:
        """(groups of all columns + 1, cells) the sums that are limited: each group's, and the total."""
        from scipy.sparse import csc_array

        offsets = np.cumsum([0, *(len(least) for least in self.least)])
        rows = np.concatenate(
            [group[cells] + offset for group, offset in zip(self.group, offsets[:-1], strict=True)]
            + [np.full(len(cells), offsets[-1])]
        )
        across = np.tile(np.arange(len(cells)), len(self.group) + 1)
        return csc_array((np.ones(len(rows)), (rows, across)), shape=(int(offsets[-1]) + 1, len(cells)))


def _ranked(codes: Sequence[Ints]) -> Ints:
    """One number a combination, where the product of the sizes is beyond whole numbers."""
    out = codes[0]
    for other in codes[1:]:
        _, out = np.unique(np.stack([out, other]), axis=1, return_inverse=True)
    return out


def whole_numbers(cost: Floats, matrix: Any, low: Any, high: Any, least: Any, most: Any) -> tuple[Ints, float] | None:
    """Whole numbers in [least, most] of the least cost, with matrix @ x in [low, high]; None where there are none."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    solution = milp(
        cost,
        integrality=np.ones(len(cost), np.int64),
        bounds=Bounds(least, most),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0.0},
    )
    return None if solution.x is None else (np.rint(solution.x).astype(np.int64), float(solution.fun))


def _more_picks(cells: Cells, part: Ints, low: Ints, high: Ints, least: Ints, most: Ints) -> Ints | None:
    """How many more to pick of each of these cells, within what every group and the whole still take."""
    if not len(part):
        return np.empty(0, np.int64) if (low <= 0).all() and (high >= 0).all() else None
    if (least > most).any():
        return None
    solution = whole_numbers(np.zeros(len(part)), cells.matrix(part), low, high, least, most)
    return None if solution is None else solution[0]


class Witness:
    """Picks over several columns, and counts by cell that complete them to exactly k within every quota."""

    def __init__(self, cells: Cells, k: int, supply: Ints, preselected: Ints) -> None:
        self.cells, self.k, self.supply = cells, k, supply
        self.picked = np.bincount(cells.of[preselected], minlength=cells.count)
        self.closed = self.picked >= supply
        # True once an item was refused although every group had room for it: only for what others will need.
        self.reserved = False
        self.counts: Any = None
        self.counts = self._solved(self.picked)
        if self.counts is None:
            raise InfeasibleError(self._clash())
        self.margins = cells.margins(self.counts)
        self.taken = cells.margins(self.picked)
        self._close_full()
        if len(cells.columns) > 2:
            self._loosen(self.picked)

    def _solved(self, least: Ints) -> Any:
        """Counts of at least so many; None where there are none. Cells that are closed stay at their picks."""
        cells, picked = self.cells, self.picked
        taken, left = cells.margins(picked), self.k - int(picked.sum())
        low = np.concatenate([*(ends - counts for ends, counts in zip(cells.least, taken, strict=True)), [left]])
        high = np.concatenate([*(ends - counts for ends, counts in zip(cells.most, taken, strict=True)), [left]])
        open_cells = np.flatnonzero(~self.closed)
        parts = [open_cells]
        if len(open_cells) > 2 * _FEW_CELLS:
            # Most often a part of the cells is enough; where it is not, all of them decide.
            above_picks = (least > picked) | (False if self.counts is None else self.counts > picked)
            some = np.random.default_rng(0).choice(open_cells, _FEW_CELLS, replace=False)
            parts.insert(0, np.union1d(np.flatnonzero(above_picks), some))
        for part in parts:
            most = np.minimum(self.supply - picked, left)[part]
            added = _more_picks(cells, part, low, high, (least - picked)[part], most)
            if added is not None:
                counts = picked.copy()
                counts[part] += added
                return counts
        return None

    def _clash(self) -> str:
        """The quotas that no k picks meet together, and the fewest steps by which they would."""
        return clash(self.cells, self.k, self.supply, self.picked, exact=True)

    @property
    def spare(self) -> Ints:
        """(cells,) how many more the counts have room for."""
        counts: Ints = self.counts - self.picked
        return counts

    def _close_full(self) -> None:
        """Close the cells of groups that hold their most, and of those that need none where others need all slots."""
        for group, taken, most in zip(self.cells.group, self.taken, self.cells.most, strict=True):
            self.closed |= (taken >= most)[group]
        left = self.k - int(self.picked.sum())
        for group, taken, least in zip(self.cells.group, self.taken, self.cells.least, strict=True):
            short = np.maximum(least - taken, 0)
            if short.sum() >= left > 0:
                unneeded = (short == 0)[group] & ~self.closed
                self.reserved |= bool(unneeded.any())
                self.closed |= unneeded

    def add(self, item: int) -> None:
        """Commit a pick that `admits` has let in."""
        cell = int(self.cells.of[item])
        admitted = self.admits(item)
        assert admitted, f"item {item} leaves no completion"
        self.picked[cell] += 1
        for group, taken in zip(self.cells.group, self.taken, strict=True):
            taken[group[cell]] += 1
        self.closed[cell] |= self.picked[cell] >= self.supply[cell]
        self._close_full()

    def admits(self, item: int) -> bool:
        """Whether the picks can be completed with the item; the counts are rerouted so that they do."""
        cell = int(self.cells.of[item])
        if self.counts[cell] > self.picked[cell]:
            return True
        if self.closed[cell]:
            return False
        if self._exchange(cell):
            return True
        if self._reroute(cell) if len(self.cells.columns) == 2 else self._resolve(cell):
            return True
        self.reserved = True
        self.closed[cell] = True
        return False

    def open_cells(self) -> Mask:
        """(cells,) True where an item may be picked, each looked at."""
        for cell in np.flatnonzero(~self.closed & (self.spare == 0)).tolist():
            if not self.closed[cell]:
                self.admits(int(np.flatnonzero(self.cells.of == cell)[0]))
        return ~self.closed

    def _exchange(self, cell: int) -> bool:
        """One count moved here from another cell, where every group that gains or loses by it has room."""
        donors = np.flatnonzero(self.counts > self.picked)
        able = self._gives(donors, cell)
        candidates = donors[able.all(axis=0)]
        if len(candidates):
            # From where most is left over.
            self._change([int(candidates[np.argmax((self.counts - self.picked)[candidates])])], [cell])
            return True
        return len(self.cells.columns) > 2 and self._exchange_two(donors, able, cell)

    def _gives(self, donors: Ints, cell: int) -> Mask:
        """(columns, donors) True where a group may lose one that the group of the cell gains."""
        rows = zip(self.cells.group, self.margins, self.cells.least, self.cells.most, strict=True)
        return np.array(
            [
                (group[donors] == group[cell])
                | ((margin[group[cell]] < most[group[cell]]) & (margin > least)[group[donors]])
                for group, margin, least, most in rows
            ]
        )

    def _exchange_two(self, donors: Ints, able: Mask, cell: int) -> bool:
        """Two counts moved, one here and one to the cell of the groups that this one does not need of the two."""
        cells = self.cells
        if cells.strides is None:
            return False
        parts = cells.strides[:, None] * cells.group[:, donors]
        for choice in range(1, 2 ** len(able) - 1):
            taken = np.array([bool(choice >> column & 1) for column in range(len(able))])
            firsts, seconds = (np.flatnonzero(able[side].all(axis=0)) for side in (taken, ~taken))
            if not len(firsts) or not len(seconds):
                continue
            number = parts[~taken][:, firsts].sum(axis=0)[:, None] + parts[taken][:, seconds].sum(axis=0)
            partner = np.minimum(np.searchsorted(cells.numbers, number), cells.count - 1)
            fits = (cells.numbers[partner] == number) & (self.counts < self.supply)[partner] & (partner != cell)
            fits &= donors[firsts][:, None] != donors[seconds]
            if fits.any():
                row, column = np.unravel_index(int(np.argmax(fits)), fits.shape)
                less = [int(donors[firsts[row]]), int(donors[seconds[column]])]
                self._change(less, [cell, int(partner[row, column])])
                return True
        return False

    def _change(self, less: Sequence[int], more: Sequence[int]) -> None:
        for cells, by in ((less, -1), (more, 1)):
            for cell in cells:
                self.counts[cell] += by
                for group, margin in zip(self.cells.group, self.margins, strict=True):
                    margin[group[cell]] += by

    def _reroute(self, cell: int) -> bool:
        """Two columns: move counts along the way that leads one more into this cell; whether there is one."""
        way = self._way(cell, 0, 1)
        if way is None:
            return False
        self._change(*way)
        return True

    def _way(self, cell: int, column: int, opposite: int) -> tuple[list[int], list[int]] | None:
        """A way for one count more into this cell within the quotas of two columns: cells that lose and that gain.

        It is a path from the cell's second group back to its first. A step leads from a second group to a first one
        over a cell with a count to spare (which loses it), back over a cell with items left (which gains one), or
        between two groups of a column of which one may lose and one gain. Where there is no way, all cells from the
        groups that were not reached to those that were are closed.
        """
        first, second = self.cells.group[column], self.cells.group[opposite]
        m_first, m_second = self.margins[column], self.margins[opposite]
        spare, room = self.counts > self.picked, self.counts < self.supply
        start, goal = int(second[cell]), int(first[cell])
        # Over what each group was reached: a cell, or the end of its column.
        from_first, from_second = np.full(len(m_first), _NONE), np.full(len(m_second), _NONE)
        reached_first, reached_second = np.zeros(len(m_first), bool), np.zeros(len(m_second), bool)
        reached_second[start] = True
        gate_first = gate_second = _NONE
        changed = True
        while changed and not reached_first[goal]:
            changed = False
            if gate_second == _NONE:
                ends = np.flatnonzero(reached_second & (m_second < self.cells.most[opposite]))
                if len(ends):
                    gate_second, changed = int(ends[0]), True
                    new = ~reached_second & (m_second > self.cells.least[opposite])
                    from_second[new], reached_second = _ENDS, reached_second | new
            if gate_first == _NONE:
                ends = np.flatnonzero(reached_first & (m_first > self.cells.least[column]))
                if len(ends):
                    gate_first, changed = int(ends[0]), True
                    new = ~reached_first & (m_first < self.cells.most[column])
                    from_first[new], reached_first = _ENDS, reached_first | new
            over = np.flatnonzero(spare & reached_second[second] & ~reached_first[first])
            if len(over):
                from_first[first[over]], reached_first[first[over]], changed = over, True, True
            over = np.flatnonzero(room & reached_first[first] & ~reached_second[second])
            if len(over):
                from_second[second[over]], reached_second[second[over]], changed = over, True, True
        if not reached_first[goal]:
            self.closed |= reached_second[second] & ~reached_first[first]
            return None
        less: list[int] = []
        more = [cell]
        in_first, group = True, goal
        while in_first or group != start:
            through = int(from_first[group] if in_first else from_second[group])
            if through == _ENDS:
                group = gate_first if in_first else gate_second
            elif in_first:
                less.append(through)
                in_first, group = False, int(second[through])
            else:
                more.append(through)
                in_first, group = True, int(first[through])
        return less, more

    def _resolve(self, cell: int) -> bool:
        """Any number of columns: other counts, at least the picks and one more here."""
        if any(self._way(cell, *pair) is None for pair in itertools.combinations(range(len(self.cells.columns)), 2)):
            # Two of the columns alone rule it out, which takes no programme to see.
            return False
        least = self.picked.copy()
        least[cell] += 1
        counts = self._solved(least)
        if counts is None:
            return False
        self.counts = counts
        self.margins = self.cells.margins(counts)
        self._loosen(least)
        return True

    def _loosen(self, kept: Ints) -> None:
        """Move counts above `kept` between cells while that leaves fewer groups at their least or most.

        A programme ends in a corner of what is allowed, from which few exchanges lead on.
        """
        donors, rng = np.flatnonzero(self.counts > kept), np.random.default_rng(0)
        takers = np.flatnonzero((self.counts < self.supply) & ~self.closed)
        if len(takers) > _FEW_TAKERS:
            takers = rng.choice(takers, _FEW_TAKERS, replace=False)
        for _ in range(2 * len(donors)):
            change = np.zeros((len(donors), len(takers)))
            rows = zip(self.cells.group, self.margins, self.cells.least, self.cells.most, strict=True)
            for group, margin, least, most in rows:
                up = np.where(margin >= most, np.inf, 1.0 * (margin == most - 1) - (margin == least))
                down = np.where(margin <= least, np.inf, 1.0 * (margin == least + 1) - (margin == most))
                differs = group[donors][:, None] != group[takers]
                change += np.where(differs, up[group[takers]] + down[group[donors]][:, None], 0.0)
            if not change.size or change.min() >= 0:
                return
            donor, taker = np.unravel_index(int(np.argmin(change)), change.shape)
            self._change([int(donors[donor])], [int(takers[taker])])
            donors = np.flatnonzero(self.counts > kept)
            takers = takers[(self.counts < self.supply)[takers]]

    def completion(self) -> Ints:
        """(cells,) how many of each cell the minima still need: the counts to spare, less what no minimum needs."""
        spare = self.spare
        margins = self.cells.margins(self.counts)
        for cell in np.flatnonzero(spare).tolist():
            while spare[cell] and all(
                margin[group[cell]] > least[group[cell]]
                for group, margin, least in zip(self.cells.group, margins, self.cells.least, strict=True)
            ):
                spare[cell] -= 1
                for group, margin in zip(self.cells.group, margins, strict=True):
                    margin[group[cell]] -= 1
        return spare


class PricedWitness:
    """Picks over several columns under a budget, and items that meet what the minima still need within it."""

    def __init__(self, cells: Cells, k: int, costs: NDArray[Any], limit: float, open_items: Mask, picks: Ints) -> None:
        self.cells, self.k, self.costs, self.limit, self.open = cells, k, costs, limit, open_items
        self.order = np.argsort(costs, kind="stable")
        self.count = len(picks)
        self.spends: list[Any] = costs[picks].tolist()
        self.taken = [
            np.bincount(group[cells.of[picks]], minlength=len(least))
            for group, least in zip(cells.group, cells.least, strict=True)
        ]
        self.reserved = False
        # Of each cell, a bound below what any further pick there costs beyond the item itself.
        self.floor = np.full(cells.count, -math.inf)
        items = self._cheapest()
        if items is None:
            supply = np.bincount(cells.of[open_items], minlength=cells.count)
            picked = np.bincount(cells.of[picks], minlength=cells.count)
            raise InfeasibleError(clash(cells, k, supply + picked, picked, exact=False))
        self.completion = items

    @property
    def deficit(self) -> bool:
        """Whether a minimum still needs picks."""
        return any((taken < least).any() for taken, least in zip(self.taken, self.cells.least, strict=True))

    def room(self) -> Mask:
        """(cells,) True where every group has room for one more."""
        out = np.ones(self.cells.count, bool)
        for group, taken, most in zip(self.cells.group, self.taken, self.cells.most, strict=True):
            out &= (taken < most)[group]
        return out

    def candidates(self) -> Mask:
        """(n,) no item that may be picked is missing; where no minimum needs anything, cost is not looked at."""
        of = self.cells.of
        mask: Mask = self.open & self.room()[of]
        if self.deficit:
            spent = float(exact_total(self.spends))
            reach = np.maximum(self.floor, spent)[of] + self.costs.astype(np.float64)
            mask &= reach <= float(self.limit) * (1 + 1e-9)
        return mask

    def admits(self, item: int) -> bool:
        """Whether item and what the minima need can be paid for together."""
        if not self.deficit or self._with(item) is not None:
            return True
        self.reserved = True
        return False

    def add(self, item: int) -> None:
        """Commit a pick that `admits` lets in."""
        completion = self._with(item)
        assert completion is not None, f"item {item} leaves no completion"
        self.completion = completion[completion != item]
        self.count += 1
        self.spends.append(self.costs[item].item())
        for group, taken in zip(self.cells.group, self.taken, strict=True):
            taken[group[self.cells.of[item]]] += 1
        # What the minima no longer need goes, from the dearest on.
        for member in self.completion[np.argsort(-self.costs[self.completion], kind="stable")].tolist():
            kept = self.completion[self.completion != member]
            if self._complete(kept):
                self.completion = kept

    def _with(self, item: int) -> Ints | None:
        """A completion that holds the item, within the budget."""
        if item in self.completion:
            return self.completion
        ways = [self.completion, *(np.delete(self.completion, position) for position in range(len(self.completion)))]
        for kept in ways:
            completion = np.append(kept, item)
            if self._complete(completion) and self._total(completion) <= self.limit:
                return completion
        rest = self._cheapest(item)
        cell = self.cells.of[item]
        if rest is None:
            self.floor[cell] = math.inf
            return None
        completion = np.append(rest, item)
        total = self._total(completion)
        if total <= self.limit:
            return completion
        self.floor[cell] = max(self.floor[cell], float(total) - float(self.costs[item]))
        return None

    def _total(self, items: Ints) -> Any:
        return exact_total([*self.spends, *self.costs[items].tolist()])

    def _complete(self, items: Ints) -> bool:
        """Whether the picks and these items are within every quota and k."""
        if self.count + len(items) > self.k:
            return False
        for group, taken, least, most in zip(
            self.cells.group, self.taken, self.cells.least, self.cells.most, strict=True
        ):
            totals = taken + np.bincount(group[self.cells.of[items]], minlength=len(taken))
            if (totals < least).any() or (totals > most).any():
                return False
        return True

    def _cheapest(self, item: int | None = None) -> Ints | None:
        """The cheapest open items that meet the minima beside the picks and `item`; None where none do."""
        cells = self.cells
        taken = [counts.copy() for counts in self.taken]
        open_items, left = self.open, self.k - self.count
        if item is not None:
            open_items, left = open_items.copy(), left - 1
            open_items[item] = False
            for group, counts in zip(cells.group, taken, strict=True):
                counts[group[cells.of[item]]] += 1
        short = [np.maximum(least - counts, 0) for least, counts in zip(cells.least, taken, strict=True)]
        room = [most - counts for most, counts in zip(cells.most, taken, strict=True)]
        if left < 0 or any((counts < 0).any() for counts in room):
            return None
        # A cheapest completion takes no more of a cell than some group of it is short of, and the cheapest of those.
        need = np.max([counts[group] for group, counts in zip(cells.group, short, strict=True)], axis=0)
        if not need.any():
            return np.empty(0, np.int64)
        items = best_of_cells(self.order[open_items[self.order]], cells.of, need)
        costs = self.costs[items].astype(np.float64)
        scale = costs.max(initial=0.0) or 1.0
        low, high = np.concatenate([*short, [0]]), np.concatenate([*room, [left]])
        if not len(items):
            return None
        binary = np.zeros(len(items)), np.ones(len(items))
        solution = whole_numbers(costs / scale, cells.matrix(cells.of[items]), low, high, *binary)
        return None if solution is None else items[solution[0] > 0]


def best_of_cells(ranked: Ints, cell_of: Ints, most: Ints) -> Ints:
    """Of items in the order of their rank, the first `most` of each cell."""
    cells = cell_of[ranked]
    order = np.argsort(cells, kind="stable")
    begins = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    kept = order[rank < most[cells[order]]]
    return ranked[np.sort(kept)]


def exact_total(values: Any) -> float | int:
    """Exact sum: integers as Python integers, floats correctly rounded."""
    terms = np.asarray(values).tolist()
    return sum(terms) if all(isinstance(term, int) for term in terms) else math.fsum(terms)


def clash(cells: Cells, k: int, supply: Ints, picked: Ints, *, exact: bool) -> str:
    """Which quotas cannot be met together, by the smallest repair: how far which of them must give way."""
    everything = np.flatnonzero(supply > 0)
    sums = cells.matrix(everything)
    groups = sums.shape[0] - 1
    from scipy.sparse import csc_array, eye_array, hstack

    empty = csc_array((1, groups))
    lower = _stacked(eye_array(groups), empty)
    matrix = hstack([sums, lower, -lower], format="csc")
    low = np.concatenate([*cells.least, [k if exact else 0]])
    high = np.concatenate([*cells.most, [k]])
    cost = np.concatenate([np.zeros(len(everything)), np.ones(2 * groups)])
    least = np.concatenate([picked[everything], np.zeros(2 * groups)])
    most = np.concatenate([np.minimum(supply[everything], k), np.full(2 * groups, k)])
    solution = whole_numbers(cost, matrix, low, high, least, most)
    assert solution is not None
    slack = solution[0][len(everything) :]
    changes = []
    offset = 0
    for column, origin, lows, highs in zip(cells.columns, cells.origin, cells.least, cells.most, strict=True):
        for code, group in enumerate(origin.tolist()):
            below, above = int(slack[offset + code]), int(slack[groups + offset + code])
            if below:
                changes.append(f"lower {column.label(group)} from at least {lows[code]} to {lows[code] - below}")
            if above:
                changes.append(f"raise {column.label(group)} from at most {highs[code]} to {highs[code] + above}")
        offset += len(lows)
    names = " and ".join(str(column.name) for column in cells.columns)
    picks = f"k={k} picks" if exact else "picks"
    return f"no {picks} meet the quotas of {names} together; " + ", ".join(changes)


def _stacked(*rows: Any) -> Any:
    from scipy.sparse import vstack

    return vstack(rows, format="csc")
