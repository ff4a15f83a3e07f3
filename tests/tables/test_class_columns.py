"""Columns that are called after a model and a class, also where the answers lack a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.core.checks import InputError
from kofn.tables.class_columns import beside_classes, by_class

CLASSES = ("cat", "dog", "fox")
CHANCES = np.random.default_rng(0).dirichlet([2, 2, 1], (2, 60))
SEEN = np.array(["cat", "dog"])[np.arange(60) % 2]


def columns(classes: Any = CLASSES, form: str = "{model}_{label}", scale: float = 1.0) -> dict[str, np.ndarray]:
    """Probabilities of each class by the models a and b."""
    return {
        form.format(model=model, label=label): scale * CHANCES[row][:, column]
        for row, model in enumerate("ab")
        for column, label in enumerate(classes)
    }


READ = {
    "a class is missing": (columns(), SEEN, CLASSES),
    "in brackets": (columns(form="{model}[{label}]"), SEEN, CLASSES),
    "the class first": (columns(form="{label}_{model}"), SEEN, CLASSES),
    "numbers": (columns("012"), np.arange(60) % 2, ("0", "1", "2")),
    "a number in between is missing": (columns("012"), 2.0 * (np.arange(60) % 2), ("0", "1", "2")),
}


@pytest.mark.parametrize(("values", "y", "classes"), READ.values(), ids=READ)
def test_columns_of_a_model_are_one_member(values: Any, y: Any, classes: tuple[str, ...]) -> None:
    read = by_class(values, y)
    assert read is not None
    assert (list(read.stems), read.classes) == (["a", "b"], classes)
    plan = kofn.combine({**values, "y": y}, y="y", folds=0)
    assert plan.ids is not None
    assert plan.ids.tolist() == ["a", "b"]
    assert np.shape(plan.result) == (60, 3)
    assert [str(label).removesuffix(".0") for label in plan.info["classes"]] == list(classes)


SEPARATE = {
    "seeds": {f"m_{seed}": CHANCES[0][:, seed] for seed in (0, 1)},
    "more seeds than classes": {f"m_{seed}": CHANCES[1][:, seed] / 2 for seed in range(3)},
}


@pytest.mark.parametrize("values", SEPARATE.values(), ids=SEPARATE)
def test_numbers_that_count_models_are_no_classes(values: Any) -> None:
    plan = kofn.combine({**values, "y": np.arange(60) % 2}, y="y", folds=0)
    assert plan.ids is not None
    assert plan.ids.tolist() == list(values)


def test_booleans_are_found_under_the_names_that_python_gives_them() -> None:
    pair = np.stack([CHANCES[:, :, 0], 1 - CHANCES[:, :, 0]], axis=2)
    values = {f"{model}_{label}": pair[row][:, int(label)] for row, model in enumerate("ab") for label in (False, True)}
    plan = kofn.combine({**values, "y": SEEN == "dog"}, y="y", folds=0)
    assert plan.n == 2
    assert np.shape(plan.result) == (60, 2)


REFUSED = {
    "one model lacks it": (
        {name: values for name, values in columns().items() if name != "b_fox"},
        "model 'b' has no column of class 'fox', model 'a' has",
    ),
    "scores": (columns(scale=3.0), r"a_fox, b_fox are called after no class .*say classes=\['cat', 'dog', 'fox'\]"),
    "another column": ({**columns(), "a_loss": CHANCES[0][:, 0]}, "a_fox, a_loss, b_fox are called after no class"),
    "one model": (dict(zip(CLASSES, CHANCES[0].T, strict=True)), "cat, dog, fox are called as the classes"),
}


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_doubts_are_asked_about(values: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.combine({**values, "y": SEEN}, y="y")


def test_named_classes_settle_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({**columns(scale=3.0), "y": SEEN}).write_csv("preds.csv")
    words = ("combine", "preds.csv", "--label", "y", "--folds", "0", "-o", "out.csv", "--loss", "accuracy")
    assert run(capsys, *words, "--classes", "fox,dog,cat")[0] == 0
    assert pl.read_csv("out.csv").columns == ["row", "fox", "dog", "cat"]
    told = refused(capsys, *words, "--classes", "cat,dog,cow")
    assert "column 'a_fox' is called after 'fox', which is none of --classes cat,dog,cow" in told
    pl.DataFrame({**columns(), "y": SEEN}).write_csv("preds.csv")
    assert run(capsys, *words[:-2], "--apply", "preds.csv", "--json")[0] == 0
    assert pl.read_csv("out.csv").columns == ["row", *CLASSES]


def test_columns_of_no_class_beside_all_classes_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    y = np.array(CLASSES)[np.arange(60) % 3]
    chances = columns()
    beside = {"age": np.arange(60) + 20.0, "share": np.linspace(0, 1, 60)}
    assert beside_classes({**beside, **chances}, y) == ["age", "share"]
    pl.DataFrame({**beside, **chances, "label": y}).write_csv("more.csv")
    pl.DataFrame({**chances, "label": y}).write_csv("plain.csv")
    call = ("--label", "label", "--seed", 0, "--json")
    answers = []
    for name in ("more.csv", "plain.csv"):
        code, out, err = run(capsys, "combine", name, *call)
        assert code == 0, err
        answers.append(json.loads(out))
    assert answers[0].pop("left_out_columns") == ["age", "share"]
    assert answers[0] == answers[1]
    assert run(capsys, "combine", "more.csv", "--label", "label", "--apply", "more.csv", "-o", "out.csv")[0] == 0
    said = run(capsys, "combine", "more.csv", "--label", "label")[1]
    assert "called after no class, so no predictions: age, share; else --columns, --id, --feature-columns" in said


def test_what_may_be_a_model_or_a_class_is_not_left_out() -> None:
    y = np.array(["no", "yes"])[np.arange(60) % 2]
    two = {"a_no": CHANCES[0][:, 0], "a_yes": 1 - CHANCES[0][:, 0]}
    # The probability of the second class is a model.
    assert beside_classes({"forest": CHANCES[1][:, 0], **two}, y) == []
    assert beside_classes({"age": np.arange(60.0), **two}, y) == ["age"]
    # A class that the answers lack, and columns that do not add up to one.
    assert beside_classes(columns(), SEEN) == []
    assert beside_classes({"age": np.arange(60.0), **columns(scale=0.5)}, np.array(CLASSES)[np.arange(60) % 3]) == []
    assert beside_classes({"age": np.arange(60.0), "b": CHANCES[0][:, 0]}, y) == []
