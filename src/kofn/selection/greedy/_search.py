"""The greedy search that the methods share: stale gains as upper bounds, near-ties settled exactly, a proven bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.constraints import Constraints, Tracker, finish
from kofn.core.objective import Objective, best_of_rivals
from kofn.core.plans import Selection
from kofn.core.runtime import Control

# How many stale candidates are re-evaluated at once: enough to make one blocked pass worth its while.
_LEAST_BATCH, _MOST_BATCH = 16, 1024
# A free item ranks as if it cost 2^-900: before all that is not free, and still by its gain.
_FREE = 900
# The bound costs a sort of the pool, so it is taken at this many points along the way and at the end.
_BOUNDS_TAKEN = 8
# Candidates evaluated between two looks at the clock.
_AT_ONCE = 1 << 14
# A threshold that has further to fall than this many steps falls at once.
_MOST_STEPS = 64


class _Stopped(Exception):
    """The time was up in the middle of a step."""


# What a search may rank by: the gain; the gain per cost; the gain per share of the slots and of the budget together.
BY_GAIN, BY_COST, BY_LOAD = "gain", "gain per cost", "gain per load"


class Search:
    """One greedy run: stale gains are upper bounds (with the objective's tolerance), near-ties are settled exactly.

    Class attributes:
        takes_the_best: True where every pick is the one that gains most, so that a modular objective is solved exactly.
            A search that picks otherwise inherits no such certificate.

    Attributes:
        budget_binds: True where the budget kept the run from its choice, so that ranking by cost may do better.
    """

    takes_the_best: ClassVar[bool] = True

    def __init__(
        self,
        objective: Objective,
        constraints: Constraints,
        control: Control,
        lazy: bool,
        *,
        ranks_by: str = BY_GAIN,
    ) -> None:
        self.objective, self.constraints, self.control, self.lazy = objective, constraints, control, lazy
        self.ranks_by = ranks_by
        self.budget_binds = False
        self.tolerance = 0.0
        # How far each upper value may be off: the tolerance when it was taken, which falls as the run goes on.
        self.error = np.zeros(constraints.n)
        self.eager = objective.eager
        # Some objectives find the largest gain themselves, but not the largest gain per cost.
        self.picks_best_itself = lazy and type(self) is Search and ranks_by == BY_GAIN and objective.finds_best
        self.upper = np.full(constraints.n, np.inf)
        self.exact_upper = np.full(constraints.n, np.inf)
        self.fresh = np.zeros(constraints.n, bool)
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.bound = math.inf
        self.stopped = False
        # How many picks the search itself made before it was stopped.
        self.picks_in_time: int | None = None
        # How the other picks were found.
        self.filled_by = "at random"
        self.tracker = Tracker(constraints)
        self.possible = np.zeros(constraints.n, bool)
        self.batch = _LEAST_BATCH
        self.calls_before = 0
        # Binary exponent of the first gains: what is free must not overflow when it is put before all that costs.
        self.unit: int | None = None

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let the objective ask within its own work whether the time is up."""
        self.objective.bind(self._poll)
        try:
            yield
        finally:
            self.objective.bind(None)

    def run(self) -> None:
        """Make all picks."""
        with self._stoppable():
            self._run()

    def _run(self) -> None:
        for item in self.constraints.preselected.tolist():
            self._take(item)
        every = max(1, self.constraints.k // _BOUNDS_TAKEN)
        self.possible = self.tracker.candidates()
        while (open_items := self.tracker.candidates()).any():
            if self.control.stopped():
                self.stopped = True
                break
            try:
                item = self._choice(open_items)
            except _Stopped:
                self.stopped = True
                break
            if not self.tracker.admits(item):
                self.budget_binds |= self.constraints.budget is not None
                continue
            if len(self.picks) % every == 0:
                self._bound()
            if not self.constraints.exact_k and self.exact_upper[item] < 0 and not len(self.tracker.completion()):
                break
            self.tracker.add(item)
            self._take(item)
            self.fresh[:] = False
            self.control.step(len(self.picks))
        if self.constraints.budget is not None and not self.stopped:
            self.budget_binds |= bool(self.tracker.candidates(within_budget=False).any())
        self._value()
        self._bound()
        if self.stopped:
            self.picks_in_time = len(self.picks)
            picks, gains = finish(self.tracker, self.control, self.objective.add, self._filling)
            self.picks += picks
            self.gains += gains

    def _filling(self, open_items: Mask, count: int) -> Ints | None:
        """Open items that complete the picks, the best first; None where the objective knows none."""
        known = self.objective.filling(np.array(self.picks, np.int64), open_items, count)
        self.filled_by = "at random" if known is None else "by greedy search on a sample"
        return known

    def _choice(self, open_items: Mask) -> int:
        """The item to pick next; while the budget has not yet kept the run from its choice, this is watched."""
        if self.constraints.budget is not None and not self.budget_binds:
            wanted = self.tracker.candidates(within_budget=False)
            if (wanted & ~open_items).any():
                item = self._best(wanted)
                if open_items[item]:
                    return item
                self.budget_binds = True
        return self._best(open_items)

    def _take(self, item: int) -> None:
        self.picks.append(item)
        self.gains.append(self.objective.add(item))
        self.upper[item] = self.exact_upper[item] = 0.0

    def _value(self) -> None:
        """Take the gains of the picks so far that `_take` left for later: a search that values many at once does."""

    def _keys(self, gains: Floats, items: Ints) -> Floats:
        """What the search ranks by; per cost, what is free comes first, by its gain."""
        if self.ranks_by == BY_GAIN or self.constraints.costs is None:
            return gains
        costs = self.constraints.costs[items].astype(np.float64)
        if self.ranks_by == BY_LOAD:
            return gains / (1 / self.constraints.k + costs / float(self.constraints.limit or 1))
        if self.unit is None and len(gains) and 0 < (most := float(gains.max())) < math.inf:
            self.unit = max(0, math.frexp(most)[1])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = gains / costs
        # What costs so little that the quotient overflows is as good as free.
        priced = (costs > 0) & ~np.isposinf(ratio)
        return np.where(priced, ratio, np.where(gains > 0, np.ldexp(gains, _FREE - (self.unit or 0)), gains))

    def _poll(self) -> None:
        if self.control.stopped():
            raise _Stopped

    def _evaluate(self, items: Ints) -> None:
        # The first look at a large pool takes long: it must be possible to stop it. An objective that polls does so
        # within its own work, and does best when asked for all at once.
        step = len(items) if self.objective.polls else _AT_ONCE
        for low in range(0, len(items), step or 1):
            if low:
                self._poll()
            batch = items[low : low + step]
            self.upper[batch] = self.objective.gains(batch)
            self.fresh[batch] = True
        self.tolerance = self.objective.tolerance
        self.error[items] = self.tolerance

    def _best(self, open_items: Mask) -> int:
        if self.picks_best_itself:
            # The objective knows whom it need not look at.
            return self.objective.best(open_items)
        items = np.flatnonzero(open_items)
        if not self.lazy or self.eager or not np.isfinite(self.upper[items]).all():
            # The first step looks at everything; so does every step of the plain search, and of an objective that
            # brings all gains up to date for little more than a few.
            self._evaluate(items)
        batch = self.batch
        evaluated = 0
        while True:
            low = -np.inf
            fresh = items[self.fresh[items]]
            if len(fresh):
                low = float(self._keys(self.upper[fresh] - self.tolerance, fresh).max())
            stale = items[~self.fresh[items]]
            if not len(stale):
                break
            keys = self._keys(self._ceiling(stale), stale)
            worth = keys >= low
            stale, keys = stale[worth], keys[worth]
            if not len(stale):
                break
            if len(stale) > batch:
                stale = np.sort(stale[np.argpartition(-keys, batch - 1)[:batch]])
            self._evaluate(stale)
            evaluated += len(stale)
            batch = min(_MOST_BATCH, batch * 2)
        self.batch = int(min(_MOST_BATCH, max(_LEAST_BATCH, evaluated)))
        return self._settle(items[self.fresh[items]])

    def _settle(self, fresh: Ints) -> int:
        """The best of the freshly evaluated, exactly; ties go to the lowest index."""
        if self.tolerance == 0.0:
            keys = self._keys(self.upper[fresh], fresh)
            item = int(fresh[int(np.argmax(keys))])
            self.exact_upper[item] = self.upper[item]
            return item
        low = self._keys(self.upper[fresh] - self.tolerance, fresh).max()
        high = self._keys(np.minimum(self.upper[fresh] + self.tolerance, self.exact_upper[fresh]), fresh)
        rivals, high = fresh[high >= low], high[high >= low]

        def measure(batch: Ints) -> Floats:
            gains = self.objective.exact_gains(batch)
            self.exact_upper[batch] = gains
            return self._keys(gains, batch)

        return best_of_rivals(rivals, high, measure)

    def _ceiling(self, items: Ints) -> Floats:
        """What each item can gain at the most: its last gain, with the error it was taken with."""
        return np.minimum(self.upper[items] + self.error[items], self.exact_upper[items])

    def _bound(self) -> None:
        if not (self.objective.submodular and self.objective.monotone):
            return
        picked = np.zeros(self.constraints.n, bool)
        picked[self.picks] = True
        ceiling = self._ceiling(np.arange(self.constraints.n))
        if self.picks_best_itself:
            np.minimum(ceiling, self.objective.ceilings(), out=ceiling)
        # Items that could never be picked, whatever the search did, are in no feasible set.
        ceiling[~self.possible] = 0.0
        if not np.isfinite(ceiling).all():
            return
        self.bound = min(self.bound, math.fsum(self.gains) + self.constraints.upper_bound(ceiling, picked))

    def tighten(self) -> None:
        """Fresh residual gains of every item at the end, for the smallest bound this run can prove."""
        try:
            with self._stoppable():
                self._evaluate(np.flatnonzero(self.possible))
        except _Stopped:
            # The picks are complete; only the smaller bound is not to be had.
            return
        self._bound()

    def plan(self, name: str) -> Selection:
        """The picks as a plan of the objective called `name`."""
        objective, constraints = self.objective, self.constraints
        value = math.fsum(self.gains)
        promised = objective.submodular and objective.monotone
        bound = self.bound if promised and np.isfinite(self.bound) and not math.isnan(value) else None
        status = "approximate" if promised else "heuristic"
        exact = constraints.budget is None and len(constraints.columns) < 2
        if self.takes_the_best and name == "modular" and exact and not self.stopped:
            bound, status = value, "optimal"
        elif bound is not None:
            # Rounding may leave the bound a hair under the value that it encloses.
            bound = max(bound, value)
            if bound - value <= 1e-12 * abs(value):
                status = "optimal"
        if self.stopped:
            status = "stopped"
        used, limit = self.tracker.report()
        return Selection(
            n=constraints.n,
            indices=np.array(self.picks, np.int64),
            gains=np.array(self.gains),
            value=value,
            bound=bound,
            status=status,
            used=used,
            budget=limit,
            objective=name,
            guarantee=self._guarantee(promised),
            info={
                # Without the c of "c - distance" a value cannot be compared with another, nor recounted.
                **objective.in_distances(value, bound),
                **self._expected(promised),
                **(
                    {
                        "found_in_time": len(self.picks) if self.picks_in_time is None else self.picks_in_time,
                        "filled_by": self.filled_by,
                    }
                    if self.stopped
                    else {}
                ),
                "oracle_calls": objective.calls + self.calls_before,
                "distance_evals": objective.distance_evals,
            },
        )

    def _guarantee(self, promised: bool) -> float | None:
        """The proven share of the optimum, by the search's own analysis or the objective's."""
        if self.stopped:
            return None
        if promised:
            return self._proven()
        # Beyond submodular functions an objective may know what plain greedy, free to begin as it likes, does for it.
        plain = type(self) is Search and self.constraints.cardinality_only and not len(self.constraints.preselected)
        return self.objective.guarantee if plain else None

    def _expected(self, promised: bool) -> dict[str, float | None]:  # noqa: ARG002
        """What holds in expectation only: for people, since no single answer can be held to it."""
        return {}

    def _proven(self) -> float | None:
        """The share of the optimum that is proven for this kind of constraint.

        Of all runs that a budget takes, the plan is the best: that by gain holds the best single item, and begins with
        it. With a count and a budget, S ranked by gain per load (at most 2 for the optimum) either is the optimum or
        misses an item with which it fills 1: f(S) + f(item) is at least 1 - 1/sqrt(e) of it.
        """
        constraints = self.constraints
        if constraints.budget is not None and self.budget_binds:
            if constraints.columns or len(constraints.preselected):
                return None
            return (1 - 1 / math.e) / 2 if constraints.k == constraints.n else (1 - math.exp(-0.5)) / 2
        if not constraints.columns:
            return 1 - 1 / math.e
        if len(constraints.columns) == 1:
            return 0.5
        # Maxima alone are an intersection of matroids; minima over several columns have no such share.
        return None if self.tracker.reserves else 1 / (len(constraints.columns) + 1)


class StochasticSearch(Search):
    """Each step looks at a random sample of what is open, n/k ln(1/eps) items."""

    takes_the_best = False

    def __init__(self, *args: Any, eps: float, rng: np.random.Generator, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps, self.rng = eps, rng
        # Without a count to divide by, as many picks are expected as the budget buys of average items.
        constraints = self.constraints
        picks = max(1, constraints.k - len(constraints.preselected))
        counted = constraints.k < constraints.n and self.ranks_by == BY_GAIN
        if constraints.budget is not None and constraints.costs is not None and not counted:
            mean = float(constraints.costs.mean())
            # Items that cost nothing, or next to it, are all within the budget: no quotient is of use there.
            if constraints.limit < picks * mean:
                picks = max(1, int(constraints.limit / mean))
        self.size = max(1, math.ceil((constraints.n - int(constraints.banned.sum())) / picks * math.log(1 / eps)))
        # Only the sample's gains matter, whatever else the objective could bring up to date.
        self.eager = False

    def _best(self, open_items: Mask) -> int:
        items = np.flatnonzero(open_items)
        if len(items) > self.size:
            open_items = np.zeros_like(open_items)
            open_items[self.rng.choice(items, self.size, replace=False)] = True
        return super()._best(open_items)

    def _proven(self) -> float | None:
        return None

    def _expected(self, promised: bool) -> dict[str, float | None]:
        share = 1 - 1 / math.e - self.eps if self.constraints.cardinality_only else None
        return {"expected_guarantee": share} if promised and not self.stopped else {}


class ThresholdSearch(Search):
    """Each step takes the first item that gains the threshold, which falls by eps when there is none."""

    takes_the_best = False

    def __init__(self, *args: Any, eps: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps = eps
        self.level = self.floor = math.nan
        self.eager = False

    def _best(self, open_items: Mask) -> int:
        items = np.flatnonzero(open_items)
        if math.isnan(self.level):
            self._evaluate(items)
            self.level = float(self._keys(self.upper[items], items).max())
            # All that is left below this is worth eps / 2 of the best item, hence of the optimum.
            self.floor = self.level * self.eps * (1 - self.eps) / (2 * self.constraints.n)
        while self.level > self.floor:
            item = self._first_above(items)
            if item is not None:
                return item
            self._poll()
            self.level *= self._fall(float(self._keys(self._ceiling(items), items).max()))
        # What is left gains next to nothing: it fills up in the order of what it was last seen to gain.
        return int(items[np.argmax(self._keys(self._ceiling(items), items))])

    def _fall(self, most: float) -> float:
        """What the threshold falls by: a step of eps, or at once the many steps down to what an item can still gain."""
        least = self.floor / self.level * (1 - self.eps)
        if most <= 0:
            return least
        steps = math.log(most / self.level) / math.log1p(-self.eps) if most < self.level else 0.0
        return 1 - self.eps if steps < _MOST_STEPS else max(least, math.exp(math.floor(steps) * math.log1p(-self.eps)))

    def _first_above(self, items: Ints) -> int | None:
        """The first item, in the pool's order, that gains the threshold."""
        worth = items[self._keys(self._ceiling(items), items) >= self.level]
        low, step = 0, _LEAST_BATCH
        while low < len(worth):
            batch = worth[low : low + step]
            stale = batch[~self.fresh[batch]]
            if len(stale):
                self._evaluate(stale)
            reached = batch[self._keys(self.upper[batch], batch) >= self.level]
            if len(reached):
                return int(reached[0])
            low, step = low + step, min(_MOST_BATCH, step * 2)
        return None

    def _proven(self) -> float | None:
        constraints = self.constraints
        if constraints.cardinality_only:
            return max(0.0, 1 - math.exp(self.eps - 1) - self.eps / 2)
        # Each pick gains 1 - eps of the best open one, which is all that greedy needs under a matroid.
        share = (1 - self.eps) / (2 - self.eps) - self.eps / 2
        return None if constraints.budget is not None or len(constraints.columns) > 1 else max(0.0, share)


class PartSearch(Search):
    """A greedy run over some of the pool; what it finds is judged on all of it."""

    def _bound(self) -> None:
        # What bounds the part does not bound the pool.
        return

    def whole_bound(self, requested: Constraints) -> None:
        """A bound on what the whole pool can reach, from the gains that all of it still has."""
        if not (self.objective.submodular and self.objective.monotone):
            return
        items = np.flatnonzero(~requested.banned)
        ceiling = np.zeros(requested.n)
        ceiling[items] = self.objective.gains(items) + self.objective.tolerance
        picked = np.zeros(requested.n, bool)
        picked[self.picks] = True
        self.bound = math.fsum(self.gains) + requested.upper_bound(ceiling, picked)

    def _proven(self) -> float | None:
        return None

    def _expected(self, promised: bool) -> dict[str, float | None]:
        return {"expected_guarantee": (1 - 1 / math.e) / 2} if promised and not self.stopped else {}
