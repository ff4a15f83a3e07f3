"""Several files of one kind as one table: its rows are those of the first file, then those of the second, and so on.

A glob or a folder stands for its files in the order of their names. `open_tables` reads them exactly as it would read
one file with all the rows: what a column of text holds is decided by all cells, whatever file they are in.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob as expanded
from glob import has_magic
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.core.pools import Fragment, Unit
from kofn.io import json_lines
from kofn.io.cells import typed_cells
from kofn.io.formats import Delimited, JsonLines, Npy, Npz, Tabbed
from kofn.io.opening import open_table
from kofn.io.parquet import Parquet
from kofn.io.reading import COMPRESSED, Reading, suffix_of
from kofn.io.suffixes import remedy_of
from kofn.io.tables import SUFFIXES, Table, reading_file

# A folder of such a name holds rows that have this value in this column.
_KEY = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# Row numbers in a message, and how many of them are looked up.
_ROW = re.compile(r"\brows? (\d[\d,]*)(?: and (?:row )?(\d[\d,]*))?")
_SHOWN_ROWS = 2
# How messages begin that are on the rows and do not name the table.
_OF_ROWS = ("ids", "column ", "costs", "weights", "groups", "scores")


def files_of(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that names, globs and folders stand for: those of a glob or a folder in the order of their names.

    Of a folder, and the folders in it, all files of a kind that is read count, but names that begin with "." or "_".

    Raises:
        InputError: none is named, nothing is there, or a file is named twice.
    """
    if not sources:
        raise InputError("no file is named; give files, a glob or a folder")
    files = list(chain.from_iterable(_files_of(os.fspath(source)) for source in sources))
    twice = [path for path, count in Counter(files).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]} is named twice; name each file once")
    return files


def _files_of(source: str) -> list[Path]:
    where = Path(source)
    if where.is_dir():
        files = sorted(
            path
            for path in where.rglob("*")
            if path.is_file() and _is_table(path) and not any(p[0] in "._" for p in path.relative_to(where).parts)
        )
        if not files:
            raise InputError(f"{where} is a folder without a table in it; give a folder of {', '.join(SUFFIXES)} files")
        return files
    if where.exists() or not has_magic(source):
        return [where]
    files = sorted(path for path in map(Path, expanded(source, recursive=True)) if path.is_file())
    if not files:
        raise InputError(f"{source}: no file is called so{remedy_of(where) or '; check the glob'}")
    return files


def _is_table(path: Path) -> bool:
    text = path.suffix.lower() in COMPRESSED
    return suffix_of(path) in (SUFFIXES if not text else (".csv", ".tsv", ".jsonl", ".ndjson"))


def open_tables(sources: Sequence[str | os.PathLike[str]], reading: Reading | None = None) -> Table:
    """One table of all the files that names, globs and folders stand for; of one file, that file's.

    Folders called `year=2020` (hive partitions) make a column `year` of Parquet, CSV and TSV files.

    Raises:
        InputError: nothing is there, a file cannot be read, files are of several kinds, have other columns or types.
    """
    sources = list(sources)
    if (
        len(sources) == 1
        and not Path(sources[0]).is_dir()
        and (Path(sources[0]).exists() or not has_magic(os.fspath(sources[0])))
    ):
        return open_table(sources[0], reading)
    files = files_of(sources)
    suffixes = {suffix_of(path): path for path in reversed(files)}
    if len(suffixes) > 1:
        # What is not there at all is said first: it may be the value of a flag that takes none.
        for missing in (path for path in files if not path.exists()):
            open_table(missing, reading)
        named = [f"{path} {f'is {suffix}' if suffix else 'has no suffix'}" for suffix, path in suffixes.items()]
        raise InputError(f"{' and '.join(named[:-3:-1])}; name files of one kind")
    parts = [open_table(path, reading, header_alone=True) for path in files]
    keys = [_keys_of(path, _root(sources)) for path in files]
    label = _label(sources, files)
    for kind, table in _KINDS.items():
        if type(parts[0]) is kind:
            return table(label, parts, keys, reading or Reading())
    if len(parts) == 1:
        return parts[0]
    raise InputError(f"{files[0]} holds a sparse matrix, which is read of one file; stack them into one")


def _label(sources: Sequence[str | os.PathLike[str]], files: Sequence[Path]) -> Path:
    """What messages call the table, with the suffix of its files."""
    if len(sources) > 1:
        return Path(f"{files[0]} ... {files[-1]}")
    where = Path(sources[0])
    return where / f"*{suffix_of(files[0])}" if where.is_dir() else where


def _root(sources: Sequence[str | os.PathLike[str]]) -> Path | None:
    return Path(sources[0]) if len(sources) == 1 and Path(sources[0]).is_dir() else None


def _keys_of(path: Path, root: Path | None) -> dict[str, str | None]:
    """The values that the folders of a file stand for, by column."""
    folders = (path.relative_to(root) if root else path).parent.parts
    matches = (_KEY.fullmatch(folder) for folder in folders)
    return {m["name"]: None if m["value"] == _NO_VALUE else m["value"] for m in matches if m is not None}


class Several(Table):
    """What tables of several files have in common.

    Args:
        label: what messages call them together.
        parts: one table a file, all of one kind, at least one.
        keys: of each file the values that its folders stand for.
        reading: how their text is read.
    """

    takes_keys = False

    def __init__(
        self, label: Path, parts: Sequence[Any], keys: Sequence[dict[str, str | None]], reading: Reading
    ) -> None:
        self.path = self.source = label
        self.reading = reading
        self.parts = parts
        self.starts = np.cumsum([0, *(part.n for part in parts)])
        self.n = int(self.starts[-1])
        if self.n == 0:
            raise InputError(f"{label}: no file of {len(parts):,} has a row; give at least one row")
        self.keys = self._checked_keys(keys)
        self.columns = self._columns()

    def _checked_keys(self, keys: Sequence[dict[str, str | None]]) -> dict[str, pl.Series]:
        """One value a file of each column that the folders' names make; a column of the files themselves goes first."""
        first = keys[0]
        for part, own in zip(self.parts, keys, strict=True):
            if own.keys() != first.keys():
                odd = sorted(own.keys() ^ first.keys())[0]
                has, lacks = (part, self.parts[0]) if odd in own else (self.parts[0], part)
                raise InputError(
                    f"{has.path} is in a folder {odd}=..., {lacks.path} is not; give all files such folders"
                )
        names = [name for name in first if name not in self.parts[0].columns]
        if names and not self.takes_keys:
            raise InputError(
                f"{self.path}: folders called {names[0]}=... make a column of Parquet, CSV and TSV files only; name "
                "the files themselves"
            )
        return {name: pl.Series(name, [own[name] for own in keys], pl.String) for name in names}

    def _columns(self) -> list[str]:
        """The columns of the first file, which all others have too, and those of the folders' names."""
        first = self.parts[0]
        for part in self.parts[1:]:
            lacking = [name for name in first.columns if name not in part._names]
            if lacking:
                raise InputError(f"{part.path} has no column {lacking[0]!r}, which {first.path} has; {_ALIKE}")
            more = [name for name in part.columns if name not in first._names]
            if more:
                raise InputError(f"{part.path} has a column {more[0]!r}, which {first.path} has not; {_ALIKE}")
        return [*first.columns, *self.keys]

    def place_of(self, row: int) -> tuple[Path, int]:
        """The file of a row, and its number there."""
        index = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[index].path, row - int(self.starts[index])

    def located(self, message: str) -> str:
        if str(self.path) not in message and not message.startswith(_OF_ROWS):
            return message
        texts = [text for match in _ROW.finditer(message) for text in match.groups() if text]
        rows = [int(text.replace(",", "")) for text in texts][:_SHOWN_ROWS]
        places = [(row, *self.place_of(row)) for row in rows if row < self.n]
        shown = ", ".join(f"row {row} is row {inside} of {path}" for row, path, inside in places)
        return f"{message} ({shown})" if places else message

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(file, first row in it, rows) of the files that hold the rows from start to stop."""
        for index, (low, high) in enumerate(pairwise(self.starts.tolist())):
            first, last = max(start, low), min(stop, high)
            if first < last:
                yield index, first - low, last - first


_ALIKE = "write the files alike, or name those that belong together"


def _common_type(a: pl.DataType, b: pl.DataType) -> pl.DataType | None:
    """The type that holds the values of both, None where none does."""
    if a == b:
        return a
    if (a.is_numeric() and b.is_numeric()) or pl.Null in (a, b):
        empty = [pl.DataFrame(schema={"x": kind}) for kind in (a, b)]
        return pl.concat(empty, how="vertical_relaxed").schema["x"]
    inner_types = [kind.inner for kind in (a, b) if isinstance(kind, pl.List | pl.Array)]
    if len(inner_types) == 2:
        first, second = (kind() if isinstance(kind, type) else kind for kind in inner_types)
        inner = _common_type(first, second)
        return None if inner is None else pl.List(inner)
    return None


class _ParquetFiles(Several, Parquet):
    takes_keys = True

    def _columns(self) -> list[str]:
        columns = super()._columns()
        first = self.parts[0]
        types: dict[str, pl.DataType] = dict(first.types)
        for part in self.parts[1:]:
            for name, dtype in part.types.items():
                common = _common_type(types[name], dtype)
                if common is None or not _same_width(first.types[name], dtype):
                    raise InputError(
                        f"column {name!r} holds {dtype} in {part.path} and {first.types[name]} in {first.path}; "
                        f"{_ALIKE}"
                    )
                types[name] = common
        self.keys = {name: typed_cells(values) for name, values in self.keys.items()}
        self._types = {**types, **{name: values.dtype for name, values in self.keys.items()}}
        return columns

    @property
    def types(self) -> dict[str, pl.DataType]:
        return self._types

    def _dtype(self, name: str) -> pl.DataType:
        return self._types[name]

    def units(self) -> list[Unit]:
        return [unit for part in self.parts for unit in part.units()]

    def _read(self, run: Fragment, *columns: str) -> pl.DataFrame:
        names = list(columns) or self.columns
        own = [name for name in names if name not in self.keys]
        frames = []
        for index, start, rows in self._overlaps(run.first_row, run.stop):
            part = self.parts[index]
            inside = Fragment(str(part.path), 0, start, rows)
            # Of no columns polars would not know how many rows there are.
            with reading_file(part.path):
                frame = part._read(inside, *(own or part.columns[:1]))
            keys = [pl.lit(values[index], values.dtype).alias(name) for name, values in self.keys.items()]
            frames.append(frame.with_columns(keys).select(pl.col(name).cast(self._types[name]) for name in names))
        return pl.concat(frames)

    def rows_at_once(self, name: str, width: int) -> list[int]:
        return [rows for part in self.parts for rows in part.rows_at_once(name, width)]

    def vector_rows(self, name: str, width: int, run: Fragment) -> pl.Series:
        kind = self._types[name]
        if isinstance(kind, pl.Array):
            kind = pl.List(kind.inner)
        series = []
        for index, start, rows in self._overlaps(run.first_row, run.stop):
            part = self.parts[index]
            with reading_file(part.path):
                series.append(part.vector_rows(name, width, Fragment(str(part.path), 0, start, rows)).cast(kind))
        return series[0] if len(series) == 1 else pl.concat(series)

    def _column(self, name: str) -> pl.Series:
        if name in self.keys:
            parts = [pl.Series(name, [value], self.keys[name].dtype) for value in self.keys[name].to_list()]
            return pl.concat(
                [part.new_from_index(0, rows) for part, rows in zip(parts, np.diff(self.starts).tolist(), strict=True)]
            )
        columns = []
        for part in self.parts:
            with reading_file(part.path):
                columns.append(part._column(name).cast(self._types[name]))
        return pl.concat(columns)

    def _first_vector(self, name: str) -> pl.Series:
        heads = (part._first_vector(name) for part in self.parts if part.n)
        return next((head.cast(self._types[name]) for head in heads if len(head)), pl.Series(name, []))


def _same_width(a: pl.DataType, b: pl.DataType) -> bool:
    return not (isinstance(a, pl.Array) and isinstance(b, pl.Array)) or a.shape == b.shape


class _DelimitedFiles(Several, Delimited):
    takes_keys = True

    def __init__(
        self, label: Path, parts: Sequence[Any], keys: Sequence[dict[str, str | None]], reading: Reading
    ) -> None:
        super().__init__(label, parts, keys, reading)
        self.separator = parts[0].separator
        self._known = {}
        self._head = None
        self._dtypes = {}
        names = [name for name in self.columns if name not in self.keys]
        self._scan = pl.concat(
            part._scan.select(names).with_columns(
                pl.lit(values[i], pl.String).alias(name) for name, values in self.keys.items()
            )
            for i, part in enumerate(parts)
        )

    def _refuse_quotes(self) -> None:
        for part in self.parts:
            part._refuse_quotes()


class _JsonFiles(Several, JsonLines):
    def _columns(self) -> list[str]:
        # Keys may differ from line to line, so they may from file to file.
        self._kinds: dict[str, set[str]] = {}
        for part in self.parts:
            for name, kinds in part._kinds.items():
                self._kinds[name] = self._kinds.get(name, set()) | kinds
        return list(self._kinds)

    def _typed_scan(self, *names: str) -> pl.LazyFrame:
        schema = {name: self.types[name] for name in names}
        return pl.concat(pl.scan_ndjson(part.source, schema=schema) for part in self.parts)

    def _lines(self) -> Iterator[bytes]:
        return chain.from_iterable(part._lines() for part in self.parts)

    def lines(self, indices: NDArray[np.int64]) -> list[bytes]:
        files = np.searchsorted(self.starts, indices, side="right") - 1
        lines = np.empty(len(indices), object)
        for index in np.unique(files).tolist():
            rows = np.flatnonzero(files == index)
            part = self.parts[index]
            spans = part._spans[indices[rows] - self.starts[index]]
            lines[rows] = list(json_lines.lines_at(part.source, spans))
        return list(lines)


class _ArrayFiles(Several):
    def _columns(self) -> list[str]:
        columns = super()._columns()
        first = self.parts[0]
        for name in columns:
            shape, dtype = first._layout(name)
            for part in self.parts[1:]:
                other, kind = part._layout(name)
                if other[1:] != shape[1:] or (kind.kind in "US") != (dtype.kind in "US"):
                    raise InputError(
                        f"{part.path} array {name!r} has shape {other}, {kind}, and {first.path} {shape}, {dtype}; "
                        f"{_ALIKE}"
                    )
        return columns

    def _layout(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        shape, dtype = self.parts[0]._layout(name)
        return (self.n, *shape[1:]), dtype

    def _array(self, name: str) -> Array:
        return np.concatenate([part._array(name) for part in self.parts])


class _NpyFiles(_ArrayFiles, Npy):
    pass


class _NpzFiles(_ArrayFiles, Npz):
    pass


_KINDS: dict[type[Table], type[Several]] = {
    Parquet: _ParquetFiles,
    Delimited: _DelimitedFiles,
    Tabbed: _DelimitedFiles,
    JsonLines: _JsonFiles,
    Npy: _NpyFiles,
    Npz: _NpzFiles,
}
