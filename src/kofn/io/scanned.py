"""A table behind polars: what of a file is read lazily and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.panics import without_reports
from kofn.io.reading import Reading
from kofn.io.tables import Table

_ROW = "__kofn_row__"


def collected(scan: pl.LazyFrame) -> pl.DataFrame:
    """The whole of a scan."""
    with without_reports():
        return scan.collect(engine="streaming")


def batches_of(scan: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """A scan in blocks of about so many rows, in order."""
    batches = iter(scan.collect_batches(chunk_size=rows, maintain_order=True))
    while True:
        with without_reports():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def schema_of(scan: pl.LazyFrame) -> pl.Schema:
    """The columns of a scan and their types."""
    with without_reports():
        return scan.collect_schema()


class Scanned(Table):
    """A file that polars streams."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = self.source = path
        self.reading = reading
        self._scan = self._open()

    def _open(self) -> pl.LazyFrame:
        raise NotImplementedError

    def _column(self, name: str) -> pl.Series:
        return collected(self._scan.select(pl.col(name)))[name]

    def _dtype(self, name: str) -> pl.DataType:
        return schema_of(self._scan)[name]

    @property
    def types(self) -> dict[str, pl.DataType]:
        return dict(schema_of(self._scan))

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        ordered, position = np.unique(wanted, return_inverse=True)
        rows = pl.Series(ordered).implode()
        scan = self._scan.with_row_index(_ROW).filter(pl.col(_ROW).cast(pl.Int64).is_in(rows))
        taken = collected(scan).sort(_ROW).drop(_ROW)
        if len(taken) != len(ordered):
            raise InputError(f"{self.path} changed while it was read; run again")
        return taken[position] if len(position) else taken

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        for block in batches_of(self._scan.select(pl.col(name)).head(self.n), rows):
            yield block[name]
