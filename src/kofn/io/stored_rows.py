"""Rows of numbers in NPY files, read a run at a time by position, and how blocks of rows are written to one."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Ints
from kofn.core.checks import FailureError, InputError
from kofn.io.atomic import remove_stale


class StoredRows:
    """NPY files as one matrix. Runs are read and not mapped, so that what was read does not stay in memory.

    Args:
        arrays: memory-mapped matrices of one width.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])
        kinds = {array.dtype for array in arrays}
        wide = any(kind.kind == "f" and kind.itemsize > 4 for kind in kinds)
        self.dtype: np.dtype[Any] = np.dtype(np.float64 if wide else np.float32)
        self.width = int(arrays[0].shape[1])

    def rows(self, start: int, stop: int) -> Array:
        """The rows from start to stop."""
        parts = []
        for array, low in zip(self._arrays, self._starts.tolist(), strict=False):
            first, last = max(start - low, 0), min(stop - low, len(array))
            if first < last:
                parts.append(self._read(array, first, last))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: Ints) -> Array:
        """The rows of these numbers."""
        taken = np.empty((len(rows), self.width), self.dtype)
        files = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(files).tolist():
            wanted = files == index
            taken[wanted] = self._arrays[index][rows[wanted] - self._starts[index]]
        return taken

    def _read(self, array: Any, first: int, last: int) -> Array:
        if not array.flags.c_contiguous or array.filename is None:
            return np.array(array[first:last], self.dtype, order="C")
        width = self.width
        offset = array.offset + first * width * array.dtype.itemsize
        values = np.fromfile(array.filename, array.dtype, (last - first) * width, offset=offset)
        if len(values) < (last - first) * width:
            raise InputError(f"{array.filename} is truncated; copy or write it again")
        return values.reshape(last - first, width).astype(self.dtype, copy=False)


def temporary(suffix: str, folder: str | os.PathLike[str] | None) -> Path:
    """An empty file that nobody else has; those that killed runs of this machine left beside it are removed.

    Raises:
        InputError: there is no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"work={os.fspath(folder)!r}: there is no such folder; make it first")
    where = Path(tempfile.gettempdir() if folder is None else folder)
    # Another machine's processes, which may share the folder, have numbers of their own.
    machine = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
    remove_stale(where, re.compile(rf"kofn-pool-{machine}-(\d+)-\w+\.(npy|parquet|rows)"))
    handle, name = tempfile.mkstemp(prefix=f"kofn-pool-{machine}-{os.getpid()}-", suffix=suffix, dir=where)
    os.close(handle)
    return Path(name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it a temporary file is written; what fails leaves none, and says where the disk is full."""
    try:
        yield
    except BaseException as error:
        path.unlink(missing_ok=True)
        if (number := _error_number(error)) is not None:
            raise FailureError(
                f"{path.parent}: the pool's vectors cannot be written there ({os.strerror(number)}); set TMPDIR to a "
                "folder with more room"
            ) from None
        raise


def _error_number(error: BaseException) -> int | None:
    """What the system says is wrong, which polars tells in words; None where it is something else."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, Exception) else None
    return None if match is None else int(match[1])


def write_rows(path: Path, n: int, blocks: Iterable[Array]) -> Any:
    """Write blocks of rows, n in all, and return them as a memory map; the first block says width and type."""
    dtype: np.dtype[Any] | None = None
    with open(path, "wb") as file:
        for block in blocks:
            if dtype is None:
                dtype = block.dtype
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**header, "shape": (n, block.shape[1])})
            file.write(np.ascontiguousarray(block, dtype).data)
    return np.load(path, mmap_mode="r")
