"""Columns of numbers among scores and judges that are neither are told, with the columns that are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run


def test_a_column_of_another_size_among_scores_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ry.csv").write_text("paper,year,ana,bob,cem\nP0,2024,.5,.2,.1\nP1,2023,.4,.3,\nP2,2022,.4,.3,.3\n")
    call = ("assign", "ry.csv", "--id", "paper", "--scores", "--capacity", 2, "-o", "a.csv")
    code, out, err = run(capsys, *call)
    assert code == 0, err
    told = "year counts as a bin beside the others (2022 to 2024, where the others reach 0.5)"
    assert f"{told}; to leave it out: --columns ana,bob,cem" in out
    assert "3 items in 4 bins (year, ana, bob, cem), value" in out
    code, out, err = run(capsys, *call, "--columns", "ana,bob,cem")
    assert code == 0, err
    assert "as a bin" not in out
    # Scores of one size, and scores of 0, are no reason to doubt.
    Path("rz.csv").write_text("paper,ana,bob\nP0,8,0\nP1,9,0\n")
    assert "as a bin" not in run(capsys, "assign", "rz.csv", "--id", "paper", "--scores", "-o", "z.csv")[1]


@pytest.mark.parametrize(
    ("header", "row", "odd", "rest"),
    [
        ("e0,e1,e2,hours", "{a:.3f},{b:.3f},{c:.3f},{d:.1f}", "hours counts as a bin", "e0,e1,e2"),
        ("ana,bob,size", "{a:.3f},{b:.3f},{d:.1f}", "size counts as a bin", "ana,bob"),
        ("ana,bob,cem,key", "{a:.3f},{b:.3f},{c:.3f},{i}", "key counts as a bin", "ana,bob,cem"),
        ("ana,bob,cem,hours", "{a:.3f},{b:.3f},{c:.3f},{d:.1f}", "hours counts as a bin", "ana,bob,cem"),
        (
            "ana lee,bob,cem,user_id,n",
            "{a:.3f},{b:.3f},{c:.3f},{i},{i}",
            "user_id, n count as bins",
            "'ana lee,bob,cem'",
        ),
    ],
)
def test_a_column_that_is_no_bin_is_told_by_its_name_or_its_numbers(
    header: str, row: str, odd: str, rest: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = [
        row.format(a=a, b=b, c=c, d=abs(d) + 0.5, i=i)
        for i, (a, b, c, d) in enumerate(rng.normal(size=(8, 4)).tolist())
    ]
    Path("s.csv").write_text("\n".join([header, *lines]))
    out = run(capsys, "assign", "s.csv", "--scores", "--capacity", 8)[1]
    assert f"{odd} beside the others" in out
    assert f"out: --columns {rest}\n" in out + "\n"
    assert "count" not in run(capsys, "assign", "s.csv", "--scores", "--columns", rest.strip("'"), "--capacity", 8)[1]
    # So are those of a pool of entries.
    assert f"{odd} beside the others" in run(capsys, "select", "s.csv", "--scores", "-m", "topk_mask", "-k", 2)[1]


def test_a_size_among_judges_is_told_by_select(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("j.csv").write_text("model,ana,bob,params\nx,3,1,7\ny,2,2,8\nz,1,3,9\n")
    told = "params counts as a judge beside the others; to leave it out: --columns ana,bob"
    assert told in run(capsys, "select", "j.csv", "--id", "model", "--rankings", "-k", 2)[1]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("8,1,3,3,5", "whole numbers that reach beyond the others' decimals"),
        ("1,1,2,1,1", "whole numbers that reach beyond the others' decimals"),
        ("0.1,40.5,30.2,20.5,10.5", "mostly about 20.5, where the others have at most"),
        ("1,0,1,1,0", ""),
        ("0.9,0.1,2.5,0.3,0.2", ""),
    ],
)
def test_whole_numbers_beside_fractions_and_another_scale_are_told(
    last: str, why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.random.default_rng(0).uniform(0.02, 0.5, (5, 3)).tolist()
    lines = [f"{a:.3f},{b:.3f},{c:.3f},{d}" for (a, b, c), d in zip(scores, last.split(","), strict=True)]
    Path("t.csv").write_text("\n".join(["ann,bob,cem,hours", *lines]))
    out = run(capsys, "assign", "t.csv", "--scores", "--capacity", 7)[1]
    assert ("hours counts as a bin beside the others" in out) == bool(why)
    assert why in out


def _numbered(first: str, numbers: list[int]) -> None:
    scores = np.random.default_rng(0).random((len(numbers), 3)).tolist()
    rows = (f"{i},{a:.3f},{b:.3f},{c:.3f}" for i, (a, b, c) in zip(numbers, scores, strict=True))
    Path("n.csv").write_text("\n".join([f"{first},ana,bob,cem", *rows]))


@pytest.mark.parametrize(
    ("call", "role"),
    [
        (("assign", "n.csv", "--scores", "--capacity", 6), "bin"),
        (("select", "n.csv", "--scores", "-m", "topk_mask", "-k", 3), "bin"),
        (("select", "n.csv", "--rankings", "-k", 3), "judge"),
        (("combine", "n.csv"), "judge"),
        (("allocate", "n.csv", "--budget", 6, "-m", "multiple_choice_knapsack"), "level"),
    ],
)
@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (list(range(8)), "counts up from 0 to 7"),
        (list(range(1, 9)), "counts up from 1 to 8"),
        ([1204, 1101, 1007, 1310, 1502, 1666, 1701, 1809], "holds whole numbers that all differ (1007 to 1809, where"),
    ],
)
def test_a_first_column_that_numbers_the_rows_is_asked_about_by_every_verb(
    numbers: list[int],
    why: str,
    call: tuple[object, ...],
    role: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _numbered("paper", numbers)
    message = refused(capsys, *call)
    assert f"n.csv column 'paper' {why}" in message
    assert f"say --id paper, if it counts as a {role}, name all of them: --columns paper,ana,bob,cem" in message
    # Either answer is taken.
    for said in (("--id", "paper"), ("--columns", "paper,ana,bob,cem")):
        assert run(capsys, *call, *said)[0] == 0


def test_whole_scores_in_the_first_column_are_no_numbers_of_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("w.csv").write_text("ana,bob\n3,1\n1,2\n2,3\n")
    assert run(capsys, "assign", "w.csv", "--scores", "--capacity", 2)[0] == 0
    assert run(capsys, "combine", "w.csv")[0] == 0
