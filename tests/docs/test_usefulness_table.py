"""README says of picks to label what the recorded benchmark says, and no default is surely below random rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.usefulness import SHOWN

ROOT = Path(__file__).resolve().parents[2]
SUMMARY: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "usefulness.json").read_text())["usefulness"][
    "summary"
]
# Where the cells after the first three come from: kind of data, rows of a pool, and which sets.
CELLS = (
    ("any", 2000, "judges"),
    ("text", 2000, "all"),
    ("table", 2000, "all"),
    ("image", 2000, "all"),
    ("any", 10_000, "all"),
)


def found(name: str, kind: str, size: int, part: str) -> dict[str, Any]:
    wanted = (name, kind, size, part)
    return next(row for row in SUMMARY if (row["contender"], row["kind"], row["size"], row["part"]) == wanted)


@pytest.mark.parametrize("shown", SHOWN)
def test_readme_says_what_was_measured(shown: str) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    cells = next(line for line in lines if line.startswith(f"| {shown} |")).strip("| ").split(" | ")
    whole = found(SHOWN[shown], "any", 2000, "all")
    figures = zip(whole["points"], whole["interval"], strict=True)
    assert cells[1:4] == [f"{points:+.1f} ±{interval:.1f}" for points, interval in figures]
    for cell, place in zip(cells[4:], CELLS, strict=False):
        if cell.strip():
            assert cell.strip() == " ".join(f"{points:+.1f}" for points in found(SHOWN[shown], *place)["points"])


@pytest.mark.parametrize("name", ["TypiClust", "facility location"])
def test_no_default_is_surely_below_random(name: str) -> None:
    rows = [row for row in SUMMARY if row["contender"] == name]
    assert len(rows) > 10
    for row in rows:
        for points, interval in zip(row["points"], row["interval"], strict=True):
            assert interval is None or points + interval >= 0, row
