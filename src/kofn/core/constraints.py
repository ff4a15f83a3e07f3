"""Constraints of a selection: cardinality, knapsack, quotas, must-include and must-exclude, kept exactly while picking.

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
    into `names`; `least` and `most` are the quota of each code. `preselected` (`start`, then `include`) are picked
    before the search begins; `banned` items are never picked.
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
        if self.groups is not None:
            self._refuse_infeasible_quotas()
        if self.budget is not None and self.costs is not None:
            self._refuse_infeasible_budget()

    def _refuse_infeasible_quotas(self) -> None:
        assert self.groups is not None
        groups = self.groups
        room = np.bincount(groups[~self.banned], minlength=len(self.names))
        in_group = np.bincount(groups[self.preselected], minlength=len(self.names))
        for code, name in enumerate(self.names):
            if self.least[code] > room[code]:
                raise InfeasibleError(
                    f"quotas[{name!r}] asks for at least {self.least[code]}, but only {room[code]} such items "
                    f"are open; lower it by {self.least[code] - room[code]}"
                )
            if in_group[code] > self.most[code]:
                raise InfeasibleError(
                    f"include and start hold {in_group[code]} of group {name!r}, its quota is at most {self.most[code]}"
                )
        need = int(np.maximum(self.least, in_group).sum())
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
        spent = total(self.costs[self.preselected])
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
        if not len(self.preselected) and not tracker.eligible().any():
            allowed = ~self.banned if self.groups is None else ~self.banned & (self.most > 0)[self.groups]
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

    @property
    def cardinality_only(self) -> bool:
        """True where only the number of picks (and `include`, `start`, `exclude`) constrains."""
        return self.budget is None and self.groups is None

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
        best = open_top if self.groups is None else self._best_by_quota(gains, order, slots)
        if self.costs is not None and self.budget is not None:
            best = min(best, _fractional(gains, self.costs, float(self.limit - total(self.costs[self.preselected]))))
        return best

    def _best_by_quota(self, gains: Floats, order: Ints, slots: int) -> float:
        assert self.groups is not None
        in_group = np.bincount(self.groups[self.preselected], minlength=len(self.names))
        ranked = order[gains[order] > 0]
        codes = self.groups[ranked]
        # The rank of each item inside its group, by gain: it may count while below the group's maximum.
        rank = np.empty(len(ranked), np.int64)
        for code in range(len(self.names)):
            members = codes == code
            rank[members] = np.arange(int(members.sum()))
        kept = ranked[rank < (self.most - in_group)[codes]]
        return float(np.sum(gains[kept[:slots]]))


class Tracker:
    """Which items may still be picked, kept exact as picks are made."""

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        self.count = 0
        self.spent: float | int = 0
        self.open = ~constraints.banned
        self._spends: list[float | int] = []
        self._picked_of = np.zeros(len(constraints.names), np.int64)
        self._deficit = constraints.least.copy()
        self._ranked: list[Ints] = []
        if constraints.costs is not None and constraints.groups is not None:
            order = np.argsort(constraints.costs, kind="stable")
            codes = constraints.groups[order]
            self._ranked = [order[codes == code] for code in range(len(constraints.names))]
        for item in constraints.preselected:
            self._record(int(item))

    def _record(self, item: int) -> None:
        constraints = self.constraints
        self.open[item] = False
        self.count += 1
        if constraints.costs is not None:
            self._spends.append(constraints.costs[item].item())
            self.spent = total(self._spends)
        if constraints.groups is not None:
            code = constraints.groups[item]
            self._picked_of[code] += 1
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
        """The least that the minima still have to cost."""
        return total(self._reserved_costs())

    @property
    def least_spend(self) -> float | int:
        """The money spent plus the least that the minima still have to cost, in one exact sum."""
        return total([*self._spends, *self._reserved_costs()])

    def _reserved_costs(self) -> list[float | int]:
        costs = self.constraints.costs
        if costs is None or self.constraints.groups is None:
            return []
        reserved: list[float | int] = costs[np.concatenate(self._reserved())].tolist()
        return reserved

    def eligible(self) -> Mask:
        """(n,) True where the picks can be completed after picking the item. Once closed, an item stays closed."""
        constraints = self.constraints
        if self.count >= constraints.k:
            return np.zeros(constraints.n, bool)
        mask = self.open.copy()
        needy = np.zeros(constraints.n, bool)
        if constraints.groups is not None:
            needy = (self._deficit > 0)[constraints.groups]
            mask &= (self._picked_of < constraints.most)[constraints.groups]
            if constraints.k - self.count <= self._deficit.sum():
                mask &= needy
        if constraints.costs is not None:
            freed = np.zeros(constraints.n, constraints.costs.dtype)
            for code, items in enumerate(self._reserved() if needy.any() else ()):
                if len(items):
                    # Picking inside a group below its minimum frees the dearest item reserved for it; a reserved item
                    # costs nothing more.
                    freed[constraints.groups == code] = constraints.costs[items[-1]]
                    freed[items] = constraints.costs[items]
            mask &= self._affordable(freed)
        return mask

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
        constraints = self.constraints
        if constraints.groups is None or not self._deficit.any():
            return np.empty(0, np.int64)
        if constraints.costs is not None:
            return np.concatenate(self._reserved()).astype(np.int64)
        picks = [
            np.flatnonzero(self.open & (constraints.groups == code))[:short]
            for code, short in enumerate(self._deficit.tolist())
        ]
        return np.concatenate(picks)

    def report(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(used, budget) of the plan."""
        constraints = self.constraints
        used: dict[str, Any] = {"k": self.count}
        limit: dict[str, Any] = {"k": constraints.k}
        if constraints.budget is not None:
            used["costs"], limit["costs"] = self.spent, constraints.budget
            if not constraints.exact_k and constraints.k == constraints.n:
                del limit["k"]
        if constraints.groups is not None:
            for code, name in enumerate(constraints.names):
                if constraints.least[code] > 0 or constraints.most[code] < constraints.n:
                    used[f"quota {name}"] = int(self._picked_of[code])
                    limit[f"quota {name}"] = int(min(constraints.most[code], constraints.n))
        return used, limit


def total(values: Any) -> float | int:
    """Exact sum: integers as Python integers, floats correctly rounded."""
    terms = np.asarray(values).tolist()
    return sum(terms) if all(isinstance(term, int) for term in terms) else math.fsum(terms)


def _preselected(start: Ints | None, include: Ints | None, banned: Mask) -> Ints:
    preselected = np.empty(0, np.int64) if start is None else start
    if include is not None:
        preselected = np.concatenate([preselected, include[~np.isin(include, preselected)]])
    clash = preselected[banned[preselected]]
    if len(clash):
        name = "start" if start is not None and clash[0] in start else "include"
        raise InfeasibleError(f"row {clash[0]} is both in {name} and in exclude; drop it from one")
    return preselected


def _quota_codes(
    groups: NDArray[Any] | None, quotas: dict[Any, tuple[int, int | None]] | None
) -> tuple[Ints | None, tuple[Any, ...], Ints, Ints]:
    if groups is None or quotas is None:
        return None, (), np.empty(0, np.int64), np.empty(0, np.int64)
    names, codes = np.unique(groups, return_inverse=True)
    n = len(groups)
    least, most = np.zeros(len(names), np.int64), np.full(len(names), n, np.int64)
    codes_by_name = {str(name): code for code, name in enumerate(names.tolist())}
    for group, (low, high) in quotas.items():
        code = codes_by_name.get(str(group))
        if code is None:
            if low == 0:
                continue
            hint = nearest(str(group), codes_by_name)
            raise InfeasibleError(f"quotas[{group!r}] asks for at least {low}, but no item has that group{hint}")
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
    n_whole = int(np.searchsorted(spend, budget, side="right"))
    best += float(gains[order[:n_whole]].sum())
    if n_whole < len(order):
        left = budget - (spend[n_whole - 1] if n_whole else 0.0)
        best += float(gains[order[n_whole]] * left / costs[order[n_whole]])
    return best
