"""Words of the commands mean the same in Python, and one that nothing has is refused before the table is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run
from frames import KINDS, as_pandas

import kofn
from kofn.core import checks
from kofn.core.checks import InputError

LONG = pl.DataFrame(
    {
        "item": ["p", "p", "q", "q", "r", "r", "s"],
        "bin": ["u", "v", "u", "v", "v", "u", "v"],
        "score": [5.0, 7.0, 1.0, 2.0, 9.0, 8.0, 4.0],
    }
)
WINS = pl.DataFrame({"model": ["a", "b", "c"], "c": [9, 1, 0], "a": [0, 3, 2], "b": [5, 0, 6]})


@pytest.mark.parametrize("kind", ["path", *KINDS])
@pytest.mark.parametrize("named", [("item", "bin", "score"), "item,bin,score"])
def test_scores_one_a_row_are_assigned_as_by_the_command(
    named: Any, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.csv"
    LONG.write_csv(path)
    said = json.loads(run(capsys, "assign", path, "--long", "item,bin,score", "--capacity", "2", "--json")[1])
    plan = kofn.assign(path if kind == "path" else KINDS[kind](LONG), long=named, capacity=2)
    assert plan.value == said["value"]
    assert plan.labels.tolist() == said["labels"]
    assert plan.keys(np.arange(4)).tolist() == ["p", "q", "r", "s"]
    assert plan.info["bins"] == ["u", "v"]
    assert "1 pairs without one are kept apart" in plan.info["notes"][0]


def test_links_are_of_the_items() -> None:
    plan = kofn.assign(LONG, long="item,bin,score", capacity=3, must_link=[("p", "s")], cannot_link=[("q", "r")])
    assert plan.labels[0] == plan.labels[3] == 1
    assert plan.labels[1] != plan.labels[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"long": "item,bin", "capacity": 2}, "long=['item', 'bin']: give long=['ITEM', 'BIN', 'SCORE']"),
        ({"long": "item,bin,points", "capacity": 2}, "X has no column 'points'"),
        ({"long": 3, "capacity": 2}, "long=3: give names of columns"),
        ({"long": "item,bin,score", "ids": "item", "capacity": 2}, "ids is of tables with a row for each item"),
        ({"lomg": "item,bin,score", "capacity": 2}, "assign has no argument 'lomg'; did you mean 'long'?"),
        ({"method": "fasterpam", "k": 2, "lomg": 1}, "method='fasterpam' has no option 'lomg'"),
        ({"scores": True, "ids": "item", "capacity": 2}, "say long=['item', 'bin', 'score'] in place of scores=True"),
    ],
)
def test_what_is_wrong_with_long_is_said(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        kofn.assign(LONG, **words)
    assert said in str(refused.value)


def test_an_unknown_word_of_select_is_said_first() -> None:
    with pytest.raises(InputError, match="select has no argument 'txet'; did you mean 'text'"):
        kofn.select(LONG, txet="item", k=1)


@pytest.mark.parametrize("kind", ["path", *KINDS])
@pytest.mark.parametrize("word", ["id", "ids"])
def test_a_table_of_wins_is_ranked_as_by_the_command(
    word: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wins.csv"
    WINS.write_csv(path)
    said = json.loads(run(capsys, "combine", path, "--id", "model", "--wins", "--json")[1])
    table: Any = path if kind == "path" else KINDS[kind](WINS)
    plan = kofn.combine(table, wins=True, **{word: "model"})
    assert plan.to_frame()["id"].to_list() == said["ranking"] == ["a", "c", "b"]
    assert (plan.method, plan.value) == (said["method"], said["value"])


def test_a_pandas_index_names_the_rows_of_wins() -> None:
    indexed = as_pandas(WINS).set_index("model")
    assert kofn.combine(indexed, wins=True).to_frame()["id"].to_list() == ["a", "c", "b"]
    assert kofn.combine(rankings=indexed, wins=True, method="borda").method == "borda"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"wins": True}, "wins need names of the rows"),
        ({"wins": True, "id": "model", "lower": "a"}, "lower is of judges"),
        ({"wins": True, "id": "model", "weights": [1, 2]}, "weights is of judges"),
        ({"wins": True, "id": "model", "columns": ["a"]}, "wins reads the columns that are called as the rows are"),
        ({"wins": 3, "id": "model"}, "wins=3: give True or False"),
        ({"id": "model", "ids": "model"}, "id and ids are one word"),
    ],
)
def test_what_is_wrong_with_wins_is_said(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        kofn.combine(WINS, **words)
    assert said in str(refused.value)


def test_wins_of_an_array_are_pointed_to_their_ballots() -> None:
    with pytest.raises(InputError, match=r"no argument 'wins'; .*win_ballots"):
        kofn.combine(rankings=np.eye(3), wins=True)


def test_the_answers_of_predictions_are_named_by_the_flag_s_word() -> None:
    frame = pl.DataFrame({"id": [1, 2, 3, 4], "y": [1.0, 2.0, 3.0, 4.0], "m": [1.1, 2, 3, 4], "n": [0.0, 1, 1, 5]})
    flagged, ours = (kofn.combine(frame, **words) for words in ({"id": "id", "label": "y"}, {"ids": "id", "y": "y"}))
    assert flagged.value == ours.value


def test_weights_are_a_text_as_on_the_command_line() -> None:
    members = [[1.0, 2.0], [3.0, 6.0]]
    assert kofn.combine(members, weights="75%,25%").result.tolist() == [1.5, 3.0]
    assert kofn.combine(members, weights="3, 1").result.tolist() == [1.5, 3.0]
    for text, said in (("75%,.25", "all weights in percent or none"), ("a,b", "numbers with commas"), ("1", "1 val")):
        with pytest.raises(InputError, match=said):
            kofn.combine(members, weights=text)


def test_shares_are_texts_as_on_the_command_line() -> None:
    texts = ["a red car", "A red car", "blue moon"]
    assert len(kofn.select(texts, dedupe="90%").indices) == len(kofn.select(texts, dedupe=0.9).indices) == 2
    assert (checks.share("90%", "dedupe"), checks.share(1, "dedupe")) == (0.9, 1.0)
    for value in ("x", "190%", -1, True, None):
        with pytest.raises(InputError, match=r"give a number between 0 and 1, for example 0\.9 or 90%"):
            checks.share(value, "dedupe")
