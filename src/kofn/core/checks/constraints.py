"""Checks of what restricts an answer: costs, ids, positions, capacities, margins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Ints
from kofn.core.checks.arrays import as_array, as_float, is_sparse, refuse_nonfinite, vector
from kofn.core.checks.errors import InputError
from kofn.core.checks.kinds import frame_kind, is_missing
from kofn.core.checks.numbers import count, is_number, shown


def costs(value: Any, name: str = "costs") -> Array:
    """Finite, non-negative (n,) costs; integers stay integers so that budgets are held exactly."""
    array = as_array(value, name)
    if array.ndim == 1 and array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        row = int(array.argmax())
        raise InputError(f"{name} at row {row} is {array[row]}; give whole numbers below 2^63, or floats")
    if array.ndim == 1 and array.dtype.kind in "iu" and len(array):
        array = array.astype(np.int64)
    else:
        array = vector(array, name).astype(np.float64)
    if array.min() < 0:
        row = int(array.argmin())
        raise InputError(f"{name} at row {row} is {array[row]:g}; costs must be >= 0 (a free item costs 0)")
    return array


def spread_costs(value: Any, shape: tuple[int, ...], name: str = "costs") -> Any:
    """The costs of a table's entries, row by row, from one cost an entry or one a column; of items as they are."""
    if len(shape) == 1 or is_sparse(value):
        return value
    array = as_array(value, name)
    if array.shape in (shape, shape[1:]):
        return np.broadcast_to(array, shape).reshape(-1)
    if array.shape != (shape[0] * shape[1],):
        raise InputError(f"{name} has shape {array.shape}; give one an entry, {shape}, or one a column, ({shape[1]},)")
    return array


def bounds(value: Any, name: str = "bounds") -> Array:
    """(1, 2) or (n, 2) the least and the most of all items, or of each; 0 and infinity where an end is open.

    Raises:
        InputError: another shape, text, a negative end, or a least above the most.

    Examples:
        >>> bounds((1, None)).tolist(), bounds([(0, 2), (1, 3)]).tolist()
        ([[1.0, inf]], [[0.0, 2.0], [1.0, 3.0]])
    """
    array = as_array(value, name)
    if array.dtype == object and array.size % 2 == 0:
        array = np.where([[end is None for end in pair] for pair in array.reshape(-1, 2)], np.nan, array.reshape(-1, 2))
    if array.shape[-1:] != (2,) or array.ndim > 2:
        raise InputError(f"{name} has shape {array.shape}; give (least, most), or one such pair for each item, (n, 2)")
    ends = np.array(as_float(array.reshape(-1, 2), name), np.float64)
    if not len(ends):
        raise InputError(f"{name} is empty; give (least, most), or one such pair for each item")
    ends = np.where(np.isnan(ends), (0.0, np.inf), ends)
    wrong = (ends < 0).any(axis=1) | np.isinf(ends[:, 0]) | (ends[:, 0] > ends[:, 1])
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{name} at row {row} is ({ends[row, 0]:g}, {ends[row, 1]:g}); give 0 <= least <= most, None where an end "
            "is open"
        )
    return ends


def spread_bounds(value: Any, n: int, name: str = "bounds") -> Array:
    """(n, 2) bounds of each item; 0 and infinity where none are given."""
    ends = np.array([[0.0, np.inf]]) if value is None else bounds(value, name)
    if len(ends) > 1:
        same_length(n, "the input", name, len(ends))
    return np.broadcast_to(ends, (n, 2))


def ids(value: Any, name: str = "ids") -> Array:
    """The user's keys, (n,), each once."""
    array = as_array(value, name)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} has shape {array.shape}; give one id an item, shape (n,)")
    if array.dtype.kind == "f":
        refuse_nonfinite(array, name)
    if array.dtype.kind in "Mm":
        array = _common_unit(array, name)
    if array.dtype == object:
        missing = next((row for row, key in enumerate(array) if is_missing(key)), None)
        if missing is not None:
            raise InputError(f"{name} at row {missing} is missing; give every item an id")
        if all(isinstance(key, str) for key in array):
            array = array.astype(str)
    order = np.argsort(array.astype(str) if array.dtype == object else array, kind="stable")
    ranked = array[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):
        first, second = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        key = array[first : first + 1].tolist()[0]
        raise InputError(f"{name} must differ: {key!r} stands at row {first} and at row {second}")
    return array


def _common_unit(array: Array, name: str) -> Array:
    """Dates and times in a unit that tables have too: days, milliseconds, or finer."""
    if np.isnat(array).any():
        raise InputError(f"{name} at row {int(np.isnat(array).argmax())} is missing; give every item an id")
    unit, _ = np.datetime_data(array.dtype)
    kind = array.dtype.kind
    if unit == "generic":
        raise InputError(f"{name} holds {array.dtype} without a unit; give one, as in astype('{kind}8[ms]')")
    if unit in ("ms", "us", "ns") or (unit == "D" and kind == "M"):
        return array
    if unit in ("Y", "M", "W", "D") and kind == "M":
        return array.astype("M8[D]")
    if unit in ("Y", "M"):
        raise InputError(f"{name} holds {array.dtype}, which is no fixed time; give days")
    return array.astype(f"{kind}8[{'ns' if unit in ('ps', 'fs', 'as') else 'ms'}]")


def keys_listed(value: Any, name: str) -> Array:
    """Ids or row numbers as a vector, from any container that holds one an item, or a mask of any shape.

    Raises:
        InputError: a table or an array of several columns, of which only one can hold the keys.
    """
    kind = frame_kind(value)
    if kind not in (None, "file"):
        columns = list(getattr(value, "columns", ())) if kind in ("pandas", "polars") else []
        if len(columns) != 1:
            of = f"{len(columns)} columns" if columns else "columns"
            column = columns[0] if columns else "id"
            raise InputError(f"{name} is a table of {of}; give the one of the ids or row numbers: frame[{column!r}]")
    if isinstance(value, set | frozenset):
        value = sorted(value, key=lambda item: (type(item).__name__, item))
    array = as_array(value, name)
    if array.dtype != bool and array.size and array.size != (array.shape or (1,))[0]:
        raise InputError(
            f"{name} has shape {array.shape}; give one id or row number an item, shape (m,), as in {name}[:, 0]"
        )
    return array.reshape(-1)


def positions(value: Any, name: str, n: int, keys: Array | None = None) -> Ints:
    """Positions of the named items: ids where ids were given, row numbers otherwise; each once, in order."""
    if hasattr(value, "indices") and hasattr(value, "gains"):
        value = value.indices if value.ids is None or keys is None else value.ids[value.indices]
    elif hasattr(value, "medoids"):
        value = value.medoids
    array = keys_listed(value, name)
    if len(array) == 0:
        return np.empty(0, np.int64)
    if keys is not None:
        table = {key: row for row, key in enumerate(keys.tolist())}
        if isinstance(next(iter(table)), str):
            array = array.astype(str)
        missing = [key for key in array.tolist() if key not in table]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(f"{name} names {shown(missing[0])}{more}, which no row has as its id")
        rows = np.array([table[key] for key in array.tolist()], np.int64)
    else:
        if array.dtype == bool and len(array) == n:
            rows = np.flatnonzero(array)
        elif array.dtype.kind not in "iu":
            raise InputError(f"{name} holds {shown(array.tolist()[0])}; give row numbers 0..{n - 1}, or pass ids")
        else:
            rows = array.astype(np.int64)
            out = (rows < 0) | (rows >= n)
            if out.any():
                raise InputError(f"{name} names row {rows[out][0]}; the rows are 0..{n - 1}")
    if len(np.unique(rows)) < len(rows):
        values, times = np.unique(rows, return_counts=True)
        raise InputError(f"{name} names row {values[times > 1][0]} more than once")
    return rows


def capacity(value: Any, name: str = "capacity") -> Array | int:
    """Items a bin can hold: one whole number for all bins, or (bins,)."""
    if is_number(value):
        return count(value, name, least=0)
    array = as_array(value, name)
    whole = array.ndim == 1 and len(array) > 0 and array.dtype.kind in "iuf" and (array == np.floor(array)).all()
    if not whole or (array >= 2**63).any():
        raise InputError(f"{name}={shown(value)}: give one whole number, or one for each bin")
    if array.min() < 0:
        raise InputError(f"{name} of bin {int(array.argmin())} is {array.min():g}; it must be >= 0")
    return array.astype(np.int64)


def margins(value: Any, name: str = "margins") -> tuple[Array, Array]:
    """(row totals, column totals): two finite vectors >= 0 in float64 whose sums agree, and are not 0."""
    known = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if isinstance(value, str | bytes | Mapping) or not known or len(value) != 2:
        raise InputError(f"{name}={type(value).__name__}: give two vectors, (row totals, column totals)")
    sides = []
    slack = 1e-9
    for side, given in zip(("row totals", "column totals"), value, strict=True):
        totals = vector(given, f"{name}: {side}")
        if totals.dtype == np.float32:  # narrow totals add up to their own rounding
            slack = max(slack, float(np.finfo(np.float16 if _is_half(given) else np.float32).eps) * 8)
        totals = totals.astype(np.float64)
        if totals.min() < 0:
            row = int(totals.argmin())
            raise InputError(f"{name}: {side} at row {row} is {totals[row]:g}; give totals >= 0")
        sides.append(totals)
    rows, columns = (math.fsum(totals.tolist()) for totals in sides)
    if not math.isclose(rows, columns, rel_tol=slack):
        raise InputError(
            f"{name} do not add up: the row totals sum to {rows:.9g}, the column totals to {columns:.9g}; "
            f"scale one side to the other"
        )
    if rows == 0:
        raise InputError(f"{name} are all zero: there is nothing to share; give a positive total")
    return sides[0], sides[1] if slack == 1e-9 else sides[1] * (rows / columns)


def _is_half(given: Any) -> bool:
    return str(getattr(given, "dtype", "")).endswith("float16")


def same_length(n: int, source: str, name: str, length: int) -> None:
    """Refuse a qualifier whose length is not the pool's."""
    if length != n:
        raise InputError(f"{name} has {length} values, {source} has {n} rows; give one value an item")
