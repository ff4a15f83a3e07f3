"""Rollouts for each prompt, by the chance that they hold both a success and a failure."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._counts import uniform
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.allocation.sampling._rates import beta_of
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

# Prompts times rollouts each that a table of values may hold.
_MOST_ENTRIES = 50_000_000


@method(
    "allocate",
    draws=Draw(
        kinds={"scores": "rates"},
        plain={"budget": 30},
        silent=("duality",),
        options={"gain": ("learning", "none"), "prior": (0.5, 1.0)},
    ),
    cost="O(n L log L) for at most L rollouts a prompt",
    exact="the optimum, for the rates as they are given",
    paper=150,
    aliases=("Knapsack RL", "rollouts", "GRPO", "exploration budget", "samples per prompt"),
)
def rollout_knapsack(
    scores: Any,
    *,
    budget: float,
    costs: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    bounds: Any = None,
    gain: Literal["learning", "none"] = "learning",
    trials: ArrayLike | None = None,
    prior: float = 0.5,
) -> Allocation:
    """Give each prompt the rollouts that make a mixed outcome, and so a gradient of GRPO, worth most in all.

    N rollouts at success rate p hold both a success and a failure with chance 1 - p^N - (1 - p)^N; a prompt whose
    rollouts all succeed or all fail teaches nothing. Solved prompts give their rollouts to hard ones.

    Args:
        scores: (n,) success rate of each prompt, from 0 to 1.
        budget: rollouts in all, or what they may cost.
        costs: (n,) what a rollout of each prompt costs, such as its tokens; default 1.
        weights: (n,) how much each prompt matters, default 1.
        bounds: (least, most) rollouts of all prompts, or one such pair for each; default (2, 128).
            An open least is 0, an open most is 128.
        gain: "learning" weighs a mixed outcome by p (1 - p)^2, what a step on it raises the rate by to first order,
            which prefers hard prompts; "none" counts prompts with a mixed outcome.
        trials: (n,) how many rollouts each rate was counted in. Values are then expected over what the rate may be, so
            that 0 of 8 is not taken for hopeless.
        prior: successes and failures assumed beside the trials, of each so many; of use with `trials` alone.

    Returns:
        An `Allocation`: `amounts` rollouts, `values` what they are worth, `value` their sum. `info["mixed"]` is the
        expected number of prompts with a mixed outcome, `info["uniform"]` the value, and `info["uniform_mixed"]` that
        number, where all get the same.

    Raises:
        InfeasibleError: the least rollouts of all prompts cost more than the budget; says by how much.
        InputError: rates outside 0..1, trials below 0, bounds of another length.

    Cost: a table of n times the most rollouts, 10,000 prompts at 128 take about a second.

    Guarantee: optimal for these rates, weights and gain; that rates are known is the assumption.

    References:
        Li et al. 2025, "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation", arXiv 2509.25849
        (the value of a prompt, and the program; there by dynamic programming over all budgets).

    Examples:
        >>> from kofn.allocation import rollout_knapsack
        >>> plan = rollout_knapsack([0.99, 0.5, 0.03], budget=24, gain="none")
        >>> plan.amounts.tolist(), round(plan.info["mixed"], 2), round(plan.info["uniform_mixed"], 2)
        ([2, 6, 16], 1.37, 1.29)
        >>> rollout_knapsack([0.0, 0.5], budget=16, trials=[4, 4], gain="none").amounts.tolist()
        [9, 7]
    """
    rate = checks.rates(scores)
    n = len(rate)
    low, high = checks.least_and_most(bounds, n, least=2, most=128, whole=True)
    price: Array = np.ones(n, np.int64) if costs is None else np.asarray(costs)
    checks.enough(float(budget), float(price @ low), "the least rollouts of all prompts")
    # More than the budget pays for, no prompt gets; two rollouts more tell what more budget would bring.
    spare = float(budget) - float(price @ low)
    with np.errstate(divide="ignore"):
        most = np.minimum(high, low + np.where(price > 0, np.floor(spare / price) + 2, np.inf)).astype(np.int64)
    width = int((most - low).max()) + 1
    if n * width > _MOST_ENTRIES:
        raise InputError(
            f"bounds: {n:,} prompts of up to {width:,} rollouts each make a table of {n * width:,} values, more than "
            f"{_MOST_ENTRIES:,}; lower the most of bounds"
        )
    counts = np.minimum(low[:, None].astype(np.int64) + np.arange(width), most[:, None])
    chance = _Chances.of(rate, trials, prior)
    matter = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    worth = matter[:, None] * chance.worth(counts, gain)
    plan = multiple_choice_knapsack(worth, budget=budget, sizes=price, levels=counts, sense="max")
    same = uniform(price, low, most.astype(np.float64), float(budget), True)[:, None]
    return dataclasses.replace(
        plan,
        objective="mixed_outcomes",
        bounds=np.stack([low, high], axis=1),
        info={
            "mixed": float(chance.worth(plan.amounts[:, None], "none").sum()),
            "uniform": float(matter @ chance.worth(same, gain)[:, 0]),
            "uniform_mixed": float(chance.worth(same, "none").sum()),
        },
    )


@dataclasses.dataclass(frozen=True)
class _Chances:
    """Success rates: known, or of a beta distribution with `success` and `failure`."""

    rate: Floats
    success: Floats | None = None
    failure: Floats | None = None

    @classmethod
    def of(cls, rate: Floats, trials: ArrayLike | None, prior: float) -> _Chances:
        if trials is None:
            return cls(rate)
        return cls(rate, *beta_of(rate, trials, prior))

    def moment(self, successes: Any, failures: Any) -> Floats:
        """(n, m) the expectation of p^successes (1 - p)^failures, row by row."""
        if self.success is None or self.failure is None:
            out: Floats = self.rate[:, None] ** successes * (1 - self.rate[:, None]) ** failures
            return out
        from scipy.special import betaln

        a, b = self.success[:, None], self.failure[:, None]
        expected: Floats = np.exp(betaln(a + successes, b + failures) - betaln(a, b))
        return expected

    def worth(self, counts: Array, gain: str) -> Floats:
        """(n, m) what so many rollouts are worth; nothing without any, and nothing of one."""
        up, down = (1, 2) if gain == "learning" else (0, 0)
        if self.success is None:
            # Of rates near 0 and 1 the difference to 1 would leave nothing.
            rare = np.minimum(self.rate, 1 - self.rate)[:, None]
            mixed = -np.expm1(counts * np.log1p(-rare)) - rare**counts
            return np.where(counts < 2, 0.0, np.maximum(self.moment(up, down) * mixed, 0.0))
        alike = self.moment(counts + up, down) + self.moment(up, counts + down)
        return np.where(counts < 2, 0.0, np.maximum(self.moment(up, down) - alike, 0.0))
