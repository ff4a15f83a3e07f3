"""Trials of rejection sampling for each query, so that hard queries get as many right answers as easy ones, or more."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._counts import next_units, spent, total, uniform
from kofn.allocation.sampling._rates import beta_of
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

_HALVINGS = 200
_SHOWN = 3


@method(
    "allocate",
    draws=Draw(
        kinds={"scores": "rates"},
        plain={"budget": 30},
        silent=("duality",),
        options={"target": ("uniform", "prop2diff")},
    ),
    cost="O(n log n)",
    exact="the budget, and the targets up to one trial a query; nothing is maximised",
    paper=111,
    aliases=("DART", "DARS", "rejection sampling", "prop2diff", "trials per query"),
)
def difficulty_aware_trials(
    scores: Any,
    *,
    budget: float,
    costs: ArrayLike | None = None,
    bounds: Any = None,
    target: Literal["uniform", "prop2diff"] = "prop2diff",
    trials: ArrayLike | None = None,
    prior: float = 0.5,
) -> Allocation:
    """Give each query the trials after which hard queries have as many right answers as easy ones, or more.

    As many trials for every query leave most accepted answers to easy queries. Here a query gets trials in proportion
    to its target over its success rate, up to the most that `bounds` allows.

    Args:
        scores: (n,) success rate of each query, from 0 to 1.
        budget: trials in all, or what they may cost.
        costs: (n,) what a trial of each query costs, such as its tokens; default 1.
        bounds: (least, most) trials of all queries, or one such pair for each; default (1, 2048).
            An open least is 0, an open most is 2048.
        target: right answers wanted of a query: "uniform", as many of each; "prop2diff", in proportion to its failure
            rate.
        trials: (n,) in how many trials each rate was counted, by which rates are drawn in from 0 and 1. Without them a
            rate of 0 is taken for what it is, and its query gets the least.
        prior: successes and failures assumed beside the trials, of each so many; of use with `trials` alone.

    Returns:
        An `Allocation`: `amounts` trials; `values` the chance of at least one right answer, `value` their sum, the
        expected number of queries with any. `info` has `accepted` (right answers expected of each query), `wanted` (the
        target that the budget pays for), `capped` (queries at their most), and `uniform`, the value where all queries
        get as many trials.

    Raises:
        InfeasibleError: the least trials of all queries cost more than the budget; says by how much.
        InputError: rates outside 0..1, bounds of another length.

    Cost: O(n log n), a second for a million queries.

    Guarantee: the budget is held exactly and spent but for what no trial fits in. No function is maximised: for most
    queries with any right answer give curves of that chance to `multiple_choice_knapsack`.

    References:
        Tong et al. 2024, "DART-Math: Difficulty-Aware Rejection Tuning for Mathematical Problem-Solving", NeurIPS
        (there sampling goes on until a query has its right answers; here trials are shared out beforehand).

    Examples:
        >>> from kofn.allocation import difficulty_aware_trials
        >>> plan = difficulty_aware_trials([0.9, 0.5, 0.1], budget=100, target="uniform")
        >>> plan.amounts.tolist(), plan.info["accepted"].round(1).tolist()
        ([9, 15, 76], [8.1, 7.5, 7.6])
        >>> difficulty_aware_trials([0.9, 0.5, 0.1], budget=100).amounts.tolist()
        [1, 10, 89]
    """
    rate = checks.rates(scores)
    n = len(rate)
    low, high = checks.least_and_most(bounds, n, least=1, most=2048, whole=True)
    price: Array = np.ones(n, np.int64) if costs is None else np.asarray(costs)
    checks.enough(float(budget), float(price @ low), "the least trials of all queries")
    if trials is not None:
        success, failure = beta_of(rate, trials, prior)
        rate = success / (success + failure)
    hopeless = np.flatnonzero(rate == 0)
    goal = np.ones(n) if target == "uniform" else 1 - rate
    # No trial answers a query that never succeeds; of one that never fails prop2diff wants nothing.
    need = np.divide(goal, rate, out=np.zeros(n), where=rate > 0)
    wanted, ideal = _scaled(need, price, low, high, float(budget))
    amounts = np.minimum(np.floor(ideal), high)
    while True:
        room = budget - total(price * amounts)
        given, _ = next_units(ideal - amounts, price, room, (amounts < np.minimum(high, np.ceil(ideal))) & (price > 0))
        if not given.any():
            break
        amounts = amounts + given
    count = amounts.astype(np.int64)
    any_right = 1 - (1 - rate) ** count
    same = uniform(price, low, high, float(budget), True)
    return Allocation(
        n=n,
        amounts=count,
        values=any_right,
        bounds=np.stack([low, high], axis=1),
        value=float(any_right.sum()),
        sense="max",
        used={"budget": spent(price, count)},
        budget={"budget": budget},
        objective="queries_answered",
        info={
            "accepted": rate * count,
            "wanted": wanted * goal,
            "capped": np.flatnonzero(count == high),
            "uniform": float((1 - (1 - rate) ** same).sum()),
            **_warnings(hopeless),
        },
    )


def _warnings(hopeless: Ints) -> dict[str, list[str]]:
    """That queries of rate 0 get the least."""
    if not len(hopeless):
        return {}
    rows = "row " + ", ".join(map(str, hopeless[:_SHOWN].tolist())) + (", ..." if len(hopeless) > _SHOWN else "")
    many, get = (f"{len(hopeless):,} queries", "get") if len(hopeless) > 1 else ("1 query", "gets")
    return {
        "warnings": [
            f"{many} of rate 0 ({rows}) {get} the least, as no trial answers what never succeeds; where rates were "
            "counted, give trials, in how many"
        ]
    }


def _scaled(need: Floats, price: Array, low: Floats, high: Floats, budget: float) -> tuple[float, Floats]:
    """The factor by which all needs can be met within the budget, and (n,) the trials that this takes."""

    def trials(factor: float) -> Floats:
        out: Floats = np.clip(factor * need, low, high)
        return out

    some = need > 0
    if not some.any():
        return 0.0, low
    least, most = 0.0, float((high[some] / need[some]).max())
    if total(price * trials(most)) <= budget:
        return most, trials(most)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        least, most = (middle, most) if total(price * trials(middle)) <= budget else (least, middle)
        if most - least <= 1e-15 * most:
            break
    return least, trials(least)
