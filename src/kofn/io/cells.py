"""What cells of text stand for: numbers, dates, names, nothing; and which cell keeps a column from being numbers.

>>> import polars as pl
>>> odd_cell(pl.Series(["1.5", "2", "tbd", "7"])), odd_cell(pl.Series(["S", "M", "40"]))
(2, None)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.checks.exact import whole_as_floats
from kofn.core.lazy import polars as pl

# What a person reads as a number, a date or no value, and a machine as neither.
_AMOUNT = (
    r"[+\u2212\u2013-]?[$€£¥₹]?\s*(\d{1,3}([,'_ \u00a0\u202f\u2019.]\d{3})+([.,]\d+)?|\d+,\d+|\d+([.,]\d+)?\s*%"
    r"|[$€£¥₹]\s*\d+([.,]\d+)?|\d+([.,]\d+)?\s*[$€£¥₹])"
)
# With commas between thousands.
_GROUPED = r"^\s*[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?\s*$"
# Ledgers write what is below zero in brackets, and typesetters with a sign of their own.
_LIKE_A_NUMBER = rf"^\s*({_AMOUNT}|\(({_AMOUNT}|\d+(\.\d+)?)\)|[\u2212\u2013]\s*\d+(\.\d+)?)\s*$"
# With a comma before decimals, where points group thousands.
EUROPEAN = r"^\s*[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]*)?([eE][+-]?[0-9]+)?\s*$"
_LIKE_NOTHING = (
    r"(?i)^\s*\(?<?(n\.?\s*/?\s*a\.?|nan|nat|null|none|nil|[-\u2013\u2014]+|\?+|\.+|\*+|missing|unknown|tbd|\\n|inf|-inf"
    r"|#(n/a|value!|div/0!|ref!|name\?|num!))?>?\)?\s*$"
)
_UNLABELLED = r"(?i)^\s*<?\(?(un-?label+ed|no[ _-]?label|not[ _-]?label+ed|to-?do|unset)\)?>?\s*$"
_DATE = r"^\s*\d{4}-\d{2}-\d{2}([T ].*)?$"
_LIKE_A_DATE = (
    r"^\s*((\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{1,2}[/-]\d{1,2}[/-]\d{2})([T ,].*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(\s*[aApP]\.?[mM]\.?)?)\s*$"
)
# A cell's text stays text unless a number says the same: 007, +5, 1_000 and keys longer than an int64 are not numbers.
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_DECIMAL = r"^([+-]?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:nan|inf|infinity))$"
# Numbers whatever their length, which only a column of numbers may be read as: others hold keys of many digits.
_WIDE_WHOLE = r"^(0|-?[1-9][0-9]*)$"
_NUMBER = r"^([+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:nan|inf|infinity))$"
# Whole numbers of so many characters, sign and all, are an Int128.
_WIDEST = 38
# Numbers that take more values than this, or hardly repeat, or have decimals, measure something and name nothing.
_FEW_VALUES = 10


@functools.cache
def types() -> tuple[tuple[pl.DataType, str], ...]:
    """What a column of text is read as where all its cells match the pattern."""
    return (pl.Int64(), _WHOLE), (pl.Float64(), _DECIMAL), (pl.Boolean(), r"^(true|false)$")


def odd_cell(series: pl.Series, decimal: str = ".") -> int | None:
    """The row of a cell that keeps a column of numbers or of dates from being one; None where the column holds names.

    A column holds numbers (dates) where every cell is one, is written like one or stands for no value, and where more
    than half of its cells are numbers (dates) that measure something: they take many values, hardly repeat or have
    decimals.
    """
    if series.dtype != pl.String:
        return None
    cells = series.fill_null("").str.strip_chars(" \t")
    nothing = cells.str.contains(_LIKE_NOTHING)
    number = EUROPEAN if decimal == "," else _NUMBER
    for exact, like in ((number, f"({_NUMBER})|({_LIKE_A_NUMBER})"), (_DATE, _LIKE_A_DATE)):
        plain = cells.str.contains(exact)
        alike = plain | cells.str.contains(like)
        if not alike.any():
            continue
        if (alike | nothing).all() or _measured(cells, alike, plain, of=int((~nothing).sum())):
            odd = ~plain & (cells != "")
            return int(odd.arg_max() or 0) if odd.any() else None
    return None


def is_number(series: pl.Series, decimal: str = ".") -> pl.Series:
    """Which cells of text are numbers, of any length: `007` is a key.

    >>> is_number(pl.Series(["1.5", "99999999999999999999", "007", "x"])).to_list()
    [True, True, False, False]
    """
    return series.str.strip_chars(" \t").str.contains(f"({_NUMBER})|({EUROPEAN})" if decimal == "," else _NUMBER)


def _measured(cells: pl.Series, alike: pl.Series, plain: pl.Series, of: int) -> bool:
    """Whether more than half of the cells are numbers that measure something."""
    count = int(alike.sum())
    if count * 2 <= of or not plain.any():
        return False
    values = cells.filter(alike).n_unique()
    return values > _FEW_VALUES or values * 2 > count or bool(cells.filter(plain).str.contains(r"\d[.,]\d").any())


def stands_for_nothing(text: str) -> bool:
    """True for what people write where there is no value: `NA`, `?`, `-`, `unknown`, `unlabelled`.

    >>> stands_for_nothing("N/A"), stands_for_nothing("cat")
    (True, False)
    """
    return bool(pl.Series([text]).str.contains(f"{_LIKE_NOTHING}|{_UNLABELLED}")[0])


def remedy(cell: str, decimal: str = ".", *, compared: bool = False) -> str:
    """What to type so that a cell is read; of a column that is compared, its cells may be names too."""
    names = ", or say --categories if the column holds names" if compared else ""
    if pl.Series([cell]).str.contains(_LIKE_NOTHING)[0] or not any(sign.isdigit() for sign in cell):
        then = ", and --drop-empty or --impute median" if compared else ""
        return f"if it stands for no value, say --na {cell.strip()!r}{then}{names}"
    if pl.Series([cell]).str.contains(_LIKE_A_DATE)[0]:
        return f"write dates and times as in 2024-12-31 or 2024-12-31 09:20{names}"
    if "%" in cell:
        return f"write it as a plain number, without the percent sign{names}"
    if decimal == ",":
        return f"with --decimal , numbers are written as 1234,5 or 1.234,5; write them all alike{names}"
    if pl.Series([cell]).str.contains(_GROUPED)[0]:
        other = f", or say --decimal , if it stands for {_as_decimal(cell)}" if cell.count(",") == 1 else ""
        return f"write it without the commas between thousands, {cell.replace(',', '')}{other}{names}"
    if "," in cell:
        return f"write it as a plain number, or say --decimal , if commas stand before decimals{names}"
    return f"write it as a plain number{names}"


def _as_decimal(cell: str) -> str:
    """What a comma before decimals would make of a cell, as people write the number."""
    return cell.strip().replace(",", ".")


# Keys of a message that say who speaks, and not what.
_SPEAKERS = ("role", "from", "type", "id", "name")


def words_in(value: Any) -> str:
    """The texts in a nested value, in order, one a line; of messages what they say and not who says it.

    >>> words_in([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    'Hi\\nHello'
    """
    if isinstance(value, dict):
        texts = [part for key, part in value.items() if key not in _SPEAKERS] or list(value.values())
        return words_in(texts)
    if isinstance(value, list):
        return "\n".join(filter(None, map(words_in, value)))
    return value if isinstance(value, str) else ""


# Whole numbers up to these are floats of single and double precision.
_SINGLE, _DOUBLE = 2**24, 2**53


def as_floats(flat: pl.Series, label: str) -> Array:
    """Floats as they are, nulls as NaN; whole numbers in the least precision that holds them, decimals in double.

    Raises:
        InputError: a number that no float holds.
    """
    if not flat.dtype.is_float():
        exact = flat.dtype.is_integer() or flat.dtype.is_decimal()
        ends: list[Any] = [flat.min(), flat.max()] if exact else []
        most = max((abs(end) for end in ends if end is not None), default=0)
        flat = flat.cast(pl.Float64 if _is_double(most, label) or flat.dtype.is_decimal() else pl.Float32)
    return flat.to_numpy()


def whole_kind(array: Array, label: str) -> np.dtype[Any]:
    """The least precise float that holds every number of an array of whole numbers (or booleans).

    Raises:
        InputError: a number that no float holds.
    """
    whole = array.size and array.dtype.kind in "iu"
    most = max(abs(int(array.min())), abs(int(array.max()))) if whole else 0
    return np.dtype(np.float64 if _is_double(most, label) else np.float32)


def _is_double(most: Any, label: str) -> bool:
    """Whether whole numbers up to this are floats of double precision alone."""
    if most > _DOUBLE:
        raise InputError(f"{label} holds numbers up to {most}, beyond what floats hold apart; scale them down")
    return bool(most > _SINGLE)


def exact_numbers(series: pl.Series, label: str) -> Array:
    """A column of numbers, (n,): int64 where all are whole and small enough, uint64 where those are, else float64.

    Raises:
        InputError: numbers beyond 2**53 whose differences float64 does not hold.
    """
    kind = series.dtype
    if kind == pl.Boolean or (kind.is_integer() and kind not in (pl.UInt64, pl.Int128, pl.UInt128)):
        return series.cast(pl.Int64).to_numpy()
    floats = series.cast(pl.Float64).to_numpy()
    if not (kind.is_integer() or (kind.is_decimal() and np.abs(floats).max(initial=0.0) >= _DOUBLE)):
        return floats
    for whole in (pl.Int64, pl.UInt64):
        cast = series.cast(whole, strict=False)
        if not cast.null_count() and (cast.cast(kind) == series).all():
            return cast.to_numpy()
    return whole_as_floats(np.array(series.to_list(), object), label)


def missing_in(series: pl.Series) -> pl.Series:
    """Which cells have no value: empty ones, and NaN."""
    return series.is_null() | series.is_nan().fill_null(value=False) if series.dtype.is_float() else series.is_null()


def typed_cells(text: pl.Series) -> pl.Series:
    """Whole numbers, decimals or booleans where every cell of the text is one and nothing is lost; else the text."""
    cells = text.drop_nulls()
    if len(cells) == 0:
        return text
    head = cells.head(100)  # most columns of text show in their first cells
    for dtype, pattern in types():
        if head.str.contains(pattern).all() and cells.str.contains(pattern).all():
            return cast_cells(text, dtype)
    return text


def number_cells(text: pl.Series) -> pl.Series:
    """Cells of a column that is asked for its numbers: numbers of any length where every cell is one; else the text.

    Whole numbers of up to 38 digits stay exact, beside decimals and beyond that all are float64.

    >>> number_cells(pl.Series(["99999999999999999999", "1"])).to_list()
    [99999999999999999999, 1]
    """
    typed = typed_cells(text)
    cells = text.drop_nulls()
    if typed.dtype != pl.String or len(cells) == 0 or not cells.str.contains(_NUMBER).all():
        return typed
    exact = cells.str.contains(_WIDE_WHOLE).all() and (cells.str.len_chars() <= _WIDEST).all()
    return text.cast(pl.Int128 if exact else pl.Float64)


def cast_cells(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Boolean:
        return text == "true"
    return text if dtype == pl.String else text.cast(dtype)
