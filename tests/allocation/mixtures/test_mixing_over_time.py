"""Mixtures that change while a model trains: EXP3 written out, and the mixture of most influence by another solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hostile_values import OddMapping
from refusals import refused
from scipy.optimize import minimize

from kofn.allocation import InfluenceMixture, OnlineDataMixing, group_influence

RNG = np.random.default_rng(11)


@pytest.mark.parametrize(("smoothing", "rate"), [(None, None), (0.9, None), (0.5, 0.7)])
def test_shares_are_those_of_the_algorithm_written_out(smoothing: float | None, rate: float | None) -> None:
    K, rng = 4, np.random.default_rng(3)
    mixing = OnlineDataMixing(K, smoothing=smoothing, rate=rate, scale=2.0, seed=1)
    reward, share, eps = [0.0] * K, [1 / K] * K, 1 / K
    for step in range(1, 200):
        group = mixing.ask()
        assert mixing.ask() == group
        loss = float(rng.random()) * (group + 1)
        gain = loss / 2.0 / share[group]
        reward[group] = (
            reward[group] + gain if smoothing is None else smoothing * reward[group] + (1 - smoothing) * gain
        )
        mixing.tell(loss)
        factor = rate or min(1 / K, math.sqrt(math.log(K) / (K * step)))
        eps = min(1 / K, math.sqrt(math.log(K) / (K * (step + 1))))
        weight = [math.exp(factor * (x - max(reward))) for x in reward]
        share = [(1 - K * eps) * w / sum(weight) + eps for w in weight]
        assert mixing.shares == pytest.approx(share, rel=1e-12)
        assert mixing.shares.min() >= mixing.floor * (1 - 1e-12)
        assert mixing.floor == pytest.approx(eps)
    assert mixing.plan.info["counts"].sum() == mixing.steps == 199


def test_groups_are_drawn_by_their_shares() -> None:
    mixing = OnlineDataMixing(3, seed=5)
    mixing.tell({0: 1.0, 2: 8.0})
    chances, drawn = mixing.shares.copy(), np.zeros(3)
    state = mixing.state_dict()
    for seed in range(600):
        fresh = OnlineDataMixing(3, seed=seed)
        fresh.load_state_dict({**state, "rng": fresh.state_dict()["rng"]})
        drawn[fresh.ask()] += 1
    # Three standard errors of each share.
    assert (np.abs(drawn / 600 - chances) < 3 * np.sqrt(chances * (1 - chances) / 600)).all()


def test_a_batch_of_several_groups_counts_for_each() -> None:
    first, second = OnlineDataMixing(3, smoothing=None), OnlineDataMixing(3, smoothing=None)
    first.tell({1: 0.5, 2: 0.25})
    assert first.rewards.tolist() == [0.0, 1.5, 0.75]
    assert first.plan.values.tolist()[1:] == [0.5, 0.25]
    assert math.isnan(first.plan.values[0])
    second.tell({2: 0.25, 1: 0.5})
    assert first.shares.tolist() == second.shares.tolist()


def solved(influence: Any, prior: Any, floors: Any, radius: float) -> float:
    """The most expected influence, by sequential quadratic programming."""
    unit = float(np.abs(influence).max())

    def spare(w: Any) -> float:
        return radius - float((w * np.log(np.maximum(w, 1e-300) / prior)).sum())

    best = minimize(
        lambda w: -w @ influence / unit,
        prior,
        jac=lambda w: -influence / unit,
        bounds=[(low, 1.0) for low in np.maximum(floors, 1e-12)],
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1}, {"type": "ineq", "fun": spare}],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert abs(best.x.sum() - 1) < 1e-8
    assert spare(best.x) > -1e-8
    return -float(best.fun) * unit


@pytest.mark.parametrize("seed", range(6))
def test_no_mixture_within_the_radius_has_more_influence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    prior, influence = rng.dirichlet(np.ones(n)), rng.normal(size=n) * 10.0 ** rng.integers(-3, 4)
    radius, floor = float(rng.choice([0.01, 0.1, 0.5])), float(rng.choice([0.0, 0.1, 0.6]))
    mixture = InfluenceMixture(prior, radius=radius, floor=floor)
    mixture.tell(influence)
    plan = mixture.plan
    assert plan.amounts.sum() == pytest.approx(1, abs=1e-14)
    assert (plan.amounts >= floor * prior * (1 - 1e-12)).all()
    assert plan.info["divergence"] <= radius * (1 + 1e-9)
    assert plan.value == pytest.approx(solved(influence, prior, floor * prior, radius), rel=1e-6)
    # The price is the slope of the value in the radius.
    wider = InfluenceMixture(prior, radius=radius + 1e-5, floor=floor)
    wider.tell(influence)
    slope = (wider.plan.value - plan.value) / 1e-5
    assert plan.price == pytest.approx(slope, rel=1e-2, abs=1e-6 * float(np.abs(influence).max()))


def test_a_wide_radius_puts_all_but_the_floors_on_the_best_groups() -> None:
    mixture = InfluenceMixture([0.5, 0.25, 0.125, 0.125], radius=50.0, floor=0.2)
    mixture.tell([0.0, 1.0, 2.0, 2.0])
    assert mixture.ask() == pytest.approx([0.1, 0.05, 0.425, 0.425])
    assert mixture.plan.price == 0
    still = InfluenceMixture([1, 3], radius=0.0)
    still.tell([5.0, -5.0])
    assert still.ask().tolist() == [0.25, 0.75]


def test_around_the_last_mixture_shares_drift_on_and_around_the_prior_they_stay() -> None:
    drifting, fixed = (InfluenceMixture([1, 1, 1], radius=0.05, around=around) for around in ("last", "prior"))
    for mixture in (drifting, fixed):
        for _ in range(8):
            mixture.tell([0.0, 0.0, 1.0])
    assert fixed.plan.info["divergence"] == pytest.approx(0.05)
    assert drifting.ask()[2] > 0.9
    assert drifting.ask().min() >= 0.1 / 3 * (1 - 1e-9)


def test_influences_are_averaged_over_reports() -> None:
    mixture = InfluenceMixture([1, 1], smoothing=0.75)
    mixture.tell([4.0, 0.0])
    mixture.tell([0.0, 4.0])
    assert mixture.influence.tolist() == [3.0, 1.0]


def test_influence_is_the_fall_of_the_target_after_a_small_step() -> None:
    A, B = RNG.normal(size=(40, 5)), RNG.normal(size=(30, 5))
    w, hessian = RNG.normal(size=5), B.T @ B / 30 + 0.1 * np.eye(5)
    slopes = np.stack([A[i::3].T @ (A[i::3] @ w - 1) / len(A[i::3]) for i in range(3)])

    def target(weights: Any) -> float:
        return float(((B @ weights) ** 2).mean() / 2)

    slope = B.T @ (B @ w) / 30
    for curvature, step in ((None, np.eye(5)), (hessian, np.linalg.inv(hessian)), (2 * np.ones(5), np.eye(5) / 2)):
        influence = group_influence(slopes, slope, curvature=curvature)
        falls = [(target(w) - target(w - 1e-6 * step @ g)) / 1e-6 for g in slopes]
        assert influence == pytest.approx(falls, rel=1e-3, abs=1e-5)
    damped = group_influence(slopes, slope, curvature=hessian, damping=0.5)
    assert damped == pytest.approx(slopes @ np.linalg.solve(hessian + 0.5 * np.eye(5), slope))


def test_refusals() -> None:
    for call, says in (
        (lambda: OnlineDataMixing(1), "groups=1: ask for at least 2"),
        (lambda: OnlineDataMixing(2, smoothing=1), "smoothing=1: nothing new would count"),
        (lambda: OnlineDataMixing(2, smoothing=1.5), "smoothing=1.5"),
        (lambda: OnlineDataMixing(2, rate=0), "rate=0: give a number above 0"),
        (lambda: OnlineDataMixing(2, scale=0), "scale=0: give a number above 0"),
        (lambda: OnlineDataMixing(2).tell(1.0), "no group is waiting"),
        (lambda: OnlineDataMixing(2).tell({}), "losses has no loss"),
        (lambda: OnlineDataMixing(2).tell(OddMapping({0: 1.0})), "a OddMapping that cannot be read (RuntimeError"),
        (lambda: OnlineDataMixing(2).tell({2: 1.0}), "losses has a group 2; groups are 0 to 1"),
        (lambda: OnlineDataMixing(2).tell({0: -1.0}), "losses[0]=-1.0: it must be >= 0"),
        (lambda: OnlineDataMixing(2, scale=1e-9).tell({1: 1e300}), "losses[1]=1e+300: too large for scale=1e-09"),
        (lambda: InfluenceMixture([0, 0]), "prior are all zero"),
        (lambda: InfluenceMixture([1, 1], smoothing=1), "smoothing=1: no new influence would count"),
        (lambda: InfluenceMixture([1, 1], around="first"), "around='first'"),
        (lambda: InfluenceMixture([1, 1], floor=1.5), "floor=1.5"),
        (lambda: InfluenceMixture([1, 1]).tell([1.0]), "influence has 1 values"),
        (lambda: group_influence([[1.0, 2.0]], [1.0]), "target has 1 values, gradients has 2 columns"),
        (lambda: group_influence([[1.0]], [1.0], curvature=[0.0]), "curvature at row 0 is 0"),
        (lambda: group_influence([[1.0]], [1.0], curvature=[1.0, 1.0]), "curvature has 2 values"),
        (lambda: group_influence([[1.0]], [1.0], curvature=np.eye(2)), "curvature has 2 rows"),
        (lambda: group_influence([[1.0]], [1.0], curvature=[[-1.0]]), "curvature is not positive definite"),
    ):
        refused(call, says)
