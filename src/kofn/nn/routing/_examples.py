"""Inputs on which the routes of torch and of NumPy are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kofn.core.arrays import Singles


def drawn_scores(rng: np.random.Generator, *, listed: bool = False) -> Singles:
    """Scores (9, 4), half the time with ties and, unless all are `listed`, bins and items that are left out."""
    scores = rng.normal(size=(9, 4)).astype(np.float32)
    if rng.random() < 0.5:
        scores = rng.integers(-2, 3, (9, 4)).astype(np.float32)
        if not listed:
            scores[rng.random((9, 4)) < 0.15] = -np.inf
            scores[rng.integers(9)] = -np.inf
    return scores


def drawn_weights(rng: np.random.Generator) -> dict[str, str]:
    """An affinity and gates that go together whatever the signs of the scores."""
    pairs = [("softmax", "share"), ("softmax", "raw"), ("softmax", "ones"), ("sigmoid", "share"), ("sigmoid", "raw")]
    affinity, gates = [*pairs, ("none", "ones")][rng.integers(6)]
    return {"affinity": affinity, "gates": gates}


def pass_through(router: Any) -> Any:
    """The router with a linear map that returns its input, so that tokens are scores."""
    torch.nn.init.eye_(router.linear.weight)
    return router
