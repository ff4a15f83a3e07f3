"""Files of pairs (`--must-link`, `--cannot-link`): with a header and without, of one pair and of several."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run

CALL = ("assign", "points.csv", "--id", "key", "--columns", "x", "--k", "2", "-o", "o.csv")


@pytest.fixture(autouse=True)
def _points(folder: Path) -> None:
    (folder / "points.csv").write_text("key,x\nr0,0\nr1,1\nr2,2\nr3,10\nr4,11\nr5,12\n")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("header", ["", "one,other\n"])
@pytest.mark.parametrize("pairs", ["r0,r5\n", "r0,r5", "r0,r5\nr5,r3\n"])
def test_pairs_are_read_whether_one_or_several(
    pairs: str, header: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = "," if suffix == ".csv" else "\t"
    Path(f"pairs{suffix}").write_text((header + pairs).replace(",", mark))
    code, _, err = run(capsys, *CALL, "--must-link", f"pairs{suffix}")
    assert code == 0, err
    group = dict(pl.read_csv("o.csv").select("key", "group").iter_rows())
    assert group["r0"] == group["r5"]
    if "r3" in pairs:
        assert group["r3"] == group["r5"]


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ("r0,r99999\n", "names 'r99999' in its first line, which no row has as its id"),
        ("r0,r99999\nr1,r2\n", "names 'r99999' in its first line, which no row has as its id"),
        ("one,other\n", "names 'one' in its first line, which no row has as its id"),
        ("one,other\nr0,r9\n", "names 'r9' at row 0, which no row has as its id"),
        ("r0 r2\n", "has one column; give two, the ids of each pair"),
        ("r0 r2\nr1 r3\n", "has one column; give two, the ids of each pair"),
        ("r0;r2\n", "has one column; give two, the ids of each pair"),
        ("r0,r2,r4\n", "has 3 columns (r0, r2, r4); give two columns, one pair a line"),
        ("one,other,third\nr0,r2,r4\n", "has 3 columns (one, other, third); give two columns, one pair a line"),
    ],
)
@pytest.mark.parametrize("flag", ["--must-link", "--cannot-link"])
def test_what_is_wrong_with_a_pair_is_said(
    flag: str, pairs: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pairs.csv").write_text(pairs)
    assert told in refused(capsys, *CALL, flag, "pairs.csv")
