"""Medoid silhouette of each item: (b - a) / max(a, b) for distances a to its own and b to the nearest other medoid."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.medoids import _sources
from kofn.assignment.silhouettes._silhouette import DEFAULT_MEMORY, nothing
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Assignment

__all__ = ["medoid_silhouette"]


_PAIRS_AT_ONCE = 2**22


@helper
def medoid_silhouette(
    groups: Any,
    X: Any = None,
    *,
    distances: Any = None,
    metric: str = "euclidean",
    max_memory: int | str = DEFAULT_MEMORY,
    n_threads: int | None = None,
) -> Floats:
    """Medoid silhouette of each item: (b - a) / max(a, b) for distances a to its own and b to the nearest other medoid.

    Args:
        groups: an `Assignment`, or a label for each item (-1 for none). Groups without medoids get the member with the
            least summed distance to the others.
        X: vectors (n, d).
        distances: dissimilarities (n, n) instead.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        max_memory: bytes for distances computed from X.
        n_threads: threads that compute distances from X; default all cores.

    Returns:
        (n,) from -1 (in the wrong group) to 1; 0 where there is only one group or both distances are 0, NaN for
        items in no group. The mean is the average medoid silhouette.

    Raises:
        InputError: not one label for each item, or neither or both of X and distances.

    Cost: O(n d k) time from X; where medoids must be found, O(sum of the squared group sizes) more.

    References:
        Van der Laan, Pollard & Bryan 2003, A new partitioning around medoids algorithm.

    Examples:
        >>> from kofn.assignment import medoid_silhouette
        >>> medoid_silhouette([0, 0, 0, 1, 1], [[0.0], [1.0], [2.0], [9.0], [9.0]]).round(3).tolist()
        [0.889, 1.0, 0.857, 1.0, 1.0]
    """
    if (X is None) == (distances is None):
        raise InputError("give X or distances, one of them")
    X = None if X is None else checks.matrix(X)
    distances = None if distances is None else checks.distances(distances)
    n = len(X if distances is None else distances)
    source = _sources.source_of(X, distances, metric, checks.bytes_of(max_memory), n_threads)
    medoids = None
    if isinstance(groups, Assignment):
        labels, medoids = groups.labels.astype(np.int64), groups.medoids
    else:
        given = checks.as_array(groups, "groups")
        if given.shape != (n,) or given.dtype.kind not in "iu":
            raise InputError(
                f"groups has shape {given.shape} and dtype {given.dtype}; give a whole number for each item"
            )
        labels = np.full(n, -1)
        grouped = given >= 0
        labels[grouped] = np.unique(given[grouped], return_inverse=True)[1]
    checks.same_length(n, "X" if distances is None else "distances", "groups", len(labels))
    if medoids is None:
        medoids = np.array([_middle(source, np.flatnonzero(labels == j)) for j in range(labels.max(initial=-1) + 1)])
    out = np.full(n, np.nan)
    placed = np.flatnonzero(labels >= 0)
    out[placed] = 0.0
    if len(medoids) < 2:
        return out
    table = source.rows(np.asarray(medoids, np.int64)).T.astype(np.float64)[placed]
    own = np.take_along_axis(table, labels[placed, None], 1)[:, 0]
    np.put_along_axis(table, labels[placed, None], np.inf, 1)
    other = table.min(axis=1)
    longer = np.maximum(own, other)
    apart = longer > nothing(source)
    out[placed[apart]] = (other[apart] - own[apart]) / longer[apart]
    return out


def _middle(source: _sources.Source, members: Ints) -> int:
    """The member with the least summed distance to the others."""
    step = max(1, _PAIRS_AT_ONCE // len(members))
    parts = [
        source.between(members[low : low + step], members).sum(axis=1, dtype=np.float64)
        for low in range(0, len(members), step)
    ]
    return int(members[int(np.concatenate(parts).argmin())])
