"""The formats behind `kofn.io.tables.Table`: what polars streams (Parquet, JSONL, CSV, TSV) and arrays (NPY, NPZ)."""

from __future__ import annotations

import json
import re
import weakref
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError, reading_arrays, single_members, sound_sparse
from kofn.core.lazy import polars as pl
from kofn.io import json_lines, text_faults
from kofn.io.cells import cast_cells, typed_cells, types, whole_kind, words_in
from kofn.io.parquet import Parquet
from kofn.io.reading import Reading
from kofn.io.scanned import Scanned, batches_of, collected, schema_of
from kofn.io.tables import Table

_SAMPLE = 10_000
_FEW = 64


class JsonLines(Scanned):
    """JSON objects, one a line. Keys may differ; a column is read where its values are of one kind, else as text."""

    def _open(self) -> pl.LazyFrame:
        self._spans, self._kinds = json_lines.read_layout(self.source)
        self.columns, self.n = list(self._kinds), len(self._spans)
        return pl.LazyFrame()

    def _typed_scan(self, *names: str) -> pl.LazyFrame:
        return pl.scan_ndjson(self.source, schema={name: self.types[name] for name in names})

    def _is_written(self, name: str) -> bool:
        """Whether the values are read as they are written."""
        return self.types[name] == pl.String and self._kinds[name] != {"str"}

    def _lines(self) -> Iterator[bytes]:
        """All lines as they stand in the file."""
        return json_lines.lines_at(self.source, self._spans)

    @cached_property
    def types(self) -> dict[str, pl.DataType]:
        return {name: json_lines.type_of(kinds) for name, kinds in self._kinds.items()}

    def _dtype(self, name: str) -> pl.DataType:
        # Text that stands for objects and lists is not offered as text.
        return pl.Struct([]) if self._kinds[name] & json_lines.NESTED or not self._kinds[name] else self.types[name]

    def _written(self, name: str) -> pl.Series:
        """The values as they are written, words without their quotes."""
        texts = [json_lines.as_text(json_lines.members(line.decode()).get(name)) for line in self._lines()]
        return pl.Series(name, texts, pl.String)

    def _column(self, name: str) -> pl.Series:
        if self._is_written(name):
            return self._written(name)
        return self._with_those_after(
            name, lambda names: collected(self._typed_scan(*(name for name in names if not self._is_written(name))))
        )

    def texts(self, name: str) -> pl.Series:
        name = self.require(name)
        if not self._kinds[name] & json_lines.NESTED:
            return super().texts(name)
        if self.reading.empty == "drop":
            self._note_gaps(self.column(name))
        values = (json.loads(json_lines.members(line.decode()).get(name, "null")) for line in self._lines())
        return pl.Series(name, [words_in(value) for value in values], pl.String)

    def text_blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        name = self.require(name)
        kinds = self._kinds[name]
        if self.types[name] != pl.String or kinds == {"str"}:
            yield from super().text_blocks(name, rows)
            return
        lines = self._lines()
        while block := list(islice(lines, rows)):
            written = [json_lines.members(line.decode()).get(name) for line in block]
            if kinds & json_lines.NESTED:
                yield pl.Series(name, [words_in(json.loads(value or "null")) for value in written], pl.String)
            else:
                texts = pl.Series(name, list(map(json_lines.as_text, written)), pl.String)
                yield self._as_texts(self.reading.without_na(texts))

    def ids(self, name: str) -> Array:
        name = self.require(name)
        if self._kinds[name] & {"float", "long"} and not self._kinds[name] & (json_lines.NESTED | {"vector"}):
            # Decimals may lose their spelling, and whole numbers beside them their last digits; a key must not.
            self._filled(name)
            return np.array(self._written(name).to_list())
        return super().ids(name)

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        if self.types[name] == pl.String:
            yield from (self._column(name)[start : start + rows] for start in range(0, self.n, rows))
            return
        for block in batches_of(self._typed_scan(name).head(self.n), rows):
            yield block[name]

    def lines(self, indices: NDArray[np.int64]) -> list[bytes]:
        return list(json_lines.lines_at(self.source, self._spans[indices]))

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        rows = [json_lines.members(line.decode()) for line in self.lines(wanted)]
        return pl.DataFrame(
            [json_lines.series_of(name, [row.get(name) for row in rows], self._kinds[name]) for name in self.columns]
        )


class Delimited(Scanned):
    """CSV and TSV: read as text, typed without loss."""

    separator = ","

    def _open(self) -> pl.LazyFrame:
        self.separator = self.reading.delimiter or self.separator
        self.columns, self.n, plain = text_faults.check_csv(self.path, self.separator)
        if plain is not None:
            weakref.finalize(self, plain.unlink, missing_ok=True)
            self.source = plain
        self._known: dict[str, pl.DataType] = {}
        self._head: pl.DataFrame | None = None
        self._dtypes: dict[Reading, dict[str, pl.DataType]] = {}
        try:
            scan = pl.scan_csv(self.source, separator=self.separator, infer_schema=False, glob=False)
            names = schema_of(scan).names()
            if names != self.columns and len(names) == len(self.columns):
                # Names with a doubled quote, which polars does not read.
                scan = pl.scan_csv(
                    self.source, separator=self.separator, infer_schema=False, glob=False, new_columns=self.columns
                )
                names = schema_of(scan).names()
        except pl.exceptions.PolarsError:
            self._refuse_quotes()
            raise
        if names != self.columns:
            raise InputError(f"{self.path}: the header cannot be read the same way twice; quote its names")
        return scan.head(self.n)

    def _refuse_quotes(self) -> None:
        """Name the line whose quotes keep polars from reading the file, if one does."""
        if text_faults.quotes_inside(self.source, self.separator):
            raise InputError(
                f"{self.path}: fields that are not in quotes hold some; put them in quotes, quotes doubled"
            )

    def _read(self, raw: pl.Series) -> tuple[pl.Series, bool]:
        """The cells typed, and whether they come out as they are typed. Spaces around a number do not count."""
        cells = self.reading.cells(raw)
        typed = typed_cells(cells)
        if typed.dtype == pl.String and cells.str.contains(r"^[ \t]|[ \t]$").any():
            bare = cells.str.strip_chars(" \t")
            numbers = typed_cells(bare.set(bare == "", None))
            if numbers.dtype != pl.String:
                return numbers, False
        return typed, cells is raw

    def _column(self, name: str) -> pl.Series:
        try:
            raw = super()._column(name)
        except pl.exceptions.PolarsError:
            self._refuse_quotes()
            raise
        if len(raw) != self.n:
            self._refuse_quotes()
            raise InputError(f"{self.path}: {self.n} rows by its lines and {len(raw)} by its quotes; check the quotes")
        typed, as_typed = self._read(raw)
        # Cells that were read otherwise than they are written come out as they are written.
        self._known[name] = typed.dtype if as_typed else pl.String()
        return typed

    def ids(self, name: str) -> Array:
        series = self._filled(name)
        if series.dtype != pl.Float64:
            return super().ids(name)
        # Decimals may lose their spelling (1.10); a key must not.
        self._known[name] = pl.String()
        return np.array(super()._column(name).to_list())

    def _dtype(self, name: str) -> pl.DataType:
        # Of a wide file each is asked for several times.
        known = self._dtypes.setdefault(self.reading, {})
        if name not in known:
            known[name] = self._read(self._sample()[name])[0].dtype
        return known[name]

    def _sample(self) -> pl.DataFrame:
        if self._head is None:
            self._head = collected(self._scan.head(_SAMPLE))
        return self._head

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        try:
            raw = super()._take(wanted)
        except pl.exceptions.PolarsError:
            self._refuse_quotes()
            raise
        out = []
        # All columns in one pass: to look each up by its name would take hours for 100,000 of them.
        for name, head, cells in zip(self.columns, self._sample().iter_columns(), raw.iter_columns(), strict=True):
            # The type is inferred from the first rows and the picked ones; a column that fits no type is text.
            seen = self._known.get(name) or _type_of(head, cells)
            out.append(cast_cells(cells, seen))
        # By their names: polars would give a series without one another.
        return pl.DataFrame({series.name: series for series in out})

    def _vectors(self, name: str) -> Array:
        try:
            return super()._vectors(name)
        except pl.exceptions.PolarsError:
            self._refuse_quotes()
            raise


class Tabbed(Delimited):
    separator = "\t"


class Arrays(Table):
    """NPY and NPZ: arrays by name."""

    def _array(self, name: str) -> Array:
        raise NotImplementedError

    def array(self, name: str | None = None) -> Array:
        """An array as it is, by default the first one."""
        return np.array(self._array(self.columns[0] if name is None else self.require(name)))

    def _column(self, name: str) -> pl.Series:
        return pl.Series(name, np.ascontiguousarray(self._array(name)))

    def _dtype(self, name: str) -> pl.DataType:
        return pl.Series(np.ascontiguousarray(self._array(name)[:1])).dtype

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        # An array of no rows gives polars no inner type, so one row is read and cut off again.
        rows = wanted if len(wanted) else np.zeros(1, np.int64)
        out = {} if "row" in self.columns else {"row": pl.Series("row", rows)}
        for name in self.columns:
            out[name] = pl.Series(name, np.ascontiguousarray(self._array(name)[rows]))
        return pl.DataFrame(out).head(len(wanted))

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        array = self._array(name)
        for start in range(0, self.n, rows):
            yield pl.Series(name, np.ascontiguousarray(array[start : start + rows]))

    def _vectors(self, name: str) -> Array:
        array = self._array(name)
        if array.dtype.kind in "US":
            return super()._vectors(name)
        if array.ndim != 2:
            raise InputError(
                f"{self.path} array {name!r} has shape {array.shape}; give (n, d), "
                f"{'for one column use reshape(-1, 1)' if array.ndim == 1 else 'flatten each item to one row'}"
            )
        if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
            return np.array(array, array.dtype.newbyteorder("="), order="C")
        kind = np.dtype(np.float64) if array.dtype.kind in "fm" else whole_kind(array, f"{self.path} array {name!r}")
        return np.array(array, kind, order="C")


class Npy(Arrays):
    def __init__(self, path: Path, _reading: Reading) -> None:
        self.path = path
        with reading_arrays(str(path), path.name):
            self._data = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(self._data, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is an NPZ archive; rename it to end in .npz")
        if self._data.ndim not in (1, 2):
            raise InputError(
                f"{path} has {self._data.ndim} dimensions, shape {self._data.shape}; give (n, d), "
                "flatten each item to one row"
            )
        _refuse_dtype(str(path), self._data.dtype)
        self.n = len(self._data)
        self.columns = ["vector" if self._data.ndim == 2 else "value"]

    def _array(self, name: str) -> Array:  # noqa: ARG002 (an NPY file holds one array)
        return self._data

    def _layout(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:  # noqa: ARG002
        return self._data.shape, self._data.dtype


class Npz(Arrays):
    def __init__(self, path: Path, _reading: Reading) -> None:
        self.path = path
        shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        with reading_arrays(str(path), path.name), zipfile.ZipFile(path) as archive:
            single_members(archive, str(path))
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    raise InputError(f"{path} holds {member!r}, which is not an array; write it with numpy.savez")
                name = member.removesuffix(".npy")
                label = f"{path} array {name!r}"
                with reading_arrays(label, path.name), archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else _read_header_2
                    shapes[name], _, self._dtypes[name] = read(file)
                _refuse_dtype(label, self._dtypes[name])
        lengths = {name: shape[0] if shape else None for name, shape in shapes.items()}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(f"{path}: the arrays differ in their number of rows ({shown}); save one row an item")
        self._shapes, self.columns = shapes, list(shapes)
        self.n = next((length for length in lengths.values() if length is not None), 0)
        self._cache: tuple[str, Array] | None = None

    def _layout(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self._shapes[name], self._dtypes[name]

    def _array(self, name: str) -> Array:
        # The last array is kept: reading one means decompressing it whole.
        if self._cache is None or self._cache[0] != name:
            label = f"{self.path} array {name!r}"
            with reading_arrays(label, self.path.name), np.load(self.path, allow_pickle=False) as archive:
                self._cache = (name, archive[name])
        return self._cache[1]


class SparseNpz(Arrays):
    """A SciPy-sparse matrix (`scipy.sparse.save_npz`): a table of row numbers, and the matrix itself in `matrix()`."""

    def __init__(self, path: Path, _reading: Reading) -> None:
        self.path = path
        with reading_arrays(str(path), path.name), np.load(path, allow_pickle=False) as archive:
            single_members(archive.zip, str(path))
            self.n = int(archive["shape"][0])
        self.columns = ["row"]

    def _array(self, name: str) -> Array:  # noqa: ARG002 (there is one column)
        return np.arange(self.n)

    def matrix(self) -> Any:
        """The sparse matrix itself."""
        from scipy import sparse

        with reading_arrays(str(self.path), self.path.name):
            return sound_sparse(sparse.load_npz(self.path), str(self.path))


def _open_npz(path: Path, reading: Reading) -> Table:
    with reading_arrays(str(path), path.name), zipfile.ZipFile(path) as archive:
        members = {member.removesuffix(".npy") for member in archive.namelist()}
    return (SparseNpz if {"format", "shape", "data"} <= members else Npz)(path, reading)


KINDS: dict[str, Callable[[Path, Reading], Table]] = {
    ".csv": Delimited,
    ".tsv": Tabbed,
    ".parquet": Parquet,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".npy": Npy,
    ".npz": _open_npz,
}


def _read_header_2(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_2_0(file)


def _refuse_dtype(label: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InputError(f"{label} holds Python objects; save plain numbers, for example with astype('float32')")
    if dtype.kind in "Mm" and np.datetime_data(dtype)[0] not in ("ms", "us", "ns", "D"):
        unit = f"{dtype.kind}8[ms]"
        raise InputError(f"{label} has dtype {dtype}; save times in milliseconds, as in astype({unit!r})")
    if dtype.kind not in "fiubUSMm":
        raise InputError(f"{label} has dtype {dtype}; save real numbers, for example with astype('float32')")


def _type_of(head: pl.Series, picked: pl.Series) -> pl.DataType:
    """The type that the cells of both fit; of few cells by Python, which has no overhead a column."""
    if len(head) + len(picked) > _FEW:
        return typed_cells(pl.concat([head, picked])).dtype
    cells = [cell for cell in (*head.to_list(), *picked.to_list()) if cell is not None]
    fits = (dtype for dtype, pattern in types() if cells and all(re.fullmatch(pattern, cell) for cell in cells))
    return next(fits, pl.String())
