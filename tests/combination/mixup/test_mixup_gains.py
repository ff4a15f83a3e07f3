"""SelMix's gains against differences of the metric itself along the step, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused, untested

from kofn.combination import mixup_gains, pair_chances
from kofn.combination.mixup import _gains

K, D = 4, 6
RNG = np.random.default_rng(0)
COUNTS = RNG.integers(1, 30, (K, K)) + np.diag([60, 40, 20, 5])
PROTOTYPES, COEF, BIAS = RNG.normal(size=(K, D)), RNG.normal(size=(K, D)), RNG.normal(size=K)
BETA = 5.0


def recalls(table: np.ndarray) -> np.ndarray:
    return table.diagonal() / table.sum(axis=1)


def worst(table: np.ndarray) -> float:
    """The weighted recall with the weights of the table that the step starts from."""
    start = recalls(COUNTS)
    weights = np.exp(-BETA * start)
    return float(recalls(table) @ weights / weights.sum())


MEASURES = {
    "mean_recall": lambda table: recalls(table).mean(),
    "worst_recall": worst,
    "g_mean": lambda table: np.exp(np.log(recalls(table)).mean()),
    "h_mean": lambda table: 1 / (1 / recalls(table)).mean(),
}


def softmax(odds: np.ndarray) -> np.ndarray:
    raw = np.exp(odds - odds.max(axis=-1, keepdims=True))
    return raw / raw.sum(axis=-1, keepdims=True)


def after_step(i: int, j: int, share: float, label: float, rate: float) -> np.ndarray:
    """The confusion matrix after one gradient step of the head on the prototype mixed of two classes."""
    mixed = share * PROTOTYPES[i] + (1 - share) * PROTOTYPES[j]
    target = label * np.eye(K)[i] + (1 - label) * np.eye(K)[j]
    residual = target - softmax(COEF @ mixed + BIAS)
    change, lift = rate * np.outer(residual, mixed), rate * residual
    logits = np.log(COUNTS / COUNTS.sum(axis=1, keepdims=True)) + PROTOTYPES @ change.T + lift
    return COUNTS.sum(axis=1, keepdims=True) * softmax(logits)


@pytest.mark.parametrize("metric", MEASURES)
@pytest.mark.parametrize(("labels", "label"), [("first", 1.0), ("mixed", 0.7)])
def test_gains_are_the_slope_of_the_metric_along_the_step(metric: str, labels: str, label: float) -> None:
    gains = mixup_gains(COUNTS, PROTOTYPES, COEF, BIAS, metric=metric, beta=BETA, ratio=0.7, labels=labels)
    rate = 1e-5
    for i in range(K):
        for j in range(K):
            ahead, behind = (MEASURES[metric](after_step(i, j, 0.7, label, step)) for step in (rate, -rate))
            assert gains[i, j] == pytest.approx((ahead - behind) / (2 * rate), rel=1e-5, abs=1e-8)


def test_own_slopes_laws_and_scale() -> None:
    gains = mixup_gains(COUNTS, PROTOTYPES, COEF, metric="mean_recall", ratio=("uniform", 0.6, 1.0))
    np.testing.assert_array_equal(gains, mixup_gains(COUNTS, PROTOTYPES, COEF, metric="mean_recall", ratio=0.8))
    shares = COUNTS / COUNTS.sum()
    totals = shares.sum(axis=1, keepdims=True)
    slopes = (np.eye(K) - recalls(shares)[:, None]) / totals / K
    own = mixup_gains(COUNTS, PROTOTYPES, COEF, metric=slopes)
    np.testing.assert_allclose(own, gains, rtol=1e-12)
    np.testing.assert_allclose(mixup_gains(7 * COUNTS, PROTOTYPES, COEF, metric="mean_recall"), gains, rtol=1e-12)
    never = COUNTS.copy()
    never[3, 3] = 0
    for metric in MEASURES:
        assert np.isfinite(mixup_gains(never, PROTOTYPES, COEF, metric=metric)).all()


def test_chances_are_the_softmax_of_gains() -> None:
    gains = RNG.normal(size=(K, K))
    np.testing.assert_allclose(pair_chances(gains, s=3.0), softmax(3 * gains.ravel()).reshape(K, K), rtol=1e-12)
    sharp = pair_chances(gains, s=1e308)
    assert sharp.sum() == 1
    assert sharp.argmax() == gains.argmax()


REFUSED: dict[str, tuple[Any, str]] = {
    "not square": (lambda: mixup_gains(COUNTS[:, :3], PROTOTYPES, COEF), "confusion has shape (4, 3); give (4, 4)"),
    "prototypes": (lambda: mixup_gains(COUNTS, PROTOTYPES[:3], COEF), "prototypes has shape (3, 6); give (4, 6)"),
    "coef": (lambda: mixup_gains(COUNTS, PROTOTYPES, COEF.T), "coef has shape (6, 4) and prototypes (4, 6)"),
    "intercept": (lambda: mixup_gains(COUNTS, PROTOTYPES, COEF, [0.0]), "intercept has 1 values, coef has 4 rows"),
    "negative": (lambda: mixup_gains(-COUNTS, PROTOTYPES, COEF), "among its counts; give counts >= 0"),
    "no rows": (
        lambda: mixup_gains(COUNTS * [[1], [0], [1], [1]], PROTOTYPES, COEF),
        "confusion: class 1 has no validation row",
    ),
    "metric": (lambda: mixup_gains(COUNTS, PROTOTYPES, COEF, metric="worst"), "metric='worst'"),
    "slopes": (lambda: mixup_gains(COUNTS, PROTOTYPES, COEF, metric=np.eye(3)), "metric has shape (3, 3); give (4, 4)"),
    "beta": (lambda: mixup_gains(COUNTS, PROTOTYPES, COEF, beta=0.0), "beta=0.0: give a number above 0"),
    "gains": (lambda: pair_chances(COUNTS[:2]), "gains has shape (2, 4); give (K, K)"),
    "s": (lambda: pair_chances(COUNTS, s=-1.0), "s=-1.0: it must be >= 0"),
}


def test_what_is_refused_says_why() -> None:
    reached = {refused(call, message) for call, message in REFUSED.values()}
    assert not untested(_gains, reached)
