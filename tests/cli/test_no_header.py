"""Tables whose first row is no header, or whose fields are separated by spaces: asked about, and no row is lost."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run
from refusals import refused as refused_call

import kofn

ROWS = "".join(f"{5 + i / 10},{3.5 - i / 20},{1.4 + i % 3}\n" for i in range(12))


@pytest.mark.parametrize(
    "call",
    [
        ("assign", "p.csv", "--k", 3),
        ("select", "p.csv", "-k", 3),
        ("assign", "p.csv", "--scores"),
        ("select", "p.csv", "--scores", "-k", 3),
        ("select", "p.csv", "-k", 3, "--cost", "1.4", "--budget", 9),
        ("select", "p*.csv", "-k", 3),
    ],
)
def test_numbers_are_no_names(call: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.csv").write_text(ROWS)
    (folder / "p2.csv").write_text(ROWS)
    assert "no header? the first row 5.0,3.5,1.4 was taken as names; add a header line" in refused(capsys, *call)


def test_numbers_as_names_by_other_signs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "spaces.csv").write_text(ROWS.replace(",", " "))
    (folder / "comma.csv").write_text(ROWS.replace(",", ";").replace(".", ","))
    (folder / "twice.csv").write_text("1.5,1.5\n2,3\n")
    spaces = ("select", "spaces.csv", "-k", 3)
    assert "the first row 5.0 3.5 1.4 was taken" in refused(capsys, *spaces, "--delimiter", " ")
    assert "the first row 5,0;3,5;1,4 was taken" in refused(
        capsys, "select", "comma.csv", "-k", 3, "--delimiter", ";", "--decimal", ","
    )
    assert "'1.5' twice; no header? the first row was taken as names" in refused(capsys, "select", "twice.csv", "-k", 1)
    refused_call(lambda: kofn.select("spaces.csv", k=3, columns=["5.0"]), "if spaces separate its fields")


def test_names_that_are_said_or_count_are_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.csv").write_text(ROWS)
    assert run(capsys, "select", "p.csv", "--columns", "5.0,3.5", "-k", 3)[0] == 0
    for header in ("0,1,2", "1,2,3"):
        (folder / "counted.csv").write_text(f"{header}\n{ROWS}")
        for call in (("select", "counted.csv", "-k", 3), ("assign", "counted.csv", "--k", 3)):
            code, text, err = run(capsys, *call)
            assert code == 0, err
            assert "12" in text
    (folder / "curves.csv").write_text("0,1,2\n9,4,1\n8,3,2\n")
    (folder / "layers.csv").write_text("layer,2,4,8\na,9,4,1\nb,8,3,2\n")
    assert run(capsys, "allocate", "curves.csv", "--budget", 2)[0] == 0
    assert run(capsys, "allocate", "layers.csv", "--id", "layer", "--budget", 10)[0] == 0


def test_spaces_between_fields_are_proposed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.csv").write_text("name a b\n" + "".join(f"p{i} {i / 7} {i % 5 / 3}\n" for i in range(9)))
    for call in (
        ("select", "s.csv", "-k", 2),
        ("assign", "s.csv", "--k", 2),
        ("assign", "s.csv", "--scores"),
        ("allocate", "s.csv", "--budget", 3),
        ("select", "s.csv", "-k", 2, "--max-memory", "1MB"),
    ):
        assert "if spaces separate its fields, say --delimiter ' '" in refused(capsys, *call)
    code, _, err = run(capsys, "select", "s.csv", "--delimiter", " ", "--id", "name", "-k", 2)
    assert code == 0, err


def test_proposals_name_no_ids(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ids.csv").write_text(",key,a,b,t\n" + "".join(f"{i},{i},{i / 7},{i / 3},x\n" for i in range(9)))
    for call in (("select", "ids.csv", "-k", 2), ("assign", "ids.csv", "--k", 2)):
        assert "--text COLUMN (such as t) or --columns A,B (such as a,b)" in refused(capsys, *call, "--id", "key")


def test_a_first_row_of_measured_numbers_is_no_row_of_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fall.csv").write_text("0.5,0.3,0.1\n0.9,0.7,0.1\n0.4,0.2,0.1\n")
    told = "no header? the first row 0.5,0.3,0.1 was taken as the names of levels, which do not rise"
    assert told in refused(capsys, "allocate", "fall.csv", "--budget", 1)
    refused_call(lambda: kofn.allocate(curves=pl.read_csv("fall.csv"), budget=1), told)
    assert run(capsys, "allocate", "fall.csv", "--columns", "0.5,0.3,0.1", "--budget", 1)[0] == 0
    for header in ("0.1,0.3,0.5", "8,4,2"):
        (folder / "levels.csv").write_text(f"{header}\n9,7,1\n4,2,1\n")
        code, _, err = run(capsys, "allocate", "levels.csv", "--budget", 8)
        assert code == 0, err
