"""Opening a table: the kind of a file is that of its suffix.

>>> import polars as pl, tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "pool.csv"
>>> pl.DataFrame({"id": ["007", "010"], "price": [1.5, 2.0]}).write_csv(path)
>>> table = open_table(path)
>>> table.n, table.columns, table.take([1]).rows()
(2, ['id', 'price'], [('010', 2.0)])
"""

from __future__ import annotations

import weakref
from os import PathLike
from pathlib import Path

from kofn.core.checks import InputError, nearest, regular
from kofn.io.formats import KINDS
from kofn.io.reading import COMPRESSED, Reading, plain_copy, suffix_of
from kofn.io.suffixes import refuse_other_kind, remedy_of
from kofn.io.tables import SUFFIXES, Table, reading_file


def open_table(path: str | PathLike[str], reading: Reading | None = None, *, header_alone: bool = False) -> Table:
    """Open a file by its suffix; nothing but the layout is read. `reading` says how text is read.

    With `header_alone` a file with columns and no rows is a table too.

    Raises:
        InputError: no such file, unknown suffix, no rows, or a file that is broken (with the line, byte or reason).
        FailureError: the file is there and cannot be read.

    Cost: CSV and JSONL are checked in one streaming pass, the others by their header.
    """
    where = Path(path)
    if not where.exists():
        near = nearest(where.name, (p.name for p in where.parent.iterdir())) if where.parent.is_dir() else ""
        remote = remedy_of(where) if ":/" in str(where) or str(where) == "-" else ""
        raise InputError(f"{where}: no such file{remote or near}")
    if where.is_dir():
        raise InputError(f"{where} is a folder; name one file in it")
    how = reading or Reading()
    suffix = suffix_of(where)
    if suffix == ".txt" and how.delimiter is not None:
        # What separates the fields is said: it is a table.
        suffix = ".csv"
    packed = where.suffix.lower() in COMPRESSED
    if suffix not in SUFFIXES or (packed and suffix in (".parquet", ".npy", ".npz")):
        # Below a compression that is read it is the inner suffix that is not known.
        inner = Path(where.stem) if packed and suffix and suffix not in SUFFIXES else where
        known = f"give one of {', '.join(SUFFIXES)}{remedy_of(inner)}"
        if packed and inner is where:
            known = "decompress it first"
        raise InputError(f"{where}: unknown suffix {inner.suffix.lower() or '(none)'!r}; {known}")
    regular(where)
    with reading_file(where):
        if where.stat().st_size == 0:
            raise InputError(f"{where} is empty (0 bytes); give a file with at least one row")
        refuse_other_kind(where, suffix)
        plain = plain_copy(where, how.encoding)
        try:
            table = KINDS[suffix](plain or where, how)
        except InputError as error:
            raise InputError(str(error).replace(str(plain or where), str(where))) from None
        if plain is not None:
            table.path = where
            weakref.finalize(table, plain.unlink, missing_ok=True)
    table.reading = how
    if table.n == 0 and not (header_alone and table.columns):
        raise InputError(f"{where} has columns and no rows; give at least one row")
    if not table.columns:
        raise InputError(f"{where} has no columns")
    return table
