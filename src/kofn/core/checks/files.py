"""Files that are read: what would make a reader wait, and what is damaged, is refused in one line."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kofn.core.checks.errors import InputError

# How NumPy, SciPy and zipfile fail on an array file that is none, or a damaged one.
DAMAGE = (
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
_TOLD = 160


def regular(path: str | PathLike[str]) -> Path:
    """The path, unless a FIFO, a device or a socket stands there, from which a reader may wait for ever.

    Raises:
        InputError: the path exists and is neither a file nor a folder.

    >>> regular("rows.csv").name
    'rows.csv'
    """
    where = Path(path)
    if names_a_file(where) and not (where.is_file() or where.is_dir()):
        raise InputError(f"{where} is no regular file; write what it gives to a file first")
    return where


def names_a_file(text: str | PathLike[str]) -> bool:
    """Whether something stands at this path; a long text, or one with a zero byte, is no path.

    >>> names_a_file("no such file"), names_a_file("x" * 5000), names_a_file("a\\0b")
    (False, False, False)
    """
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def load_arrays(path: str | PathLike[str], label: str = "", **how: Any) -> Any:
    """The array of an .npy file, or a mapping with all arrays of an .npz archive.

    Args:
        path: the file; objects in it are never unpickled.
        label: what a refusal calls it, the path itself by default.
        **how: for `numpy.load`, such as `mmap_mode`.

    Raises:
        InputError: no such file, no regular file, or one that is damaged.
    """
    where, called = regular(path), label or str(path)
    with reading_arrays(called, where.name):
        loaded = np.load(where, allow_pickle=False, **how)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        with loaded as archive:
            return {name: archive[name] for name in single_members(archive.zip, called)}


def single_members(archive: zipfile.ZipFile | None, label: str) -> list[str]:
    """The names of the arrays in an NPZ archive.

    Raises:
        InputError: a name is there twice, so that one of the two arrays would be dropped in silence.
    """
    names = [] if archive is None else [member.removesuffix(".npy") for member in archive.namelist()]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{label} holds two arrays {twice[0]!r}; write it again with numpy.savez")
    return names


@contextmanager
def reading_arrays(label: str, file_name: str) -> Iterator[None]:
    """Within it an array file is read, by NumPy, SciPy or zipfile; their errors become one line that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{label}: no such file; check the path") from None
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, EOFError):
            raise InputError(f"{label} cannot be read: {os.strerror(error.errno)}") from None
        _refuse(label, file_name, error)


def _refuse(label: str, file_name: str, error: BaseException) -> NoReturn:
    reason = " ".join(str(error).split())
    if isinstance(error, SyntaxError | tokenize.TokenError):
        raise InputError(f"{label} is damaged: its header cannot be read; copy or write {file_name} again") from None
    if "contains pickled" in reason:
        raise InputError(
            f"{label} is not an array, or holds Python objects; save plain numbers with numpy.save"
        ) from None
    if any(words in reason for words in ("allow_pickle", "Object arrays", "Python objects", "object arrays")):
        raise InputError(f"{label} holds Python objects; save plain numbers, as in astype('float32')") from None
    if "mmap length" in reason or "EOF" in reason or isinstance(error, EOFError) or "reading array" in reason:
        raise InputError(f"{label} is truncated; copy or write {file_name} again") from None
    if isinstance(error, zipfile.BadZipFile | zlib.error | NotImplementedError | RuntimeError):
        raise InputError(f"{label} cannot be read: {reason[:_TOLD]}; copy or write {file_name} again") from None
    raise InputError(f"{label} is not a NumPy array file ({reason[:_TOLD]}); write it with numpy.save") from None
