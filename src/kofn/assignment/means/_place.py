"""Assign new items to the groups of an earlier plan by its centres and prices, without solving again."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.routing._flows import transport
from kofn.assignment.routing._scores import capacities
from kofn.core import checks, vocabulary
from kofn.core.arrays import Floats, Labels
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Assignment

__all__ = ["place"]


@helper
def place(
    plan: Assignment,
    X: Any = None,
    *,
    distances: Any = None,
    centers: Any = None,
    weights: Any = None,
    capacity: Any = None,
) -> Labels:
    """Assign new items to the groups of an earlier plan by its centres and prices, without solving again.

    Each item goes to the group of least `weight * distance + price`: the nearest one, unless that group is full of
    items that would lose more by leaving. So the plan's own items keep their groups, and new ones of the same kind
    fill the groups in about the same proportions. With `capacity`, what is left of each group for instance, no group
    takes more of the new items, and the sum of `weight * distance` is the least possible. `Assigner.predict` takes the
    nearest centre whatever the sizes.

    Args:
        plan: of groups: from `constrained_kmeans` and `constrained_kmedoids`, which have prices, or of k-medoids, where
            each new item goes to the nearest medoid.
        X: (m, d) new vectors.
        distances: (m, k) distances to the medoids, if the plan was made from distances.
        centers: (k, d) the medoids' vectors, `pool[plan.medoids]`, for a plan that holds none.
        weights: (m,) weight of each new item, default 1.
        capacity: the most new items that a group may take, one number or (k,); by default the prices decide.

    Returns:
        (m,) group of each new item.

    Raises:
        InputError: a plan without centers or medoids, or vectors of another width.
        InfeasibleError: more new items than `capacity` has room for.

    Cost: O(m k d); with `capacity` a transportation problem of m items and k groups.

    Examples:
        >>> from kofn.assignment import constrained_kmeans, place
        >>> plan = constrained_kmeans([[0.0], [1.0], [2.0], [3.0], [9.0], [10.0]], k=2, capacity=3, start=[0, 5])
        >>> place(plan, [[2.0], [3.5], [8.0]]).tolist()
        [0, 1, 1]
        >>> place(plan, [[2.0], [3.5], [8.0]], capacity=[2, 1]).tolist()
        [0, 0, 1]
    """
    if plan.centers is None and plan.medoids is None:
        raise InputError(f"plan of method {plan.method!r} has no centers and no medoids; give one of groups")
    if (X is None) == (distances is None):
        raise InputError("give X, new vectors, or distances to the medoids: one of them")
    if distances is not None:
        apart = checks.matrix(distances, "distances").astype(np.float64)
        if apart.shape[1] != plan.k:
            raise InputError(f"distances has {apart.shape[1]} columns, the plan has {plan.k} groups; give one for each")
    else:
        rows = checks.matrix(X)
        middles = plan.centers if centers is None else checks.matrix(centers, "centers").astype(np.float64)
        if middles is None:
            raise InputError("the plan holds no vectors; give centers=pool[plan.medoids], or distances to its medoids")
        if middles.shape != (plan.k, rows.shape[1]):
            raise InputError(f"X has {rows.shape[1]} columns, the plan's {plan.k} centers have shape {middles.shape}")
        metric = "sqeuclidean" if plan.medoids is None else str(plan.options.get("metric", "euclidean"))
        apart = _apart(rows.astype(np.float64), middles, metric)
    if weights is not None:
        weights = checks.weights(weights)
        checks.same_length(len(apart), "X" if distances is None else "distances", "weights", len(weights))
        apart = weights[:, None] * apart
    if capacity is not None:
        room = capacities(vocabulary.argument("capacity", capacity), plan.k)
        if len(apart) > room.sum():
            raise InfeasibleError(f"{len(apart)} new items, capacity has room for {room.sum()}; raise it")
        return transport(-apart, np.zeros(plan.k, np.int64), room)[0]
    labels: Labels = (apart if plan.v is None else apart + plan.v).argmin(axis=1).astype(np.int32)
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
