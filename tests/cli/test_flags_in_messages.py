"""What a message advises, the command that printed it takes."""

from __future__ import annotations

import re
from pathlib import Path

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
