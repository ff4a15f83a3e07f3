"""The modular objective: the sum of the scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.objective import Objective


class Modular(Objective):
    """f(S) = sum of the scores of S. Greedy is exact for it under a cardinality or quotas."""

    name = "modular"
    n: int
    submodular = True
    calls = 0

    def __init__(self, scores: NDArray[np.floating]) -> None:
        self.scores = np.asarray(scores, np.float64)
        if self.scores.ndim != 1:
            raise InputError(f"scores has shape {self.scores.shape}; give one score an item, shape (n,)")
        self.n = len(self.scores)
        self._monotone = bool(self.scores.min() >= 0)

    @property
    def monotone(self) -> bool:
        """Whether all scores are >= 0."""
        return self._monotone

    def gains(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """The candidates' own scores, independent of the picks."""
        self.calls += len(candidates)
        out: NDArray[np.float64] = self.scores[candidates]
        return out

    def add(self, item: int) -> float:
        """Commit a pick; returns its score."""
        return float(self.scores[item])

    def value(self, indices: NDArray[np.int64]) -> float:
        """Sum of the scores, correctly rounded."""
        return math.fsum(self.scores[indices].tolist())
