"""One threshold pass along an order: for set functions whose returns diminish along that order only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints, Tracker, finish
from kofn.core.constraints import total as exact_sum
from kofn.core.draws import Draw
from kofn.core.objective import Objective
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.objectives import base
from kofn.selection.greedy._run import Greedy, complete, default_objective, sources_of

# Candidates whose gains are taken at once: few after a pick, since the next pick makes the rest stale.
_LEAST_BATCH, _MOST_BATCH = 16, 4096


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    draws=Draw(any_function=True, options={"eps": (0.01, 0.1, 0.5)}),
    cost="one pass over the pool for each of about log(2k)/eps thresholds (one pass in all under quotas); O(n) memory",
    exact=">= 1/2 of the optimum under k, 1/3 under a budget, 1/5 under both (each / (1 + eps)), 1/4 under quotas",
    paper=298,
)
def order_threshold(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    order: ArrayLike | None = None,
    eps: float = 0.1,
    **words: Unpack[Greedy],
) -> Selection:
    """Pick along one order of the pool whatever gains a threshold: for functions whose returns diminish only that way.

    A monotone f has a submodular order if f(C | A) <= f(C | B) for B inside A and C entirely later than A. Every
    monotone submodular f has every order; the revenue of an assortment ("mnl_revenue") has descending price, and greedy
    has no guarantee for it.

    Under k, a pass takes item e if f(e | picks) >= t; under a budget, if it fits and f(e | picks) >= t cost / budget.
    The thresholds t form a grid of ratio 1 + eps around what the optimum may be, and the best pass (or best single
    item) wins; what room it leaves is filled with what gains most. Under quotas, one pass takes every item that fits,
    and swaps it for the least valuable pick in its way if it gains more than that pick is worth; gains are taken given
    all items ever picked, and a swapped-in item inherits the worth of the one it replaces.

    Args:
        X: vectors (n, d); or `similarity` (n, n); or `scores` (n,): prices, for objective "mnl_revenue".
        objective: "facility_location" (default; with `scores` alone "modular"), "mnl_revenue" or any other monotone
            objective by name, or an object with `gains`, `add` and `value`. An object that is not submodular may have
            `order`, its own order, and `keeps(order)`, whether returns diminish along it.
        weights: (n,) how much each item of the pool counts; for "mnl_revenue" how attractive it is, exp(utility).
        order: (n,) the items in the order of the pass; default the objective's own, else as they come.
        eps: ratio of the thresholds, less 1; in 0..1.

    Returns:
        Selection in the order of the pass, then what filled it up. `gains` sum to `value`; `bound` is at least the
        optimum's value; `guarantee` is the proven share of the optimum. Both are None where f is not known to
        have that order (status "heuristic"), or where `include` or `start` hold items of a function that is not
        submodular; the guarantee also where quotas meet a budget. `info["passes"]` counts the passes.

    Raises:
        InputError: bad input, or an `order` that is no permutation. InfeasibleError: constraints that clash.

    Costs log(2k)/eps passes of at most 2n gains each. The shares for k, a budget and quotas are the paper's; that for
    a budget with a k follows by counting both as one load of at most 2.

    References:
        Udwani, "Submodular order functions and assortment optimization", ICML 2023, arXiv 2107.02743.
        Chakrabarti, Kale, "Submodular maximization meets streaming", 2014 (the swaps).

    Examples:
        >>> from kofn.selection import order_threshold
        >>> prices, pull = [10.0, 8.0, 5.0, 2.0], [0.2, 1.0, 1.0, 3.0]
        >>> s = order_threshold(scores=prices, weights=pull, objective="mnl_revenue", k=2)
        >>> s.indices.tolist(), round(s.value, 3), s.value <= s.bound
        ([0, 1], 4.545, True)
    """
    given = complete({"X": X, "similarity": similarity, "scores": scores, **words})
    return _Passes(given, order, eps).plan()


@dataclass
class _Run:
    """What one pass found: its picks, what they are worth beyond what was held, and a bound on what any could be."""

    picks: list[int]
    value: float
    bound: float = math.inf


class _Stopped(Exception):
    """The time was up in the middle of a step."""


class _Passes:
    """The passes of one call, and the best that they found."""

    def __init__(self, given: Mapping[str, Any], order: Any, eps: float) -> None:
        self.eps = checks.fraction(eps, "eps")
        if self.eps == 0:
            raise InputError("eps=0: the thresholds would never end; give a number above 0, at most 1")
        pairs = given["X"] is not None or given["similarity"] is not None
        self.requested = default_objective(given)
        # Each pass picks on a copy of it.
        self.unused = base.build(self.requested, sources_of(given))
        n = int(
            given["scores"].size
            if not pairs
            else (given["X"] if given["X"] is not None else given["similarity"]).shape[0]
        )
        self.constraints = Constraints.of(n, given)
        self.order = _order(order, self.unused, n)
        # With items held from the start, what comes later than all picks no longer comes later than all that is held.
        along = not len(self.constraints.preselected) and self.unused.keeps(self.order)
        self.proven = self.unused.monotone and (self.unused.submodular or along)
        self.control = Control(time_limit=given["time_limit"], progress=given["progress"], total=0, title="passing")
        self.calls, self.passes, self.stopped = 0, 0, False
        self.filled_by = "at random"
        self.bound = math.inf

    def _fresh(self) -> Objective:
        """The objective with nothing picked but what had to be."""
        objective = copy.deepcopy(self.unused)
        for item in self.constraints.preselected.tolist():
            objective.add(item)
        return objective

    def _gains(self, objective: Objective, items: Ints) -> Floats:
        """Gains now; an objective that can be stopped in its own work is, and then this raises `_Stopped`."""
        self.calls += len(items)
        objective.bind(self._poll)
        try:
            return objective.gains(items)
        finally:
            objective.bind(None)

    def _poll(self) -> None:
        if self.control.stopped():
            raise _Stopped

    def plan(self) -> Selection:
        """Run the passes and complete the best of them."""
        constraints = self.constraints
        with self.control:
            objective, possible = self._fresh(), Tracker(constraints).eligible()
            preselected_value = objective.value(constraints.preselected) if len(constraints.preselected) else 0.0
            items = self.order[possible[self.order]]
            alone = np.zeros(constraints.n)
            best = _Run([], 0.0)
            share: float | None = 1.0
            try:
                alone[items] = self._gains(objective, items)
                self.bound = constraints.upper_bound(alone, np.zeros(constraints.n, bool))
            except _Stopped:
                self.stopped = True
            if not self.stopped and len(items) and alone[items].max() > 0:
                runs, best, share = self._runs(items, alone)
                for run in runs:
                    self.passes += 1
                    self.control.step(self.passes)
                    self.bound = min(self.bound, run.bound)
                    if run.value > best.value:
                        best = run
                    if self.stopped or self.control.stopped():
                        self.stopped = True
                        break
            return self._complete(best.picks, preselected_value, share)

    def _runs(self, items: Ints, alone: Floats) -> tuple[Iterator[_Run], _Run, float | None]:
        """The passes to make, what is there before the first, and the share of the optimum that they prove.

        An item's load is its share of the slots, of the budget, or both. A pass at threshold t on the gain for a unit
        of load holds items worth t once it is full (t / 2, it or the best single item, where a dear one did not fit),
        and what it passed over is worth less than t times the load of the optimum, which is 1, or 2 with both. The best
        t is the optimum over 2, 3/2 or 5/2. The optimum lies between the best single item and as many of those as fit,
        and the thresholds hit every such t within 1 + eps.
        """
        constraints = self.constraints
        slots = constraints.k - len(constraints.preselected)
        if len(constraints.columns) == 1 and constraints.budget is None:
            return iter([self._swapping_pass(alone)]), _Run([], 0.0), 0.25
        top = float(alone[items].max())
        load, most, over, share = np.full(constraints.n, 1.0 / slots), slots, 2.0, 1 / 2
        if constraints.budget is not None:
            assert constraints.costs is not None
            room = float(constraints.limit - exact_sum(constraints.costs[constraints.preselected]))
            costs = constraints.costs.astype(np.float64)
            # With no room left only free items are open, and they are no load.
            part = np.divide(costs, room, out=np.zeros(constraints.n), where=costs > 0) if room > 0 else costs
            fit = int(np.searchsorted(np.cumsum(np.sort(costs[items])), room * (1 + 1e-9), side="right"))
            bound_by_both = fit > slots
            load, over, share = (load + part, 5 / 2, 1 / 5) if bound_by_both else (part, 3 / 2, 1 / 3)
            most = max(1, min(slots, fit))
        steps = math.floor(math.log(most) / math.log1p(self.eps) + 1e-9) + 1
        levels = [top / over * (1 + self.eps) ** step for step in range(steps)]
        single = _Run([int(items[np.argmax(alone[items])])], top)
        quotas = bool(constraints.columns)
        return (self._pass(level * load, alone) for level in levels), single, None if quotas else share / (1 + self.eps)

    def _scan(
        self, objective: Objective, items: Ints, reaches: Callable[[Ints, Floats], Mask]
    ) -> Iterator[tuple[Ints, Floats, int]]:
        """Along `items`: those passed over and their gains, and then the one that `reaches` (-1 at the end).

        `objective` must have been brought up to date by the caller when it goes on.
        """
        low, step = 0, _LEAST_BATCH
        while low < len(items):
            if self.control.stopped():
                self.stopped = True
                return
            part = items[low : low + step]
            try:
                gains = self._gains(objective, part)
            except _Stopped:
                self.stopped = True
                return
            hits = np.flatnonzero(reaches(part, gains))
            if len(hits):
                first = int(hits[0])
                yield part[:first], gains[:first], int(part[first])
                low, step = low + first + 1, _LEAST_BATCH
            else:
                yield part, gains, -1
                low, step = low + step, min(_MOST_BATCH, step * 2)

    def _pass(self, needs: Floats, alone: Floats) -> _Run:
        """Take, in order, every item that fits and gains what it needs."""
        constraints, objective, tracker = self.constraints, self._fresh(), Tracker(self.constraints)
        fits = tracker.eligible()
        # What an item gains alone is the most that it gains later, if returns diminish.
        worth = (alone >= needs)[self.order] if self.proven else True
        items = self.order[fits[self.order] & worth]
        residual, picks, value = alone.copy(), [], 0.0

        def reaches(part: Ints, got: Floats) -> Mask:
            return fits[part] & (got >= needs[part])

        for passed, gains, item in self._scan(objective, items, reaches):
            residual[passed] = gains
            if item >= 0:
                value += objective.add(item)
                picks.append(item)
                tracker.add(item)
                fits[:] = tracker.eligible()
                if not fits.any():
                    break
        return _Run(picks, value, value + constraints.upper_bound(residual, _mask(constraints.n, picks)))

    def _swapping_pass(self, alone: Floats) -> _Run:
        """Take, in order, every item that the quotas leave room for, or that is worth more than one in its way."""
        constraints, objective = self.constraints, self._fresh()
        (column,) = constraints.columns
        groups, least, most = column.codes, column.least, column.most
        counts = np.bincount(groups[constraints.preselected], minlength=len(least))
        worth: dict[int, float] = {}
        bars, victims = np.empty(len(least)), np.empty(len(least), np.int64)

        def look() -> None:
            """For each group what a newcomer must gain, and whom it replaces (-1: nobody)."""
            # What is picked can be completed to k within the quotas while the minima still to come leave it room.
            full = int(np.maximum(counts, least).sum()) >= constraints.k
            for code in range(len(least)):
                free = counts[code] < most[code] and (counts[code] < least[code] or not full)
                # In a full plan a newcomer may also take the place of a group that holds more than its minimum.
                able = [
                    item
                    for item in worth
                    if groups[item] == code
                    or (counts[code] < most[code] and counts[groups[item]] > least[groups[item]])
                ]
                victims[code] = -1 if free or not able else min(able, key=worth.__getitem__)
                bars[code] = -math.inf if free else worth[int(victims[code])] if able else math.inf

        look()
        residual, ever, total = alone.copy(), [], 0.0
        items = self.order[~_mask(constraints.n, constraints.preselected)[self.order] & ~constraints.banned[self.order]]
        for passed, gains, item in self._scan(objective, items, lambda part, got: got > bars[groups[part]]):
            residual[passed] = gains
            if item >= 0:
                gain, victim = objective.add(item), int(victims[groups[item]])
                ever.append(item)
                total += gain
                counts[groups[item]] += 1
                if victim >= 0:
                    gain += worth.pop(victim)
                    counts[groups[victim]] -= 1
                worth[item] = gain
                look()
        picks = list(worth)
        value = objective.value(np.array([*constraints.preselected.tolist(), *picks], np.int64))
        return _Run(picks, value, total + constraints.upper_bound(residual, _mask(constraints.n, ever)))

    def _complete(self, picks: list[int], preselected_value: float, share: float | None) -> Selection:
        """The picks one after the other on a fresh objective, and what room they leave filled with what gains most."""
        constraints, tracker = self.constraints, Tracker(self.constraints)
        objective = copy.deepcopy(self.unused)
        chosen = constraints.preselected.tolist()
        gains = [objective.add(item) for item in chosen]

        def take(item: int) -> None:
            tracker.add(item)
            chosen.append(item)
            gains.append(objective.add(item))

        for item in picks:
            if self.stopped and self.control.late():
                break
            take(item)
        picks_in_time = len(chosen)
        left = self.order[tracker.eligible()[self.order]]
        if self.stopped:

            def fill(open_items: Mask, count: int) -> Ints | None:
                known = objective.filling(np.array(chosen, np.int64), open_items, count)
                self.filled_by = "at random" if known is None else "by greedy search on a sample"
                return known

            added, brought = finish(tracker, self.control, objective.add, fill)
            chosen, gains = chosen + added, gains + brought
        elif len(left):
            worth = objective.gains(left)
            self.calls += len(left)
            rank = worth
            if constraints.costs is not None:
                rank = worth / np.maximum(constraints.costs[left].astype(np.float64), np.finfo(np.float64).tiny ** 0.5)
            for i in np.argsort(-rank, kind="stable").tolist():
                if (constraints.exact_k or worth[i] > 0) and tracker.eligible()[left[i]]:
                    take(int(left[i]))
        for item in tracker.completion().tolist():
            take(item)
        value = math.fsum(gains)
        # Rounding may leave the bound a hair under the value that it encloses.
        bound = max(value, preselected_value + self.bound) if self.proven and math.isfinite(self.bound) else None
        if math.isnan(value):
            bound = None
        status = "approximate" if self.proven else "heuristic"
        if bound is not None and bound - value <= 1e-12 * abs(value):
            status = "optimal"
        if self.stopped:
            status = "stopped"
        used, limit = tracker.report()
        return Selection(
            n=constraints.n,
            indices=np.array(chosen, np.int64),
            gains=np.array(gains),
            value=value,
            bound=bound,
            status=status,
            used=used,
            budget=limit,
            objective=base.named(self.requested),
            guarantee=share if self.proven and not self.stopped else None,
            info={
                **({} if objective.offset is None else {"offset": objective.offset}),
                **objective.in_distances(value, bound),
                "passes": self.passes,
                **({"found_in_time": picks_in_time, "filled_by": self.filled_by} if self.stopped else {}),
                "oracle_calls": self.calls,
                "distance_evals": objective.distance_evals,
            },
        )


def _mask(n: int, items: Any) -> Mask:
    mask = np.zeros(n, bool)
    mask[np.asarray(items, np.int64)] = True
    return mask


def _order(order: Any, objective: Objective, n: int) -> Ints:
    """The order of the pass: the user's, the objective's own, or the pool's."""
    if order is None:
        return np.arange(n) if objective.order is None else objective.order
    positions = checks.positions(order, "order", n)
    if len(positions) != n:
        raise InputError(f"order has {len(positions)} of the pool's {n} items; give every item once")
    return positions
