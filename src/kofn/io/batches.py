"""Rows of numbers from a file, block by block: a file larger than memory is read once, in its own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError, refuse_nonfinite
from kofn.io.opening import open_table
from kofn.io.tables import Table


def row_batches(
    path: str | PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    vectors: str | None = None,
    rows: int = 8192,
) -> Iterator[NDArray[Any]]:
    """Blocks (m, d) of a file's rows, in order; memory for a few blocks, whatever the file's size.

    Args:
        path: NPY (memory-mapped), NPZ (its array is read whole), Parquet (by row group), CSV, TSV or JSONL.
        columns: columns of numbers, unchanged.
        vectors: a column or array of vectors. With neither, an NPY file gives its array and a table its only column of
            vectors, or, where it has none, all its columns of numbers.
        rows: the most rows of a block.

    Yields:
        Floating arrays; vectors keep their precision, columns of numbers become float64.

    Raises:
        InputError: an unknown column, a value that is missing or not a finite number (with its row), no numbers at all.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.csv"
    >>> pl.DataFrame({"name": ["a", "b", "c"], "x": [1, 2, 3], "y": [0.5, 1.5, 2.5]}).write_csv(path)
    >>> [block.tolist() for block in row_batches(path, rows=2)]
    [[[1.0, 0.5], [2.0, 1.5]], [[3.0, 2.5]]]
    """
    rows = checks.count(rows, "rows")
    with checks.reading("columns", columns):
        columns = None if columns is None else list(columns)
    if columns and vectors:
        raise InputError("columns and vectors were given together; give one of them")
    table = open_table(path)
    if vectors is None and not columns:
        vectors, columns = _all_numbers(table)
    if vectors is not None:
        yield from _vectors(table, table.require(vectors), rows)
    else:
        yield from _columns(table, [table.require(name) for name in columns or ()], rows)


def _all_numbers(table: Table) -> tuple[str | None, list[str] | None]:
    kinds = {name: table.dtype(name) for name in table.columns}
    vectors = [name for name, kind in kinds.items() if kind == "vector"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    if len(vectors) == 1:
        return vectors[0], None
    if vectors:
        raise InputError(f"{table.path} has several columns of vectors ({', '.join(vectors)}); name one as vectors")
    if not numbers:
        raise InputError(f"{table.path} has no column of numbers or vectors; make vectors of it first")
    return None, numbers


def _vectors(table: Table, name: str, rows: int) -> Iterator[NDArray[Any]]:
    done, width = 0, None
    for series in table.blocks(name, rows):
        # A reader may give larger blocks than requested.
        for low in range(0, len(series), rows):
            part = series[low : low + rows]
            block = table._vector_block(name, part, done, width)
            _refuse(block, table, name, done)
            width = block.shape[1]
            done += len(block)
            yield block


def _columns(table: Table, names: list[str], rows: int) -> Iterator[NDArray[Any]]:
    """Columns side by side, each read in blocks of its own size."""
    done = 0
    readers = [table.blocks(name, rows) for name in names]
    unread = [pl.Series(name, [], pl.Null) for name in names]
    while done < table.n:
        size = min(rows, table.n - done)
        parts = []
        for i, reader in enumerate(readers):
            while len(unread[i]) < size:
                block = next(reader, None)
                if block is None:
                    raise InputError(f"{table.path} changed while it was read; run again")
                unread[i] = block if not len(unread[i]) else pl.concat([unread[i], block])
            parts.append(_numbers(unread[i][:size], table, names[i], done))
            unread[i] = unread[i][size:]
        yield np.column_stack(parts)
        done += size


def _numbers(series: pl.Series, table: Table, name: str, start: int) -> NDArray[np.float64]:
    if series.null_count():
        row = start + (series.is_null().arg_max() or 0)
        raise InputError(f"{table.path} column {name!r} at row {row} is empty; {table.reading.drop}")
    values = series.cast(pl.Float64, strict=False)
    if values.null_count():
        row = values.is_null().arg_max() or 0
        raise InputError(f"{table.path} column {name!r} at row {start + row} is {series[row]!r}, which is not a number")
    array = values.to_numpy()
    _refuse(array, table, name, start)
    return array


def _refuse(block: NDArray[Any], table: Table, name: str, start: int) -> None:
    if not np.isfinite(block).all():
        row = start + int(np.argwhere(~np.isfinite(block))[0][0])
        refuse_nonfinite(block, f"{table.path} column {name!r}, in the block from row {start} (row {row} of the file),")
