"""The beginning of a large file as a file of its own, and about how many rows the whole has: for `--dry-run`.

A table of text is read by its first megabytes and a few samples of the rest, Parquet by its footer and first rows, NPY
by its header and first rows; what is read does not grow with the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kofn.core.checks import load_arrays
from kofn.core.pools import Fragment
from kofn.io.parquet import Parquet
from kofn.io.parquet_footer import row_groups
from kofn.io.reading import Reading
from kofn.io.tables import broken

# Rows of the beginning, and bytes that a table of text may take for them.
_ROWS, _BYTES = 5_000, 4 << 20
# A file up to this size is read as it is.
SMALL = 1 << 20
# Where the length of a line is sampled: so many places, so many bytes each.
_PLACES, _PLACE_BYTES = 16, 1 << 16


class Beginning(NamedTuple):
    """A file's beginning.

    Attributes:
        path: the file itself, or a file of its first rows.
        rows: how many rows the whole file has, about; None where `path` is the file itself.
    """

    path: Path
    rows: int | None


@contextmanager
def beginning(path: str | Path, *, square: bool = False) -> Iterator[Beginning]:
    """The file itself where it is small or of a kind that has no beginning to read; else its first rows.

    Args:
        path: the file.
        square: whether an array is a matrix of all pairs, so that its first rows have as many columns.
    """
    where = Path(path)
    suffix = where.suffix.lower()
    cut = {".csv": _text, ".tsv": _text, ".jsonl": _text, ".ndjson": _text, ".parquet": _parquet, ".npy": _array}
    if suffix not in cut or not where.is_file() or where.stat().st_size <= SMALL:
        yield Beginning(where, None)
        return
    with tempfile.TemporaryDirectory(prefix="kofn-") as folder:
        part = Path(folder) / where.name
        unreadable: tuple[type[BaseException], ...] = (ValueError, OSError, *broken())
        try:
            rows = _array(where, part, square) if suffix == ".npy" else cut[suffix](where, part)
        except unreadable:
            # Reading the whole file says best what is wrong with it.
            rows = None
        yield Beginning(where if rows is None else part, rows)


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
    return max(first, round(first * sum(path.stat().st_size for path in files) / max(1, files[0].stat().st_size)))


def _text(where: Path, part: Path) -> int | None:
    """The first lines; rows of the whole by the length of lines here and there. None where lines are not to be told."""
    size = where.stat().st_size
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
    while lines <= _ROWS and (stop := head.find(b"\n", end)) >= 0:
        # A line that ends within quotes is no row.
        quoted ^= head.count(b'"', end, stop) % 2 == 1
        end, lines = stop + 1, lines + (not quoted)
    if lines < 2 or quoted:
        return None
    part.write_bytes(head[:end])
    rows = lines - (where.suffix.lower() in (".csv", ".tsv"))
    per_newline = lines / head.count(b"\n", 0, end)
    newlines = sum(sample.count(b"\n") for sample in samples) / sum(map(len, samples))
    return max(rows, round(size * newlines * per_newline))


def _parquet(where: Path, part: Path) -> int | None:
    """The first rows; how many there are stands in the footer."""
    table = Parquet(where, Reading())
    if table.n <= _ROWS:
        return None
    table._read(Fragment(str(where), 0, 0, _ROWS)).write_parquet(part)
    return table.n


def _array(where: Path, part: Path, square: bool = False) -> int | None:
    """The first rows; how many there are stands in the header."""
    array = np.load(where, mmap_mode="r", allow_pickle=False)
    if array.ndim == 0 or len(array) <= _ROWS:
        return None
    np.save(part, array[:_ROWS, :_ROWS] if square else array[:_ROWS])
    return len(array)
