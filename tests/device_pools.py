"""Pools on which answers of a device and of the processor are compared: ties, copies, scales, rows far from 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import torch

    # Pools are small: threads that wait for each other would take most of the time.
    torch.set_num_threads(1)
except ModuleNotFoundError:
    pass

DEVICE = "torch:cpu"
KINDS = ("gaussian", "grid", "tiny", "huge", "copies far away", "zeros", "close together", "whole numbers")


def drawn(kind: str, seed: int, n: int, d: int) -> NDArray[Any]:
    """A pool of this kind."""
    rng = np.random.default_rng(seed)
    X: NDArray[Any] = rng.normal(size=(n, d))
    if kind == "gaussian":
        return X.astype(np.float32)
    if kind == "grid":
        return rng.integers(0, 3, size=(n, d)).astype(np.float64)
    if kind in ("tiny", "huge"):
        return X * (1e-30 if kind == "tiny" else 1e30)
    if kind == "copies far away":
        return np.repeat(X[: -(-n // 3)], 3, axis=0)[:n] + 1e4
    if kind == "zeros":
        return np.where(np.arange(n)[:, None] % 2, 0.0, np.sign(X))
    if kind == "close together":
        return (X * 1e-3 + 7).astype(np.float32)
    return (X * 3).round().astype(np.float32)
