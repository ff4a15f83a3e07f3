"""Members in frames and series: columns and rows matched by their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError

CLASSES = ["white", "red", "rose"]


@pytest.fixture
def chances() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Probabilities of three classes by two models, and the answers, of rows with names."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 3, 60)
    rows = [f"r{row}" for row in range(60)]
    first, second = (
        pd.DataFrame(rng.dirichlet(np.ones(3), 60) * 0.6 + 0.4 * np.eye(3)[answers], rows, CLASSES) for _ in range(2)
    )
    return first, second, pd.Series([CLASSES[answer] for answer in answers], rows)


def blended(*members: Any, **words: Any) -> Any:
    return kofn.combine(list(members), **words)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_columns_are_matched_by_name(kind: Any) -> None:
    first, second = kind({"x": [1.0, 2.0], "y": [3.0, 4.0]}), kind({"y": [5.0, 6.0], "x": [3.0, 4.0]})
    assert blended(first, second).result.tolist() == [[2.0, 4.0], [3.0, 5.0]]
    with pytest.raises(InputError, match=r"member 1 has columns z, x, member 0 has x, y; give every member columns of"):
        blended(first, kind({"z": [5.0, 6.0], "x": [3.0, 4.0]}))
    # Nobody named the columns of a frame that was made of an array.
    assert blended(first, kind(np.array([[3.0, 5.0], [4.0, 6.0]]))).result.tolist() == [[2.0, 4.0], [3.0, 5.0]]


def test_rows_are_matched_by_an_index_that_names_them() -> None:
    first, second = pd.Series([1.0, 2.0, 3.0], [7, 8, 9]), pd.Series([3.0, 2.0, 1.0], [9, 8, 7])
    assert blended(first, second).result.tolist() == [1.0, 2.0, 3.0]
    assert blended(first, np.array([3.0, 2.0, 1.0])).result.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(InputError, match=r"another index than member 0 \(row 6\): give both the same rows"):
        blended(first, second.set_axis([6, 8, 7]))
    # An index that merely counts says no more than the place does.
    assert blended(first, second.reset_index(drop=True)).result.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(InputError, match=r"in another order, and one of them merely counts the rows: for rows in the"):
        blended(first.reset_index(drop=True), second.set_axis([2, 1, 0]))


def test_answers_are_matched_by_their_index(chances: Any) -> None:
    first, second, y = chances
    wanted = blended(first, second, y=y)
    shuffled = y.sample(frac=1, random_state=0)
    assert blended(first, second.sample(frac=1, random_state=1), y=shuffled).value == wanted.value
    with pytest.raises(InputError, match="y has another index than member 0"):
        blended(first, second, y=y.set_axis(range(1, 61)))
    frame = pd.DataFrame({"a": first["red"], "b": second["red"]})
    numbers = (y == "red").astype(int)
    assert kofn.combine(frame, y=numbers[::-1]).value == kofn.combine(frame, y=numbers).value


@pytest.mark.parametrize("method", ["auto", "stacking"])
def test_classes_are_what_columns_are_called(method: str, chances: Any) -> None:
    first, second, y = chances
    in_order = blended(*(frame[sorted(CLASSES)].to_numpy() for frame in (first, second)), y=y.to_numpy(), method=method)
    plan = blended(first, second[CLASSES[::-1]], y=y, method=method)
    assert plan.value == pytest.approx(in_order.value)
    assert plan.info["classes"] == CLASSES
    called = {"a": first.add_prefix("forest_"), "b": second[CLASSES[::-1]].add_prefix("knn_")}
    assert kofn.combine(called, y=y, method=method).value == pytest.approx(in_order.value)
    turned = blended(first, second, y=y, method=method, classes=CLASSES[::-1])
    assert (turned.value, turned.info["classes"]) == (pytest.approx(in_order.value), CLASSES[::-1])


def test_numbers_of_classes_are_names_too(chances: Any) -> None:
    first, second, y = chances
    numbered = y.map({name: number for number, name in enumerate(CLASSES)})
    frames = [frame.set_axis(range(3), axis=1)[[2, 0, 1]] for frame in (first, second)]
    assert blended(*frames, y=numbered).value == pytest.approx(blended(first, second, y=y).value)


def test_warnings_stand_below_the_plan() -> None:
    y = np.arange(100) % 2
    exact = np.where(y == 1, 0.999, 0.001)
    plan = blended(exact, np.full(100, 0.5), y=y)
    assert plan.info["warnings"]
    assert repr(plan).splitlines()[1:] == [f"warning: {text}" for text in plan.info["warnings"]]


def test_nullable_types_of_pandas_are_numbers_with_gaps() -> None:
    first = pd.DataFrame({"no": [0.25, 0.5], "yes": [0.75, 0.5]})
    members = [first.convert_dtypes(), (first / 2).convert_dtypes()]
    np.testing.assert_array_equal(kofn.combine(members, method="weighted_mean").result, first * 0.75)
    members[1].iloc[0, 0] = pd.NA
    with pytest.raises(InputError, match=r"member 1: the array at \(0, 0\) is NaN"):
        kofn.combine(members, method="weighted_mean")
    members[1].iloc[1] = [0.5, 0.5]
    assert np.isfinite(kofn.combine(members, y=["yes", "no"]).result).all()
    with pytest.raises(InputError, match="or y, the answers, where these are votes for classes"):
        kofn.combine([pd.Series(["a", "b"]), pd.Series(["a", "a"])])


def test_an_index_that_names_rows_twice_is_named() -> None:
    first = pd.DataFrame({"no": [0.25, 0.5], "yes": [0.75, 0.5]}, index=["x", "x"])
    np.testing.assert_array_equal(kofn.combine([first, first], method="weighted_mean").result, first)
    with pytest.raises(InputError, match="member 0 has the index x twice, and the two are in another order"):
        kofn.combine([first, first.set_axis(["x", "z"])], method="weighted_mean")


def test_a_mean_beside_answers_is_judged_by_them() -> None:
    frame, y = pd.DataFrame({"a": [0.25, 0.5, 0.75], "b": [0.25, 1.0, 0.75]}), [0, 1, 1]
    blend = kofn.combine(frame, method="weighted_mean", y=y, weights=[1, 3])
    np.testing.assert_array_equal(blend.result, [0.25, 0.875, 0.75])
    assert blend.objective == "log_loss"
