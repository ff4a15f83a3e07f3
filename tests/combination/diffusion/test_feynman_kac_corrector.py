"""Products and powers of densities under noise against integrals on a grid, and closed forms of Gaussians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kofn.combination import DiffusedMixture, DiffusedScore, feynman_kac_corrector
from kofn.combination.diffusion._flow import Flow
from kofn.core.checks import FailureError, InputError

FIRST = DiffusedMixture([[-2.0], [2.0]], [[[0.3]], [[0.5]]], weights=[0.3, 0.7])
SECOND = DiffusedMixture([[-2.0], [2.0]], [[[0.5]], [[0.3]]], weights=[0.8, 0.2])
GRID = np.linspace(-8, 8, 3201)[:, None]


def on_the_grid(powers: Any) -> tuple[float, float, float]:
    """Mass left of 0, mean square, and log integral of the product of powers."""
    logs = powers[0] * FIRST.log_density(GRID) + powers[1] * SECOND.log_density(GRID)
    raw = np.exp(logs)
    total, x = float(raw.sum()), GRID[:, 0]
    return float(raw[x < 0].sum()) / total, float(raw @ x**2) / total, float(np.log(total * (x[1] - x[0])))


@pytest.mark.parametrize("noise", ["target", "tempered"])
@pytest.mark.parametrize("powers", [(1.0, 1.0), (0.3, 0.7), (2.0, 0.0), (-0.5, 1.5)])
def test_particles_follow_the_product(powers: Any, noise: Any) -> None:
    plan = feynman_kac_corrector([FIRST, SECOND], powers=powers, draws=4000, steps=80, noise=noise, seed=0)
    left, square, integral = on_the_grid(powers)
    weights, x = plan.info["draw_weights"], plan.result[:, 0]
    # Particles that descend from one are no independent draws.
    error = 0.5 / np.sqrt(plan.info["ancestors"] * len(x))
    assert abs(weights[x < 0].sum() - left) < 0.01 + 4 * error
    assert weights @ x**2 == pytest.approx(square, rel=0.1)
    assert plan.info["log_normaliser"] == pytest.approx(integral, abs=0.02 + 4 * error)
    assert plan.weights.tolist() == list(powers)


def test_summed_scores_alone_do_not() -> None:
    plan = feynman_kac_corrector([FIRST], powers=[2.0], draws=4000, steps=80, weighted=False, seed=0)
    left, _, _ = on_the_grid((2.0, 0.0))
    assert abs((plan.result[:, 0] < 0).mean() - left) > 0.05
    assert plan.info["ess"] == pytest.approx(4000)
    assert np.isnan(plan.info["log_normaliser"])


def test_gaussians_need_no_weights_and_multiply_as_their_closed_form() -> None:
    rng = np.random.default_rng(0)
    factors = [np.eye(3) + 0.4 * rng.normal(size=(3, 3)) for _ in range(2)]
    means, covariances = rng.normal(size=(2, 3)), np.array([factor @ factor.T for factor in factors])
    powers = np.array([0.7, 1.6])
    members = [DiffusedMixture(mean[None], covariance) for mean, covariance in zip(means, covariances, strict=True)]
    plan = feynman_kac_corrector(members, powers=powers, draws=3000, steps=60, seed=0)
    precisions = powers[:, None, None] * np.linalg.inv(covariances)
    covariance = np.linalg.inv(precisions.sum(axis=0))
    mean = covariance @ np.einsum("mij,mj->i", precisions, means)
    assert plan.info["least_ess"] > 0.999
    assert plan.info["resampled"] == 0
    np.testing.assert_allclose(plan.info["mean"], mean, atol=0.1)
    np.testing.assert_allclose(np.cov(plan.result.T), covariance, atol=0.1)
    off = [member.mean - mean for member in members]
    expected = 0.5 * ((1 - powers.sum()) * 3 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    for power, each, fit in zip(powers, off, covariances, strict=True):
        expected -= 0.5 * power * (np.linalg.slogdet(fit)[1] + each @ np.linalg.solve(fit, each))
    assert plan.info["log_normaliser"] == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("guided", [True, False])
def test_rates_are_those_of_the_equation(guided: bool) -> None:
    """By differences: the density's change with the variance, less what drift and noise make of it."""
    flow = Flow([FIRST, SECOND], np.array([0.8, 0.9]), 0.7, guided)
    x, sigma, width = np.array([[-1.3], [0.2], [2.4]]), 0.9, 1e-4

    def log_product(rows: np.ndarray, variance: float) -> np.ndarray:
        return 0.8 * FIRST.log_density(rows, variance**0.5) + 0.9 * SECOND.log_density(rows, variance**0.5)

    variance = sigma**2
    change = (log_product(x, variance - width) - log_product(x, variance + width)) / (2 * width)
    up, down, here = (log_product(x + step, variance) for step in (width, -width, 0.0))
    slope, bend = (up - down) / (2 * width), (up + down - 2 * here) / width**2
    field = flow.field(x, sigma)
    divergence = (flow.field(x + width, sigma).drift - flow.field(x - width, sigma).drift)[:, 0] / (2 * width)
    moved = -divergence - field.drift[:, 0] * slope + 0.7 / 2 * (bend + slope**2)
    np.testing.assert_allclose(field.rate, change - moved, atol=1e-5)


def test_scores_are_the_slopes_of_the_log_density() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(3, 2, 2)) + 2 * np.eye(2)
    mixtures = [
        DiffusedMixture(rng.normal(size=(3, 2)), factor @ factor.transpose(0, 2, 1), weights=[1, 2, 3]),
        DiffusedMixture.of_draws(rng.normal(size=(30, 2)) * [1, 5]),
    ]
    x, width = rng.normal(size=(4, 2)), 1e-5
    for mixture in mixtures:
        slopes = [
            (mixture.log_density(x + width * e, 0.5) - mixture.log_density(x - width * e, 0.5)) / (2 * width)
            for e in np.eye(2)
        ]
        np.testing.assert_allclose(mixture.score(x, 0.5), np.array(slopes).T, atol=1e-6)
    # One covariance for all components is the same mixture as that covariance for each.
    alike = DiffusedMixture(mixtures[1].means, np.repeat(mixtures[1].covariances[None], 30, axis=0))
    np.testing.assert_allclose(mixtures[1].score(x, 0.3), alike.score(x, 0.3), atol=1e-9)
    np.testing.assert_allclose(mixtures[1].log_density(x, 0.3), alike.log_density(x, 0.3), atol=1e-9)


def test_a_model_of_your_own_is_asked_for_its_score() -> None:
    members = [DiffusedScore(each.score, each.mean, each.covariance) for each in (FIRST, SECOND)]
    mine = feynman_kac_corrector(members, draws=50, steps=10, seed=0)
    theirs = feynman_kac_corrector([FIRST, SECOND], draws=50, steps=10, seed=0)
    np.testing.assert_array_equal(mine.result, theirs.result)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"powers": [1.0]}, "powers has 1"),
    ({"powers": [1.0, -1.0]}, "powers=[1.0, -1.0] sum to 0; give powers of a positive sum"),
    ({"sigma_max": 0.001}, "sigma_max=0.001 is not above sigma_min="),
    ({"sigma_min": 0.0}, "sigma_min=0: give a positive standard deviation"),
    ({"powers": [-0.9, 1.0], "sigma_max": 0.3}, "leave no density under noise of sigma_max=0.3"),
    ({"draws": 1}, "draws=1: ask for at least 2"),
    ({"steps": 1}, "steps=1: ask for at least 2"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_refusals(words: dict[str, Any], message: str) -> None:
    wide = DiffusedMixture([[0.0]], [[9.0]])
    narrow = (
        DiffusedMixture([[0.0]], [[1.0]]) if "sigma_max" not in words else DiffusedMixture([[-9.0], [9.0]], [[1.0]])
    )
    with pytest.raises(InputError) as error:
        feynman_kac_corrector([wide, narrow], **words)
    assert message in str(error.value)


def test_scores_without_measure_leave_no_particle() -> None:
    huge = DiffusedScore(lambda x, sigma: np.where(x > 0, 1e200, -1e200), [0.0], [[1.0]])
    with np.errstate(all="ignore"), pytest.raises(FailureError, match="no particle keeps a weight"):
        feynman_kac_corrector([huge, huge], draws=20, steps=5, seed=0)


BAD: list[tuple[Any, str]] = [
    (lambda: DiffusedMixture([[0.0], [1.0]], np.ones((3, 1, 1))), "covariances has shape (3, 1, 1) for 2 means of 1"),
    (lambda: DiffusedMixture([[0.0], [1.0]], [[[1.0]], [[-1.0]]]), "covariances at 1 is not symmetric and positive"),
    (lambda: DiffusedMixture([[0.0], [1.0]], [[1.0]], weights=[0, 0]), "weights"),
    (lambda: DiffusedMixture([[0.0], [1.0]], [[1.0]], weights=[1.0]), "weights has 1"),
    (lambda: DiffusedMixture.of_draws([[0.0, 1.0]]), "draws has 1 rows of 2 parameters; give more draws"),
    (lambda: DiffusedMixture.of_draws([[0.0], [1.0]], bandwidth=0), "bandwidth=0: give a positive number"),
    (lambda: DiffusedScore(len, [0.0], np.eye(2)), "covariance has shape (2, 2), mean (1,)"),
    (lambda: DiffusedScore(len, [0.0], [[-1.0]]), "covariance is not symmetric and positive definite"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_refusals_of_densities(make: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


TURN = np.array([[0.6, -0.8], [0.8, 0.6]])


@pytest.mark.parametrize(
    ("members", "powers"),
    [
        ([([[0.0]], [[4.0]]), ([[1.0]], [[1.0]])], [2, -1]),
        ([([[0.0]], [[4.0]]), ([[-9.0], [9.0]], [[1.0]])], [2, -1]),  # whose covariance, 82, is that of its modes
        ([([[0.0], [1.0]], [[[1.0]], [[9.0]]]), ([[1.0]], [[1.0]])], [2, -1]),  # a wide component
        (  # wider in one turned direction only, which is no axis
            [([[0.0, 0.0]], TURN @ np.diag([1.0, 4.0]) @ TURN.T), ([[0.0, 0.0]], np.eye(2))],
            [2, -1],
        ),
    ],
)
def test_products_that_fall_in_no_direction_are_refused(members: Any, powers: Any) -> None:
    densities = [DiffusedMixture(*member) for member in members]
    with pytest.raises(InputError, match=r"leave no density under noise of sigma_min=.*: along \[.*narrower densities"):
        feynman_kac_corrector(densities, powers=powers, draws=20, steps=5, seed=0)
    # The other way round the narrow one is the positive one.
    feynman_kac_corrector(densities, powers=powers[::-1], draws=20, steps=5, seed=0)
