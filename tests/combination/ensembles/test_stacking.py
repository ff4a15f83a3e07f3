"""Stackers against solvers of their own, and that freedom follows what the data have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from kofn.combination import blend_predictions, ensemble_selection, stacking
from kofn.combination.ensembles._losses import LOG, PINBALL, SQUARE
from kofn.combination.ensembles._simplex import Penalised, least, loss_of, on_simplex, settled
from kofn.core.checks import InputError


def _numbers(n: int, seed: int, noise: Any = (0.5, 0.7, 1.0)) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return [y + size * rng.normal(size=n) for size in noise], y


@pytest.mark.parametrize("kind", [LOG, SQUARE, PINBALL])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_weights_on_the_simplex_are_those_of_another_solver(kind: int, penalty: float) -> None:
    rng = np.random.default_rng(kind)
    A = rng.uniform(0.05, 1, (80, 4)) if kind == LOG else rng.normal(size=(80, 4))
    loss = loss_of(kind, A, A @ [0.1, 0.7, 0.2, 0.0] + 0.3 * rng.normal(size=80), np.full(80, 0.3))
    equal = np.full(4, 0.25)

    def whole(weights: np.ndarray) -> float:
        return loss.value_and_slopes(weights)[0] + penalty * float(np.square(weights - equal).sum())

    weights = least(loss, equal, equal, penalty)
    sums = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    theirs = minimize(whole, equal, method="SLSQP", bounds=[(0, 1)] * 4, constraints=sums, options={"ftol": 1e-14})
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert whole(weights) <= theirs.fun + 1e-5 * abs(theirs.fun)
    exact = settled(loss, weights, equal, penalty)
    assert exact.min() >= 0
    assert exact.sum() == pytest.approx(1)
    assert whole(exact) <= theirs.fun + 1e-10 * abs(theirs.fun)


@pytest.mark.parametrize("kind", [LOG, SQUARE, PINBALL])
@pytest.mark.parametrize(("n", "m", "penalty"), [(500, 30, 0.0), (500, 30, 0.01), (20, 60, 0.0), (3, 2, 0.0)])
def test_settled_weights_are_proven_best_by_their_slopes(kind: int, n: int, m: int, penalty: float) -> None:
    """Also where members are copies, where there are more of them than rows, and where rounded errors are flat."""
    rng = np.random.default_rng(m + n)
    A = rng.uniform(0.01, 1, (n, m)) if kind == LOG else rng.normal(size=(n, m))
    A[:, m // 2] = A[:, 0]
    target = A @ rng.dirichlet(np.ones(m)) + 0.3 * rng.normal(size=n)
    loss, equal = loss_of(kind, A, target, np.full(n, 0.3)), np.full(m, 1 / m)
    weights = settled(loss, least(loss, equal, equal, penalty), equal, penalty)
    value, slopes = loss.value_and_slopes(weights)
    value += penalty * float(np.square(weights - equal).sum())
    slopes = slopes + 2 * penalty * (weights - equal)
    assert slopes @ weights - slopes.min() <= 1e-7 * value
    assert Penalised(loss, equal, penalty).gap(weights) == pytest.approx(slopes @ weights - slopes.min(), abs=1e-15)


@pytest.mark.parametrize("loss", ["rmse", "mae", "log_loss", "brier"])
@pytest.mark.parametrize("final", ["simplex", "varying"])
def test_a_plan_says_how_far_it_can_be_from_the_best_weights(loss: str, final: str) -> None:
    members, y = _numbers(120, 5)
    groups = np.arange(120) % 3
    if loss in ("log_loss", "brier"):
        members, y = [1 / (1 + np.exp(-3 * part)) for part in members], (y > 0).astype(int)
    plan = stacking(members, y=y, loss=loss, final=final, groups=groups if final == "varying" else None, seed=0)
    assert 0 <= plan.info["within"] <= 1e-9


def test_the_nearest_point_of_the_simplex_is_nearest() -> None:
    rng = np.random.default_rng(0)
    for point in rng.normal(size=(20, 5)) * 3:
        ours = on_simplex(point)
        assert ours.sum() == pytest.approx(1)
        others = rng.dirichlet(np.full(5, 0.3), 500)
        assert np.square(ours - point).sum() <= np.square(others - point).sum(axis=1).min() + 1e-12


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge

    members, y = _numbers(150, 1)
    plan = stacking(members, y=y, final="ridge", seed=0)
    A = np.stack(members, axis=1)
    centred = A - A.mean(axis=0)
    strength = plan.info["penalty"] * np.trace(centred.T @ centred) / 3
    theirs = Ridge(alpha=strength).fit(A, y - A.mean(axis=1))  # drawn towards equal weights
    np.testing.assert_allclose(plan.weights, 1 / 3 + theirs.coef_, rtol=1e-6)
    np.testing.assert_allclose(plan.result, theirs.predict(A) + A.mean(axis=1), rtol=1e-6)


def test_logistic_is_scikit_learns_without_a_penalty() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 400)
    logits = [(2 * y - 1) * 0.8 + rng.normal(size=400) for _ in range(2)]
    members = [1 / (1 + np.exp(-part)) for part in logits]
    plan = stacking(members, y=y, final="logistic", penalty=1e-6, seed=0)
    theirs = LogisticRegression(C=1e6).fit(np.stack(logits, axis=1), y).predict_proba(np.stack(logits, axis=1))[:, 1]
    assert np.abs(plan.result - theirs).max() < 0.03
    assert plan.form == "none"


def test_freedom_follows_what_varies() -> None:
    """Forecasters that are good at one step of the horizon each get weights by step, alike ones shared weights."""
    rng = np.random.default_rng(3)
    steps, y = np.tile([1, 2, 3], 200), rng.normal(size=600)
    skill = np.array([[0.1, 1.0, 1.0], [1.0, 0.1, 1.0], [1.0, 1.0, 0.1]])
    members = [y + skill[j][steps - 1] * rng.normal(size=600) for j in range(3)]
    plan = stacking(members, y=y, groups=steps, seed=0)
    assert plan.info["final"] == "varying"
    for step in (1, 2, 3):
        assert int(np.argmax(plan.weights[str(step)])) == step - 1
    assert plan.info["held_out"]["over_single"] == "better"
    alike = stacking(_numbers(60, 4, (1.0, 1.0, 1.0))[0], y=_numbers(60, 4)[1], groups=np.arange(60) % 3, seed=0)
    assert alike.info["final"] != "varying"
    again = blend_predictions(plan, [part[:6] for part in members], groups=steps[:6])
    np.testing.assert_allclose(again, plan.result[:6])
    unseen = blend_predictions(plan, [part[:2] for part in members], groups=[9, 9])
    np.testing.assert_allclose(unseen, np.stack([part[:2] for part in members], axis=1) @ plan.info["shared"])
    none = [part[:0] for part in members]
    assert blend_predictions(plan, none, groups=steps[:0]).shape == (0,)
    with pytest.raises(InputError, match="members"):
        blend_predictions(plan, none, groups=[9])
    with pytest.raises(InputError, match="weights vary over them; give"):
        blend_predictions(plan, members)


def test_weights_by_quantile() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=400)
    right = np.quantile(y, [0.1, 0.9])
    good_low = np.tile([right[0], 5.0], (400, 1))
    good_high = np.tile([-5.0, right[1]], (400, 1))
    plan = stacking([good_low, good_high], y=y, quantiles=[0.1, 0.9], by_column=True, seed=0)
    assert plan.weights["all, column 0"][0] > 0.9
    assert plan.weights["all, column 1"][1] > 0.9
    np.testing.assert_allclose(blend_predictions(plan, [good_low[:3], good_high[:3]]), plan.result[:3])


def test_missing_predictions_count_as_the_mean_of_the_others() -> None:
    members, y = _numbers(80, 6)
    members[0][::3] = np.nan
    plan = stacking(members, y=y, final="simplex", seed=0)
    filled = np.where(np.isnan(members[0]), np.mean(members[1:], axis=0), members[0])
    np.testing.assert_allclose(plan.result, np.stack([filled, *members[1:]], axis=1) @ plan.weights)


REFUSED = {
    "accuracy": ({"loss": "accuracy"}, "loss='accuracy': choose one of|loss='accuracy'"),
    "columns of a mean": ({"by_column": True}, "by_column is of quantiles, this is loss='rmse'"),
    "no groups": ({"final": "varying"}, "final='varying' is not of loss='rmse' without groups"),
    "logistic of numbers": ({"final": "logistic"}, "final='logistic' is not of loss='rmse'; leave it out"),
    "a penalty of no way": ({"penalty": 0.1}, "penalty=0.1 is of one way of weighing; name it by final"),
    "a penalty below zero": ({"penalty": -1, "final": "simplex"}, "penalty=-1"),
    "other groups": ({"groups": [1, 2]}, "groups has 2 values, y has 4; give one a row"),
    "no folds": ({"folds": -1}, "folds=-1"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        stacking([[0.1, 2.0, 3.0, 4.0], [1.0, 1.5, 3.5, 4.5]], y=[0.5, 1.5, 3.0, 4.0], **words)


@pytest.mark.parametrize("search", [stacking, ensemble_selection])
def test_another_unit_changes_neither_folds_nor_weights(search: Any) -> None:
    """Which rows are judged together depended on the bits of the predictions, and so on their unit."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=40)
    members = [y + rng.normal(size=40) * scale for scale in (0.3, 0.5, 0.8, 2.0)]
    members = [np.append(member, [0.0, -0.0]) for member in members]
    y = np.append(y, [1.0, 1.0])
    plan = search(members, y=y, seed=0)
    assert plan.info["repeated_rows"] == 1  # 0 and -0 are one prediction
    for factor in (2.0, 8.0, 2.0**-400):
        again = search([factor * member for member in members], y=factor * y, seed=0)
        np.testing.assert_array_equal(again.weights, plan.weights)
        assert again.info["held_out"]["blend"] == factor * plan.info["held_out"]["blend"]
        for way, loss in plan.info.get("tried", {}).items():
            assert again.info["tried"][way] == factor * loss
    # Other factors round the numbers, and fits end within a hundred-thousandth of the least loss.
    again = search([3.0 * member for member in members], y=3.0 * y, seed=0)
    np.testing.assert_allclose(again.weights, plan.weights, rtol=1e-9)
    assert again.info["held_out"]["blend"] == pytest.approx(3.0 * plan.info["held_out"]["blend"], rel=1e-5)
