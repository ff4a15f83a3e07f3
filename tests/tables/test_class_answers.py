"""Answers that number the classes of columns, or are spelt otherwise than the columns are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.core.checks import InputError
from kofn.tables.class_answers import as_named, grouped_by_class

CLASSES = ("cat", "dog", "bird")
NUMBERS = np.arange(60) % 3
NAMES = np.array(CLASSES)[NUMBERS]
CHANCES = np.random.default_rng(0).dirichlet([2, 2, 1], (2, 60))


def columns(classes: Sequence[str] = CLASSES, form: str = "{model}_{label}") -> dict[str, np.ndarray]:
    """Probabilities of these classes by two models, each row's of the sum one."""
    values = CHANCES if len(classes) == 3 else np.stack([CHANCES[:, :, 0], 1 - CHANCES[:, :, 0]], axis=2)
    return {
        form.format(model=model, label=label): values[row][:, column]
        for row, model in enumerate(("gpt_2", "rf"))
        for column, label in enumerate(classes)
    }


def with_fish() -> np.ndarray:
    """The names, one of which is of a class without columns."""
    names = NAMES.astype("<U8")
    names[5] = "fish"
    return names


ASKED = {
    "numbers": (columns(), NUMBERS, "are 0, 1, 2: .*classes=.*where 0 is cat, 1 is dog, 2 is bird"),
    "the class first": (columns(form="{label}_{model}"), NUMBERS, "after cat, dog, bird, the answers are 0, 1, 2"),
    "in brackets": (columns(form="{model}[{label}]"), NUMBERS, "after cat, dog, bird, the answers are 0, 1, 2"),
    "marks in classes": (columns(("a_b", "b_b", "c")), NUMBERS, "after a_b, b_b, c, the answers are 0, 1, 2"),
    "from one": (columns(), NUMBERS + 1.0, "where 1 is cat, 2 is dog, 3 is bird"),
    "0 or 1": (columns(), 1 + NUMBERS % 2, "may be numbered from 0 or from 1"),
    "one number more": (columns(), np.arange(60) % 4, "are 0, 1, 2, 3, one more"),
    "two classes": (
        columns(("no", "yes")),
        NUMBERS % 2,
        r"where 0 is no, 1 is yes; or .*columns=\['gpt_2_yes', 'rf_yes'\]",
    ),
    "booleans": (columns(("no", "yes")), NUMBERS == 1, "where false is no, true is yes"),
    "case": (columns(), np.char.capitalize(NAMES), "'Bird' .row 2. and 'bird' differ in case"),
    "one class more": (columns(), with_fish(), "no column is of class 'fish' .row 5.; give every model one"),
    "others": (columns(), np.array(["x", "y", "z"])[NUMBERS], "the answers are x, y, z; write the answers"),
}


@pytest.mark.parametrize(("values", "y", "says"), ASKED.values(), ids=ASKED)
def test_other_answers_than_the_columns_classes_are_refused(values: Any, y: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.combine({**values, "y": y}, y="y")


APART = {
    "numbers of another kind": (columns(), np.linspace(0, 2, 60)),
    "whole numbers beyond the classes": (columns(), np.arange(60)),
    "no probabilities": ({name: 2 * column for name, column in columns().items()}, NUMBERS),
    "unlike classes": ({"a_cat": CHANCES[0][:, 0], "b_dog": CHANCES[0][:, 1]}, NUMBERS % 2),
}


@pytest.mark.parametrize(("values", "y"), APART.values(), ids=APART)
def test_columns_of_numbers_stay_members(values: Any, y: Any) -> None:
    assert grouped_by_class(values, y, None) is None


NAMED = {
    "from 0": ([2, 0, 1], CLASSES, ["bird", "cat", "dog"]),
    "from 1": ([3.0, 1.0], CLASSES, ["bird", "cat"]),
    "a class is not seen": ([0, 2], CLASSES, ["cat", "bird"]),
    "signs": ([-1, 1], ("no", "yes"), ["no", "yes"]),
    "booleans": ([True, False], ("no", "yes"), ["yes", "no"]),
    "booleans of a table": (["true", "false"], ("no", "yes"), ["yes", "no"]),
    "booleans turned round": (["true", "false"], ("True", "False"), ["True", "False"]),
    "classes already": ([2, 1, 0], (2, 1, 0), [2, 1, 0]),
    "too many": ([0, 1, 2], ("no", "yes"), [0, 1, 2]),
}


@pytest.mark.parametrize(("y", "classes", "named"), NAMED.values(), ids=NAMED)
def test_numbers_are_classes_in_their_order(y: Any, classes: Any, named: list[Any]) -> None:
    assert as_named(np.array(y), classes).tolist() == named


def test_classes_of_the_command_are_in_the_order_of_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shares = columns(form="{model}-{label}")
    pl.DataFrame({**shares, "y": NUMBERS}).write_csv("numbers.csv")
    pl.DataFrame({**shares, "y": NAMES}).write_csv("names.csv")
    for row, model in enumerate(("gpt", "rf")):
        pl.DataFrame({**dict(zip(CLASSES, CHANCES[row].T, strict=True)), "y": NUMBERS}).write_csv(f"of_{model}.csv")
        np.save(f"{model}.npy", CHANCES[row])
    np.save("y.npy", NUMBERS)
    ends = ("--folds", "0", "-o", "out.csv")
    assert run(capsys, "combine", "names.csv", "--label", "y", *ends)[0] == 0
    expected = pl.read_csv("out.csv")
    for members, label, classes in (
        (("numbers.csv",), "y", "cat,dog,bird"),
        (("gpt.npy", "rf.npy"), "y.npy", "cat,dog,bird"),
        (("of_gpt.csv", "of_rf.csv"), "y", "cat,dog,bird"),
    ):
        assert run(capsys, "combine", *members, "--label", label, "--classes", classes, *ends)[0] == 0
        assert pl.read_csv("out.csv").select(expected.columns).equals(expected)
    tables = ("combine", "of_gpt.csv", "of_rf.csv", "--label", "y", *ends)
    assert "where 0 is cat, 1 is dog, 2 is bird" in refused(capsys, *tables)
    assert "'bird' is none of --classes cat,dog,cow" in refused(capsys, *tables, "--classes", "cat,dog,cow")


def test_columns_of_tables_are_put_in_the_order_of_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for row, model in enumerate(("gpt", "rf")):
        pl.DataFrame({**dict(zip(CLASSES, CHANCES[row].T, strict=True)), "y": NAMES}).write_csv(f"of_{model}.csv")
    words = ("combine", "of_gpt.csv", "of_rf.csv", "--label", "y", "--folds", "0", "-o")
    assert run(capsys, *words, "plain.csv")[0] == 0
    assert run(capsys, *words, "turned.csv", "--classes", "bird,cat,dog")[0] == 0
    assert pl.read_csv("turned.csv").columns == ["row", "bird", "cat", "dog"]
    plain = pl.read_csv("plain.csv")
    np.testing.assert_allclose(pl.read_csv("turned.csv").select(plain.columns), plain, rtol=1e-9)


def test_tables_whose_columns_are_booleans_or_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for row, model in enumerate(("gpt", "rf")):
        pair = {"False": 1 - CHANCES[row][:, 0], "True": CHANCES[row][:, 0]}
        pl.DataFrame({**pair, "y": NUMBERS == 0}).write_csv(f"of_{model}.csv")
        pl.DataFrame({name: pair[name] for name in ("True", "False")}).write_csv(f"more_{model}.csv")
    words = ("combine", "of_gpt.csv", "of_rf.csv", "--label", "y", "--folds", "0", "-o", "out.csv")
    assert run(capsys, *words)[0] == 0
    plain = pl.read_csv("out.csv")
    assert plain.columns == ["row", "False", "True"]
    assert run(capsys, *words, "--apply", "more_gpt.csv", "--apply", "more_rf.csv")[0] == 0
    assert pl.read_csv("out.csv").equals(plain)
    assert run(capsys, *words, "--classes", "True,False")[0] == 0
    turned = pl.read_csv("out.csv")
    assert turned.columns == ["row", "True", "False"]
    np.testing.assert_allclose(turned.select(plain.columns), plain, rtol=1e-9)


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_classes_numbered_from_0_and_answers_from_elsewhere_are_a_question(
    offset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": NUMBERS + offset, **columns(("0", "1", "2"), "{model}_{label}")}).write_csv("t.csv")
    call = ("combine", "t.csv", "--label", "y")
    if offset == 0:
        assert "by 2 of 2 models" in run(capsys, *call)[1]
        return
    said = refused(capsys, *call)
    pairs = ", ".join(f"{number + offset} is {number}" for number in range(3))
    assert f"name the classes in the order of the answers, --classes 0,1,2 where {pairs}" in said
    code, text, err = run(capsys, *call, "--classes", "0,1,2")
    assert (code, "log_loss" in text) == (0, True), err
    assert " of 2 models" in text


def test_classes_that_are_too_many_or_named_twice_are_counted_rightly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": NUMBERS % 2, "a": CHANCES[0, :, 0], "b": CHANCES[1, :, 0]}).write_csv("two.csv")
    call = ("combine", "two.csv", "--label", "y", "--classes")
    one = "classes names 4, members have one column, the probability of the second of two; name as many"
    assert one in refused(capsys, *call, "0,1,2,3")
    assert "classes names 0 2 times; name each class once" in refused(capsys, *call, "0,0,1")
    with pytest.raises(InputError, match="classes names 2, members have 3 columns; name as many"):
        kofn.combine(list(CHANCES), y=NUMBERS, classes=[0, 1])
