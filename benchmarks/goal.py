"""Whether each default meets the goal, by recorded figures alone: `python -m benchmarks usefulness --goal`.

The goal: for each kind of data, size of pool and number of rows a class, the default is never surely below random rows,
and within half a point of the best contender. The best contender is the one with the highest mean over the sets that
choose the defaults, and it is held against the default on the sets that only judge: the best of many is ahead by chance
on the sets that made it the best, and not on others. Differences are paired by set, intervals Student's t over sets.

Sets of one kind differ, so that a mean over a few of them is known roughly. `sets needed` is how many judging sets an
interval of half a point on either side takes where they spread as the sets at hand do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shortfall import GOAL
from benchmarks.usefulness import KINDS, ROWS_A_CLASS, by_set, decided
from kofn.selection.labels._accuracy import half_width

# What `kofn select` picks with where nothing is said of labels.
PLAIN = "facility location"
# Kinds that are told apart here; a default is decided for those of `KINDS`, and images are of any kind.
TOLD = ("text", "table", "image", "any")


def goals(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind, size of pool, number of rows a class and default (without `--classes`, and with it).

    `points` and `interval`: over random rows, on the judging sets. `below random`: the interval over the judging sets
    or over all sets is below 0. `contender`: the best other one of the sets that choose; `apart`, `its interval`: the
    default's points minus its on the judging sets; `chose by`: the same on the sets that choose. `goal` is "met" where
    the interval of `apart` is above -0.5, "missed" where it is below, else "open".
    """
    out = []
    default = decided(measured)
    sizes = list(dict.fromkeys(row["size"] for row in measured))
    for kind, size in itertools.product(TOLD, sizes):
        parts = [by_set(measured, kind, part, size) for part in ("chooses", "judges")]
        if not all(parts):
            continue
        choosing, judging = parts
        for column, a_class in enumerate(ROWS_A_CLASS):
            labelling = default[kind if kind in KINDS else "any", a_class]
            for call, name in (("auto", PLAIN), ("--classes", labelling)):
                row = {"kind": kind, "size": size, "rows a class": a_class, "call": call, "default": name}
                figures = [{other: points[:, column] for other, points in part.items()} for part in (choosing, judging)]
                out.append(row | goal(name, *figures))
    return out


def goal(
    default: str, choosing: dict[str, NDArray[np.float64]], judging: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """The figures of one default: of each contender its points by set, of the sets that choose and that judge."""
    others = [name for name in judging if name != default and name in choosing]
    best = max(others, key=lambda name: float(choosing[name].mean()))
    chose, apart = choosing[default] - choosing[best], judging[default] - judging[best]
    wide, own, whole = half_width(apart), judging[default], np.concatenate([choosing[default], judging[default]])
    least, most = float(apart.mean()) - wide, float(apart.mean()) + wide
    return {
        "sets": len(own),
        "points": _rounded(own.mean()),
        "interval": _rounded(half_width(own)),
        "below random": any(bool(points.mean() + half_width(points) < 0) for points in (own, whole)),
        "contender": best,
        "chose by": _rounded(chose.mean()),
        "apart": _rounded(apart.mean()),
        "its interval": _rounded(wide),
        "goal": "met" if least >= -GOAL else "missed" if most < -GOAL else "open",
        "sets needed": sets_needed([chose, apart]),
    }


def sets_needed(parts: Sequence[NDArray[np.float64]], half: float = GOAL) -> int | None:
    """How many sets a 95% interval of `half` on either side takes, by the spread of values around their parts' means.

    None where no part has two values, which show no spread.
    """
    from scipy.stats import t as student

    free = sum(len(values) - 1 for values in parts)
    if free < 1:
        return None
    spread = math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in parts) / free)
    low, high = 1, 2
    while student.ppf(0.975, high - 1) * spread / math.sqrt(high) > half:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if student.ppf(0.975, middle - 1) * spread / math.sqrt(middle) > half:
            low = middle
        else:
            high = middle
    return high


def _rounded(value: float) -> float | None:
    return None if math.isinf(value) else round(float(value), 1)


def goal_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, and what they add up to."""
    head = f"{'kind':6}{'pool':>7}{'a class':>8}{'sets':>5}  {'call':10} {'default':17} {'over random':>12}  "
    lines = [head + f"{'best on the sets that choose':37} {'apart':>12}  {'goal':7}{'sets needed':>11}"]
    for row in rows:
        spans = ["?" if row[name] is None else f"{row[name]:.1f}" for name in ("interval", "its interval")]
        over, apart = (f"{row[name]:+.1f} ±{span}" for name, span in zip(("points", "apart"), spans, strict=True))
        needed = "?" if row["sets needed"] is None else f"{row['sets needed']:,}"
        lines.append(
            f"{row['kind']:6}{row['size']:>7,}{row['rows a class']:>8}{row['sets']:>5}  {row['call']:10} "
            f"{row['default']:17} {over:>12}  {row['contender']:37} {apart:>12}  {row['goal']:7}{needed:>11}"
            + ("  surely below random" if row["below random"] else "")
        )
    return "\n".join([*lines, "", verdict(rows)])


def verdict(rows: list[dict[str, Any]]) -> str:
    """What the rows add up to, in two sentences."""
    count = {name: sum(row["goal"] == name for row in rows) for name in ("met", "open", "missed")}
    below = sum(row["below random"] for row in rows)
    needed = [row["sets needed"] for row in rows if row["goal"] == "open" and row["sets needed"] is not None]
    most = max((row["sets"] for row in rows), default=0)
    first = (
        f"Of {len(rows)} defaults (by kind of data, size of pool and rows a class, without and with `--classes`) "
        f"{below or 'none'} {'is' if below < 2 else 'are'} surely below random rows, and {count['missed'] or 'none'} "
        f"{'is' if count['missed'] < 2 else 'are'} shown to be over half a point behind the contender that was best on "
        "the sets that choose."
    )
    second = f"That the default is within half a point of it is shown of {count['met']} and cannot be told of "
    second += f"{count['open']} by these sets"
    if needed:
        second += (
            f": an interval of half a point takes {min(needed):,} to {max(needed):,} judging sets of a kind (median "
            f"{np.median(needed):,.0f}), and there are {most} at the most"
        )
    return f"{first} {second}."
