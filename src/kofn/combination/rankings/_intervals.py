"""How far a ranking would move with other judges: intervals of ranks by the bootstrap over judges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints

DECIMALS = 12  # points closer than this are ties: sums of fractions differ in their last bits
RESAMPLES = 1000
# Ranks held at once, 8 bytes each.
_MOST_RANKS = 2 * 10**6
_AT_ONCE = 1 << 20


def rank_intervals(
    heard: Ints, points_under: Callable[[Floats], Floats], n_judges: int, level: float = 0.95
) -> tuple[Ints, Ints] | None:
    """(n,) the best and the worst rank of each alternative in the middle 95% of panels drawn from these judges.

    A panel has as many judges as there are, drawn with replacement; the draws are the same at each call. What fewer
    than two judges compared may stand anywhere: one score does not say what the next judge would give.

    Args:
        heard: (n,) how many judges compared each alternative with another.
        points_under: the points (panels, n) of each alternative where judge j counts c[panel, j] times.
        n_judges: how many judges there are.
        level: the share of panels within the interval.

    Returns:
        (best, worst), 0 for what nobody compared; or None beyond 2,000 alternatives, whose ranks would not be held.
    """
    n = len(heard)
    if n * RESAMPLES > _MOST_RANKS:
        return None
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n_judges, np.full(n_judges, 1 / n_judges), size=RESAMPLES).astype(np.float64)
    best, worst = np.empty((RESAMPLES, n), np.int32), np.empty((RESAMPLES, n), np.int32)
    step = max(1, _AT_ONCE // max(n, n_judges))
    for start in range(0, RESAMPLES, step):
        points = points_under(counts[start : start + step]).round(DECIMALS)
        best[start : start + step], worst[start : start + step] = _ends(points)
    tail = (1 - level) / 2
    few = heard < 2
    low = np.where(few, 1, _quantile(best, tail))
    high = np.where(few, int((heard > 0).sum()), _quantile(worst, 1 - tail))
    return np.where(heard > 0, low, 0), np.where(heard > 0, high, 0)


def _ends(points: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(panels, n) the first and the last rank that each one's points may have, 0 where it has none."""
    panels, n = points.shape
    order = np.argsort(-points, axis=1)  # what has no points comes last
    ranked = np.take_along_axis(points, order, axis=1)
    position = np.arange(1, n + 1, dtype=np.int32)
    fresh, last = np.ones((panels, n), bool), np.ones((panels, n), bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=fresh[:, 1:])
    last[:, :-1] = fresh[:, 1:]
    begin = np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
    end = np.minimum.accumulate(np.where(last, position, n)[:, ::-1], axis=1)[:, ::-1]
    out = np.zeros((2, panels, n), np.int32)
    for ends, ranks in zip(out, (begin, end), strict=True):
        np.put_along_axis(ends, order, np.where(np.isnan(ranked), 0, ranks).astype(np.int32), axis=1)
    return out[0], out[1]


def _quantile(ranks: NDArray[np.int32], share: float) -> Ints:
    """(n,) of each column the least rank that so large a share of its ranks does not exceed; zeros are no ranks."""
    ranks = np.sort(ranks, axis=0)
    missing = (ranks == 0).sum(axis=0)
    position = missing + np.ceil(share * (len(ranks) - missing)).astype(np.int64) - 1
    return np.take_along_axis(ranks, np.clip(position, 0, len(ranks) - 1)[None], axis=0)[0].astype(np.int64)
