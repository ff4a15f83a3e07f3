"""What one more of a quota is worth: what the highest sum of scores gains where a quota that binds is loosened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kofn.core.arrays import Array, Floats
from kofn.core.constraints import Constraints


def quota_prices(
    scores: Array, picks: Sequence[int], constraints: Constraints, relaxed: Floats | None
) -> dict[str, float]:
    """The price of each quota that binds, by its name in a plan.

    Over one column by the best exchange, over two by the best chain of exchanges, which are exact. Over more, `relaxed`
    are upper bounds by the linear relaxation, one a group of each column's cells.
    """
    if len(constraints.columns) == 1:
        return _of_one_column(scores, picks, constraints)
    if relaxed is not None:
        return _of_groups(constraints, picks, [relaxed, relaxed])
    if len(constraints.columns) != 2:
        return {}
    return _of_groups(constraints, picks, _chains(scores, picks, constraints))


def _of_one_column(scores: Array, picks: Sequence[int], constraints: Constraints) -> dict[str, float]:
    (column,) = constraints.columns
    codes, values = column.codes, np.asarray(scores, np.float64)
    open_items, free = _movable(picks, constraints)
    best, worst = np.full(column.cells, -np.inf), np.full(column.cells, np.inf)
    np.maximum.at(best, codes[open_items], values[open_items])
    np.minimum.at(worst, codes[free], values[free])
    counts = column.counts(picks)
    may_add, may_drop = counts < column.most, counts > column.least
    out = {}
    for code in range(column.cells):
        others = np.arange(column.cells) != code
        gains = [0.0]
        if counts[code] == column.most[code]:
            gains.append(best[code] - worst[others & may_drop].min(initial=np.inf))
        if counts[code] == column.least[code] > 0:
            gains.append(best[others & may_add].max(initial=-np.inf) - worst[code])
        if len(gains) > 1:
            out[column.key(code)] = float(max(gains))
    return out


def _movable(picks: Sequence[int], constraints: Constraints) -> tuple[Array, Array]:
    """(n,) what may be picked beside the picks, and the picks that may be dropped."""
    picked = np.zeros(constraints.n, bool)
    picked[list(picks)] = True
    dropped = picked.copy()
    dropped[constraints.preselected] = False
    return ~picked & ~constraints.banned, dropped


def _of_groups(constraints: Constraints, picks: Sequence[int], gains: Sequence[Floats]) -> dict[str, float]:
    """Prices by name, from what every group gains where its most is raised, and where its least is lowered."""
    cells = constraints.cells
    margins = cells.margins(np.bincount(cells.of[list(picks)], minlength=cells.count))
    out, offset = {}, 0
    for column, origin, counts, least, most in zip(
        constraints.columns, cells.origin, margins, cells.least, cells.most, strict=True
    ):
        for group, code in enumerate(origin.tolist()):
            raised = [gains[0][offset + group]] if counts[group] == most[group] else []
            lowered = [gains[1][offset + group]] if counts[group] == least[group] > 0 else []
            if raised or lowered:
                out[column.key(code)] = float(max(0.0, *raised, *lowered))
        offset += len(least)
    return out


def _chains(scores: Array, picks: Sequence[int], constraints: Constraints) -> tuple[Floats, Floats]:
    """For quotas over two columns, what each group gains where its most is raised, and where its least is lowered.

    The picks are a flow of one unit each: source, group of the first column, group of the second, sink. It is the best
    flow, so that one more unit of room adds the value of the best chain of additions and removals through it. A group
    with room takes from the source (the sink) freely, one above its least gives back.
    """
    cells, values = constraints.cells, np.asarray(scores, np.float64)
    first, second = cells.group
    open_items, dropped = _movable(picks, constraints)
    add, drop = (np.full((len(cells.least[0]), len(cells.least[1])), -np.inf) for _ in range(2))
    for table, some, sign in ((add, open_items, 1.0), (drop, dropped, -1.0)):
        of = cells.of[some]
        np.maximum.at(table, (first[of], second[of]), sign * values[some])
    counts = cells.margins(np.bincount(cells.of[list(picks)], minlength=cells.count))
    # What entering a group from its end costs, and leaving it towards that end.
    enter = [np.where(margin < most, 0.0, -np.inf) for margin, most in zip(counts, cells.most, strict=True)]
    leave = [np.where(margin > least, 0.0, -np.inf) for margin, least in zip(counts, cells.least, strict=True)]
    # On the side of the sink, flow enters where that on the side of the source leaves.
    from_source = _longest(add, drop, (enter[0], leave[0]), (leave[1], enter[1]), at_source=True)
    to_source = _longest(drop, add, (leave[0], enter[0]), (enter[1], leave[1]), at_source=True)
    from_sink = _longest(add, drop, (enter[0], leave[0]), (leave[1], enter[1]), at_source=False)
    to_sink = _longest(drop, add, (leave[0], enter[0]), (enter[1], leave[1]), at_source=False)
    raised = np.concatenate([to_source[0], from_sink[1]])
    lowered = np.concatenate([from_source[0], to_sink[1]])
    return raised, lowered


def _longest(
    over: Floats,
    back: Floats,
    source: tuple[Floats, Floats],
    sink: tuple[Floats, Floats],
    *,
    at_source: bool,
) -> tuple[Floats, Floats]:
    """The longest ways from the source, or the sink, to every group of both columns.

    Args:
        over: (first, second) what a step from a group of the first column to one of the second adds.
        back: (first, second) what a step the other way adds.
        source: what a step from the source to each group of the first column adds, and one from there to the source.
        sink: what a step from the sink to each group of the second column adds, and one from there to the sink.
        at_source: whether the ways begin at the source.
    """
    firsts, seconds = np.full(len(over), -np.inf), np.full(over.shape[1], -np.inf)
    start, end = (0.0, -np.inf) if at_source else (-np.inf, 0.0)
    for _ in range(2 * sum(over.shape)):
        new_start = max(start, float((firsts + source[1]).max(initial=-np.inf)))
        new_end = max(end, float((seconds + sink[1]).max(initial=-np.inf)))
        new_firsts = np.maximum(
            firsts, np.maximum((back + seconds).max(axis=1, initial=-np.inf), new_start + source[0])
        )
        new_seconds = np.maximum(
            seconds, np.maximum((over + firsts[:, None]).max(axis=0, initial=-np.inf), new_end + sink[0])
        )
        # Ways that only rounding lengthens would go round for ever.
        slack = 1e-12 * max(1.0, float(np.abs(new_firsts[np.isfinite(new_firsts)]).max(initial=0.0)))
        if not ((new_firsts > firsts + slack).any() or (new_seconds > seconds + slack).any()):
            break
        start, end, firsts, seconds = new_start, new_end, new_firsts, new_seconds
    return firsts, seconds
