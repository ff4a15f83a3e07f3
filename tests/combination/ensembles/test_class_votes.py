"""Predicted classes: names are votes, whole numbers are asked about, on the command line as in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.combination import blend_predictions, dynamic_ensemble_selection, ensemble_selection, stacking
from kofn.core.checks import InputError

NAMES = np.array(["cat", "dog", "fox"])
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 60)
NUMBERS = [np.where(RNG.random(60) < sure, Y, RNG.integers(0, 3, 60)) for sure in (0.9, 0.6, 0.5)]
VOTES = [NAMES[votes] for votes in NUMBERS]


def shares(weights: Any) -> np.ndarray:
    """The weighted share of the votes for each class, row by row."""
    return np.tensordot(weights, np.eye(3)[np.array(NUMBERS)], axes=1)


KINDS = {
    "arrays": VOTES,
    "lists": [votes.tolist() for votes in VOTES],
    "categories": [pd.Series(votes, dtype="category") for votes in VOTES],
    "polars": [pl.Series(votes) for votes in VOTES],
}


@pytest.mark.parametrize("members", KINDS.values(), ids=KINDS)
def test_names_are_votes(members: Any) -> None:
    plan = kofn.combine(members, y=NAMES[Y], seed=0)
    assert (plan.objective, plan.info["classes"]) == ("accuracy", NAMES.tolist())
    np.testing.assert_allclose(plan.result, shares(plan.weights))
    assert plan.value == (NAMES[np.asarray(plan.result).argmax(axis=1)] == NAMES[Y]).mean()


@pytest.mark.parametrize("shift", [0, 1])
def test_whole_numbers_are_asked_about_and_counted_where_they_are_classes(shift: int) -> None:
    members, y = [votes + shift for votes in NUMBERS], Y + shift
    with pytest.raises(InputError, match=r"among the 3 values of y .*say loss='accuracy', .* amounts.* loss='rmse'"):
        ensemble_selection(members, y=y)
    plan = ensemble_selection(members, y=y, loss="accuracy", seed=0)
    np.testing.assert_allclose(plan.result, shares(plan.weights))
    assert plan.info["classes"] == [shift, 1 + shift, 2 + shift]
    amounts = ensemble_selection(members, y=y, loss="rmse", seed=0)
    np.testing.assert_allclose(amounts.result, np.array(members).T @ amounts.weights)
    with pytest.raises(InputError, match=r"up to .*y holds names \(cat, dog, fox\)"):
        ensemble_selection([votes + 0 for votes in NUMBERS], y=NAMES[Y])


def test_amounts_and_chances_are_no_votes() -> None:
    assert ensemble_selection([Y + 0.5, Y + 7], y=Y, folds=0).objective == "rmse"
    assert ensemble_selection([Y % 2, np.roll(Y, 1) % 2], y=Y % 2, folds=0).objective == "log_loss"


def test_gaps_and_other_rows_and_other_methods() -> None:
    missing = VOTES[0].astype(object)
    missing[:5] = [None, np.nan, pd.NA, None, None]
    plan = ensemble_selection([missing, VOTES[1]], y=NAMES[Y], folds=0)
    assert plan.info["missing"] == 5
    np.testing.assert_allclose(plan.result[:5], np.eye(3)[NUMBERS[1][:5]])
    again = blend_predictions(plan, [["fox", None], ["fox", "dog"]])
    np.testing.assert_allclose(again, [[0, 0, 1], [0, 1, 0]])
    with pytest.raises(InputError, match=r"member 1 at row 0 is 'cow', which is no class of y \(cat, dog, fox\)"):
        blend_predictions(plan, [["fox"], ["cow"]])
    chosen = dynamic_ensemble_selection(VOTES, y=NAMES[Y], X=Y[:, None] + 0.0, folds=0, strategy="ola")
    assert (chosen.objective, np.shape(chosen.result)) == ("accuracy", (60, 3))
    with pytest.raises(InputError, match="say loss='log_loss', or ensemble_selection"):
        stacking(VOTES, y=NAMES[Y])


REFUSED = {
    "a name of no class": ([VOTES[0], np.where(Y == 0, "cow", VOTES[1])], {}, "which is no class of y"),
    "names beside numbers": ([VOTES[0], Y / 2], {}, "member 0 holds names of classes, member 1 does not"),
    "other classes": (VOTES, {"classes": ["cat", "dog", "cow"]}, "which is no class of y \\(cat, dog, cow\\)"),
}


@pytest.mark.parametrize(("members", "words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(members: Any, words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ensemble_selection(members, y=NAMES[Y], **words)


def test_votes_without_answers_are_told_what_they_need() -> None:
    with pytest.raises(InputError, match="or y, the answers, where these are votes"):
        kofn.combine(VOTES)


def test_tables_of_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pl.DataFrame({**dict(zip("abc", VOTES, strict=True)), "note": [f"x{row}" for row in range(60)]})
    answers = pl.Series("y", NAMES[Y])
    frame.with_columns(answers).write_csv("votes.csv")
    frame.head(4).write_csv("new.csv")
    answers.to_frame().write_csv("y.csv")
    plan = ensemble_selection(VOTES, y=NAMES[Y], seed=0)
    for words in (("votes.csv", "--label", "y"), ("new.csv", "--label", "y.csv")):
        if words[0] == "new.csv":
            frame.write_csv("new.csv")
        code, _, err = run(capsys, "combine", *words, "--seed", 0, "--apply", words[0], "-o", "out.csv")
        assert code == 0, err
        np.testing.assert_allclose(pl.read_csv("out.csv").select(*NAMES).to_numpy(), plan.result)
    odd = frame.with_columns(answers, b=pl.Series(np.where(np.arange(60) == 7, "cow", VOTES[1])))
    odd.write_csv("odd.csv")
    assert "column 'b' at row 7 is 'cow', which is no class" in refused(capsys, "combine", "odd.csv", "--label", "y")
    with pytest.raises(InputError, match=r"a, b, c name classes, age is no probability; .*columns=\['a', 'b', 'c'\]"):
        kofn.combine(frame.with_columns(answers, age=pl.Series(Y + 30)), y="y")
    numbers = pl.DataFrame({**dict(zip("abc", NUMBERS, strict=True)), "y": Y})
    numbers.write_csv("numbers.csv")
    told = refused(capsys, "combine", "numbers.csv", "--label", "y")
    assert "of classes say --loss accuracy, which counts votes" in told
    assert run(capsys, "combine", "numbers.csv", "--label", "y", "--loss", "accuracy", "--folds", 0)[0] == 0
