"""Outputs written completely or not at all: under a temporary name in the same folder, synced, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from kofn.core.checks import FailureError, InputError, nearest

if TYPE_CHECKING:
    import polars as pl

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_SLICE = 20_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Writers that are not Python report a full disk in words.
_FULL_WORDS = ("no space left", "disk quota", "file too large", "storage full", "storagefull")


# Our temporary files: the name of the output, the process that writes it, something random.
_TEMPORARY = re.compile(r"\..*\.kofn-(\d+)-[0-9a-f]{8}\.tmp")


@contextmanager
def claimed(path: str | PathLike[str]) -> Iterator[None]:
    """Keep other runs from writing to `path` while the block runs; a run that is killed gives up its claim.

    Where the system has no file locks nothing is kept. A device, or a folder that does not exist, is not claimed.

    Raises:
        InputError: another run writes to `path`, or its folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if fcntl is None or not target.parent.is_dir() or (target.exists() and not (target.is_file() or target.is_dir())):
        yield
        return
    lock = target.parent / f".{target.name[:180]}.lock-of-kofn"
    try:
        handle = _locked(lock)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from None
    if handle is None:
        raise InputError(f"{path} is being written by another run; let it finish or give another name")
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            lock.unlink()
        os.close(handle)


def _locked(lock: Path) -> int | None:
    """A handle that locks the file, or None where another holds it. Its holder removes the file before it lets go."""
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        os.close(handle)


def remove_stale(folder: Path, names: re.Pattern[str] = _TEMPORARY) -> None:
    """Remove the temporary files that killed runs left in the folder.

    Args:
        folder: where to look.
        names: what they are called; its first group is the number of the process that writes them.
    """
    for entry in os.scandir(folder):
        match = names.fullmatch(entry.name)
        if match and not _lives(int(match[1])) and entry.is_file(follow_symlinks=False):
            with suppress(OSError):
                os.unlink(entry.path)


def _lives(process: int) -> bool:
    """Whether a process of this number runs; where that cannot be asked, yes."""
    if fcntl is None:
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def refuse_unread(path: str | PathLike[str]) -> None:
    """Refuse a FIFO that no program reads, where writing would wait for ever, and a disk or a socket, which is no file.

    Raises:
        InputError: one of these.
    """
    where = Path(path)
    if where.is_block_device() or where.is_socket():
        raise InputError(f"{where} is no regular file; give another name")
    if where.is_fifo():
        try:
            os.close(os.open(where, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            raise InputError(f"{where} is a FIFO that no program reads; give the name of a file") from None


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; on success it is synced and takes the name `path`, on an error it is removed.

    Whatever happens (an exception, a full disk, kill -9), `path` holds the old bytes or all of the new ones. A link is
    followed, permissions of a file that is replaced are kept. A device such as /dev/stdout is written to directly.

    Raises:
        InputError: the folder is missing or cannot be written to, or `path` is a folder.
        FailureError: the disk is full or the write failed.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "picks.txt"
    >>> with atomic_path(path) as temporary:
    ...     size = temporary.write_text("row 7")
    >>> path.read_text(), [p.name for p in path.parent.iterdir()]
    ('row 7', ['picks.txt'])
    """
    named = Path(path)
    target = Path(os.path.realpath(named))
    if target.is_dir():
        raise InputError(f"{named} is a folder; name a file in it")
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"{named}: the folder {folder} does not exist; create it first")
    if target.exists() and not target.is_file():
        refuse_unread(named)
        with _writing(named):
            yield target
        return
    remove_stale(folder)
    temporary = folder / f".{target.name[:180]}.kofn-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        # Created here and not by the writer, to distinguish a folder without write permission from a failed write.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        if error.errno in _FULL:
            raise FailureError(_full(named)) from None
        raise InputError(f"{named} cannot be written: {error.strerror}; choose another folder") from None
    try:
        with _writing(named):
            yield temporary
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o7777)
            _sync(temporary)
            os.replace(temporary, target)
            _sync(folder)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_table(frame: pl.DataFrame, path: str | PathLike[str]) -> Path:
    """Write a table by the suffix of `path`: .csv, .tsv, .parquet, .jsonl; whole or not at all.

    CSV and TSV have no lists: a list column is written as JSON (`[0.1,2.0]`, floats in their shortest exact form),
    which `Table.vectors` reads back. The other formats keep every type.

    Returns:
        The path.

    Raises:
        InputError: unknown suffix, or a folder that cannot be written to.
        FailureError: the disk is full; an existing file at `path` is unchanged.
    """
    target = Path(path)
    suffix = table_suffix(target)
    with atomic_path(target) as temporary:
        if suffix == ".parquet":
            frame.write_parquet(temporary)
        else:
            _write_lines([frame], temporary, suffix)
    return target


def write_parts(frames: Iterable[pl.DataFrame], path: str | PathLike[str]) -> Path:
    """Write frames of one schema, of which there is one at least, below one another as `write_table` writes one.

    One frame at a time is in memory, and what a writer of Parquet holds of a row group.
    """
    from polars.io.plugins import register_io_source

    target = Path(path)
    suffix = table_suffix(target)
    left = iter(frames)
    first = next(left)
    with atomic_path(target) as temporary:
        if suffix != ".parquet":
            _write_lines(chain([first], left), temporary, suffix)
            return target

        def source(*_: object) -> Iterator[pl.DataFrame]:
            yield first
            yield from left

        register_io_source(source, schema=first.schema).sink_parquet(temporary, maintain_order=True)
    return target


def write_lines(lines: Iterable[bytes], path: str | PathLike[str]) -> Path:
    """Write lines, each with a line end; whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as sink:
        sink.writelines(line + b"\n" for line in lines)
    return Path(path)


def table_suffix(path: str | PathLike[str]) -> str:
    """The suffix of an output table, refused early if it is not one that can be written."""
    where = Path(path)
    suffix = where.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        near = nearest(suffix, TABLE_SUFFIXES)
        raise InputError(f"{where}: cannot write {suffix or 'without a suffix'}{near}; use {', '.join(TABLE_SUFFIXES)}")
    return suffix


def _write_lines(frames: Iterable[pl.DataFrame], path: Path, suffix: str) -> None:
    """CSV, TSV or JSONL through a file of ours: its closing reports a full disk, which not every writer's does."""
    with open(path, "wb") as sink:
        separator, has_header = "\t" if suffix == ".tsv" else ",", False
        for frame in frames:
            if suffix in (".jsonl", ".ndjson"):
                sink.writelines(part.write_ndjson().encode() for part in frame.iter_slices(_SLICE))
                continue
            flat = _flat(frame)
            if not has_header:
                sink.write(flat.head(0).write_csv(separator=separator).encode())
                has_header = True
            for part in flat.iter_slices(_SLICE):
                sink.write(part.write_csv(separator=separator, include_header=False).encode())


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    def as_json(series: pl.Series) -> pl.Series:
        rows = pl.DataFrame({"v": series}).with_columns(pl.struct("v").struct.json_encode())["v"]
        return rows.str.slice(len('{"v":')).str.head(-1).set(series.is_null(), None)

    nested = [as_json(series).alias(series.name) for series in frame if series.dtype.is_nested()]
    return frame.with_columns(nested)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(path: Path) -> str:
    return f"{path} could not be written: the disk is full, nothing was replaced; free space or name another folder"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a writer's errors about the disk into one line; other errors pass."""
    try:
        yield
    except OSError as error:
        text = str(error).lower()
        if error.errno in _FULL or any(word in text for word in _FULL_WORDS):
            raise FailureError(_full(path)) from None
        reason = error.strerror or " ".join(str(error).split())
        raise FailureError(f"{path} could not be written: {reason}; nothing was replaced") from None
    except Exception as error:
        if any(word in str(error).lower() for word in _FULL_WORDS):
            raise FailureError(_full(path)) from None
        raise
