"""What a file is by its first bytes, and what to do with a file of a kind that is not read.

>>> kind_of(b"PAR1....")
'a Parquet file'
"""

from __future__ import annotations

import codecs
from pathlib import Path

from kofn.core.checks import InputError

# First bytes -> what the file is, and the suffixes that it may have.
_BEGINNINGS: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"PAR1", "a Parquet file", (".parquet",)),
    (b"\x93NUMPY", "a NumPy array", (".npy",)),
    (b"PK\x03\x04", "a ZIP archive (as are .npz and .xlsx)", (".npz",)),
    (b"\x1f\x8b", "compressed by gzip", (".gz",)),
    (b"BZh", "compressed by bzip2", (".bz2",)),
    (b"\xfd7zXZ", "compressed by xz", (".xz",)),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", (".zst",)),
    (b"ARROW1", "an Arrow (Feather) file", ()),
    (b"ORC", "an ORC file", ()),
    (b"SQLite format 3", "an SQLite database", ()),
    (b"\x89HDF", "an HDF5 file", ()),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", ()),
    (b"%PDF", "a PDF", ()),
)
# Suffix -> how such a file becomes one that is read.
_REMEDIES = {
    ".json": "write one object a line, as in jq -c '.[]' FILE > FILE.jsonl, and name it .jsonl",
    ".txt": "name it .csv or .tsv if it is a table, or say --delimiter; of one text a line make a .csv with a header",
    ".zst": "decompress it first (zstd -d)",
    ".zip": "unzip it first",
    ".tar": "unpack it first",
    ".tgz": "unpack it first",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV"),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".orc", ".avro"), "write it as Parquet, as in df.write_parquet"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".pth"), "a pickle is not read; save the array as .npy"),
    **dict.fromkeys((".h5", ".hdf5", ".mat"), "save the array as .npy"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), "write the rows as Parquet or CSV"),
}


def kind_of(start: bytes) -> str | None:
    """What a file is by its first bytes; None for text, and for what is not known."""
    return next((kind for magic, kind, _ in _BEGINNINGS if start.startswith(magic)), None)


def refuse_other_kind(path: Path, suffix: str) -> None:
    """Refuse a file that is not what its suffix says, and say what it is.

    Raises:
        InputError: its first bytes are those of another kind.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    own = next((suffixes for magic, _, suffixes in _BEGINNINGS if start.startswith(magic)), None)
    if own is None:
        # Whatever is no array and no archive is text, or damaged; the readers say which.
        if suffix in (".npy", ".npz") and _is_text(start):
            raise InputError(f"{path} is text, not a NumPy array; name it .csv, .tsv or .jsonl, whichever it is")
        if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) and suffix not in (".npy", ".npz", ".parquet"):
            raise InputError(f"{path} is UTF-32; say --encoding utf-32")
        return
    if suffix in own or path.suffix.lower() in own:
        return
    how = f"name it {path.stem}{own[0]}" if len(own) == 1 and own[0] not in (".gz", ".bz2", ".xz", ".zst") else None
    how = how or (f"name it {path.name}{own[0]}" if own else "convert or decompress it first")
    raise InputError(f"{path} is {kind_of(start)}, not what its name says; {how}")


def remedy_of(path: Path) -> str:
    """What to do about a suffix that is not read; empty where nothing is known."""
    suffix = path.suffix.lower()
    if "://" in str(path) or ":/" in str(path)[:8]:
        return "; download it first and name the file"
    if str(path) == "-":
        return "; write what comes in to a file first, and name it"
    return f"; {_REMEDIES[suffix]}" if suffix in _REMEDIES else ""


def _is_text(start: bytes) -> bool:
    return bool(start) and all(byte >= 32 or byte in b"\t\r\n" for byte in start)
