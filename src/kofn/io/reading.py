"""How a table of text is read: what counts as empty, the sign of decimals, the separator, the encoding, compression."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kofn.core.checks import FailureError, InputError, choice
from kofn.core.lazy import polars as pl
from kofn.io.cells import EUROPEAN, number_cells

# What to do about a cell without a value.
FILL_OR_DROP = "fill or drop those rows first (--impute median, --drop-empty)"
_DROP = "fill it, or leave such rows out"
EMPTY = ("refuse", "drop", "median", "mean", "most_frequent")
_OPENERS: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]
_ZSTANDARD, _ZSTANDARD_MARK = ".zst", b"\x28\xb5\x2f\xfd"
COMPRESSED = (*_OPENERS, _ZSTANDARD)
_TEXT = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
_BLOCK = 1 << 20
_PLAIN_NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"


@dataclass(frozen=True)
class Reading:
    """How a table of text is read.

    Args:
        na: cells that stand for a missing value, beside the empty one.
        decimal: "." or ",", in which case "." groups thousands.
        delimiter: what separates the fields; by the suffix where None.
        encoding: of the text, UTF-8 where None (UTF-16 is told by its first bytes).
        empty: what becomes of rows with a missing value in a column that is used: refused, dropped, or filled by the
            column's median, mean or most frequent value (words always by the most frequent one).
        has_flag: the command that reads has --drop-empty, so that messages may name it.
    """

    na: tuple[str, ...] = ()
    decimal: str = "."
    delimiter: str | None = None
    encoding: str | None = None
    empty: str = "refuse"
    has_flag: bool = False

    def __post_init__(self) -> None:
        choice(self.decimal, "decimal", (".", ","))
        choice(self.empty, "empty", EMPTY)
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in '"\r\n' or ord(self.delimiter) > 127
        ):
            raise InputError(f"delimiter={self.delimiter!r}: give one character, such as ';' or '|'")
        if self.encoding is not None:
            try:
                # Others turn bytes into bytes or text into text, such as base64 and rot13.
                is_text = getattr(codecs.lookup(self.encoding), "_is_text_encoding", True)
            except (LookupError, ValueError):
                is_text = False
            if not is_text:
                raise InputError(f"encoding={self.encoding!r} is not known; give one such as latin-1 or cp1252")

    @property
    def drop(self) -> str:
        """What to do about a cell without a value that is not compared."""
        return f"{_DROP} with --drop-empty" if self.has_flag else _DROP

    def without_na(self, series: pl.Series) -> pl.Series:
        """The column with null where a cell stands for a missing value; of numbers, where it is such a number."""
        marks: list[Any] = list(self.na)
        if series.dtype == pl.String:
            bare = series.str.strip_chars()
        elif series.dtype.is_numeric():
            bare, marks = series.cast(pl.Float64), [float(mark) for mark in marks if re.fullmatch(_PLAIN_NUMBER, mark)]
        else:
            return series
        return series.set(bare.is_in(marks).fill_null(value=False), None) if marks else series

    def cells(self, text: pl.Series) -> pl.Series:
        """The cells with missing values null and decimals spelt with a point."""
        text = self.without_na(text)
        if self.decimal == ",":
            european = text.str.contains(EUROPEAN)
            if european.any() and european.all():
                text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        return text

    def numbers(self, series: pl.Series) -> pl.Series:
        """Text all of whose cells are numbers, of any length, as such."""
        if series.dtype != pl.String:
            return series
        bare = self.cells(series).str.strip_chars(" \t")
        numbers = number_cells(bare.set(bare == "", None))
        return numbers if numbers.dtype.is_numeric() else series

    def filled(self, series: pl.Series) -> pl.Series:
        """The column without missing values, as `empty` says; of a column without any value, as it is."""
        known = series.drop_nulls()
        if len(known) == len(series) or len(known) == 0:
            return series
        if series.dtype.is_nested():
            return series
        how = "median" if self.empty == "drop" else self.empty
        if series.dtype.is_numeric() and how in ("median", "mean"):
            value = known.median() if how == "median" else known.mean()
            return _fill(series, value)
        return _fill(series, known.mode().sort()[0])


def _fill(series: pl.Series, value: Any) -> pl.Series:
    if series.dtype.is_integer() and value != int(value):
        series = series.cast(pl.Float64)
    return series.to_frame().select(pl.col(series.name).fill_null(pl.lit(value)))[series.name]


def suffix_of(path: Path) -> str:
    """The suffix of the table, below that of its compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def plain_copy(path: Path, encoding: str | None) -> Path | None:
    """A decompressed copy in UTF-8 of a table that is not so itself, in a temporary file; None where none is needed."""
    opener = _OPENERS.get(path.suffix.lower())
    if suffix_of(path) not in _TEXT:
        return None
    if path.suffix.lower() == _ZSTANDARD:
        return _unpacked_lines(path, encoding)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if opener is not None:
            with opener(path, "rb") as unpacked:
                start = unpacked.read(4)
        if encoding is None and (order := _order_of_utf16(start)):
            raise InputError(f"{path} is UTF-16 text without a byte order mark; say --encoding {order}")
        encoding = encoding or ("utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None)
        if encoding is None and start.startswith(codecs.BOM_UTF8) and suffix_of(path) in _TEXT[3:]:
            encoding = "utf-8-sig"
        if opener is None and (encoding is None or codecs.lookup(encoding).name == "utf-8"):
            return None
        handle, name = tempfile.mkstemp(suffix=suffix_of(path))
        decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        with (opener or open)(path, "rb") as source, os.fdopen(handle, "wb") as sink:
            while block := source.read(_BLOCK):
                sink.write(decoder.decode(block).encode() if decoder else block)
            if decoder is not None:
                sink.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise InputError(f"{path} is not {encoding}: {reason}; name the right --encoding") from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FailureError(f"{path} cannot be read: {error.strerror}") from None
        remedy = f"name it {suffix_of(path)}" if _is_plain(path) else "copy or write it again"
        raise InputError(f"{path} cannot be decompressed ({error}); {remedy}") from None
    return Path(name)


def _order_of_utf16(start: bytes) -> str | None:
    """The order of bytes in UTF-16 text without a mark, told by its first two characters where they are Latin ones."""
    zeros = [byte == 0 for byte in start]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else None


def _unpacked_lines(path: Path, encoding: str | None) -> Path:
    """A decompressed copy of a text in Zstandard, which Python reads from 3.14 on and polars line by line."""
    if encoding is not None and codecs.lookup(encoding).name != "utf-8":
        raise InputError(f"{path} is not read in --encoding {encoding} while compressed; decompress it first (zstd -d)")
    with open(path, "rb") as file:
        if file.read(4) != _ZSTANDARD_MARK:
            remedy = f"name it {suffix_of(path)}" if _is_plain(path) else "copy or write it again"
            raise InputError(f"{path} cannot be decompressed (it is not Zstandard); {remedy}")
    handle, name = tempfile.mkstemp(suffix=suffix_of(path))
    os.close(handle)
    try:
        pl.scan_lines(path, glob=False).sink_csv(name, include_header=False, quote_style="never")
    except (pl.exceptions.PolarsError, OSError) as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.errno is not None:
            raise FailureError(f"{path} cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be decompressed ({reason}); copy or write it again") from None
    return Path(name)


def _is_plain(path: Path) -> bool:
    """Whether the file begins as text that is not compressed, whatever its name says."""
    with open(path, "rb") as file:
        start = file.read(1024)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeError:
        return False
    return bool(start) and not set(start) & {*range(9), *range(14, 32)}
