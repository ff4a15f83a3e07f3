"""Pools that another process has opened: on workers they are opened by the names of their files."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

from kofn.core.checks import InputError
from kofn.io.many import open_tables
from kofn.io.pool import Pool
from kofn.io.reading import Reading
from kofn.io.stamps import Stamp


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
