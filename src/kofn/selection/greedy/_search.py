"""The greedy search that the methods share: stale gains as upper bounds, near-ties settled exactly, a proven bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.constraints import Constraints, Tracker
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


class _Stopped(Exception):
    """The time was up in the middle of a step."""


def calls_of(rule: Any) -> int:
    """Oracle calls that an objective counted; the user's own may not count."""
    return int(getattr(rule, "calls", 0))


class Search:
    """One greedy run: stale gains are upper bounds (with the objective's tolerance), near-ties are settled exactly."""

    def __init__(
        self, rule: Any, rules: Constraints, control: Control, lazy: bool, *, asked: Constraints | None = None
    ) -> None:
        self.rule, self.rules, self.control, self.lazy = rule, rules, control, lazy
        # What was asked for: the guarantee is for this, also where the run starts from an item of its own choice.
        self.asked = asked or rules
        self.tolerance = 0.0
        # How far each upper value may be off: the tolerance when it was taken, which falls as the run goes on.
        self.error = np.zeros(rules.n)
        self.eager = bool(getattr(rule, "eager", False))
        # An objective may find the largest gain by itself; what counts under costs is another thing.
        self.leads = lazy and type(self) is Search and rules.costs is None and bool(getattr(rule, "finds_best", False))
        if hasattr(rule, "poll"):
            rule.poll = self._poll
        self.exact: Callable[[NDArray[np.int64]], NDArray[np.float64]] = getattr(rule, "exact_gains", rule.gains)
        self.upper = np.full(rules.n, np.inf)
        self.exact_upper = np.full(rules.n, np.inf)
        self.fresh = np.zeros(rules.n, bool)
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.bound = math.inf
        self.stopped = False
        self.tracker = Tracker(rules)
        self.possible = np.zeros(rules.n, bool)
        self.batch = _LEAST_BATCH
        self.single: tuple[float, int] | None = None
        self.calls_before = 0

    def run(self) -> None:
        for item in self.rules.first.tolist():
            self._take(item)
        every = max(1, self.rules.k // _BOUNDS_TAKEN)
        self.possible = self.tracker.eligible()
        while (open_items := self.tracker.eligible()).any():
            if self.control.stopped():
                self.stopped = True
                break
            self.fresh[:] = False
            try:
                item = self._best(open_items)
            except _Stopped:
                self.stopped = True
                break
            if self.single is None and not self.leads:
                self._note_single(open_items)
            if len(self.picks) % every == 0:
                self._bound()
            if not self.rules.exact_k and self.exact_upper[item] < 0 and not len(self.tracker.completion()):
                break
            self.tracker.add(item)
            self._take(item)
            self.control.step(len(self.picks))
        self._bound()
        if self.stopped:
            for item in self.tracker.completion().tolist():
                self.tracker.add(item)
                self._take(item)

    def _take(self, item: int) -> None:
        self.picks.append(item)
        self.gains.append(float(self.rule.add(item)))
        self.upper[item] = self.exact_upper[item] = 0.0

    def _keys(self, gains: NDArray[np.float64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the search ranks by: the gain, or the gain per cost; what is free comes first, by its gain."""
        if self.rules.costs is None:
            return gains
        costs = self.rules.costs[items].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = gains / costs
        return np.where(costs > 0, ratio, np.where(gains > 0, np.ldexp(gains, _FREE), gains))

    def _poll(self) -> None:
        if self.control.stopped():
            raise _Stopped

    def _evaluate(self, items: NDArray[np.int64]) -> None:
        # The first look at a large pool takes long: it must be possible to stop it. An objective that polls does so
        # within its own work, and does best when asked for all at once.
        step = len(items) if hasattr(self.rule, "poll") else _AT_ONCE
        for low in range(0, len(items), step or 1):
            if low:
                self._poll()
            some = items[low : low + step]
            self.upper[some] = self.rule.gains(some)
            self.fresh[some] = True
        self.tolerance = float(getattr(self.rule, "tolerance", 0.0))
        self.error[items] = self.tolerance

    def _best(self, open_items: NDArray[np.bool_]) -> int:
        if self.leads:
            # The objective knows whom it need not look at.
            return int(self.rule.best(open_items))
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

    def _settle(self, fresh: NDArray[np.int64]) -> int:
        """The best of the freshly evaluated, exactly; ties go to the lowest index."""
        if self.tolerance == 0.0:
            keys = self._keys(self.upper[fresh], fresh)
            item = int(fresh[int(np.argmax(keys))])
            self.exact_upper[item] = self.upper[item]
            return item
        low = self._keys(self.upper[fresh] - self.tolerance, fresh).max()
        high = self._keys(np.minimum(self.upper[fresh] + self.tolerance, self.exact_upper[fresh]), fresh)
        rivals, high = fresh[high >= low], high[high >= low]
        order = np.lexsort((rivals, -high))
        rivals, high = rivals[order], high[order]
        best, best_key = -1, -math.inf
        step, at = 1, 0
        while at < len(rivals) and (high[at] >= best_key):
            batch = np.sort(rivals[at : at + step])
            gains = self.exact(batch)
            self.exact_upper[batch] = gains
            keys = self._keys(gains, batch)
            top = int(np.argmax(keys))
            if keys[top] > best_key or (keys[top] == best_key and batch[top] < best):
                best, best_key = int(batch[top]), float(keys[top])
            # Rivals whose own ceiling is reached already, at a higher index, cannot win any more.
            at += step
            step = min(64, step * 2)
            rest = (high[at:] > best_key) | ((high[at:] == best_key) & (rivals[at:] < best))
            rivals, high, at = rivals[at:][rest], high[at:][rest], 0
        return best

    def _note_single(self, open_items: NDArray[np.bool_]) -> None:
        """The best single item, for the knapsack's guarantee: known from the first full look."""
        items = np.flatnonzero(open_items & np.isfinite(self.upper))
        best = int(items[np.argmax(self.upper[items])])
        self.single = (float(self.exact(np.array([best]))[0]), best) if self.rules.budget is not None else (0.0, -1)

    def better_single(self) -> int | None:
        """The single item that is worth more than the whole run, where that may be picked instead."""
        rules = self.rules
        if rules.budget is None or self.stopped or self.single is None or len(rules.first) or rules.groups is not None:
            return None
        value, item = self.single
        return item if value > math.fsum(self.gains) and item not in self.picks[:1] else None

    def _ceiling(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each item can gain at the most: its last gain, with the error it was taken with."""
        return np.minimum(self.upper[items] + self.error[items], self.exact_upper[items])

    def _bound(self) -> None:
        # A run that starts from an item of its own choice bounds only the plans that hold this item.
        if not (self.rule.submodular and self.rule.monotone) or self.asked is not self.rules:
            return
        picked = np.zeros(self.rules.n, bool)
        picked[self.picks] = True
        ceiling = self._ceiling(np.arange(self.rules.n))
        if self.leads:
            np.minimum(ceiling, self.rule.ceilings(), out=ceiling)
        # Items that could never be picked, whatever the search did, are in no feasible set.
        ceiling[~self.possible] = 0.0
        if not np.isfinite(ceiling).all():
            return
        self.bound = min(self.bound, math.fsum(self.gains) + self.rules.upper_bound(ceiling, picked))

    def tighten(self) -> None:
        """Fresh residual gains of every item at the end, for the smallest bound this run can prove."""
        try:
            self._evaluate(np.flatnonzero(self.possible))
        except _Stopped:
            # The picks are complete; only the smaller bound is not to be had.
            return
        self._bound()

    def plan(self, objective: str) -> Selection:
        rule, rules = self.rule, self.rules
        value = math.fsum(self.gains)
        promised = rule.submodular and rule.monotone
        modular = objective == "modular"
        bound = self.bound if promised and np.isfinite(self.bound) else None
        status = "approximate" if promised else "heuristic"
        if modular and rules.budget is None and not self.stopped:
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
            n=rules.n,
            indices=np.array(self.picks, np.int64),
            gains=np.array(self.gains),
            value=value,
            bound=bound,
            status=status,
            used=used,
            budget=limit,
            objective=objective,
            guarantee=self._guarantee(promised),
            info={
                # Without the c of "c - distance" a value cannot be compared with another, nor recounted.
                **self._in_distances(value, bound),
                **self._expected(promised),
                "oracle_calls": calls_of(rule) + self.calls_before,
                "distance_evals": int(getattr(rule, "distance_evals", 0)),
            },
        )

    def _in_distances(self, value: float, bound: float | None) -> dict[str, float | None]:
        """Value and bound in the unit of distances, which do not depend on the similarity's arbitrary c."""
        offset = getattr(self.rule, "offset", None)
        if offset is None:
            return {}
        if not hasattr(self.rule, "total_weight"):
            # A mixture: its value is no distance, but the part that is can be recounted.
            return {"offset": offset}
        # (1 + cos) / 2 is 1 - (1 - cos) / 2.
        unit = 2.0 if self.rule.metric == "cosine" else 1.0
        most = offset * self.rule.total_weight
        low = None if bound is None else max(0.0, unit * (most - bound))
        return {"offset": offset, "distance": unit * (most - value), "distance_bound": low}

    def _guarantee(self, promised: bool) -> float | None:
        """The proven share of the optimum, by the search's own analysis or the objective's."""
        if self.stopped:
            return None
        if promised:
            return self._proven()
        # Beyond submodular functions an objective may know what plain greedy, free to begin as it likes, does for it.
        plain = type(self) is Search and self.asked.cardinality_only and not len(self.asked.first)
        return getattr(self.rule, "guarantee", None) if plain else None

    def _expected(self, promised: bool) -> dict[str, float | None]:
        """What holds in expectation only: for people, since no single answer can be held to it."""
        return {}

    def _proven(self) -> float | None:
        """The share of the optimum that is proven for this kind of constraint."""
        rules = self.asked
        if rules.cardinality_only:
            return 1 - 1 / math.e
        if rules.budget is None:
            return 0.5
        if rules.groups is None and rules.k == rules.n and not len(rules.first):
            return (1 - 1 / math.e) / 2
        return None


class StochasticSearch(Search):
    """Each step looks at a random sample of what is open, n/k ln(1/eps) items."""

    def __init__(self, *args: Any, eps: float, rng: np.random.Generator, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps, self.rng = eps, rng
        # Without a count to divide by, as many picks are expected as the budget buys of average items.
        rules = self.rules
        picks = max(1, rules.k - len(rules.first))
        if rules.budget is not None and rules.costs is not None:
            picks = max(1, min(picks, int(rules.limit / max(float(rules.costs.mean()), 1e-300))))
        self.size = max(1, math.ceil((rules.n - int(rules.banned.sum())) / picks * math.log(1 / eps)))
        # Only the sample's gains matter, whatever else the objective could bring up to date.
        self.eager = False

    def _best(self, open_items: NDArray[np.bool_]) -> int:
        items = np.flatnonzero(open_items)
        if len(items) > self.size:
            open_items = np.zeros_like(open_items)
            open_items[self.rng.choice(items, self.size, replace=False)] = True
        return super()._best(open_items)

    def _proven(self) -> float | None:
        return None

    def _expected(self, promised: bool) -> dict[str, float | None]:
        share = 1 - 1 / math.e - self.eps if self.asked.cardinality_only else None
        return {"expected_guarantee": share} if promised and not self.stopped else {}


class ThresholdSearch(Search):
    """Each step takes the first item that gains the threshold, which falls by eps when there is none."""

    def __init__(self, *args: Any, eps: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps = eps
        self.level = self.floor = math.nan
        self.eager = False

    def _best(self, open_items: NDArray[np.bool_]) -> int:
        items = np.flatnonzero(open_items)
        if math.isnan(self.level):
            self._evaluate(items)
            self.level = float(self._keys(self.upper[items], items).max())
            # All that is left below this is worth eps / 2 of the best item, hence of the optimum.
            self.floor = self.level * self.eps * (1 - self.eps) / (2 * self.rules.n)
        while self.level > self.floor:
            found = self._first_above(items)
            if found is not None:
                return found
            self.level *= 1 - self.eps
        # What is left gains next to nothing: it fills up in the order of what it was last seen to gain.
        return int(items[np.argmax(self._keys(self._ceiling(items), items))])

    def _first_above(self, items: NDArray[np.int64]) -> int | None:
        """The first item, in the pool's order, that gains the threshold."""
        worth = items[self._keys(self._ceiling(items), items) >= self.level]
        at, step = 0, _LEAST_BATCH
        while at < len(worth):
            some = worth[at : at + step]
            stale = some[~self.fresh[some]]
            if len(stale):
                self._evaluate(stale)
            reached = some[self._keys(self.upper[some], some) >= self.level]
            if len(reached):
                return int(reached[0])
            at, step = at + step, min(_MOST_BATCH, step * 2)
        return None

    def _proven(self) -> float | None:
        asked = self.asked
        if asked.cardinality_only:
            return max(0.0, 1 - math.exp(self.eps - 1) - self.eps / 2)
        # Each pick gains 1 - eps of the best open one, which is all that greedy needs under a matroid.
        share = (1 - self.eps) / (2 - self.eps) - self.eps / 2
        return None if asked.budget is not None else max(0.0, share)


class PartSearch(Search):
    """A greedy run over some of the pool; what it finds is judged on all of it."""

    def whole_bound(self, asked: Constraints) -> None:
        """A bound on what the whole pool can reach, from the gains that all of it still has."""
        if not (self.rule.submodular and self.rule.monotone):
            return
        items = np.flatnonzero(~asked.banned)
        ceiling = np.zeros(asked.n)
        ceiling[items] = self.rule.gains(items) + float(getattr(self.rule, "tolerance", 0.0))
        picked = np.zeros(asked.n, bool)
        picked[self.picks] = True
        self.bound = math.fsum(self.gains) + asked.upper_bound(ceiling, picked)

    def _proven(self) -> float | None:
        return None

    def _expected(self, promised: bool) -> dict[str, float | None]:
        return {"expected_guarantee": (1 - 1 / math.e) / 2} if promised and not self.stopped else {}
