"""Rows of a table that agree in every column."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core.checks import InputError

_ROUNDING = 1e-9  # numbers this near to each other, as a share of their size, are the same


def as_frame(columns: Any) -> pl.DataFrame:
    """A frame, or a mapping from names to values, with at least one column and one row."""
    frame = columns if isinstance(columns, pl.DataFrame) else pl.DataFrame({name: columns[name] for name in columns})
    if not frame.width or not frame.height:
        raise InputError("columns is empty; name at least one column of a table with rows")
    return frame


def equal_rows(frame: pl.DataFrame, order: NDArray[np.int64], forced: int) -> NDArray[np.int64]:
    """For each row of `order` its earliest that agrees with it in every column, -1 for a row that stays.

    Args:
        frame: the columns that are compared.
        order: row numbers in the order in which rows are preferred.
        forced: how many of the first stay in any case.
    """
    codes = np.stack([_codes(frame[name]) for name in frame.columns], axis=1)[order]
    _, first, same = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    of = first[same.ravel()].astype(np.int64)
    of[of == np.arange(len(order))] = -1
    of[:forced] = -1
    return of


def _codes(column: pl.Series) -> NDArray[np.int64]:
    """A number for each different value, the same for numbers that only rounding tells apart."""
    if column.null_count():
        raise InputError(
            f"column {column.name!r} at row {column.is_null().arg_max()} is empty; fill or drop those rows"
        )
    if not column.dtype.is_float():
        return column.rank("dense").to_numpy().astype(np.int64)
    values, inverse = np.unique(column.to_numpy(), return_inverse=True)
    size = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    new = np.diff(values) > _ROUNDING * size
    return np.concatenate(([0], np.cumsum(new)))[inverse]
