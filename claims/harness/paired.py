"""Paired differences over seeds, with a confidence limit: an effect is claimed by its size, not by its sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean of `ours - theirs` over paired runs, and its one-sided 95% limits (Student's t)."""

    mean: float
    low: float
    high: float
    runs: int

    def above(self, effect: float) -> bool:
        """True where even the lower limit is above the effect."""
        return self.low > effect

    def figures(self) -> dict[str, float | int]:
        """As a row of a claim's figures."""
        return {"mean": round(self.mean, 5), "low": round(self.low, 5), "high": round(self.high, 5), "runs": self.runs}


def difference(ours: Sequence[float] | Any, theirs: Sequence[float] | Any, *, level: float = 0.95) -> Difference:
    """Compare two rules on the same seeds."""
    from scipy.stats import t

    gaps = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if gaps.ndim != 1 or len(gaps) < 2:
        raise ValueError("a paired comparison needs two runs or more of each side")
    mean = float(gaps.mean())
    reach = float(t.ppf(level, len(gaps) - 1)) * float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return Difference(mean, mean - reach, mean + reach, len(gaps))
