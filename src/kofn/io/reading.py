"""How a table of text is read: what counts as empty, the sign of decimals, the separator, the encoding, compression."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core.checks import FailureError, InputError, choice

# What to do about a cell without a value.
FILL_OR_DROP = "fill or drop those rows first (--impute median, --drop-empty)"
EMPTY = ("refuse", "drop", "median", "mean", "most_frequent")
COMPRESSED: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]
_TEXT = (".csv", ".tsv", ".jsonl", ".ndjson")
_BLOCK = 1 << 20
_NUMBER = r"^\s*[+-]?((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?)\s*$"
# What a person reads as a number, or as no value, and a machine as neither.
_LIKE_A_NUMBER = (
    r"^\s*[+-]?[$€£]?\s*(\d{1,3}([,' \u00a0.]\d{3})+([.,]\d+)?|\d+,\d+|\d+([.,]\d+)?\s*%|[$€£]\s*\d+([.,]\d+)?"
    r"|\d+([.,]\d+)?\s*[$€£])\s*$"
)
_LIKE_NOTHING = r"(?i)^\s*(n/?a|nan|null|none|nil|-+|\?+|\.+|missing|unknown|#n/a|#value!|inf|-inf)?\s*$"


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
    """

    na: tuple[str, ...] = ()
    decimal: str = "."
    delimiter: str | None = None
    encoding: str | None = None
    empty: str = "refuse"

    def __post_init__(self) -> None:
        choice(self.decimal, "decimal", (".", ","))
        choice(self.empty, "empty", EMPTY)
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in '"\r\n' or ord(self.delimiter) > 127
        ):
            raise InputError(f"delimiter={self.delimiter!r}: give one character, such as ';' or '|'")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, ValueError):
                raise InputError(
                    f"encoding={self.encoding!r} is not known; give one such as latin-1 or cp1252"
                ) from None

    def cells(self, text: pl.Series) -> pl.Series:
        """The cells with missing values null and decimals spelt with a point."""
        if self.na:
            text = text.set(text.str.strip_chars().is_in(list(self.na)).fill_null(value=False), None)
        if self.decimal == ",":
            european = text.str.contains(r"^\s*[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?([eE][+-]?\d+)?\s*$")
            if european.all():
                text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        return text

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


def odd_cell(series: pl.Series) -> int | None:
    """The row of a cell that keeps a column of numbers from being one: `NA`, `-`, `1,200`, `85.2%`; else None.

    A column is one of numbers where every cell is a number, is written like one, or stands for no value.
    """
    if series.dtype != pl.String:
        return None
    cells = series.fill_null("")
    number, like = cells.str.contains(_NUMBER), cells.str.contains(_LIKE_A_NUMBER)
    if not (number.any() or like.any()) or not (number | like | cells.str.contains(_LIKE_NOTHING)).all():
        return None
    odd = ~number & (cells.str.strip_chars() != "")
    return int(odd.arg_max() or 0) if odd.any() else None


def remedy(cell: str) -> str:
    """What to type so that a cell is read."""
    if "%" in cell:
        return "write it as a plain number, without the percent sign"
    if "," in cell:
        return "write it as a plain number, or say --decimal , if commas stand before decimals"
    if any(sign in cell for sign in "$€£'\u00a0 "):
        return "write it as a plain number"
    return f"if it stands for no value, say --na {cell.strip()!r}, and --drop-empty or --impute median"


def suffix_of(path: Path) -> str:
    """The suffix of the table, below that of its compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def plain_copy(path: Path, encoding: str | None) -> Path | None:
    """A decompressed copy in UTF-8 of a table that is not so itself, in a temporary file; None where none is needed."""
    opener = COMPRESSED.get(path.suffix.lower())
    if suffix_of(path) not in _TEXT:
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if opener is not None:
            with opener(path, "rb") as unpacked:
                start = unpacked.read(4)
        encoding = encoding or ("utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None)
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
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FailureError(f"{path} cannot be read: {error.strerror}") from None
        raise InputError(f"{path} cannot be decompressed ({error}); copy or write it again") from None
    return Path(name)


def empty_rows(series: pl.Series) -> NDArray[np.bool_]:
    """Which rows have no value."""
    return series.is_null().to_numpy()
