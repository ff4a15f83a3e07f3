"""Dynamic ensemble selection against a plain restatement of each strategy, and what its search chooses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import MultinomialNB

import kofn
from kofn.combination import blend_predictions, dynamic_ensemble_selection, ensemble_selection
from kofn.core.checks import InputError
from kofn.core.plans import Blend

K = 7


def _drawn(n: int, m: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Rows, their classes, and members that are the more right the nearer a row is to a center of their own."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 6, (n, 2)).astype(float), rng.integers(0, classes, n)
    members = []
    for _ in range(m):
        skill = 2.5 * np.exp(-0.3 * np.square(X - rng.uniform(0, 6, 2)).sum(axis=1))
        logits = skill[:, None] * np.eye(classes)[y] + rng.normal(size=(n, classes))
        members.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return X, y, members


def _near(X: np.ndarray, row: np.ndarray, k: int, left_out: int | None = None) -> list[int]:
    far = [(math.fsum((a - b) ** 2 for a, b in zip(row, other, strict=True)), i) for i, other in enumerate(X)]
    return [i for _, i in sorted(pair for pair in far if pair[1] != left_out)][:k]


def _weights(strategy: str, hits: np.ndarray, truth: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The weights of one row from its neighbours' hits (k, m), as each strategy is described."""
    m = hits.shape[1]
    if strategy == "knora_e":
        for size in range(len(hits), 0, -1):
            oracles = hits[:size].all(axis=0)
            if oracles.any():
                return oracles / oracles.sum()
        return np.full(m, 1 / m)
    if strategy == "knora_u":
        return hits.sum(axis=0) / hits.sum() if hits.any() else np.full(m, 1 / m)
    if strategy == "ola":
        best = hits.sum(axis=0) == hits.sum(axis=0).max()
        return best / best.sum()
    if strategy == "lca":
        local = [hits[truth == vote, i].mean() if (truth == vote).any() else 0.0 for i, vote in enumerate(votes)]
        return np.isclose(local, max(local)) / np.isclose(local, max(local)).sum()
    least = sorted(hits.sum(axis=0))[m - max(1, m // 2)]
    shared = [sum(int((~hits[:, i] & ~hits[:, j]).sum()) for j in range(m) if j != i) for i in range(m)]
    seats = min(max(1, m // 2), math.ceil(0.3 * m))
    keys = {i: (shared[i], -int(hits[:, i].sum())) for i in range(m) if hits[:, i].sum() >= least}
    last = sorted(keys.values())[seats - 1]
    ahead, tied = [i for i in keys if keys[i] < last], [i for i in keys if keys[i] == last]
    out = np.zeros(m)
    out[ahead], out[tied] = 1.0, (seats - len(ahead)) / len(tied)
    return out / seats


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strategy", ["knora_e", "knora_u", "ola", "lca", "des_knn"])
def test_strategies_as_described(strategy: str, classes: int) -> None:
    X, y, members = _drawn(70, 6, classes, seed=classes)
    known = 50
    plan = dynamic_ensemble_selection(
        [member[:known] for member in members],
        y=y[:known],
        X=X[:known],
        strategy=strategy,
        n_neighbors=K,
        standardize=False,
        folds=0,
    )
    votes = np.array([member.argmax(axis=1) for member in members]).T
    hits = votes == y[:, None]
    blend = blend_predictions(plan, [member[known:] for member in members], X=X[known:])
    for row in range(len(y)):
        near = _near(X[:known], X[row], K, row)
        weights = _weights(strategy, hits[near], y[near], votes[row])
        got = plan.result[row] if row < known else blend[row - known]
        np.testing.assert_allclose(got, sum(w * member[row] for w, member in zip(weights, members, strict=True)))


@pytest.mark.parametrize("strategy", ["knora_e", "knora_u", "ola", "lca", "des_knn", "meta_des"])
def test_the_order_of_the_members_does_not_count(strategy: Any) -> None:
    X, y, members = _drawn(60, 7, 2, seed=9)
    members[4] = members[1].copy()
    order = np.random.default_rng(0).permutation(len(members))
    words: dict[str, Any] = {"y": y, "X": X, "strategy": strategy, "n_neighbors": 3, "folds": 0}
    plan = dynamic_ensemble_selection(members, **words)
    other = dynamic_ensemble_selection([members[i] for i in order], **words)
    np.testing.assert_allclose(other.result, plan.result, rtol=1e-12)
    np.testing.assert_allclose(other.info["row_weights"], plan.info["row_weights"][:, order], rtol=1e-12)


def test_meta_des_as_described() -> None:
    X, y, members = _drawn(90, 5, 3, seed=4)
    known, m = 60, len(members)
    P = np.array(members).transpose(1, 0, 2)
    hits = P.argmax(axis=2) == y[:, None]
    flat = P.reshape(len(P), -1)

    def features(row: int, left_out: int | None) -> np.ndarray:
        near = _near(X[:known], X[row], K, left_out)
        alike = _near(flat[:known], flat[row], 5, left_out)
        rows = [
            [*hits[near, i], *P[near, i, y[near]], hits[near, i].mean(), *hits[alike, i], P[row, i].max()]
            for i in range(m)
        ]
        return np.digitize(np.array(rows, float), np.linspace(0.1, 1, 10))

    judge = MultinomialNB().fit(np.concatenate([features(row, row) for row in range(known)]), hits[:known].ravel())
    parts = [member[:known] for member in members]
    plan = dynamic_ensemble_selection(
        parts, y=y[:known], X=X[:known], strategy="meta_des", n_neighbors=K, standardize=False, folds=0
    )
    blend = blend_predictions(plan, [member[known:] for member in members], X=X[known:])
    for row in range(known, len(y)):
        right = judge.predict_proba(features(row, None))[:, 1] > 0.5
        np.testing.assert_allclose(blend[row - known], P[row][right if right.any() else slice(None)].mean(axis=0))


def _halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Two experts of a half each, and one that is fair everywhere."""
    rng = np.random.default_rng(seed)
    X, y = rng.uniform(0, 1, (n, 1)), rng.integers(0, 2, n)

    def right(often: np.ndarray) -> np.ndarray:
        hit = rng.random(n) < often
        return np.where(hit == (y == 1), 0.8, 0.2)

    left = X[:, 0] < 0.5
    return X, y, [right(np.where(left, 0.95, 0.4)), right(np.where(left, 0.4, 0.95)), right(np.full(n, 0.7))]


def test_the_search_takes_a_strategy_where_members_are_experts_of_regions() -> None:
    X, y, members = _halves(400, seed=0)
    plan = kofn.combine(
        members, y=y, X=X, method="dynamic_ensemble_selection", loss="accuracy", seed=0, ids=["l", "r", "f"]
    )
    assert plan.info["n_neighbors"] is not None
    assert plan.info["held_out"]["over_single"] == plan.info["held_out"]["over_mean"] == "better"
    assert plan.info["held_out"]["blend"] > 0.88
    assert max(plan.info["tried"].values()) == max(
        value for name, value in plan.info["tried"].items() if name.startswith(plan.info["strategy"])
    )
    static = ensemble_selection(members, y=y, loss="accuracy", seed=0)
    assert static.info["held_out"]["blend"] < plan.info["held_out"]["blend"] - 0.05
    assert plan.keys(np.arange(3)).tolist() == ["l", "r", "f"]


def test_the_search_takes_one_blend_for_all_rows_where_regions_say_nothing() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    chances = [1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=300) * size))) for size in (1.0, 1.5, 2.0, 4.0)]
    plan = dynamic_ensemble_selection(chances, y=y, X=rng.normal(size=(300, 3)), seed=0)
    assert plan.info["n_neighbors"] is None
    assert "row_weights" not in plan.info
    np.testing.assert_allclose(blend_predictions(plan, chances, X=None), plan.result)


def test_columns_count_alike_whatever_their_unit() -> None:
    X, y, members = _halves(200, seed=2)
    wide = np.column_stack([X, 1e6 * np.random.default_rng(0).normal(size=200), np.full(200, 3.0)])
    words: dict[str, Any] = {"strategy": "ola", "n_neighbors": 9, "folds": 0, "loss": "accuracy"}
    plan = dynamic_ensemble_selection(members, y=y, X=wide, **words)
    scaled = dynamic_ensemble_selection(members, y=y, X=wide * [1e-200, 1e150, 7.0], **words)
    np.testing.assert_array_equal(plan.result, scaled.result)
    raw = dynamic_ensemble_selection(members, y=y, X=wide, standardize=False, **words)
    assert raw.value < plan.value


def test_a_member_without_a_prediction_has_no_say(tmp_path: Any) -> None:
    X, y, members = _halves(60, seed=3)
    members[0][:10] = np.nan
    plan = dynamic_ensemble_selection(members, y=y, X=X, strategy="knora_u", folds=0)
    weights = plan.info["row_weights"][0, 1:]
    np.testing.assert_allclose(
        plan.result[0], weights @ [members[1][0], members[2][0]] / weights.sum() if weights.any() else 0.5
    )
    again = Blend.load(plan.save(tmp_path / "plan.npz"))
    gaps = [member.copy() for member in members]
    gaps[1][5] = np.nan
    np.testing.assert_array_equal(blend_predictions(again, gaps, X=X), blend_predictions(plan, gaps, X=X))


def test_features_in_a_frame() -> None:
    X, y, members = _halves(60, seed=3)
    frame = pd.DataFrame(X, index=[f"row {i}" for i in range(60)])
    words: dict[str, Any] = {"y": y, "method": "dynamic_ensemble_selection", "strategy": "ola", "folds": 0}
    plan = kofn.combine(members, X=frame, **words)
    np.testing.assert_array_equal(plan.result, kofn.combine(members, X=X, **words).result)
    assert plan.ids is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "numbers": ({"y": [1.0, 2.0, 3.5]}, "y at row 2 is 3.5, a number, of which nobody is right or wrong; give classes"),
    "one class of another name": ({"y": [2, 2, 2]}, r"y has one class \(2\), members have one column"),
    "counts": ({"y": [4, 9, 17]}, r"y has 3 classes \(4, 9, 17\), members have one column"),
    "other rows": ({"X": [[1.0], [2.0]]}, "X has 2 rows, y has 3 values; give the features of the rows of y"),
    "gaps": ({"X": [[1.0], [np.nan], [2.0]]}, "X"),
    "too many neighbours": ({"n_neighbors": 3}, "each of 3 rows has 2 others; ask for at most 2"),
    "too many of weight": (
        {"n_neighbors": 2, "row_weights": [1, 0, 2]},
        "n_neighbors=2: each of 2 rows of positive weight has 1 others; ask for at most 1",
    ),
    "one of weight": ({"row_weights": [0, 3, 0]}, "row_weights is positive at row 1 alone"),
    "none": ({"n_neighbors": 0}, "n_neighbors=0"),
    "no such": ({"strategy": "knora"}, "strategy='knora'"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"y": [0, 1, 1], "X": [[1.0], [2.0], [4.0]], "folds": 0, **words}
    with pytest.raises(InputError, match=says):
        kofn.combine([[0.1, 0.5, 0.9], [0.2, 0.4, 0.6]], method="dynamic_ensemble_selection", **given)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("y", [[0, 1, 1], [0, 0, 0], [False, True, True]])
def test_scores_for_probabilities_are_named_whatever_the_answers(y: list[Any], width: int) -> None:
    scores = np.array([[0.1, 0.9], [7.5, 0.3], [0.2, 0.8]])[:, :width].squeeze()
    with pytest.raises(
        InputError, match=r"member 0 at row 1 is 7.5; log_loss is of probabilities in \[0, 1\]"
    ) as error:
        dynamic_ensemble_selection([scores, scores], y=y, X=[[1.0], [2.0], [4.0]], folds=0)
    assert ("of scores say loss='accuracy'" in str(error.value)) == (width > 1)


@pytest.mark.parametrize("folds", [0, 3])
def test_no_more_neighbours_are_told_than_rows_of_positive_weight_have(folds: int) -> None:
    X, y, members = _halves(60, seed=0)
    heavy = np.zeros(60)
    heavy[::10] = 1.0
    plan = dynamic_ensemble_selection(
        members, y=y, X=X, row_weights=heavy, strategy="knora_u", folds=folds, loss="accuracy", seed=0
    )
    assert plan.info["n_neighbors"] == 5
    assert all("11" not in name and "23" not in name for name in plan.info["tried"])
    near = [_near(X[::10], row, 5, None if i % 10 else i // 10) for i, row in enumerate(X)]
    hits = np.array([(member > 0.5) == y for member in members]).T[::10]
    counts = np.array([hits[index].sum(axis=0) for index in near])
    np.testing.assert_allclose(plan.info["row_weights"], counts / counts.sum(axis=1, keepdims=True))


def test_one_class_is_answered_by_the_default_loss_and_warned_of() -> None:
    X, _, members = _halves(60, seed=0)
    for y, name in ((np.zeros(60, int), "0"), (np.ones(60), "1"), (np.zeros(60, bool), "0")):
        plan = dynamic_ensemble_selection(members, y=y, X=X, seed=0)
        assert plan.objective == "log_loss"
        assert [text for text in plan.info["warnings"] if text.startswith(f"y is {name} in all 60 rows")]
    both = dynamic_ensemble_selection(members, y=np.arange(60) % 2, X=X, seed=0)
    assert not [text for text in both.info["warnings"] if " in all " in text]


def test_other_rows_need_their_features() -> None:
    X, y, members = _halves(40, seed=5)
    plan = dynamic_ensemble_selection(members, y=y, X=X, strategy="ola", folds=0)
    with pytest.raises(InputError, match="X is missing: the plan chooses members row by row"):
        blend_predictions(plan, members)
    with pytest.raises(InputError, match=r"X has shape \(40, 2\); give \(40, 1\)"):
        blend_predictions(plan, members, X=np.tile(X, 2))
    with pytest.raises(InputError, match="members predict one row"):
        dynamic_ensemble_selection([[0.2]], y=["a"], X=[[1.0]], classes=["a", "b"])
    scores = [np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 1.0]])] * 2
    with pytest.raises(InputError, match="meta_des' reads probabilities"):
        dynamic_ensemble_selection(scores, y=[0, 1, 1], X=[[1.0], [2.0], [3.0]], loss="accuracy", strategy="meta_des")
    assert dynamic_ensemble_selection(scores, y=[0, 1, 1], X=[[1.0], [2.0], [3.0]], loss="accuracy", folds=0).n == 2


def test_a_name_of_a_strategy_as_a_method_is_answered() -> None:
    with pytest.raises(InputError, match="dynamic_ensemble_selection"):
        kofn.combine([[0.1, 0.9]], y=[0, 1], method="knora_e")


@pytest.mark.parametrize("strategy", ["knora_e", "knora_u", "ola", "lca", "des_knn", "meta_des"])
def test_no_rows_blend_to_none(strategy: str) -> None:
    X, y, members = _halves(40, seed=5)
    for given in (members, [np.column_stack([1 - member, member]) for member in members]):
        plan = dynamic_ensemble_selection(given, y=y, X=X, strategy=strategy, folds=0)
        none = [member[:0] for member in given]
        assert blend_predictions(plan, none, X=X[:0]).shape == given[0][:0].shape
        with pytest.raises(InputError, match="X is missing"):
            blend_predictions(plan, none)
        with pytest.raises(InputError, match=r"X has shape \(40, 1\); give \(0, 1\)"):
            blend_predictions(plan, none, X=X)
