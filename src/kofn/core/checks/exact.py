"""Numbers that double precision would round: whole numbers beyond 2**53, long decimals and fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats
from kofn.core.checks.errors import InputError
from kofn.core.checks.kinds import is_missing

# Whole numbers up to this are floats; beyond, floats round them.
WHOLE = 2**53
# How far rounding may move a number, as a share of its column's spread.
_ROUNDING = 1e-9


def exact_rows(given: Any, floats: Array) -> Array:
    """The rows to tell apart: those that were given, where they are whole numbers that floats round, else the floats.

    >>> [exact_rows(np.array([[x]]), np.array([[float(x)]])).dtype.name for x in (2**62, 3)]
    ['int64', 'float64']
    """
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu" or given.dtype.itemsize < 8:
        return floats
    if given.shape != floats.shape or not np.abs(floats).max(initial=0.0) >= WHOLE:
        return floats
    return given


def whole_as_floats(array: Array, name: str) -> Floats:
    """Numbers as float64, where rounding those beyond 2**53 leaves their differences as they are.

    Raises:
        InputError: it does not: unlike numbers become one, or move by a billionth of the column's spread.
    """
    floats = array.astype(np.float64)
    if array.dtype.kind == "b" or array.dtype.itemsize < 8 or not array.size:
        return floats
    if not np.abs(floats).max(initial=0.0, where=np.isfinite(floats)) >= WHOLE:
        return floats
    if array.ndim == 0:
        return floats
    columns = array.reshape(len(array), -1)
    for j, rounded in enumerate(floats.reshape(len(array), -1).T):
        known = rounded[np.isfinite(rounded)]
        moved = _moves(columns[:, j].tolist(), rounded.tolist())
        if len(known) and max(map(abs, moved)) > _ROUNDING * float(known.max() - known.min()) and len(set(moved)) > 1:
            row = max(range(len(moved)), key=lambda index: abs(moved[index]))
            raise InputError(
                f"{name} holds {columns[row, j]} at row {row}, which double precision rounds to {int(rounded[row])}: "
                f"too far for its differences to the others; subtract the smallest first, as in {name} - {name}.min()"
            )
    return floats


def _moves(exact: list[Any], rounded: list[float]) -> list[Any]:
    """By how much rounding moved each number; of what is missing, infinite or a float itself not at all."""
    if all(isinstance(value, int) for value in exact):
        return [int(as_float) - value for value, as_float in zip(exact, rounded, strict=True)]
    return [
        0
        if is_missing(value) or isinstance(value, float | np.floating) or not np.isfinite(as_float)
        else Fraction(as_float) - Fraction(value)
        for value, as_float in zip(exact, rounded, strict=True)
    ]
