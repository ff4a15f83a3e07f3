"""Rules that rank by the majorities of every two alternatives: Copeland, minimax, Schulze, ranked pairs, Baldwin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._electorate import DECIMALS, Electorate, by_points
from kofn.combination.rankings._pairs import ballots_of
from kofn.core.arrays import Floats
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["baldwin", "copeland", "minimax", "ranked_pairs", "schulze"]

Strength = Literal["share", "margin", "winning"]


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2) time; 8 n^2 bytes a panel of the intervals",
    exact="the points are the rule's; what beats every other on complete ballots has 1, and no other has",
    paper="copeland1951",
    aliases=("condorcet", "condorcet winner", "pairwise majority", "round robin"),
)
def copeland(rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None) -> Blend:
    """Rank n alternatives by the share of their rivals that a majority of m judges puts below them.

    A rival is an alternative that some judge rates too; a majority is of the judges who rate both, by weight, and a
    draw counts half. On complete ballots the points are the classical ones divided by n - 1.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order". `result` (n,) holds the alternatives, best first; those of equal points share a rank
        and stand by the share of their comparisons that they won, then by index. `info["points"]` (n,) are in 0..1, NaN
        for those that no judge compares, which come last and are in `info["never_compared"]`; `info["parts"]` has the
        others in parts that no judge compares with one another, `info["rated"]` (n,) says by how many judges each was
        rated. `info["rank_low"]` and `info["rank_high"]` (n,) are the ranks between which each stands in 95% of 1,000
        panels of m judges drawn from these with replacement (in 200 draws of as many votes where every judge rates two
        alternatives alone, as those of `win_ballots` do), left out where they would take seconds. `value` is the weight
        of the preferences that the ranking overturns, which `kemeny` minimises, `bound` what no ranking gets below;
        `spread` (m,) the share of its own that each judge sees overturned, `weights` the judges' divided by their sum.

    Raises:
        InputError: an infinite score, a judge who rated nothing, a negative weight, weights that are all zero, a judge
            in `lower` who is none, more than 5,000 alternatives.

    Cost: O(m n^2) time, and as much for each panel of the intervals. Memory 24 n^2 bytes.

    Exact: on complete ballots what beats every other alternative is alone at the top, with 1 point.

    References:
        Copeland 1951, A reasonable social welfare function.

    Examples:
        >>> from kofn.combination import copeland
        >>> plan = copeland([[3, 3, 1], [2, 1, 3], [1, 2, 2]])
        >>> plan.result.tolist(), plan.info["points"].tolist()
        ([0, 1, 2], [1.0, 0.5, 0.0])
    """
    return by_points(ballots_of(rankings, lower), weights, "copeland", copeland_points)


def copeland_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the share of its rivals that each one beats by majority, draws half."""
    prefers, both = electorate.pairs(weights)
    outcome = np.where(both > 0, (np.sign(_lead(prefers, both)) + 1) / 2, 0.0).sum(axis=2)
    rivals = (both > 0).sum(axis=2)
    return np.divide(outcome, rivals, out=np.full(outcome.shape, np.nan), where=rivals > 0)


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2) time; 8 n^2 bytes a panel of the intervals",
    exact="the points are the rule's; what beats every other on complete ballots has 1, and no other has",
    paper="simpson1969",
    aliases=("simpson", "simpson-kramer", "maximin", "condorcet"),
)
def minimax(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    strength: Literal["share", "margin", "winning"] = "share",
) -> Blend:
    """Rank n alternatives by their worst defeat: the strongest majority of m judges that puts another above them.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.
        strength: what a majority weighs: "share", how far it leads as a share of the judges who rate both; "margin",
            how far it leads as a share of all judges; "winning", all who prefer the winner, as a share of all judges.
            On complete ballots the first two are the same.

    Returns:
        A Blend of form "order", as from `copeland`; `info["points"]` (n,) are 1 less the worst defeat, 1 for what no
        majority defeats.

    Raises:
        InputError: as from `copeland`, or a strength that is none of the three.

    Cost: O(m n^2) time, and as much for each panel of the intervals. Memory 32 n^2 bytes.

    Exact: on complete ballots what beats every other alternative is alone at the top, with 1 point, and
    unanimity holds, because equal points are settled by the share of comparisons won.

    References:
        Simpson 1969, On defining areas of voter choice.
        Kramer 1977, A dynamical model of political equilibrium.

    Examples:
        >>> from kofn.combination import minimax
        >>> minimax([[3, 1, 2], [2, 3, 1], [1, 2, 3]]).info["points"].round(3).tolist()
        [0.667, 0.667, 0.667]
    """
    return by_points(ballots_of(rankings, lower), weights, "minimax", partial(minimax_points, strength=strength))


def minimax_points(electorate: Electorate, weights: Floats, strength: Strength = "share") -> Floats:
    """(panels, n) 1 less the strongest majority against each."""
    prefers, both = electorate.pairs(weights)
    defeats = _strengths(prefers, both, weights, strength).max(axis=1)
    return np.where(both.any(axis=2), 1 - defeats, np.nan)


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2 + n^3) time; 8 n^2 bytes a panel of the intervals",
    exact="the points are the rule's; what beats every other on complete ballots has 1, and no other has",
    paper="schulze2011",
    aliases=("beatpath", "beat path", "widest path", "condorcet"),
)
def schulze(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    strength: Literal["share", "margin", "winning"] = "share",
) -> Blend:
    """Rank n alternatives by the strongest chains of majorities of m judges that lead from one to another.

    A chain is as strong as its weakest majority. One alternative beats another if its strongest chain to it is
    stronger than the one back, a relation without cycles; each ranks by how many of the others it beats, draws half.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.
        strength: what a majority weighs, as for `minimax`: "share", "margin" or "winning".

    Returns:
        A Blend of form "order", as from `copeland`; `info["points"]` (n,) are the share of the others that each beats.
        Schulze's relation may leave two undecided that have unlike points here.

    Raises:
        InputError: as from `copeland`, or a strength that is none of the three.

    Cost: O(m n^2 + n^3) time, and as much for each panel of the intervals. Memory 32 n^2 bytes.

    Exact: whenever one beats another by Schulze's rule it ranks above it. On complete ballots what beats every
    other by majority has 1 point, and whatever every judge prefers ranks higher.

    References:
        Schulze 2011, A new monotonic, clone-independent, reversal symmetric, and Condorcet-consistent single-winner
        election method (Social Choice and Welfare 36).

    Examples:
        >>> from kofn.combination import schulze
        >>> schulze([[3, 3, 1], [2, 1, 3], [1, 2, 2]]).info["points"].tolist()
        [1.0, 0.5, 0.0]
    """
    ballots = ballots_of(rankings, lower)
    work = 4.0 * ballots.shape[1] ** 3
    return by_points(ballots, weights, "schulze", partial(schulze_points, strength=strength), work=work)


def schulze_points(electorate: Electorate, weights: Floats, strength: Strength = "share") -> Floats:
    """(panels, n) the share of the others that each beats by its strongest chain of majorities, draws half."""
    prefers, both = electorate.pairs(weights)
    path = _strengths(prefers, both, weights, strength)
    for between in range(electorate.n):
        np.maximum(path, np.minimum(path[:, :, between, None], path[:, between, None, :]), out=path)
    heard: NDArray[np.bool_] = np.asarray(both.any(axis=2))
    lead = np.sign(path - path.transpose(0, 2, 1))
    others = np.maximum(heard.sum(axis=1, keepdims=True) - 1, 1)
    # What nobody compares has no chain to anything, a draw with each, that is not counted.
    beaten = ((lead + 1) / 2 * heard[:, None, :]).sum(axis=2) - 0.5
    return np.where(heard, beaten / others, np.nan)


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2 + n^3) time; 16 n^2 bytes a panel of the intervals",
    exact="the points are the rule's; what beats every other on complete ballots has 1, and no other has",
    paper="tideman1987",
    aliases=("tideman", "ranked pairs", "locking in majorities", "condorcet"),
)
def ranked_pairs(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    strength: Literal["share", "margin", "winning"] = "share",
) -> Blend:
    """Rank n alternatives by the majorities of m judges, locked in from the strongest on unless they close a cycle.

    Majorities that are equally strong are locked in together: all that no chain of the stronger ones runs against, in
    whatever order they stand, so that no name decides. Those that then close a cycle among themselves leave the
    alternatives on it undecided. One alternative beats another if a chain of locked majorities leads to it and none
    back; each ranks by how many of the others it beats, what is undecided half.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.
        strength: what a majority weighs, as for `minimax`: "share", "margin" or "winning".

    Returns:
        A Blend of form "order", as from `copeland`; `info["points"]` (n,) are the share of the others that each beats.
        Where no two majorities are equally strong on complete ballots, that is Tideman's order.

    Raises:
        InputError: as from `copeland`, or a strength that is none of the three.

    Cost: O(m n^2) time for the pairs, O(n^2 log n) to sort them and O(n / 64) words for each chain that is new, and as
    much for each panel of the intervals. Memory 48 n^2 bytes.

    Exact: whenever one beats another by this rule it ranks above it. On complete ballots what beats every other by
    majority has 1 point, and whatever every judge prefers ranks higher.

    References:
        Tideman 1987, Independence of clones as a criterion for voting rules (Social Choice and Welfare 4).

    Examples:
        >>> from kofn.combination import ranked_pairs
        >>> ranked_pairs([[3, 1, 2, 3], [2, 3, 1, 2], [1, 2, 3, 1]]).info["points"].tolist()
        [1.0, 0.5, 0.0]
    """
    ballots = ballots_of(rankings, lower)
    work = 4.0 * ballots.shape[1] ** 3
    return by_points(ballots, weights, "ranked_pairs", partial(ranked_pairs_points, strength=strength), work=work)


def ranked_pairs_points(electorate: Electorate, weights: Floats, strength: Strength = "share") -> Floats:
    """(panels, n) the share of the others that each beats by chains of locked majorities, what is undecided half."""
    from kofn.combination.rankings import _kernels

    prefers, both = electorate.pairs(weights)
    heard: NDArray[np.bool_] = np.asarray(both.any(axis=2))
    points = np.full(heard.shape, np.nan)
    for panel, majorities in enumerate(_strengths(prefers, both, weights, strength)):
        first, second = np.nonzero(majorities)
        weight = majorities[first, second]
        order = np.argsort(-weight, kind="stable")
        reached = _kernels.lock_in(first[order], second[order], weight[order], electorate.n)
        beaten = (reached & ~reached.T) + (reached == reached.T) / 2
        among = heard[panel]
        # Against itself each is undecided, and is not counted.
        share = (beaten[:, among].sum(axis=1) - 0.5) / max(int(among.sum()) - 1, 1)
        points[panel, among] = share[among]
    return points


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2 + n^3) time; 8 n^2 bytes a panel of the intervals",
    exact="the points are the rule's; what beats every other on complete ballots has 1, and no other has",
    paper="baldwin1926",
    aliases=("total vote runoff", "borda elimination", "condorcet"),
)
def baldwin(rankings: Any, *, weights: Any = None, lower: str | Sequence[int] | Sequence[str] | None = None) -> Blend:
    """Rank n alternatives by elimination: round by round the least share of comparisons won by m judges goes.

    Each round takes out the alternative that won the least share of its comparisons with those that are left, ties
    half; several with the same share go together. On complete ballots that is the lowest Borda count.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order", as from `copeland`; `info["points"]` (n,) are the share of the others that went before
        each, those that went with it half. What was compared with none of those that are left counts as a half.

    Raises:
        InputError: as from `copeland`.

    Cost: O(m n^2 + n^3) time, and as much for each panel of the intervals. Memory 32 n^2 bytes.

    Exact: on complete ballots what beats every other alternative is never the lowest, so it comes first.

    References:
        Baldwin 1926, The technique of the Nanson preferential majority system of election.

    Examples:
        >>> from kofn.combination import baldwin
        >>> baldwin([[3, 3, 1], [2, 1, 3], [1, 2, 2]]).info["points"].tolist()
        [1.0, 0.5, 0.0]
    """
    ballots = ballots_of(rankings, lower)
    return by_points(ballots, weights, "baldwin", baldwin_points, work=4.0 * ballots.shape[1] ** 3)


def baldwin_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the share of the others that went before each, those that went with it half."""
    prefers, both = electorate.pairs(weights)
    half = prefers + (both - prefers - prefers.transpose(0, 2, 1)) / 2
    heard: NDArray[np.bool_] = np.asarray(both.any(axis=2))
    others = np.maximum(heard.sum(axis=1, keepdims=True) - 1, 1)
    left, points = heard.copy(), np.full(heard.shape, np.nan)
    while left.any():
        won, played = ((table @ left[:, :, None].astype(np.float64))[:, :, 0] for table in (half, both))
        share = np.divide(won, played, out=np.full(won.shape, 0.5), where=played > 0).round(DECIMALS)
        share[~left] = np.inf
        gone = left & (share <= share.min(axis=1, keepdims=True))
        before = (heard & ~left).sum(axis=1, keepdims=True)
        points = np.where(gone, (before + (gone.sum(axis=1, keepdims=True) - 1) / 2) / others, points)
        left &= ~gone
    return points


def _lead(prefers: Floats, both: Floats) -> Floats:
    """(panels, n, n) how far the row leads over the column, as a share of the weight that rates both."""
    lead = prefers - prefers.transpose(0, 2, 1)
    out: Floats = np.divide(lead, both, out=np.zeros(lead.shape), where=both > 0)
    return out.round(DECIMALS)


def _strengths(prefers: Floats, both: Floats, weights: Floats, strength: Strength) -> Floats:
    """(panels, n, n) the strength in 0..1 of the majority that puts the row above the column, 0 where there is none."""
    lead = _lead(prefers, both)
    if strength == "share":
        return np.maximum(lead, 0.0)
    total = weights.sum(axis=1)[:, None, None]
    weight = prefers if strength == "winning" else prefers - prefers.transpose(0, 2, 1)
    share = np.divide(weight, total, out=np.zeros(weight.shape), where=total > 0)
    return np.where(lead > 0, share.round(DECIMALS), 0.0)
