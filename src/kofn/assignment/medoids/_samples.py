"""Shared parts of the k-medoids methods that avoid n x n distances (CLARA, CLARANS)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.medoids import _sources
from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Assignment

# Distances from X are kept as a matrix only up to this size.
DEFAULT_MEMORY = 2**26
# A change counts as an improvement beyond this share of the loss.
_TOLERANCE = 1e-10
PAIRS_AT_ONCE = 2**22


class Placed:
    """Medoids and the nearest medoid of every item, in O(n) memory."""

    def __init__(self, source: _sources.Source, medoids: Ints, weights: Floats) -> None:
        self.medoids = medoids
        n, k = source.n, len(medoids)
        self.labels = np.zeros(n, np.int32)
        near = np.full(n, np.inf)
        step = max(1, PAIRS_AT_ONCE // n)
        for low in range(0, k, step):
            rows = source.rows(medoids[low : low + step])
            closest = rows.argmin(axis=0)
            least = np.take_along_axis(rows, closest[None], 0)[0]
            closer = least < near
            self.labels[closer] = closest[closer] + low
            near[closer] = least[closer]
        self.labels[medoids] = np.arange(k, dtype=np.int32)
        self.loss = float((weights * near).sum())


def only(source: _sources.Source, begin: Ints, candidates: Ints, weights: Floats) -> Ints:
    """The single best medoid, if its loss is below that of `begin`."""
    tried = np.concatenate([begin, candidates])
    step = max(1, PAIRS_AT_ONCE // source.n)
    totals = np.concatenate(
        [source.rows(tried[low : low + step]).astype(np.float64) @ weights for low in range(0, len(tried), step)]
    )
    best = int(totals.argmin())
    return tried[[best]] if totals[best] < totals[0] * (1 - _TOLERANCE) else begin


def finish(
    X: Any,
    distances: Any,
    metric: str,
    medoids: Ints,
    labels: NDArray[np.int32],
    weights: Floats,
    status: str,
    info: dict[str, Any],
) -> Assignment:
    k = len(medoids)
    value = _sources.loss_of(X, distances, metric, medoids, labels, weights)
    if value == 0 and k > 1:
        info["distinct_medoids"] = _sources.distinct(X, distances, medoids)
    return Assignment.around(labels, medoids, value=value, status=status, sense="min", objective="k_medoids", info=info)
