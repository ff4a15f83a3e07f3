"""Points of alternatives, ballot by ballot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Recount,
    agree,
    member_weights,
)


def shares(ballot: Floats) -> Floats:
    """(n,) the share of a judge's other alternatives that each beats, ties half; NaN where nothing was compared."""
    out = np.full(len(ballot), np.nan)
    rated = np.flatnonzero(~np.isnan(ballot))
    for item in rated.tolist() if len(rated) > 1 else []:
        others = ballot[rated[rated != item]]
        out[item] = ((others < ballot[item]).sum() + 0.5 * (others == ballot[item]).sum()) / len(others)
    return out


def _borda(case: Case) -> None:
    plan, weights = case.plan, member_weights(case)
    ballots = np.asarray(case.words["rankings"], np.float64).T
    table = np.array([shares(ballot) for ballot in ballots])
    heard = (~np.isnan(table) * weights[:, None]).sum(axis=0)
    earned = (np.nan_to_num(table) * weights[:, None]).sum(axis=0)
    points = np.divide(earned, heard, out=np.full(case.n, np.nan), where=heard > 0)
    if not np.allclose(plan.info["points"], points, rtol=1e-12, atol=1e-12, equal_nan=True):
        raise broken(case, "recount", f"points are {plan.info['points']}, recounted {points}")
    ranked = points[np.asarray(plan.result)]
    known = ranked[~np.isnan(ranked)]
    if np.isnan(ranked[: len(known)]).any() or (np.diff(known) > 1e-11).any():
        raise broken(case, "recount", f"the ranking's points do not fall: {ranked}")
    # Relative to the order: judges' pairs that it turns round.
    position = np.empty(case.n, np.int64)
    position[np.asarray(plan.result)] = np.arange(case.n)
    for judge, ballot in enumerate(ballots):
        pairs = [(a, b) for a in range(case.n) for b in range(case.n) if ballot[a] > ballot[b]]
        off = sum(position[a] > position[b] for a, b in pairs) / max(len(pairs), 1)
        agree(case, f"spread of judge {judge}", float(plan.spread[judge]), off)
    missed = np.where(np.isnan(table), 0.0, table - np.nan_to_num(points))
    counted = math.fsum((weights[:, None] * missed**2).ravel().tolist())
    agree(case, "value", plan.value, counted, 1.0)


_BRUTE = 6  # alternatives of which every order is looked at


def _overturned(case: Case) -> None:
    plan = case.plan
    ballots = np.asarray(case.words["rankings"], np.float64).T
    weights = np.asarray(case.words.get("weights", np.ones(len(ballots))), np.float64)
    against = np.zeros((case.n, case.n))
    for ballot, weight in zip(ballots, weights, strict=True):
        against += weight * (ballot[None, :] > ballot[:, None])

    def cost(order: Sequence[int]) -> float:
        return math.fsum(against[a, b] for a, b in itertools.combinations(order, 2))

    agree(case, "value", plan.value, cost(np.asarray(plan.result).tolist()), 1.0)
    if case.n <= _BRUTE:
        best = min(cost(order) for order in itertools.permutations(range(case.n)))
        if plan.bound > best + 1e-9 * max(1.0, best):
            raise broken(case, "recount", f"the bound is {plan.bound}, an order overturns {best}")
        if plan.status == "optimal":
            agree(case, "optimum", plan.value, best, 1.0)


def _comparison_likelihood(case: Case) -> None:
    """The likelihood pair by pair, whose slope is 0 in every strength, and strengths that fall along the order."""
    plan, prior = case.plan, case.options.get("prior", 0.0)
    ballots = np.asarray(case.words["rankings"], np.float64).T
    weights = np.asarray(case.words.get("weights", np.ones(len(ballots))), np.float64)
    points = np.asarray(plan.info["points"])
    heard = np.flatnonzero(~np.isnan(points)).tolist()
    terms, slope, size = [], np.zeros(case.n), 1.0
    for a, b in itertools.permutations(heard, 2):
        won = prior / 2 + math.fsum(
            weight * (float(ballot[a] > ballot[b]) + 0.5 * float(ballot[a] == ballot[b]))
            for ballot, weight in zip(ballots, weights, strict=True)
        )
        odds = math.exp(points[b] - points[a])
        terms.append(-won * math.log1p(odds))
        slope[a] += won * odds / (1 + odds)
        slope[b] -= won * odds / (1 + odds)
        size += won
    agree(case, "value", plan.value, math.fsum(terms), size)
    if np.abs(slope).max() > 1e-6 * size:
        raise broken(case, "recount", f"the likelihood still rises: its slope is {slope}")
    ranked = points[np.asarray(plan.result)]
    known = ranked[~np.isnan(ranked)]
    if np.isnan(ranked[: len(known)]).any() or (np.diff(known) > 1e-8).any():
        raise broken(case, "recount", f"the ranking's strengths do not fall: {ranked}")


def _choice_likelihood(case: Case) -> None:
    """The likelihood ballot by ballot, which is no higher a little to either side, and strengths that fall."""
    plan, prior = case.plan, case.options.get("prior", 0.0)
    ballots = np.asarray(case.words["rankings"], np.float64).T
    weights = np.asarray(case.words.get("weights", np.ones(len(ballots))), np.float64)
    points = np.asarray(plan.info["points"])
    heard = np.flatnonzero(~np.isnan(points)).tolist()

    def likelihood(strength: Floats) -> float:
        terms = [
            -prior / 2 * math.log1p(math.exp(strength[b] - strength[a])) for a, b in itertools.permutations(heard, 2)
        ]
        for ballot, weight in zip(ballots, weights, strict=True):
            rated = [item for item in heard if not math.isnan(ballot[item])]
            for item in rated if len(rated) > 1 else []:
                tied = sum(ballot[other] == ballot[item] for other in rated)
                last = ballot[item] == min(ballot[rated])
                left = [strength[other] for other in rated if ballot[other] <= ballot[item]]
                share = (tied - 1) / tied if last else 1.0
                terms.append(weight * share * (strength[item] - math.log(math.fsum(map(math.exp, left)))))
        return math.fsum(terms)

    size = 1.0 + float(weights.sum()) * case.n + prior * case.n**2
    best = likelihood(points)
    agree(case, "value", plan.value, best, size)
    for item in heard:
        for step in (-1e-3, 1e-3):
            moved = points.copy()
            moved[item] += step
            if likelihood(moved) > best + 1e-9 * size:
                raise broken(case, "recount", f"the likelihood rises where strength {item} moves by {step}")
    known = points[np.asarray(plan.result)][: len(heard)]
    if np.isnan(known).any() or (np.diff(known) > 1e-8).any():
        raise broken(case, "recount", f"the ranking's strengths do not fall: {known}")


def _draw_prior(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A prior where the strengths need one, and at times elsewhere."""
    from kofn.combination.rankings._pairs import Listed, half_wins
    from kofn.combination.rankings._strengths import refuse_no_strengths

    ballots = np.array(np.asarray(given["rankings"], np.float64).T, order="C")
    weights = np.asarray(given.get("weights", np.ones(len(ballots))), np.float64)
    wins = half_wins(Listed.of(ballots), weights, ballots.shape[1])
    try:
        refuse_no_strengths(wins, range(len(wins)))
        needed = False
    except ValueError:
        needed = True
    if needed or draw(st.integers(0, 2)) == 0:
        options["prior"] = draw(st.sampled_from((0.1, 0.5, 2.0)))


RECOUNTS: dict[str, Recount] = {
    "borda": _borda,
    "overturned_preferences": _overturned,
    "comparison_likelihood": _comparison_likelihood,
    "choice_likelihood": _choice_likelihood,
}
OPTIONS: dict[str, Drawer] = {"prior": _draw_prior}
