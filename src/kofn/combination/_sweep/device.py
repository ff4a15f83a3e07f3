"""Weighted sums on a torch device; products and sums are rounded separately, so results are bitwise NumPy's.

Blocks are read from and written to disk, so the transfer to a device seldom pays; it is meant for idle devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.half_loops import ready


def weighted_sum(
    rows: Sequence[NDArray[Any]], weights: Sequence[float], total: NDArray[Any], spare: NDArray[Any], device: Any = None
) -> None:
    """total = sum_i w_i x_i in the order of the rows; rows of weight zero are skipped."""
    used = [(row, weight) for row, weight in zip(rows, weights, strict=True) if weight]  # 0 x would turn -0.0 into 0.0
    if not used:
        total.fill(0)
        return
    if device is not None:
        import torch

        summed: Any = None
        for row, weight in used:
            part = torch.from_numpy(row).to(device) * weight
            summed = part if summed is None else summed + part
        np.copyto(total, summed.cpu().numpy())
        return
    loops = ready() if total.dtype == np.float32 else None
    for i, (row, weight) in enumerate(used):
        if loops is not None:
            (loops.add_scaled if i else loops.scale)(row, weight, total)
        elif i:
            np.multiply(row, weight, out=spare)
            np.add(total, spare, out=total)
        else:
            np.multiply(row, weight, out=total)


def elect(deltas: NDArray[Any], weights: NDArray[np.float64], total: NDArray[Any], device: Any) -> None:
    """The weighted mean of the entries that have the sign of the weighted sum, on a device."""
    import torch

    rows = torch.from_numpy(deltas).to(device)
    factors = torch.from_numpy(weights.astype(deltas.dtype)).to(device)
    zero = torch.zeros((), dtype=rows.dtype, device=device)
    sign, summed, heard = (torch.zeros_like(rows[0]) for _ in range(3))
    for delta, weight in zip(rows, factors, strict=True):
        sign = sign + weight * delta
    for delta, weight in zip(rows, factors, strict=True):
        agrees = ((sign > 0) & (delta > 0)) | ((sign < 0) & (delta < 0))
        summed = summed + torch.where(agrees, weight * delta, zero)
        heard = heard + torch.where(agrees, weight, zero)
    np.copyto(total, torch.where(heard > 0, summed / heard, zero).cpu().numpy())
