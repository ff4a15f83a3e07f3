"""Vectors of a column of Parquet, decoded by row groups or by pages, as few of them as the rows need."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.pools import Fragment, Unit, joined
from kofn.io.parquet import Parquet
from kofn.io.pool_sources import finite_rows
from kofn.io.tables import reading_file

# Rows of neighbouring row groups that are read together to take rows from them.
_RUN_ROWS = 1 << 15
# Bytes of vectors from which on a row group that is not read by pages is decoded in two halves: an eighth slower, and
# the vectors of half of it less in memory. All of it is read and unpacked each time, so more pieces would take longer
# than they save.
_HALVED_BYTES = 1 << 27
# Bytes of vectors that are decoded at once of one that is read by pages, where its pages are no larger than half.
_PIECE_BYTES = 1 << 23


class DecodedRows:
    """The vectors of a column, a run of rows at a time; what was decoded last is kept.

    Args:
        table: the file or files.
        column: its name.
        width: of the vectors.
        dtype: that they are computed in.
    """

    def __init__(
        self,
        table: Parquet,
        column: str,
        width: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._table, self._column, self._width, self._dtype = table, column, width, dtype
        self._decoded: tuple[Fragment, Array] | None = None

    @cached_property
    def _pieces(self) -> list[Unit]:
        """What is decoded at once: runs of pages, or row groups where pages are large or have no whole rows."""
        size = self._width * self._dtype.itemsize
        piece, most = min(_RUN_ROWS, _PIECE_BYTES // size), _HALVED_BYTES // size
        pieces: list[Unit] = []
        for unit, rows in zip(self._table.units(), self._table.rows_at_once(self._column, self._width), strict=True):
            count = -(-unit.rows // piece) if rows < unit.rows and 2 * rows <= piece else 1 + (unit.rows > most)
            edges = [unit.rows * i // count for i in range(count + 1)]
            pieces += [Unit(unit.source, unit.part, high - low) for low, high in pairwise(edges) if high > low]
        return pieces

    @cached_property
    def _groups(self) -> list[Fragment]:
        """The same with the numbers of their rows."""
        return joined(self._pieces, 0)

    @property
    def runs(self) -> list[Fragment]:
        """Neighbours that are read together to take rows from them."""
        return joined(self._pieces, _RUN_ROWS)

    def rows(self, start: int, stop: int) -> Array:
        """Some rows: whole row groups as they are, a part of one from the group, which is kept for the next part."""
        units = [unit for unit in self._groups if unit.first_row < stop and unit.stop > start]
        if units[0].first_row == start and units[-1].stop == stop:
            self._decoded = None
            return self._decode(Fragment(units[0].source, units[0].part, start, stop - start))
        # Copies, so that the whole group can be let go.
        parts = [self.group(unit)[max(start - unit.first_row, 0) : stop - unit.first_row].copy() for unit in units]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def group(self, run: Fragment) -> Array:
        """The vectors of a run of row groups; the last one is kept."""
        if self._decoded is None or self._decoded[0] != run:
            self._decoded = None  # two at once would be in memory
            self._decoded = (run, self._decode(run))
        return self._decoded[1]

    def _decode(self, run: Fragment) -> Array:
        table = self._table
        with reading_file(table.path):
            series = table.vector_rows(self._column, self._width, run)
            vectors = table._vector_block(self._column, series, run.first_row, self._width)
        return finite_rows(vectors.astype(self._dtype, copy=False), table, self._column, run.first_row)
