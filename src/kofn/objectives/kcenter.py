"""The k-center objective: the largest distance of any item to its nearest pick, to be minimised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK = 8192


def distances_to(X: NDArray[Any], point: NDArray[Any], metric: str = "euclidean") -> Floats:
    """(n,) distance of every row to one point, from differences, in blocks of rows.

    Under "cosine" rows of zeros share a direction of their own, as in `kofn.objectives.similarity`.
    """
    out = np.empty(len(X))
    point = np.asarray(point, np.float64)
    size = np.linalg.norm(point)
    if metric == "cosine":
        point = point / size if size else point
    for low in range(0, len(X), _BLOCK):
        block = X[low : low + _BLOCK].astype(np.float64)
        if metric == "cosine":
            sizes = np.linalg.norm(block, axis=1, keepdims=True)
            block /= np.where(sizes > 0, sizes, 1)
        block -= point
        out[low : low + _BLOCK] = np.einsum("ij,ij->i", block, block)
        if metric == "cosine":
            zero = sizes[:, 0] == 0
            out[low : low + _BLOCK][zero if size else ~zero] = 2.0
    if metric == "euclidean":
        np.sqrt(out, out=out)
    elif metric == "cosine":
        out /= 2
    return out


class KCenter:
    """The covering radius as a set function. Neither submodular nor bounded by greedy gains: a gain is a drop of the
    radius."""

    name = "k_center"
    sense = "min"
    submodular = False
    monotone = True

    def __init__(self, X: NDArray[Any], *, metric: str = "euclidean") -> None:
        self.X, self.metric, self.n = X, metric, len(X)
        self.nearest = np.full(self.n, np.inf)
        self.calls = 0

    def gains(self, candidates: NDArray[np.int64]) -> Floats:
        """How much each candidate would lower the radius (the first pick: minus the radius it leaves)."""
        self.calls += len(candidates)
        now = 0.0 if np.isinf(self.nearest[0]) else float(self.nearest.max())
        after = [np.minimum(self.nearest, distances_to(self.X, self.X[i], self.metric)).max() for i in candidates]
        return now - np.array(after)

    def add(self, item: int) -> float:
        """Commit a pick; returns the drop of the radius."""
        gain = float(self.gains(np.array([item]))[0])
        np.minimum(self.nearest, distances_to(self.X, self.X[item], self.metric), out=self.nearest)
        return gain

    def value(self, indices: NDArray[np.int64]) -> float:
        """The covering radius of a set."""
        if not len(indices):
            return float("inf")
        return float(np.min([distances_to(self.X, self.X[i], self.metric) for i in indices], axis=0).max())
