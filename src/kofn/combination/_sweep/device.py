"""Weighted sums on a torch device; products and sums are rounded separately, so results are bitwise NumPy's.

Blocks are read from and written to disk, so the transfer to a device seldom pays; it is meant for idle devices.
"""

from __future__ import annotations

import math
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


def doubt(members: int, dtype: np.dtype[Any]) -> float:
    """The share of the sum of magnitudes up to which a sum of so many numbers may have the wrong sign."""
    return members * float(np.finfo(dtype).eps)


def settle(votes: NDArray[Any], sums: NDArray[Any], sizes: NDArray[Any]) -> None:
    """Give sums whose sign rounding may have decided the sign of the exact sum.

    Args:
        votes: (m, n) what is added up.
        sums, sizes: (n,) the sums as computed, and those of the magnitudes.
    """
    for i in np.flatnonzero((np.abs(sums) <= doubt(len(votes), votes.dtype) * sizes) & (sizes > 0)):
        sums[i] = np.sign(math.fsum(votes[:, i].tolist()))


def elect(deltas: NDArray[Any], weights: NDArray[np.float64], total: NDArray[Any], device: Any) -> None:
    """The weighted mean of the entries that have the sign of the weighted sum, on a device."""
    import torch

    rows = torch.from_numpy(deltas).to(device)
    factors = torch.from_numpy(weights.astype(deltas.dtype)).to(device)
    zero = torch.zeros((), dtype=rows.dtype, device=device)
    summed, heard = torch.zeros_like(rows[0]), torch.zeros_like(rows[0])
    votes = rows * factors[:, None]
    sums, sizes = votes.sum(dim=0), votes.abs().sum(dim=0)
    doubtful = torch.nonzero(sums.abs() <= doubt(len(rows), deltas.dtype) * sizes)[:, 0]
    signs = sums[doubtful].cpu().numpy()
    settle(votes[:, doubtful].cpu().numpy(), signs, sizes[doubtful].cpu().numpy())
    sign = sums.index_copy(0, doubtful, torch.from_numpy(signs).to(device))
    for delta, weight in zip(rows, factors, strict=True):
        agrees = ((sign > 0) & (delta > 0)) | ((sign < 0) & (delta < 0))
        summed = summed + torch.where(agrees, weight * delta, zero)
        heard = heard + torch.where(agrees, weight, zero)
    np.copyto(total, torch.where(heard > 0, summed / heard, zero).cpu().numpy())
