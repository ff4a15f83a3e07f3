"""What a pool is opened from: frames that are streamed to a file, arrays that are mapped, and the type computed in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.io.formats import Npy
from kofn.io.many import Several
from kofn.io.tables import Table


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that vectors are computed in."""
    return np.dtype(np.float64 if dtype.itemsize > 4 and dtype.kind == "f" else np.float32)


def finite_rows(vectors: Array, table: Table, column: str | None, start: int | None) -> Array:
    """The vectors of rows from `start` on, or of picked rows, where all are finite.

    Raises:
        InputError: one is not, naming the first.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(vectors.sum()):
            return vectors
    finite = np.isfinite(vectors)
    if finite.all():
        return vectors
    row, position = np.argwhere(~finite)[0].tolist()
    kind = "NaN" if np.isnan(vectors[row, position]) else "infinite"
    where = "one of the rows" if start is None else f"row {start + row}"
    raise InputError(
        f"{table.path} column {column!r} at {where}, column {position} is {kind}; drop or impute those rows first"
    )


def mapped(table: Table) -> list[Any] | None:
    """The memory maps of NPY files; None of others."""
    if not isinstance(table, Npy):
        return None
    arrays = [part._data for part in (table.parts if isinstance(table, Several) else [table])]
    if arrays[0].ndim != 2:
        table.vectors(table.columns[0])  # says so
    return None if arrays[0].dtype.kind in "US" else [array for array in arrays if len(array)]


def lazy(source: Any) -> pl.LazyFrame | None:
    """A frame, or what Arrow can read, as a lazy frame; None of names of files."""
    if isinstance(source, pl.LazyFrame):
        return source
    if isinstance(source, pl.DataFrame):
        return source.lazy()
    if type(source).__module__.startswith(("pyarrow.dataset", "pyarrow._dataset")):
        return pl.scan_pyarrow_dataset(source)
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source).lazy()
    if hasattr(source, "__array__") or not isinstance(source, str | os.PathLike | Sequence):
        raise InputError(
            f"source is a {type(source).__name__}; give names of files, a polars frame or an Arrow table, and arrays "
            "in memory as X"
        )
    return None
