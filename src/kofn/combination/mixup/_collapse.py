"""Where the last-layer features of mixed rows lie at the optimum, when the classifier is a simplex frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["mixup_features", "simplex_frame"]

LOSSES = ("cross_entropy", "squares")
# How far norms and angles of a frame may be from even, relative to its norms, and label masses from a sum of one.
_EVEN, _SUMS_TO = 1e-6, 1e-6
# Newton's method rises to the root without overshooting it; it stops once a step no longer changes the normaliser.
_STEPS = 100


@helper
def simplex_frame(classes: int, *, scale: float = 1.0) -> Floats:
    """The classifier of neural collapse: one vector a class, all as long and any two at the same, widest angle.

    Args:
        classes: number of classes K, at least 2.
        scale: length of each vector.

    Returns:
        (K, K) one row a class, which sum to zero: they span K - 1 dimensions. Any rotation of them is a simplex
        equiangular tight frame as well.

    Raises:
        InputError: fewer than 2 classes, a scale that is not positive.

    Cost: O(K^2).

    References:
        Papyan, Han & Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training
        (PNAS 117).

    Examples:
        >>> from kofn.combination import simplex_frame
        >>> frame = simplex_frame(3)
        >>> (frame @ frame.T).round(3).tolist()
        [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    k = checks.count(classes, "classes", least=2)
    out: Floats = _above_zero(scale, "scale") * np.sqrt(k / (k - 1)) * (np.eye(k) - 1 / k)
    return out


@helper
def mixup_features(labels: Any, coef: Any, *, penalty: float, loss: str = "cross_entropy") -> Floats:
    """The best last-layer features of mixed rows, where the classifier is a simplex frame and features are free.

    Each mixed row with label masses t has the feature h that minimises loss(coef h, t) + penalty / 2 |h|^2. Under
    cross-entropy those of one class lie along its vector, whatever the ratio; those of two classes run along their
    boundary, and are no convex combinations of the classes' features. Under squares they are exactly such combinations.
    A network whose features lie so has learnt what mixup asks for.

    Args:
        labels: (m, K) label masses, as `Mixed.labels`.
        coef: (K, d) the classifier's vectors, a simplex frame: as `simplex_frame`, or any rotation of it.
        penalty: weight of the features' squares, above 0.
        loss: "cross_entropy", or "squares": half the summed squares of coef h - t.

    Returns:
        (m, d) the features.

    Raises:
        InputError: label masses that are negative or do not sum to one, vectors of unlike lengths or angles, other
            numbers of classes, a penalty that is not positive.

    Cost: O(m K (d + steps)), a few steps of Newton's method a row.

    Exact: to rounding. Of a feature's logits z each is c t - omega(c t + log(c / S)), omega the Wright function, with c
    the frame's strength over the penalty and S the one number that makes them the logits of a softmax.

    References:
        Fisher, Meng & Papyan 2024, Pushing boundaries: mixup's influence on neural collapse (ICLR), section 3.

    Examples:
        >>> from kofn.combination import mixup_features, simplex_frame
        >>> frame = simplex_frame(3)
        >>> logits = mixup_features([[1, 0, 0], [0.5, 0.5, 0]], frame, penalty=0.01) @ frame.T
        >>> logits.round(2).tolist()
        [[3.05, -1.52, -1.52], [1.15, 1.15, -2.31]]
    """
    checks.choice(loss, "loss", LOSSES)
    masses = checks.matrix(labels, "labels").astype(np.float64)
    vectors = checks.matrix(coef, "coef").astype(np.float64)
    reg = _above_zero(penalty, "penalty")
    k = len(vectors)
    if masses.shape[1] != k:
        raise InputError(f"labels have {masses.shape[1]} columns and coef {k} rows; give one a class to both")
    wrong = np.flatnonzero((masses.min(axis=1) < 0) | (np.abs(masses.sum(axis=1) - 1) > _SUMS_TO))
    if len(wrong):
        raise InputError(f"labels at row {wrong[0]} are {masses[wrong[0]].tolist()}; give masses >= 0 that sum to 1")
    strength = _strength(vectors)
    if loss == "squares":
        out: Floats = masses @ vectors / (strength + reg)
        return out
    feature: Floats = _logits(masses, strength / reg) @ vectors / strength
    return feature


def _above_zero(value: Any, name: str) -> float:
    number = float(checks.number(value, name))
    if not number:
        raise InputError(f"{name}={value}: give a number above 0")
    return number


def _strength(vectors: Floats) -> float:
    """The eigenvalue that all of a simplex frame's products share, beside the one of zero.

    Raises:
        InputError: vectors that are no such frame.
    """
    k = len(vectors)
    products = vectors @ vectors.T
    size = float(products.diagonal().mean())
    even = size * (k * np.eye(k) - 1) / max(k - 1, 1)
    if k < 2 or not size or np.abs(products - even).max() > _EVEN * size:
        raise InputError(
            f"coef's {k} rows are no simplex frame: their products are off one's by "
            f"{np.abs(products - even).max():.3g}; give simplex_frame({max(k, 2)}), or a rotation of it"
        )
    return size * k / (k - 1)


def _logits(masses: Floats, c: float) -> Floats:
    """(m, K) the z = c (masses - softmax(z)), which sum to zero."""
    from scipy.special import wrightomega

    ahead = c * masses + np.log(c)
    # Logits that sum to zero have exponentials that sum to K or more; above that sums of omega fall to c, convexly.
    log_sum = np.full((len(masses), 1), np.log(masses.shape[1]))
    for _ in range(_STEPS):
        omega = wrightomega(ahead - log_sum)
        step = (omega.sum(axis=1) - c) / (omega / (1 + omega)).sum(axis=1)
        following = log_sum + np.maximum(step, 0.0)[:, None]
        if (following <= log_sum + 1e-15 * np.abs(log_sum)).all():
            break
        log_sum = following
    # Of a large c the difference c masses - omega has lost its digits, and the logarithm has not.
    out: Floats = np.log(wrightomega(ahead - log_sum)) - np.log(c) + log_sum
    return out - out.mean(axis=1, keepdims=True)
