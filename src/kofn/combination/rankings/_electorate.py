"""The ballots of all judges, what any weights of them say of every two alternatives, and intervals of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._pairs import Canonical, Listed, compared, overturned, parts_of, preferences, tie_groups
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Blend

DECIMALS = 12  # points closer than this are ties: sums of fractions differ in their last bits
RESAMPLES, RESAMPLES_OF_VOTES = 1000, 200
MOST = 5000  # alternatives, whose comparisons fill 200 MB
MOST_RANKED = 2000  # alternatives of which the ranks in all resamples are held
_AT_ONCE = 1 << 20
_KEPT = 1 << 22  # comparisons of single judges that are kept, 8 bytes each
_MOST_VOTES = 2.0**53
_MOST_WORK = 3 * 10**9  # multiplications that the resamples of one ranking may take

Scoring = Callable[["Electorate", Floats], Floats]


class Electorate:
    """The ballots (judges, items) of all judges; weights are (panels, judges), a row for each way to count them."""

    def __init__(self, ballots: Floats | Listed, n: int | None = None) -> None:
        """Take scores (judges, n), or lists of n alternatives."""
        self._given = ballots
        self.m = len(ballots.rated if isinstance(ballots, Listed) else ballots)
        self.n = ballots.shape[1] if n is None else n  # type: ignore[union-attr]

    @cached_property
    def listed(self) -> Listed:
        """What each judge rates, best first."""
        return self._given if isinstance(self._given, Listed) else Listed.of(self._given)

    @cached_property
    def ballots(self) -> Floats:
        """(m, n) scores, higher is better, NaN where a judge did not rate."""
        if not isinstance(self._given, Listed):
            return self._given
        out = np.full((self.m, self.n), np.nan)
        out[self.listed.judge, self.listed.items] = -self.listed.group
        return out

    def canonical(self, weights: Floats) -> Canonical:
        """An order of alternatives and judges, of these weights, that does not hang on the order they are given in."""
        return Canonical.of(self.listed, weights, self.n)

    @cached_property
    def rated(self) -> NDArray[np.bool_]:
        """(m, n) what each judge rates beside another alternative."""
        rated = ~np.isnan(self.ballots)
        return rated & (rated.sum(axis=1) > 1)[:, None]

    @cached_property
    def of_votes(self) -> bool:
        """Whether every judge rates two alternatives alone, as those do that votes are counted into."""
        return bool((self.listed.rated == 2).all())

    @cached_property
    def groups(self) -> tuple[Ints, Ints]:
        """(m, n) first and last position, from the worst on, of the alternatives that are tied with each."""
        order, begin, end, _ = tie_groups(self.ballots)
        first, last = np.empty_like(begin), np.empty_like(end)
        np.put_along_axis(first, order, begin, axis=1)
        np.put_along_axis(last, order, end, axis=1)
        return first, last

    @property
    def keeps_pairs(self) -> bool:
        """Whether what every judge says of every two alternatives is kept."""
        return self.of_votes or self.m * self.n**2 <= _KEPT

    @cached_property
    def _by_judge(self) -> tuple[Any, Any]:
        """(m, n * n) which alternative each judge rates above which, and which two it rates."""
        if not self.of_votes:
            higher = self.ballots[:, :, None] > self.ballots[:, None, :]
            beside = self.rated[:, :, None] & self.rated[:, None, :]
            return higher.reshape(self.m, -1).astype(np.float64), beside.reshape(self.m, -1).astype(np.float64)
        from scipy.sparse import csr_array

        winner, loser = self.listed.items.reshape(-1, 2).T
        first, second = self.listed.group.reshape(-1, 2).T
        judge, apart = np.arange(self.m), first != second
        shape = (self.m, self.n**2)
        above = csr_array((np.ones(int(apart.sum())), (judge[apart], (winner * self.n + loser)[apart])), shape=shape)
        cells = np.concatenate([winner * self.n + loser, loser * self.n + winner])
        both = csr_array((np.ones(2 * self.m), (np.append(judge, judge), cells)), shape=shape)
        return above, both

    def pairs(self, weights: Floats) -> tuple[Floats, Floats]:
        """(panels, n, n) the weight that prefers the row's alternative to the column's, and the one that rates both."""
        shape = (len(weights), self.n, self.n)
        if len(weights) > 1 and self.keeps_pairs:
            prefers, both = ((table.T @ weights.T).T.reshape(shape) for table in self._by_judge)
        else:
            prefers, both = np.empty(shape), np.empty(shape)
            for panel, row in enumerate(weights):
                prefers[panel], both[panel] = preferences(self.listed, row, self.n), compared(self.ballots, row)
        both[:, np.arange(self.n), np.arange(self.n)] = 0.0
        return prefers, both

    def panels(self, weights: Floats, width: int, canonical: Canonical, count: int | None = None) -> Iterator[Floats]:
        """(panels, m) weights of resamples, in blocks of about a million numbers where each takes `width` of them.

        Votes are drawn with replacement, as many as there are; else so are the judges, who keep their weights. The
        draws are the same at each call, and for the same judges in whatever order they are given.
        """
        judges = canonical.judges
        rng = np.random.default_rng(0)
        total = math.fsum(weights.tolist())
        counted = self.of_votes and bool((weights == np.rint(weights)).all()) and total < _MOST_VOTES
        count = count or (RESAMPLES_OF_VOTES if self.of_votes else RESAMPLES)
        step = max(1, _AT_ONCE // max(width, self.m))
        for start in range(0, count, step):
            size = min(step, count - start)
            panels = np.empty((size, self.m))
            if counted:
                panels[:, judges] = rng.multinomial(int(total), weights[judges] / total, size=size)
            else:
                panels[:, judges] = rng.multinomial(self.m, np.full(self.m, 1 / self.m), size=size)
                panels *= weights
            yield panels

    def heard(self, weights: Floats) -> Floats:
        """(n,) how many judges compare each alternative with another; of votes, how many votes."""
        each = weights if self.of_votes else (weights > 0).astype(np.float64)
        judge = self.listed.judge
        comparing = np.where(self.listed.rated > 1, each, 0.0)
        out: Floats = np.bincount(self.listed.items, comparing[judge], minlength=self.n).astype(np.float64)
        return out


def rank_intervals(heard: Floats, alike: Ints, points: Iterable[Floats], level: float = 0.95) -> dict[str, Ints]:
    """`rank_low` and `rank_high`: (n,) the ranks between which each alternative stands in 95% of resamples.

    What fewer than two judges compared may stand anywhere: one score does not say what the next judge would give.
    Alternatives that nothing tells apart share their ranks: those between which any of them stands.

    Args:
        heard: (n,) how many judges compared each alternative with another.
        alike: (n,) numbers of the classes of alternatives that nothing tells apart.
        points: its points (panels, n) under the resamples, in blocks.
        level: the share of resamples within the interval.

    Returns:
        Both, 0 for what nobody compared; nothing beyond 2,000 alternatives, whose ranks would not be held.
    """
    if len(heard) > MOST_RANKED:
        return {}
    ends = [_ends(block.round(DECIMALS)) for block in points]
    alone = all(best is worst for best, worst in ends)
    best = np.sort(np.concatenate([first for first, _ in ends]), axis=0)
    worst = best if alone else np.sort(np.concatenate([last for _, last in ends]), axis=0)
    tail = (1 - level) / 2
    few = heard < 2
    low = np.where(few, 1, _quantile(best, tail))
    high = np.where(few, int((heard > 0).sum()), _quantile(worst, 1 - tail))
    lowest, highest = np.full(len(heard) + 1, len(heard)), np.zeros(len(heard) + 1, np.int64)
    np.minimum.at(lowest, alike, low)
    np.maximum.at(highest, alike, high)
    low, high = lowest[alike], highest[alike]
    return {"rank_low": np.where(heard > 0, low, 0), "rank_high": np.where(heard > 0, high, 0)}


def _ends(points: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(panels, n) the first and the last rank that each one's points may have, 0 where it has none."""
    order = np.argsort(-points, axis=1)
    ranked = np.take_along_axis(points, order, axis=1)
    if (ranked[:, 1:] < ranked[:, :-1]).all():  # without ties and gaps
        ranks: NDArray[np.int32] = np.empty(points.shape, np.int32)
        np.put_along_axis(ranks, order, np.arange(1, points.shape[1] + 1, dtype=np.int32)[None], axis=1)
        return ranks, ranks
    order, begin, end, filled = tie_groups(-points)
    out = np.zeros((2, *points.shape), np.int32)
    for ends, position in zip(out, (begin, end), strict=True):
        np.put_along_axis(ends, order, np.where(filled, position + 1, 0).astype(np.int32), axis=1)
    return out[0], out[1]


def _quantile(ranks: NDArray[np.int32], share: float) -> Ints:
    """(n,) of each sorted column the least rank that so large a share of its ranks does not exceed; 0 is no rank."""
    missing = (ranks == 0).sum(axis=0)
    position = missing + np.ceil(share * (len(ranks) - missing)).astype(np.int64) - 1
    return np.take_along_axis(ranks, np.clip(position, 0, len(ranks) - 1)[None], axis=0)[0].astype(np.int64)


def by_points(ballots: Floats, weights: Any, name: str, scoring: Scoring, *, work: float = 0.0) -> Blend:
    """The ranking by the points of a rule, equal ones by the share of their comparisons that they won.

    Args:
        ballots: (m, n) scores, a row for each judge.
        weights: (m,) their weights, or None.
        name: the rule's name, for the refusal.
        scoring: the rule's points (panels, n) of an electorate under weights (panels, m), NaN for what nobody compares.
        work: multiplications of the rule beside those that count the pairs: where resamples would take too many, the
            plan has no intervals of ranks.

    Raises:
        InputError: more than 5,000 alternatives, or weights that are none.
    """
    m, n = ballots.shape
    if n > MOST:
        raise InputError(f"rankings has {n:,} alternatives; {name} compares every two of at most {MOST:,}: use borda")
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    electorate = Electorate(ballots)
    points = scoring(electorate, given[None])[0]
    (prefers,), (both,) = electorate.pairs(given[None])
    order = np.lexsort((-share_won(prefers[None], both[None])[0], -points.round(DECIMALS)))
    value = math.fsum(prefers[order[:, None], order][np.tril_indices(n, -1)].tolist())
    bound = math.fsum(np.minimum(prefers, prefers.T)[np.tril_indices(n, -1)].tolist())
    ends: dict[str, Ints] = {}
    pairs = n**2 if electorate.of_votes else m * n**2
    if electorate.keeps_pairs and RESAMPLES * (pairs + 10 * n**2 + work) <= _MOST_WORK:
        canonical = electorate.canonical(given)
        panels = electorate.panels(given, n**2, canonical)
        ends = rank_intervals(electorate.heard(given), canonical.alike, (scoring(electorate, each) for each in panels))
    return Blend(
        n=n,
        value=value,
        sense="min",
        bound=bound,
        status="optimal" if value <= bound else "heuristic",
        result=order,
        form="order",
        weights=given / given.sum(),
        spread=overturned(electorate.listed, order),
        objective="overturned_preferences",
        info={
            "points": points,
            **comparisons(electorate.listed, given, n),
            **ends,
            "never_compared": np.flatnonzero(np.isnan(points)).tolist(),
        },
    )


def share_won(prefers: Floats, both: Floats) -> Floats:
    """(panels, n) the share of its comparisons that each alternative won, ties half; NaN without one."""
    won = (prefers + (both - prefers - prefers.transpose(0, 2, 1)) / 2).sum(axis=2)
    played = both.sum(axis=2)
    out: Floats = np.divide(won, played, out=np.full(played.shape, np.nan), where=played > 0)
    return out.round(DECIMALS)


def comparisons(listed: Listed, weights: Floats, n: int) -> dict[str, Any]:
    """What a plan says of the ballots: how many judges rated each, what was never compared, and how many votes.

    Judges who all rate two alternatives alone are votes that `win_ballots` counted, unless they have names.
    """
    info = {"rated": np.bincount(listed.items, minlength=n), "parts": parts_of(listed, n)}
    if not (listed.rated == 2).all():
        return info
    first, second = listed.group.reshape(-1, 2).T
    return info | {"votes": float(weights.sum()), "ties": float(weights[first == second].sum())}
