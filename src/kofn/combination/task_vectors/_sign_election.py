"""Sign election: the mean of the members that have the elected sign of each entry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import device as _device

_COMPILED = 1 << 14  # entries from which a compiled loop pays


def elect(
    deltas: NDArray[Any],
    weights: NDArray[np.float64],
    total: NDArray[Any],
    heard: NDArray[Any],
    device: Any = None,
) -> None:
    """Write to `total` the weighted mean of the entries that have the sign of the weighted sum; `heard` is scratch."""
    if device is not None:
        _device.elect(deltas, weights, total, device)
        return
    used = weights.astype(deltas.dtype)
    sign = np.empty_like(total)
    if deltas.shape[1] >= _COMPILED:
        from kofn.combination._sweep import kernels as _kernels

        _kernels.elect(deltas, used, sign, total, heard)
        return
    for array in (sign, total, heard):
        array.fill(0)
    for delta, weight in zip(deltas, used, strict=True):
        sign += weight * delta
    for delta, weight in zip(deltas, used, strict=True):
        agrees = ((sign > 0) & (delta > 0)) | ((sign < 0) & (delta < 0))
        total += np.where(agrees, weight * delta, 0)
        heard += np.where(agrees, weight, 0)
    np.divide(total, heard, out=total, where=heard > 0)
