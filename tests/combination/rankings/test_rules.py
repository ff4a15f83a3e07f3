"""The rules of social choice against their definitions, written out, and against pref_voting where it is installed."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import win_ballots
from kofn.combination.rankings._borda import borda
from kofn.combination.rankings._electorate import Electorate
from kofn.combination.rankings._sensitivity import SCORINGS, borda_points
from kofn.core.checks import InputError

RULES = ["baldwin", "copeland", "dowdall", "minimax", "plurality", "ranked_pairs", "schulze", "threshold_rule"]
OF_STRENGTH = ("minimax", "ranked_pairs", "schulze")


def drawn(seed: int, *, gaps: bool = True) -> tuple[Any, Any]:
    """Scores with ties, and mostly with gaps, and whole weights."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 6)), int(rng.integers(1, 8))
    scores = rng.integers(0, 5, (n, m)).astype(float)
    if gaps and seed % 3:
        gone = rng.random((n, m)) < 0.35
        gone[rng.integers(n, size=m), np.arange(m)] = False
        scores[gone] = np.nan
    return scores, rng.integers(1, 4, m)


class Counted:
    """The same scores in fractions: exact majorities, positions and shares."""

    def __init__(self, scores: Any, weights: Any) -> None:
        self.n = len(scores)
        self.items = range(self.n)
        self.ballots = []
        for column, weight in zip(scores.T.tolist(), weights.tolist(), strict=True):
            rated = {i: score for i, score in enumerate(column) if score == score}
            if len(rated) > 1:
                self.ballots.append((rated, Fraction(weight)))
        self.total = Fraction(int(weights.sum()))
        self.heard = [i for i in self.items if any(i in rated for rated, _ in self.ballots)]

    def prefers(self, a: int, b: int) -> Fraction:
        return sum((w for r, w in self.ballots if a in r and b in r and r[a] > r[b]), Fraction(0))

    def both(self, a: int, b: int) -> Fraction:
        return sum((w for r, w in self.ballots if a in r and b in r), Fraction(0))

    def rivals(self, a: int) -> list[int]:
        return [b for b in self.items if b != a and self.both(a, b)]

    def strength(self, a: int, b: int, kind: str) -> Fraction:
        lead = self.prefers(a, b) - self.prefers(b, a)
        if lead <= 0:
            return Fraction(0)
        if kind == "share":
            return lead / self.both(a, b)
        return (lead if kind == "margin" else self.prefers(a, b)) / self.total

    def mean(self, a: int, worth: Any) -> Fraction:
        """The weighted mean over the judges who rated `a` of worth(their better ones, those tied, all they rated)."""
        terms = []
        for r, w in self.ballots:
            if a in r:
                better = sum(s > r[a] for s in r.values())
                tied = sum(s == r[a] for s in r.values())
                terms.append((w, worth(better, tied, len(r))))
        return Fraction(sum(w * x for w, x in terms)) / sum(w for w, _ in terms)

    def won(self, a: int, others: Any) -> Fraction | None:
        played = sum((self.both(a, b) for b in others), Fraction(0))
        points = sum(
            (self.prefers(a, b) + (self.both(a, b) - self.prefers(a, b) - self.prefers(b, a)) / 2 for b in others),
            Fraction(0),
        )
        return points / played if played else None

    def order_points(self, keys: dict[int, Any]) -> dict[int, Fraction]:
        """The share of the others with a smaller key, equal ones half."""
        out = {}
        for a in self.heard:
            below = sum((keys[b] < keys[a]) + Fraction(int(keys[b] == keys[a]), 2) for b in self.heard if b != a)
            out[a] = Fraction(below) / max(len(self.heard) - 1, 1)
        return out

    def points(self, rule: str, kind: str = "share") -> dict[int, Fraction]:
        if rule == "copeland":
            out = {}
            for a in self.heard:
                leads = [self.prefers(a, b) - self.prefers(b, a) for b in self.rivals(a)]
                out[a] = Fraction(sum(Fraction(int(x > 0)) + Fraction(int(x == 0), 2) for x in leads)) / len(leads)
            return out
        if rule == "minimax":
            return {a: 1 - max(self.strength(b, a, kind) for b in self.items if b != a) for a in self.heard}
        if rule == "schulze":
            return self.schulze(kind)
        if rule == "ranked_pairs":
            return self.ranked_pairs(kind)
        if rule == "baldwin":
            return self.baldwin()
        if rule == "plurality":
            return {a: self.mean(a, lambda above, tied, _: Fraction(int(above == 0), tied)) for a in self.heard}
        if rule == "dowdall":
            return {
                a: self.mean(a, lambda above, tied, _: sum(Fraction(1, above + t) for t in range(1, tied + 1)) / tied)
                for a in self.heard
            }
        assert rule == "threshold_rule"
        keys = {}
        for a in self.heard:
            often = []
            for place in range(self.n):  # from the last one on
                often.append(
                    self.mean(
                        a, lambda above, tied, of, p=place: Fraction(int(above <= of - 1 - p < above + tied), tied)
                    )
                )
            keys[a] = [-share for share in often]
        return self.order_points(keys)

    def schulze(self, kind: str) -> dict[int, Fraction]:
        """Every chain of distinct alternatives, its weakest link; no widest-path algorithm."""

        def path(a: int, b: int) -> Fraction:
            best = Fraction(0)
            middle = [i for i in self.items if i not in (a, b)]
            for size in range(len(middle) + 1):
                for chain in itertools.permutations(middle, size):
                    steps = itertools.pairwise((a, *chain, b))
                    best = max(best, min(self.strength(x, y, kind) for x, y in steps))
            return best

        out = {}
        for a in self.heard:
            leads = [path(a, b) - path(b, a) for b in self.heard if b != a]
            out[a] = Fraction(sum(Fraction(int(x > 0)) + Fraction(int(x == 0), 2) for x in leads)) / len(leads)
        return out

    def ranked_pairs(self, kind: str) -> dict[int, Fraction]:
        """One strength after another, every chain of locked majorities followed anew."""
        majorities = {
            (a, b): self.strength(a, b, kind) for a in self.items for b in self.items if self.strength(a, b, kind) > 0
        }
        locked: set[tuple[int, int]] = set()

        def leads(a: int, b: int) -> bool:
            seen, open_ends = {a}, [a]
            while open_ends:
                end = open_ends.pop()
                fresh = {y for x, y in locked if x == end} - seen
                seen |= fresh
                open_ends += fresh
            return a != b and b in seen

        for strength in sorted(set(majorities.values()), reverse=True):
            alike = [pair for pair, own in majorities.items() if own == strength]
            locked.update([(a, b) for a, b in alike if not leads(b, a)])
        out = {}
        for a in self.heard:
            outcome = [leads(a, b) - leads(b, a) for b in self.heard if b != a]
            out[a] = Fraction(sum(Fraction(1 + x, 2) for x in outcome)) / len(outcome)
        return out

    def baldwin(self) -> dict[int, Fraction]:
        left, rounds, keys = list(self.heard), 0, {}
        while left:
            share = {a: self.won(a, [b for b in left if b != a]) for a in left}
            least = min(Fraction(1, 2) if s is None else s for s in share.values())
            gone = [a for a in left if (Fraction(1, 2) if share[a] is None else share[a]) == least]
            for a in gone:
                keys[a] = rounds
            left = [a for a in left if a not in gone]
            rounds += 1
        return self.order_points(keys)


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("rule", RULES)
def test_points_are_those_of_the_definition(rule: str, seed: int) -> None:
    scores, weights = drawn(seed)
    counted = Counted(scores, weights)
    for kind in ("share", "margin", "winning") if rule in OF_STRENGTH else ("share",):
        options = {"strength": kind} if rule in OF_STRENGTH else {}
        method: Any = rule
        plan = kofn.combine(rankings=scores, weights=weights, method=method, options=options)
        expected = np.full(len(scores), np.nan)
        for item, points in counted.points(rule, kind).items():
            expected[item] = float(points)
        np.testing.assert_allclose(plan.info["points"], expected, atol=1e-11)
        assert plan.info["never_compared"] == [i for i in range(len(scores)) if i not in counted.heard]
        shares = [counted.won(i, [j for j in range(len(scores)) if j != i]) for i in plan.result.tolist()]
        ranked = expected[plan.result].round(9).tolist()
        for (first, second), (before, after) in zip(
            itertools.pairwise(ranked), itertools.pairwise(shares), strict=True
        ):
            if first == first and second == second:
                assert first > second or before >= after  # equal points stand by the share of comparisons won


@pytest.mark.parametrize("seed", range(20))
def test_winners_are_those_of_pref_voting(seed: int) -> None:
    voting = pytest.importorskip("pref_voting.voting_methods")
    profiles = pytest.importorskip("pref_voting.profiles")
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 7)), int(rng.integers(1, 9))
    ballots = [rng.permutation(n).tolist() for _ in range(m)]
    counts = rng.integers(1, 4, m).tolist()
    scores = np.array([[-ballot.index(i) for ballot in ballots] for i in range(n)], float)
    profile = profiles.Profile([tuple(ballot) for ballot in ballots], rcounts=counts)
    theirs = {
        "copeland": voting.copeland(profile),
        "minimax": voting.minimax(profile),
        "baldwin": voting.baldwin(profile),
        "plurality": voting.plurality(profile),
        "borda": voting.borda(profile),
    }
    for name, winners in theirs.items():
        method: Any = name
        points = kofn.combine(rankings=scores, weights=counts, method=method).info["points"].round(12)
        assert np.flatnonzero(points == points.max()).tolist() == sorted(winners), name
    points = kofn.combine(rankings=scores, weights=counts, method="schulze").info["points"].round(12)
    assert set(np.flatnonzero(points == points.max()).tolist()) <= set(voting.beat_path(profile))


@pytest.mark.parametrize("seed", range(20))
def test_ranked_pairs_are_those_of_pref_voting(seed: int) -> None:
    """Of judges whose majorities are all of unlike strength, so that no ties are broken."""
    voting = pytest.importorskip("pref_voting.voting_methods")
    profiles = pytest.importorskip("pref_voting.profiles")
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(3, 7)), 40
    ballots = [rng.permutation(n).tolist() for _ in range(m)]
    counts = (1 << rng.permutation(m)[:m] % 30).tolist()
    scores = np.array([[-ballot.index(i) for ballot in ballots] for i in range(n)], float)
    profile = profiles.Profile([tuple(ballot) for ballot in ballots], rcounts=counts)
    points = kofn.combine(rankings=scores, weights=counts, method="ranked_pairs").info["points"].round(12)
    assert sorted(points.tolist()) == pytest.approx(np.linspace(0, 1, n).tolist())
    assert np.flatnonzero(points == 1).tolist() == voting.ranked_pairs(profile)


def test_equal_majorities_are_locked_in_together() -> None:
    """0 beats 1 as clearly as 1 beats 2 and 2 beats 0: no name decides, and what all of them beat is last."""
    cycle = kofn.combine(rankings=[[4.0, 2, 3], [3, 4, 2], [2, 3, 4], [1, 1, 1]], method="ranked_pairs")
    assert cycle.info["points"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0.0])
    assert cycle.ranks().tolist() == [1, 1, 1, 4]
    # A stronger majority than those of the cycle is locked in before it.
    strong = kofn.combine(rankings=[[4.0, 2, 3], [3, 4, 2], [2, 3, 4]], weights=[3.0, 2.0, 2.0], method="ranked_pairs")
    assert strong.result.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rule", RULES)
def test_what_beats_every_other_is_first_where_the_rule_says_so(rule: str) -> None:
    # 0 beats 1 and 2 by 3 to 2; it is first for one judge and last for none.
    scores = np.array([[2, 2, 2, 2, 3], [3, 3, 1, 1, 2], [1, 1, 3, 3, 1]], float)
    method: Any = rule
    first = int(kofn.combine(rankings=scores, method=method).result[0])
    assert first == (1 if rule in ("plurality", "dowdall") else 0)


@pytest.mark.parametrize("rule", RULES)
def test_another_scale_of_a_judge_changes_nothing_and_lower_turns_it_round(rule: str) -> None:
    scores, weights = drawn(7)
    method: Any = rule
    plan = kofn.combine(rankings=scores, weights=weights, method=method)
    stretched = scores.copy()
    stretched[:, 0] = np.exp(50 * stretched[:, 0])
    turned = scores.copy()
    turned[:, -1] *= -3
    for other, lower in ((stretched, None), (turned, [scores.shape[1] - 1])):
        again = kofn.combine(rankings=other, weights=weights, method=method, lower=lower)
        np.testing.assert_array_equal(again.info["points"], plan.info["points"])
        assert again.result.tolist() == plan.result.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_ranks_of_resamples_hold_the_rank_where_judges_agree(rule: str) -> None:
    method: Any = rule
    plan = kofn.combine(rankings=np.repeat([[4.0], [3], [2], [1]], 6, axis=1), method=method)
    low, high = plan.info["rank_low"], plan.info["rank_high"]
    ranks = plan.ranks()
    assert (low <= ranks).all()
    assert (ranks <= high).all()
    assert low[0] == high[0] == 1
    single = kofn.combine(rankings=[[2.0], [1.0]], method=method)
    assert (single.info["rank_low"].tolist(), single.info["rank_high"].tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize("seed", range(6))
def test_panels_are_ranked_as_one_by_one(seed: int) -> None:
    scores, weights = drawn(seed + 30)
    rng = np.random.default_rng(seed)
    pairs = win_ballots(rng.integers(0, 4, (4, 4)) + np.eye(4)[::-1])
    for table, given in ((scores, weights.astype(float)), (pairs["rankings"], pairs["weights"])):
        electorate = Electorate(np.array(table.T, order="C"))
        panels = given * rng.integers(0, 3, (5, len(given)))
        for name, scoring in SCORINGS.items():
            together = scoring(electorate, panels)
            for points, panel in zip(together, panels, strict=True):
                np.testing.assert_allclose(points, scoring(electorate, panel[None])[0], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            borda_points(electorate, given[None])[0], borda(table, weights=given).info["points"], atol=1e-12
        )


def test_votes_are_drawn_as_often_as_they_were_given() -> None:
    many = win_ballots([[0, 6_000], [4_000, 0]])
    few = win_ballots([[0, 6], [4, 0]])
    for method in ("borda", "copeland", "bradley_terry"):
        own: Any = method
        sure, unsure = (kofn.combine(**ballots, method=own).info for ballots in (many, few))
        assert (sure["rank_low"].tolist(), sure["rank_high"].tolist()) == ([1, 2], [1, 2]), method
        assert (unsure["rank_low"].tolist(), unsure["rank_high"].tolist()) == ([1, 1], [2, 2]), method


@pytest.mark.parametrize("rule", RULES)
def test_what_cannot_be_ranked_is_refused(rule: str) -> None:
    method: Any = rule
    with pytest.raises(InputError, match=r"has 5,001 alternatives; .* use borda"):
        kofn.combine(rankings=np.zeros((5001, 1)), method=method)
    with pytest.raises(InputError, match="judge 1 rated nothing"):
        kofn.combine(rankings=[[1.0, np.nan], [2.0, np.nan]], method=method)
    alone = kofn.combine(rankings=[[1.0, np.nan], [np.nan, 2.0]], method=method)
    assert alone.info["never_compared"] == [0, 1]
    assert np.isnan(alone.info["points"]).all()


def test_a_strength_that_is_none_is_refused() -> None:
    for method in OF_STRENGTH:
        own: Any = method
        with pytest.raises(InputError, match="strength"):
            kofn.combine(rankings=[[1.0], [2.0]], method=own, options={"strength": "half"})
