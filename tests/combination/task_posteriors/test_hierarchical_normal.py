"""A population of tasks against its true mean and covariance, maximum likelihood, and the exact posterior of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom
from scipy.stats import t as student

import kofn
from kofn.combination import FewShotPrior, GaussianDensity, QuadraticEpisode, hierarchical_normal
from kofn.core.checks import InputError

MEAN = np.array([1.0, -1.0, 2.0])
COVARIANCE = np.array([[1.0, 0.4, 0.0], [0.4, 0.6, -0.2], [0.0, -0.2, 0.8]])
NOISE = 0.25


def regressions(count: int, rng: np.random.Generator, rows: int = 2) -> list[QuadraticEpisode]:
    """Tasks of fewer rows than parameters."""
    factor = np.linalg.cholesky(COVARIANCE)
    out = []
    for _ in range(count):
        X, truth = rng.normal(size=(rows, 3)), MEAN + factor @ rng.normal(size=3)
        y = X @ truth + NOISE**0.5 * rng.normal(size=rows)
        out.append(QuadraticEpisode.of_regression(X, y, noise_variance=NOISE))
    return out


def test_many_tasks_tell_the_population() -> None:
    plan = hierarchical_normal(regressions(1500, np.random.default_rng(0)), draws=4000, seed=0)
    np.testing.assert_allclose(plan.info["population_mean"], MEAN, atol=0.12)
    np.testing.assert_allclose(plan.info["population_covariance"], COVARIANCE, atol=0.15)
    np.testing.assert_allclose(np.cov(plan.result.T), COVARIANCE, atol=0.2)
    assert (np.diff(plan.info["history"]) > -1e-6).all()
    assert plan.info["warnings"] == []


def test_it_is_near_the_most_likely_population() -> None:
    """Tasks of one parameter, whose likelihood of mean and variance is known; the prior is worth one task of many."""
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.5, 2.0, 400)
    values = 5 + 1.5 * rng.normal(size=400) + errors * rng.normal(size=400)
    members = [GaussianDensity([value], [[error**2]]) for value, error in zip(values, errors, strict=True)]
    plan = hierarchical_normal(members, seed=0)

    def loss(parameters: np.ndarray) -> float:
        spread = np.exp(parameters[1]) + errors**2
        return float((np.log(spread) + (values - parameters[0]) ** 2 / spread).sum())

    mean, size = minimize(loss, [0.0, 0.0]).x
    assert plan.info["population_mean"][0] == pytest.approx(mean, abs=0.02)
    assert plan.info["population_covariance"][0, 0] == pytest.approx(np.exp(size), rel=0.05)
    # The tasks' parts in the mean are their shares of precision.
    between = plan.info["population_covariance"][0, 0]
    np.testing.assert_allclose(plan.weights, (1 / (errors**2 + between)) / (1 / (errors**2 + between)).sum())


def test_a_tasks_posterior_is_that_of_the_linear_model() -> None:
    """Conditioned on the joint normal of parameters and answers."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(2, 3)), rng.normal(size=2)
    others = regressions(40, rng)
    plan = hierarchical_normal([*others, QuadraticEpisode.of_regression(X, y, noise_variance=NOISE)], seed=0)
    prior = plan.info["population_covariance"]
    gain = prior @ X.T @ np.linalg.inv(X @ prior @ X.T + NOISE * np.eye(2))
    mean = plan.info["population_mean"]
    np.testing.assert_allclose(plan.info["member_means"][-1], mean + gain @ (y - X @ mean), atol=1e-5)
    np.testing.assert_allclose(plan.info["member_covariances"][-1], prior - gain @ X @ prior, atol=1e-5)


def test_draws_of_tasks_are_shrunk_towards_all() -> None:
    rng = np.random.default_rng(0)
    members = [{"effect": rng.normal(mean, 2.0, 500)} for mean in (-4.0, 0.0, 1.0, 4.0)]
    plan = kofn.combine(members, method="hierarchical_normal", ids=list("abcd"), seed=0)
    raw = np.array([member["effect"].mean() for member in members])
    shrunk = plan.info["member_means"][:, 0]
    assert (np.abs(shrunk - shrunk.mean()) < np.abs(raw - raw.mean())).all()
    assert plan.info["parameters"] == ["effect"]
    assert (plan.info["member_sds"][:, 0] < 2.0).all()


@pytest.mark.parametrize("d", [1, 4])
def test_the_next_task_is_the_t_interval_where_tasks_know_themselves(d: int) -> None:
    """Also with fewer tasks than parameters; the draws follow it."""
    values = np.random.default_rng(0).normal(size=(4, d))
    plan = hierarchical_normal([GaussianDensity(row, 1e-8 * np.eye(d)) for row in values], draws=20_000, seed=0)
    assert plan.info["freedom"] == pytest.approx(3, abs=0.02)
    np.testing.assert_allclose(np.diag(plan.info["population_covariance"]), values.var(axis=0, ddof=1), rtol=0.01)
    half = student.ppf(0.975, 3) * values.std(axis=0, ddof=1) * np.sqrt(1 + 1 / 4)
    np.testing.assert_allclose((plan.info["high"] - plan.info["low"]) / 2, half, rtol=0.06)
    assert plan.info["warnings"] == []


@pytest.mark.parametrize(("tasks", "error"), [(4, 0.16), (4, 1.0), (10, 0.16)])
def test_intervals_of_a_next_task_cover_what_they_say(tasks: int, error: float) -> None:
    """95% over 80 populations: no fewer than chance allows of 95%, and where tasks know themselves no more."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(80):
        truth = rng.normal(3, 1, tasks + 1)
        members = [GaussianDensity([value + error * rng.normal()], [[error**2]]) for value in truth[:tasks]]
        info = hierarchical_normal(members, draws=2, seed=0).info
        half = student.ppf(0.975, info["freedom"]) * np.sqrt(info["population_covariance"][0, 0] * (1 + 1 / tasks))
        inside += abs(truth[tasks] - info["population_mean"][0]) <= half
    assert inside >= binom.ppf(0.01, 80, 0.95)
    assert error == 1.0 or inside <= binom.ppf(0.99, 80, 0.95)


def test_a_parameter_that_few_tasks_tell_of_ends_wide_and_is_warned_of() -> None:
    """One task alone tells of each parameter: nothing tells the spread, which stays finite."""
    members = [QuadraticEpisode(np.diag(size), size) for size in ([1.0, 0.0], [0.0, 1.0])]
    plan = hierarchical_normal(members, seed=0)
    assert np.isfinite(plan.info["population_covariance"]).all()
    assert (np.diag(plan.info["population_covariance"]) > 3).all()
    assert any("2 tasks hardly tell the spread between them" in warning for warning in plan.info["warnings"])
    given = hierarchical_normal(members, scale=[1.0, 1.0], seed=0).info
    assert given["freedom"] == 2
    assert (np.diag(given["population_covariance"]) < 3).all()


def test_tasks_looked_at_once_come_to_the_same() -> None:
    rng = np.random.default_rng(0)
    tasks = regressions(1200, rng, rows=3)
    prior = FewShotPrior(3)
    for low in range(0, len(tasks), 4):
        plan = prior.tell(tasks[low : low + 4])
    together = hierarchical_normal(tasks, seed=0).info
    np.testing.assert_allclose(plan.result["mean"], together["population_mean"], atol=0.05)
    np.testing.assert_allclose(plan.result["covariance"], together["population_covariance"], atol=0.1)
    assert (prior.tasks, plan.n) == (1200, 1200)
    # What is kept does not grow with the tasks.
    assert sum(np.size(value) for value in prior.state_dict().values() if isinstance(value, np.ndarray)) == 24


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ([QuadraticEpisode(np.eye(2), [1, 1])] * 2, {"scale": [1.0]}, "scale has shape (1,); give (2,)"),
    ([QuadraticEpisode(np.eye(2), [1, 1])] * 2, {"scale": [1.0, 0.0]}, "scale at 1 is 0; give positive"),
    ([QuadraticEpisode(np.eye(2), [1, 1])], {}, "one task does not tell how far tasks lie apart; give two or more"),
    ([QuadraticEpisode(np.eye(2), [1, 1])] * 2, {"draws": 1}, "draws=1: ask for at least 2"),
    ([QuadraticEpisode(np.eye(2), [1, 1]), np.ones(4)], {}, "member 1 and member 0 are not both a QuadraticEpisode"),
    ([QuadraticEpisode(np.eye(d), np.ones(d)) for d in (2, 3)], {}, "member 1 is of 3 parameters, member 0 of 2"),
    ([QuadraticEpisode(np.diag([1.0, 0.0]), [1, 0])] * 2, {}, "no member says anything of parameter 'x1'"),
    ([QuadraticEpisode(np.ones((2, 2)), [1, 1])] * 2, {}, "all members together do not tell the parameters apart"),
]


@pytest.mark.parametrize(("members", "words", "message"), REFUSED, ids=[message[:30] for *_, message in REFUSED])
def test_refusals(members: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        hierarchical_normal(members, **words)
    assert message in str(error.value)


BAD: list[tuple[Any, str]] = [
    (lambda: QuadraticEpisode(np.eye(2), [1.0]), "precision has shape (2, 2), pull (1,)"),
    (lambda: QuadraticEpisode([[1.0, 2.0], [0.0, 1.0]], [1.0, 1.0]), "precision is not symmetric"),
    (lambda: QuadraticEpisode(np.diag([1.0, -1.0]), [1.0, 1.0]), "precision has an eigenvalue of -1"),
    (lambda: QuadraticEpisode.of_regression([[1.0]], [1.0, 2.0]), "y has 2"),
    (lambda: QuadraticEpisode.of_regression([[1.0]], [1.0], noise_variance=0), "noise_variance=0: give a positive"),
    (lambda: QuadraticEpisode.of_mode([0.0], np.eye(2)), "curvature has shape (2, 2), mode (1,)"),
    (lambda: FewShotPrior(2, mean=[0.0]), "mean has shape (1,); give (2,)"),
    (lambda: FewShotPrior(2, scale=[1.0, -1.0]), "scale at 1 is -1; give positive"),
    (lambda: FewShotPrior(1).plan, "plan: no task yet"),
    (lambda: FewShotPrior(1).adapt(QuadraticEpisode(np.eye(2), [1, 1])), "the task has 2 parameters, this prior 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_refusals_of_episodes(make: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


def _quadratic(value: float, shift: float) -> Any:
    return QuadraticEpisode.of_mode([value + shift], [[1.0]])


def _gaussian(value: float, shift: float) -> Any:
    return GaussianDensity([value + shift], [[1.0]])


@pytest.mark.parametrize("member", [_quadratic, _gaussian])
@pytest.mark.parametrize("shift", [-1e6, 2.0**31, 1.7e9, 1e12])
def test_a_shift_of_all_tasks_shifts_the_answer(member: Any, shift: float) -> None:
    # Whole sixteenths, so that a shift rounds nothing.
    values = np.round(16 * np.random.default_rng(0).normal(scale=2.0, size=50)) / 16
    here, there = (hierarchical_normal([member(value, off) for value in values], seed=0) for off in (0.0, shift))
    rounding = 1e-12 * abs(shift)
    for fact in ("population_covariance", "member_sds", "scale_matrix"):
        np.testing.assert_allclose(there.info[fact], here.info[fact], rtol=1e-4 if member is _quadratic else 1e-6)
    for fact in ("population_mean", "member_means"):
        np.testing.assert_allclose(there.info[fact] - shift, here.info[fact], atol=1e-4 + rounding)
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-6)
    np.testing.assert_allclose(there.spread, here.spread, atol=1e-3)


def test_a_prior_counts_from_its_mean() -> None:
    values = np.round(16 * np.random.default_rng(0).normal(scale=2.0, size=50)) / 16
    answers = []
    for shift in (0.0, 1e9):
        prior = FewShotPrior(1, mean=[shift])
        for value in values:
            plan = prior.tell([_gaussian(value, shift)])
        mean, covariance = prior.adapt(_gaussian(1.0, shift))
        answers.append(
            [plan.result["mean"][0] - shift, plan.result["covariance"][0, 0], mean[0] - shift, covariance[0, 0]]
        )
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


@pytest.mark.parametrize("unit", [1e-100, 1e-9, 1e9, 1e100])
def test_the_unit_of_parameters_is_that_of_the_answer(unit: float) -> None:
    values = np.random.default_rng(0).normal(scale=2.0, size=30)
    here, there = (
        hierarchical_normal([GaussianDensity([scale * value], [[scale**2]]) for value in values], seed=0)
        for scale in (1.0, unit)
    )
    np.testing.assert_allclose(there.info["population_covariance"] / unit / unit, here.info["population_covariance"])
    np.testing.assert_allclose(there.result / unit, here.result)
