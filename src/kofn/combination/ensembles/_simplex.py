"""Weights on the simplex that lose least, drawn more or less towards given ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from kofn.combination.ensembles._losses import EPS, LOG, PINBALL, SQUARE
from kofn.core.arrays import Floats

# Iterations at most, and how near to the least loss, relative to it, they stop: of fits that only choose a way.
_ITERATIONS, _GAP = 100, 1e-5
# The same of Newton's steps, by which the weights that are handed out are settled.
_NEWTON, _SETTLED = 60, 1e-10
# How far halved steps may go, and what is added to the curvature, relative to its mean, where it is flat.
_HALVINGS, _FLAT = 40, 1e-10
# The share of the median error within which the corner of absolute errors is rounded off.
_ROUNDED = 0.05


class Loss(ABC):
    """A convex loss of weights, with its slopes."""

    @abstractmethod
    def value_and_slopes(self, weights: Floats) -> tuple[float, Floats]:
        """The mean loss and its slopes."""

    @abstractmethod
    def curvature(self, weights: Floats) -> Floats:
        """(m, m) its second derivatives."""


class OfSquares(Loss):
    """The mean square of what the weighted predictions miss, by products that are summed once."""

    def __init__(self, A: Floats, target: Floats, shares: Floats | None) -> None:
        weighted = A.T / len(A) if shares is None else A.T * shares
        self.products = weighted @ A
        self.with_target = weighted @ target
        self.own = float(target @ target) / len(A) if shares is None else float(shares @ np.square(target))

    def value_and_slopes(self, weights: Floats) -> tuple[float, Floats]:
        half = self.products @ weights - self.with_target
        return float((half - self.with_target) @ weights) + self.own, 2 * half

    def curvature(self, weights: Floats) -> Floats:
        """The same everywhere."""
        return 2 * self.products


class OfRows(Loss):
    """The mean of the log losses of probabilities of the truth, or of absolute errors rounded off at zero."""

    def __init__(self, kind: int, A: Floats, target: Floats, levels: Floats, shares: Floats | None) -> None:
        self.kind, self.A, self.target, self.levels = kind, A, target, levels
        self.shares = np.full(len(A), 1 / len(A)) if shares is None else shares
        if kind == PINBALL:
            off = np.abs(target - A.mean(axis=1))
            self.width = max(_ROUNDED * float(np.median(off)), 1e-12 * float(np.abs(target).max(initial=1.0)))

    def value_and_slopes(self, weights: Floats) -> tuple[float, Floats]:
        blend = self.A @ weights
        if self.kind == LOG:
            return -float(self.shares @ np.log(blend)), -(self.A.T @ (self.shares / blend))
        off = self.target - blend
        size = np.abs(off)
        rounded = np.where(size < self.width, off * off / (2 * self.width) + self.width / 2, size)
        losses = (self.levels - 0.5) * off + 0.5 * rounded
        slope = -(self.levels - 0.5 + 0.5 * np.clip(off / self.width, -1, 1))
        return float(self.shares @ losses), self.A.T @ (self.shares * slope)

    def curvature(self, weights: Floats) -> Floats:
        """Of the rows' losses along the blend; of rounded errors only within the corner."""
        blend = self.A @ weights
        if self.kind == LOG:
            bent = self.shares / np.square(blend)
        else:
            bent = self.shares * (np.abs(self.target - blend) < self.width) / (2 * self.width)
        out: Floats = (self.A.T * bent) @ self.A
        return out


def loss_of(kind: int, A: Floats, target: Floats, levels: Floats, shares: Floats | None = None) -> Loss:
    """The loss of rows A (n, m) of predictions; of the log loss A holds probabilities of the truth, at least EPS.

    Args:
        kind: one of the losses.
        A: (n, m) the predictions.
        target: (n,) the answers.
        levels: (n,) the quantile that each row is of.
        shares: (n,) how much each row counts, of sum one; None for 1 / n.
    """
    if kind == SQUARE:
        return OfSquares(A, target, shares)
    return OfRows(kind, np.maximum(A, EPS) if kind == LOG else A, target, levels, shares)


def on_simplex(point: Floats) -> Floats:
    """The nearest point whose coordinates are >= 0 and sum to one (Held, Wolfe & Crowder 1974).

    Examples:
        >>> on_simplex(np.array([0.7, 0.9, -3.0])).round(3).tolist()
        [0.4, 0.6, 0.0]
    """
    falling = np.sort(point)[::-1]
    over = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    last = int(np.flatnonzero(falling > over)[-1])
    weights = np.maximum(point - over[last], 0.0)
    out: Floats = weights / weights.sum()
    return out


class Penalised:
    """A loss plus `penalty` times the squared distance from `towards`."""

    def __init__(self, loss: Loss, towards: Floats, penalty: float) -> None:
        self.loss, self.towards, self.penalty = loss, towards, penalty

    def value_and_slopes(self, weights: Floats) -> tuple[float, Floats]:
        """The sum and its slopes."""
        value, slopes = self.loss.value_and_slopes(weights)
        off = weights - self.towards
        return value + self.penalty * float(off @ off), slopes + 2 * self.penalty * off

    def curvature(self, weights: Floats) -> Floats:
        """(m, m) its second derivatives."""
        return self.loss.curvature(weights) + 2 * self.penalty * np.eye(len(weights))

    def gap(self, weights: Floats) -> float:
        """How much less than here the sum may be anywhere on the simplex, at most: what the slopes allow."""
        slopes = self.value_and_slopes(weights)[1]
        return max(0.0, float(slopes @ weights - slopes.min()))


def least(loss: Loss, start: Floats, towards: Floats, penalty: float) -> Floats:
    """The weights on the simplex of least loss plus `penalty` times the squared distance from `towards`, nearly.

    Accelerated projected gradients with steps found by halving (Beck & Teboulle 2009), restarted where the loss rises.
    They stop once no other weights lose less by a hundred-thousandth, which the slopes bound, or after 100 steps.
    """
    penalised = Penalised(loss, towards, penalty).value_and_slopes
    weights, ahead, pace, step = start, start, 1.0, 1.0
    value, slopes = penalised(weights)
    for _ in range(_ITERATIONS):
        if float(slopes @ weights - slopes.min()) <= _GAP * abs(value):
            break
        ahead_value, ahead_slopes = penalised(ahead)
        while True:
            moved = on_simplex(ahead - step * ahead_slopes)
            by = moved - ahead
            fresh, fresh_slopes = penalised(moved)
            expected = ahead_value + float(ahead_slopes @ by) + float(by @ by) / (2 * step)
            if fresh <= expected + 1e-14 * abs(value) or step < 1e-14:
                break
            step /= 2
        if fresh > value:
            if ahead is weights:
                break
            ahead, pace = weights, 1.0
            continue
        following = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        # Back on the simplex, outside of which logarithms may not exist.
        ahead = on_simplex(moved + (pace - 1) / following * (moved - weights))
        weights, value, slopes, pace = moved, fresh, fresh_slopes, following
        step *= 1.3
    return weights


def settled(loss: Loss, start: Floats, towards: Floats, penalty: float) -> Floats:
    """The weights of `least` to the last digits: Newton's steps, each the best of a quadratic model on the simplex.

    They stop once no other weights lose less by 1e-10 of the loss, which the slopes bound. A row of no curvature, as of
    absolute errors beyond the corner, is stepped over by halving.
    """
    whole = Penalised(loss, towards, penalty)
    weights = start
    value, slopes = whole.value_and_slopes(weights)
    for _ in range(_NEWTON):
        if float(slopes @ weights - slopes.min()) <= _SETTLED * abs(value):
            break
        way = _best_of_model(whole.curvature(weights), slopes, weights) - weights
        fall, length = float(slopes @ way), 1.0
        for _ in range(_HALVINGS):
            moved = weights + length * way
            fresh, fresh_slopes = whole.value_and_slopes(moved)
            if fresh <= value + 1e-4 * length * fall:
                break
            length /= 2
        if fall >= 0 or fresh > value:
            break
        weights, value, slopes = moved, fresh, fresh_slopes
    return weights


def _best_of_model(curvature: Floats, slopes: Floats, weights: Floats) -> Floats:
    """Where on the simplex slopes and curvature at the weights foresee the least loss.

    With w on the simplex the model is the squared length of R w + R^-T g (1' w), R' R the curvature and g its slopes at
    zero, and the shortest such vector is that of nonnegative least squares with one row more, for the sum.
    """
    from scipy.optimize import nnls

    m = len(weights)
    size = max(float(np.trace(curvature)) / m, float(np.abs(slopes).max()), 1e-300)
    # What is added pulls towards the present weights, so that its share fades as the steps do.
    factor = np.linalg.cholesky((curvature + _FLAT * size * np.eye(m)) / size).T
    at_zero = np.linalg.solve(factor.T, slopes / size) - factor @ weights
    rows = factor + at_zero[:, None]
    width = max(float(np.abs(rows).max()), 1e-300)
    try:
        raw = nnls(np.vstack([rows / width, np.ones(m)]), np.append(np.zeros(m), 1.0))[0]
    except RuntimeError:  # it may not end where columns are alike
        return weights
    total = float(raw.sum())
    return raw / total if total > 0 else weights
