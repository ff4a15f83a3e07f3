"""Rollouts by a knapsack over prompts: how many prompts teach something, and what a policy learns of as many rollouts.

Pools of drawn success rates, with outcomes drawn for the rollouts that each prompt gets; and a softmax policy on
digits, whose prompts are images and whose reward is the right class, trained by group-relative policy gradients from
rollouts that are shared by the outcomes of the epochs before.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits, shuffled
from claims.harness.learners import softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MEAN, PROMPTS = 8, 500
POOLS = ("Beta(0.1, 0.1)", "Beta(0.3, 0.3)", "solved and hard")
# Powers of p (1 - p) that a rule of thumb gives rollouts in proportion to; 0 is uniform.
POWERS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
TRAIN, EPOCHS = 300, 20
RATES = (1.0, 3.0, 10.0)


@claim(
    paper=150,
    says="At as many rollouts, the knapsack gives a mixed outcome to more prompts than the same rollouts for all (by a "
    "tenth at least) and than the best rule of thumb, and a policy learns more from them",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Drawn pools and a trained policy; broken: all prompts count as equally hard."""
    runs = 12 if scale == "small" else 40
    measured: dict[str, Any] = {}
    criteria = {}
    for pool in POOLS:
        shares = np.array(
            spread(functools.partial(_pool, pool=pool, broken=broken), derive(seed, runs, stream=len(pool)))
        )
        more = difference(shares[:, 0] / shares[:, 1], np.ones(runs))
        rule = difference(shares[:, 0], shares[:, 2])
        criteria[f"{pool}: a tenth more mixed outcomes than uniform"] = more.above(0.1)
        criteria[f"{pool}: more mixed outcomes than the best rule of thumb"] = rule.above(0.0)
        measured[pool] = {
            "share of prompts with mixed outcomes: knapsack, uniform, best rule": shares.mean(axis=0)
            .round(3)
            .tolist()[:3],
            "relative gain over uniform": more.figures(),
            "knapsack - best rule": rule.figures(),
            "rollouts of uniform for as many, over ours": round(float(shares[:, 3].mean()), 2),
        }
    seeds = derive(seed, runs, stream=7)
    tried = {
        (who, rate): np.array(spread(functools.partial(_policy, who=who, rate=rate, broken=broken), seeds))
        for who in ("knapsack", "uniform")
        for rate in RATES
    }
    # The step is chosen for each by the reward on rows that are not the test.
    best = {who: max(RATES, key=lambda rate: tried[who, rate][:, 0].mean()) for who in ("knapsack", "uniform")}
    reward = difference(tried["knapsack", best["knapsack"]][:, 1], tried["uniform", best["uniform"]][:, 1])
    criteria["digits: more reward than uniform"] = reward.above(0.0)
    measured["digits"] = {
        "steps chosen": best,
        "test reward, knapsack - uniform": reward.figures(),
        "test reward": {who: round(float(tried[who, best[who]][:, 1].mean()), 4) for who in best},
        "mixed outcomes, share": {who: round(float(tried[who, best[who]][:, 2].mean()), 3) for who in best},
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences: relative gain in mixed outcomes over uniform above 0.1 on "
        "each pool; above the best rule of thumb; test reward of the trained policy above uniform's",
        baseline="the same rollouts for all; rollouts in proportion to a power of p (1 - p), the best of six on the "
        "very outcomes that are judged; for the policy uniform rollouts with the best of three steps, as ours has",
        kind="reduced",
    )


def _drawn(pool: str, rng: np.random.Generator) -> Floats:
    if pool == "solved and hard":
        return np.where(rng.random(PROMPTS) < 0.5, rng.beta(20, 1, PROMPTS), rng.beta(1, 20, PROMPTS))
    a = 0.1 if "0.1" in pool else 0.3
    return rng.beta(a, a, PROMPTS)


def _shared(rates: Floats, budget: int, broken: bool, **options: Any) -> Ints:
    """The knapsack's rollouts."""
    given = np.full(len(rates), rates.mean()) if broken else rates
    if broken:
        options.pop("trials", None)
    plan = kofn.allocate(scores=given, budget=budget, method="rollout_knapsack", **options)
    counts: Ints = plan.amounts
    return counts


def _pool(seed: int, *, pool: str, broken: bool) -> list[float]:
    """Shares of mixed outcomes by the knapsack, uniform, the best rule; and uniform's rollouts for as many as ours."""
    rng = np.random.default_rng(seed)
    rates, budget = _drawn(pool, rng), MEAN * PROMPTS

    def mixed(counts: Ints) -> float:
        right = np.random.default_rng(seed + 1).binomial(counts, rates)
        return float(((right > 0) & (right < counts)).mean())

    ours = mixed(_shared(rates, budget, broken, gain="none"))
    rules = []
    for power in POWERS:
        wish = np.maximum(rates * (1 - rates), 1e-4) ** power
        counts = np.maximum(2, np.floor(wish / wish.sum() * budget).astype(np.int64))
        while counts.sum() > budget:
            counts[counts.argmax()] -= 1
        rules.append(mixed(counts))
    expected = [1 - rates**n - (1 - rates) ** n for n in range(1, 129)]
    needed = next((n for n, chance in enumerate(expected, 1) if chance.mean() >= ours), 128)
    return [ours, mixed(np.full(PROMPTS, MEAN)), max(rules), needed / MEAN]


def _policy(seed: int, *, who: str, rate: float, broken: bool) -> list[float]:
    """Reward on the rows to choose on and to judge on, and the mean share of mixed outcomes in training."""
    rng = np.random.default_rng(seed)
    rows = shuffled(digits(), rng)
    X: Any = rows.X[:TRAIN].astype(np.float64)
    y = rows.y[:TRAIN]
    weight: Any = np.zeros((X.shape[1], 10))
    counts = np.full(TRAIN, MEAN)
    right, trials, shares = np.zeros(TRAIN), np.zeros(TRAIN), []
    for _ in range(EPOCHS):
        chance = softmax(X @ weight)
        step = np.zeros_like(weight)
        mixed = 0
        for row in range(TRAIN):
            actions = rng.choice(10, counts[row], p=chance[row])
            reward = (actions == y[row]).astype(float)
            # Half of what older epochs told is forgotten: the policy moves on.
            right[row], trials[row] = right[row] / 2 + reward.sum(), trials[row] / 2 + len(reward)
            if reward.std() > 0:
                mixed += 1
                gain = (reward - reward.mean()) / reward.std()
                pushed = np.bincount(actions, gain, 10) - gain.sum() * chance[row]
                step += np.outer(X[row], pushed) / len(reward)
        weight += rate * step / TRAIN
        shares.append(mixed / TRAIN)
        if who == "knapsack":
            counts = _shared(right / trials, MEAN * TRAIN, broken, trials=trials)

    def reward_on(part: slice) -> float:
        chance = softmax(rows.X[part] @ weight)
        return float(chance[np.arange(len(chance)), rows.y[part]].mean())

    return [reward_on(slice(TRAIN, 900)), reward_on(slice(900, None)), float(np.mean(shares))]
