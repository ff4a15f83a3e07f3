"""Sign election: the mean of the members that have the elected sign of each entry."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import device as _device

_COMPILED = 1 << 14  # entries from which a compiled loop pays
_local = threading.local()


def scratch(m: int, like: NDArray[Any]) -> NDArray[Any]:
    """(m, n) work space of this thread: fresh memory for every block would cost more than the sums."""
    nbytes = m * like.nbytes
    buffer = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < nbytes:
        buffer = _local.buffer = np.empty(nbytes, np.uint8)
    return buffer[:nbytes].view(like.dtype).reshape(m, len(like))


def trim(row: NDArray[Any], base: NDArray[Any], least: np.float32 | np.float64, change: NDArray[Any]) -> None:
    """Make `change` the row minus the base's, times zero where its magnitude, in the dtype of `least`, is below it."""
    if len(row) >= _COMPILED:
        from kofn.combination._sweep import kernels as _kernels

        wide = least.dtype == np.float64
        (_kernels.trimmed_wide_changes if wide else _kernels.trimmed_changes)(row, base, least, change)
        return
    np.subtract(row, base, out=change)
    np.multiply(change, np.abs(change.astype(least.dtype, copy=False)) >= least, out=change)


def elect(
    deltas: NDArray[Any],
    weights: NDArray[np.float64],
    total: NDArray[Any],
    heard: NDArray[Any],
    device: Any = None,
) -> None:
    """Write to `total` the weighted mean of the entries that have the sign of the weighted sum; `heard` is scratch.

    Each weighted change is rounded, the sign is that of their exact sum: the order of the members does not decide it.
    """
    if device is not None:
        _device.elect(deltas, weights, total, device)
        return
    used = weights.astype(deltas.dtype)
    if deltas.shape[1] >= _COMPILED:
        from kofn.combination._sweep import kernels as _kernels

        _kernels.elect(deltas, used, total, heard)
        return
    votes = deltas * used[:, None]
    sign = votes.sum(axis=0)
    _device.settle(votes, sign, np.abs(votes).sum(axis=0))
    for array in (total, heard):
        array.fill(0)
    for delta, weight in zip(deltas, used, strict=True):
        agrees = ((sign > 0) & (delta > 0)) | ((sign < 0) & (delta < 0))
        total += np.where(agrees, weight * delta, 0)
        heard += np.where(agrees, weight, 0)
    np.divide(total, heard, out=total, where=heard > 0)
