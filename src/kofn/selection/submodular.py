"""Greedy maximisation of a set function under every constraint: the lazy search and its plain reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.constraints import Constraints, Tracker
from kofn.engines.control import Control
from kofn.objectives import base
from kofn.plans import Selection
from kofn.registry import method

# How many stale candidates are re-evaluated at once: enough to make one blocked pass worth its while.
_LEAST_BATCH, _MOST_BATCH = 16, 1024
# A free item ranks as if it cost 2^-900: before all that is not free, and still by its gain.
_FREE = 900
# The bound costs a sort of the pool, so it is taken at this many points along the way and at the end.
_BOUNDS_TAKEN = 8
# Candidates evaluated between two looks at the clock.
_AT_ONCE = 1 << 14


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich", "greedy"),
    cost="about one pass over the n x n pairs, which are never stored; O(n d) memory",
    exact="the greedy picks exactly; >= (1 - 1/e) of the optimum under k, 1/2 under quotas, (1 - 1/e)/2 under a budget",
    paper="Minoux 1978, Accelerated greedy algorithms; Nemhauser, Wolsey, Fisher 1978",
)
def lazy_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    objective: Any = None,
    k: int | None = None,
    budget: float | None = None,
    costs: Any = None,
    groups: Any = None,
    quotas: Any = None,
    include: Any = None,
    exclude: Any = None,
    start: Any = None,
    weights: Any = None,
    metric: str = "euclidean",
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    tight_bound: bool = False,
) -> Selection:
    """Pick the items that best stand for the pool, each time the one that adds most.

    Args:
        X: vectors (n, d); or `similarity` (n, n), dense or SciPy-sparse; or `scores` (n,) with objective "modular".
        objective: "facility_location" (default; with `scores` alone "modular"), or an object with `gains`, `add` and
            `value` (`kofn.objectives.base.Objective`).
        k: how many; with a budget, at most how many.
        budget: what may be spent in total, with `costs` (n,); the rule is then gain per cost.
        groups: (n,) labels, with `quotas` {group: (least, most)}.
        include: items that must be picked; they come first. `exclude`: items that must not be.
        start: a plan or items to go on from; they come first and count towards k.
        weights: (n,) how much each item of the pool counts, default 1.
        metric: "euclidean" (c - distance), "sqeuclidean" or "cosine" ((1 + cos) / 2).
        max_memory: bytes of scratch, default a few dozen MB beside X.
        time_limit: seconds; the picks made by then are returned, status "stopped".
        n_threads: default all cores; the picks are the same for any number.
        tight_bound: one more pass over all items at the end for a smaller `bound`.

    Returns:
        Selection, in the order picked. `gains` sum to `value`; `bound` is at least the optimum's value;
        `info["guarantee"]` is the proven share of the optimum, None where there is none.

    Raises:
        InputError: bad input, or an objective that is not submodular (`naive_greedy` takes those).
        InfeasibleError: constraints that cannot be met together.

    Costs O(n^2 d) time at worst and usually about one such pass; O(n d) memory from X, nothing n x n is built.

    References:
        Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
        Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.
        Leskovec et al., "Cost-effective outbreak detection in networks", KDD 2007 (gain per cost).

    Examples:
        >>> from kofn.selection import lazy_greedy
        >>> s = lazy_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2)
        >>> s.indices.tolist(), s.value <= s.bound
        ([2, 0], True)
    """
    return _greedy(locals(), lazy=True)


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich", "greedy"),
    cost="k passes over n x n pairs",
    exact="as lazy_greedy; takes objectives that are not submodular, then without a bound",
    paper="Nemhauser, Wolsey, Fisher 1978, An analysis of approximations for maximizing submodular set functions",
)
def naive_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    objective: Any = None,
    k: int | None = None,
    budget: float | None = None,
    costs: Any = None,
    groups: Any = None,
    quotas: Any = None,
    include: Any = None,
    exclude: Any = None,
    start: Any = None,
    weights: Any = None,
    metric: str = "euclidean",
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Selection:
    """Pick greedily, evaluating every candidate at every step: the reference that `lazy_greedy` must agree with.

    Args:
        X: as `lazy_greedy`, like every other argument.
        objective: any set function, submodular or not.

    Returns:
        Selection; `bound` only where the objective is submodular and monotone.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(k n^2 d) time, O(n d) memory.

    References:
        Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.

    Examples:
        >>> from kofn.selection import naive_greedy
        >>> naive_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2).indices.tolist()
        [2, 0]
    """
    return _greedy({**locals(), "tight_bound": False}, lazy=False)


def _greedy(given: dict[str, Any], *, lazy: bool) -> Selection:
    tight_bound = checks.flag(given["tight_bound"], "tight_bound")
    words = ("k", "budget", "costs", "groups", "quotas", "include", "exclude", "start")
    inputs = [given[name] for name in ("X", "similarity", "scores") if given[name] is not None]
    rules = Constraints.of(inputs[0].shape[0], **{name: given[name] for name in words})
    name = given["objective"] or (
        "modular" if given["X"] is None and given["similarity"] is None else "facility_location"
    )

    def make() -> base.Objective:
        sources = {
            word: given[word] for word in ("X", "similarity", "scores", "metric", "weights", "max_memory", "n_threads")
        }
        if name == "modular":
            sources["metric"] = None
        return base.build(name, sources)

    rule = make()
    if lazy and not rule.submodular:
        raise InputError(
            f"objective={_named(name)} is not submodular, so stale gains are no upper bounds; use method='naive_greedy'"
        )
    # A second run may be needed under a budget; the user's own objective cannot be built anew, so it is copied unused.
    unused = copy.deepcopy(rule) if rules.budget is not None and not isinstance(name, str) else None
    total = rules.k if rules.exact_k else 0
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=total, what="picking") as control:
        search = _Search(rule, rules, control, lazy)
        search.run()
        if (tight_bound or search.eager) and not search.stopped:
            search.tighten()
        single = search.better_single()
        if single is not None:
            first = np.array([single], np.int64)
            # The best single item beats the whole cost-benefit run: start from it and fill up.
            again = Constraints.of(rules.n, **{**{w: given[w] for w in words}, "start": first})
            second = _Search(make() if unused is None else unused, again, control, lazy, asked=rules)
            second.run()
            second.calls_before, second.bound = rule_calls(rule), search.bound
            search = second
    return search.plan(_named(name))


def rule_calls(rule: Any) -> int:
    """Oracle calls that an objective counted; the user's own may not count."""
    return int(getattr(rule, "calls", 0))


def _named(objective: Any) -> str:
    return objective if isinstance(objective, str) else type(objective).__name__


class _Stopped(Exception):
    """The time was up in the middle of a step."""


class _Search:
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
            if self.single is None:
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
            keys = self._keys(np.minimum(self.upper[stale] + self.error[stale], self.exact_upper[stale]), stale)
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
        items = np.flatnonzero(open_items)
        best = int(items[np.argmax(self.upper[items])])
        self.single = (float(self.exact(np.array([best]))[0]), best) if self.rules.budget is not None else (0.0, -1)

    def better_single(self) -> int | None:
        """The single item that is worth more than the whole run, where that may be picked instead."""
        rules = self.rules
        if rules.budget is None or self.stopped or self.single is None or len(rules.first) or rules.groups is not None:
            return None
        value, item = self.single
        return item if value > math.fsum(self.gains) and item not in self.picks[:1] else None

    def _bound(self) -> None:
        # A run that starts from an item of its own choice bounds only the plans that hold this item.
        if not (self.rule.submodular and self.rule.monotone) or self.asked is not self.rules:
            return
        picked = np.zeros(self.rules.n, bool)
        picked[self.picks] = True
        ceiling = np.minimum(self.upper + self.error, self.exact_upper)
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
            info={
                "objective": objective,
                # Without the c of "c - distance" a value cannot be compared with another, nor recounted.
                **self._in_distances(value, bound),
                "guarantee": self._guarantee() if promised and not self.stopped else None,
                "oracle_calls": rule_calls(rule) + self.calls_before,
                "distance_evals": int(getattr(rule, "distance_evals", 0)),
            },
        )

    def _in_distances(self, value: float, bound: float | None) -> dict[str, float | None]:
        """Value and bound in the unit of distances, which do not depend on the similarity's arbitrary c."""
        offset = getattr(self.rule, "offset", None)
        if offset is None:
            return {}
        # (1 + cos) / 2 is 1 - (1 - cos) / 2.
        unit = 2.0 if self.rule.metric == "cosine" else 1.0
        most = offset * self.rule.total_weight
        low = None if bound is None else max(0.0, unit * (most - bound))
        return {"offset": offset, "distance": unit * (most - value), "distance_bound": low}

    def _guarantee(self) -> float | None:
        """The share of the optimum that is proven for this kind of constraint."""
        rules = self.asked
        if rules.cardinality_only:
            return 1 - 1 / math.e
        if rules.budget is None:
            return 0.5
        if rules.groups is None and rules.k == rules.n and not len(rules.first):
            return (1 - 1 / math.e) / 2
        return None
