"""Naive loss reduction on reference rows, and draws of private populations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import Value, pairwise


def _reference_location(case: Case) -> Callable[[Any], float]:
    rows = np.asarray(case.words["X"], np.float64)
    given = case.options.get("reference")
    reference = rows[case.plan.info["reference"]] if given is None else np.asarray(given, np.float64)
    metric = case.words.get("metric", "euclidean")
    table = np.array([[_likeness(row, target, reference, metric) for target in reference] for row in rows])
    return lambda picks: math.fsum(max((table[int(i), r] for i in picks), default=0.0) for r in range(len(reference)))


def _likeness(row: Any, target: Any, reference: Any, metric: str) -> float:
    if metric == "cosine":
        sizes = math.hypot(*row.tolist()) * math.hypot(*target.tolist())
        return (1 + (math.fsum((row * target).tolist()) / sizes if sizes > 0 else 0.0)) / 2
    power = 1.0 if metric == "euclidean" else 2.0
    centre = [math.fsum(column) / len(reference) for column in reference.T.tolist()]
    return max(0.0, math.dist(centre, target.tolist()) ** power - math.dist(row.tolist(), target.tolist()) ** power)


def _users(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    rng = seeded(draw)
    options["users"] = rng.normal(size=(draw(st.integers(1, 9)), np.asarray(given["X"]).shape[1]))


def _epsilon(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["epsilon"] = draw(st.sampled_from((0.1, 1.0, 50.0, math.inf)))


def _delta(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if draw(st.booleans()):
        options["delta"] = draw(st.sampled_from((0.0, 1e-9, 0.01)))


def _utility(case: Case) -> Callable[[Any], float]:
    """What picks are worth to the users: one less the distance to the nearest in units of the reach, or nothing."""
    rows, users = np.asarray(case.words["X"], np.float64), np.asarray(case.options["users"], np.float64)
    metric = case.words.get("metric", "euclidean")
    wide = math.dist(rows.max(axis=0).tolist(), rows.min(axis=0).tolist()) or float(np.abs(rows).max()) or 1.0
    reach = {"euclidean": wide, "sqeuclidean": wide**2, "cosine": 2.0}[metric]
    apart = pairwise(np.concatenate([users, rows]), metric)[: len(users), len(users) :] / reach
    return lambda picks: math.fsum(max(0.0, 1 - min(apart[user, picks].tolist())) for user in range(len(users)))


def _private_utility(case: Case) -> bool:
    """Without noise, a share of an optimum in the range of the guesses; with noise that holds mostly, not always."""
    plan, k, people = case.plan, int(case.words["k"]), len(case.options["users"])
    if math.isfinite(case.options["epsilon"]):
        return False
    worth = _utility(case)
    best = max(worth(list(picks)) for picks in itertools.combinations(range(case.n), k))
    if not people / (2 * k) <= best <= people:
        return False
    reached = worth(plan.indices.tolist())
    if reached < plan.guarantee * best - plan.info["additive_loss"] - 1e-9 * best:
        raise broken(case, "certified", f"a utility of {reached!r} is below {plan.guarantee:.3f} of {best!r}")
    return True


PROMISES = {"private_utility": _private_utility}
FUNCTIONS: dict[str, Callable[..., Value]] = {"reference_location": _reference_location}
OPTIONS: dict[str, Drawer] = {"users": _users, "epsilon": _epsilon, "delta": _delta}
