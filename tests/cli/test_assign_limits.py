"""`kofn assign --scores` with bins that must hold so many items, and bins limited by the sum of a column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import refused, run

TASKS = """task,a,b,c,hours
u,9,8,1,4
v,7,1,2,3
w,5,4,4,2
x,3,,3,1.5
y,2,2,2,6
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.csv"
    path.write_text(TASKS)
    return path


def test_bins_are_limited_by_the_sum_of_a_column(
    tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    call = ("assign", tasks, "--id", "task", "--scores", "--size", "hours", "-o", out)
    code, printed, _ = run(capsys, *call, "--limit", "6")
    assert code == 0
    # The sizes are no bin, though no --columns says so.
    assert "generalized_assignment: 5 items in 3 bins (a, b, c), value 24 (optimal)" in printed
    assert "filled: b 6 of 6, c 6 of 6, a 4.5 of 6" in printed
    assert pl.read_csv(out)["bin"].to_list() == ["b", "a", "b", "a", "c"]
    limits = tmp_path / "limits.csv"
    limits.write_text("bin,hours\nc,8\na,5\nb,6\n")
    printed = run(capsys, *call, "--limit", limits)[1]
    assert "filled: a 5 of 5, c 7.5 of 8, b 4 of 6" in printed
    printed = run(capsys, *call, "--limit", "4,0,6", "--reserve", "0", "--json")[1]
    assert json.loads(printed)["unplaced"] == 2


def test_bins_must_hold_so_many(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    call = ("assign", tasks, "--id", "task", "--scores", "--columns", "a,b,c", "-o", out, "--min-size")
    code, printed, _ = run(capsys, *call, "1,1,3")
    assert code == 0
    assert "balanced_assignment" in printed
    assert sorted(pl.read_csv(out)["bin"].to_list()) == ["a", "b", "c", "c", "c"]
    least = tmp_path / "least.csv"
    least.write_text("bin,n\na,0\nb,4\nc,0\n")
    assert run(capsys, *call, least)[0] == 0
    assert pl.read_csv(out)["bin"].to_list().count("b") == 4
    assert "min_size asks for 6 items in all, there are 5" in refused(capsys, *call, "2")


@pytest.mark.parametrize("least", ["0", "0,0"])
def test_a_minimum_of_0_leaves_loads_free(least: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, out = tmp_path / "scores.csv", tmp_path / "out.csv"
    scores.write_text("task,a,b\nx,1,7\ny,2,8\n")
    call = ("assign", scores, "--id", "task", "--scores", "-o", out)
    assert run(capsys, *call, "--min-size", least)[0] == 0
    assert pl.read_csv(out)["bin"].to_list() == ["b", "b"]
    assert run(capsys, *call, "--min-size", least, "--dry-run")[0] == 0
    assert run(capsys, *call)[0] == 0
    assert sorted(pl.read_csv(out)["bin"].to_list()) == ["a", "b"]


def test_limits_that_do_not_go_together_are_refused(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("assign", tasks, "--id", "task", "--scores")
    assert "--size needs --limit" in refused(capsys, *call, "--size", "hours")
    assert "--limit needs --size" in refused(capsys, *call, "--limit", "6")
    assert "'x' is not a number" in refused(capsys, *call, "--size", "hours", "--limit", "6,x")
    assert "limits has shape (2,), scores has 3 bins" in refused(capsys, *call, "--size", "hours", "--limit", "6,5")
    assert "item 'u' has size 4 and fits in no bin" in refused(capsys, *call, "--size", "hours", "--limit", "2")


def _empty_column(tmp_path: Path, suffix: str, kind: Any) -> Path:
    """Four items, three bins, no score for the last."""
    frame = pl.DataFrame({"id": list("xyzw"), "a": [1, 2, 3, 0], "b": [2, 1, 4, 1]})
    frame = frame.with_columns(pl.lit(None, dtype=kind).alias("c"))
    path = tmp_path / f"scores.{suffix}"
    if suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("csv", pl.Float64), ("parquet", pl.Float64), ("parquet", pl.String), ("parquet", pl.Null), ("jsonl", pl.Float64)],
)
@pytest.mark.parametrize("columns", [[], ["--columns", "a,b,c"]])
def test_a_bin_without_scores_is_a_bin_that_no_item_may_go_to(
    tmp_path: Path, suffix: str, kind: Any, columns: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = _empty_column(tmp_path, suffix, kind)
    flags = ["--capacity", "2,2,4", *columns, "-o", tmp_path / "o.csv"]
    code, text, _ = run(capsys, "assign", path, "--scores", *flags)
    assert code == 0
    assert "4 items in 3 bins" in text
    assert "no item may go to bin 'c'" in text
    assert pl.read_csv(tmp_path / "o.csv")["bin"].value_counts().sort("bin").rows() == [("a", 2), ("b", 2)]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--min-size", "1"], "--min-size asks 1 of bin 'c', which has no score"),
        (["--min-size", "0,0,2", "--capacity", "4"], "--min-size asks 2 of bin 'c', which has no score"),
        ([], "bin 'c' has no score, so that no item may go to it, and without --capacity"),
    ],
)
def test_a_minimum_of_a_bin_without_scores_is_refused(
    tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, "assign", _empty_column(tmp_path, "csv", pl.Float64), "--scores", *flags)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_item_without_scores_is_an_item_that_may_go_nowhere(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, path = pl.DataFrame({"a": [1, None, 3], "b": [2, None, 4]}), tmp_path / f"scores.{suffix}"
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    assert "item 1 lists no bin, all its scores are -inf or missing" in refused(capsys, "assign", path, "--scores")
    flags = ["--capacity", "2", "--overflow", "drop", "-o", tmp_path / "o.csv"]
    code, text, _ = run(capsys, "assign", path, "--scores", *flags)
    assert (code, "3 items in 2 bins" in text, "1 unplaced" in text) == (0, True, True)
    assert pl.read_csv(tmp_path / "o.csv")["bin"].to_list() == ["b", None, "b"]
