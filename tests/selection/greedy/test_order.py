"""Order thresholds and assortment revenue: against enumeration, with the guarantee of each kind of constraint."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.objectives.assortment import MNLRevenue
from kofn.selection import order_threshold

Floats = NDArray[np.float64]


def revenue(prices: Floats, pull: Floats, offered: list[int], outside: float = 1.0) -> float:
    """What one customer brings who is offered these, by definition."""
    chance = pull[offered] / (outside + pull[offered].sum())
    return float((prices[offered] * chance).sum())


def best_part(prices: Floats, pull: Floats, items: Any, outside: float = 1.0) -> float:
    """The most that any part earns, by looking at all of them."""
    items = list(items)
    parts = itertools.chain.from_iterable(itertools.combinations(items, size) for size in range(1, len(items) + 1))
    return max((revenue(prices, pull, list(part), outside) for part in parts), default=0.0)


def market(seed: int, n: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    prices = rng.uniform(1, 10, n) if seed % 2 else rng.integers(1, 6, n).astype(float)
    return prices, rng.exponential(size=n) * rng.choice([0.1, 1.0, 5.0])


@pytest.mark.parametrize("seed", range(12))
def test_revenue_is_the_best_part_and_gains_are_differences(seed: int) -> None:
    prices, pull = market(seed, 7)
    outside = 1.0 + seed % 3
    rule = MNLRevenue(prices, pull, outside)
    held: list[int] = []
    for item in np.random.default_rng(seed).permutation(7).tolist():
        now = best_part(prices, pull, held, outside)
        gains = rule.gains(np.arange(7))
        wanted = [best_part(prices, pull, {*held, other}, outside) - now for other in range(7)]
        np.testing.assert_allclose(gains, wanted, atol=1e-12)
        assert rule.add(item) == pytest.approx(wanted[item], abs=1e-12)
        held.append(item)
        assert rule.value(np.array(held)) == pytest.approx(best_part(prices, pull, held, outside), rel=1e-12)
        shelf = rule.offered(np.array(held)).tolist()
        assert revenue(prices, pull, shelf, outside) == pytest.approx(rule.value(np.array(held)), rel=1e-12)
    assert rule.calls == 49


def tables(rule: MNLRevenue, n: int) -> Floats:
    masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    return np.array([rule.value(np.flatnonzero(mask)) for mask in masks])


def violations(value: Floats, n: int, rank: list[int] | None) -> int:
    """Triples (B inside A, one element c later than all of A) whose gain rises; without a rank c is any other one.

    Gains of one later element at a time suffice: a set's gain is a sum of such, each after what is earlier.
    """
    found = 0
    for a in range(2**n):
        held = [item for item in range(n) if a >> item & 1]
        for c in range(n):
            if a >> c & 1 or (rank is not None and any(rank[item] > rank[c] for item in held)):
                continue
            gain, b = value[a | 1 << c] - value[a], a
            while True:
                found += gain > value[b | 1 << c] - value[b] + 1e-12
                if b == 0:
                    break
                b = (b - 1) & a
    return found


def test_descending_price_is_an_order_and_plain_submodularity_fails() -> None:
    fails = 0
    for seed in range(20):
        prices, pull = market(seed, 6)
        rule = MNLRevenue(prices, pull)
        rank = np.argsort(rule.order).tolist()
        value = tables(rule, 6)
        assert violations(value, 6, rank) == 0
        fails += violations(value, 6, None) > 0
    assert 5 <= fails < 20


def feasible(n: int, call: dict[str, Any]) -> Any:
    k, costs = call.get("k"), call.get("costs")
    for size in range(n + 1):
        if k is not None and (size > k if costs is not None else size != k):
            continue
        for picks in itertools.combinations(range(n), size):
            chosen = list(picks)
            if costs is not None and costs[chosen].sum() > call["budget"]:
                continue
            groups = call.get("groups")
            if groups is not None and any(
                not low <= (groups[chosen] == group).sum() <= high for group, (low, high) in call["quotas"].items()
            ):
                continue
            if not set(call.get("exclude", [])) & set(chosen):
                yield np.array(chosen, np.int64)


SHARES = {"k": 1 / 2, "budget": 1 / 3, "both": 1 / 5, "quotas": 1 / 4}


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("seed", range(25))
def test_guarantee_and_bound_against_every_set(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    n = int(rng.integers(4, 10))
    prices, pull = market(seed, n)
    k = int(rng.integers(1, n))
    call: dict[str, Any] = {"scores": prices, "weights": pull, "objective": "mnl_revenue"}
    if kind != "budget":
        call["k"] = k
    if kind in ("budget", "both"):
        call |= {"costs": rng.integers(1, 6, n), "budget": int(rng.integers(6, 12))}
    if kind == "quotas":
        groups = rng.integers(0, 3, n)
        held = np.bincount(groups[rng.permutation(n)[:k]], minlength=3)
        call |= {"groups": groups}
        call["quotas"] = {
            int(group): (int(rng.integers(0, held[group] + 1)), int(held[group] + rng.integers(0, 2)))
            for group in np.unique(groups)
        }
    if kind == "k" and k < n - 1:
        call["exclude"] = [int(rng.integers(n))]
    plan = order_threshold(**call)
    rule = MNLRevenue(prices, pull)
    best = max(rule.value(picks) for picks in feasible(n, call))
    share = SHARES[kind] / (1 if kind == "quotas" else 1.1)
    assert plan.bound is not None
    # A k that all that the budget buys fits into does not count as a second constraint.
    assert plan.guarantee >= share * (1 - 1e-12)
    assert share * best * (1 - 1e-12) <= plan.value <= best * (1 + 1e-12) <= plan.bound * (1 + 2e-12)
    assert plan.gains.sum() == pytest.approx(plan.value) == pytest.approx(rule.value(plan.indices))


def test_one_threshold_pass_is_the_published_rule() -> None:
    """With thresholds this far apart only the rule of one pass is left: take, in order, what gains t / k."""
    prices, pull = np.array([9.0, 8.0, 6.0, 5.0, 4.0]), np.array([0.3, 0.1, 0.8, 2.0, 2.0])
    plan = order_threshold(scores=prices, weights=pull, objective="mnl_revenue", k=2, eps=1.0)
    top = max(revenue(prices, pull, [item]) for item in range(5))
    runs = []
    for level in (top / 2, top):
        held: list[int] = []
        for item in range(5):
            gain = best_part(prices, pull, [*held, item]) - best_part(prices, pull, held)
            if len(held) < 2 and gain >= level / 2:
                held.append(item)
        runs.append(held)
    assert plan.info["passes"] == 2
    best = max(runs, key=lambda held: best_part(prices, pull, held))
    assert plan.indices[: len(best)].tolist() == best


def test_quotas_swap_for_what_is_worth_twice() -> None:
    """One place in the group: an item replaces the pick once it gains more than that pick is worth."""
    scores = np.array([1.0, 1.5, 2.5, 2.6, 7.0])
    plan = order_threshold(scores=scores, k=1, groups=[0] * 5, quotas={0: (0, 1)}, order=[0, 1, 2, 3, 4])
    # 1.5 > 1, so it is worth 2.5 from then on; 2.5 is not more, 2.6 is and inherits 5.1; 7 is more than that.
    assert plan.indices.tolist() == [4]
    assert order_threshold(scores=scores[:3], k=1, groups=[0] * 3, quotas={0: (0, 1)}).indices.tolist() == [1]
    assert plan.guarantee == 0.25


def test_a_wrong_order_promises_nothing() -> None:
    prices, pull = market(3, 8)
    up = np.argsort(prices)
    plan = order_threshold(scores=prices, weights=pull, objective="mnl_revenue", k=3, order=up)
    assert plan.bound is None
    assert plan.guarantee is None
    assert plan.status == "heuristic"
    down = kofn.select(
        scores=prices, weights=pull, objective="mnl_revenue", k=3, method="order_threshold", options={"order": up[::-1]}
    )
    assert down.bound is not None
    held = order_threshold(scores=prices, weights=pull, objective="mnl_revenue", k=3, include=[int(up[0])])
    assert held.bound is None
    assert int(up[0]) in held.indices


def test_a_submodular_function_keeps_its_guarantee_along_any_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        X = rng.random((9, 2))
        plan = order_threshold(X, k=3, order=rng.permutation(9))
        apart = plan.info["offset"] - np.linalg.norm(X[:, None] - X[None], axis=2)
        best = max(apart[:, picks].max(axis=1).sum() for picks in itertools.combinations(range(9), 3))
        assert plan.bound is not None
        assert plan.value <= best * (1 + 1e-9) <= plan.bound * (1 + 2e-9)
        assert plan.value >= plan.guarantee * best


class Own:
    """An objective of the user's that says nothing of orders."""

    submodular, monotone = False, True

    def __init__(self, prices: Floats) -> None:
        self.rule = MNLRevenue(prices)

    def gains(self, candidates: Any) -> Floats:
        return self.rule.gains(candidates)

    def add(self, item: int) -> float:
        return self.rule.add(item)

    def value(self, indices: Any) -> float:
        return self.rule.value(indices)


def test_own_objective_and_stopping() -> None:
    prices = np.array([5.0, 3.0, 4.0])
    own = Own(prices)
    plan = order_threshold(scores=prices, objective=own, k=2, order=[0, 2, 1])
    named = order_threshold(scores=prices, objective="mnl_revenue", k=2)
    assert plan.indices.tolist() == named.indices.tolist()
    assert plan.bound is None
    assert own.rule.calls == 0
    stopped = order_threshold(scores=prices, objective="mnl_revenue", k=2, time_limit=1e-9)
    assert stopped.status == "stopped"
    assert len(stopped.indices) == 2


def test_each_pass_costs_little_more_than_the_pool() -> None:
    prices, pull = market(1, 3000)
    plan = order_threshold(scores=prices, weights=pull / 300, objective="mnl_revenue", k=20)
    assert plan.info["passes"] == math.floor(math.log(20) / math.log(1.1)) + 1
    assert plan.info["oracle_calls"] <= 2 * 3000 * (plan.info["passes"] + 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0}, "eps=0"),
        ({"eps": 2}, "eps"),
        ({"order": [0, 1]}, "order has 2 of the pool's 3 items"),
        ({"order": [0, 1, 1]}, "order names row 1 more than once"),
        ({"order": [0, 1, 5]}, "order names row 5"),
        ({"scores": [1.0, -2.0, 3.0]}, "scores at row 1 is -2"),
        ({"objective": "mnl_revenue(outside=0)"}, "outside=0"),
        ({"objective": "mnl_revenu"}, "did you mean 'mnl_revenue'"),
        ({"weights": [1.0, 2.0]}, "weights"),
    ],
)
def test_refused(change: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"scores": [3.0, 2.0, 1.0], "objective": "mnl_revenue", "k": 2, **change}
    with pytest.raises(InputError, match=words):
        order_threshold(**call)


def test_refused_by_the_objective() -> None:
    with pytest.raises(InputError, match="one price an item"):
        MNLRevenue(np.ones((2, 2)))
    with pytest.raises(InputError, match="for 3 prices"):
        MNLRevenue(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match="weights at row 1 is inf"):
        MNLRevenue(np.ones(2), np.array([1.0, np.inf]))
    with pytest.raises(InfeasibleError):
        order_threshold(scores=[1.0, 2.0], objective="mnl_revenue", k=3)


def test_facts_of_the_objective_are_told() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    call: dict[str, Any] = {"k": 5, "method": "order_threshold", "objective": "facility_location"}
    plan = kofn.select(X, metric="rbf", **call)
    similarity = np.exp(-((X[:, None] - X) ** 2).sum(axis=2) / (2 * plan.info["bandwidth"] ** 2))
    assert plan.value == pytest.approx(similarity[:, plan.indices].max(axis=1).sum(), rel=1e-5)
    plan = kofn.select(X, **call)
    nearest = np.sqrt(((X[:, None] - X[plan.indices]) ** 2).sum(axis=2)).min(axis=1)
    assert plan.info["distance"] == pytest.approx(nearest.sum(), rel=1e-5)
