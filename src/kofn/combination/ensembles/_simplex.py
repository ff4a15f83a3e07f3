"""Weights on the simplex that lose least, drawn more or less towards given ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from kofn.combination.ensembles._losses import EPS, LOG, PINBALL, SQUARE
from kofn.core.arrays import Floats

# Iterations at most, and how near to the least loss, relative to it, they stop.
_ITERATIONS, _GAP = 100, 1e-5
# The share of the median error within which the corner of absolute errors is rounded off.
_ROUNDED = 0.05


class Loss(ABC):
    """A convex loss of weights, with its slopes."""

    @abstractmethod
    def value_and_slopes(self, weights: Floats) -> tuple[float, Floats]:
        """The mean loss and its slopes."""


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


def least(loss: Loss, start: Floats, towards: Floats, penalty: float) -> Floats:
    """The weights on the simplex of least loss plus `penalty` times the squared distance from `towards`.

    Accelerated projected gradients with steps found by halving (Beck & Teboulle 2009), restarted where the loss rises.
    They stop once no other weights lose less by a hundred-thousandth, which the slopes bound, or after 100 steps.
    """

    def penalised(weights: Floats) -> tuple[float, Floats]:
        value, slopes = loss.value_and_slopes(weights)
        off = weights - towards
        return value + penalty * float(off @ off), slopes + 2 * penalty * off

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
