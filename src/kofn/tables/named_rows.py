"""The keys of rows that `include`, `exclude` and `start` name: typed, in files, in plans, or in a table of picks."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, plans
from kofn.core.checks import InputError, nearest, shown
from kofn.core.checks.kinds import frame_kind
from kofn.core.lazy import polars as pl
from kofn.io.frames import FrameTable
from kofn.io.opening import open_table
from kofn.io.tables import Table
from kofn.tables.arguments import KeysOf
from kofn.tables.read import TABLES, is_file, lines_of

_PLANS = (".npz", ".kofn")
# Columns that the command writes beside the rows: none holds ids.
_OURS = tuple(f"{prefix}{name}" for name in ("row", "rank", "gain") for prefix in ("", "kofn_"))


class NamedRows:
    """Reads the keys that one word names, of the type of the pool's ids (or row numbers, where it has none).

    Args:
        option: the word, without dashes.
        pool: the table whose rows are named.
        ids: the pool's ids.
        id_column: the column that holds them.
    """

    def __init__(self, option: str, pool: Table, ids: NDArray[Any] | None, id_column: str | None) -> None:
        self.option, self.pool, self.ids, self.id_column = option, pool, ids, id_column

    def read(self, value: Any) -> NDArray[Any]:
        """The keys of `a,b,c`, a file with one a line, a saved plan, an earlier output, or several of these as
        `KeysOf`; in Python of a table, keys, a mask or a plan too."""
        if isinstance(value, PurePath):
            value = str(value)
        if isinstance(value, str | KeysOf):
            parts = [value] if isinstance(value, str) else value
            named = [key for part in parts for key in self._typed(part)]
        elif frame_kind(value) is not None:
            named = self._of_frame(value)
        else:
            named = self._of_values(value)
        if self.ids is not None and self.ids.dtype.kind not in "iu":
            return np.array(named, dtype=str)
        return np.array([self._number(key) for key in named], np.int64)

    def _number(self, key: Any) -> int:
        try:
            number = int(key)
        except ValueError:
            why = "say which column holds the ids with --id" if self.ids is None else "the ids are whole numbers"
            raise InputError(f"--{self.option} names {shown(key)}, which no row has as its id; {why}") from None
        if not -(2**63) <= number < 2**63:
            raise InputError(f"--{self.option} names {shown(key)}, which no row has as its number or id; correct it")
        return number

    def _of_values(self, value: Any) -> list[Any]:
        """The keys that a value of Python's names: a plan, a mask of the rows, or keys."""
        if isinstance(value, plans.Plan):
            chosen = value.indices if isinstance(value, plans.Selection) else getattr(value, "medoids", None)
            if chosen is None:
                raise InputError(f"--{self.option} is a {type(value).__name__} without picks; give a Selection or ids")
            return list(value.keys(chosen).tolist())
        array = checks.keys_listed(value, self.option)
        if array.dtype == bool:
            rows = np.flatnonzero(array)
            return list((rows if self.ids is None else self.ids[rows]).tolist())
        return list(array.tolist())

    def _typed(self, text: str) -> list[str]:
        path = Path(text)
        suffix = path.suffix.lower()
        if not is_file(path):
            if suffix in (".txt", *TABLES, *_PLANS):
                raise InputError(f"--{self.option} {text}: no such file")
            return [part.strip() for part in text.split(",") if part.strip()]
        if suffix in _PLANS:
            plan = plans.Plan.load(path)
            if not isinstance(plan, plans.Selection):
                raise InputError(f"--{self.option} {text} holds a {type(plan).__name__}; give a Selection")
            return [str(key) for key in plan.keys(plan.indices).tolist()]
        if suffix in TABLES:
            return [str(key) for key in self._of_table(open_table(path), f"--{self.option} {text}")]
        return lines_of(text, self.option)

    def _of_frame(self, frame: Any) -> list[Any]:
        """The keys that a table in memory holds; one without rows names none."""
        where = f"--{self.option}"
        kind = frame_kind(frame)
        if kind in ("pandas", "polars") and len(frame) == 0:
            return []
        more = {}
        if kind == "pandas" and self.id_column is not None and self.id_column not in frame.columns:
            counts = frame.index.dtype.kind in "iu" and (np.asarray(frame.index) == np.arange(len(frame))).all()
            if str(frame.index.name or "index") == self.id_column and not counts:
                more = {self.id_column: frame.index.to_series().reset_index(drop=True)}
        try:
            table = FrameTable(frame, more=more)
        except InputError as error:
            raise InputError(re.sub(r"^X\b", where, str(error))) from None
        table.path = Path(where)
        return self._of_table(table, where)

    def _of_table(self, table: Table, where: str) -> list[Any]:
        """The keys of a table's rows; of one that says which rows were picked, the keys of these alone."""
        picked = _picked(table)
        keys = table.ids(self._column_of(table, where))
        if picked is None:
            return list(keys.tolist())
        of = where.removeprefix("--")
        checks.warn(f"{of} holds {table.n:,} rows, of which the {int(picked.sum()):,} with a rank are taken")
        return list(keys[picked].tolist())

    def _column_of(self, table: Table, where: str) -> str:
        """The column of keys: that of the pool's ids, else our own row numbers, else the only one.

        Raises:
            InputError: none of these is there; the first of several columns may hold anything.
        """
        # Beside a column `row` of the pool's own, ours is called so.
        name = self.id_column or ("kofn_row" if "kofn_row" in table.columns else "row")
        if name in table.columns:
            return name
        # Another column of the pool's own holds no keys, such as a score, or ids that nobody named.
        taken = (*_OURS, *self.pool.columns)
        if len(table.columns) == 1 and table.columns[0] not in taken:
            return table.columns[0]
        hint = "" if self.id_column else " of row numbers; say which column of both holds the ids with --id"
        if isinstance(table, FrameTable):
            keys = next((column for column in table.columns if column not in _OURS), "id")
            hint += f"{', or' if hint else ';'} give the column itself, as {self.option}=frame[{keys!r}]"
        raise InputError(f"{where} has no column {name!r}{nearest(name, table.columns)}{hint}")


def _picked(table: Table) -> NDArray[np.bool_] | None:
    """Which rows of a table have a rank; None where it has no ranks, or every row has one."""
    name = next((name for name in ("kofn_rank", "rank") if name in table.columns), None)
    if name is None:
        return None
    column = table.column(name)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    ranked = column.is_not_null() if column.dtype != pl.String else (column.str.strip_chars() != "").fill_null(False)
    mask = ranked.to_numpy()
    return None if mask.all() else mask
