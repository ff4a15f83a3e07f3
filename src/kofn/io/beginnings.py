"""The beginning of a large file as a file of its own, and about how many rows the whole has: for `--dry-run`.

A table of text is read by its first megabytes and a few samples of the rest, Parquet by its footer and first rows, NPY
by its header and first rows, NPZ by the beginning of each of its arrays; what is read does not grow with the file.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import load_arrays
from kofn.core.pools import Fragment
from kofn.io.parquet import Parquet
from kofn.io.parquet_footer import row_groups
from kofn.io.reading import Reading
from kofn.io.tables import broken

# Rows of the beginning, and bytes that a table of text may take for them.
ROWS, _BYTES = 5_000, 4 << 20
# Bytes of long rows of other files, of which there are no fewer than so many.
_LONG, _FEWEST = 24 << 20, 300
# A file up to this size is read as it is.
SMALL = 1 << 20
# A file of text up to this size has its rows counted, which takes a fifth of a second.
_COUNTED = 32 << 20
# Where the length of a line is sampled: so many places, so many bytes each.
_PLACES, _PLACE_BYTES = 16, 1 << 16


class About(int):
    """A number of rows that is an estimate."""


class Beginning(NamedTuple):
    """A file's beginning.

    Attributes:
        path: the file itself, or a file of its first rows.
        rows: how many rows the whole file has, `About` where it is estimated; None where `path` is the file itself.
    """

    path: Path
    rows: int | None


@contextmanager
def beginning(path: str | Path, *, square: bool = False, rows: int = ROWS) -> Iterator[Beginning]:
    """The file itself where it is small or of a kind that has no beginning to read; else its first rows.

    Args:
        path: the file.
        square: whether an array is a matrix of all pairs, so that its first rows have as many columns.
        rows: how many rows to read at the most.
    """
    where = Path(path)
    suffix = where.suffix.lower()
    texts = dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), _text)
    cut = {**texts, ".parquet": _parquet, ".npy": _array, ".npz": _archive}
    if suffix not in cut or not where.is_file() or where.stat().st_size <= SMALL:
        yield Beginning(where, None)
        return
    with tempfile.TemporaryDirectory(prefix="kofn-") as folder:
        part = Path(folder) / where.name
        unreadable: tuple[type[BaseException], ...] = (ValueError, KeyError, OSError, zipfile.BadZipFile, *broken())
        try:
            whole = cut[suffix](where, part, rows, square)
        except unreadable:
            # Reading the whole file says best what is wrong with it.
            whole = None
        yield Beginning(where if whole is None else part, whole)


def rows_of_all(files: Sequence[Path], first: int) -> int:
    """How many rows files of one kind have: by their footers and headers, texts about as many a byte as the first.

    Args:
        files: at least one.
        first: how many rows the first one has.
    """
    suffix = files[0].suffix.lower()
    if suffix == ".parquet":
        return sum(group.rows for path in files for group in row_groups(path))
    if suffix == ".npy":
        return sum(len(load_arrays(path, mmap_mode="r")) for path in files)
    return About(
        max(first, round(first * sum(path.stat().st_size for path in files) / max(1, files[0].stat().st_size)))
    )


def _text(where: Path, part: Path, most: int, square: bool) -> int | None:  # noqa: ARG001
    """The first lines; rows of the whole, counted where the file is not large, else by the length of lines here and
    there. None where lines are not to be told.
    """
    size, quotes = where.stat().st_size, where.suffix.lower() in (".csv", ".tsv")
    with where.open("rb") as file:
        head = file.read(_BYTES)
        samples = [head]
        for index in range(1, _PLACES):
            file.seek(max(len(head), size * index // _PLACES))
            samples.append(file.read(_PLACE_BYTES))
    if b"\0" in head[:4096]:
        # UTF-16 or no text.
        return None
    end, lines = 0, 0
    quoted = False
    while lines <= most and (stop := head.find(b"\n", end)) >= 0:
        # A line that ends within quotes is no row.
        quoted ^= quotes and head.count(b'"', end, stop) % 2 == 1
        end, lines = stop + 1, lines + (not quoted)
    if lines < 2 or quoted:
        return None
    part.write_bytes(head[:end])
    if size <= _COUNTED and (counted := _lines(where, quotes=quotes)) is not None:
        return counted - quotes
    rows = lines - quotes
    per_newline = lines / head.count(b"\n", 0, end)
    newlines = sum(sample.count(b"\n") for sample in samples) / sum(map(len, samples))
    return About(max(rows, round(size * newlines * per_newline)))


def _lines(where: Path, *, quotes: bool) -> int | None:
    """How many lines a file of text has, those within quotes apart; None where blank ones or an open quote are left."""
    data = np.frombuffer(where.read_bytes().strip(b"\r\n"), np.uint8)
    ends = data == ord("\n")
    if quotes:
        inside = np.bitwise_xor.accumulate((data == ord('"')).view(np.uint8)).view(np.bool_)
        if inside[-1]:
            return None
        ends &= ~inside
    at_end = np.flatnonzero(ends)
    blank = (np.diff(at_end) == 1) | ((np.diff(at_end) == 2) & (data[at_end[1:] - 1] == ord("\r")))
    return None if blank.any() else len(at_end) + 1


def _parquet(where: Path, part: Path, most: int, square: bool) -> int | None:  # noqa: ARG001
    """The first rows; how many there are stands in the footer."""
    table = Parquet(where, Reading())
    rows = _rows_of(most, sum(sum(group.sizes.values()) for group in table.groups) / max(1, table.n))
    if table.n <= rows:
        return None
    table._read(Fragment(str(where), 0, 0, rows)).write_parquet(part)
    return table.n


def _rows_of(most: int, row_bytes: float) -> int:
    """Rows of the beginning, fewer where they are long."""
    return int(min(most, max(_FEWEST, _LONG / max(1.0, row_bytes))))


def _array(where: Path, part: Path, most: int, square: bool) -> int | None:
    """The first rows; how many there are stands in the header."""
    array = np.load(where, mmap_mode="r", allow_pickle=False)
    if array.ndim == 0:
        return None
    rows = most if square else _rows_of(most, array[:1].nbytes)
    if len(array) <= rows:
        return None
    np.save(part, array[:rows, :rows] if square else array[:rows])
    return len(array)


def _archive(where: Path, part: Path, most: int, square: bool) -> int | None:
    """The first rows of each array, or of a sparse matrix by rows; None of arrays that lie by columns."""
    with zipfile.ZipFile(where) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if {"format", "shape", "data"} <= set(names):
            return _sparse(archive, part, most, square)
        arrays: dict[str, Array] = {}
        n = 0
        for name in names:
            with archive.open(f"{name}.npy") as file:
                shape, dtype = _header(file)
                n = shape[0]
                rows = min(n, most if square else _rows_of(most, math.prod(shape[1:]) * dtype.itemsize))
                arrays[name] = _leading(file, (rows, *shape[1:]), dtype)
    kept = min(len(array) for array in arrays.values())
    if kept == n:
        return None
    first: dict[str, Any] = {name: array[:kept, :kept] if square else array[:kept] for name, array in arrays.items()}
    np.savez(part, **first)
    return n


def _sparse(archive: zipfile.ZipFile, part: Path, most: int, square: bool) -> int | None:
    """The first rows of a sparse matrix of which each row's entries lie together."""
    from scipy import sparse

    small: dict[str, Any] = {}
    for name in ("format", "shape"):
        with archive.open(f"{name}.npy") as file:
            small[name] = np.lib.format.read_array(file, allow_pickle=False)
    if small["format"].item() not in (b"csr", "csr") or small["shape"][0] <= most:
        return None
    parts: dict[str, Array] = {}
    count = most + 1
    for name in ("indptr", "indices", "data"):
        with archive.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
            parts[name] = _leading(file, (min(count, shape[0]),), dtype)
        if name == "indptr":
            count = int(parts["indptr"][-1])
    matrix = sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), (most, int(small["shape"][1])))
    sparse.save_npz(part, matrix[:, :most] if square else matrix, compressed=False)
    return int(small["shape"][0])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that lies by rows.

    Raises:
        ValueError: it lies by columns, has no rows, or holds objects.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if not shape or dtype.hasobject or (by_columns and len(shape) > 1):
        raise ValueError("no rows to read one after the other")
    return shape, dtype


def _leading(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array's first values, of so many rows."""
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file ends before its rows do")
    return np.frombuffer(data, dtype).reshape(shape)
