"""`kofn combine` of scores in the long form: by the names of columns, by --long, in two levels, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused
from command_line import run as ran

import kofn
from kofn.combination import long_ballots


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Four systems, three tasks of scales of their own, ten instances; some scores are missing."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [
        (f"s{system}", f"t{task}", f"i{item}", 1000.0**task * (0.4 * system + rng.normal()))
        for item in range(10)
        for task in range(3)
        for system in range(4)
    ]
    frame = pl.DataFrame(rows, schema=["system", "task", "instance", "score"], orient="row")
    frame = frame.filter(pl.Series(rng.random(len(frame)) < 0.9))
    frame.write_csv("four.csv")
    frame.group_by("system", "task", maintain_order=True).agg(pl.col("score").mean()).write_csv("three.csv")
    return frame


def _answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, err = ran(capsys, "combine", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_one_score_of_each_is_the_table_that_it_stands_for(
    frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = pl.read_csv("three.csv").pivot("task", index="system", values="score")
    wide.write_csv("wide.csv")
    long, plain = _answer(capsys, "three.csv"), _answer(capsys, "wide.csv", "--id", "system")
    assert long["standings"] == plain["standings"]
    assert (
        _answer(capsys, "three.csv", "--lower", "t1", "-m", "kemeny")["ranking"]
        == (_answer(capsys, "wide.csv", "--id", "system", "--lower", "t1", "-m", "kemeny")["ranking"])
    )
    assert _answer(capsys, "three.csv", "--columns", "t0,t2")["judges"] == ["t0", "t2"]
    named = pl.read_csv("three.csv").rename({"system": "a", "task": "b", "score": "c"})
    named.write_csv("named.csv")
    assert _answer(capsys, "named.csv", "--long", "a,b,c")["standings"] == plain["standings"]
    assert "score of each system by each task" in ran(capsys, "combine", "three.csv")[1]


def test_items_make_two_levels(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: Borda's points of the systems over a task's instances, then over the ranks of the tasks."""
    systems, tasks = sorted(frame["system"].unique()), ["t0", "t1", "t2"]
    ranks = {}
    for task in tasks:
        shares: dict[str, list[float]] = {system: [] for system in systems}
        for _, part in frame.filter(pl.col("task") == task).group_by("instance"):
            scores = dict(zip(part["system"], part["score"], strict=True))
            for system, score in scores.items():
                if len(scores) > 1:
                    others = [other for name, other in scores.items() if name != system]
                    shares[system].append(float(np.mean([score > other for other in others])))
        points = {system: np.mean(shares[system]).round(12) for system in systems}
        ranks[task] = {system: sum(points[other] > points[system] for other in systems) for system in systems}
    total = {
        system: np.mean([sum(ranks[t][o] > ranks[t][system] for o in systems) / 3 for t in tasks]) for system in systems
    }
    told = _answer(capsys, "four.csv")
    got = {row["id"]: row["points"] for row in told["standings"]}
    ties = any(len(set(ranks[task].values())) < 4 for task in tasks)
    assert not ties, "draw other scores"
    assert got == pytest.approx(total)
    assert "in two levels: first by instance, then by task" in ran(capsys, "combine", "four.csv")[1]
    ballots = long_ballots(frame["system"], frame["task"], frame["score"], frame["instance"])
    assert kofn.combine(**ballots).to_frame()["id"].to_list() == told["ranking"]


def test_flags_of_the_long_form(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    frame.rename({"system": "a", "task": "b", "instance": "c", "score": "d"}).write_csv("named.csv")
    assert "--long a,b,c,d" in refused(capsys, "combine", "named.csv")
    assert _answer(capsys, "named.csv", "--long", "a,b,c,d")["ranking"] == _answer(capsys, "four.csv")["ranking"]
    for words, says in (
        (("--long", "a,b"), "--long a,b: give --long SYSTEM,JUDGE,SCORE"),
        (("--long", "a,b,c,e"), "has no column 'e'"),
        (("--long", "d,b,a"), "--long: 'a' holds no numbers; name the column of scores last"),
        (("--long", "a,b,c,d", "--lower", "t9"), "--lower names 't9', which is no b"),
        (("--long", "a,b,c,d", "--id", "a"), "--id is of tables with a row for each system"),
        (("--long", "a,b,c,d", "--wins"), "--wins and --long are of different tables"),
    ):
        assert says in refused(capsys, "combine", "named.csv", *words)
    # A board with a score of each system stays a board.
    pl.DataFrame({"model": ["u", "v"], "task": ["x", "x"], "score": [1.0, 2.0]}).write_csv("board.csv")
    assert _answer(capsys, "board.csv", "--id", "model")["ranking"] == ["v", "u"]
