"""Constraints of a selection: cardinality, knapsack, quotas, must-include and must-exclude, kept exactly while picking.

A greedy search asks a `Tracker` which items are still open. The tracker reserves the slots and the money that the
quotas' minima still need, so a search that only picks open items can always be completed. Over several columns of
groups that takes a look at each item (`kofn.core.witnesses`): a search may ask for `candidates`, and of the one that it
wants whether the tracker `admits` it.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InfeasibleError, InputError, resolved
from kofn.core.quotas import Cells, Column, best_of_cells, columns_of
from kofn.core.quotas import exact_total as total
from kofn.core.runtime import Control
from kofn.core.witnesses import PricedWitness, Witness
from kofn.core.words import Where, part


def _amount(value: float | int) -> str:
    """A total in six digits, or in all of them where those are not the total."""
    short = f"{value:g}"
    return short if float(short) == value else f"{value:,}"


@dataclass(frozen=True)
class Constraints:
    """The checked constraints of one selection.

    `k` is how many to pick: exactly that many, or at most that many where a budget is given too. `columns` are the
    quotas, one entry for each column of groups. `preselected` (`start`, then `include`) are picked before the search
    begins; `banned` items are never picked.
    """

    n: int
    k: int
    exact_k: bool
    costs: NDArray[Any] | None
    budget: float | int | None
    columns: tuple[Column, ...]
    preselected: Ints
    banned: Mask

    @classmethod
    def of(cls, n: int, words: Mapping[str, Any] | None = None, **where: Unpack[Where]) -> Constraints:
        """Check the constraints against each other; an `InfeasibleError` says which clash, and by how much.

        Args:
            n: how many items there are.
            words: checked words of a call; those of the bundle `Where` are read, others ignored.
            **where: words of the bundle by name; they override `words`.
        """
        given: dict[str, Any] = {**dict.fromkeys(Where.__annotations__), **part(words or {}, Where), **where}
        k, budget, costs, groups, quotas = (given[name] for name in ("k", "budget", "costs", "groups", "quotas"))
        include, exclude, start = given["include"], given["exclude"], given["start"]
        if k is None and budget is None:
            raise InputError("give k (how many) or budget with costs (how much)")
        if budget is not None and costs is None:
            raise InputError(f"budget={budget:g} needs costs, one an item; for a plain count use k={int(budget)}")
        if costs is not None and budget is None:
            raise InputError("costs are given without a budget; give budget, or leave the costs out")
        if quotas is not None and groups is None:
            raise InputError("quotas need groups, one group label an item")
        if groups is not None and quotas is None:
            raise InputError("groups are given without quotas; give quotas, or leave the groups out")
        if k is not None and k > n:
            raise InfeasibleError(f"k={k} of {n} items: there are only {n} to choose from; ask for k <= {n}")

        banned = np.zeros(n, bool)
        if exclude is not None:
            banned[exclude] = True
        preselected = _preselected(start, include, banned)
        columns = () if quotas is None else columns_of(*resolved(groups, quotas, k, budget))
        out = cls(
            n=n,
            k=n if k is None else k,
            exact_k=k is not None and budget is None,
            costs=costs,
            budget=budget,
            columns=columns,
            preselected=preselected,
            banned=banned,
        )
        out._refuse_infeasible()
        return out

    def _refuse_infeasible(self) -> None:
        open_items = self.n - int(self.banned.sum())
        if self.exact_k and self.k > open_items:
            raise InfeasibleError(
                f"k={self.k} but exclude leaves {open_items} of {self.n} items; lower k or exclude fewer"
            )
        if len(self.preselected) > self.k:
            raise InfeasibleError(
                f"include and start hold {len(self.preselected)} items, more than k={self.k}; raise k"
            )
        for column in self.columns:
            self._refuse_infeasible_column(column)
        if len(self.columns) > 1:
            Tracker(self)
        if self.budget is not None and self.costs is not None:
            self._refuse_infeasible_budget()

    def _refuse_infeasible_column(self, column: Column) -> None:
        room = column.counts(~self.banned)
        in_group = column.counts(self.preselected)
        for code, name in enumerate(column.names):
            if column.least[code] > room[code]:
                raise InfeasibleError(
                    f"{column.label(code)} asks for at least {column.least[code]}, but only {room[code]} such items "
                    f"are open; lower it by {column.least[code] - room[code]}"
                )
            if in_group[code] > column.most[code]:
                raise InfeasibleError(
                    f"include and start hold {in_group[code]} of group {name!r}, its quota is at most "
                    f"{column.most[code]}"
                )
        of = "" if column.name is None else f" of {column.name}"
        need = int(np.maximum(column.least, in_group).sum())
        if need > self.k:
            raise InfeasibleError(
                f"the quotas' minima{of} (with include) need {need} items, k={self.k}; "
                f"raise k or lower them by {need - self.k}"
            )
        most = int(np.minimum(column.most, room).sum())
        if self.exact_k and most < self.k:
            raise InfeasibleError(
                f"k={self.k}, but the quotas' maxima{of} leave room for {most}; lower k or raise them by "
                f"{self.k - most}"
            )

    def _refuse_infeasible_budget(self) -> None:
        assert self.costs is not None
        assert self.budget is not None
        if self.banned.all():
            raise InfeasibleError("exclude leaves no items to choose from")
        spent = total(self.costs[self.preselected])
        if spent > self.limit:
            raise InfeasibleError(
                f"include and start cost {_amount(spent)}, over the budget of {_amount(self.budget)} by "
                f"{_amount(spent - self.budget)}"
            )
        tracker = Tracker(self)
        need = tracker.least_spend
        if need > self.limit:
            raise InfeasibleError(
                f"the quotas' minima (with include) cost at least {_amount(need)}, over the budget of "
                f"{_amount(self.budget)} by {_amount(need - self.budget)}; raise the budget or lower the minima"
            )
        if not len(self.preselected) and not tracker.any_eligible():
            allowed = ~self.banned
            for column in self.columns:
                allowed &= (column.most > 0)[column.codes]
            if not allowed.any():
                raise InfeasibleError("the quotas' maxima leave no item to choose; raise one")
            raise InfeasibleError(
                f"budget={self.budget:g} buys nothing: the cheapest item costs {self.costs[allowed].min():g}; "
                "raise the budget"
            )

    @property
    def limit(self) -> float | int:
        """The budget, with a tolerance for the rounding of a float sum; integer costs have none."""
        assert self.budget is not None
        assert self.costs is not None
        if self.costs.dtype.kind == "i":
            return math.floor(self.budget)
        return self.budget * (1 + self.n * np.finfo(np.float64).eps)

    @functools.cached_property
    def cells(self) -> Cells:
        """The combinations of the columns' groups."""
        return Cells(self.columns)

    @functools.cached_property
    def first_witness(self) -> Witness:
        """Counts by cell that meet the quotas of several columns, before any pick; solved for once."""
        supply = np.bincount(self.cells.of[~self.banned], minlength=self.cells.count)
        return Witness(self.cells, self.k, supply, self.preselected)

    @property
    def cardinality_only(self) -> bool:
        """True where only the number of picks (and `include`, `start`, `exclude`) constrains."""
        return self.budget is None and not self.columns

    def upper_bound(self, residual: Floats, picked: Mask) -> float:
        """The most that any feasible set can add, from upper bounds on the residual gains of all items.

        A relaxation, hence valid: the best items by count and by quota (exact for that matroid), or the fractional
        knapsack, whichever is smaller. Gains of items already picked are zero by submodularity.
        """
        gains = np.where(picked | self.banned, 0.0, np.maximum(residual, 0.0))
        order = np.argsort(-gains, kind="stable")
        # Preselected items are in every feasible set and add nothing any more, so they only use up slots.
        slots = self.k - len(self.preselected)
        open_top = float(np.sum(gains[order[:slots]]))
        best = min((self._best_by_quota(column, gains, order, slots) for column in self.columns), default=open_top)
        if self.costs is not None and self.budget is not None:
            best = min(best, _fractional(gains, self.costs, float(self.limit - total(self.costs[self.preselected]))))
        return best

    def _best_by_quota(self, column: Column, gains: Floats, order: Ints, slots: int) -> float:
        in_group = column.counts(self.preselected)
        ranked = order[gains[order] > 0]
        kept = best_of_cells(ranked, column.codes, column.most - in_group)
        return float(np.sum(gains[kept[:slots]]))


class Tracker:
    """Which items may still be picked, kept exact as picks are made."""

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        self.count = 0
        self.spent: float | int = 0
        self.open = ~constraints.banned
        self._spends: list[float | int] = []
        self._picked_of = [np.zeros(len(column.names), np.int64) for column in constraints.columns]
        # Where there is one column, what its minima still need, and its items from the cheapest to the dearest.
        self._column = constraints.columns[0] if len(constraints.columns) == 1 else None
        self._deficit = np.empty(0, np.int64) if self._column is None else self._column.least.copy()
        self._ranked: list[Ints] = []
        if constraints.costs is not None and self._column is not None:
            order = np.argsort(constraints.costs, kind="stable")
            codes = self._column.codes[order]
            self._ranked = [order[codes == code] for code in range(len(self._column.names))]
        for item in constraints.preselected:
            self._record(int(item))
        self._witness: Witness | PricedWitness | None = None
        if len(constraints.columns) > 1:
            self._witness = self._first_witness()

    def _first_witness(self) -> Witness | PricedWitness:
        constraints, cells = self.constraints, self.constraints.cells
        if constraints.costs is None:
            first = constraints.first_witness
            # Each tracker changes its own; the cells are the same for all.
            return copy.deepcopy(first, {id(cells): cells})
        return PricedWitness(
            cells, constraints.k, constraints.costs, constraints.limit, self.open, constraints.preselected
        )

    def _record(self, item: int) -> None:
        constraints = self.constraints
        self.open[item] = False
        self.count += 1
        if constraints.costs is not None:
            self._spends.append(constraints.costs[item].item())
            self.spent = total(self._spends)
        for column, picked in zip(constraints.columns, self._picked_of, strict=True):
            picked[column.codes[item]] += 1
        if self._column is not None:
            code = self._column.codes[item]
            self._deficit[code] = max(0, self._deficit[code] - 1)

    def add(self, item: int) -> None:
        """Commit a pick."""
        if self._witness is not None:
            self._witness.add(item)
        self._record(item)

    @property
    def reserves(self) -> bool:
        """Whether some item was closed only for what the minima, or k, will need of others."""
        return self._witness is not None and self._witness.reserved

    def _reserved(self) -> list[Ints]:
        """For each group of one column, the cheapest open items that its minimum still needs."""
        return [
            ranked[self.open[ranked]][:short]
            for ranked, short in zip(self._ranked, self._deficit.tolist(), strict=True)
        ]

    @property
    def reserve(self) -> float | int:
        """The least that the minima still have to cost."""
        return total(self._reserved_costs())

    @property
    def least_spend(self) -> float | int:
        """The money spent plus the least that the minima still have to cost, in one exact sum."""
        return total([*self._spends, *self._reserved_costs()])

    def _reserved_costs(self) -> list[float | int]:
        costs = self.constraints.costs
        if costs is None or not self.constraints.columns:
            return []
        reserved: list[float | int] = costs[self.completion()].tolist()
        return reserved

    def eligible(self) -> Mask:
        """(n,) True where the picks can be completed after picking the item. Once closed, an item stays closed."""
        mask = self.candidates()
        if isinstance(self._witness, Witness):
            mask &= self._witness.open_cells()[self.constraints.cells.of]
        elif isinstance(self._witness, PricedWitness):
            for item in np.flatnonzero(mask).tolist():
                mask[item] = self.admits(item)
        return mask

    def any_eligible(self) -> bool:
        """Whether any item is; an item of a completion at hand is asked first."""
        if not isinstance(self._witness, PricedWitness):
            return bool(self.eligible().any())
        first = self._witness.completion.tolist()
        return any(map(self.admits, [*first, *np.flatnonzero(self.candidates()).tolist()]))

    def candidates(self, *, within_budget: bool = True) -> Mask:
        """(n,) True at least where `eligible` is; exact for up to one column of groups.

        Args:
            within_budget: whether what the budget cannot pay for is left out.
        """
        constraints = self.constraints
        if self.count >= constraints.k:
            return np.zeros(constraints.n, bool)
        if self._witness is not None:
            return self._witness_candidates(within_budget)
        mask = self.open.copy()
        needy = np.zeros(constraints.n, bool)
        if self._column is not None:
            needy = (self._deficit > 0)[self._column.codes]
            mask &= (self._picked_of[0] < self._column.most)[self._column.codes]
            if constraints.k - self.count <= self._deficit.sum():
                mask &= needy
        if constraints.costs is not None and within_budget:
            freed = np.zeros(constraints.n, constraints.costs.dtype)
            for code, items in enumerate(self._reserved() if needy.any() else ()):
                if len(items) and self._column is not None:
                    # Picking inside a group below its minimum frees the dearest item reserved for it; a reserved item
                    # costs nothing more.
                    freed[self._column.codes == code] = constraints.costs[items[-1]]
                    freed[items] = constraints.costs[items]
            mask &= self._affordable(freed)
        return mask

    def _witness_candidates(self, within_budget: bool) -> Mask:
        """What the witness of several columns does not rule out at sight."""
        if isinstance(self._witness, Witness):
            return self.open & ~self._witness.closed[self.constraints.cells.of]
        assert self._witness is not None
        if not within_budget:
            return self.open & self._witness.room()[self.constraints.cells.of]
        mask = self._witness.candidates()
        if not self._witness.deficit:
            assert self.constraints.costs is not None
            mask &= self._affordable(np.zeros(self.constraints.n, self.constraints.costs.dtype))
        return mask

    def admits(self, item: int) -> bool:
        """Whether the picks can be completed after picking this candidate; if not, it is no candidate any more."""
        if self._witness is None or self._witness.admits(item):
            return True
        # Nor will it be part of any completion.
        self.open[item] = False
        return False

    def _affordable(self, freed: NDArray[Any]) -> Mask:
        """(n,) True where the budget covers the item and the reserves, less the `freed` reserve of each item."""
        costs, limit = self.constraints.costs, self.constraints.limit
        assert costs is not None
        extra, room = costs - freed, limit - self.spent - self.reserve
        fits: Mask = extra <= room
        if costs.dtype.kind == "f":
            # Where rounding could decide, the sum is taken exactly, as that of the finished plan will be.
            close = np.abs(extra - room) <= 8 * np.finfo(np.float64).eps * limit
            for item in np.flatnonzero(close & self.open).tolist():
                fits[item] = math.fsum([*self._spends, *self._reserved_costs(), costs[item], -freed[item]]) <= limit
        return fits

    def completion(self) -> Ints:
        """The cheapest items that meet the minima still open; a search that is cut short must add them."""
        if isinstance(self._witness, PricedWitness):
            return self._witness.completion
        if self._witness is not None:
            needed = self._witness.completion()
            return best_of_cells(np.flatnonzero(self.open), self.constraints.cells.of, needed)
        if self._column is None or not self._deficit.any():
            return np.empty(0, np.int64)
        if self.constraints.costs is not None:
            return np.concatenate(self._reserved()).astype(np.int64)
        picks = [
            np.flatnonzero(self.open & (self._column.codes == code))[:short]
            for code, short in enumerate(self._deficit.tolist())
        ]
        return np.concatenate(picks)

    def filling(self, order: Ints) -> Ints:
        """Open items that complete the picks to k within every constraint, those early in `order` first.

        Under a budget, what the minima need, and then items of the order for as long as each can be paid for.
        """
        constraints, left = self.constraints, self.constraints.k - self.count
        order = order[self.open[order]]
        if isinstance(self._witness, Witness):
            return best_of_cells(order, constraints.cells.of, self._witness.spare)
        if constraints.costs is not None:
            needed = self.completion()
        elif self._column is not None:
            needed = best_of_cells(order, self._column.codes, self._deficit)
        else:
            needed = order[:0]
        rest = order[~np.isin(order, needed)]
        for column, picked in zip(constraints.columns, self._picked_of, strict=True):
            rest = best_of_cells(rest, column.codes, column.most - picked - column.counts(needed))
        rest = rest[: max(0, left - len(needed))]
        if constraints.costs is not None:
            room = float(constraints.limit - total([*self._spends, *constraints.costs[needed].tolist()]))
            sums = np.cumsum(constraints.costs[rest].astype(np.float64))
            # Float sums may err: what they leave to spare is more than their error.
            rest = rest[: np.searchsorted(sums, room * (1 - 1e-9), side="right")]
        return np.concatenate([needed, rest])

    def report(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(used, budget) of the plan."""
        constraints = self.constraints
        used: dict[str, Any] = {"k": self.count}
        limit: dict[str, Any] = {"k": constraints.k}
        if constraints.budget is not None:
            used["costs"], limit["costs"] = self.spent, constraints.budget
            if not constraints.exact_k and constraints.k == constraints.n:
                del limit["k"]
        for column, picked in zip(constraints.columns, self._picked_of, strict=True):
            for code in range(len(column.names)):
                if column.least[code] > 0 or column.most[code] < constraints.n:
                    used[column.key(code)] = int(picked[code])
                    limit[column.key(code)] = int(column.most[code])
        return used, limit


def pick_in_turn(
    tracker: Tracker, control: Control, choose: Callable[[Mask], int], take: Callable[[int], None]
) -> bool:
    """Take what is picked beforehand, then one item after the other until none is open.

    Args:
        tracker: knows the picks; the new ones are added to it.
        control: the time limit, and the bar.
        choose: the item to pick next, of the open ones.
        take: commits a pick.

    Returns:
        True where it was stopped before the end.
    """
    for item in tracker.constraints.preselected.tolist():
        take(item)
    while (open_items := tracker.candidates()).any():
        if control.stopped():
            return True
        item = choose(open_items)
        if tracker.admits(item):
            tracker.add(item)
            take(item)
            control.step(tracker.count)
    return False


def finish(
    tracker: Tracker,
    control: Control,
    add: Callable[[int], float],
    best: Callable[[Mask, int], Ints | None] | None = None,
) -> tuple[list[int], list[float]]:
    """Complete the picks of a search that was cut short: what the constraints need, and after a time limit also k.

    The items are those that `best` knows, and then drawn at random, which takes no time to speak of. `add` values them
    one after the other while the grace of the limit lasts.

    Args:
        tracker: knows the picks so far; the new ones are added to it.
        control: what stopped the search.
        add: commits a pick to the objective and returns its gain.
        best: open items that are good picks, of (n,) which items are open and how many are wanted, the best first;
            None where none are known.

    Returns:
        The new picks and their gains, NaN where no time was left to take them.
    """
    items = tracker.completion() if control.interrupted else tracker.filling(_order(tracker, best))
    gains = []
    for item in items.tolist():
        tracker.add(item)
        gains.append(math.nan if control.late() else add(item))
    return items.tolist(), gains


def _order(tracker: Tracker, best: Callable[[Mask, int], Ints | None] | None) -> Ints:
    """All items in the order in which they complete picks: those that `best` knows, then the others at random."""
    constraints = tracker.constraints
    order = np.random.default_rng(0).permutation(constraints.n)
    count = constraints.k - tracker.count
    if constraints.costs is not None:
        count = min(count, int(float(constraints.limit) / max(float(constraints.costs.mean()), 1e-300)))
    known = None if best is None or count < 1 else best(tracker.candidates(), count)
    if known is None:
        return order
    others = np.ones(constraints.n, bool)
    others[known] = False
    return np.concatenate([known, order[others[order]]])


def _preselected(start: Ints | None, include: Ints | None, banned: Mask) -> Ints:
    preselected = np.empty(0, np.int64) if start is None else start
    if include is not None:
        preselected = np.concatenate([preselected, include[~np.isin(include, preselected)]])
    clash = preselected[banned[preselected]]
    if len(clash):
        name = "start" if start is not None and clash[0] in start else "include"
        raise InfeasibleError(f"row {clash[0]} is both in {name} and in exclude; drop it from one")
    return preselected


def _fractional(gains: Floats, costs: NDArray[Any], budget: float) -> float:
    """Value of the fractional knapsack: greedy by density, the last item in part."""
    free = costs == 0
    with np.errstate(over="ignore"):
        ratio = np.where(free, 0.0, gains / np.where(free, 1, costs))
    # Of costs too small for a quotient none is charged, as their order by density is not known: it stays a bound.
    free |= np.isinf(ratio)
    best = float(gains[free].sum())
    order = np.argsort(-ratio, kind="stable")
    order = order[~free[order]]
    spend = np.cumsum(costs[order].astype(np.float64))
    n_whole = int(np.searchsorted(spend, budget, side="right"))
    best += float(gains[order[:n_whole]].sum())
    if n_whole < len(order):
        left = budget - (spend[n_whole - 1] if n_whole else 0.0)
        best += float(gains[order[n_whole]] * left / costs[order[n_whole]])
    return best
