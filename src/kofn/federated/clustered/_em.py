"""EM for mixtures whose components are a Gaussian over x and a model of y given x."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints

TASKS = ("none", "classes", "amounts")
# A component without responsibility keeps its parameters.
_NOTHING = 1e-10


@dataclass(frozen=True)
class Parameters:
    """The shared parameters, for rows centred at the pooled mean and divided by a common scale.

    `gaussian` and `predictor` (pairs,) name the Gaussian and the model of y of each component: one each, or all pairs.
    `coefficients` (predictors, 1 + d, outputs) are of a softmax over classes, or of a linear mean, variance `noise`.
    """

    task: str
    means: Floats
    covariances: Floats
    coefficients: Floats
    noise: Floats
    gaussian: Ints
    predictor: Ints
    shrink: float
    ridge: float

    def penalty(self) -> float:
        """Penalty on the log-likelihood: `shrink` pseudo-rows of unit variance per Gaussian, `ridge` on the slopes."""
        _, size = np.linalg.slogdet(self.covariances)
        inverse = np.linalg.inv(self.covariances)
        total = self.shrink * (size + np.trace(inverse, axis1=1, axis2=2)).sum()
        slopes = (self.coefficients[:, 1:] ** 2).sum(axis=(1, 2))
        if self.task == "classes":
            total += self.ridge * slopes.sum()
        elif self.task == "amounts":
            total += ((self.ridge * slopes + self.shrink) / self.noise + self.shrink * np.log(self.noise)).sum()
        return float(total) / 2

    def log_x(self, Z: Floats) -> Floats:
        """(n, pairs) log-density of the rows under each component's Gaussian."""
        from scipy.linalg import solve_triangular

        out = np.empty((len(Z), len(self.means)))
        for j, (mean, factor) in enumerate(zip(self.means, np.linalg.cholesky(self.covariances), strict=True)):
            white = solve_triangular(factor, (Z - mean).T, lower=True, check_finite=False)
            out[:, j] = -0.5 * (white * white).sum(axis=0) - np.log(np.diag(factor)).sum()
        return (out - 0.5 * Z.shape[1] * math.log(2 * math.pi))[:, self.gaussian]

    def log_y(self, Z: Floats, y: Any) -> Floats | float:
        """(n, pairs) log-probability of the classes, or log-density of the amounts, under each component."""
        if self.task == "none" or y is None:
            return 0.0
        if self.task == "classes":
            logs = self.log_classes(Z)[:, np.arange(len(y)), y].T
        else:
            gap = y[:, None] - self.amounts(Z)
            logs = -0.5 * (gap * gap / self.noise + np.log(2 * math.pi * self.noise))
        return np.asarray(logs[:, self.predictor])

    def log_classes(self, Z: Floats) -> Floats:
        """(predictors, n, classes) log-probabilities."""
        logits = design(Z) @ self.coefficients
        logits -= logits.max(axis=2, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)))

    def amounts(self, Z: Floats) -> Floats:
        """(n, predictors) expected amounts."""
        return np.asarray((design(Z) @ self.coefficients)[:, :, 0].T)


def design(Z: Floats) -> Floats:
    """The rows with a leading column of ones."""
    return np.column_stack([np.ones(len(Z)), Z])


def share(log_joint: Floats) -> tuple[Floats, Floats]:
    """(n, pairs) softmax and (n,) log-sum-exp of log terms, some of which may be -inf."""
    top = log_joint.max(axis=1, keepdims=True)
    terms = np.exp(log_joint - top)
    total = terms.sum(axis=1, keepdims=True)
    return terms / total, (top + np.log(total))[:, 0]


def log_of(weights: Floats) -> Floats:
    """Logarithm, with log 0 = -inf."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(weights))


def folded(table: Floats, of: Ints, count: int) -> Floats:
    """Sum the columns of pairs by owner: (..., pairs) to (..., count)."""
    return np.asarray(table @ np.eye(count)[of])


def moments(now: Parameters, Z: Floats, y: Any, responsibilities: Floats) -> dict[str, Floats]:
    """Sufficient statistics of these rows for the M-step; they add up over parts of the rows."""
    k, p = len(now.means), len(now.coefficients)
    by_gaussian = folded(responsibilities, now.gaussian, k)
    first, second = np.empty_like(now.means), np.empty_like(now.covariances)
    for j, mean in enumerate(now.means):
        # Centred at the last mean, so that the squares do not cancel.
        gap = Z - mean
        first[j], second[j] = by_gaussian[:, j] @ gap, (gap * by_gaussian[:, j, None]).T @ gap
    out = {"mass": by_gaussian.sum(axis=0), "first": first, "second": second}
    if now.task == "none":
        return out
    rows, by_predictor = design(Z), folded(responsibilities, now.predictor, p)
    out["counts"] = by_predictor.sum(axis=0)
    out["gram"] = np.array([(rows * by_predictor[:, [q]]).T @ rows for q in range(p)])
    if now.task == "classes":
        off = np.eye(now.coefficients.shape[2])[y] - np.exp(now.log_classes(Z))
        out["slope"] = np.array([(rows * by_predictor[:, [q]]).T @ off[q] for q in range(p)])
    else:
        out["slope"] = np.array([((rows * by_predictor[:, [q]]).T @ y)[:, None] for q in range(p)])
        out["square"] = (y * y) @ by_predictor
    return out


def improved(now: Parameters, sums: dict[str, Floats]) -> Parameters:
    """M-step: optimal Gaussians and linear models, and softmax models that are no worse than before."""
    means, covariances = now.means.copy(), now.covariances.copy()
    for j, mass in enumerate(sums["mass"].tolist()):
        if mass > _NOTHING:
            shift = sums["first"][j] / mass
            means[j] += shift
            spread = sums["second"][j] - mass * np.outer(shift, shift)
            grown = (spread + spread.T) / 2 + now.shrink * np.eye(len(shift))
            covariances[j] = grown / (mass + now.shrink)
    coefficients, noise = now.coefficients.copy(), now.noise.copy()
    penalty = np.diag([0.0] + [now.ridge] * means.shape[1])
    for q in range(len(coefficients) if now.task != "none" else 0):
        mass, gram, slope = float(sums["counts"][q]), sums["gram"][q], sums["slope"][q]
        if mass <= _NOTHING:
            continue
        if now.task == "classes":
            # Half the Gram matrix bounds the curvature of a softmax (Boehning 1992): the step never lowers the fit.
            coefficients[q] += np.linalg.solve(gram / 2 + penalty, slope - penalty @ coefficients[q])
        else:
            slopes = np.linalg.solve(gram + penalty, slope)
            left = float(sums["square"][q] - 2 * (slopes * slope).sum() + (slopes * (gram @ slopes)).sum())
            noise[q] = (max(left, 0.0) + float((slopes * (penalty @ slopes)).sum()) + now.shrink) / (mass + now.shrink)
            coefficients[q] = slopes
    return Parameters(
        now.task, means, covariances, coefficients, noise, now.gaussian, now.predictor, now.shrink, now.ridge
    )


def centres(X: Floats, counts: Floats, k: int, seed: int) -> tuple[Floats, Floats, float]:
    """(m, d) k-means centres of weighted rows, m <= k, the weight of each, and the summed squares around them."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct = len(np.unique(X, axis=0))
    with warnings.catch_warnings():
        # Rows that differ by rounding only may lead to duplicate centres, which do no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(min(k, distinct), n_init=4, random_state=seed % 2**32).fit(X, sample_weight=counts)
    weight = np.asarray(np.bincount(fitted.labels_, counts, len(fitted.cluster_centers_)), np.float64)
    return np.asarray(fitted.cluster_centers_, np.float64), weight, float(fitted.inertia_)
