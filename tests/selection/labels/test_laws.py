"""Calls on which the laws hold: of pools on which compiled code and threads run."""

from __future__ import annotations

import numpy as np
from law_runs import keeps_laws_at_size, rounded


def test_uncertainty_herding_at_size() -> None:
    X = rounded(700, 4)
    y = np.where(np.arange(700) < 30, X[:, 0] > 0, -1)
    keeps_laws_at_size("uncertainty_herding", {"X": X, "y": y, "k": 20, "seed": 0})
    keeps_laws_at_size("uncertainty_herding", {"X": X, "k": 20, "seed": 0}, {"model": "none"})
