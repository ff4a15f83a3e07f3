"""Rollouts, trials and collected samples, against enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.allocation import LearningCurves, fit_learning_curves

RNG = np.random.default_rng(11)


def test_rollouts_are_those_of_enumeration() -> None:
    for _ in range(8):
        rates, costs = RNG.beta(0.4, 0.4, 4).round(2), RNG.integers(1, 4, 4)
        budget = int(costs.sum()) + int(RNG.integers(4, 15))
        plan = kofn.allocate(
            scores=rates, budget=budget, costs=costs, bounds=(1, 6), method="rollout_knapsack", gain="none"
        )
        counts = np.array([c for c in itertools.product(range(1, 7), repeat=4) if np.dot(c, costs) <= budget])
        mixed = (1 - rates**counts - (1 - rates) ** counts).sum(axis=1)
        assert plan.value == pytest.approx(mixed.max(), abs=1e-12)
        assert plan.info["mixed"] == pytest.approx(plan.value, abs=1e-12)


def test_the_value_of_counted_rates_is_that_of_drawn_ones() -> None:
    drawn = RNG.beta(2 + 0.5, 6 + 0.5, 400_000)
    plan = kofn.allocate(scores=[0.25], trials=[8], budget=5, bounds=(5, 5), method="rollout_knapsack")
    expected = np.mean((1 - drawn**5 - (1 - drawn) ** 5) * drawn * (1 - drawn) ** 2)
    assert plan.value == pytest.approx(expected, rel=5e-3)
    # What failed in each of few trials is not given up.
    call = {"scores": [0.0, 0.5, 1.0], "budget": 60, "method": "rollout_knapsack", "gain": "none"}
    assert kofn.allocate(**call).amounts[0] == 2
    counted = kofn.allocate(**call, trials=[2, 64, 64])
    assert counted.amounts[0] > 2 * counted.amounts[1]


def test_rollouts_beat_the_same_for_all() -> None:
    rates = RNG.beta(0.3, 0.3, 500)
    plan = kofn.allocate(scores=rates, budget=4000, method="rollout_knapsack", gain="none")
    assert plan.used["budget"] == 4000
    assert plan.info["uniform_mixed"] < plan.info["mixed"]
    assert plan.info["uniform_mixed"] == pytest.approx((1 - rates**8 - (1 - rates) ** 8).sum())


@pytest.mark.parametrize("target", ["uniform", "prop2diff"])
def test_trials_meet_their_targets_to_a_trial(target: str) -> None:
    rates = RNG.uniform(0.02, 0.98, 200)
    plan = kofn.allocate(scores=rates, budget=5000, bounds=(0, 400), method="difficulty_aware_trials", target=target)
    assert plan.used["budget"] == 5000
    free = plan.amounts < 400
    missed = np.abs(plan.info["accepted"] - plan.info["wanted"])[free]
    assert (missed <= rates[free] * (1 + 1e-9)).all()
    shape = np.ones(200) if target == "uniform" else 1 - rates
    np.testing.assert_allclose(plan.info["wanted"] / shape, plan.info["wanted"][0] / shape[0])


def test_trials_of_hopeless_queries_are_told() -> None:
    plan = kofn.allocate(scores=[0.0, 0.5, 0.0], budget=50, method="difficulty_aware_trials")
    assert plan.amounts.tolist() == [1, 48, 1]
    assert "2 queries of rate 0 (row 0, 2) get the least" in plan.info["warnings"][0]
    counted = kofn.allocate(scores=[0.0, 0.5, 0.0], budget=50, trials=[8, 8, 8], method="difficulty_aware_trials")
    assert counted.amounts[0] > counted.amounts[1]
    assert "warnings" not in counted.info


def test_collected_samples_are_near_those_of_enumeration() -> None:
    levels = np.array([20, 60, 180, 540])
    for aversion in (1.0, 2.0, math.inf):
        scale, power, floor = RNG.uniform(0.5, 3, 3), RNG.uniform(0.3, 0.9, 3), RNG.uniform(0, 0.2, 3)
        weights = RNG.uniform(0.2, 1, 3)
        curves = floor[:, None] + scale[:, None] * levels ** -power[:, None]
        plan = kofn.allocate(
            curves,
            budget=40,
            levels=levels,
            collected=[5, 5, 5],
            weights=weights,
            method="equitable_collection",
            aversion=aversion,
        )
        able = np.array([(x, y, 40 - x - y) for x in range(41) for y in range(41 - x)])
        errors = floor + scale * (5.0 + able) ** -power
        values = errors.max(axis=1) if math.isinf(aversion) else errors**aversion @ weights
        assert plan.value == pytest.approx(values.min(), rel=1e-6)
        assert plan.value <= plan.info["equal"] * (1 + 1e-9)


def test_a_plan_far_beyond_the_measurements_is_told() -> None:
    curves = [[0.6, 0.4, 0.3, 0.25], [0.8, 0.65, 0.575, 0.5375]]
    call = {"levels": [25, 100, 400, 1600], "method": "equitable_collection"}
    assert "warnings" not in kofn.allocate(curves, budget=3000, **call).info
    plan = kofn.allocate(curves, budget=100_000, **call)
    assert "and was measured at 1,600 at most" in plan.info["warnings"][0]


def test_learning_curves_are_those_of_least_squares() -> None:
    from scipy.optimize import least_squares

    levels = np.array([10.0, 30, 100, 300, 1000])
    errors = 0.1 + 2 * levels**-0.6 + RNG.normal(0, 0.002, 5)
    fit: LearningCurves = fit_learning_curves([errors], levels=levels)
    own = float(fit.error[0] ** 2) * 5
    free = least_squares(lambda x: x[0] + x[1] * levels ** -x[2] - errors, [0.1, 1.0, 0.5])
    assert own <= 2 * free.cost * (1 + 1e-6)
    # Noise that a floor of each group would follow is left to a shared exponent.
    noisy = 2 * levels[:4] ** -0.5 * np.exp(RNG.normal(0, 0.1, (4, 4)))
    assert np.ptp(fit_learning_curves(noisy, levels=levels[:4]).exponent) == 0
    straight = fit_learning_curves([2 * levels[:2] ** -0.5], levels=levels[:2], floor=False)
    assert straight.exponent == pytest.approx(0.5)


def test_refusals() -> None:
    curves = [[0.5, 0.4], [0.5, 0.4]]
    for run, says in (
        (
            lambda: kofn.allocate(curves, budget=5, method="equitable_collection"),
            "curves of row 0 are measured at 2 sizes, fewer than the law's 3 parameters; measure more sizes, or give "
            "floor=False",
        ),
        (
            lambda: kofn.allocate(curves, budget=5, levels=[0, 2], floor=False, method="equitable_collection"),
            "levels at row 0, column 0 is 0; give samples, at least 1",
        ),
        (
            lambda: kofn.allocate(curves, budget=5, costs=[1, 0], floor=False, method="equitable_collection"),
            "costs at row 1 is 0; a sample costs something, give it > 0",
        ),
        (
            lambda: kofn.allocate(curves, budget=5, aversion=0.5, floor=False, method="equitable_collection"),
            "aversion=0.5: give a number from 1 to 64, or inf for the worst group alone",
        ),
        (
            lambda: kofn.allocate([[-0.5, 0.4]], budget=5, floor=False, method="equitable_collection"),
            "curves at row 0, column 0 is -0.5; give errors >= 0",
        ),
        (
            lambda: kofn.allocate(scores=[0.5], trials=[3], prior=0.0, budget=5, method="rollout_knapsack"),
            "prior=0.0: give a number above 0",
        ),
        (
            lambda: kofn.allocate(scores=[0.5, 0.5], trials=[3], budget=5, method="rollout_knapsack"),
            "trials has 1 values",
        ),
        (
            lambda: kofn.allocate(
                scores=np.full(60_000, 0.5), budget=10**9, bounds=(2, 2000), method="rollout_knapsack"
            ),
            "bounds: 60,000 prompts of up to 1,999 rollouts each make a table of 119,940,000 values",
        ),
    ):
        refused(run, says)


@pytest.mark.parametrize("aversion", [1.0, math.inf])
def test_samples_beyond_what_rounding_of_errors_tells_are_bought_as_the_closed_form_says(aversion: float) -> None:
    levels = np.array([25, 100, 400, 1600])
    curves = [0.2 + 2.0 * levels**-0.5, 0.2 + 1.5 * levels**-0.5]
    call = {"levels": levels, "aversion": aversion, "method": "equitable_collection"}
    bought = kofn.allocate(curves, budget=10**13, **call).amounts
    assert bought.sum() == 10**13
    # Equal savings of the next sample, or equal errors.
    power = 2 / 3 if aversion == 1 else 2
    assert bought[0] / bought[1] == pytest.approx((2.0 / 1.5) ** power, rel=1e-3)


@pytest.mark.parametrize("costs", [[1e-6, 1, 1], [1e-6, 1e-6, 1], [1e-9, 1, 1e9]])
def test_cheap_samples_are_bought_by_thousands(costs: list[float]) -> None:
    levels = np.array([25, 100, 400, 1600])
    curves = [scale * levels**-power + floor for scale, power, floor in ((2, 0.5, 0.1), (3, 0.4, 0.0), (1, 0.3, 0.2))]
    plan = kofn.allocate(curves, budget=1000, costs=costs, levels=levels, method="equitable_collection")
    # Nothing is left that pays for a sample, and dearer ones for some of the cheapest would bring next to nothing.
    assert plan.used["budget"] > 1000 - 2 * min(costs)
    laws = fit_learning_curves(curves, levels=levels)
    for group, more in itertools.product((1, 2), (-1, 1)):
        other = plan.amounts.astype(float)
        other[group] = max(0.0, other[group] + more)
        other[0] = max(0.0, np.floor((1000 - other[1:] @ costs[1:]) / costs[0]))
        if other @ costs <= 1000:
            assert plan.value <= laws.loss(1600 + other).sum() + 1e-5


def test_more_samples_than_can_be_counted_are_refused() -> None:
    call = {"levels": [25, 100, 400, 1600], "method": "equitable_collection"}
    refused(lambda: kofn.allocate([[0.6, 0.4, 0.3, 0.25]], budget=1e16, **call), "more samples of a group than can be")


def test_groups_of_which_nothing_was_collected_are_planned_within_the_budget() -> None:
    curves = [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    for budget in (1, 3, 10, 1000):
        options = {"levels": [1, 2, 4], "floor": False, "collected": [0, 0, 0, 0, 2]}
        plan = kofn.allocate(curves, budget=budget, method="equitable_collection", options=options)
        assert plan.amounts.sum() == budget
        assert plan.amounts[0] >= plan.amounts[1]
