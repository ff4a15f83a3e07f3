"""Parquet files as tables, read by row group."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.core.pools import Fragment, Unit, joined
from kofn.io.parquet_counts import StatedCounts
from kofn.io.parquet_footer import metadata
from kofn.io.parquet_pages import PagedColumn
from kofn.io.scanned import Scanned, collected, schema_of
from kofn.io.tables import reading_file

# Rows of neighbouring row groups that are read together.
_RUN_ROWS = 1 << 15


class Parquet(Scanned):
    """A Parquet file. A row group is decoded as a whole, so it is read once and cut in memory; vectors lie in pages."""

    _widths: Mapping[str, int] = MappingProxyType({})

    def _open(self) -> pl.LazyFrame:
        footer = metadata(self.path)
        self.groups = footer.groups
        self._counts = StatedCounts(self.path, footer)
        self._counts.refuse_first_pages()
        scan = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        self.columns = schema_of(scan).names()
        self._columns_in_pages: dict[tuple[str, int], PagedColumn] = {}
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

    def _paged(self, name: str, width: int) -> PagedColumn:
        """Where the pages of a column of vectors lie."""
        if (name, width) not in self._columns_in_pages:
            self._columns_in_pages[name, width] = PagedColumn(self.path, name, width)
        return self._columns_in_pages[name, width]

    def rows_at_once(self, name: str, width: int) -> list[int]:
        """Of each row group how many rows at least are decoded to read any: those of a page, or all."""
        paged = self._paged(name, width)
        sizes = [paged.page_rows(group) for group in range(len(self.groups))]
        return [group.rows if size is None else size for group, size in zip(self.groups, sizes, strict=True)]

    def vector_rows(self, name: str, width: int, run: Fragment) -> pl.Series:
        """The vectors of a run of rows: of whole row groups together, of parts of one by the pages that hold them."""
        parts, first, whole = [], 0, [run.first_row, run.first_row]
        for index, group in enumerate(self.groups):
            low, high = max(run.first_row - first, 0), min(run.stop - first, group.rows)
            if low < high:
                series = self._excerpt(name, width, index, low, high) if high - low < group.rows else None
                if series is not None:
                    parts += [*self._read_between(name, run, *whole), series]
                    whole[0] = first + high
                whole[1] = first + high
            first += group.rows
        parts += self._read_between(name, run, *whole)
        return parts[0] if len(parts) == 1 else pl.concat(parts)

    def _read_between(self, name: str, run: Fragment, start: int, stop: int) -> list[pl.Series]:
        """A column of the rows from start to stop, if there are any, as lists, as pages are read too."""
        if start == stop:
            return []
        series = self._read(Fragment(run.source, run.part, start, stop - start), name)[name]
        return [series.arr.to_list() if series.dtype == pl.Array else series]

    def _excerpt(self, name: str, width: int, group: int, low: int, high: int) -> pl.Series | None:
        """Rows of a group by their pages; None where the pages do not say where rows begin."""
        excerpt = self._paged(name, width).excerpt(group, low, high)
        if excerpt is None:
            return None
        self._counts.refuse_false_pages([name], [group])
        data, first, rows = excerpt
        series = collected(pl.scan_parquet(io.BytesIO(data)))[name]
        return series[low - first : high - first] if len(series) == rows else None

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
        taken = pl.concat(self._taken_by_runs(ordered))
        return taken[position] if len(position) else taken

    def take_by_runs(self, rows: NDArray[np.int64]) -> Iterator[pl.DataFrame]:
        """What `take` gives of rows that rise, a run of row groups at a time; an empty frame comes first."""
        with reading_file(self.path):
            yield from self._taken_by_runs(rows)

    def _taken_by_runs(self, rows: NDArray[np.int64]) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame(schema=self.types)
        for run in self._runs(_RUN_ROWS):
            low, high = np.searchsorted(rows, (run.first_row, run.stop))
            if low < high:
                yield self._picked(run, rows[low:high])

    def _picked(self, run: Fragment, rows: NDArray[np.int64]) -> pl.DataFrame:
        """Rows of a run, rising; large columns of vectors of a known length by their pages."""
        widths = [(name, self._width_of(name)) for name in self.columns]
        paged = {name: width for name, width in widths if width and self._is_paged(name, width)}
        plain = [name for name in self.columns if name not in paged]
        columns = self._read(run, *plain)[rows - run.first_row].to_dict() if plain else {}
        for name, width in paged.items():
            columns[name] = self._picked_vectors(name, width, run, rows)
        return pl.DataFrame([columns[name] for name in self.columns])

    def _is_paged(self, name: str, width: int) -> bool:
        """Whether vectors are read by pages that are much smaller than the row groups."""
        return max(self.rows_at_once(name, width), default=0) <= _RUN_ROWS < max(unit.rows for unit in self.units())

    def _picked_vectors(self, name: str, width: int, run: Fragment, rows: NDArray[np.int64]) -> pl.Series:
        parts = []
        for start in range(run.first_row, run.stop, _RUN_ROWS):
            stop = min(start + _RUN_ROWS, run.stop)
            inside = rows[(rows >= start) & (rows < stop)]
            if len(inside):
                piece = self.vector_rows(name, width, Fragment(run.source, run.part, start, stop - start))
                parts.append(piece[inside - start].cast(self.types[name]))
        return pl.concat(parts)

    def know_width(self, name: str, width: int) -> None:
        """All vectors of a column are of this length, or it is refused."""
        self._widths = {**self._widths, name: width}

    def _width_of(self, name: str) -> int | None:
        """The length of all vectors of a column, where it has one and that is known."""
        kind = self.types[name]
        if isinstance(kind, pl.Array) and len(kind.shape) == 1:
            return int(kind.shape[0]) or None
        return self._widths.get(name)
