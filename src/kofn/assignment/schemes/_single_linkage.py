"""Single-linkage clustering, cut at a distance threshold or at k groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.assignment.means import _gaussian
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("sandwich",),
    draws=Draw(units={"threshold": "distance"}),
    cost="O(n^2) time (times d from X), O(n) memory beside the distances",
    exact="the groups at the scale, and the k groups of least total link length and widest spacing",
    paper=(299, "prim1957"),
)
def single_linkage(
    X: Any = None,
    *,
    distances: Any = None,
    k: int | None = None,
    metric: str = "euclidean",
    threshold: float | None = None,
) -> Assignment:
    """Single-linkage clustering, cut at a distance threshold or at k groups.

    Args:
        X: vectors (n, d); distances are computed row by row and never kept.
        distances: dissimilarities (n, n), symmetric, >= 0; the triangle inequality is not needed.
        k: the number of groups. Without k and threshold there is one group, and `info` holds the whole tree.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        threshold: instead of k, the largest distance that still links two items.

    Returns:
        An `Assignment`: `labels` (groups in the order of their first row), `k` the number of groups, `value` the summed
        length of the links within the groups, the least of all partitions into k groups. `info`:
        links (n - k, 2) the links within groups, merge_lengths (n - 1,) of all links, ascending, and spacing, the
        shortest distance between two groups (None for one group).

    Raises:
        InputError: k and threshold together, k > n, or a threshold that is not a number >= 0.

    Cost: n passes over a row of distances; O(n) memory beside the input.

    Guarantee: exact. At a fixed threshold it is the only non-trivial scheme that never separates items when distances
    shrink or items coincide (Carlsson & Memoli). With k it also has the largest spacing.

    References:
        Carlsson & Memoli 2013, Foundations of Computational Mathematics 13, arXiv 1011.5270.

    Examples:
        >>> from kofn.assignment import single_linkage
        >>> plan = single_linkage([[0.0], [1.0], [2.5], [9.0], [9.5]], threshold=2)
        >>> plan.labels.tolist(), plan.value, plan.info["spacing"]
        ([0, 0, 0, 1, 1], 3.0, 6.5)
        >>> single_linkage([[0.0], [1.0], [2.5], [9.0], [9.5]], k=3).labels.tolist()
        [0, 0, 1, 2, 2]
    """
    if k is not None and threshold is not None:
        raise InputError(f"k={k} and threshold={threshold!r} are both given; give how many groups or the longest step")
    if X is not None and distances is not None:
        raise InputError("X and distances are both given; give one of them")
    n = len(X if distances is None else distances)
    if k is not None and k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to group; ask for k <= {n}")
    scale = math.inf if threshold is None else checks.number(threshold, "threshold")
    if distances is None and metric == "precomputed":
        X, distances = None, checks.distances(X, "X")
    order, parents, lengths = _tree(_rows_of(X, distances, metric), n)
    ranked = np.argsort(lengths, kind="stable")
    steps = ranked[: n - k] if k is not None else ranked[lengths[ranked] <= scale]
    joined = np.zeros(n, bool)
    joined[1:][steps] = True
    group = np.empty(n, np.int64)
    # Nodes come after their parents, so one pass propagates the groups.
    for position, item in enumerate(order.tolist()):
        group[item] = group[parents[position - 1]] if joined[position] else position
    labels = _gaussian.renamed(group)
    groups = n - len(steps)
    value = math.fsum(lengths[steps].tolist())
    links = np.sort(np.column_stack([parents[steps], order[1:][steps]]), axis=1)
    return Assignment.from_labels(
        labels,
        groups,
        value=value,
        sense="min",
        status="optimal",
        bound=value,
        objective="spanning_forest",
        info={
            "links": links,
            "merge_lengths": lengths[ranked],
            "spacing": float(lengths[ranked[len(steps)]]) if groups > 1 else None,
            "distance_evals": n * (n - 1) if distances is None else 0,
        },
    )


def _rows_of(X: Any, distances: Any, metric: str) -> Callable[[int], Floats]:
    """A function that gives the distances of all items to one item."""
    if distances is not None:
        return lambda item: np.asarray(distances[item], np.float64)
    from kofn.objectives.similarity import geometry

    space = geometry(X, metric)
    unit = 0.5 if metric == "cosine" else space.unit
    points = space.points(slice(None))
    return lambda item: space.distances(points[item]) * unit


def _tree(row: Callable[[int], Floats], n: int) -> tuple[Ints, Ints, Floats]:
    """Prim's minimum spanning tree: items in the order reached, with parent and edge length of all but the first."""
    order, parents, lengths = np.zeros(n, np.int64), np.zeros(n - 1, np.int64), np.zeros(n - 1)
    near, via, open_ = np.full(n, np.inf), np.zeros(n, np.int64), np.ones(n, bool)
    item = 0
    for step in range(n - 1):
        open_[item] = False
        distances = row(item)
        closer = open_ & (distances < near)
        near[closer], via[closer] = distances[closer], item
        near[item] = np.inf
        item = int(near.argmin())
        order[step + 1], parents[step], lengths[step] = item, via[item], near[item]
    return order, parents, lengths
