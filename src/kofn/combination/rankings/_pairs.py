"""What judges say of every two alternatives: how much weight prefers the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints


def ballots_of(rankings: Floats, lower: str | Sequence[int] | Sequence[str] | None) -> Floats:
    """(judges, items) scores, one ballot a row, turned so that higher is better for all of them."""
    ballots = np.array(rankings.T, order="C")
    if lower is not None:
        ballots[checks.positions(lower, "lower", len(ballots))] *= -1
    return ballots


class Listed(NamedTuple):
    """What judges rate, one judge after another, best first.

    Attributes:
        start: (judges + 1,) where the entries of each judge begin.
        items: (entries,) the alternatives.
        group: (entries,) where the alternatives that are tied with each begin.
    """

    start: Ints
    items: Ints
    group: Ints

    @classmethod
    def of(cls, ballots: Floats) -> Listed:
        judge, items = np.nonzero(~np.isnan(ballots))
        scores = ballots[judge, items]
        order = np.lexsort((-scores, judge))
        items, scores = items[order], scores[order]
        start = np.searchsorted(judge, np.arange(len(ballots) + 1))
        fresh = np.ones(len(items), bool)
        fresh[1:] = (scores[1:] != scores[:-1]) | (judge[1:] != judge[:-1])
        group = np.maximum.accumulate(np.where(fresh, np.arange(len(items)), 0))
        return cls(start, items, group)


class Votes(NamedTuple):
    """The judges who rate two alternatives alone, as votes: compared pair by pair of all, many would take minutes.

    Attributes:
        judge: the judges' numbers, without those who rate the two alike.
        winner: the one that each rates higher.
        loser: the other one.
        rest: (m,) which judges rate another number of alternatives.
    """

    judge: Ints
    winner: Ints
    loser: Ints
    rest: NDArray[np.bool_]

    @classmethod
    def of(cls, ballots: Floats) -> Votes:
        rated = ~np.isnan(ballots)
        of_two = rated.sum(axis=1) == 2
        judge = np.flatnonzero(of_two)
        left, right = np.nonzero(rated[of_two])[1].reshape(-1, 2).T
        lead = ballots[judge, left] - ballots[judge, right]
        # Of two that are alike neither wins.
        judge, left, right, lead = (each[lead != 0] for each in (judge, left, right, lead))
        return cls(judge, np.where(lead > 0, left, right), np.where(lead > 0, right, left), ~of_two)


def tie_groups(scores: Floats) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """Of each row, its order from the lowest score on, missing ones last, and the ties in it.

    Returns:
        (rows, columns) each: the order; the first and the last position of the scores that equal the one there; and
        whether there is a score.
    """
    rows, n = scores.shape
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    position = np.arange(n)
    fresh, last = np.ones((rows, n), bool), np.ones((rows, n), bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=fresh[:, 1:])
    last[:, :-1] = fresh[:, 1:]
    begin = np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
    end = np.minimum.accumulate(np.where(last, position, n)[:, ::-1], axis=1)[:, ::-1]
    return order, begin, end, ~np.isnan(ranked)


def preferences(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the judges who rate the row's alternative above the column's; whole ones add up exactly."""
    n = ballots.shape[1]
    out = np.zeros((n, n))
    votes = Votes.of(ballots)
    np.add.at(out, (votes.winner, votes.loser), weights[votes.judge])
    if votes.rest.any():
        from kofn.combination.rankings import _kernels

        _kernels.count_pairs(*Listed.of(ballots[votes.rest]), weights[votes.rest], out)
    return out


def compared(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the judges who rate both alternatives."""
    rated = (~np.isnan(ballots)).astype(np.float64)
    return (rated * weights[:, None]).T @ rated


def overturned(ballots: Floats, order: NDArray[np.int64]) -> Floats:
    """(m,) each judge's share of the pairs it rates apart that the order turns round, 0 where it rates none apart."""
    out = np.zeros(len(ballots))
    votes = Votes.of(ballots)
    position = np.argsort(order)
    out[votes.judge] = position[votes.winner] > position[votes.loser]
    if votes.rest.any():
        from kofn.combination.rankings import _kernels

        out[votes.rest] = _kernels.count_overturned(*Listed.of(ballots[votes.rest]), position)
    return out


def parts_of(ballots: Floats) -> list[list[int]]:
    """The alternatives that are compared with others, in parts that no judge compares with one another."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    rated = ~np.isnan(ballots)
    judge, item = np.nonzero(rated & (rated.sum(axis=1) > 1)[:, None])
    m, n = ballots.shape
    links = csr_array((np.ones(len(judge), bool), (judge, m + item)), shape=(m + n, m + n))
    label = connected_components(links, directed=False)[1][m:]
    heard = np.unique(item)
    return [heard[label[heard] == part].tolist() for part in np.unique(label[heard]).tolist()]


def half_wins(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the comparisons that the row won over the column, ties half."""
    wins = preferences(ballots, weights)
    ties = compared(ballots, weights) - wins - wins.T
    np.fill_diagonal(ties, 0.0)
    # Sums of weights differ in their last bits, and what is no tie must be none.
    ties[ties <= 1e-9 * weights.sum()] = 0.0
    return wins + ties / 2
