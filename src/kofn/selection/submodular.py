"""Greedy maximisation of a set function under every constraint: exact, lazy, by samples, by thresholds, in parts."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.constraints import Constraints
from kofn.engines.control import Control
from kofn.objectives import base
from kofn.plans import Selection
from kofn.registry import method
from kofn.selection._search import PartSearch, Search, StochasticSearch, ThresholdSearch, calls_of

_RULES = ("k", "budget", "costs", "groups", "quotas", "include", "exclude", "start")
_SOURCES = ("X", "similarity", "scores", "metric", "weights", "queries", "private", "max_memory", "n_threads")


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
    queries: Any = None,
    private: Any = None,
    tight_bound: bool = False,
) -> Selection:
    """Pick the items that best stand for the pool, each time the one that adds most.

    Args:
        X: vectors (n, d); or `similarity` (n, n), dense or SciPy-sparse; or `scores` (n,) with objective "modular".
        objective: "facility_location" (default; with `scores` alone "modular"); any name of `kofn.objectives`, with its
            parameters as "graph_cut(lam=0.3)", or a sum as "0.7*facility_location + 0.3*feature_based"; or an object
            with `gains`, `add` and `value` (`kofn.objectives.base.Objective`).
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
        queries: (q, d) vectors that the picks should be about, for the objectives that are built from them.
        private: (p, d) vectors that are owned already or must not be told, likewise.
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
    return _greedy(locals(), Search)


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
    queries: Any = None,
    private: Any = None,
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
    return _greedy(locals(), Search, lazy=False)


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    cost="n ln(1/eps) gains in all, whatever k is, and n more for the bound",
    exact=">= 1 - 1/e - eps of the optimum in expectation under k",
    paper="Mirzasoleiman et al. 2015, Lazier Than Lazy Greedy",
)
def stochastic_greedy(
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
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    queries: Any = None,
    private: Any = None,
    eps: float = 0.1,
) -> Selection:
    """Pick greedily among a fresh random sample at each step: a number of gains that does not grow with k.

    Args:
        X: as `lazy_greedy`, like every other argument.
        objective: a submodular function; as in `lazy_greedy`.
        seed: whole number; draws the samples.
        eps: what may be lost of 1 - 1/e; a sample holds n/k ln(1/eps) items.

    Returns:
        Selection; `info["expected_guarantee"]` is the share of the optimum proven in expectation, under k alone.

    Raises:
        InputError: bad input, `eps` not in (0, 1), an objective that is not submodular.
        InfeasibleError: constraints that cannot be met together.

    Costs n ln(1/eps) gains at most, those that a stale gain rules out are not taken again; n more for the bound. An
    objective that brings all gains up to date at once (facility location from vectors) has little to win from it.

    References:
        Mirzasoleiman, Badanidiyuru, Karbasi, Vondrak, Krause, "Lazier than lazy greedy", AAAI 2015.

    Examples:
        >>> from kofn.selection import stochastic_greedy
        >>> s = stochastic_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, seed=0, eps=0.2)
        >>> len(s), s.value <= s.bound
        (2, True)
    """
    eps = _share(eps)
    return _greedy(locals(), StochasticSearch, eps=eps, rng=np.random.default_rng(seed))


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    cost="(n / eps) ln(n / eps) gains at most, whatever k is",
    exact=">= 1 - 1/e - eps of the optimum under k, (1 - eps)/(2 - eps) under quotas",
    paper="Badanidiyuru, Vondrak 2014, Fast algorithms for maximizing submodular functions",
)
def threshold_greedy(
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
    queries: Any = None,
    private: Any = None,
    eps: float = 0.1,
) -> Selection:
    """Pick whatever gains at least a threshold, and lower it step by step: near-greedy without looking for the best.

    Args:
        X: as `lazy_greedy`, like every other argument.
        objective: a submodular function; as in `lazy_greedy`.
        eps: each threshold is 1 - eps of the last, from the best single gain down to eps/n of it.

    Returns:
        Selection; `info["guarantee"]` is the share of the optimum that is proven.

    Raises:
        InputError: bad input, `eps` not in (0, 1), an objective that is not submodular.
        InfeasibleError: constraints that cannot be met together.

    Costs (n / eps) ln(n / eps) gains at most; what a stale gain rules out is not taken again. Items below the last
    threshold fill up to k without being looked at.

    References:
        Badanidiyuru, Vondrak, "Fast algorithms for maximizing submodular functions", SODA 2014.

    Examples:
        >>> from kofn.selection import threshold_greedy
        >>> threshold_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2).indices.tolist()
        [2, 0]
    """
    return _greedy(locals(), ThresholdSearch, eps=_share(eps))


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    cost="a greedy run on each part and one on what they picked",
    exact=">= (1 - 1/e)/2 of the optimum in expectation",
    paper="Barbosa et al. 2015, The Power of Randomization: Distributed Submodular Maximization",
)
def partitioned_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    objective: Any = None,
    k: int,
    include: Any = None,
    exclude: Any = None,
    start: Any = None,
    weights: Any = None,
    metric: str = "euclidean",
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    queries: Any = None,
    private: Any = None,
    parts: int | None = None,
) -> Selection:
    """Pick in two rounds: k from each random part of the pool, then k from all that were picked.

    The parts know nothing of each other, so that each can be picked from elsewhere; the second round is small.

    Args:
        X: as `lazy_greedy`, like every other argument.
        objective: a submodular function; each part is judged by its value on the whole pool.
        k: how many.
        seed: whole number; deals the items out.
        parts: how many parts, default sqrt(n / k), which makes both rounds the same size.

    Returns:
        Selection, the best of the second round and of the parts' own picks. `info["expected_guarantee"]` is the share
        of the optimum proven in expectation over the deal.

    Raises:
        InputError: bad input, an objective that is not submodular. InfeasibleError: k above what is not excluded.

    Costs `parts` greedy runs over n / parts candidates each, and one over parts k candidates.

    References:
        Barbosa, Ene, Nguyen, Ward, "The power of randomization: distributed submodular maximization on massive
        datasets", ICML 2015.
        Mirzasoleiman, Karbasi, Sarkar, Krause, "Distributed submodular maximization", NIPS 2013.

    Examples:
        >>> from kofn.selection import partitioned_greedy
        >>> s = partitioned_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, parts=2, seed=0)
        >>> s.indices.tolist(), s.info["parts"]
        ([3, 0], 2)
    """
    given: dict[str, Any] = {**dict.fromkeys(_RULES), **locals()}
    n = _pool_size(given)
    rules = Constraints.of(n, **{name: given[name] for name in _RULES})
    count = max(1, math.isqrt(n // rules.k)) if parts is None else checks.count(parts, "parts")
    if count > n:
        raise InputError(f"parts={count} of {n} items; ask for parts <= {n}")
    rule, asked = _rule(given, lazy=True)
    part = np.random.default_rng(seed).permutation(np.arange(n) % count)
    runs: list[PartSearch] = []
    with Control(time_limit=time_limit, progress=progress, total=count + 1, what="parts") as control:
        for one in range(count + 1):
            picked = [item for run in runs for item in run.picks]
            here = part == one if one < count else np.isin(np.arange(n), picked)
            fresh = copy.deepcopy(rule) if not isinstance(asked, str) else _rule(given, lazy=True)[0]
            runs.append(PartSearch(fresh, _only(rules, here), control, True))
            runs[-1].run()
            control.step(one + 1)
            if runs[-1].stopped:
                break
    most = max(len(run.picks) for run in runs)
    best = max((run for run in runs if len(run.picks) == most), key=lambda run: math.fsum(run.gains))
    best.stopped = runs[-1].stopped
    if not best.stopped:
        best.whole_bound(rules)
    best.calls_before = sum(calls_of(run.rule) for run in runs if run is not best)
    plan = best.plan(base.named(asked))
    return dataclasses.replace(plan, info={**plan.info, "parts": count})


def _only(rules: Constraints, here: NDArray[np.bool_]) -> Constraints:
    """The same constraints for some of the pool, with as many picks as it has."""
    banned = rules.banned | ~here
    banned[rules.first] = False
    return dataclasses.replace(rules, banned=banned, k=min(rules.k, rules.n - int(banned.sum())))


def _greedy(given: Mapping[str, Any], kind: type[Search], *, lazy: bool = True, **own: Any) -> Selection:
    tight_bound = checks.flag(given.get("tight_bound", False), "tight_bound")
    rules = Constraints.of(_pool_size(given), **{name: given[name] for name in _RULES})
    rule, name = _rule(given, lazy)
    # A second run may be needed under a budget; the user's own objective cannot be built anew, so it is copied unused.
    unused = copy.deepcopy(rule) if rules.budget is not None and not isinstance(name, str) else None
    total = rules.k if rules.exact_k else 0
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=total, what="picking") as control:
        search = kind(rule, rules, control, lazy, **own)
        search.run()
        if (tight_bound or search.eager or kind is not Search) and not search.stopped:
            search.tighten()
        single = search.better_single()
        if single is not None:
            first = np.array([single], np.int64)
            # The best single item beats the whole cost-benefit run: start from it and fill up.
            again = Constraints.of(rules.n, **{**{w: given[w] for w in _RULES}, "start": first})
            other = _rule(given, lazy)[0] if unused is None else unused
            second = kind(other, again, control, lazy, asked=rules, **own)
            second.run()
            second.calls_before, second.bound = calls_of(rule), search.bound
            search = second
    return search.plan(base.named(name))


def _rule(given: Mapping[str, Any], lazy: bool) -> tuple[base.Objective, Any]:
    """The objective, ready for its first pick, and the name or object that asked for it."""
    asked = given["objective"] or (
        "modular" if given["X"] is None and given["similarity"] is None else "facility_location"
    )
    rule = base.build(asked, {word: given[word] for word in _SOURCES})
    if lazy and not rule.submodular:
        raise InputError(
            f"objective={base.named(asked)} is not submodular, so stale gains are no upper bounds; "
            "use method='naive_greedy'"
        )
    return rule, asked


def _pool_size(given: Mapping[str, Any]) -> int:
    sources = [given[name] for name in ("X", "similarity", "scores") if given[name] is not None]
    return int(sources[0].shape[0])


def _share(eps: Any) -> float:
    eps = checks.fraction(eps, "eps")
    if not 0 < eps < 1:
        raise InputError(f"eps={eps:g}: give a number between 0 and 1, neither of them")
    return eps
