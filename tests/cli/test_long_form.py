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
from kofn.core.checks import InputError


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


TRUTHS = (
    "model,task,example,score\na,t,1,{0}\nb,t,1,{1}\na,t,2,{0}\nb,t,2,{0}\na,u,1,{1}\nb,u,1,{0}\na,u,2,\nb,u,2,{1}\n"
)


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_truth_values_count_as_one_and_zero(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("truths.csv").write_text(TRUTHS.format(*words))
    Path("numbers.csv").write_text(TRUTHS.format(1, 0))
    Path("acc.csv").write_text(TRUTHS.format(*words).replace("example,score", "doc_id,acc"))
    expected = _answer(capsys, "numbers.csv")["standings"]
    assert _answer(capsys, "truths.csv")["standings"] == expected
    assert _answer(capsys, "acc.csv")["standings"] == expected
    assert _answer(capsys, "acc.csv", "--long", "model,task,doc_id,acc")["standings"] == expected


def _long(columns: str, *, rows: int = 16) -> str:
    """A table in the long form: two models by two tasks on examples, its last columns numbers or comments."""
    names = columns.split(",")
    cells: dict[str, Any] = {
        "model": lambda i: "ab"[i % 2],
        "task": lambda i: "tu"[i // 2 % 2],
        "note": lambda i: f"a remark {i}",
        "metric": lambda i: "fg"[i // 4 % 2],
    }
    examples = {name: lambda i: i // 4 for name in ("example", "doc_id", "n", "run")}
    table = [",".join(str((cells | examples).get(name, lambda i: i % 7)(i)) for name in names) for i in range(rows)]
    return "\n".join([columns, *table, ""])


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ("model,task,example,score,latency", "--long model,task,example,score"),
        ("model,task,example,latency,score", "--long model,task,example,score"),
        ("model,task,example,score,note", "--long model,task,example,score"),
        ("model,task,example,loss", "--long model,task,example,loss"),
        ("model,task,n,score", "--long model,task,n,score"),
        ("task,model,run,pass_at_1", "--long model,task,run,pass_at_1"),
        ("model,task,metric,example,score", "--long model,task,example,score"),
        ("model,example,loss", "--long model,JUDGE,loss"),
    ],
)
def test_a_long_table_that_is_not_recognised_is_refused_with_its_flags(
    columns: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long.csv").write_text(_long(columns))
    for words in ((), ("--id", "model"))[: 1 if "JUDGE" in remedy else 2]:
        message = refused(capsys, "combine", "long.csv", *words, "-o", "ranking.csv")
        assert f"if it is one, say {remedy}; if each row" in message
        assert "'model'" in message
        assert "--id " in message
        assert not Path("ranking.csv").exists()
    numbers = [name for name in columns.split(",") if name not in ("model", "task", "note", "metric")]
    assert f"--columns {','.join(numbers)}" in message
    # The user who says so ranks the rows; the remedy ranks the models.
    assert len(_answer(capsys, "long.csv", "--columns", numbers[-1])["ranking"]) == 16
    if "JUDGE" not in remedy and "metric" not in columns:
        assert sorted(_answer(capsys, "long.csv", *remedy.split())["ranking"]) == ["a", "b"]
    with pytest.raises(InputError, match=r"say kofn.combine\(\*\*kofn.combination.long_ballots\(frame\['model'\], "):
        kofn.combine("long.csv")
    assert kofn.combine("long.csv", columns=[numbers[-1]]).n == 16


def test_rows_that_a_column_names_are_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Runs of two models, each with a name or a number of its own.
    Path("runs.csv").write_text("run,model,mmlu,arc\nr1,a,1,2\nr2,a,2,4\nr3,b,3,3\n")
    assert _answer(capsys, "runs.csv", "--id", "run")["ranking"][-1] == "r1"
    assert len(_answer(capsys, "runs.csv")["ranking"]) == 3
    Path("numbered.csv").write_text("run,model,mmlu,arc\n1,a,1,2\n2,a,2,4\n3,b,3,3\n")
    assert "--id run" in refused(capsys, "combine", "numbered.csv")
    assert _answer(capsys, "numbered.csv", "--id", "run", "--columns", "mmlu,arc")["ranking"][-1] == 1


def test_losses_in_the_long_form_are_told_to_be_taken_as_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long.csv").write_text("model,task,loss\na,t,1\nb,t,2\na,u,3\nb,u,4\n")
    words = ("combine", "long.csv", "--long", "model,task,loss")
    told = ran(capsys, *words)[1]
    assert "higher loss is taken as better; if lower is: --lower t,u" in told
    falling = ran(capsys, *words, "--lower", "t,u")[1]
    assert "taken as better" not in falling
    assert "  1. a" in falling


def test_votes_in_a_file_are_told_how_python_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("votes.csv").write_text("model_a,model_b,winner,turn\nx,y,model_a,1\ny,z,tie,2\nx,z,model_b,1\n")
    Path("games.csv").write_text("winner,loser,turn\nx,y,1\ny,z,2\nx,z,1\n")
    for file, first in (("votes.csv", "z"), ("games.csv", "x")):
        with pytest.raises(InputError, match="looks like votes, one a row") as refusal:
            kofn.combine(file)
        call = str(refusal.value).split("count them first: ")[1]
        plan = eval(call, {"kofn": kofn, "frame": pl.read_csv(file)})
        assert plan.to_frame()["id"].to_list()[0] == first
