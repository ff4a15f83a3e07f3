"""Tables of one model each: rows and classes are matched by their names, or it is asked which they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.tables.class_columns import plain_names
from kofn.tables.same_rows import in_order_of

MEAN = ("-m", "weighted_mean")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    first, second = np.array([0.125, 0.5, 0.75, 1.0]), np.array([0.25, 0.5, 0.0, 0.75])
    table = pl.DataFrame({"key": ["a", "b", "c", "d"], "no": first, "yes": 1 - first})
    other = pl.DataFrame({"key": ["a", "b", "c", "d"], "no": second, "yes": 1 - second})
    table.write_csv("one.csv")
    other[::-1].select("yes", "key", "no").write_csv("turned.csv")
    other.write_csv("two.csv")
    other.rename({"no": "net_no", "yes": "net_yes"}).select("key", "net_yes", "net_no").write_csv("net.csv")
    other.rename({"yes": "maybe"}).write_csv("maybe.csv")
    other[:2].write_csv("short.csv")
    other.with_columns(key=pl.Series(["x", "b", "y", "z"])).write_csv("others.csv")
    other.with_columns(why=pl.Series(["p", "q", "r", "s"])).write_csv("why_two.csv")
    table.with_columns(why=pl.Series(["k", "l", "m", "n"])).write_csv("why_one.csv")
    return tmp_path


def blend(capsys: pytest.CaptureFixture[str], *words: str) -> pl.DataFrame:
    code, _, err = run(capsys, "combine", *words, *MEAN, "-o", "blend.csv", "--force")
    assert code == 0, err
    return pl.read_csv("blend.csv")


def test_rows_in_another_order_are_asked_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "combine", "one.csv", "turned.csv", *MEAN)
    assert "turned.csv column 'key' at row 0 is 'd', one.csv has 'a'" in message
    assert "say --id key" in message
    assert "'x', one.csv has 'a'" in refused(capsys, "combine", "one.csv", "others.csv", *MEAN)
    by_key = blend(capsys, "one.csv", "turned.csv", "--id", "key")
    assert by_key["yes"].to_list() == blend(capsys, "one.csv", "two.csv")["yes"].to_list()
    # Each model's own reasons name no rows.
    blend(capsys, "why_one.csv", "why_two.csv")


def test_answers_in_another_order_are_asked_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = pl.Series("truth", ["yes", "no", "no", "yes"])
    pl.read_csv("one.csv").drop("key").with_columns(answers).write_csv("one.csv")
    pl.read_csv("two.csv").drop("key").with_columns(answers[::-1].rename("truth")[1:].append(answers[:1])).write_csv(
        "two.csv"
    )
    message = refused(capsys, "combine", "one.csv", "two.csv", "--label", "truth")
    assert "two.csv column 'truth' at row 0" in message
    assert "match rows in another order by --id COL" in message
    for name, answers in (("one.csv", [1, 0, 0]), ("two.csv", [0.0, 0.0, 1.0])):
        keys = ["a", "b", "c"] if name == "one.csv" else ["c", "b", "a"]
        pl.DataFrame({"key": keys, "p": [0.2, 0.4, 0.9], "truth": answers}).write_csv(name)
    assert run(capsys, "combine", "one.csv", "two.csv", "--label", "truth", "--id", "key")[0] == 0
    pl.read_csv("two.csv").with_columns(truth=pl.Series([0, 1, 1])).write_csv("two.csv")
    message = refused(capsys, "combine", "one.csv", "two.csv", "--label", "truth", "--id", "key")
    assert "two.csv column 'truth' at key 'b' is 1, one.csv has 0" in message


def test_classes_are_matched_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "combine", "one.csv", "maybe.csv", *MEAN)
    assert "maybe.csv has column maybe, which the other has not, and one.csv has column yes" in message
    same = blend(capsys, "one.csv", "two.csv")["yes"].to_list()
    assert blend(capsys, "one.csv", "net.csv")["yes"].to_list() == same
    assert in_order_of(["b", "a"], ["a", "b"], "x", "y") == ["a", "b"]
    assert plain_names(["yes", "no"]) == ["yes", "no"]


def test_a_key_of_whole_numbers_is_no_class(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one.csv", "two.csv"):
        frame = pl.read_csv(name)
        frame.with_columns(id=pl.Series([1, 2, 3, 4]), truth=pl.Series([0, 1, 1, 0])).drop("key", "no").write_csv(name)
    message = refused(capsys, "combine", "one.csv", "two.csv", "--label", "truth")
    assert "'id' is called as what names the rows; if it does, say --id id" in message


def test_rows_that_a_model_lacks_are_named_by_file_and_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "combine", "one.csv", "short.csv", "--id", "key", *MEAN)
    assert "short.csv has no prediction of key 'c' and 1 more" in message


def test_numbered_classes_vote_where_they_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = {"a": [0, 1, 2], "b": [0, 2, 2], "c": [1, 2, 0]}
    pl.DataFrame(votes).write_csv("votes.csv")
    for name, column in votes.items():
        pl.DataFrame({"p": column}).write_csv(f"votes_{name}.csv")
    code, out, err = run(capsys, "combine", "votes.csv", *MEAN)
    assert code == 0
    assert "say --classes 0,1,2" in out + err
    one = blend(capsys, "votes.csv", "--classes", "0,1,2")
    assert one["prediction"].to_list() == [0, 2, 2]
    assert one["2"].to_list() == [0, pytest.approx(2 / 3), pytest.approx(2 / 3)]
    assert blend(capsys, *(f"votes_{name}.csv" for name in "abc"), "--classes", "0,1,2").equals(one)
