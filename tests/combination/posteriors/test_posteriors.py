"""Products of sub-posteriors against closed forms of Gaussians and integrals on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import (
    GaussianDensity,
    LogDensity,
    LogisticDensity,
    consensus_monte_carlo,
    divide_and_conquer_fusion,
    gaussian_product,
    kernel_product,
)
from kofn.combination.posteriors._draws import read_shards, worth
from kofn.combination.posteriors._kernels import stays
from kofn.combination.posteriors._paths import log_weights, phi, upper_bound
from kofn.core.checks import FailureError, InputError

MEANS = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
COVARIANCES = np.array([[[2.0, 0.6], [0.6, 1.0]], [[1.0, -0.4], [-0.4, 2.0]], [[1.5, 0.0], [0.0, 0.5]]])


def quartic(scale: float) -> LogDensity:
    """The density exp(-x^4 / (2 scale)), with bounds of its curvature."""

    def bounds(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        largest = np.maximum(low**2, high**2)[:, 0]
        least = np.where((low < 0) & (high > 0), 0.0, np.minimum(low**2, high**2))[:, 0]
        return -6 * largest / scale, -6 * least / scale

    return LogDensity(lambda x: -2 * x**3 / scale, lambda x: -6 * x[:, 0] ** 2 / scale, bounds)


def quartic_draws(scale: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of exp(-x^4 / (2 scale)): x^4 / (2 scale) is a gamma variable of shape 1/4."""
    return rng.choice([-1.0, 1.0], n) * (2 * scale * rng.gamma(0.25, size=n)) ** 0.25


@pytest.fixture(scope="module")
def gaussians() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Draws of three Gaussians in unequal numbers, and mean and covariance of their product."""
    rng = np.random.default_rng(0)
    members = [
        rng.multivariate_normal(mean, covariance, n)
        for mean, covariance, n in zip(MEANS, COVARIANCES, (6000, 4000, 5000), strict=True)
    ]
    precisions = np.linalg.inv(COVARIANCES)
    covariance = np.linalg.inv(precisions.sum(axis=0))
    return members, covariance @ np.einsum("cij,cj->i", precisions, MEANS), covariance


@pytest.mark.parametrize(
    ("method", "words", "count"),
    [
        (consensus_monte_carlo, {}, 4000),
        (gaussian_product, {"seed": 0}, 6000),
        (kernel_product, {"seed": 0, "draws": 8000, "sweeps": 30}, 8000),
        (
            divide_and_conquer_fusion,
            {"seed": 0, "densities": [GaussianDensity(*fit) for fit in zip(MEANS, COVARIANCES, strict=True)]},
            6000,
        ),
    ],
)
def test_gaussians_multiply_as_their_closed_form(
    method: Any, words: dict[str, Any], count: int, gaussians: Any
) -> None:
    members, mean, covariance = gaussians
    plan = method(members, **words)
    assert plan.result.shape == (count, 2)
    error = 5 * np.sqrt(np.diag(covariance) / min(plan.info["ess"], 4000))
    assert (np.abs(plan.info["mean"] - mean) < error).all()
    np.testing.assert_allclose(plan.info["sd"], np.sqrt(np.diag(covariance)), rtol=0.08)
    weights = plan.info.get("draw_weights", np.full(count, 1 / count))
    off = plan.result - plan.info["mean"]
    np.testing.assert_allclose((off * weights[:, None]).T @ off, covariance, atol=0.06)
    inside = (plan.info["low"] <= mean) & (mean <= plan.info["high"])
    assert inside.all()
    assert plan.spread.max() < 3
    assert plan.info["warnings"] == []


def test_consensus_is_the_average_by_inverse_covariance(gaussians: Any) -> None:
    members, _, _ = gaussians
    plan = consensus_monte_carlo([member[:500] for member in members])
    precisions = np.array([np.linalg.inv(np.cov(member[:500].T)) for member in members])
    total = np.linalg.inv(precisions.sum(axis=0))
    plain = sum(total @ precision @ member[:500].T for precision, member in zip(precisions, members, strict=True)).T
    np.testing.assert_allclose(plan.result, plain, atol=1e-10)
    diagonal = consensus_monte_carlo(members, precision="diagonal")
    shares = np.array([1 / member.var(axis=0, ddof=1) for member in members])
    rows = [member[np.arange(4000) * len(member) // 4000] for member in members]
    np.testing.assert_allclose(diagonal.result, np.einsum("cd,cnd->nd", shares / shares.sum(axis=0), rows), atol=1e-10)


def test_fusion_keeps_a_shape_that_averages_lose() -> None:
    """Moments of exp(-x^4 / 2) on a grid; eight shards of exp(-x^4 / 16)."""
    rng = np.random.default_rng(1)
    members = [quartic_draws(8, 4000, rng) for _ in range(8)]
    plan = divide_and_conquer_fusion(members, densities=[quartic(8)] * 8, seed=2)
    grid = np.linspace(-4, 4, 4001)
    density = np.exp(-(grid**4) / 2)
    moments = [float((grid**power * density).sum() / density.sum()) for power in (2, 4)]
    weights = plan.info["draw_weights"]
    assert weights @ plan.result**2 == pytest.approx(moments[0], rel=0.06)
    assert weights @ plan.result**4 == pytest.approx(moments[1], rel=0.12)
    assert plan.info["breaches"] == 0
    assert plan.info["bounded"]
    # The average of draws is near normal, whose fourth moment is three times the squared second.
    average = consensus_monte_carlo(members).result
    assert np.mean(average**4) / np.mean(average**2) ** 2 > 2.7
    assert weights @ plan.result**4 / (weights @ plan.result**2) ** 2 == pytest.approx(
        moments[1] / moments[0] ** 2, rel=0.1
    )
    # 2 + 2 + 2 + 2 shards, then pairs of pairs, then both halves.
    assert [merge["merged"] for merge in plan.info["merges"]] == [2.0] * 7


def test_a_tree_of_any_width_and_draws_of_any_number() -> None:
    rng = np.random.default_rng(3)
    members = [quartic_draws(5, n, rng) for n in (900, 1300, 700, 1000, 1100)]
    plan = divide_and_conquer_fusion(members, densities=[quartic(5)] * 5, draws=800, branching=3, seed=0)
    assert [merge["merged"] for merge in plan.info["merges"]] == [3.0, 2.0, 2.0]
    assert plan.result.shape == (800,)
    again = divide_and_conquer_fusion(members, densities=[quartic(5)] * 5, draws=800, branching=3, seed=0)
    np.testing.assert_array_equal(again.result, plan.result)


@pytest.mark.parametrize(("a", "b", "duration"), [(0.5, -0.3, 0.5), (1.2, 1.5, 0.2)])
def test_weights_of_paths_are_unbiased(a: float, b: float, duration: float) -> None:
    """Against the integral along finely drawn bridges."""
    rng, n, steps = np.random.default_rng(0), 4000, 200
    transform, density = np.array([[0.9]]), quartic(2.0)
    logs, breaches = log_weights(density, np.full((n, 1), a), np.full((n, 1), b), duration, transform, rng)
    walks = np.cumsum(rng.normal(size=(n, steps)) * 0.9 * np.sqrt(duration / steps), axis=1)
    share = np.arange(1, steps + 1) / steps
    paths = np.column_stack([np.full(n, a), a + walks - share * walks[:, -1:] + share * (b - a)])
    values = phi(density, paths.reshape(-1, 1), transform).reshape(paths.shape)
    plain = np.exp(-(values[:, :-1] + values[:, 1:]).sum(axis=1) / 2 * duration / steps)
    error = np.hypot(np.exp(logs).std(), plain.std()) / np.sqrt(n)
    assert abs(np.exp(logs).mean() - plain.mean()) < 4 * error
    assert error < 0.05
    assert breaches == 0


def test_a_bridge_stays_in_an_interval_as_often_as_the_series_says() -> None:
    rng, n, steps = np.random.default_rng(0), 4000, 2000
    walks = np.cumsum(rng.normal(size=(n, steps)) / np.sqrt(steps), axis=1)
    share = np.arange(1, steps + 1) / steps
    paths = 0.1 + walks - share * walks[:, -1:] + share * 0.2
    # Between the steps a path reaches a little farther: 0.58 standard deviations of a step.
    edge = 0.5826 / np.sqrt(steps)
    inside = ((paths.min(axis=1) > -0.7 + edge) & (paths.max(axis=1) < 1.0 - edge)).mean()
    assert stays(0.1, 0.3, 1.0, -0.7, 1.0) == pytest.approx(inside, abs=0.025)
    # One end far away: the reflection principle.
    assert stays(0.0, 0.0, 1.0, -50.0, 1.0) == pytest.approx(1 - np.exp(-2.0), abs=1e-12)


def _logistic(seed: int) -> tuple[LogisticDensity, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    return LogisticDensity(X, (rng.random(60) < 0.4).astype(float), prior_variance=2.0, share=0.25), X


def test_derivatives_are_those_of_the_log_posterior() -> None:
    """Of the logistic density by differences, and phi below its bound all over a neighbourhood."""
    density, X = _logistic(0)
    rng = np.random.default_rng(1)

    def log_posterior(x: np.ndarray) -> float:
        odds = X @ x
        return float((density.y * odds - np.logaddexp(0, odds)).sum() - 0.25 * x @ x / (2 * 2.0))

    x, width = rng.normal(size=3), 1e-4
    slopes = [(log_posterior(x + width * e) - log_posterior(x - width * e)) / (2 * width) for e in np.eye(3)]
    np.testing.assert_allclose(density.gradient(x[None])[0], slopes, rtol=1e-6)
    transform = rng.normal(size=(3, 3)) * 0.2
    along = [
        (log_posterior(x + width * e) - 2 * log_posterior(x) + log_posterior(x - width * e)) / width**2
        for e in transform.T
    ]
    assert density.trace(x[None], transform)[0] == pytest.approx(sum(along), rel=1e-4)
    centre, half = rng.normal(size=(1, 3)), np.array([[0.5, 0.3, 0.7]])
    inside = centre + rng.uniform(-1, 1, (500, 3)) * half @ np.eye(3) @ transform.T
    assert phi(density, inside, transform).max() <= upper_bound(density, centre, half, transform)[0]


def test_without_bounds_a_guess_is_told() -> None:
    rng = np.random.default_rng(0)
    members = [quartic_draws(2, 1000, rng) for _ in range(2)]
    unbounded = LogDensity(quartic(2).gradient_of, quartic(2).hessian_of)
    plan = divide_and_conquer_fusion(members, densities=[unbounded, quartic(2)], seed=0)
    assert not plan.info["bounded"]
    grid = np.linspace(-4, 4, 4001)
    density = np.exp(-(grid**4) / 2)
    second = float((grid**2 * density).sum() / density.sum())
    assert plan.info["draw_weights"] @ plan.result**2 == pytest.approx(second, rel=0.12)


def test_a_shard_that_stands_apart_is_named() -> None:
    rng = np.random.default_rng(0)
    members = [rng.normal(size=400), rng.normal(size=300), rng.normal(8.0, 1.0, 500)]
    plan = kofn.combine(members, method="consensus_monte_carlo", ids=["a", "b", "odd"])
    assert any(warning.startswith("member 'odd' stands apart") for warning in plan.info["warnings"])
    assert plan.spread[2] > 5
    assert plan.info["chance_of_distance"][2] < 1e-6


def test_parameters_keep_their_names() -> None:
    rng = np.random.default_rng(0)
    members = [{"alpha": rng.normal(size=50), "beta": rng.normal(size=(50, 2))} for _ in range(2)]
    plan = gaussian_product(members, seed=0)
    assert plan.info["parameters"] == ["alpha", "beta[0]", "beta[1]"]
    assert plan.result.shape == (50, 3)


def test_members_of_vastly_different_units() -> None:
    rng = np.random.default_rng(0)
    members = [rng.normal(size=(200, 2)) * [1e-200, 1e200] + [1e-200, 3e200] for _ in range(3)]
    plan = consensus_monte_carlo(members)
    np.testing.assert_allclose(plan.info["sd"] / [1e-200, 1e200], 3**-0.5, rtol=0.2)


def test_autocorrelated_draws_are_worth_less() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 20_000))
    chains = np.empty_like(noise)
    chains[:, 0] = noise[:, 0]
    for step in range(1, noise.shape[1]):
        chains[:, step] = 0.9 * chains[:, step - 1] + noise[:, step]
    plan = consensus_monte_carlo(list(chains))
    # An autoregression of 0.9 is worth (1 - 0.9) / (1 + 0.9) of its draws.
    np.testing.assert_allclose(plan.info["member_ess"], 20_000 / 19, rtol=0.25)
    assert plan.info["ess"] == pytest.approx(20_000 / 19, rel=0.25)


PRODUCTS: dict[str, Any] = {
    "consensus": consensus_monte_carlo,
    "gaussian": lambda members: gaussian_product(members, draws=2000, seed=0),
    "kernel": lambda members: kernel_product(members, draws=2000, sweeps=20, seed=0),
    "fusion": lambda members: divide_and_conquer_fusion(
        members, densities=[GaussianDensity([0.0], [[1.0]])] * len(members), draws=2000, seed=0
    ),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_is_worth_no_more_than_its_members_and_few_draws_are_named(product: Any) -> None:
    rng = np.random.default_rng(0)
    plan = product([rng.normal(size=12), rng.normal(size=900), rng.normal(size=900)])
    sizes = plan.info["member_ess"]
    assert plan.info["ess"] <= 1.001 / (plan.weights / sizes).sum()
    named = [text for text in plan.info["warnings"] if text.startswith("draws of members are worth few")]
    assert len(named) == 1
    assert f"(member 0 {sizes[0]:.3g})" in named[0]
    assert named[0].endswith("give draws worth at least 100")
    enough = product([rng.normal(size=900) for _ in range(2)])
    assert not [text for text in enough.info["warnings"] if text.startswith("draws of members")]


@pytest.mark.parametrize("kernel", ["semiparametric", "nonparametric"])
def test_the_chain_over_kernels_mixes(kernel: Any) -> None:
    """A draw is nearly independent of the one before, at the acceptance of a narrow bandwidth, with ten shards too."""
    rng = np.random.default_rng(0)
    members = [rng.normal(0.5 * rng.normal(size=2), np.sqrt(10), (1000, 2)) for _ in range(10)]
    plan = kernel_product(members, kernel=kernel, draws=600, sweeps=50, seed=0)
    assert plan.info["ess"] > 100
    assert plan.info["warnings"] == []
    off = plan.result - plan.result.mean(axis=0)
    lagged = (off[1:] * off[:-1]).mean(axis=0) / off.var(axis=0)
    assert (np.abs(lagged) < 0.25).all()
    np.testing.assert_allclose(plan.info["sd"], 1.0, atol=0.2)


def test_a_product_in_the_tails_of_its_members_is_worth_the_draws_there() -> None:
    """Shards whose draws hardly meet, which Gaussian fits multiply all the same."""
    rng = np.random.default_rng(0)
    members = [rng.normal(mean, 1.0, 2000) for mean in (-2.4, 2.4, 0.0)]
    plan = kernel_product(members, draws=300, sweeps=20, seed=0)
    near = plan.info["member_near"]
    # Weights of the product's density over the shard's.
    logs = [-1.5 * draws**2 + 0.5 * (draws - draws.mean()) ** 2 for draws in members]
    sizes = [np.exp(log).sum() ** 2 / (np.exp(log) ** 2).sum() for log in logs]
    np.testing.assert_allclose(near, sizes, rtol=0.4)
    assert near[2] > 1000 > 100 > near[:2].max() >= plan.info["ess"]
    (text,) = (text for text in plan.info["warnings"] if text.startswith("the product lies where member"))
    assert "use gaussian_product or consensus_monte_carlo" in text
    assert not [text for text in gaussian_product(members, seed=0).info["warnings"] if "lies where" in text]


def test_members_of_few_draws_are_worth_as_few() -> None:
    plan = kofn.combine([[1.0, 2.0], [2.0, 4.0]], method="gaussian_product", draws=200, seed=0)
    assert plan.info["ess"] == pytest.approx(2.0)
    assert plan.info["warnings"][-1].startswith("draws of members are worth few independent ones (member 0 2, member 1")
    wide = np.random.default_rng(0).normal(size=(9, 300, 40))
    (text,) = gaussian_product(list(wide), seed=0).info["warnings"]
    assert "and 3 more)" in text
    assert text.endswith("give draws worth at least 400")


def test_what_members_are_worth_is_the_error_of_the_products_mean() -> None:
    """Against the spread of the mean over many sets of members: unequal numbers of draws of unlike Gaussians."""
    rng = np.random.default_rng(0)
    counts, means, sizes = (40, 400, 150), [], []
    for _ in range(400):
        draws = [rng.multivariate_normal([0.0, 0.0], fit, n) for fit, n in zip(COVARIANCES, counts, strict=True)]
        shards = read_shards(draws)
        sizes.append(worth(shards, np.array(counts, float)))
        means.append(shards.in_units(shards.gaussian()[0]))
    covariance = np.linalg.inv(np.linalg.inv(COVARIANCES).sum(axis=0))
    spread = (np.diag(covariance) / np.var(means, axis=0)).min()
    assert np.median(sizes) == pytest.approx(spread, rel=0.25)


REFUSED = [
    ({"densities": [quartic(1)]}, "densities has 1 values for 2 members; give one for each"),
    ({"densities": [quartic(1), "normal"]}, "densities at 1 is 'normal'; give a LogDensity"),
    ({"densities": [quartic(1), GaussianDensity([0, 0], np.eye(2))]}, "densities at 1 is of 2 parameters, the members"),
    (
        {"densities": [quartic(1), LogDensity(lambda x: x[:, 0], lambda x: x)]},
        "gradient_of gave shape (1,) for x of shape (1, 1)",
    ),
    (
        {"densities": [quartic(1), LogDensity(lambda x: x * np.nan, lambda x: x)]},
        "gradient_of gave NaN or infinity at row 0 of x",
    ),
    ({"densities": [quartic(1)] * 2, "branching": 1}, "branching=1: ask for at least 2"),
    ({"densities": [quartic(1)] * 2, "draws": 1}, "draws=1: ask for at least 2"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_refusals_of_fusion(words: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError) as error:
        divide_and_conquer_fusion([rng.normal(size=30), rng.normal(size=30)], **words)
    assert message in str(error.value)


def test_densities_of_other_draws_leave_no_weight() -> None:
    rng = np.random.default_rng(0)
    members = [rng.normal(0, 0.01, 100), rng.normal(0, 0.01, 100)]
    far = [GaussianDensity([1e200], [[1e-4]]), GaussianDensity([-1e200], [[1e-4]])]
    with pytest.raises(
        FailureError, match=r"a path would need more than 100,000 points: the densities' derivatives are too large"
    ):
        divide_and_conquer_fusion(members, densities=far, seed=0)


def test_members_far_apart_hang_on_few_draws() -> None:
    rng = np.random.default_rng(0)

    def fused(gap: float) -> Any:
        members = [rng.normal(0, 1, 1000), rng.normal(gap, 1, 1000)]
        densities = [GaussianDensity([mean], [[1.0]]) for mean in (0.0, gap)]
        return divide_and_conquer_fusion(members, densities=densities, seed=0)

    near, far = fused(1.0), fused(12.0)
    assert near.info["ancestors"] > 0.3
    assert far.info["ancestors"] < 0.05 < far.info["ess"] / 1000
    assert len(far.info["warnings"]) == 2


BAD_DENSITIES = [
    (lambda: GaussianDensity([0.0], np.eye(2)), "covariance has shape (2, 2), mean (1,); give (d, d) and (d,)"),
    (lambda: GaussianDensity([0.0], [[-1.0]]), "covariance is not symmetric and positive definite"),
    (lambda: LogisticDensity([[1.0]], [2.0]), "y at row 0 is 2; give 0 or 1"),
    (lambda: LogisticDensity([[1.0]], [1.0, 0.0]), "y has 2"),
    (lambda: LogisticDensity([[1.0]], [1.0], share=0.0), "share=0.0: give a positive number"),
]


@pytest.mark.parametrize(("make", "message"), BAD_DENSITIES, ids=[message[:30] for _, message in BAD_DENSITIES])
def test_refusals_of_densities(make: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
