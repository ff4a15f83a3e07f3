"""What judges say of every two alternatives: how much weight prefers the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MOST_COLOURINGS = 200  # beyond which alternatives that look alike stay in the order given


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
        return cls.sorted(judge, items, -ballots[judge, items], len(ballots))

    @classmethod
    def sorted(cls, judge: Ints, items: Ints, level: Floats | Ints, m: int) -> Listed:
        """Entries in any order, of which each judge puts those of the lowest level first."""
        order = np.lexsort((level, judge))
        judge, items, level = judge[order], items[order], level[order]
        fresh = np.ones(len(items), bool)
        fresh[1:] = (level[1:] != level[:-1]) | (judge[1:] != judge[:-1])
        group = np.maximum.accumulate(np.where(fresh, np.arange(len(items)), 0))
        return cls(np.searchsorted(judge, np.arange(m + 1)), items, group)

    @property
    def rated(self) -> Ints:
        """(judges,) how many alternatives each rates."""
        return np.diff(self.start)

    @property
    def judge(self) -> Ints:
        """(entries,) whose each entry is."""
        return np.repeat(np.arange(len(self.start) - 1), self.rated)

    def among(self, judges: NDArray[np.bool_], items: Ints, n: int) -> Listed:
        """The ballots of these judges on some of n alternatives, which are numbered as listed in `items`."""
        number = np.full(n, -1)
        number[items] = np.arange(len(items))
        kept = judges[self.judge] & (number[self.items] >= 0)
        renumbered = np.cumsum(judges) - 1
        return Listed.sorted(
            renumbered[self.judge[kept]], number[self.items[kept]], self.group[kept], int(judges.sum())
        )


@dataclass(frozen=True)
class Canonical:
    """An order of alternatives and judges that does not hang on the order in which they were given.

    Attributes:
        listed: what the judges rate.
        weights: (m,) theirs.
        colour: (n,) numbers by which the alternatives are put in order.
        alike: (n,) numbers of classes; alternatives of one class are those that no renaming could tell apart.
    """

    listed: Listed
    weights: Floats
    colour: NDArray[np.uint64]
    alike: Ints

    @cached_property
    def items(self) -> Ints:
        """(n,) the alternatives in this order; those that nothing in the ballots tells apart, as given."""
        return np.argsort(self.colour, kind="stable")

    @cached_property
    def judges(self) -> Ints:
        """(m,) the judges in this order; those of the same ballot and weight, as given."""
        return np.argsort(_Colours(self.listed, self.weights).judges(self.colour), kind="stable")

    @classmethod
    def of(cls, listed: Listed, weights: Floats, n: int) -> Canonical:
        """Colours are refined: a judge's by what it rates where, an alternative's by which judges put it where.

        Once they rest, an alternative that shares its colour gets one of its own, and so on until all have one.
        """
        colours = _Colours(listed, weights)
        compared = np.flatnonzero(np.bincount(listed.items, minlength=n))
        colour, count = np.zeros(n, np.uint64), 0
        alike: Ints | None = None
        for _ in range(_MOST_COLOURINGS):
            colour = colours.items(colour)
            values, first, times = np.unique(colour[compared], return_index=True, return_counts=True)
            last, count = count, len(values)
            if count < len(compared) and count != last:
                continue
            if alike is None:
                alike = np.unique(colour, return_inverse=True)[1]
            if count == len(compared):
                break
            own = compared[first[np.flatnonzero(times > 1)[:1]]]
            colour[own] = _mixed(colour[own] + _ODD)
            count = 0
        if alike is None:
            alike = np.unique(colour, return_inverse=True)[1]
        return cls(listed, weights, colour, alike)


class _Colours:
    """Numbers of judges and alternatives that are alike where what they stand for is, in whatever order it is given."""

    def __init__(self, listed: Listed, weights: Floats) -> None:
        self.listed, self.judge = listed, listed.judge
        self.own = _mixed(np.asarray(weights, np.float64).view(np.uint64) + _mixed(listed.rated.astype(np.uint64)))
        above = listed.group - listed.start[self.judge]
        self.position = _mixed(np.arange(int(above.max(initial=0)) + 1, dtype=np.uint64) + _ODD)[above]

    def judges(self, colour: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """(m,) by what each rates where."""
        seen = np.zeros(len(self.own), np.uint64)
        np.add.at(seen, self.judge, _mixed(self.position + colour[self.listed.items]))
        return _mixed(self.own + seen)

    def items(self, colour: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """(n,) by which judges put each where."""
        reached = np.zeros(len(colour), np.uint64)
        np.add.at(reached, self.listed.items, _mixed(self.position ^ self.judges(colour)[self.judge]))
        return _mixed(colour + _mixed(reached))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Words of 64 bits, scattered (splitmix64's last step): sums of them tell multisets apart."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


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


def preferences(listed: Listed, weights: Floats, n: int, *, ties: float = 0.0) -> Floats:
    """(n, n) the weight of the judges who rate the row's alternative above the column's; whole ones add up exactly.

    Args:
        listed: what the judges rate.
        weights: (judges,) theirs.
        n: how many alternatives there are.
        ties: the share of a tie that counts for each of the two.
    """
    out = np.zeros((n, n))
    # Judges of two need no compiled loop.
    voting, (first, second), apart = _of_two(listed)
    np.add.at(out, (first[apart], second[apart]), weights[voting[apart]])
    if ties:
        for left, right in ((first, second), (second, first)):
            np.add.at(out, (left[~apart], right[~apart]), ties * weights[voting[~apart]])
    if (listed.rated > 2).any():
        from kofn.combination.rankings import _kernels

        _kernels.count_pairs(*listed, np.where(listed.rated > 2, weights, 0.0), ties, out)
    return out


def _of_two(listed: Listed) -> tuple[Ints, tuple[Ints, Ints], NDArray[np.bool_]]:
    """The judges who rate two alternatives, the better and the worse of each, and whether it rates them apart."""
    voting = np.flatnonzero(listed.rated == 2)
    entry = listed.start[voting]
    apart = listed.group[entry] != listed.group[entry + 1]
    return voting, (listed.items[entry], listed.items[entry + 1]), apart


def compared(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the judges who rate both alternatives."""
    rated = (~np.isnan(ballots)).astype(np.float64)
    return (rated * weights[:, None]).T @ rated


def overturned(listed: Listed, order: NDArray[np.int64]) -> Floats:
    """(m,) each judge's share of the pairs it rates apart that the order turns round, 0 where it rates none apart."""
    position = np.argsort(order)
    if (listed.rated > 2).any():
        from kofn.combination.rankings import _kernels

        return _kernels.count_overturned(*listed, position)
    out = np.zeros(len(listed.rated))
    voting, (first, second), apart = _of_two(listed)
    out[voting] = apart & (position[first] > position[second])
    return out


def parts_of(listed: Listed, n: int) -> list[list[int]]:
    """The alternatives that are compared with others, in parts that no judge compares with one another."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    m = len(listed.rated)
    kept = (listed.rated > 1)[listed.judge]
    judge, item = listed.judge[kept], listed.items[kept]
    links = csr_array((np.ones(len(judge), bool), (judge, m + item)), shape=(m + n, m + n))
    label = connected_components(links, directed=False)[1][m:]
    heard = np.unique(item)
    return [heard[label[heard] == part].tolist() for part in np.unique(label[heard]).tolist()]


def half_wins(listed: Listed, weights: Floats, n: int) -> Floats:
    """(n, n) the weight of the comparisons that the row won over the column, ties half."""
    return preferences(listed, weights, n, ties=0.5)
