"""Pools in files: rows with vectors that are read fragment by fragment, whatever the files' size.

>>> import tempfile, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> for part in range(3):
...     frame = pl.DataFrame({"id": [10 * part, 10 * part + 1], "x": [[1.0, part], [2.0, part]]})
...     frame.write_parquet(folder / f"part-{part}.parquet")
>>> pool = Pool.open(folder, vectors="x", id="id")
>>> pool
Pool(6 rows x 2, float64, 3 files)
>>> [pool.read(fragment).tolist() for fragment in pool.fragments(part_rows=4)]
[[[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 2.0]]]
>>> pool.take([5, 0]).tolist(), pool.rows([5, 0])["id"].to_list(), pool.ids.tolist()
([[2.0, 2.0], [1.0, 0.0]], [21, 0], [0, 1, 10, 11, 20, 21])
"""

from __future__ import annotations

import hashlib
import os
import socket
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import polars as pl

from kofn.core import checks
from kofn.core.arrays import Array, Ints
from kofn.core.checks import InputError
from kofn.core.pools import Fragment, Unit, cut, digest_of, row_numbers, rows_of_part
from kofn.core.words import Progress
from kofn.io.decoded_rows import DecodedRows
from kofn.io.many import Several, files_of, open_tables
from kofn.io.opening import open_table
from kofn.io.parquet import Parquet
from kofn.io.pool_sources import finite_rows, lazy, mapped, wide
from kofn.io.pool_texts import TextRows, kept_rows
from kofn.io.reading import Reading
from kofn.io.stamps import Stamp, feed_files
from kofn.io.stored_rows import StoredRows, temporary, write_rows, writing
from kofn.io.tables import Table, located, reading_file
from kofn.io.vectors import compared_columns, only_vectors, scaled_columns

# Rows of a row group of a file that a frame is written to, and of a block that is written to an array.
_GROUP_ROWS, _BLOCK_ROWS = 1 << 17, 1 << 14


class Pool:
    """Rows with vectors in files; `Pool.open` makes one.

    Nothing but the layout is read beforehand of Parquet and NPY. Other files, and vectors made of columns, are read
    once: their vectors go to a temporary NPY file, which takes n * width * 4 or 8 bytes of disk until the pool goes.

    Attributes:
        table: the files as one table, for all columns.
        files: the files, in the order of their rows.
        n: number of rows.
        width: length of the vectors.
        dtype: float32 or float64.
        vectors: the column or array of vectors; None where they are made of `columns`.
        columns: the columns that the vectors are made of.
        text: the column of texts that the vectors are made of.
        how: how they are made, in one line; "" where they are read as they are.
    """

    def __init__(
        self,
        table: Table,
        files: Sequence[Path],
        *,
        vectors: str | None = None,
        columns: Sequence[str] | None = None,
        categories: Sequence[str] = (),
        id: str | None = None,
        text: str | None = None,
        embedder: str | None = None,
        cache: bool = True,
        progress: Progress = None,
        work: str | os.PathLike[str] | None = None,
        stored: str | None = None,
        is_copy: bool = False,
    ) -> None:
        given = [name for name, value in (("text", text), ("vectors", vectors), ("columns", columns)) if value]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} were given together; give one of them")
        if embedder is not None and text is None:
            raise InputError(f"embedder={embedder!r} needs text: name the column to embed")
        self.table = table
        self.files = tuple(files)
        self.n = table.n
        self.columns = table.named(columns) if columns else None
        self.text = table.require(text) if text else None
        self.vectors = None if columns or text else table.require(vectors) if vectors else only_vectors(table)
        self._categories = table.named(categories) if categories else ()
        self._id = table.require(id) if id else None
        self._stamps = tuple(Stamp.of(path) for path in self.files)
        self._lock = Lock()
        # The file is a copy of a frame, and is another one each time.
        self._is_copy = is_copy
        self._cache = cache
        self.dtype: np.dtype[Any]
        self.width: int
        self._units: list[Unit]
        with located(table):
            self._texts = (
                None if self.text is None else TextRows(table, self.text, embedder, cache=cache, progress=progress)
            )
            self._open(work, stored)

    @staticmethod
    def open(
        source: Any,
        *,
        vectors: str | None = None,
        columns: Sequence[str] | None = None,
        categories: Sequence[str] = (),
        text: str | None = None,
        embedder: str | None = None,
        id: str | None = None,
        reading: Reading | None = None,
        work: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> Pool:
        """Open files, or a frame, as a pool.

        Args:
            source: a file, a glob, a folder (also one of folders called year=2020, which make a column year), or a list
                of those: Parquet, NPY, NPZ, CSV, TSV or JSONL, texts also as .gz, .bz2, .xz and .zst. Or a frame of
                polars, lazy or not, or an Arrow table or dataset, which is streamed to a temporary Parquet file first.
                Rows are numbered file by file, the files of a glob or a folder by name.
            vectors: the column or array of vectors; by default the only one.
            columns: numbers, dates and names to compare by in place of vectors, scaled as `kofn select --columns` does.
            categories: those of columns that hold names, also where they are written as numbers.
            text: a column of texts to compare by in place of vectors: by their words, which are learnt from a sample of
                100,000 texts, fewer where they are long, that a fixed seed draws. Words that none of these has do not
                count.
            embedder: a model for the texts, as `kofn select --embedder` takes it.
            id: a column of ids, which must differ: the plan's ids, by which rows are named in include, exclude, start.
            reading: how tables of text are read.
            work: a folder for temporary files, by default the system's. What runs that were killed have left there is
                removed. The vectors of texts are kept there, and used by the next run.
            progress: show how far the vectors of texts are.

        Returns:
            The pool.

        Raises:
            InputError: nothing is there, files that are unlike or damaged, an unknown column, no vectors, vectors of
                unlike lengths, missing or not finite values (with the file, the row in it and the row of the pool).
            FailureError: a file cannot be read, or no disk is left.

        Cost: Parquet and NPY: the footers and the first vector. Others: one pass, and their vectors on disk.
        """
        how: dict[str, Any] = {"vectors": vectors, "columns": columns, "categories": categories, "id": id, "work": work}
        how |= {"text": text, "embedder": embedder, "progress": progress}
        frame = lazy(source)
        if frame is not None:
            made = temporary(".parquet", work)
            with reading_file(made), writing(made):
                frame.sink_parquet(made, row_group_size=_GROUP_ROWS, maintain_order=True)
            pool = Pool(open_table(made), [made], **how, is_copy=True)
            weakref.finalize(pool, made.unlink, missing_ok=True)
            return pool
        named = [source] if isinstance(source, str | os.PathLike) else list(source)
        for each in named:
            if not isinstance(each, str | os.PathLike):
                raise InputError(f"source holds {checks.shown(each)}, a {type(each).__name__}; give names of files")
        return Pool(open_tables(named, reading), files_of(named), **how)

    def _open(self, work: str | os.PathLike[str] | None, stored: str | None) -> None:
        """Learn the width and the type of the vectors; write them to an array where they cannot be read in parts.

        Where another process of this machine has written them, they are `stored` already.
        """
        table = self.table
        self._stored: StoredRows | None = None
        self._row_groups: DecodedRows | None = None
        self._array_file: str | None = None
        if isinstance(table, Parquet) and self.vectors is not None:
            with reading_file(table.path):
                self.width, dtype = table._vector_layout(self.vectors)
            self.dtype = wide(dtype)
            self._units = table.units()
            table.know_width(self.vectors, self.width)
            self._row_groups = DecodedRows(table, self.vectors, self.width, self.dtype)
        else:
            arrays = None if self._texts is not None else mapped(table)
            if not arrays:
                ready = stored is not None and Path(stored).exists()
                if self._texts is not None and stored is not None and not ready:
                    # Made anew on another kind of processor they may differ in their last digits, and so may the picks.
                    raise InputError(
                        f"{stored}, the vectors of column {self.text!r}, is not on node {socket.gethostname()}; name a "
                        "work folder that all nodes read"
                    )
                arrays = [np.load(str(stored), mmap_mode="r") if ready else self._written(work)]
                self._array_file = str(arrays[0].filename)
            self._stored = StoredRows(arrays)
            self.dtype, self.width = self._stored.dtype, self._stored.width
            parts = table.parts if isinstance(table, Several) else [table]
            self._units = [Unit(str(part.path), 0, part.n) for part in parts]
        if self.width == 0:
            raise InputError(f"{table._place(str(self.vectors), 0)} is an empty vector; drop those rows first")

    def _written(self, work: str | os.PathLike[str] | None) -> Any:
        """The vectors in a temporary NPY file, mapped."""
        if self._texts is not None and work is not None and not self._is_copy:
            return kept_rows(self._texts, work, self.digest)
        made = temporary(".npy", work)
        weakref.finalize(self, made.unlink, missing_ok=True)
        with writing(made):
            return write_rows(made, self.n, self._read_blocks())

    def _read_blocks(self) -> Iterator[Array]:
        """The blocks, where what goes wrong in reading is said of the files, and not of where they are written."""
        with reading_file(self.table.path):
            yield from self._blocks()

    def _blocks(self) -> Iterator[Array]:
        """All vectors, block by block, checked."""
        if self._texts is not None:
            yield from self._texts.blocks()
            return
        if self.columns is not None:
            scaled = scaled_columns(compared_columns(self.table, self.columns, self._categories))
            for start in range(0, self.n, _BLOCK_ROWS):
                parts = [part.block(start, start + _BLOCK_ROWS) for part in scaled]
                yield np.concatenate(parts, axis=1, dtype=np.float32)
            return
        done, width = 0, None
        for block in self.table._blocks(str(self.vectors), _BLOCK_ROWS):
            vectors = self.table._vector_block(str(self.vectors), block, done, width)
            yield self._checked(vectors.astype(wide(vectors.dtype), copy=False), done)
            done, width = done + len(vectors), vectors.shape[1]
        if done != self.n:
            raise InputError(f"{self.table.path} changed while it was read; run again")

    @cached_property
    def digest(self) -> str:
        """Of the files' names, sizes and times, of blocks of what they hold, and of the columns that the vectors are.

        The blocks are eight of each file, evenly from its first bytes to its last, and the footer of Parquet, in which
        the least and the largest values of each column are stated. A block has 64 KiB, fewer where there are more than
        500 files, but no fewer than 4 KiB. Files of up to eight blocks are read whole. So a file whose rows were
        changed with its size and its time kept is another one, unless all that changed lies between the blocks.

        Of a frame it is of all vectors, as of an array, which takes a pass: the file that holds them has a new name and
        time in each process, and a run that was killed goes on in another.
        """
        if self._is_copy:
            return digest_of(self)
        state = hashlib.sha256(repr((self.vectors, self.columns, self._categories)).encode())
        if self._texts is not None:
            state.update(self._texts.key.encode())
        with located(self.table):
            feed_files(state, self._stamps)
        return state.hexdigest()

    @property
    def by_words(self) -> bool:
        """Whether the vectors are those of words, and not of a model."""
        return self._texts is not None and self._texts.model is None

    @property
    def how(self) -> str:
        return "" if self._texts is None else self._texts.how

    @cached_property
    def ids(self) -> Array:
        """(n,) the ids, or the row numbers where no column of ids was named.

        Raises:
            InputError: one is missing, or stands in two rows; the files of both are named.
        """
        ids = self._ids_in(self._id)
        return np.arange(self.n) if ids is None else ids

    def named_ids(self, column: str | None = None) -> Array | None:
        """(n,) the ids in a column, by default in that which `open` was told; None where it was told none.

        Raises:
            InputError: there is no such column, an id is missing, or stands in two rows.
        """
        if column is not None and column != self._id:
            return self._ids_in(self.table.require(column))
        return None if self._id is None else self.ids

    def _ids_in(self, column: str | None) -> Array | None:
        if column is None:
            return None
        with located(self.table):
            return checks.ids(self.table.ids(column))

    def fragments(self, part_rows: int | None = None) -> tuple[Fragment, ...]:
        """The pool as consecutive fragments of at most `part_rows` rows; by default of about 64 MiB of vectors.

        They depend on the files' row groups and `part_rows` alone: large groups are cut evenly, small ones joined.
        """
        return cut(self._units, rows_of_part(part_rows, self.width, self.dtype))

    def read(self, fragment: Fragment) -> Array:
        """The vectors of a fragment, (rows, width), finite.

        Of a row group only the pages that hold the rows are decoded. Where its pages are large, or do not say where
        rows begin, it is decoded once for all fragments that are read in their order; one of more than 128 MiB in two
        halves.

        Raises:
            InputError: the fragment is not of this pool, a file has changed or is gone, a value cannot be used.
        """
        start, stop = fragment.first_row, fragment.stop
        if not 0 <= start < stop <= self.n:
            raise InputError(f"fragment has rows {start}..{stop - 1}; the pool has rows 0..{self.n - 1}")
        with located(self.table):
            self._refuse_changed(start, stop)
            if self._stored is not None:
                with reading_file(self.table.path):
                    return self._checked(self._stored.rows(start, stop), start)
            assert self._row_groups is not None
            with self._lock:
                return self._row_groups.rows(start, stop)

    def take(self, rows: Iterable[int] | Ints) -> Array:
        """The vectors of these rows of the pool, in the order asked; only the row groups that hold them are read."""
        wanted = row_numbers(rows, self.n)
        vectors = np.empty((len(wanted), self.width), self.dtype)
        if not len(wanted):
            return vectors
        with located(self.table):
            if self._stored is not None:
                self._refuse_changed(int(wanted.min()), int(wanted.max()) + 1)
                with reading_file(self.table.path):
                    return self._checked(self._stored.take(wanted), None)
            assert self._row_groups is not None
            for run in self._row_groups.runs:
                inside = (wanted >= run.first_row) & (wanted < run.stop)
                if inside.any():
                    self._refuse_changed(run.first_row, run.stop)
                    with self._lock:
                        vectors[inside] = self._row_groups.group(run)[wanted[inside] - run.first_row]
        return vectors

    def rows(self, rows: Iterable[int] | Ints) -> pl.DataFrame:
        """All columns of these rows, in the order asked."""
        wanted = row_numbers(rows, self.n)
        for stamp in self._stamps:
            stamp.check()
        with located(self.table):
            return self.table.take(wanted)

    def _checked(self, vectors: Array, start: int | None) -> Array:
        return finite_rows(vectors, self.table, self.vectors, start)

    def _refuse_changed(self, start: int, stop: int) -> None:
        """Refuse rows of files that are no longer what they were."""
        table = self.table
        if isinstance(table, Several):
            for index, _, _ in table._overlaps(start, stop):
                self._stamps[index].check()
        else:
            self._stamps[0].check()

    def __reduce__(self) -> tuple[Any, ...]:
        """A pool goes to another process as the names of its files, which it must be able to read too."""
        files = tuple(path.absolute() for path in self.files)
        stamps = tuple(stamp._replace(path=path) for stamp, path in zip(self._stamps, files, strict=True))
        columns = None if self.columns is None else tuple(self.columns)
        how = (self.vectors, columns, tuple(self._categories), self._id, self._is_copy, self._array_file)
        if self._texts is not None:
            how = (*how, self.text, self._texts.model, self._cache)  # type: ignore[assignment]
        return reopened, (files, stamps, self.table.reading, *how)

    def __repr__(self) -> str:
        files = f"{len(self.files)} file{'s' if len(self.files) != 1 else ''}"
        return f"Pool({self.n:,} rows x {self.width:,}, {self.dtype}, {files})"


@cache
def reopened(
    files: tuple[Path, ...],
    stamps: tuple[Stamp, ...],
    reading: Reading,
    vectors: str | None,
    columns: tuple[str, ...] | None,
    categories: tuple[str, ...],
    id: str | None,
    is_copy: bool,
    stored: str | None,
    text: str | None = None,
    embedder: str | None = None,
    cache: bool = True,
) -> Pool:
    """The pool of another process, opened once in this one.

    Raises:
        InputError: a file is not here, or is another one.
    """
    for path, stamp in zip(files, stamps, strict=True):
        if not path.exists():
            raise InputError(f"{path} is not on node {socket.gethostname()}; keep the files where all nodes read them")
        stamp.check()
    return Pool(
        open_tables(files, reading),
        files,
        vectors=vectors,
        columns=columns,
        categories=categories,
        id=id,
        stored=stored,
        is_copy=is_copy,
        text=text,
        embedder=embedder,
        cache=cache,
    )
