"""Medoid silhouettes, written out plainly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.words import (
    Optimum,
    Recount,
    Value,
    distances,
    item_weights,
)

_MOST_SETS = 5_000


def _tables(case: Case) -> tuple[Floats, Floats]:
    """Distances and weights that the call means."""
    return distances(case), item_weights(case)


def _average(case: Case, table: Floats, weights: Floats, medoids: Any) -> float:
    """1 - a/b for the two nearest medoids of each item, 0 where both are nothing; averaged by weight."""
    nothing = float(case.plan.info["zero_below"])
    if len(medoids) < 2:
        return 0.0
    terms = []
    for row, weight in zip(table[:, np.asarray(medoids, np.int64)].tolist(), weights.tolist(), strict=True):
        nearest, second = sorted(row)[:2]
        terms.append(weight * (1 - nearest / second if second > nothing else 0.0))
    return math.fsum(terms) / math.fsum(weights.tolist())


def _value(case: Case) -> Callable[[Any], float]:
    table, weights = _tables(case)
    return lambda medoids: _average(case, table, weights, medoids)


def _recount(case: Case) -> None:
    plan = case.plan
    table, weights = _tables(case)
    counted = _average(case, table, weights, plan.medoids)
    if not near(plan.value, counted, case.rtol, 1.0):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    top = float(table.max())
    # What counts as nothing may only be rounding.
    if not 0 <= plan.info["zero_below"] <= 1e-6 * top:
        raise broken(case, "recount", f"distances up to {plan.info['zero_below']!r} of {top!r} count as nothing")
    own = table[np.arange(case.n), plan.medoids[plan.labels]]
    least = table[:, plan.medoids].min(axis=1)
    if not np.allclose(own, least, rtol=case.rtol, atol=case.rtol * top):
        far = int(np.argmax(own - least))
        raise broken(case, "recount", f"item {far} is not with its nearest medoid: {own[far]!r} > {least[far]!r}")
    curve = plan.info.get("curve")
    if curve and plan.status != "stopped":
        if curve["k"] != sorted(set(curve["k"])):
            raise broken(case, "recount", f"the curve is not in the order of k: {curve['k']}")
        if plan.k > 1 and not near(max(curve["silhouette"]), plan.value, 1e-11, 1.0):
            raise broken(case, "recount", f"value {plan.value!r} is not the best of {curve['silhouette']}")


def _best(case: Case) -> float | None:
    """The best k medoids of all."""
    k = len(case.plan.medoids)
    if math.comb(case.n, k) > _MOST_SETS:
        return None
    table, weights = _tables(case)
    return max(_average(case, table, weights, picks) for picks in itertools.combinations(range(case.n), k))


def _width(table: Floats, weights: Floats, labels: Any) -> float:
    """(b - a) / max(a, b) by the mean distances to the own group and to the nearest other one; averaged by weight."""
    groups = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    terms = []
    for item, label in enumerate(labels.tolist()):
        mates = groups[label][groups[label] != item]
        mass = {group: math.fsum(weights[rows].tolist()) for group, rows in groups.items() if group != label}
        means = [float(table[item, groups[g]] @ weights[groups[g]]) / m for g, m in mass.items() if m > 0]
        if not len(mates) or not weights[mates].sum() > 0 or not means:
            continue
        own, other = float(table[item, mates] @ weights[mates] / weights[mates].sum()), min(means)
        if max(own, other) > 0:
            terms.append(float(weights[item]) * (other - own) / max(own, other))
    return math.fsum(terms) / math.fsum(weights.tolist())


def _nearest(table: Floats, medoids: Any) -> Any:
    medoids = np.asarray(medoids, np.int64)
    labels = table[:, medoids].argmin(axis=1)
    labels[medoids] = np.arange(len(medoids))
    return labels


def _average_width(case: Case) -> Callable[[Any], float]:
    table, weights = _tables(case)
    return lambda medoids: _width(table, weights, _nearest(table, medoids)) if len(medoids) > 1 else 0.0


def _recount_width(case: Case) -> None:
    plan = case.plan
    table, weights = _tables(case)
    counted = _width(table, weights, plan.labels)
    if not near(plan.value, counted, case.rtol, 1.0):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")


FUNCTIONS: dict[str, Callable[[Case], Value]] = {"medoid_silhouette": _value, "average_silhouette": _average_width}
RECOUNTS: dict[str, Recount] = {"medoid_silhouette": _recount, "average_silhouette": _recount_width}
OPTIMA: dict[str, Optimum] = {"medoid_silhouette": _best}
