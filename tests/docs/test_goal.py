"""What recorded figures say of the goal of picks to label: on small figures, and as README says it of the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.__main__ import main
from benchmarks.goal import goal, goal_table, goals, sets_needed, verdict
from benchmarks.usefulness import CONTENDERS

ROOT = Path(__file__).resolve().parents[2]


def recorded(part: str, points: dict[str, float], kind: str = "table") -> dict[str, Any]:
    """A set whose contenders reach so many points at every number of rows a class."""
    held = {name: [points.get(name, -9.0)] * 3 for name in CONTENDERS}
    beaten = {name: [0.9 if name == "TypiClust" else 0.5] * 3 for name in CONTENDERS}
    return {"kind": kind, "part": part, "size": 2000, "points": held, "beaten": beaten}


def test_the_best_contender_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    # Of the judging sets another contender is the best, which nobody could have chosen.
    choosing = [recorded("chooses", {"TypiClust": 2.0 + i, "k-means, nearest rows": 3.0 + i}) for i in range(3)]
    judging = [
        recorded("judges", {"TypiClust": 2.0 + i / 9, "k-means, nearest rows": 1.0, "log-determinant": 9.0})
        for i in range(3)
    ]
    rows = goals([*choosing, *judging])
    row = next(r for r in rows if (r["kind"], r["call"], r["rows a class"]) == ("table", "--classes", 3))
    assert (row["default"], row["contender"], row["chose by"], row["apart"]) == (
        "TypiClust",
        "k-means, nearest rows",
        -1.0,
        1.1,
    )
    assert (row["goal"], row["below random"], row["sets"]) == ("met", False, 3)
    plain = next(r for r in rows if (r["kind"], r["call"], r["rows a class"]) == ("any", "auto", 1))
    assert (plain["default"], plain["goal"], plain["below random"]) == ("facility location", "missed", True)
    assert {r["kind"] for r in rows} == {"table", "any"}
    assert "surely below random" in goal_table(rows)


@pytest.mark.parametrize(
    ("apart", "verdict_of"),
    [((-0.1, 0.1, 0.0), "met"), ((-3.0, -3.1, -2.9), "missed"), ((-9.0, 9.0, 0.0), "open"), ((4.0,), "open")],
)
def test_what_an_interval_shows(apart: tuple[float, ...], verdict_of: str) -> None:
    ours = np.array(apart)
    row = goal("a", {"a": ours, "b": ours * 0}, {"a": ours, "b": ours * 0})
    assert (row["goal"], row["apart"], row["sets"]) == (verdict_of, round(float(np.mean(apart)), 1), len(apart))


def test_as_many_sets_are_needed_as_make_the_interval_small() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=6) * 3, 7 + rng.normal(size=7) * 3]
    spread = np.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / 11)
    needed = sets_needed(parts)
    assert needed is not None
    wide = {n: student.ppf(0.975, n - 1) * spread / np.sqrt(n) for n in (needed - 1, needed)}
    assert wide[needed] <= 0.5 < wide[needed - 1]
    assert sets_needed([np.zeros(4), np.ones(2)]) == 2
    assert sets_needed([np.array([3.0]), np.array([4.0])]) is None


def test_readme_says_what_the_record_shows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import sys

    path = tmp_path / "goal.json"
    argv, sys.argv = sys.argv, ["benchmarks", "usefulness", "--goal", "--json", str(path)]
    try:
        assert main() == 0
    finally:
        sys.argv = argv
    rows = json.loads(path.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert verdict(rows) in printed
    assert (
        len([line for line in printed.splitlines() if " a class" not in line and "  --classes  " in line])
        == len(rows) // 2
    )
    assert not any(row["below random"] for row in rows)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert verdict(rows) in readme
