"""Greedy ensemble selection against a plain restatement of the algorithm, and what its plans say."""

from __future__ import annotations

import ast
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from law_runs import keeps_laws_at_size

import kofn
from kofn.combination import blend_predictions, ensemble_selection
from kofn.core.checks import InputError


def plainly(members: Any, loss: Any, rounds: int, k: int, *, sorted_start: bool = False) -> np.ndarray:
    """Caruana's selection as it is written: every round tries every member and rates the whole blend."""
    added: list[int] = []
    path: list[tuple[float, int]] = []
    if sorted_start:
        best_first = sorted(range(len(members)), key=lambda j: (loss(members[j]), j))[: min(k, rounds)]
        for count in range(1, len(best_first) + 1):
            path.append((loss(np.mean([members[i] for i in best_first[:count]], axis=0)), count))
        added = best_first[: min(path)[1]]
        del path[len(added) :]
    for _ in range(rounds - len(added)):
        candidates = range(len(members)) if len(set(added)) < k else sorted(set(added))
        rated = [(loss(np.mean([members[i] for i in [*added, j]], axis=0)), j) for j in candidates]
        # Sums of floats differ in their last bits: near-ties go to the lowest number here too.
        least = min(rated)[0]
        chosen = next(j for value, j in rated if value <= least + 1e-12)
        added.append(chosen)
        path.append((least, len(added)))
    least = min(value for value, _ in path)
    count = next(length for value, length in path if value <= least + 1e-12)
    return np.bincount(added[:count], minlength=len(members)) / count


def _classes(n: int, m: int, count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, count, n)
    logits = [np.eye(count)[y] * rng.uniform(0.2, 2) + rng.normal(size=(n, count)) for _ in range(m)]
    return [np.exp(part) / np.exp(part).sum(axis=1, keepdims=True) for part in logits], y


@pytest.mark.parametrize("k", [2, 7])
@pytest.mark.parametrize("loss", ["log_loss", "brier", "accuracy"])
def test_classes_as_written_plainly(loss: str, k: int) -> None:
    members, y = _classes(150, 7, 3, seed=k)
    rows = np.arange(len(y))
    plain = {
        "log_loss": lambda P: -np.log(P[rows, y]).mean(),
        "brier": lambda P: np.square(P - np.eye(3)[y]).sum(axis=1).mean(),
        "accuracy": lambda P: (P.argmax(axis=1) != y).mean(),
    }[loss]
    plan = ensemble_selection(members, y=y, loss=loss, k=k, rounds=12, folds=0)
    np.testing.assert_allclose(plan.weights, plainly(members, plain, 12, k), atol=1e-12)
    mean = plain(plan.result)
    assert plan.value == pytest.approx(1 - mean if loss == "accuracy" else mean)


@pytest.mark.parametrize(("sorted_start", "bags"), [(True, 1), (False, 20), (True, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_a_sorted_start_and_bags_as_written_plainly(seed: int, bags: int, *, sorted_start: bool) -> None:
    """As published in 2004: with replacement, begun with the best models, the mean of bags of half of the models."""
    members, y = _classes(150, 8, 3, seed=20 + seed)
    rows = np.arange(len(y))

    def loss(P: np.ndarray) -> float:
        return -np.log(P[rows, y]).mean()

    plan = ensemble_selection(members, y=y, rounds=10, folds=0, sorted_start=sorted_start, bags=bags, seed=seed)
    rng = np.random.default_rng(seed)
    drawn = [np.arange(8)] if bags == 1 else [np.sort(rng.choice(8, 4, replace=False)) for _ in range(bags)]
    expected = np.zeros(8)
    for bag in drawn:
        expected[bag] += plainly([members[j] for j in bag], loss, 10, 8, sorted_start=sorted_start) / bags
    np.testing.assert_allclose(plan.weights, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_autogluon(seed: int) -> None:
    ensembles = pytest.importorskip("autogluon.core.models.greedy_ensemble.ensemble_selection", reason="a peer")
    metrics = pytest.importorskip("autogluon.core.metrics", reason="a peer")
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 400)
    members = [1 / (1 + np.exp(-(2 * y - 1) * rng.uniform(0.2, 1) - rng.normal(size=400))) for _ in range(12)]
    theirs = ensembles.EnsembleSelection(20, "binary", metrics.log_loss).fit(members, y).weights_
    np.testing.assert_allclose(ensemble_selection(members, y=y, rounds=20, folds=0).weights, theirs, atol=1e-12)


@pytest.mark.parametrize("loss", ["rmse", "mae", "pinball"])
def test_numbers_as_written_plainly(loss: str) -> None:
    rng = np.random.default_rng(3)
    y = 1e5 * rng.normal(size=120)
    columns = 3 if loss == "pinball" else 1
    members = [y[:, None] + 1e5 * rng.normal(size=(120, columns)) * rng.uniform(0.3, 1) for _ in range(6)]
    levels = np.array([0.1, 0.5, 0.8])[:columns] if loss == "pinball" else np.array([0.5])

    def plain(blend: np.ndarray) -> float:
        off = y[:, None] - blend
        if loss == "rmse":
            return float(np.square(off).mean())
        return float(np.maximum(levels * off, (levels - 1) * off).mean())

    given = members if columns > 1 else [member[:, 0] for member in members]
    words = {"quantiles": levels} if loss == "pinball" else {"loss": loss}
    plan = ensemble_selection(given, y=y, rounds=9, folds=0, **words)
    np.testing.assert_allclose(plan.weights, plainly(members, plain, 9, 6), atol=1e-12)


def test_rows_without_a_prediction_count_for_those_who_have_one() -> None:
    nan = np.nan
    members = [[0.9, nan, 0.2], [nan, 0.4, nan], [0.5, 0.5, 0.5]]
    plan = ensemble_selection(members, y=[1, 0, 0], rounds=1, folds=0)
    # Alone, the first is right in two rows; in the one that it lacks the mean of the others stands in.
    assert plan.weights.tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(plan.result, [0.9, 0.45, 0.2])
    assert plan.info["missing"] == 3


def test_the_bound_is_below_every_weighted_mean() -> None:
    members, y = _classes(200, 5, 2, seed=0)
    plan = ensemble_selection(members, y=y, folds=0, rounds=100)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(5, 0.5), 4000)
    losses = -np.log(np.tensordot(weights, np.array(members)[:, np.arange(200), y], axes=1)).mean(axis=1)
    assert plan.bound is not None
    assert plan.bound <= losses.min() <= plan.value + 0.01
    assert plan.value - plan.bound < 0.01


def test_a_gain_that_is_none_is_told_as_none() -> None:
    """On rows that did not choose, a blend of noise around one truth is no better than the best of them."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    base = np.clip(0.5 + (y - 0.5) * 0.4 + rng.normal(size=400) * 0.1, 0.01, 0.99)
    copies = [base, *(np.full(400, 0.5) for _ in range(4))]
    plan = ensemble_selection(copies, y=y, seed=0)
    assert plan.info["held_out"]["over_single"] == "alike"
    assert plan.info["held_out"]["over_mean"] == "better"
    assert plan.info["held_out"]["best_single"] == pytest.approx(plan.info["single"][0])


def test_rows_given_twice_stay_in_one_fold() -> None:
    members, y = _classes(60, 4, 3, seed=5)
    twice = [np.concatenate([member, member[:20]]) for member in members]
    plan = ensemble_selection(twice, y=np.concatenate([y, y[:20]]), seed=0)
    assert plan.info["repeated_rows"] == 20


def test_a_member_that_saw_the_answers_is_named() -> None:
    members, y = _classes(100, 4, 3, seed=6)
    leak = 0.98 * np.eye(3)[y] + 0.02 / 3
    plan = kofn.combine([*members, leak], y=y, ids=["a", "b", "c", "d", "forest"])
    assert plan.info["warnings"][0].startswith("member 'forest' has log_loss")
    assert not kofn.combine(members, y=y).info["warnings"]


def test_a_column_of_the_other_class_is_told() -> None:
    members, y = _classes(100, 3, 2, seed=7)
    names = np.array(["no", "yes"])[y]
    assert not ensemble_selection([part[:, 1] for part in members], y=names).info["warnings"]
    turned = ensemble_selection([part[:, 0] for part in members], y=names)
    assert "classes=['yes', 'no']" in turned.info["warnings"][0]
    mended = ensemble_selection([part[:, 0] for part in members], y=names, classes=["yes", "no"], folds=0)
    straight = ensemble_selection([part[:, 1] for part in members], y=names, folds=0)
    np.testing.assert_allclose(mended.value, straight.value)


def test_a_sorted_start_begins_with_the_best_members_that_together_lose_least() -> None:
    members, y = _classes(200, 8, 3, seed=8)
    started = ensemble_selection(members, y=y, sorted_start=True, rounds=4, folds=0)
    losses = [-np.log(part[np.arange(200), y]).mean() for part in members]
    best_first = np.argsort(losses)[:4]
    prefixes = [np.mean([members[i] for i in best_first[: count + 1]], axis=0) for count in range(4)]
    together = [-np.log(blend[np.arange(200), y]).mean() for blend in prefixes]
    begun = best_first[: int(np.argmin(together)) + 1]
    assert len(begun) > 1
    assert (started.weights[begun] > 0).all()
    assert started.value <= min(together) + 1e-12


def test_several_bags_keep_the_k_heaviest() -> None:
    members, y = _classes(200, 8, 3, seed=8)
    bagged = ensemble_selection(members, y=y, bags=10, k=3, seed=0, folds=0)
    assert np.count_nonzero(bagged.weights) == 3
    assert bagged.weights.sum() == pytest.approx(1)
    alone = ensemble_selection(members, y=y, bags=10, bag_share=0.01, seed=0, folds=0)
    assert set(np.round(10 * alone.weights, 9)) <= set(range(11))


def test_columns_of_a_table_are_members_by_name() -> None:
    members, y = _classes(80, 3, 3, seed=9)
    names = np.array(["ant", "bee", "cat"])[y]
    columns = {
        f"{model}_{name}": part[:, c]
        for model, part in zip("xyz", members, strict=True)
        for c, name in enumerate(("ant", "bee", "cat"))
    }
    frame = pl.DataFrame({"row": np.arange(80), **columns, "label": names})
    plan = kofn.combine(frame, y="label", ids="row", seed=0)
    assert plan.ids.tolist() == ["x", "y", "z"]
    assert plan.method == "ensemble_selection"
    direct = ensemble_selection(members, y=names, seed=0)
    np.testing.assert_array_equal(plan.weights, direct.weights)
    np.testing.assert_array_equal(plan.result, kofn.combine(frame.drop("label", "row"), y=names, seed=0).result)
    by_name = kofn.combine(dict(zip("xyz", members, strict=True)), y=names, seed=0)
    assert by_name.to_frame()["member"].to_list() == ["x", "y", "z"]


def test_other_rows_are_blended_by_the_same_weights() -> None:
    members, y = _classes(90, 3, 3, seed=10)
    plan = ensemble_selection(members, y=y, folds=0)
    again = blend_predictions(plan, [part[:7] for part in members])
    np.testing.assert_allclose(again, plan.result[:7])
    assert blend_predictions(plan, [part[:0] for part in members]).shape == (0, 3)
    gap = [part[:7].copy() for part in members]
    gap[int(np.argmax(plan.weights))][2] = np.nan
    assert np.isfinite(blend_predictions(plan, gap)).all()
    for wrong, says in (
        (members[:2], "members has 2 predictions, the plan has 3 members"),
        ([part[:, 0] for part in members], "members have 1 columns, those of the plan have 3"),
    ):
        with pytest.raises(InputError, match=says):
            blend_predictions(plan, wrong)
    with pytest.raises(InputError, match="weights do not vary"):
        blend_predictions(plan, members, groups=y)
    with pytest.raises(InputError, match="plan is of weighted_mean"):
        blend_predictions(kofn.combine([[1.0], [2.0]]), [[1.0], [2.0]])


REFUSED = {
    "text answers of numbers": ({"y": ["a", "b", "a"], "loss": "rmse"}, "y holds text"),
    "a class of its own": ({"y": [0, 1, 2], "classes": [0, 1]}, "y at row 2 is 2, which is none of classes"),
    "too many names": ({"y": [0, 1, 1], "classes": [0, 1, 2]}, "classes names 3, members have one column"),
    "fractions as classes": ({"y": [0.5, 1.0, 0.5], "loss": "log_loss"}, "y holds 0.5, which is no class"),
    "one class": ({"y": ["a", "a", "a"]}, "y has one class (a), members have one column"),
    "levels of a mean": ({"y": [0.1, 1.0, 2.0], "quantiles": [0.5], "loss": "rmse"}, "quantiles are of loss='pinball'"),
    "no levels": ({"y": [0.1, 1.0, 2.0], "loss": "pinball"}, "loss='pinball' needs quantiles"),
    "a level of one": ({"y": [0.1, 1.0, 2.0], "quantiles": [1.0]}, r"quantiles=\[1.0\]: give numbers in \(0, 1\)"),
    "two levels": ({"y": [0.1, 1.0, 2.0], "quantiles": [0.2, 0.5]}, "quantiles has 2 values, members have 1 columns"),
    "classes of numbers": (
        {"y": [0.1, 1.0, 2.0], "classes": [0, 1], "loss": "rmse"},
        "classes are of log_loss, brier, accuracy",
    ),
    "no bags": ({"y": [0, 1, 1], "bags": 0}, "bags=0"),
    "a share of two": ({"y": [0, 1, 1], "bag_share": 2}, "bag_share=2"),
    "no rounds": ({"y": [0, 1, 1], "rounds": 0}, "rounds=0"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says.replace("(a)", r"\(a\)")):
        ensemble_selection([[0.1, 0.5, 0.9], [0.2, 0.4, 0.6]], **words)


def test_scores_that_are_no_probabilities_are_asked_about() -> None:
    wide = [np.array([[1.0, 5.0, 2.0]] * 3)] * 2
    with pytest.raises(InputError, match="say loss='accuracy' of scores, or quantiles"):
        ensemble_selection(wide, y=[0, 1, 2])
    assert ensemble_selection(wide, y=[0, 1, 2], loss="accuracy").value == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="loss='mae' is of one number a row"):
        ensemble_selection(wide, y=[0.0, 1.0, 2.0], loss="mae")


def test_at_size_on_threads() -> None:
    for loss in ("log_loss", "brier"):
        members, y = _classes(150, 6, 3, seed=11)
        given = {"members": members, "y": y, "seed": 0}
        keeps_laws_at_size("ensemble_selection", given, {"loss": loss, "rounds": 8, "folds": 3})


def test_the_best_model_is_never_worse_than_one_of_them_alone() -> None:
    """Which of two close models is chosen on other rows can be the wrong one each time; nobody has to choose anew."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 60)
    for seed in range(12):
        members = [np.clip(y + np.random.default_rng((seed, m)).normal(0, 0.5, 60), 0.02, 0.98) for m in range(3)]
        info = kofn.combine(members, y=y, method="ensemble_selection", seed=seed).info
        assert info["held_out"]["best_single"] <= min(info["single"]) + 1e-12


@pytest.mark.parametrize("kind", [list, np.array, lambda labels: np.array(labels, object)])
def test_large_whole_numbers_are_classes_in_the_order_of_numbers(kind: Any) -> None:
    first, second = 9007199254740993, 10**16
    labels = [first if row % 2 else second for row in range(30)]
    members = [np.array([[0.9, 0.1] if label == first else [0.1, 0.9] for label in labels])] * 2
    plan = ensemble_selection(members, y=kind(labels), seed=0)
    assert list(plan.info["classes"]) == [first, second]
    assert plan.value == pytest.approx(-np.log(0.9))


@pytest.mark.parametrize(
    ("first", "second"),
    [(10**20 - 1, 10**20), (Decimal(9), Decimal(10)), (Fraction(2, 3), Fraction(10, 3)), (9.5, 10**17), ("9", "10")],
)
def test_classes_that_text_sorts_otherwise_than_numbers_are_asked_for(first: Any, second: Any) -> None:
    labels = [first if row % 2 else second for row in range(30)]
    members = [np.array([[0.9, 0.1] if label == first else [0.1, 0.9] for label in labels])] * 2
    with pytest.raises(InputError, match="in another order by number") as refusal:
        ensemble_selection(members, y=labels)
    # The message names the classes as one would write them.
    classes = ast.literal_eval(str(refusal.value).partition("classes=")[2])
    assert ensemble_selection(members, y=labels, classes=classes, seed=0).value == pytest.approx(-np.log(0.9))
