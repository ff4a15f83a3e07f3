"""Gradients of bilevel problems by penalties, against closed forms and differences; weights of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.optim import PenaltyBilevel, bilevel_weights

RNG = np.random.default_rng(5)
A, B, TARGET = RNG.normal(size=(30, 4)), RNG.normal(size=(20, 4)), RNG.normal(size=30)
CLEAN = RNG.normal(size=20)


def upper(_x: Any, y: Any) -> tuple[float, Any, Any]:
    """Squared error on the rows B."""
    rest = B @ y - CLEAN
    return float(rest @ rest) / 20, np.zeros(4), 2 * B.T @ rest / 20


def lower(x: Any, y: Any) -> tuple[float, Any, Any]:
    """Ridge regression on the rows A, a penalty for each coefficient."""
    rest = A @ y - TARGET
    return float(rest @ rest) / 30 + float(x @ y**2), y**2, 2 * A.T @ rest / 30 + 2 * x * y


def exact(x: Any) -> Any:
    """The true gradient by the implicit function theorem."""
    curvature = 2 * A.T @ A / 30 + 2 * np.diag(x)
    y = np.linalg.solve(curvature, 2 * A.T @ TARGET / 30)
    return -2 * y * np.linalg.solve(curvature, upper(x, y)[2])


def test_the_gradient_is_off_by_a_multiple_of_sigma() -> None:
    x = np.array([0.1, 0.3, 0.2, 0.5])
    off = []
    for sigma in (1e-1, 1e-2, 1e-3):
        descent = PenaltyBilevel(upper, lower, x, np.zeros(4), sigma=sigma, rate_x=0.1, rate_y=0.15)
        off.append(float(np.linalg.norm(descent.settle(800) - exact(x))))
    assert off[0] / off[1] == pytest.approx(10, rel=0.3)
    assert off[1] / off[2] == pytest.approx(10, rel=0.3)


def test_a_level_of_many_minimisers_lets_the_upper_one_choose() -> None:
    # y[0] + y[1] is x; of all such y the upper level wants the one nearest to (1, 0).
    def wish(_x: Any, y: Any) -> tuple[float, Any, Any]:
        gap = y - np.array([1.0, 0.0])
        return float(gap @ gap), np.zeros(1), 2 * gap

    def sums(x: Any, y: Any) -> tuple[float, Any, Any]:
        gap = y.sum() - x[0]
        return float(gap**2), np.array([-2 * gap]), np.full(2, 2 * gap)

    # The least of the upper level on the line is (x - 1)^2 / 2.
    descent = PenaltyBilevel(wish, sums, [0.2], [0.0, 0.0], sigma=1e-2, rate_x=0.1, rate_y=0.2, bounds=(-5, 5))
    assert descent.settle(6000)[0] == pytest.approx(0.2 - 1, rel=0.02)


def test_a_box_on_the_lower_level_is_kept() -> None:
    ends = np.array([[-0.1, 0.1]] * 4)
    descent = PenaltyBilevel(
        upper, lower, np.full(4, 0.2), np.zeros(4), sigma=1e-3, rate_x=0.05, rate_y=0.1, bounds_y=ends
    )
    # Where the box binds, the penalty of that coefficient changes nothing.
    gradient = descent.settle(2000)
    bound = np.abs(np.abs(descent.z) - 0.1) < 1e-12
    assert bound.any()
    np.testing.assert_allclose(gradient[bound], 0.0, atol=1e-9)
    assert (np.abs(descent.y) <= 0.1).all()


def test_rows_with_wrong_labels_lose_their_weight() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 5))
    y = (X @ [2.0, -1, 1, 0, 0] > 0).astype(int)
    wrong = rng.random(80) < 0.2
    given = np.where(wrong, 1 - y[:80], y[:80])
    plan = bilevel_weights(X[:80], given, X_valid=X[80:], y_valid=y[80:], rounds=60)
    assert plan.amounts[wrong].mean() < plan.amounts[~wrong].mean() - 0.3
    assert plan.info["path"][-1] < plan.info["path"][0]
    assert plan.info["gradients"] == 60 * (2 * 20 + 20 + 3)


def test_refusals() -> None:
    X, y = [[0.0], [1.0]], [0, 1]
    clean: dict[str, Any] = {"X_valid": [[0.5]], "y_valid": [1]}
    refused(lambda: bilevel_weights(X, y, X_valid=[[1.0, 2.0]], y_valid=[1]), "X has 1 columns, X_valid 2")
    refused(lambda: bilevel_weights(X, y, X_valid=[[1.0]], y_valid=[1]), "X_valid has 1 rows that are also in X")
    refused(lambda: bilevel_weights(X, [0, 0], **clean), "y has a single class")
    refused(lambda: bilevel_weights(X, y, X_valid=[[0.5]], y_valid=[7]), "y_valid at row 0 is")
    refused(lambda: bilevel_weights(X, y, sigma=0, **clean), "sigma=0: give a number above 0")

    def make(**more: Any) -> PenaltyBilevel:
        words: dict[str, Any] = {"sigma": 0.1, "rate_x": 0.1, "rate_y": 0.1, **more}
        return PenaltyBilevel(words.pop("upper", upper), words.pop("lower", lower), np.ones(4), np.zeros(4), **words)

    refused(lambda: make(upper=3), "upper is int; give a function")
    refused(lambda: make(momentum=1.0), "momentum=1")
    refused(lambda: make(rate_y=-1.0), "rate_y")
    refused(lambda: make(bounds=[1, 2, 3]), "bounds has shape (3,)")
    refused(lambda: make(bounds=(1, 0)), "bounds at row 0 is 1 to 0")
    refused(lambda: make(lower=lambda x, y: 1.0).step(), "lower returned float")
    refused(lambda: make(lower=lambda x, y: (1.0, x[:1], y)).step(), "its gradient in x has shape (1,)")
    with np.errstate(over="ignore", invalid="ignore"):
        refused(lambda: make(rate_y=1e9).step(30), "is not finite")
