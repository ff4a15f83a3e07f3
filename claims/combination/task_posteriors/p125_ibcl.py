"""A credal set of posteriors blended by preference, against a model trained for each preference.

Real: five tasks of telling two digits apart, learnt one after the other by Bayesian logistic regression on pixels.
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
from kofn.combination import DiffusedMixture, GaussianDensity, credal_mixture

Floats = NDArray[np.float64]
TASKS, PREFERENCES, MODELS, MASS, COLUMNS = 5, 20, 10, 0.9, 15
VARIANCE = 4.0


@claim(
    paper=125,
    says="Models drawn from the densest region of a preference's mixture of the tasks' posteriors do as well as one "
    "trained for that preference, at one training a task",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Weighted accuracy over random preferences; broken: the preference is left out, all tasks weigh alike."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    lost = difference([row["trained"] for row in rows], [row["mixture"] for row in rows])
    peak = difference([row["trained"] for row in rows], [row["peak"] for row in rows])
    kept = difference([row["mixture"] for row in rows], [row["all alike"] for row in rows])
    last = difference([row["mixture"] for row in rows], [row["last"] for row in rows])
    covered = float(np.max([abs(row["mass"] - MASS) for row in rows]))
    criteria = {
        "on average within 2 points of a model trained for each preference": lost.high < 0.02,
        "the best of ten drawn models within 2 points of it": peak.high < 0.02,
        "better than mixtures without the preference": kept.above(0),
        "better than the last posterior": last.above(0),
        "the region has the mass to two points": covered < 0.02,
        "a task seen again adds no extreme": all(row["extremes"] == TASKS for row in rows),
        "a training a task, not one a preference": all(row["trainings"] == TASKS for row in rows),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "accuracy by preference": {
                side: round(float(np.mean([row[side] for row in rows])), 4)
                for side in ("mixture", "peak", "trained", "all alike", "last", "averaged parameters")
            },
            "trained less mixture": lost.figures(),
            "trained less peak": peak.figures(),
            "mixture less all alike": kept.figures(),
            "mixture less last posterior": last.figures(),
            "largest error of the mass": round(covered, 4),
            "trainings": {"mixture": TASKS, "one a preference": PREFERENCES},
        },
        expected="upper 95% limits of the accuracy lost to models trained for the preference, on average and by the "
        "best of ten on validation rows, below 0.02; lower limits of the gains over no preference and over the last "
        "posterior above 0; the mass within 0.02; no extreme for a task that repeats",
        baseline="logistic regression on all tasks' training rows weighted by the preference, of the same prior; the "
        "mixture of equal weights; draws of the last task's posterior; means of the posteriors' parameters, as the "
        "authors' code has them",
        kind="reduced",
    )


@functools.cache
def _pixels() -> tuple[Floats, NDArray[np.int64]]:
    from sklearn.decomposition import PCA

    data = datasets.load("digits")
    parts = PCA(COLUMNS, random_state=0).fit_transform(np.asarray(data.X, np.float64))
    return np.column_stack([np.ones(len(parts)), parts / parts.std(axis=0)]), np.asarray(data.y)


def _fitted(X: Floats, y: Floats, weights: Floats, mean: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Mode and curvature of a weighted logistic posterior, by Newton's method with halved steps."""
    from scipy.special import expit

    def loss(b: Floats) -> float:
        off = b - mean
        return float(weights @ (np.logaddexp(0, X @ b) - y * (X @ b)) + off @ precision @ off / 2)

    mode = mean.copy()
    for _ in range(100):
        chances = expit(X @ mode)
        slope = X.T @ (weights * (chances - y)) + precision @ (mode - mean)
        curvature = (X * (weights * chances * (1 - chances))[:, None]).T @ X + precision
        step = np.linalg.solve(curvature, slope)
        if np.abs(step).max() < 1e-8:
            break
        length = 1.0
        while loss(mode - length * step) > loss(mode) and length > 1e-6:
            length /= 2
        mode = mode - length * step
    return mode, curvature


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    X, labels = _pixels()
    rng = np.random.default_rng(seed)
    part = rng.choice(3, len(X), p=[0.5, 0.2, 0.3])
    tasks = [(labels // 2 == task) for task in range(TASKS)]
    y = (labels % 2).astype(np.float64)
    wide = np.eye(X.shape[1]) / VARIANCE
    mean, precision, posteriors = np.zeros(X.shape[1]), wide, []
    for task in tasks:
        rows = task & (part == 0)
        mean, precision = _fitted(X[rows], y[rows], np.ones(int(rows.sum())), mean, precision)
        posteriors.append(GaussianDensity(mean, np.linalg.inv(precision)))
    again = [*posteriors, posteriors[1]]

    def accuracy(draws: Floats, which: int, weights: Floats) -> Floats:
        """(draws,) the accuracy of each draw on each task's rows, weighted."""
        out = np.zeros(len(draws))
        for weight, task in zip(weights, tasks, strict=True):
            rows = task & (part == which)
            out += weight * (((X[rows] @ draws.T) > 0) == (y[rows][:, None] > 0.5)).mean(axis=0)
        return out

    sides: dict[str, list[float]] = {}
    masses, extremes = [], []
    for number in range(PREFERENCES):
        weights = rng.dirichlet(np.ones(TASKS))
        shares = np.ones(TASKS) if broken else weights
        plan = credal_mixture(again, weights=[*shares, 0.0], mass=MASS, draws=MODELS, seed=number)
        alike = credal_mixture(posteriors, mass=MASS, draws=MODELS, seed=number + PREFERENCES)
        only = credal_mixture(posteriors[-1:], mass=MASS, draws=MODELS, seed=number)
        rows = np.logical_or.reduce(tasks) & (part == 0)
        trained, _ = _fitted(X[rows], y[rows], TASKS * weights[labels[rows] // 2], np.zeros(X.shape[1]), wide)
        tests = accuracy(plan.result, 2, weights)
        averaged = np.sum([w * p.mean for w, p in zip(weights, posteriors, strict=True)], axis=0)
        for side, value in {
            "mixture": float(tests.mean()),
            "peak": float(tests[int(np.argmax(accuracy(plan.result, 1, weights)))]),
            "trained": float(accuracy(trained[None], 2, weights)[0]),
            "all alike": float(accuracy(alike.result, 2, weights).mean()),
            "last": float(accuracy(only.result, 2, weights).mean()),
            "averaged parameters": float(accuracy(averaged[None], 2, weights)[0]),
        }.items():
            sides.setdefault(side, []).append(value)
        extremes.append(len(plan.info["extremes"]))
        if number == 0:
            mixture = DiffusedMixture([p.mean for p in posteriors], [p.covariance for p in posteriors], shares)
            whole = credal_mixture(posteriors, weights=shares, mass=1.0, draws=20_000, seed=number + 1).result
            masses.append(float((mixture.log_density(whole) >= plan.info["log_density_at_edge"]).mean()))
    return {
        **{side: float(np.mean(values)) for side, values in sides.items()},
        "mass": float(np.mean(masses)),
        "extremes": max(extremes),
        "trainings": len(posteriors),
    }
