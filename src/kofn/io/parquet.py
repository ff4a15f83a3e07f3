"""Parquet files as tables, read by row group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.pools import Fragment, Unit, joined
from kofn.io.parquet_counts import StatedCounts
from kofn.io.parquet_footer import metadata
from kofn.io.scanned import Scanned, collected, schema_of

# Rows of neighbouring row groups that are read together.
_RUN_ROWS = 1 << 15


class Parquet(Scanned):
    """A Parquet file. A row group is decoded as a whole, so it is read once and cut in memory."""

    def _open(self) -> pl.LazyFrame:
        footer = metadata(self.path)
        self.groups = footer.groups
        self._counts = StatedCounts(self.path, footer)
        self._counts.refuse_first_pages()
        scan = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        self.columns = schema_of(scan).names()
        self._starts = np.cumsum([0, *(group.rows for group in self.groups)])
        self.n = int(self._starts[-1])
        return scan

    def _column(self, name: str) -> pl.Series:
        self._counts.refuse_false_pages([name])
        return super()._column(name)

    def units(self) -> list[Unit]:
        """The row groups."""
        return [Unit(str(self.path), i, group.rows) for i, group in enumerate(self.groups)]

    def _runs(self, rows: int) -> list[Fragment]:
        """The row groups, small ones together."""
        return joined(self.units(), rows)

    def _read(self, run: Fragment, *columns: str) -> pl.DataFrame:
        """The rows of a run; slices are pushed down to the row groups that hold them, a stream would read ahead."""
        self._counts.refuse_false_pages(columns or None, self._groups_of(run.first_row, run.stop))
        scan = self._scan.select(columns) if columns else self._scan
        frame = collected(scan.slice(run.first_row, run.rows))
        if len(frame) != run.rows:
            raise InputError(f"{self.path} changed while it was read; run again")
        return frame

    def _groups_of(self, start: int, stop: int) -> range:
        """The row groups that hold the rows from start to stop."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        return range(max(first, 0), min(int(np.searchsorted(self._starts, stop)), len(self.groups)))

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        for run in self._runs(rows):
            series = self._read(run, name)[name]
            yield from (series[start : start + rows] for start in range(0, run.rows, rows))

    def _first_vector(self, name: str) -> pl.Series:
        self._counts.refuse_false_pages([name], self._groups_of(0, 1))
        head = collected(self._scan.select(pl.col(name)).slice(0, 1))[name]
        if not head.null_count():
            return head
        self._counts.refuse_false_pages([name])
        return collected(self._scan.select(pl.col(name)).filter(pl.col(name).is_not_null()).head(1))[name]

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        ordered, position = np.unique(wanted, return_inverse=True)
        parts = [pl.DataFrame(schema=self.types)]
        for run in self._runs(_RUN_ROWS):
            low, high = np.searchsorted(ordered, (run.first_row, run.stop))
            if low < high:
                parts.append(self._read(run)[ordered[low:high] - run.first_row])
        taken = pl.concat(parts)
        return taken[position] if len(position) else taken
