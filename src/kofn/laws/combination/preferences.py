"""Scores of pairs: their likelihood by definition, antisymmetry, and points as the mean chance against the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import Recount, agree


def _preference_likelihood(case: Case) -> None:
    """The likelihood pair by pair; scores that are skew-symmetric and the sum over the embedding's planes."""
    plan, prior = case.plan, case.options.get("prior", 0.0)
    ballots = np.asarray(case.words["rankings"], np.float64).T
    weights = np.asarray(case.words.get("weights", np.ones(len(ballots))), np.float64)
    scores, points = np.asarray(plan.info["scores"]), np.asarray(plan.info["points"])
    embedding = np.asarray(plan.info["embedding"])
    heard = np.flatnonzero(~np.isnan(points)).tolist()
    terms, size = [], 1.0
    chances: dict[int, list[float]] = {item: [] for item in heard}
    for a, b in itertools.permutations(heard, 2):
        won = prior / 2 + math.fsum(
            weight * (float(ballot[a] > ballot[b]) + 0.5 * float(ballot[a] == ballot[b]))
            for ballot, weight in zip(ballots, weights, strict=True)
        )
        terms.append(-won * math.log1p(math.exp(-scores[a, b])))
        chances[a].append(1 / (1 + math.exp(-scores[a, b])))
        size += won
        if scores[a, b] != -scores[b, a]:
            raise broken(case, "recount", f"score ({a}, {b}) is {scores[a, b]!r}, ({b}, {a}) {scores[b, a]!r}")
        planes = sum(
            embedding[a, k] * embedding[b, k + 1] - embedding[a, k + 1] * embedding[b, k]
            for k in range(0, embedding.shape[1], 2)
        )
        if abs(planes - scores[a, b]) > 1e-6 * (1 + abs(scores[a, b])):
            raise broken(case, "recount", f"score ({a}, {b}) is {scores[a, b]!r}, the embedding's {planes!r}")
    agree(case, "value", plan.value, math.fsum(terms), size)
    for item, shares in chances.items():
        if shares and abs(points[item] - math.fsum(shares) / len(shares)) > 1e-9:
            raise broken(case, "recount", f"points of {item} are {points[item]!r}, the mean of {shares} is not")
    ranked = points[np.asarray(plan.result)]
    known = ranked[~np.isnan(ranked)]
    if np.isnan(ranked[: len(known)]).any() or (np.diff(known) > 1e-8).any():
        raise broken(case, "recount", f"the ranking's points do not fall: {ranked}")


def _draw_prior(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Some prior, without which small tables seldom have strengths."""
    options["prior"] = draw(st.sampled_from((0.1, 0.5, 2.0)))


RECOUNTS: dict[str, Recount] = {"preference_likelihood": _preference_likelihood}
OPTIONS: dict[str, Drawer] = {"prior": _draw_prior}
