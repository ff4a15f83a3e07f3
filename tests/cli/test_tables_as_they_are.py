"""Tables as they are: marks for missing values, commas before decimals, other separators, encodings and compression."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run

ROWS = [("a", "20"), ("b", "31"), ("c", "44"), ("d", "52"), ("e", "67"), ("f", "80")]
PICK = ("--columns", "x", "-k", "2", "--json")


def table(cells: dict[int, str] | None = None, mark: str = ",") -> str:
    """A column of numbers, some of whose cells are spelt otherwise."""
    rows = [(key, (cells or {}).get(place, value)) for place, (key, value) in enumerate(ROWS)]
    quoted = [f'"{value}"' if mark in value else value for _, value in rows]
    return f"id{mark}x\n" + "".join(f"{key}{mark}{value}\n" for (key, _), value in zip(rows, quoted, strict=True))


def picks(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    code, text, err = run(capsys, *words)
    assert code == 0, err
    out: dict[str, object] = json.loads(text)
    return out


@pytest.mark.parametrize("verb", ["select", "assign"])
@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("NA", "--na 'NA'"),
        ("n/a", "--na 'n/a'"),
        ("-", "--na '-'"),
        ("?", "--na '?'"),
        ("1,200", "--decimal ,"),
        ("85.2%", "without the percent sign"),
        ("3,5", "--decimal ,"),
        ("1 200", "plain number"),
        ("$12", "plain number"),
    ],
)
def test_one_odd_cell_does_not_make_names_of_numbers(
    verb: str, cell: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text(table({3: cell}))
    said = refused(capsys, verb, "t.csv", "--columns", "x", "-k" if verb == "select" else "--k", "2")
    assert f"column 'x' at row 3 is {cell!r} in a column of numbers" in said
    assert told in said


def test_words_stay_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cells in ({0: "5+"}, {0: "red", 1: "-"}, {place: f"00{place}" for place in range(6)}, {2: "1.2.3"}):
        Path("t.csv").write_text(table(cells))
        code, text, err = run(capsys, "select", "t.csv", "--columns", "x", "-k", "2")
        assert code == 0, err
        assert "6 dimensions" in text


def test_missing_values_are_named_left_out_or_filled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(table({3: "NA", 5: "n/a"}))
    marks = ("--columns", "x", "--na", "NA,n/a")
    assert "row 3 is empty" in refused(capsys, "select", "t.csv", *marks, "-k", "2")
    code, text, err = run(capsys, "select", "t.csv", *marks, "-k", "4", "--drop-empty", "-o", "o.csv", "--id", "id")
    assert code == 0, err
    assert "2 rows miss a value and are left out" in text
    assert set(pl.read_csv("o.csv")["id"]) == {"a", "b", "c", "e"}
    code, text, err = run(capsys, "select", "t.csv", *marks, "-k", "6", "--impute", "median", "-o", "o.csv")
    assert code == 0, err
    assert "2 rows miss a value, filled with the median" in text
    # The cells come out as they are written.
    assert set(pl.read_csv("o.csv", infer_schema=False)["x"]) == {"20", "31", "44", "NA", "67", "n/a"}
    code, _, err = run(capsys, "assign", "t.csv", *marks, "--k", "2", "--drop-empty", "-o", "g.csv")
    assert code == 0, err
    assert len(pl.read_csv("g.csv")) == 4
    once = ("select", "t.csv", "--columns", "x", "-k", "1")
    assert "give one of them" in refused(capsys, *once, "--impute", "mean", "--drop-empty")
    assert "give median, mean" in refused(capsys, *once, "--impute", "zero")
    Path("none.csv").write_text("id,x\na,\nb,\n")
    assert "is empty" in refused(capsys, "select", "none.csv", "--columns", "x", "-k", "1", "--drop-empty")


def test_decimals_separators_and_encodings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    want = picks(capsys, "select", _written("plain.csv", table()), *PICK)["picks"]
    european = {place: f"1.{value}0,5" for place, (_, value) in enumerate(ROWS)}
    Path("e.csv").write_text(table(european, ";"))
    assert picks(capsys, "select", "e.csv", *PICK, "--delimiter", ";", "--decimal", ",")["picks"] == want
    said = refused(capsys, "select", "e.csv", "--columns", "x", "-k", "2")
    assert "--delimiter ';'" in said
    Path("latin.csv").write_bytes(table().replace("a,", "é,").encode("latin-1"))
    assert "is not UTF-8" in refused(capsys, "select", "latin.csv", "--columns", "x", "-k", "2")
    assert picks(capsys, "select", "latin.csv", *PICK, "--encoding", "latin-1")["picks"] == want
    Path("wide.csv").write_bytes(table().encode("utf-16"))
    assert picks(capsys, "select", "wide.csv", *PICK)["picks"] == want
    Path("t.csv.gz").write_bytes(gzip.compress(table().encode()))
    assert picks(capsys, "select", "t.csv.gz", *PICK)["picks"] == want
    rows = "".join(json.dumps({"id": key, "x": int(value)}) + "\n" for key, value in ROWS)
    Path("t.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert picks(capsys, "select", "t.jsonl.gz", *PICK)["picks"] == want
    Path("tabs.csv").write_text(table(mark="\t"))
    assert picks(capsys, "select", "tabs.csv", *PICK, "--delimiter", "tab")["picks"] == want
    once = ("select", "plain.csv", "--columns", "x", "-k", "1")
    assert "encoding='morse' is not known" in refused(capsys, *once, "--encoding", "morse")
    assert "decimal=';'" in refused(capsys, *once, "--decimal", ";")
    assert "give one character" in refused(capsys, *once, "--delimiter", "ab")


def _written(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_judges_and_curves_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model;x;y\na;85,2;N/A\nb;70,1;3\nc;60;5\n")
    words = ("combine", "board.csv", "--id", "model", "--delimiter", ";")
    said = refused(capsys, *words)
    assert "column 'x' at row 0 is '85,2'" in said
    assert "--decimal ," in said
    assert "--na 'N/A'" in refused(capsys, *words, "--decimal", ",")
    out = picks(capsys, *words, "--decimal", ",", "--na", "N/A", "--json")
    assert out["judges"] == ["x", "y"]
    Path("curves.csv").write_text("layer;2;4\na;3,5;1,5\nb;5;1\n")
    words = ("allocate", "curves.csv", "--id", "layer", "--budget", "6", "--delimiter", ";", "--decimal", ",", "--json")
    assert picks(capsys, *words)["items"] == 2


def test_a_wide_header_is_read_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"gene{i}" for i in range(20_000)]
    rows = [",".join([str(row)] * len(names)) for row in range(3)]
    Path("w.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    out = picks(capsys, "select", "w.csv", "--columns", "gene1,gene2", "-k", "1", "--json")
    assert out["picked"] == 1
