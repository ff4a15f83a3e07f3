"""Mixtures of tasks' posteriors cut to their densest region: mass, members that add nothing, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import DiffusedMixture, GaussianDensity, credal_mixture
from kofn.combination.task_posteriors._gaussians import wasserstein
from kofn.core.checks import InputError

TASKS = [
    GaussianDensity([-3.0, 0.0], [[1.0, 0.3], [0.3, 0.5]]),
    GaussianDensity([3.0, 0.0], np.eye(2)),
    GaussianDensity([0.0, 5.0], 2 * np.eye(2)),
]


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.2, 0.8, 0.0], [0, 0, 1]])
@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_the_region_has_the_mass_and_no_smaller_one_has(weights: Any, mass: float) -> None:
    plan = credal_mixture(TASKS, weights=weights, mass=mass, draws=500, seed=0)
    mixture = DiffusedMixture([t.mean for t in TASKS], [t.covariance for t in TASKS], weights)
    edge = plan.info["log_density_at_edge"]
    assert mixture.log_density(plan.result).min() >= edge - 1e-9
    # By a sum over a grid: the cells above the edge hold the mass, so that any other region of it is larger.
    axes = np.meshgrid(np.linspace(-8, 8, 321), np.linspace(-5, 11, 321), indexing="ij")
    heights = mixture.log_density(np.stack(axes, axis=-1).reshape(-1, 2))
    assert np.exp(heights[heights >= edge]).sum() * 0.05**2 == pytest.approx(mass, abs=0.012)


def test_draws_are_of_the_mixture() -> None:
    plan = credal_mixture(TASKS, weights=[3, 1, 0], mass=1.0, draws=4000, seed=0)
    assert (plan.result[:, 0] < 0).mean() == pytest.approx(0.75, abs=0.03)
    assert plan.info["log_density_at_edge"] == -np.inf
    np.testing.assert_allclose(plan.info["mean"], [-1.5, 0.0], atol=0.2)


def test_a_task_seen_again_adds_no_extreme() -> None:
    near = GaussianDensity([-3.0, 0.1], TASKS[0].covariance)
    twice = credal_mixture([*TASKS, TASKS[1], near], weights=[1, 1, 1, 2, 3], draws=300, seed=0)
    assert twice.info["extremes"] == [0, 1, 2, 4]
    assert twice.info["represented_by"].tolist() == [0, 1, 2, 1, 4]
    once = credal_mixture([*TASKS, near], weights=[1, 3, 1, 3], draws=300, seed=0)
    np.testing.assert_array_equal(twice.result, once.result)
    within = credal_mixture([*TASKS, TASKS[1], near], weights=[1, 1, 1, 2, 3], within=0.2, draws=300, seed=0)
    assert within.info["represented_by"].tolist() == [0, 1, 2, 1, 0]
    np.testing.assert_allclose(within.weights, np.array([1, 1, 1, 2, 3]) / 8)


def test_draws_of_tasks_are_fitted_and_named() -> None:
    rng = np.random.default_rng(0)
    members = [{"alpha": rng.normal(mean, 1.0, 400), "beta": rng.normal(size=(400, 2))} for mean in (-4.0, 4.0)]
    plan = kofn.combine(members, method="credal_mixture", weights=[1, 3], seed=0)
    assert plan.info["parameters"] == ["alpha", "beta[0]", "beta[1]"]
    assert plan.result.shape == (400, 3)
    assert (plan.result[:, 0] > 0).mean() == pytest.approx(0.75, abs=0.08)
    expected = [members[0]["alpha"].mean(), *members[0]["beta"].mean(axis=0)]
    np.testing.assert_allclose(plan.info["member_means"][0], expected)


def test_distances_of_gaussians() -> None:
    """That commute, and in one dimension by the difference of quantiles."""
    assert wasserstein(np.array([1.0]), np.array([[4.0]]), np.array([0.0]), np.array([[9.0]])) == pytest.approx(2**0.5)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b = ((basis * sizes) @ basis.T for sizes in ([1.0, 4.0, 9.0], [4.0, 1.0, 1.0]))
    assert wasserstein(np.zeros(3), a, np.zeros(3), b) == pytest.approx((1 + 1 + 4) ** 0.5)


def test_averaged_parameters_lie_between_the_tasks() -> None:
    tasks = [GaussianDensity([-4.0, 0.0], np.eye(2)), GaussianDensity([4.0, 2.0], [[3.0, 1.0], [1.0, 2.0]])]
    plan = credal_mixture([*tasks, tasks[0]], weights=[2, 1, 1], average=True, mass=1.0, draws=20_000, seed=0)
    np.testing.assert_allclose(plan.info["mean"], [-2.0, 0.5], atol=0.06)
    np.testing.assert_allclose(np.cov(plan.result.T), [[1.5, 0.25], [0.25, 1.25]], atol=0.06)
    region = credal_mixture(tasks, average=True, mass=0.5, draws=2000, seed=1)
    covariance = (np.eye(2) + np.array([[3.0, 1.0], [1.0, 2.0]])) / 2
    off = region.result - [0.0, 1.0]
    # Half of a Gaussian of two dimensions is within a squared distance of 2 log 2.
    assert np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off).max() <= 2 * np.log(2) + 1e-9


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weights": [1, -1, 0]}, "weights"),
    ({"weights": [0, 0, 0]}, "weights"),
    ({"weights": [1, 1]}, "weights has 2"),
    ({"mass": 0.0}, "mass=0: give a share from 0.01 to 1"),
    ({"mass": 1.1}, "mass=1.1: give a share from 0.01 to 1"),
    ({"within": -1.0}, "within=-1.0: it must be >= 0"),
    ({"members": [*TASKS, np.ones((9, 2))]}, "member 3 and member 0 are not both a GaussianDensity"),
    ({"members": [*TASKS, GaussianDensity([0.0], [[1.0]])]}, "member 3 is of 1 parameters, member 0 of 2"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_refusals(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        credal_mixture(**{"members": TASKS, **words})
    assert message in str(error.value)


@pytest.mark.parametrize("unit", [1e-140, 1e-100, 1e-30, 1e30, 1e100, 1e140])
def test_spreads_follow_the_unit(unit: float) -> None:
    def spread(scale: float) -> Any:
        tasks = [GaussianDensity([c * scale, 0.0], np.diag([scale**2, 4 * scale**2])) for c in (-4.0, 4.0, 4.5)]
        return credal_mixture(tasks, seed=0).spread

    np.testing.assert_allclose(spread(unit), unit * spread(1.0), rtol=1e-6)
