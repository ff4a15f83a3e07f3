"""Normalisation of member weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError


def relative_weights(weights: Any, m: int, normalize: bool | None = None) -> tuple[NDArray[np.float64], float, str]:
    """The weights as used, the sum of the weights as given, and the form of the weighted sum they make.

    They are divided by their sum unless `normalize` is False; None where the caller has no such option.
    """
    given = np.ones(m) if weights is None else np.asarray(weights, np.float64)
    total = math.fsum(given.tolist())
    slack = 4 * m * np.finfo(np.float64).eps * math.fsum(np.abs(given).tolist())
    if normalize is not False:
        if total <= slack:
            own = "" if normalize is None else " (the option normalize=False takes them as they are)"
            raise InputError(f"weights sum to {total:g}; relative weights need a positive sum{own}")
        used = given / total
    else:
        used = given
        if abs(total - 1) > slack:
            return used, total, "linear"
    return used, total, "simplex" if (used >= 0).all() else "affine"


def sum_to_one(weights: NDArray[np.float64]) -> bool:
    """Whether weights sum to one up to rounding."""
    total = math.fsum(weights.tolist())
    return bool(abs(total - 1) <= 4 * len(weights) * np.finfo(np.float64).eps * np.abs(weights).sum())
