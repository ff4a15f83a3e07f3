"""Whether a default is behind the best contender by more than chance: calibrated on drawn sets, and as recorded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shortfall import GOAL, shortfall, table
from benchmarks.usefulness import shortfalls

FIGURES = json.loads((Path(__file__).resolve().parents[2] / "benchmarks" / "usefulness.json").read_text())["usefulness"]


def drawn(rng: np.random.Generator, sets: int, better: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A default and twelve contenders of the same worth but for one."""
    base = rng.normal(size=sets) * 3
    others = {str(j): base + rng.normal(size=sets) * 2 for j in range(12)}
    others["0"] += better
    return base + rng.normal(size=sets) * 2, others


@pytest.mark.parametrize("sets", [3, 7])
def test_chance_alone_is_rarely_taken_for_a_miss(sets: int) -> None:
    rng = np.random.default_rng(0)
    rows = [shortfall(*drawn(rng, sets, 0.0)) for _ in range(300)]
    assert sum(row["goal"] == "missed" for row in rows) <= 0.08 * len(rows)
    # The best of twelve leads by far more than the goal allows, where none of them is better.
    assert np.mean([row["behind by"] for row in rows]) > 2 * GOAL
    assert np.mean([row["by chance"] for row in rows]) == pytest.approx(
        np.mean([row["behind by"] for row in rows]), rel=0.6
    )


def test_a_contender_that_is_better_is_shown() -> None:
    rng = np.random.default_rng(1)
    rows = [shortfall(*drawn(rng, 7, 8.0)) for _ in range(100)]
    assert sum(row["goal"] == "missed" for row in rows) > 70
    assert {row["best"] for row in rows} == {"0"}


def test_a_default_that_leads_surely_meets_the_goal() -> None:
    default = np.array([5.0, 6.0, 5.5, 6.5])
    row = shortfall(default, {"a": default - [5, 4, 5, 6], "b": default - [2, 2, 2.1, 2.2]})
    assert (row["goal"], row["best"], row["behind by"], row["below random"]) == ("met", None, 0.0, False)
    assert shortfall(-default, {"a": -default - 1})["below random"]


def test_signs_are_those_of_sets() -> None:
    default, others = np.zeros(3), {"a": np.array([1.0, 2, 6]), "b": np.array([2.0, -1, 5])}
    centred = np.array([gap - gap.mean() for gap in others.values()]) * np.sqrt(1.5)
    largest = [max(0.0, *(centred @ signs / 3)) for signs in itertools.product((-1, 1), repeat=3)]
    row = shortfall(default, others)
    assert row["by chance"] == round(float(np.mean(largest)), 1)
    assert row["at most"] == round(float(np.quantile(largest, 0.95)), 1)


def test_the_record_says_which_cells_miss_the_goal() -> None:
    rows = shortfalls(FIGURES["sets"])
    assert rows == FIGURES["shortfalls"]
    assert not any(row["below random"] for row in rows)
    assert {(row["kind"], row["part"]) for row in rows} >= {("text", "judges"), ("table", "chooses"), ("any", "judges")}
    assert len(table(rows).splitlines()) == len(rows) + 1
