"""Covering the pool: no item far from a pick."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.constraints import Constraints, Tracker
from kofn.engines.control import Control
from kofn.objectives.kcenter import distances_to
from kofn.plans import Selection
from kofn.registry import method


@method(
    "select",
    traits=("sandwich",),
    cost="O(n d k) time, O(n) memory beside X",
    exact="covering radius at most twice the optimum where only k binds",
    paper="Gonzalez 1985, Clustering to minimize the maximum intercluster distance",
)
def farthest_first(
    X: Any,
    *,
    k: int | None = None,
    budget: float | None = None,
    costs: Any = None,
    groups: Any = None,
    quotas: Any = None,
    include: Any = None,
    exclude: Any = None,
    start: Any = None,
    metric: str = "euclidean",
    time_limit: float | None = None,
    progress: bool | None = None,
) -> Selection:
    """Pick items so that none of the pool is far from a pick: each time the one farthest from the picks so far.

    Args:
        X: vectors (n, d).
        k: how many; with a `budget` and `costs`, at most how many (the farthest that can be afforded).
        groups: (n,) labels, with `quotas` {group: (least, most)}.
        include: items that must be picked; `exclude`: items that must not be; `start`: items to go on from.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        time_limit: seconds; the picks made by then are returned, status "stopped".

    Returns:
        Selection in the order picked. `gains` is how far each stood from the picks before it (NaN for the first,
        which is the
        item nearest to the pool's mean); `value` is the covering radius, sense "min"; `bound` is a proven lower bound
        on the smallest radius that any k items can have.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(n d k) time, O(n) memory beside X. The radius is at most twice the optimum (four times for squared
    distances and
    1 - cos) where only k binds. The bound holds always: k + 1 items pairwise at least r apart need a radius of r / 2.

    References:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Examples:
        >>> from kofn.selection import farthest_first
        >>> s = farthest_first([[0.0], [1.0], [5.0], [9.0]], k=2)
        >>> s.indices.tolist(), s.value, s.bound
        ([2, 0], 4.0, 2.0)
    """
    n = len(X)
    rules = Constraints.of(
        n,
        k=k,
        budget=budget,
        costs=costs,
        groups=groups,
        quotas=quotas,
        include=include,
        exclude=exclude,
        start=start,
    )
    tracker = Tracker(rules)
    nearest = np.full(n, np.inf)
    picks: list[int] = []
    gains: list[float] = []

    def take(item: int) -> None:
        gains.append(float(nearest[item]) if picks else np.nan)
        picks.append(item)
        np.minimum(nearest, distances_to(X, X[item], metric), out=nearest)

    stopped = False
    total = rules.k if rules.exact_k else 0
    with Control(time_limit=time_limit, progress=progress, total=total, what="picking") as control:
        for item in rules.first.tolist():
            take(item)
        while (open_items := tracker.eligible()).any():
            if control.stopped():
                stopped = True
                break
            far = nearest if picks else -distances_to(X, X.mean(axis=0, dtype=np.float64), metric)
            item = int(np.argmax(np.where(open_items, far, -np.inf)))
            tracker.add(item)
            take(item)
            control.step(len(picks))
        if stopped:
            for item in tracker.completion().tolist():
                tracker.add(item)
                take(item)
    radius = float(nearest.max())
    used, limit = tracker.report()
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=radius,
        sense="min",
        bound=_bound(rules, gains, radius, metric) if not stopped else None,
        status="stopped" if stopped else ("optimal" if radius == 0 else "approximate"),
        used=used,
        budget=limit,
        info={
            "objective": "k_center",
            "additive": False,
            "guarantee": (0.5 if metric == "euclidean" else 0.25) if rules.cardinality_only else None,
            "oracle_calls": n * len(picks),
            "distance_evals": n * len(picks),
        },
    )


def _bound(rules: Constraints, gains: list[float], radius: float, metric: str) -> float | None:
    if radius == 0:
        return 0.0
    return None if rules.budget is not None else _least_radius(gains, radius, metric)


def _least_radius(gains: list[float], radius: float, metric: str) -> float:
    """No k items can cover the pool closer than this: the picks and the farthest item are k + 1 items this far
    apart."""
    apart: NDArray[np.float64] = np.append(np.array(gains[1:]), radius)
    # Squared distances and 1 - cos (half a squared chord) double the distance when it is quadrupled.
    return float(apart.min()) / (2 if metric == "euclidean" else 4)
