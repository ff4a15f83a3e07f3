"""Blank lines between the rows of a table are skipped, as pandas and Python's csv do; runs of spaces separate once."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run

from kofn.core.checks import InputError, KofnWarning
from kofn.io.opening import open_table
from kofn.io.reading import Reading


@pytest.mark.filterwarnings("always")
def test_blank_lines_between_rows_are_skipped_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.csv").write_text('a,b\n1,2\n\n3,"x\n\ny"\n  \n5,6\n\n')
    with pytest.warns(KofnWarning, match=r"b.csv: 2 blank lines are skipped, the first of them line 3; rows are count"):
        table = open_table("b.csv")
    assert table.n == 3
    assert table.take([0, 1, 2]).rows() == [(1, "2"), (3, "x\n\ny"), (5, "6")]
    Path("c.csv").write_text("key,a,b\nr0,0,0\n\nr1,9,9\nr2,1,0\n")
    for more in ((), ("--drop-empty",)):
        code, _, err = run(capsys, "select", "c.csv", "--columns", "a,b", "-k", 3, "-o", "o.csv", *more)
        assert code == 0
        assert err == "kofn: warning: c.csv: line 3 is blank and is skipped; rows are counted without it\n"
        assert set(pl.read_csv("o.csv").select("key", "row").iter_rows()) == {("r0", 0), ("r1", 1), ("r2", 2)}
    # A row of empty fields is no blank line, and what is wrong below a blank line is named by its own.
    Path("d.csv").write_text("a,b\n1,2\n,\n")
    assert "column 'a' at row 1 is empty" in refused(capsys, "select", "d.csv", "--columns", "a,b", "-k", 1)
    Path("e.csv").write_text("a,b\n1,2\n\n3\n")
    with pytest.raises(InputError, match="the row at line 4 has 1 field"):
        open_table("e.csv")


def test_a_blank_line_in_a_file_of_one_column_is_an_empty_cell(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text("a\n1\n\n3\n")
    assert open_table("a.csv").column("a").to_list() == [1, None, 3]
    assert "column 'a' at row 1 is empty" in refused(capsys, "select", "a.csv", "--columns", "a", "-k", 1)


def test_runs_of_spaces_separate_fields_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.txt.csv").write_text("  OBS  GPA 'X'\n1 2.5   0\n  2   3.5 1  \n\n3 4.5 \"a b\"\n")
    with pytest.warns(KofnWarning, match=r"^s.txt.csv: line 4 is blank"):
        table = open_table("s.txt.csv", Reading(delimiter=" "))
    assert table.columns == ["OBS", "GPA", "'X'"]
    assert table.column("GPA").to_list() == [2.5, 3.5, 4.5]
    assert table.column("'X'").to_list() == ["0", "1", "a b"]
    # Single spaces may have an empty field between them.
    Path("t.csv").write_text("a b c\n1  3\n4 5 6\n")
    assert open_table("t.csv", Reading(delimiter=" ")).column("b").to_list() == [None, 5]
    Path("u.csv").write_text("a  b\n1 2\n1 2 3\n")
    with pytest.raises(InputError, match=r"^u.csv: the row at line 3 has 3 fields, the header has 2"):
        open_table("u.csv", Reading(delimiter=" "))


def test_a_file_separated_by_spaces_is_told_as_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.csv").write_text("'OBS' 'GPA' 'PSI'\n1 2.66 0\n2 2.89 1\n")
    message = refused(capsys, "select", "g.csv", "--columns", "GPA", "-k", 1)
    assert "if spaces separate its fields, say --delimiter ' ' (runs of them count once)" in message
    assert run(capsys, "select", "g.csv", "--columns", "'GPA'", "-k", 1, "--delimiter", " ")[0] == 0
    Path("h.csv").write_text("long text\nred car\n")
    assert "spaces separate" not in refused(capsys, "select", "h.csv", "--text", "body", "-k", 1)


def test_names_in_quotes_with_spaces_between_them_are_told_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '"width (cm)" "length (cm)" kind\n1.5 2 a\n3 4.5 b\n'
    Path("q.csv").write_text(table)
    message = refused(capsys, "select", "q.csv", "-k", 1)
    assert "if spaces separate its fields, say --delimiter ' '; else double the quotes in it" in message
    Path("r.csv").write_text('a,b\n"x" y,2\n')
    assert "spaces separate" not in refused(capsys, "select", "r.csv", "-k", 1)
    # What separates the fields makes a table of any text.
    asked = ("--columns", "length (cm)", "-k", 2, "--delimiter", " ", "-o", "picks.csv")
    for name in ("q.csv", "q.txt"):
        Path(name).write_text(table)
        assert run(capsys, "select", name, *asked)[0] == 0
        assert open_table("picks.csv").columns[:3] == ["width (cm)", "length (cm)", "kind"]
    with gzip.open("z.txt.gz", "wt") as file:
        file.write(table)
    assert open_table("z.txt.gz", Reading(delimiter=" ")).n == 2
    message = refused(capsys, "select", "z.txt.gz", "-k", 1)
    assert "unknown suffix '.txt'" in message
    assert "or say --delimiter" in message
    assert "or say --delimiter" in refused(capsys, "select", "q.txt", "-k", 1)


def test_fields_with_spaces_between_them_are_no_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "separate its fields, say --delimiter ' '"
    for name, text in (("three", "a b c\nx y z\nu v w\n"), ("numbers", "name size\nred 5\nblue 7.5\n")):
        Path(f"{name}.csv").write_text(text)
        header = text.split("\n")[0]
        code, out, err = run(capsys, "select", f"{name}.csv", "--text", header, "-k", 1)
        assert code == 0
        assert told in out + err
        assert told not in "".join(
            run(capsys, "select", f"{name}.csv", "--text", header, "-k", 1, "--delimiter", ",")[1:]
        )
    Path("full.csv").write_text("full name\nJohn Smith\nJane Doe\n")
    assert told not in run(capsys, "select", "full.csv", "--text", "full name", "-k", 1)[1]
