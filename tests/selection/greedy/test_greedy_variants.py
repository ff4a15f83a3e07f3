"""Greedy by samples, by thresholds and in two rounds, and objectives asked for as text."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.objectives import base
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import lazy_greedy, naive_greedy, partitioned_greedy, stochastic_greedy, threshold_greedy

X = np.random.default_rng(5).normal(size=(60, 3))


class Cover:
    """Coverage of 40 elements by random sets, one gain at a time, counted."""

    submodular = monotone = True

    def __init__(self, n: int = 300, seed: int = 0) -> None:
        self.sets = np.random.default_rng(seed).random((n, 40)) < 0.1
        self.covered = np.zeros(40, bool)
        self.calls = 0

    def gains(self, candidates):
        self.calls += len(candidates)
        return (self.sets[candidates] & ~self.covered).sum(axis=1).astype(float)

    def add(self, item):
        gain = float((self.sets[item] & ~self.covered).sum())
        self.covered |= self.sets[item]
        return gain

    def value(self, indices):
        return float(self.sets[indices].any(axis=0).sum()) if len(indices) else 0.0


def best_of(rule, n, k):
    return max(rule.value(np.array(picks)) for picks in itertools.combinations(range(n), k))


SIM = np.random.default_rng(1).random((300, 300))


class TestStochastic:
    def test_gains_do_not_grow_with_k(self):
        for k in (3, 30):
            rule = Cover()
            stochastic_greedy(SIM[:, :1], objective=rule, k=k, seed=1, eps=0.2)
            # The samples, one more in each step for rounding up, and all items once for the bound.
            assert rule.calls <= 300 * math.log(5) + k + 300

    def test_is_as_good_as_promised_in_the_mean(self):
        rule = Cover(12)
        best = best_of(rule, 12, 3)
        values = [stochastic_greedy(X[:12], objective=Cover(12), k=3, seed=seed, eps=0.3).value for seed in range(200)]
        plan = stochastic_greedy(X[:12], objective=Cover(12), k=3, seed=0, eps=0.3)
        assert plan.info["expected_guarantee"] == pytest.approx(1 - 1 / math.e - 0.3)
        assert plan.guarantee is None
        assert np.mean(values) >= (1 - 1 / math.e - 0.3) * best

    def test_a_sample_of_everything_is_greedy(self):
        ours = stochastic_greedy(X, k=7, seed=3, eps=1e-9)
        assert ours.indices.tolist() == lazy_greedy(X, k=7).indices.tolist()

    def test_same_seed_same_picks(self):
        runs = [stochastic_greedy(X, k=6, seed=seed).indices.tolist() for seed in (4, 4, 5)]
        assert runs[0] == runs[1] != runs[2]

    def test_budget_and_quotas_hold(self):
        plan = stochastic_greedy(
            X, budget=9, costs=np.arange(60) % 4 + 1, groups=np.arange(60) % 3, quotas={0: (2, None)}, seed=0
        )
        assert plan.used["costs"] <= 9
        assert plan.used["quota 0"] >= 2


class TestThreshold:
    @pytest.mark.parametrize("eps", [0.01, 0.2])
    def test_ratio_against_brute_force(self, eps):
        for seed in range(5):
            rule = Cover(12, seed)
            plan = threshold_greedy(X[:12], objective=rule, k=4, eps=eps)
            assert plan.value >= plan.guarantee * best_of(rule, 12, 4)
            assert plan.guarantee >= 1 - 1 / math.e - eps

    def test_each_pick_gains_nearly_the_most(self):
        eps = 0.1
        plan = threshold_greedy(X, k=20, eps=eps)
        rule = FacilityLocation(X)
        for item in plan.indices:
            gains = rule.gains(np.arange(60))
            assert gains[item] >= (1 - eps) * gains.max() - 1e-6
            rule.add(int(item))

    def test_what_is_worth_nothing_fills_up(self):
        plan = threshold_greedy(scores=[5.0, 0.0, 3.0, 0.0], k=4)
        assert sorted(plan.indices.tolist()) == [0, 1, 2, 3]
        assert plan.indices[:2].tolist() == [0, 2]

    def test_fewer_gains_than_naive(self):
        counts = {}
        for method in (naive_greedy, threshold_greedy):
            rule = Cover()
            method(SIM[:, :1], objective=rule, k=30)
            counts[method] = rule.calls
        assert counts[threshold_greedy] < counts[naive_greedy] / 3


class TestPartitioned:
    def test_one_part_is_greedy(self):
        ours = partitioned_greedy(X, k=6, parts=1, seed=0)
        assert ours.indices.tolist() == lazy_greedy(X, k=6).indices.tolist()

    def test_value_is_on_the_whole_pool_and_near_greedy(self):
        greedy = lazy_greedy(X, k=6)
        for seed in range(5):
            plan = partitioned_greedy(X, k=6, parts=4, seed=seed)
            assert plan.value == pytest.approx(FacilityLocation(X).value(plan.indices), rel=1e-12)
            assert plan.value >= 0.9 * greedy.value
            assert plan.bound >= greedy.value
            assert plan.info["parts"] == 4

    def test_parts_smaller_than_k(self):
        plan = partitioned_greedy(X[:10], k=8, parts=5, seed=0)
        assert len(plan) == 8

    def test_what_is_excluded_or_included(self):
        plan = partitioned_greedy(X, k=5, parts=3, seed=0, exclude=[1, 2, 3], include=[7])
        assert plan.indices[0] == 7
        assert not set(plan.indices.tolist()) & {1, 2, 3}

    def test_own_objective_is_left_alone(self):
        rule = Cover()
        partitioned_greedy(SIM[:, :1], objective=rule, k=5, parts=3, seed=0)
        assert not rule.covered.any()

    def test_more_parts_than_items(self):
        with pytest.raises(InputError, match="parts=61 of 60 items"):
            partitioned_greedy(X, k=2, parts=61)

    def test_too_many_excluded(self):
        with pytest.raises(InfeasibleError, match="exclude leaves 2"):
            partitioned_greedy(X[:4], k=3, exclude=[0, 1])


class Rising:
    """A set function that is not submodular."""

    submodular, monotone = False, True

    def gains(self, candidates):
        return np.ones(len(candidates))

    def add(self, item):
        return 1.0

    def value(self, indices):
        return float(len(indices))


@pytest.mark.parametrize("method", [lazy_greedy, stochastic_greedy, threshold_greedy, partitioned_greedy])
def test_a_function_without_the_promise_is_refused(method):
    with pytest.raises(InputError, match=r"objective=Rising is not submodular.*naive_greedy"):
        method(X, objective=Rising(), k=2)


@pytest.mark.parametrize("method", [stochastic_greedy, threshold_greedy])
@pytest.mark.parametrize("eps", [0, 1, -0.1, "x"])
def test_eps_out_of_range(method, eps):
    with pytest.raises(InputError, match="eps="):
        method(X, k=2, eps=eps)


class TestText:
    def test_terms(self):
        terms = base.parse("0.25 * facility_location + modular", ["facility_location", "modular"])
        assert [(t.name, t.weight) for t in terms] == [("facility_location", 0.25), ("modular", 1.0)]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("facility_locaton", "did you mean 'facility_location'"),
            ("facility_location(", "cannot be read"),
            ("facility_location(open('x'))", "cannot be read"),
            ("facility_location - modular", "cannot be read"),
            ("'a' * facility_location", "is no number"),
            ("-1 * facility_location", "weights are >= 0"),
            ("facility_location(lam=2)", "has no parameter 'lam'"),
            ("modular", "has no use for X"),
        ],
    )
    def test_refusals(self, text, says):
        with pytest.raises(InputError, match=says.replace("(", r"\(")):
            kofn.select(X, k=2, objective=text, method="naive_greedy")

    def test_an_objective_without_its_source(self):
        with pytest.raises(InputError, match="'facility_location' needs X or similarity"):
            lazy_greedy(scores=[1.0, 2.0], k=1, objective="facility_location + modular")


@pytest.mark.parametrize("method", [stochastic_greedy, threshold_greedy])
def test_a_search_that_takes_less_than_the_best_claims_no_optimum(method: Any) -> None:
    rng = np.random.default_rng(5)
    short = 0
    for _ in range(200):
        n = int(rng.integers(3, 12))
        k = int(rng.integers(1, n))
        scores = rng.random(n).round(2)
        plan = method(scores=scores, k=k, objective="modular", **({"seed": 1} if method is stochastic_greedy else {}))
        best = math.fsum(np.sort(scores)[-k:].tolist())
        assert plan.bound >= best - 1e-12
        short += plan.value < best - 1e-12
        if plan.status == "optimal":
            assert plan.value >= best - 1e-12
    assert short  # there was something to be wrong about
    plan = threshold_greedy(scores=[0.91, 0.99, 1.0], k=2, objective="modular")
    assert plan.value == pytest.approx(1.91)
    assert plan.status == "approximate"
    assert plan.bound >= 1.99


@pytest.mark.parametrize("eps", [1e-6, 1e-12, 1e-15])
def test_thresholds_that_fall_by_next_to_nothing_end(eps: float) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    plan = kofn.select(X, k=5, eps=eps, method="threshold_greedy")
    assert plan.value == pytest.approx(kofn.select(X, k=5).value, rel=1e-9)
    with pytest.raises(InputError, match="nor next to 0"):
        kofn.select(X, k=3, eps=1e-17, method="threshold_greedy")


def test_free_items_keep_their_order_in_any_unit() -> None:
    S = np.array([[0, 3, 10, 16], [3, 14, 12, 6], [10, 12, 8, 8], [16, 6, 8, 6]], float)
    call = {"costs": [3, 0, 3, 0], "budget": 3}
    for method in ("naive_greedy", "lazy_greedy", "threshold_greedy"):
        picks = [kofn.select(similarity=S * unit, method=method, **call).indices.tolist() for unit in (1.0, 2.0**200)]
        assert picks[0] == picks[1]
