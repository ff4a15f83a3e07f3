"""Checks of curves: losses or values by level, infinite where an item may not have the level."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks.arrays import matrix
from kofn.core.checks.errors import InputError
from kofn.core.checks.numbers import is_number, shown

# Below this, sums are finite.
_SMALL = 1e300


def are_functions(value: Any) -> bool:
    """Whether curves are functions of the amount, one an item."""
    listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object)
    return bool(listed and len(value) and all(callable(curve) for curve in value))


def at_levels(value: Any, levels: Any, name: str = "curves") -> Any:
    """(n, L) functions read at the levels; what is no list of functions as it is.

    Raises:
        InputError: there are no levels to read them at.

    Examples:
        >>> at_levels([lambda x: 2 * x, lambda x: x * x], [0, 1, 3]).tolist()
        [[0.0, 2.0, 6.0], [0.0, 1.0, 9.0]]
    """
    if not are_functions(value):
        return value
    if levels is None:
        raise InputError(
            f"{name} are functions; give levels=[...], the amounts to read them at, or method='water_filling' for "
            "amounts of any size"
        )
    amounts = np.asarray(levels)
    if amounts.ndim not in (1, 2) or (amounts.ndim == 2 and len(amounts) != len(value)):
        raise InputError(
            f"levels has shape {amounts.shape}; give (L,), or a row of levels for each of {len(value)} curves"
        )
    rows = np.broadcast_to(amounts, (len(value), amounts.shape[-1]))
    return np.array([[float(curve(level)) for level in row] for curve, row in zip(value, rows.tolist(), strict=True)])


def curves(value: Any, name: str = "curves") -> Array:
    """(n, levels) losses or values, whose sum over the items is finite; infinite where a level is not allowed."""
    if are_functions(value):
        made = np.empty(len(value), object)
        made[:] = value
        return made
    several = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if several and len(value) and is_number(value[0]):
        raise InputError(
            f"{name} has shape ({len(value)},), one number an item, and a curve has one for each level; give "
            "(n, levels), or to share whole units in proportion to them scores=... and method='sainte_lague' (or "
            "dhondt, ..)"
        )
    array = matrix(value, name, finite=False)
    if array.size and np.isfinite(top := float(np.abs(array).max())) and top * len(array) < _SMALL:
        return array  # nothing is missing, infinite or too large
    missing = np.isnan(array)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        more = f" ({int(missing.sum())} such values)" if missing.sum() > 1 else ""
        raise InputError(
            f"{name} at row {row}, column {column} is NaN{more}; fill it, or where the item may not have that level "
            "give inf for a loss, -inf for a value"
        )
    with np.errstate(over="ignore"):
        sizes = np.abs(array.astype(np.float64))
        sizes[np.isinf(sizes)] = 0.0
        if not np.isfinite(sizes.max(axis=1).sum()):
            raise InputError(f"{name} holds values up to {sizes.max():.3g}, whose sum overflows; scale them down")
    return array


def forbidden_levels(curves: Array, sense: str, ids: Sequence[Any] | Array | None = None) -> NDArray[np.bool_]:
    """(n, levels) which levels an item may not have: those of infinite loss, or of a value of minus infinity.

    Args:
        curves: (n, levels) losses, or values with `sense="max"`.
        sense: "min" or "max".
        ids: what the items are called, by which a refusal names one.

    Raises:
        InputError: infinity of the other sign, or an item that may have no level at all.

    Examples:
        >>> forbidden_levels(np.array([[3.0, np.inf], [2.0, 1.0]]), "min").tolist()
        [[False, True], [False, False]]
    """
    worst = -np.inf if sense == "max" else np.inf
    wrong = curves == -worst
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        more = f" ({int(wrong.sum())} such values)" if wrong.sum() > 1 else ""
        raise InputError(
            f"curves at row {row}, column {column} is infinite{more}, {-worst:g}, which no level can be with "
            f"sense={sense!r}; for a level that the item may not have give {worst:g}"
        )
    forbidden: NDArray[np.bool_] = curves == worst
    nothing = forbidden.all(axis=1)
    if nothing.any():
        row = int(nothing.argmax())
        called = "" if ids is None else f" ({shown(np.asarray(ids)[row].item())})"
        raise InputError(
            f"curves at row {row}{called} allows no level, all are {worst:g} or empty; give it one level at least, or "
            "leave the row out"
        )
    return forbidden


def without_empty_levels(value: Any, sense: Any) -> Any:
    """A frame of curves whose empty cells say that an item may not have that level; anything else as it is.

    Empty is a null, and in pandas NaN too, which is how pandas keeps an empty cell.

    Examples:
        >>> import polars
        >>> without_empty_levels(polars.DataFrame({"2": [1.0, None]}), "min")["2"].to_list()
        [1.0, inf]
    """
    if not hasattr(value, "columns") or not ({"polars", "pandas", "pyarrow"} & sys.modules.keys()):
        return value
    import narwhals

    frame = narwhals.from_native(value, eager_only=True, pass_through=True)
    if not isinstance(frame, narwhals.DataFrame):
        return value
    # Not by name: in pandas one may be a number, which would be taken for a position.
    gaps = [column for column in frame.iter_columns() if column.dtype.is_numeric() and column.is_null().any()]
    if not gaps:
        return value
    worst = -np.inf if sense == "max" else np.inf
    return frame.with_columns(*(column.cast(narwhals.Float64).fill_null(worst) for column in gaps)).to_native()
