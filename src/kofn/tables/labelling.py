"""What rows to label are picked with, and what such picks taught classifiers over random rows.

The figures are those of `python -m benchmarks usefulness`; `python -m benchmarks.usefulness` writes `labelling.json`
from them.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kofn.core.plans import Selection

_DATA = Path(__file__).with_suffix(".json")
_KINDS = {"text": "sets of texts compared by their words", "table": "tables", "any": "sets of several kinds"}
# Points of accuracy below which a gain is none to a person who labels, where it is not sure.
_LITTLE = 1.0
# Rows a class; nothing was measured with fewer.
_FEWEST = 0.5


class Expected(NamedTuple):
    """What picks of this kind taught classifiers over random rows, on the benchmark's sets.

    Attributes:
        points: mean over the sets, in points of accuracy.
        half_width: of that mean's 95% interval.
        lowest, highest: set.
        sets: how many.
        kind: of data, in words.
    """

    points: float
    half_width: float
    lowest: float
    highest: float
    sets: int
    kind: str

    @property
    def sure(self) -> bool:
        """True where the interval is above zero."""
        return self.points > self.half_width

    @property
    def verdict(self) -> str:
        """What to expect, in a few words."""
        if self.sure:
            return "a gain over random rows is expected"
        if self.points >= _LITTLE:
            return "a gain over random rows is likely at this size, not sure"
        if self.points > -_LITTLE:
            return "no gain over random rows expected at this size"
        return "random rows did better at this size"

    @property
    def measured(self) -> str:
        """The figures, in words."""
        low, high = self.points - self.half_width, self.points + self.half_width
        return (
            f"{self.points:+.1f} points of accuracy over random rows on {self.sets} {self.kind} (95% interval "
            f"{low:+.1f} to {high:+.1f}; by set {self.lowest:+.1f} to {self.highest:+.1f})"
        )


@functools.cache
def _rows() -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(_DATA.read_text(encoding="utf-8")))


def _row(kind: str, pool: int, a_class: float) -> Mapping[str, Any]:
    """The row that is nearest in size of pool and rows a class, by their ratios."""

    def apart(row: Mapping[str, Any]) -> tuple[float, float]:
        return abs(math.log(row["rows_a_class"] / a_class)), abs(math.log(row["rows"] / pool))

    return min((row for row in _rows() if row["kind"] == kind), key=apart)


def default_method(kind: str, pool: int, a_class: float) -> str:
    """What `auto` takes for `a_class` rows a class of a pool of so many rows, of "text", "table" or "any" data."""
    name: str = _row(kind, pool, a_class)["default"]
    return "auto" if name == "facility_location" else name


def expected(plan: Selection, kind: str, classes: int) -> Expected | None:
    """What to expect of the picks as rows to label; None where the benchmark does not have such picks."""
    a_class = len(plan) / classes
    if a_class < _FEWEST:
        return None
    row = _row(kind, plan.n, a_class)
    rbf = " rbf" if plan.options.get("metric") == "rbf" else ""
    for name in (plan.method, f"{plan.objective}{rbf}"):
        if name in row["points"]:
            points, half_width, lowest, highest = row["points"][name]
            return Expected(points, half_width, lowest, highest, row["sets"], _KINDS[kind])
    return None
