"""`kofn assign --scores` with bins that must hold so many items, and bins limited by the sum of a column."""

from __future__ import annotations

import json
from pathlib import Path

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
    assert "generalized_assignment: 5 items in 3 bins, value 24 (optimal)" in printed
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


def test_limits_that_do_not_go_together_are_refused(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("assign", tasks, "--id", "task", "--scores")
    assert "--size needs --limit" in refused(capsys, *call, "--size", "hours")
    assert "--limit needs --size" in refused(capsys, *call, "--limit", "6")
    assert "'x' is not a number" in refused(capsys, *call, "--size", "hours", "--limit", "6,x")
    assert "limits has shape (2,), scores has 3 bins" in refused(capsys, *call, "--size", "hours", "--limit", "6,5")
    assert "item 0 has size 4 and fits in no bin" in refused(capsys, *call, "--size", "hours", "--limit", "2")
