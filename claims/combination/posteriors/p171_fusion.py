"""Divide-and-conquer fusion against consensus Monte Carlo, products of fits and kernels, and fusion all at once.

Simulated: C sub-posteriors proportional to exp(-x^4 / (2 C)), whose product exp(-x^4 / 2) is integrated on a grid.
Real: logistic regression of tumours on two measurements, split into eight shards, against the posterior of all rows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn import datasets
from kofn.combination import (
    LogDensity,
    LogisticDensity,
    consensus_monte_carlo,
    divide_and_conquer_fusion,
    gaussian_product,
    kernel_product,
)

Floats = NDArray[np.float64]
SHARDS, DRAWS = (2, 8, 32), 800
GRID = np.linspace(-3, 3, 601)
REAL_SHARDS, COLUMNS, VARIANCE = 8, (0, 1), 4.0


@claim(
    paper=171,
    says="Divide-and-conquer fusion samples the product of sub-posteriors that are no Gaussians, however many",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Quartic and logistic sub-posteriors; broken: paths carry no weights, only their starts do."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_quartic, broken=broken), derive(seed, runs))
    real = spread(functools.partial(_logistic, broken=broken), derive(seed, runs, stream=1))
    off = {count: {side: [row[count][side] for row in rows] for side in rows[0][count]} for count in SHARDS}
    nearer = {count: difference(off[count]["consensus"], off[count]["tree"]) for count in SHARDS}
    baselines = {
        count: np.min([off[count][side] for side in ("consensus", "gaussian", "kernels")], axis=0) for count in SHARDS
    }
    best = {count: difference(baselines[count], off[count]["tree"]) for count in SHARDS}
    least, most = SHARDS[0], SHARDS[-1]
    kept = {
        side: np.array(off[most][f"{side} ancestors"]) / np.array(off[least][f"{side} ancestors"])
        for side in ("tree", "flat")
    }
    growth = difference(off[most]["flat"], off[most]["tree"])
    gaps = {
        side: difference([row[side] for row in real], [row["tree"] for row in real])
        for side in ("consensus", "gaussian", "kernels")
    }
    hindsight = difference([min(row[side] for side in gaps) for row in real], [row["tree"] for row in real])
    criteria = {
        "nearer than consensus for every number of shards": all(gap.above(0) for gap in nearer.values()),
        "nearer than the best of consensus, Gaussians and kernels in hindsight": all(
            gap.above(0) for gap in best.values()
        ),
        "of 32 shards as large a share of the particles is left as of 2, to a fifth": float(kept["tree"].mean()) >= 0.8,
        "the share left falls less than of fusion all at once": difference(kept["tree"], kept["flat"]).above(0),
        "of 32 shards nearer than fusion all at once": growth.above(0),
        "tumours: nearer to the posterior of all rows than consensus": gaps["consensus"].above(0),
        "tumours: nearer than the best of consensus, Gaussians and kernels in hindsight": hindsight.above(0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "integrated absolute distance": {
                f"{count} shards": {side: round(float(np.mean(values)), 4) for side, values in off[count].items()}
                for count in SHARDS
            },
            "consensus less tree": {f"{count} shards": gap.figures() for count, gap in nearer.items()},
            "best baseline less tree": {f"{count} shards": gap.figures() for count, gap in best.items()},
            "flat less tree, 32 shards": growth.figures(),
            "share of particles left, 32 shards over 2": {
                side: round(float(values.mean()), 3) for side, values in kept.items()
            },
            "tumours, distance": {
                side: round(float(np.mean([row[side] for row in real])), 4)
                for side in ("tree", "consensus", "gaussian", "kernels", "redrawn")
            },
            "tumours, baseline less tree": {side: gap.figures() for side, gap in gaps.items()},
            "tumours, best baseline less tree": hindsight.figures(),
        },
        expected="paired lower 95% limits of the baselines' distance less the tree's above 0; the share of first "
        "particles that is left at least 0.8 times as large with 32 shards as with 2, and more so than all at once",
        baseline="consensus Monte Carlo by inverse covariances, the Gaussian product, semiparametric kernels (50 "
        "sweeps a draw), the best of the three in hindsight; fusion of all shards at once; all from the same draws",
        kind="measured",
    )


def _distance(draws: Floats, weights: Floats | None, grid: Floats, truth: Floats) -> float:
    """Half the integral of the difference between a kernel estimate of the draws and the truth."""
    from scipy.stats import gaussian_kde

    size = len(draws) if weights is None else 1 / np.square(weights).sum()
    estimate = gaussian_kde(draws, weights=weights, bw_method=0.9 * size**-0.2)(grid)
    return float(0.5 * np.trapezoid(np.abs(estimate - truth), grid))


def _unweighted(d: int) -> LogDensity:
    """A density without slope or curvature, of which phi is 0 all over."""
    return LogDensity(np.zeros_like, lambda x: np.zeros((len(x), d, d)))


def _density(count: int) -> LogDensity:
    def bounds(low: Floats, high: Floats) -> tuple[Floats, Floats]:
        largest = np.maximum(low**2, high**2)[:, 0]
        least = np.where((low < 0) & (high > 0), 0.0, np.minimum(low**2, high**2))[:, 0]
        return -6 * largest / count, -6 * least / count

    return LogDensity(lambda x: -2 * x**3 / count, lambda x: -6 * x[:, 0] ** 2 / count, bounds)


def _quartic(seed: int, *, broken: bool) -> dict[int, dict[str, float]]:
    """For each number of shards, how far every product is from the truth, and what is left of the particles."""
    truth = np.exp(-(GRID**4) / 2)
    truth /= np.trapezoid(truth, GRID)
    out = {}
    for count in SHARDS:
        rng = np.random.default_rng([seed, count])
        # x^4 / (2 C) is a gamma variable of shape 1/4.
        members = [
            rng.choice([-1.0, 1.0], DRAWS) * (2 * count * rng.gamma(0.25, size=DRAWS)) ** 0.25 for _ in range(count)
        ]
        densities = [_unweighted(1) if broken else _density(count)] * count
        plans = {
            "tree": divide_and_conquer_fusion(members, densities=densities, seed=seed),
            "flat": divide_and_conquer_fusion(members, densities=densities, branching=count, seed=seed),
            "consensus": consensus_monte_carlo(members),
            "gaussian": gaussian_product(members, seed=seed),
            "kernels": kernel_product(members, sweeps=50, seed=seed),
        }
        out[count] = {
            side: _distance(plan.result, plan.info.get("draw_weights"), GRID, truth) for side, plan in plans.items()
        }
        for side in ("tree", "flat"):
            out[count][f"{side} ancestors"] = float(plans[side].info["ancestors"])
    return out


@functools.cache
def _tumours() -> tuple[Floats, Floats]:
    """Two standardised measurements beside a column of ones, and whether a tumour is benign."""
    data = datasets.load("breast_cancer")
    X = np.asarray(data.X, np.float64)[:, COLUMNS]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return np.column_stack([np.ones(len(X)), X]), np.asarray(data.y).astype(np.float64)


def _sampled(X: Floats, y: Floats, share: float, count: int, rng: np.random.Generator) -> Floats:
    """Draws of a logistic posterior, by importance from a wide Student approximation around its mode."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(b: Floats) -> float:
        return float((np.logaddexp(0, X @ b) - y * (X @ b)).sum() + share * b @ b / (2 * VARIANCE))

    def slope(b: Floats) -> Floats:
        return np.asarray((expit(X @ b) - y) @ X + share * b / VARIANCE)

    mode = minimize(loss, np.zeros(X.shape[1]), jac=slope, method="BFGS").x
    chances = expit(X @ mode)
    hessian = (X * (chances * (1 - chances))[:, None]).T @ X + share / VARIANCE * np.eye(X.shape[1])
    factor, freedom, proposals = np.linalg.cholesky(1.5 * np.linalg.inv(hessian)), 5.0, 10 * count
    noise = rng.normal(size=(proposals, X.shape[1])) / np.sqrt(rng.chisquare(freedom, (proposals, 1)) / freedom)
    drawn = mode + noise @ factor.T
    odds = drawn @ X.T
    logs = -(np.logaddexp(0, odds) - y * odds).sum(axis=1) - share * np.square(drawn).sum(axis=1) / (2 * VARIANCE)
    logs += (freedom + X.shape[1]) / 2 * np.log1p(np.square(noise).sum(axis=1) / freedom)
    weights = np.exp(logs - logs.max())
    return drawn[rng.choice(proposals, count, p=weights / weights.sum())]


@functools.cache
def _whole() -> Floats:
    """Draws of the posterior of all rows."""
    return _sampled(*_tumours(), 1.0, 8000, np.random.default_rng(0))


def _logistic(seed: int, *, broken: bool) -> dict[str, float]:
    """How far the marginals of every product are from those of the posterior of all rows, on average."""
    X, y = _tumours()
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(len(X)), REAL_SHARDS)
    share = 1 / REAL_SHARDS
    members = [_sampled(X[part], y[part], share, DRAWS, rng) for part in parts]
    densities: list[Any] = [LogisticDensity(X[part], y[part], prior_variance=VARIANCE, share=share) for part in parts]
    whole = _whole()
    plans = {
        "tree": divide_and_conquer_fusion(
            members, densities=[_unweighted(X.shape[1])] * REAL_SHARDS if broken else densities, seed=seed
        ),
        "consensus": consensus_monte_carlo(members),
        "gaussian": gaussian_product(members, seed=seed),
        "kernels": kernel_product(members, sweeps=50, seed=seed),
    }
    samples = {side: (plan.result, plan.info.get("draw_weights")) for side, plan in plans.items()}
    samples["redrawn"] = (_sampled(X, y, 1.0, DRAWS, rng), None)
    out = dict.fromkeys(samples, 0.0)
    for column in range(X.shape[1]):
        middle, width = float(whole[:, column].mean()), float(whole[:, column].std())
        grid = np.linspace(middle - 8 * width, middle + 8 * width, 801)
        truth = _smooth(whole[:, column], grid)
        for side, (draws, weights) in samples.items():
            out[side] += _distance(draws[:, column], weights, grid, truth) / X.shape[1]
    return out


def _smooth(draws: Floats, grid: Floats) -> Floats:
    from scipy.stats import gaussian_kde

    return np.asarray(gaussian_kde(draws, bw_method=0.9 * len(draws) ** -0.2)(grid))
