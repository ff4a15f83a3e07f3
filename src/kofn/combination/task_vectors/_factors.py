"""Members as what they add to a common base: sums, sign consensus, random drops, competition."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import device as _device
from kofn.combination._sweep.blockwise import Block
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.merge import relative_weights
from kofn.core import checks
from kofn.core.checks import InputError

_COMPILED = 1 << 14  # entries from which a compiled loop pays


def elect(
    deltas: NDArray[Any],
    weights: NDArray[np.float64],
    total: NDArray[Any],
    heard: NDArray[Any],
    device: Any = None,
) -> None:
    """Writes to `total` the weighted mean of the entries that have the sign of the weighted sum; `heard` is scratch."""
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


def base_of(block: Block) -> NDArray[Any]:
    assert block.base is not None
    return block.base


def added(parts: Iterable[Any]) -> list[NDArray[np.int64]]:
    total: list[NDArray[np.int64]] = []
    for counts in parts:
        total = list(counts) if not total else [a + b for a, b in zip(total, counts, strict=True)]
    return total


def factors(weights: Any, pool: Pool, normalize: bool, scale: float) -> NDArray[np.float64]:
    used, _, _ = relative_weights(weights, len(pool.members), checks.flag(normalize, "normalize"))
    return used * checks.number(scale, "scale")


def shares(weights: Any, pool: Pool) -> NDArray[np.float64]:
    used, _, _ = relative_weights(weights, len(pool.members))
    if (used < 0).any():
        raise InputError(f"weights of member {int(used.argmin())} is below zero; a vote cannot count less than nothing")
    return used


def checked_density(density: float) -> float:
    value = checks.fraction(density, "density")
    if value == 0:
        raise InputError("density=0 keeps nothing of the members; give a share above 0")
    return value


def checked_scope(scope: str) -> bool:
    return checks.choice(scope, "scope", ("tensor", "model")) == "model"


def sums_to_one(weights: NDArray[np.float64]) -> bool:
    total = math.fsum(weights.tolist())
    return bool(abs(total - 1) <= 4 * len(weights) * np.finfo(np.float64).eps * np.abs(weights).sum())
