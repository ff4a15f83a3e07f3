"""Assign new items to the groups of an earlier plan by its centres and prices, without solving again."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Labels
from kofn.core.checks import InputError
from kofn.core.plans import Assignment

__all__ = ["place"]


def place(plan: Assignment, X: Any = None, *, distances: Any = None, weights: Any = None) -> Labels:
    """Assign new items to the groups of an earlier plan by its centres and prices, without solving again.

    Each item goes to the group of least `weight * distance + price`: the nearest one, unless that group is full of
    items that would lose more by leaving. Size bounds are not enforced on the new items.

    Args:
        plan: from `constrained_kmeans` or `constrained_kmedoids`.
        X: (m, d) new vectors.
        distances: (m, k) distances to the medoids, if the plan was made from distances.
        weights: (m,) weight of each new item, default 1.

    Returns:
        (m,) group of each new item.

    Raises:
        InputError: a plan without prices, or vectors of another width.

    Examples:
        >>> from kofn.assignment import constrained_kmeans, place
        >>> plan = constrained_kmeans([[0.0], [1.0], [2.0], [3.0], [9.0], [10.0]], k=2, capacity=3, start=[0, 5])
        >>> place(plan, [[2.0], [3.5], [8.0]]).tolist()
        [0, 1, 1]
    """
    if plan.v is None or (plan.centers is None and plan.medoids is None):
        raise InputError(f"plan of method {plan.method!r} has no centres with prices; give one of constrained_kmeans")
    if (X is None) == (distances is None):
        raise InputError("give X, new vectors, or distances to the medoids: one of them")
    if distances is not None:
        apart = checks.matrix(distances, "distances").astype(np.float64)
        if apart.shape[1] != plan.k:
            raise InputError(f"distances has {apart.shape[1]} columns, the plan has {plan.k} groups; give one for each")
    else:
        rows = checks.matrix(X)
        if plan.centers is None:
            raise InputError("X is given, the plan was made from distances; give distances to its medoids")
        if rows.shape[1] != plan.centers.shape[1]:
            raise InputError(f"X has {rows.shape[1]} columns, the plan's centers have {plan.centers.shape[1]}")
        metric = "sqeuclidean" if plan.medoids is None else str(plan.options.get("metric", "euclidean"))
        apart = _apart(rows.astype(np.float64), plan.centers, metric)
    if weights is not None:
        weights = checks.weights(weights)
        checks.same_length(len(apart), "X" if distances is None else "distances", "weights", len(weights))
        apart = weights[:, None] * apart
    labels: Labels = (apart + plan.v).argmin(axis=1).astype(np.int32)
    return labels


def _apart(rows: Floats, centers: Floats, metric: str) -> Floats:
    """(m, k) distances in the units of the plan's method."""
    from scipy.spatial.distance import cdist

    if metric == "cosine":
        sizes = [np.sqrt(np.einsum("ij,ij->i", part, part)) for part in (rows, centers)]
        # Zero rows count as one direction, orthogonal to all others.
        rows, centers = (
            np.column_stack([part / np.where(size > 0, size, 1.0)[:, None], size == 0])
            for part, size in zip((rows, centers), sizes, strict=True)
        )
    out: Floats = cdist(rows, centers, "euclidean" if metric == "euclidean" else "sqeuclidean")
    return out / 2 if metric == "cosine" else out
