"""Rules that rank by the positions that judges give to alternatives: plurality, Dowdall, threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination.rankings._electorate import DECIMALS, Electorate, by_points
from kofn.combination.rankings._pairs import ballots_of
from kofn.core.arrays import Floats
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["dowdall", "plurality", "threshold_rule"]


@method(
    "combine",
    draws=Draw(),
    cost="O(m n log n) time, and O(m n^2) for the preferences overturned",
    exact="the points are the rule's",
    paper="fishburn1973",
    aliases=("first past the post", "most first places", "wins count"),
)
def plurality(rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None) -> Blend:
    """Rank n alternatives by how often m judges put them first.

    An alternative's points are the weighted share of the judges who rated it and another that put it first, a first
    place of k that are tied counting 1/k for each. On complete ballots that is the classical count divided by the total
    weight; a judge who rated few puts each of them first more easily.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order", as from `copeland`, with these points: all that nobody puts first share the last rank,
        and stand in it by the share of their comparisons that they won.

    Raises:
        InputError: as from `copeland`.

    Cost: O(m n log n) time, and O(m n^2) for the preferences overturned. Memory 24 n^2 bytes.

    Exact: the points are the rule's, up to rounding.

    References:
        Fishburn 1973, The theory of social choice.

    Examples:
        >>> from kofn.combination import plurality
        >>> plurality([[3, 3, 1], [2, 1, 3], [1, 2, 2]]).info["points"].round(3).tolist()
        [0.667, 0.333, 0.0]
    """
    return by_points(ballots_of(rankings, lower), weights, "plurality", plurality_points)


def plurality_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the mean share of first places."""
    first, last = electorate.groups
    top = electorate.rated & (last == electorate.rated.sum(axis=1, keepdims=True) - 1)
    return _mean(electorate, weights, np.where(top, 1 / (last - first + 1), 0.0))


@method(
    "combine",
    draws=Draw(),
    cost="O(m n log n) time, and O(m n^2) for the preferences overturned",
    exact="the points are the rule's",
    paper="fraenkel2014",
    aliases=("nauru", "harmonic scoring", "reciprocal rank", "mean reciprocal rank"),
)
def dowdall(rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None) -> Blend:
    """Rank n alternatives by the mean of 1/rank over m judges.

    Tied alternatives have the mean of what their ranks are worth. An alternative's points are the weighted mean over
    the judges who rated it and another. On complete ballots that is the classical count divided by the total weight; a
    judge who rated few gives each of them more.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order", as from `copeland`, with these points.

    Raises:
        InputError: as from `copeland`.

    Cost: O(m n log n) time, and O(m n^2) for the preferences overturned. Memory 24 n^2 bytes.

    Exact: the points are the rule's, up to rounding.

    References:
        Fraenkel & Grofman 2014, The Borda count and its real-world alternatives: comparing scoring rules in Nauru and
        Slovenia (Australian Journal of Political Science 49).

    Examples:
        >>> from kofn.combination import dowdall
        >>> dowdall([[3, 3, 1], [2, 1, 3], [1, 2, 2]]).info["points"].round(3).tolist()
        [0.778, 0.611, 0.444]
    """
    return by_points(ballots_of(rankings, lower), weights, "dowdall", dowdall_points)


def dowdall_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the mean of 1/rank."""
    first, last = electorate.groups
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, electorate.n + 1)))
    count = electorate.rated.sum(axis=1, keepdims=True)
    worth = harmonic[np.clip(count - first, 0, None)] - harmonic[np.clip(count - last - 1, 0, None)]
    return _mean(electorate, weights, np.where(electorate.rated, worth / (last - first + 1), 0.0))


@method(
    "combine",
    draws=Draw(),
    cost="O(m n log n + n^2 log n) time, and O(m n^2) for the preferences overturned",
    exact="the order is the rule's",
    paper="aleskerov2010",
    aliases=("generalised antiplurality", "veto", "antiplurality", "fewest last places", "leximin"),
)
def threshold_rule(
    rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None
) -> Blend:
    """Rank n alternatives by how seldom m judges put them last; equal ones by how seldom last but one, and so on.

    How often is the weighted share of the judges who rated an alternative and another; k that are tied over k positions
    stand in each of them with a share of 1/k. Positions are counted from the end of each judge's ballot.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order", as from `copeland`; `info["points"]` (n,) are the share of the others that each stands
        above, those with all the same shares half.

    Raises:
        InputError: as from `copeland`.

    Cost: O(m n log n + n^2 log n) time, and O(m n^2) for the preferences overturned. Memory 40 n^2 bytes.

    Exact: the order is the rule's; shares that differ by less than 1e-12 are equal.

    References:
        Aleskerov, Chistyakov & Kalyagin 2010, The threshold aggregation (Economics Letters 107).

    Examples:
        >>> from kofn.combination import threshold_rule
        >>> threshold_rule([[3, 3, 1], [2, 1, 3], [1, 2, 2]]).result.tolist()
        [0, 1, 2]
    """
    ballots = ballots_of(rankings, lower)
    return by_points(ballots, weights, "threshold_rule", threshold_points, work=20.0 * ballots.shape[1] ** 2)


def threshold_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the share of the others that each stands above in the order of last places, then last but one, ..."""
    from scipy.sparse import csr_array

    n = electorate.n
    judge, item = np.nonzero(electorate.rated)
    first, last = (each[judge, item] for each in electorate.groups)
    share = 1 / (last - first + 1)
    # Each entry adds its share from its first position on, and takes it back after its last one.
    cells = np.concatenate([item * (n + 1) + first, item * (n + 1) + last + 1])
    entries = (np.concatenate([share, -share]), (np.append(judge, judge), cells))
    steps = csr_array(entries, shape=(electorate.m, n * (n + 1)))
    often = np.cumsum((steps.T @ weights.T).T.reshape(len(weights), n, n + 1), axis=2)[:, :, :n]
    heard = weights @ electorate.rated.astype(np.float64)
    known = heard > 0
    often = np.divide(often, heard[:, :, None], out=np.full(often.shape, np.inf), where=known[:, :, None])
    often = often.round(DECIMALS) + 0.0
    order = np.lexsort(often.transpose(2, 0, 1)[::-1], axis=-1)
    ranked = np.take_along_axis(often, order[:, :, None], axis=1)
    fresh = np.ones(order.shape, bool)
    fresh[:, 1:] = (ranked[:, 1:] != ranked[:, :-1]).any(axis=2)
    level = np.empty(order.shape)
    np.put_along_axis(level, order, np.cumsum(fresh, axis=1).astype(np.float64), axis=1)
    lower = (level[:, :, None] < level[:, None, :]) + 0.5 * (level[:, :, None] == level[:, None, :])
    beaten = (lower * known[:, None, :]).sum(axis=2) - 0.5
    return np.where(known, beaten / np.maximum(known.sum(axis=1, keepdims=True) - 1, 1), np.nan)


def _mean(electorate: Electorate, weights: Floats, worth: Floats) -> Floats:
    """(panels, n) the weighted mean of what each judge's ballot is worth to an alternative it rates beside another."""
    heard = weights @ electorate.rated.astype(np.float64)
    return np.divide(weights @ worth, heard, out=np.full(heard.shape, np.nan), where=heard > 0)
