"""The losses that predictions are judged by, row by row."""

from __future__ import annotations

import math

import numpy as np

from kofn.core.arrays import Floats

# Probabilities below this count as this, as in scikit-learn's log loss.
EPS = float(np.finfo(np.float64).eps)
# What a row's loss is: of the logarithm, of squares, of hits, or of quantiles.
LOG, SQUARE, HITS, PINBALL = 0, 1, 2, 3

KINDS = {"log_loss": LOG, "brier": SQUARE, "accuracy": HITS, "rmse": SQUARE, "mae": PINBALL, "pinball": PINBALL}
OF_CLASSES = ("log_loss", "brier", "accuracy")


def row_losses(loss: str, blend: Floats, target: Floats, levels: Floats) -> Floats:
    """(n,) the loss of each row, whose mean `summed_up` reads; `accuracy` counts errors, `rmse` squares.

    Args:
        loss: one of `KINDS`.
        blend: (n, c) predictions: one probability of the second of two classes, one of each class, or numbers.
        target: (n, 1) the number of each row's class, or the answer.
        levels: (c,) the quantile of each column, for `pinball`; `mae` is twice the loss of the median.
    """
    if loss in OF_CLASSES and loss != "accuracy":
        truth = target[:, 0].astype(np.int64)
        rows = np.arange(len(blend))
        if loss == "log_loss":
            chosen = np.where(truth == 1, blend[:, 0], 1 - blend[:, 0]) if blend.shape[1] == 1 else blend[rows, truth]
            return log_losses(chosen)
        if blend.shape[1] == 1:
            return np.square(blend[:, 0] - truth)
        off = blend.copy()
        off[rows, truth] -= 1
        return np.square(off).sum(axis=1)
    if loss == "accuracy":
        most = blend[:, 0] > 0.5 if blend.shape[1] == 1 else blend.argmax(axis=1)
        return (most != target[:, 0]).astype(np.float64)
    if loss == "rmse":
        return np.square(blend - target).mean(axis=1)
    off = target - blend
    return np.where(off >= 0, off * levels, off * (levels - 1)).mean(axis=1) * (2 if loss == "mae" else 1)


def log_losses(chances: Floats) -> Floats:
    """The log loss of each row by the probability of its true class."""
    return 0.0 - np.log(np.maximum(chances, EPS))


def summed_up(loss: str, mean: float) -> float:
    """What people call the loss: the root of a mean square, the share of hits, or the mean itself."""
    if loss == "accuracy":
        return 1 - mean
    return math.sqrt(max(mean, 0.0)) if loss == "rmse" else mean
