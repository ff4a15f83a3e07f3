"""SelMix: how much a metric of the confusion matrix gains when a classifier learns from pairs of two classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.combination.mixup._mix_pairs import LABELS
from kofn.combination.mixup._pairs import mean_of, read_ratio
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["mixup_gains", "pair_chances"]

METRICS = ("mean_recall", "worst_recall", "g_mean", "h_mean")
# Recalls and cells of 0 have no logarithm; the reference bounds cells of the confusion matrix from below alike.
_LEAST = 1e-7


@helper
def mixup_gains(
    confusion: Any,
    prototypes: Any,
    coef: Any,
    intercept: Any = None,
    *,
    metric: Any = "worst_recall",
    beta: float = 20.0,
    ratio: Any = ("uniform", 0.6, 1.0),
    labels: str = "first",
) -> Floats:
    """Gain of a metric from a gradient step of a linear head on features mixed between two classes, for all pairs.

    The row of class k of the confusion matrix is its share times the softmax of free logits; a step of the head moves
    the logits of class k as it moves those of the class's mean feature. To first order the metric then changes by the
    learning rate times G[i, j], G[i, j] = sum over k, l of dmetric/dlogits[k, l] times (change of the head, applied to
    prototype k)[l]. It needs no gradient of the metric through the data, so that the worst recall or a mean of
    recalls can be pursued.

    Args:
        confusion: (K, K) counts or shares of validation rows: row k the true class, column l the predicted one.
        prototypes: (K, d) mean of each class's features, the inputs of the head.
        coef: (K, d) weights of the head, as scikit-learn's `coef_` and the weight of a `torch.nn.Linear`.
        intercept: (K,) biases of the head, which then take part in the step.
        metric: "mean_recall"; "worst_recall", in which class k weighs exp(-beta recall_k), the worst one alone as beta
            grows; "g_mean" and "h_mean", the geometric and harmonic mean of recalls; or (K, K) slopes of your own,
            dmetric/dconfusion, with the confusion matrix as shares of all rows.
        beta: of "worst_recall".
        ratio: share of the first class in the mixed feature, as in `mix_pairs`; its mean is used.
        labels: as in `mix_pairs`: the label of a mixed feature; SelMix takes the first's.

    Returns:
        (K, K) gains: row the first class of a pair, column the second. `pair_chances` makes chances of them.

    Raises:
        InputError: shapes that differ, a class without validation rows, counts below 0, an unknown metric, a beta
            that is not positive.

    Cost: O(K^3 (K + d)) time, O(K^3) memory.

    Exact: the derivative of the metric along the step at the prototypes; that class means stand for their rows, and
    mean ratios for the law, is the method's approximation.

    References:
        Ramasubramanian, Rangwani, Takemori et al. 2024, Selective mixup fine-tuning for optimizing non-decomposable
        objectives (ICLR), theorem 4.1.

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import mixup_gains, pair_chances
        >>> confusion = [[9, 1], [6, 4]]  # the second class is found in 4 of 10
        >>> gains = mixup_gains(confusion, np.eye(2), [[2.0, 0.0], [0.0, 1.0]])
        >>> np.unravel_index(gains.argmax(), gains.shape)[0].item()  # pairs labelled as the second class
        1
        >>> round(float(pair_chances(gains, s=10).sum()), 6)
        1.0
    """
    table = checks.matrix(confusion, "confusion").astype(np.float64)
    centres = checks.matrix(prototypes, "prototypes").astype(np.float64)
    head = checks.matrix(coef, "coef").astype(np.float64)
    k = len(table)
    for name, array, width in (("confusion", table, k), ("prototypes", centres, centres.shape[1])):
        if array.shape != (k, width):
            raise InputError(f"{name} has shape {array.shape}; give ({k}, {width}), one row a class")
    if head.shape != centres.shape:
        raise InputError(f"coef has shape {head.shape} and prototypes {centres.shape}; give one row a class to both")
    if intercept is not None:
        bias = checks.vector(intercept, "intercept").astype(np.float64)
        checks.same_length(k, "coef", "intercept", len(bias))
        centres, head = np.column_stack([centres, np.ones(k)]), np.column_stack([head, bias])
    if table.min() < 0:
        raise InputError(f"confusion has {table.min():.6g} among its counts; give counts >= 0")
    totals = table.sum(axis=1)
    if not totals.all():
        raise InputError(
            f"confusion: class {int((totals == 0).argmax())} has no validation row; give some of each class"
        )
    checks.choice(labels, "labels", LABELS)
    shares = np.maximum(table / table.sum(), _LEAST)
    slopes = _logit_slopes(shares, _slopes(shares, metric, beta))
    mean = mean_of(read_ratio(ratio))
    mixed = mean * centres[:, None, :] + (1 - mean) * centres[None, :, :]
    odds = mixed @ head.T
    chances = np.exp(odds - odds.max(axis=2, keepdims=True))
    chances /= chances.sum(axis=2, keepdims=True)
    share = {"mixed": mean, "first": 1.0, "larger": float(mean >= 0.5)}[labels]
    own = np.eye(k)
    residuals = share * own[:, None, :] + (1 - share) * own[None, :, :] - chances
    out: Floats = ((mixed @ centres.T) * (residuals @ slopes.T)).sum(axis=2)
    return out


@helper
def pair_chances(gains: Any, *, s: float = 10.0) -> Floats:
    """Chances with which pairs of classes are drawn, by their gains: the softmax of s times the gains.

    Args:
        gains: (K, K) of `mixup_gains`.
        s: inverse temperature; 0 draws all pairs alike, and as it grows the best pair alone is drawn.

    Returns:
        (K, K) chances that sum to 1, for `mix_pairs(..., pairs=chances)`.

    Raises:
        InputError: gains that are not square, an s below 0 or not finite.

    Cost: O(K^2).

    References:
        Ramasubramanian, Rangwani, Takemori et al. 2024, Selective mixup fine-tuning for optimizing non-decomposable
        objectives (ICLR), section 4.

    Examples:
        >>> from kofn.combination import pair_chances
        >>> pair_chances([[0.0, 1.0], [0.0, 0.0]], s=0).tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    table = checks.matrix(gains, "gains").astype(np.float64)
    if table.shape[0] != table.shape[1]:
        raise InputError(f"gains has shape {table.shape}; give (K, K), classes by classes")
    scale = float(checks.number(s, "s"))
    with np.errstate(over="ignore"):
        raw = np.exp(np.maximum(scale * (table - table.max()), -1e3))
    out: Floats = raw / raw.sum()
    return out


def _slopes(shares: Floats, metric: Any, beta: float) -> Floats:
    """The metric's derivative by the cells of the confusion matrix (shares of all rows).

    Raises:
        InputError: an unknown metric, slopes of another shape, a beta that is not positive.
    """
    k = len(shares)
    if not isinstance(metric, str):
        own = checks.matrix(metric, "metric").astype(np.float64)
        if own.shape != (k, k):
            raise InputError(f"metric has shape {own.shape}; give ({k}, {k}) slopes, or one of {METRICS}")
        return own
    checks.choice(metric, "metric", METRICS)
    totals = shares.sum(axis=1)
    recalls = shares.diagonal() / totals
    by_recall = np.full(k, 1 / k)
    if metric == "worst_recall":
        sharp = float(checks.number(beta, "beta"))
        if sharp == 0:
            raise InputError(f"beta={beta}: give a number above 0, or take metric='mean_recall'")
        weights = np.exp(-sharp * (recalls - recalls.min()))
        by_recall = weights / weights.sum()
    elif metric == "g_mean":
        by_recall = np.exp(np.log(recalls).mean()) / (k * recalls)
    elif metric == "h_mean":
        by_recall = (k / (1 / recalls).sum()) ** 2 / (k * recalls**2)
    # A recall is its cell over the row's total: dr/dC = (own cell - r) / total.
    out: Floats = by_recall[:, None] * (np.eye(k) - recalls[:, None]) / totals[:, None]
    return out


def _logit_slopes(shares: Floats, slopes: Floats) -> Floats:
    """The derivative by the logits of which each row of the confusion matrix is the softmax, times its total."""
    chances = shares / shares.sum(axis=1, keepdims=True)
    out: Floats = shares * (slopes - (slopes * chances).sum(axis=1, keepdims=True))
    return out
