"""A table behind polars: what of a file is read lazily and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.panics import without_reports
from kofn.io.reading import Reading
from kofn.io.tables import Table

_ROW = "__kofn_row__"
# Once more than so many columns were asked for one by one, those that follow are read with them, up to so many cells.
_ONE_BY_ONE, _CELLS_AHEAD = 16, 1 << 22


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

    # How many columns were asked for one by one, and those that were read with the last of them.
    _asked = 0
    _ahead: Mapping[str, pl.Series] = MappingProxyType({})

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = self.source = path
        self.reading = reading
        self._scan = self._open()

    def _open(self) -> pl.LazyFrame:
        raise NotImplementedError

    def _column(self, name: str) -> pl.Series:
        return self._with_those_after(name, lambda names: collected(self._scan.select(names)))

    def _with_those_after(self, name: str, read: Callable[[list[str]], pl.DataFrame]) -> pl.Series:
        """A column of a file that is read as a whole for each: the columns that follow come with it where many are
        asked for, since 20,000 of them would take hours."""
        if name not in self._ahead:
            self._asked += 1
            if self._asked <= _ONE_BY_ONE:
                return read([name])[name]
            first = self._position[name]
            count = max(1, _CELLS_AHEAD // max(1, self.n))
            self._ahead = {series.name: series for series in read(self.columns[first : first + count])}
        return self._ahead[name]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.columns)}

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
