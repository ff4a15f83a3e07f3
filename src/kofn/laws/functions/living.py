"""What picks save for rows that stand for the pool, again from differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.laws.case import Case


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


FUNCTIONS: dict[str, Callable[..., Callable[[Any], float]]] = {"reference_location": _reference_location}
