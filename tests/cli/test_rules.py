"""What `kofn combine` says beside a ranking: ties, every rule's winner, single judges, missing scores, groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import refused, run

BOARD = """model,mmlu,arc,gsm,human,ppl
alpha,70,60,50,40,5.1
beta,71,55,,45,5.0
gamma,65,66,40,30,6.0
delta,50,50,51,20,
eps,40,41,30,45,8
"""


def spoken(capsys: pytest.CaptureFixture[str], *call: Any) -> str:
    code, text, err = run(capsys, "combine", *call)
    assert code == 0, err
    return text


def test_a_board_is_told_with_what_it_hangs_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text(BOARD)
    text = spoken(capsys, "board.csv", "--id", "model", "--lower", "ppl", "--report", "r.html")
    assert "first under every rule: beta\n" in text
    assert "whichever single judge is left out, the same is first\n" in text
    assert "missing: 2 of 25 scores (beta 1, delta 1)\n" in text
    page = Path("r.html").read_text()
    for title in ("Rule against rule", "How far the rules agree", "Each against each", "Without one judge"):
        assert title in page
    told = json.loads(spoken(capsys, "board.csv", "--id", "model", "--lower", "ppl", "--json"))
    assert (told["missing"], told["tied"], told["without"]) == (2, [], {})
    assert set(map(tuple, told["winners"].values())) == {("beta",)}
    assert len(told["winners"]) == 12


def test_a_judge_who_scored_nothing_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("m,j1,j2,j3\na,1,,2\nb,2,,1\nc,3,,3\n")
    assert "no judges, for want of a single score: j2\n" in spoken(capsys, "board.csv", "--id", "m")
    assert "want of a single score" not in spoken(capsys, "board.csv", "--id", "m", "--columns", "j1,j3")
    assert "rated nothing" in refused(capsys, "combine", "board.csv", "--id", "m", "--columns", "j1,j2")


def test_kemeny_says_who_may_change_places(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("m,j1,j2\na,1,1\nd,2,2\nc,2,2\nb,3,3\n")
    call = ("board.csv", "--id", "m", "-m", "kemeny")
    assert "as good in any order among themselves: d, c\n" in spoken(capsys, *call)
    Path("even.csv").write_text("m,j1\na,1\nb,1\n")
    assert "first under every rule: a, b\n" in spoken(capsys, "even.csv", "--id", "m")
    told = json.loads(spoken(capsys, *call, "--json"))
    assert (told["ranking"], told["exchangeable"]) == (["b", "d", "c", "a"], [["d", "c"]])


def test_ties_other_rules_and_judges_that_decide_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("m,j1,j2,j3\na,3,3,1\nb,2,1,3\nc,1,2,2\nd,0,0,0\n")
    text = spoken(capsys, "board.csv", "--id", "m")
    told = json.loads(spoken(capsys, "board.csv", "--id", "m", "--json"))
    for judge, first in told["without"].items():
        kept = [name for name in ("j1", "j2", "j3") if name != judge]
        other = json.loads(spoken(capsys, "board.csv", "--id", "m", "--columns", ",".join(kept), "--json"))
        assert [row["id"] for row in other["standings"] if row["rank"] == 1] == first
        assert f"{judge}: {', '.join(first)}" in text
    assert told["without"]
    assert set(told["rules_left_out"]) == {"bradley_terry", "plackett_luce"}
    assert "not ranked by bradley_terry (perfect separation), plackett_luce (perfect separation)\n" in text
    Path("board.csv").write_text("m,j1,j2\na,2,1\nb,1,2\nc,0,0\n")
    assert "tied: a, b (rank 1)\n" in spoken(capsys, "board.csv", "--id", "m")
    Path("board.csv").write_text("m,j1,j2,j3\na,5,1,1\nb,4,5,4\nc,1,4,5\n")
    assert "first: b by borda" in spoken(capsys, "board.csv", "--id", "m")


def test_votes_have_ranks_of_votes_and_every_rules_winner(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text("winner,loser\n" + "x,y\n" * 6 + "y,x\n" * 4 + "y,z\n" * 9 + "z,y\nz,x\nx,z\nx,z\n")
    text = spoken(capsys, "v.csv", "-m", "bradley_terry")
    assert "ranks: where each stands in 95% of draws of as many votes" in text
    assert "first under every rule: " in text or "first: " in text
    assert "judge" not in text
    resampled = json.loads(spoken(capsys, "v.csv", "-m", "bradley_terry", "--resamples", 50, "--json"))
    assert all(1 <= row["rank_low"] <= row["rank_high"] <= 3 for row in resampled["standings"])
    assert "plurality" not in resampled["winners"]
    assert "--judge-group is of judges" in refused(capsys, "combine", "v.csv", "--judge-group", "a=b")


def test_groups_of_judges_count_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.csv").write_text("m,x1,x2,x3,y\na,9,8,7,4\nb,1,2,3,1\nc,5,5,5,2\n")
    groups = ("--judge-group", "x=x1,x2,x3", "--judge-group", "code=y")
    for method in ("borda", "schulze"):
        told = json.loads(spoken(capsys, "b.csv", "--id", "m", *groups, "--lower", "y", "-m", method, "--json"))
        assert told["judges"] == ["x", "code"]
        points = {row["id"]: row["points"] for row in told["standings"]}
        assert points["a"] == points["b"] == points["c"] == 0.5
    assert "ranked by itself first: x=x1,x2,x3; code=y" in spoken(capsys, "b.csv", "--id", "m", *groups)
    # Who is in no group is a judge like before.
    alone = json.loads(spoken(capsys, "b.csv", "--id", "m", *groups[:2], "--lower", "y", "--json"))
    assert alone["judges"] == ["x", "y"]
    assert {row["id"]: row["points"] for row in alone["standings"]} == {"a": 0.5, "b": 0.5, "c": 0.5}
    for group, says in (
        ("x", "give a name and columns, as in"),
        ("x=", "give a name and columns"),
        ("x=x4", "names 'x4', which is no judge"),
        ("x=x1,x1", "name judge x1 twice"),
    ):
        assert says in refused(capsys, "combine", "b.csv", "--id", "m", "--judge-group", group)
    twice = ("--judge-group", "x=x1", "--judge-group", "x=x2")
    assert "'x' is given twice" in refused(capsys, "combine", "b.csv", "--id", "m", *twice)


@pytest.mark.parametrize("names", ["label_1,label_2,label_3", "annotator a,annotator b,annotator c", "ann,bob,label"])
def test_what_several_people_say_of_one_thing_is_no_vote(
    folder: Path, capsys: pytest.CaptureFixture[str], names: str
) -> None:
    rows = ["yes,yes,yes", "no,yes,no", "maybe,maybe,maybe", "no,no,no", "yes,no,yes", "maybe,maybe,maybe"]
    Path("labels.csv").write_text("\n".join([names, *rows]))
    refused(capsys, "combine", "labels.csv", "-o", "o.csv")
    assert not Path("o.csv").exists()
    frame = ["thing," + names + ",score", *(f"t{i},{row},{i}" for i, row in enumerate(rows))]
    Path("labels.csv").write_text("\n".join(frame))
    told = json.loads(spoken(capsys, "labels.csv", "--id", "thing", "--columns", "score", "--json"))
    assert told["judges"] == ["score"]


def test_kemeny_says_between_which_ranks_each_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("kt.csv").write_text("model_a,model_b,winner\na,b,model_a\na,b,model_a\na,c,tie\nb,c,tie\n")
    text = spoken(capsys, "kt.csv", "--report", "kt.html", "-o", "kt-out.csv")
    assert "; a, c by minimax, baldwin, kemeny\n" in text
    assert "  1. a  ranks 1 to 2\n    2. c  ranks 1 to 3\n    3. b  ranks 2 to 3\n" in text
    assert "orders that overturn as little as this one\n" in text
    assert Path("kt-out.csv").read_text().splitlines() == [
        "rank,id,index,best_rank,worst_rank",
        "1,a,0,1,2",
        "2,c,2,1,3",
        "3,b,1,2,3",
    ]
    assert '<li value="3">b, ranks 2 to 3</li>' in Path("kt.html").read_text()
    told = json.loads(spoken(capsys, "kt.csv", "--json"))
    assert (told["winners"]["kemeny"], told["standings"][1]["worst_rank"]) == (["a", "c"], 3)


def test_what_no_vote_compares_is_said_by_every_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.csv").write_text("id,a,b,c,never\na,0,3,2,0\nb,1,0,4,0\nc,2,1,0,0\nnever,0,0,0,0\n")
    for method in ("kemeny", "schulze", "bradley_terry", "borda"):
        text = spoken(capsys, "w.csv", "--id", "id", "--wins", "-m", method)
        assert text.startswith(f"{method}: 3 of 4 alternatives ranked by 13 votes"), method
        assert "  4. never  never compared with another\n" in text
        assert "nan" not in text
        told = json.loads(spoken(capsys, "w.csv", "--id", "id", "--wins", "-m", method, "--json"))
        assert (told["never_compared"], told["ranking"]) == (["never"], ["a", "b", "c", "never"])
    Path("e.csv").write_text("model,t1,t2\nA,80,70\nB,,\nC,79,75\n")
    text = spoken(capsys, "e.csv", "--id", "model", "-m", "kemeny")
    assert "2 of 3 alternatives ranked" in text
    assert "  3. B  never compared with another\n" in text


def test_a_method_that_kofn_lacks_is_answered_with_one_that_fits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.csv").write_text("m,x,y\na,9,8\nb,1,2\n")
    for method, ours in (
        ("mean", "'borda' (it averages ranks"),
        ("ranked_pair", "'ranked_pairs'?"),
        ("tideman", "'ranked_pairs'"),
        ("kemeny_young", "'kemeny'?"),
        ("elo", "'bradley_terry'?"),
    ):
        told = refused(capsys, "combine", "b.csv", "--id", "m", "-m", method)
        assert f"method={method!r}: no such combine method; did you mean {ours}" in told
