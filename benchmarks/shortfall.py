"""How far a default is behind the best of several contenders, beside what the best of so many is ahead by chance.

The best of m contenders is ahead of any one of them on a handful of sets even where none is better. Differences to the
default are paired by set. Under the hypothesis that no contender is better, each set's centred differences may have
either sign, all contenders' alike (a wild bootstrap of the maximum, every sign enumerated up to 2^12). Contenders that
are clearly behind the default are left out, as they are never the best, by the threshold of Hansen 2005, A test for
superior predictive ability.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.selection.labels._accuracy import half_width

# A default within so many points of the best meets the goal.
GOAL = 0.5
_ENUMERATED, _DRAWS = 12, 4_096


def shortfall(default: NDArray[np.float64], others: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The default's points (sets,) against the contenders'.

    `behind by` is the best contender's lead and `interval` half the width of its paired interval; `by chance` what the
    best of all is ahead by on average where none is better, and `at most` in 95 of 100 such cases. `goal` is "missed"
    where the lead is beyond that and its interval beyond `GOAL`, "met" where no contender's interval reaches beyond
    `GOAL`, and "open" where these sets cannot tell. `below random`: whether the default's own interval is below 0.
    """
    wide = half_width(default)
    apart = {name: points - default for name, points in others.items()}
    best = max(apart, key=lambda name: float(apart[name].mean()))
    lead = max(0.0, float(apart[best].mean()))
    spans = {name: half_width(gap) for name, gap in apart.items()}
    usual, most = _by_chance(np.array([gap for gap in apart.values() if not _clearly_behind(gap)]))
    return {
        "sets": len(default),
        "contenders": len(others),
        "points": round(float(default.mean()), 1),
        "best": best if lead else None,
        "behind by": round(lead, 1),
        "interval": None if not lead or math.isinf(spans[best]) else round(spans[best], 1),
        "by chance": None if math.isnan(usual) else round(usual, 1),
        "at most": None if math.isnan(most) else round(most, 1),
        "goal": "missed"
        if lead > most and lead - spans[best] > GOAL
        else "met"
        if all(gap.mean() + spans[name] <= GOAL for name, gap in apart.items())
        else "open",
        "below random": bool(default.mean() + wide < 0),
    }


def _clearly_behind(apart: NDArray[np.float64]) -> bool:
    """Whether a mean is below 0 by sqrt(2 log log sets) standard errors."""
    sets = len(apart)
    if sets < 2:
        return bool(apart.mean() < 0)
    error = apart.std(ddof=1) / math.sqrt(sets)
    return bool(apart.mean() < -error * math.sqrt(2 * max(0.0, math.log(math.log(sets)))))


def _by_chance(apart: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and 95th percentile of the largest mean over contenders; NaN of a single set, which shows no spread."""
    if not apart.size:
        return 0.0, 0.0
    sets = apart.shape[1]
    if sets < 2:
        return math.nan, math.nan
    # Centred values spread less than the differences do.
    centred = (apart - apart.mean(axis=1, keepdims=True)) * math.sqrt(sets / (sets - 1))
    signs = (
        np.array(list(itertools.product((-1, 1), repeat=sets)))
        if sets <= _ENUMERATED
        else np.random.default_rng(0).choice((-1, 1), (_DRAWS, sets))
    )
    largest = np.maximum((centred @ signs.T / sets).max(axis=0), 0.0)
    return float(largest.mean()), float(np.quantile(largest, 0.95))


def table(rows: list[dict[str, Any]]) -> str:
    """The shortfalls as text, a line a kind, size, part and rows a class."""
    head = "kind     pool part    a class sets  default                    points  behind by      by chance  goal"
    lines = [head]
    for row in rows:
        span = "?" if row["interval"] is None else f"{row['interval']:.1f}"
        lead = f"{row['behind by']:.1f} ±{span}" if row["best"] else "leads"
        chance = "?" if row["by chance"] is None else f"{row['by chance']:.1f} to {row['at most']:.1f}"
        lines.append(
            f"{row['kind']:6}{row['size']:>7,} {row['part']:8}{row['rows a class']:>6}{row['sets']:>6}  "
            f"{row['default']:26}{row['points']:>+7.1f}  {lead:14} {chance:10} {row['goal']}"
            + ("; surely below random" if row["below random"] else "")
        )
    return "\n".join(lines)
