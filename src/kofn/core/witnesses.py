"""Which picks can still be completed within quotas over several columns, known by keeping one completion at hand.

A `Witness` holds counts by cell: at least the picks, within every quota and what the pool has. An item may be
picked if its cell has a count to spare, or if the counts can be rerouted so that it has. For two columns that is a path
in a flow network; beyond two it is an integer programme, which HiGHS solves where no simple exchange does. A
`PricedWitness` holds items, the cheapest that complete the picks, since under a budget it matters which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Ints, Mask
from kofn.core.checks import InfeasibleError
from kofn.core.quotas import Cells, best_of_cells, clash, exact_total, whole_numbers
from kofn.core.whole_choices import cheapest_choice

# Cells that a first, smaller integer programme looks at beside those that hold something.
_FEW_CELLS = 500
# Cells that may take counts in when a witness is loosened.
_FEW_TAKERS = 300
_NONE, _ENDS = -1, -2
# The share of a total below which the solver may not see what another choice saves.
_UNSEEN = 1e-5


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
        binary, sums = (np.zeros(len(items)), np.ones(len(items))), cells.matrix(cells.of[items])
        solution = whole_numbers(costs / scale, sums, low, high, *binary)
        if solution is None:
            return None
        chosen = solution[0]
        over = self._total(np.append(items[chosen > 0], [] if item is None else [item]).astype(np.int64)) - self.limit
        if 0 < over <= _UNSEEN * self.limit:
            # So near to the budget another choice may be within it that is cheaper by less than the solver sees.
            chosen = cheapest_choice(self.costs[items], sums, low, high, chosen)
        return items[chosen > 0]
