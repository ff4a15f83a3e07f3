"""What a message advises, the command that printed it takes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run

GAP = "key,A,B,V\nr0,1,2,[1 2]\nr1,,4,[1 2]\nr2,5,6,[1 2]\n"
BINS = "bin,capacity\nA,2\nB,\n"


@pytest.mark.parametrize(
    "call",
    [
        ("allocate", "odd.csv", "--columns", "A,B", "--budget", "2"),
        ("allocate", "odd.csv", "--levels", "1,2", "--columns", "A,B", "--budget", "2"),
        ("allocate", "t.csv", "--columns", "B", "--size", "A", "--budget", "2"),
        ("allocate", "t.csv", "--id", "B", "--columns", "A", "--budget", "2"),
        ("combine", "t.csv", "--id", "A", "--columns", "B", "-o", "o.csv"),
        ("combine", "odd.csv", "--columns", "A,B", "-o", "o.csv"),
        ("assign", "t.csv", "--id", "A", "--columns", "B", "--k", "2"),
        ("assign", "t.csv", "--columns", "A,B", "--k", "2"),
        ("assign", "t.csv", "--columns", "B", "--weight", "A", "--k", "2"),
        ("assign", "whole.csv", "--scores", "--columns", "A,B", "--capacity", "bins.csv"),
        ("assign", "whole.csv", "--columns", "A", "--k", "2", "--must-link", "t2.csv"),
        ("select", "t.csv", "--columns", "A", "-k", "2"),
        ("select", "t.csv", "--columns", "B", "--weight", "A", "-k", "2"),
    ],
)
def test_flags_that_are_advised_exist(call: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").write_text(GAP)
    (folder / "whole.csv").write_text(GAP.replace(",,", ",3,"))
    (folder / "odd.csv").write_text(GAP.replace(",,", ",tbd,"))
    (folder / "bins.csv").write_text(BINS)
    (folder / "t2.csv").write_text("one,other\n0,\n1,2\n")
    said = refused(capsys, *call)
    assert "; " in said  # what is wrong, and what to do
    _, described, _ = run(capsys, call[0], "--help")
    unknown = set(re.findall(r"--[a-z][a-z-]+", said)) - set(re.findall(r"--[a-z][a-z-]+", described))
    assert not unknown, said
    if len({"bins.csv", "t2.csv"} & set(call)):
        assert "--drop-empty" not in said  # which is of the rows, and not of a file beside them
    elif call[0] in ("assign", "select"):
        assert "--drop-empty" in said


def test_rows_and_quotas_are_refused_by_their_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.csv").write_text("id,x,y,package,os\na,1,2,requests,mac\nb,2,3,numpy,mac\nc,3,5,requests,win\n")
    call = ("select", "s.csv", "--id", "id", "--columns", "x,y", "-k", 3)
    for word in ("include", "exclude", "start"):
        assert f"kofn: --{word} names 'zzz'" in refused(capsys, *call, f"--{word}", "zzz")
    assert "kofn: --quota package=requests asks for" in refused(capsys, *call, "--quota", "package=requests:3")
    said = refused(capsys, *call, "--quota", "package=requests:3", "--quota", "os=mac:1")
    assert "--quota package=requests asks for" in said
    assert "quotas[" not in said


def test_columns_that_name_no_amounts_are_asked_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.csv").write_text("group,votes,price\na,100,3\nb,50,2\nc,25,1\n")
    call = ("allocate", "g.csv", "--id", "group", "--budget", 50)
    said = refused(capsys, *call)
    assert "votes, price are no amounts that an item could get" in said
    assert "--score votes --method sainte_lague (or dhondt, ..)" in said
    assert "--columns votes,price, at other amounts --levels A,B,.." in said
    for more in (("--columns", "votes,price"), ("--levels", "1,2"), ("-m", "multiple_choice_knapsack")):
        assert "column" in run(capsys, *call, *more)[1]
    code, out, err = run(capsys, *call, "--score", "votes", "-m", "sainte_lague")
    assert code == 0, err
    assert "in proportion" not in out


def test_an_array_is_compared_by_no_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("v.npy", np.random.default_rng(0).random((20, 3)))
    assert "compared by the array as it is" in run(capsys, "select", "v.npy", "-k", 2)[1]
