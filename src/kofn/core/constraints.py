"""What a selection must obey: cardinality, knapsack, quotas, must-include, must-exclude, held exactly while picking.

A greedy search asks a `Tracker` which items are still open. The tracker reserves the slots and the money that the
quotas' minima still need, so a search that only picks open items can always be completed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InfeasibleError, InputError, nearest
from kofn.core.words import Where, part


@dataclass(frozen=True)
class Constraints:
    """The checked constraints of one selection.

    `k` is how many to pick: exactly that many, or at most that many where a budget is given too. `groups` are codes
    into `names`; `least` and `most` hold the quota of each code. `first` are the picks before the search begins.
    """

    n: int
    k: int
    exact_k: bool
    costs: NDArray[Any] | None
    budget: float | int | None
    groups: Ints | None
    names: tuple[Any, ...]
    least: Ints
    most: Ints
    first: Ints
    banned: Mask

    @classmethod
    def of(cls, n: int, words: Mapping[str, Any] | None = None, **where: Unpack[Where]) -> Constraints:
        """Check the constraints against each other; raises `InfeasibleError` that says which clash and by how much.

        Args:
            n: how many items there are.
            words: checked words of a call, of which those of the bundle `Where` are read.
            **where: the same, by name.
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
        first = _first(start, include, banned)
        codes, names, least, most = _quota_codes(groups, quotas)
        out = cls(
            n=n,
            k=n if k is None else k,
            exact_k=k is not None and budget is None,
            costs=costs,
            budget=budget,
            groups=codes,
            names=names,
            least=least,
            most=most,
            first=first,
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
        if len(self.first) > self.k:
            raise InfeasibleError(f"include and start hold {len(self.first)} items, more than k={self.k}; raise k")
        if self.groups is not None:
            self._refuse_infeasible_quotas()
        if self.budget is not None and self.costs is not None:
            self._refuse_infeasible_budget()

    def _refuse_infeasible_quotas(self) -> None:
        assert self.groups is not None
        groups = self.groups
        room = np.bincount(groups[~self.banned], minlength=len(self.names))
        held = np.bincount(groups[self.first], minlength=len(self.names))
        for code, name in enumerate(self.names):
            if self.least[code] > room[code]:
                raise InfeasibleError(
                    f"quotas[{name!r}] asks for at least {self.least[code]}, but only {room[code]} such items "
                    f"are open; lower it by {self.least[code] - room[code]}"
                )
            if held[code] > self.most[code]:
                raise InfeasibleError(
                    f"include and start hold {held[code]} of group {name!r}, its quota is at most {self.most[code]}"
                )
        need = int(np.maximum(self.least, held).sum())
        if need > self.k:
            raise InfeasibleError(
                f"the quotas' minima (with include) need {need} items, k={self.k}; "
                f"raise k or lower them by {need - self.k}"
            )
        most = int(np.minimum(self.most, room).sum())
        if self.exact_k and most < self.k:
            raise InfeasibleError(
                f"k={self.k}, but the quotas' maxima leave room for {most}; lower k or raise them by {self.k - most}"
            )

    def _refuse_infeasible_budget(self) -> None:
        assert self.costs is not None
        assert self.budget is not None
        if self.banned.all():
            raise InfeasibleError("exclude leaves no items to choose from")
        spent = total(self.costs[self.first])
        if spent > self.limit:
            raise InfeasibleError(
                f"include and start cost {spent:g}, over the budget of {self.budget:g} by {spent - self.budget:g}"
            )
        tracker = Tracker(self)
        need = tracker.least_spend
        if need > self.limit:
            raise InfeasibleError(
                f"the quotas' minima (with include) cost at least {need:g}, over the budget of {self.budget:g} by "
                f"{need - self.budget:g}; raise the budget or lower the minima"
            )
        if not len(self.first) and not tracker.eligible().any():
            allowed = ~self.banned if self.groups is None else ~self.banned & (self.most > 0)[self.groups]
            if not allowed.any():
                raise InfeasibleError("the quotas' maxima leave no item to choose; raise one")
            raise InfeasibleError(
                f"budget={self.budget:g} buys nothing: the cheapest item costs {self.costs[allowed].min():g}; "
                "raise the budget"
            )

    @property
    def limit(self) -> float | int:
        """The budget with the only tolerance there is: rounding of a float sum, none for integers."""
        assert self.budget is not None
        assert self.costs is not None
        if self.costs.dtype.kind == "i":
            return math.floor(self.budget)
        return self.budget * (1 + self.n * np.finfo(np.float64).eps)

    @property
    def cardinality_only(self) -> bool:
        """True where nothing but a count (and what is banned or first) binds."""
        return self.budget is None and self.groups is None

    def upper_bound(self, residual: Floats, picked: Mask) -> float:
        """The most that any feasible set can add, from upper bounds on the residual gains of all items.

        A relaxation, hence valid: the best items by count and by quota (exact for that matroid), or the fractional
        knapsack, whichever is smaller. Gains of items already picked are zero by submodularity.
        """
        gains = np.where(picked | self.banned, 0.0, np.maximum(residual, 0.0))
        order = np.argsort(-gains, kind="stable")
        # Items in `first` are in every feasible set and add nothing any more, so they only use up slots.
        slots = self.k - len(self.first)
        open_top = float(np.sum(gains[order[:slots]]))
        best = open_top if self.groups is None else self._best_by_quota(gains, order, slots)
        if self.costs is not None and self.budget is not None:
            best = min(best, _fractional(gains, self.costs, float(self.limit - total(self.costs[self.first]))))
        return best

    def _best_by_quota(self, gains: Floats, order: Ints, slots: int) -> float:
        assert self.groups is not None
        held = np.bincount(self.groups[self.first], minlength=len(self.names))
        ranked = order[gains[order] > 0]
        codes = self.groups[ranked]
        # The place of each item inside its group, in order of gain: it may count while below the group's maximum.
        place = np.empty(len(ranked), np.int64)
        for code in range(len(self.names)):
            mine = codes == code
            place[mine] = np.arange(int(mine.sum()))
        kept = ranked[place < (self.most - held)[codes]]
        return float(np.sum(gains[kept[:slots]]))


class Tracker:
    """Which items may still be picked, kept exact as picks are made."""

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        self.count = 0
        self.spent: float | int = 0
        self.open = ~constraints.banned
        self._spends: list[float | int] = []
        self._held = np.zeros(len(constraints.names), np.int64)
        self._deficit = constraints.least.copy()
        self._ranked: list[Ints] = []
        if constraints.costs is not None and constraints.groups is not None:
            order = np.argsort(constraints.costs, kind="stable")
            codes = constraints.groups[order]
            self._ranked = [order[codes == code] for code in range(len(constraints.names))]
        for item in constraints.first:
            self._record(int(item))

    def _record(self, item: int) -> None:
        rules = self.constraints
        self.open[item] = False
        self.count += 1
        if rules.costs is not None:
            self._spends.append(rules.costs[item].item())
            self.spent = total(self._spends)
        if rules.groups is not None:
            code = rules.groups[item]
            self._held[code] += 1
            self._deficit[code] = max(0, self._deficit[code] - 1)

    def add(self, item: int) -> None:
        """Commit a pick."""
        self._record(item)

    def _reserved(self) -> list[Ints]:
        """For each group, the cheapest open items that its minimum still needs."""
        return [
            ranked[self.open[ranked]][:short]
            for ranked, short in zip(self._ranked, self._deficit.tolist(), strict=True)
        ]

    @property
    def reserve(self) -> float | int:
        """What the minima still have to cost at the least."""
        return total(self._reserved_costs())

    @property
    def least_spend(self) -> float | int:
        """What is spent and what the minima still have to cost, in one exact sum."""
        return total([*self._spends, *self._reserved_costs()])

    def _reserved_costs(self) -> list[float | int]:
        costs = self.constraints.costs
        if costs is None or self.constraints.groups is None:
            return []
        held: list[float | int] = costs[np.concatenate(self._reserved())].tolist()
        return held

    def eligible(self) -> Mask:
        """(n,) True where picking the item leaves the rest completable. What is closed once stays closed."""
        rules = self.constraints
        if self.count >= rules.k:
            return np.zeros(rules.n, bool)
        mask = self.open.copy()
        needy = np.zeros(rules.n, bool)
        if rules.groups is not None:
            needy = (self._deficit > 0)[rules.groups]
            mask &= (self._held < rules.most)[rules.groups]
            if rules.k - self.count <= self._deficit.sum():
                mask &= needy
        if rules.costs is not None:
            freed = np.zeros(rules.n, rules.costs.dtype)
            for code, items in enumerate(self._reserved() if needy.any() else ()):
                if len(items):
                    # Picking inside a group that is short frees the dearest item reserved for it; one that is itself
                    # reserved costs nothing more.
                    freed[rules.groups == code] = rules.costs[items[-1]]
                    freed[items] = rules.costs[items]
            mask &= self._affordable(freed)
        return mask

    def _affordable(self, freed: NDArray[Any]) -> Mask:
        """(n,) True where the budget holds the item and what stays reserved once it frees that much."""
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
        """Items that meet the minima still open at the least cost: what a search that is cut short must add."""
        rules = self.constraints
        if rules.groups is None or not self._deficit.any():
            return np.empty(0, np.int64)
        if rules.costs is not None:
            return np.concatenate(self._reserved()).astype(np.int64)
        picks = [
            np.flatnonzero(self.open & (rules.groups == code))[:short]
            for code, short in enumerate(self._deficit.tolist())
        ]
        return np.concatenate(picks)

    def report(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(used, budget) of the plan."""
        rules = self.constraints
        used: dict[str, Any] = {"k": self.count}
        limit: dict[str, Any] = {"k": rules.k}
        if rules.budget is not None:
            used["costs"], limit["costs"] = self.spent, rules.budget
            if not rules.exact_k and rules.k == rules.n:
                del limit["k"]
        if rules.groups is not None:
            for code, name in enumerate(rules.names):
                if rules.least[code] > 0 or rules.most[code] < rules.n:
                    used[f"quota {name}"] = int(self._held[code])
                    limit[f"quota {name}"] = int(min(rules.most[code], rules.n))
        return used, limit


def total(values: Any) -> float | int:
    """Exact sum: integers as Python integers, floats correctly rounded."""
    terms = np.asarray(values).tolist()
    return sum(terms) if all(isinstance(term, int) for term in terms) else math.fsum(terms)


def _first(start: Ints | None, include: Ints | None, banned: Mask) -> Ints:
    first = np.empty(0, np.int64) if start is None else start
    if include is not None:
        first = np.concatenate([first, include[~np.isin(include, first)]])
    clash = first[banned[first]]
    if len(clash):
        name = "start" if start is not None and clash[0] in start else "include"
        raise InfeasibleError(f"row {clash[0]} is both in {name} and in exclude; drop it from one")
    return first


def _quota_codes(
    groups: NDArray[Any] | None, quotas: dict[Any, tuple[int, int | None]] | None
) -> tuple[Ints | None, tuple[Any, ...], Ints, Ints]:
    if groups is None or quotas is None:
        return None, (), np.empty(0, np.int64), np.empty(0, np.int64)
    names, codes = np.unique(groups, return_inverse=True)
    n = len(groups)
    least, most = np.zeros(len(names), np.int64), np.full(len(names), n, np.int64)
    where = {str(name): code for code, name in enumerate(names.tolist())}
    for group, (low, high) in quotas.items():
        code = where.get(str(group))
        if code is None:
            if low == 0:
                continue
            raise InfeasibleError(
                f"quotas[{group!r}] asks for at least {low}, but no item has that group{nearest(str(group), where)}"
            )
        least[code] = low
        most[code] = n if high is None else high
    return codes.astype(np.int64), tuple(names.tolist()), least, most


def _fractional(gains: Floats, costs: NDArray[Any], budget: float) -> float:
    """Value of the fractional knapsack: greedy by density, the last item in part."""
    free = costs == 0
    best = float(gains[free].sum())
    ratio = np.where(free, 0.0, gains / np.where(free, 1, costs))
    order = np.argsort(-ratio, kind="stable")
    order = order[~free[order]]
    spend = np.cumsum(costs[order].astype(np.float64))
    whole = int(np.searchsorted(spend, budget, side="right"))
    best += float(gains[order[:whole]].sum())
    if whole < len(order):
        left = budget - (spend[whole - 1] if whole else 0.0)
        best += float(gains[order[whole]] * left / costs[order[whole]])
    return best
