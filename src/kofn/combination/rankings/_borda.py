"""Borda count with missing ratings: one ranking from the scores of many judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._electorate import (
    DECIMALS,
    MOST_RANKED,
    Electorate,
    comparisons,
    rank_intervals,
    share_won,
)
from kofn.combination.rankings._pairs import ballots_of, tie_groups
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["borda", "merge_points"]

_BLOCK = 1 << 20  # ratings handled at a time
_RUN = 64  # alternatives compared pair by pair before the merging begins


@method(
    "combine",
    traits=("mergeable",),
    cost="O(m n log n) time, 4 bytes a rating",
    exact="the points minimise the judges' squared disagreement; the ranking sorts them, ties to the lowest index",
    paper=("borda1781", "cullinan2014"),
)
def borda(rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None) -> Blend:
    """Rank n alternatives by averaged Borda points of m judges, each of whom may rate only some.

    A judge who rates k alternatives gives each of them the share of the k - 1 others that it beats, ties counting half.
    An alternative's points are the weighted mean of these shares over the judges who rated it and at least one other.
    Consequences:

    - On complete ballots the points are the classical Borda count divided by n - 1 and by the total weight, and the
      ranking is the classical one.
    - Not being rated is not being ranked last: every ballot's shares average exactly 1/2, whatever its length, so a
      ballot neither lifts nor sinks the alternatives it mentions. (Emerson's modified count gives 1 to k points to a
      ballot of k and nothing to the rest: it is meant for voters who abstain, not for judges who did not see an item.
      Cullinan, Hsiao and Polett count every pair that was not judged as a draw.)
    - A ballot cut to a random subset of its alternatives gives each of them, on average over the subsets of one size
      that hold it, exactly the share it has on the whole ballot.
    - Unanimity holds between alternatives rated by the same judges, so always on complete ballots: if all of them score
      a above b, then a ranks above b. It does not hold for every pair on partial ballots, where judges who saw only one
      of the two weigh in: in the second example the one judge who compares 0 and 1 prefers 0, and 1 ranks above it.
    - The number of judges who rated an alternative does not matter: one judge's rating counts like the mean of a
    hundred.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts. For ranks (1 is best) pass their negatives.
        weights: (m,) weight of each judge, >= 0, uniform by default.
        lower: the judges for whom lower is better (perplexity, errors, seconds), by column number or, where `rankings`
            is a frame, by name; none by default.

    Returns:
        A Blend of form "order". `result` (n,) holds the alternatives, best first, ties to the lowest index; those that
        no judge compared with another come last and are listed in `info["never_compared"]`; `info["parts"]` has the
        others in parts that no judge compares with one another. `info["points"]` (n,) has their points in 0..1 (NaN if
        never compared), `info["rated"]` (n,) by how many judges each was rated, `info["rank_low"]` and
        `info["rank_high"]` (n,) the ranks between which it stands in 95% of 1,000 panels of m judges drawn from these
        with replacement (in 200 draws of as many votes where every judge rates two alternatives alone, as those of
        `win_ballots` do; 0 if never compared; 1 and the number of compared ones where fewer than two judges compared
        it; left out beyond 2,000 alternatives). Few judges make such intervals too narrow.
        `to_frame()` has them all, equal points sharing a rank. `weights` the judges' weights divided by their sum.
        `spread` (m,) is each judge's share of discordant pairs: of the pairs it scores differently, those that the
        result orders the other way (0 if it has none). `value` is sum_i w_i sum_j (share_ij - points_j)^2 over what was
        rated, which the points minimise. `statistic` holds the sums that make the points mergeable over judges, see
        `merge_points`.

    Raises:
        InputError: an infinite score, a judge who rated nothing, a negative weight, weights that are all zero, a
            judge in `lower` who is none.

    Time O(m n log n), and 1,000 multiplications a rating for the intervals; memory 4 bytes a rating beside the table,
    and 8,000 bytes an alternative.

    >>> import numpy as np
    >>> blend = borda(np.array([[9, 3, np.nan], [7, 8, 6], [np.nan, 1, 2], [5, np.nan, 6]]))
    >>> blend.result.tolist(), blend.info["points"].tolist()
    ([0, 1, 3, 2], [0.75, 0.75, 0.0, 0.375])

    >>> x = np.nan
    >>> borda([[2, 1, 1, x, x], [1, x, x, 2, 2], [x, 2, 2, 1, 1]]).result.tolist()
    [1, 2, 0]

    References:
        de Borda 1781, Mémoire sur les élections au scrutin.
        Emerson 2013, The original Borda count and partial voting (Social Choice and Welfare 40).
        Cullinan, Hsiao & Polett 2014, A Borda count for partially ordered ballots (Social Choice and Welfare 42).
    """
    ballots = ballots_of(rankings, lower)
    m, n = ballots.shape
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    wins = np.empty((m, n), np.int32)  # twice the number of rated others beaten, ties counting one; -1 where not rated
    rivals = np.empty(m, np.int64)
    ties = np.empty(m, np.int64)
    for rows in _blocks(m, n):
        wins[rows], rivals[rows], ties[rows] = _count_wins(ballots[rows])

    earned, heard = np.zeros(n), np.zeros(n)
    for rows in _blocks(m, n):
        share, rated = _shares(wins[rows], rivals[rows])
        weight = given[rows, None]
        earned += (weight * share).sum(axis=0)
        heard += (weight * rated).sum(axis=0)
    statistic = {"earned": earned, "heard": heard}
    points = points_of(statistic)
    order = np.argsort(-points.round(DECIMALS), kind="stable")

    used = given / given.sum()
    value = 0.0
    spread = np.empty(m)
    against = np.where(np.isnan(points), 0.0, points)
    for rows in _blocks(m, n):
        share, rated = _shares(wins[rows], rivals[rows])
        off = np.where(rated, share - against, 0.0)
        value += float((used[rows] * (off * off).sum(axis=1)).sum())
        pairs = rivals[rows] * (rivals[rows] + 1) // 2 - ties[rows]
        spread[rows] = _discordant(wins[rows][:, order]) / np.maximum(pairs, 1)
    lost = np.flatnonzero(np.isnan(points))

    electorate = Electorate(ballots)

    def points_under(panels: Floats) -> Floats:
        if electorate.of_votes:
            return share_won(*electorate.pairs(panels))
        earned, heard = np.zeros((len(panels), n)), np.zeros((len(panels), n))
        for rows in _blocks(m, n):
            share, rated = _shares(wins[rows], rivals[rows])
            earned += panels[:, rows] @ share
            heard += panels[:, rows] @ rated.astype(np.float64)
        return points_of({"earned": earned, "heard": heard})

    ends: dict[str, Any] = {}
    if n <= MOST_RANKED:
        width = n**2 if electorate.of_votes else n
        canonical = electorate.canonical(given)
        panels = electorate.panels(given, width, canonical)
        ends = rank_intervals(electorate.heard(given), canonical.alike, map(points_under, panels))
    return Blend(
        n=n,
        value=value,
        sense="min",
        bound=value,
        status="optimal",
        result=order,
        form="order",
        weights=used,
        spread=spread,
        statistic=statistic,
        objective="borda",
        info={
            "points": points,
            **comparisons(electorate.listed, given, n),
            **ends,
            "never_compared": lost.tolist(),
            "ratings": int((wins >= 0).sum()),
        },
    )


@helper
def merge_points(*statistics: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Merge the statistics of several panels of judges who rated the same alternatives.

    Each is a `Blend.statistic` of `borda`: per alternative, the weighted sum of its shares and the total weight of
    its judges. Any partition of the judges, merged in any order, gives the statistic of all at once, up to
    rounding.

    >>> parts = [borda([[3], [2], [1]]), borda([[1, 1], [2, 3], [3, 2]])]
    >>> points_of(merge_points(*(part.statistic for part in parts))).round(3).tolist()
    [0.333, 0.667, 0.5]
    """
    checks.statistics(statistics, ("earned", "heard"), "borda")
    sizes = [len(item["earned"]) for item in statistics]
    if len(set(sizes)) > 1:
        odd = next(position for position, size in enumerate(sizes) if size != sizes[0])
        raise InputError(f"statistic {odd} has {sizes[odd]} alternatives, statistic 0 has {sizes[0]}; they must agree")
    return {name: np.sum([item[name] for item in statistics], axis=0) for name in ("earned", "heard")}


def points_of(statistic: Mapping[str, Any]) -> NDArray[np.float64]:
    """(n,) Borda points of a statistic: weighted sum of shares over total weight, NaN without a judge."""
    earned, heard = np.asarray(statistic["earned"]), np.asarray(statistic["heard"])
    return np.divide(earned, heard, out=np.full(heard.shape, np.nan), where=heard > 0)


def _blocks(m: int, n: int) -> Iterator[slice]:
    step = max(1, _BLOCK // n)
    for start in range(0, m, step):
        yield slice(start, min(start + step, m))


def _count_wins(scores: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Per rating, twice the number of alternatives beaten plus the number of ties, -1 where missing.

    Also the number of rivals of each rated alternative, and of tied pairs, per judge.
    """
    order, begin, end, filled = tie_groups(scores)
    ties = np.where(filled, end - begin, 0).sum(axis=1) // 2
    wins = np.empty(scores.shape, np.int32)
    np.put_along_axis(wins, order, np.where(filled, begin + end, -1).astype(np.int32), axis=1)
    return wins, np.maximum(filled.sum(axis=1) - 1, 0), ties


def _shares(wins: NDArray[np.int32], rivals: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each rating as the share of rivals beaten, and the mask of ratings by judges who compared at least two."""
    counted = (wins >= 0) & (rivals > 0)[:, None]
    return np.where(counted, wins / np.maximum(2 * rivals, 1)[:, None], 0.0), counted


def _discordant(wins: NDArray[np.int32]) -> NDArray[np.int64]:
    """Per judge, the number of pairs whose later column has more wins (discordant pairs); -1 is missing."""
    judges, n = wins.shape
    missing = wins < 0
    falls = -wins  # discordant pairs are now inversions
    if missing.any():
        keep = np.argsort(missing, axis=1, kind="stable")
        falls = np.where(np.take_along_axis(missing, keep, axis=1), 1, np.take_along_axis(falls, keep, axis=1))
    width = min(_RUN, n)
    size = width
    while size < n:
        size *= 2
    if size > n:  # 1 is above every fall: at the end of a row it stands in no inversion
        falls = np.pad(falls, ((0, 0), (0, size - n)), constant_values=1)
    runs = falls.reshape(judges, -1, width)
    count = np.zeros(judges, np.int64)
    for lag in range(1, width):
        count += np.count_nonzero(runs[:, :, :-lag] > runs[:, :, lag:], axis=(1, 2))
    runs = np.sort(runs, axis=2)
    while width < size:
        # Merging two sorted runs: an element of the right one that moves forward by d jumps over d greater ones.
        runs = runs.reshape(judges, -1, 2 * width)
        order = np.argsort(runs, axis=2, kind="stable")
        count += np.where(order >= width, order - np.arange(2 * width), 0).sum(axis=(1, 2))
        runs = np.take_along_axis(runs, order, axis=2)
        width *= 2
    return count
