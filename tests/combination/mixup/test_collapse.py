"""The best features of mixed rows against a general minimiser and scikit-learn's, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused, untested
from scipy.optimize import minimize
from scipy.special import log_softmax

from kofn.combination import mixup_features, simplex_frame
from kofn.combination.mixup import _collapse

RNG = np.random.default_rng(0)


def rotated(k: int, d: int, scale: float) -> np.ndarray:
    turn = np.linalg.qr(RNG.normal(size=(d, d)))[0][:k]
    return simplex_frame(k, scale=scale) @ turn


@pytest.mark.parametrize("k", [2, 3, 7])
def test_a_frame_has_even_lengths_and_angles(k: int) -> None:
    products = simplex_frame(k, scale=3.0) @ simplex_frame(k, scale=3.0).T
    np.testing.assert_allclose(products, 9 * (k * np.eye(k) - 1) / (k - 1), atol=1e-12)


@pytest.mark.parametrize("loss", _collapse.LOSSES)
@pytest.mark.parametrize(("k", "scale", "penalty"), [(2, 1.0, 0.3), (3, 2.0, 0.01), (5, 0.7, 1e-4), (4, 1.0, 50.0)])
def test_features_minimise_the_loss(k: int, scale: float, penalty: float, loss: str) -> None:
    frame = rotated(k, k + 2, scale)
    masses = np.concatenate([np.eye(k)[:2], RNG.dirichlet(np.ones(k), 3)])
    masses[2] = 0.7 * np.eye(k)[0] + 0.3 * np.eye(k)[1]
    features = mixup_features(masses, frame, penalty=penalty, loss=loss)
    for feature, mass in zip(features, masses, strict=True):

        def value(h: np.ndarray, mass: np.ndarray = mass) -> float:
            odds = frame @ h
            fit = -mass @ log_softmax(odds) if loss == "cross_entropy" else 0.5 * np.square(odds - mass).sum()
            return float(fit + penalty / 2 * h @ h)

        best = minimize(value, np.zeros(k + 2), method="BFGS", options={"gtol": 1e-9})
        assert value(feature) <= best.fun + 1e-9
        np.testing.assert_allclose(feature, best.x, rtol=1e-3, atol=1e-4 * np.abs(best.x).max())


def test_features_of_a_class_lie_along_its_vector_and_of_two_do_not_lie_between() -> None:
    frame = simplex_frame(3)
    share = np.linspace(0, 1, 11)[:, None]
    masses = share * np.eye(3)[0] + (1 - share) * np.eye(3)[1]
    features = mixup_features(masses, frame, penalty=1e-3)
    ends = features[[0, -1]]
    np.testing.assert_allclose(
        ends @ frame.T / np.linalg.norm(ends, axis=1)[:, None], frame[[1, 0]] @ frame.T, atol=1e-9
    )
    between = share * features[-1] + (1 - share) * features[0]
    assert np.abs(features - between).max() > 0.2 * np.abs(ends).max()
    squares = mixup_features(masses, frame, penalty=1e-3, loss="squares")
    np.testing.assert_allclose(squares, share * squares[-1] + (1 - share) * squares[0], atol=1e-12)


@pytest.mark.parametrize("penalty", [1e-300, 1e-100, 1e-12, 1.0, 1e12, 1e300])
def test_any_penalty_has_features(penalty: float) -> None:
    frame = simplex_frame(4)
    logits = mixup_features([[0.6, 0.4, 0, 0], [0.25] * 4, [1, 0, 0, 0]], frame, penalty=penalty) @ frame.T
    assert np.isfinite(logits).all()
    # With ever less penalty the chances of the two classes become their masses.
    assert penalty > 1e-6 or logits[0, 0] - logits[0, 1] == pytest.approx(np.log(1.5), rel=1e-6)
    np.testing.assert_allclose(logits[1], 0, atol=1e-9)


FRAME = simplex_frame(3)
REFUSED: dict[str, tuple[Any, str]] = {
    "one class": (lambda: simplex_frame(1), "classes=1"),
    "scale": (lambda: simplex_frame(3, scale=0), "scale=0: give a number above 0"),
    "columns": (lambda: mixup_features([[1.0, 0.0]], FRAME, penalty=1), "labels have 2 columns and coef 3 rows"),
    "masses": (lambda: mixup_features([[1.0, 0.5, 0.0]], FRAME, penalty=1), "labels at row 0 are [1.0, 0.5, 0.0]"),
    "penalty": (lambda: mixup_features(np.eye(3), FRAME, penalty=0), "penalty=0: give a number above 0"),
    "loss": (lambda: mixup_features(np.eye(3), FRAME, penalty=1, loss="hinge"), "loss='hinge'"),
    "no frame": (
        lambda: mixup_features(np.eye(3), np.eye(3), penalty=1),
        "coef's 3 rows are no simplex frame: their products are off one's by 0.5; give simplex_frame(3)",
    ),
}


def test_what_is_refused_says_why() -> None:
    reached = {refused(call, message) for call, message in REFUSED.values()}
    assert not untested([_collapse], reached)
