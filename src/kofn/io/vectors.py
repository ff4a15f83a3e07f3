"""Vectors from text, mixed columns, a column of vectors, or an embedding model."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError, refuse_nonfinite
from kofn.core.lazy import polars as pl
from kofn.core.words import Progress
from kofn.io.cells import missing_in
from kofn.io.embedders import open_embedder
from kofn.io.embedding import Embedded, embedded, model_for
from kofn.io.reading import FILL_OR_DROP
from kofn.io.words import DIMS, text_vectors

if TYPE_CHECKING:
    from kofn.io.tables import Table


MAX_CATEGORIES = 1000
# A column of names in whose rows this share differs, of so many rows at the least, most likely names the rows.
_MOSTLY, _FEW_ROWS = 0.9, 10
# The names of columns that a program named.
_UNNAMED = re.compile(r"(?i)\s*(unnamed: ?\d+|column_\d+)?\s*")
# Characters of all texts that are looked at where only the shape of the vectors counts, and of one text at the least.
_LOOKED_AT, _SHORTEST = 500_000, 40
# Texts that are looked at for fields, and what a field of numbers is.
_FIRST_TEXTS = 6
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


class PoolVectors(NamedTuple):
    """Vectors of a pool, `how` they were made, whether they are the words of texts without a model, and what to say."""

    X: Any
    how: str
    by_words: bool = False
    notes: tuple[str, ...] = ()


def pool_vectors(
    table: Table,
    *,
    text: str | None = None,
    vectors: str | None = None,
    columns: Sequence[str] | None = None,
    categories: Sequence[str] = (),
    embedder: str | None = None,
    cache: bool = True,
    progress: Progress = None,
    stand_in: bool = False,
    max_memory: int | str | None = None,
    in_parts: str | None = None,
    times: float = 1.0,
    device: str | None = None,
    dims: int = DIMS,
    seed: int = 0,
) -> PoolVectors:
    """The vectors of a table from one text column, one vector column or several columns.

    Args:
        table: n rows.
        text: a column of text, through `embed_texts` where `embedder` is given, else by `model_for`.
        vectors: a column (Parquet, JSONL, CSV) or array (NPZ) of vectors, unchanged.
        columns: numbers, dates, booleans and categories, through `column_vectors`.
        categories: those of columns that hold names, also where they are written as numbers.
        embedder: name or path of a model, or "tfidf" for none.
        cache: keep what the model gives, and use what it gave before.
        progress: True shows how far the model is; a callable is told each step.
        stand_in: in place of a model's vectors give others of their width, made of words, and of long texts look at
            their beginnings alone: to time what comes after.
        max_memory: bytes that comparing texts by their words may take.
        in_parts: the method that reads texts in parts, where there is one.
        times: how many times as many rows the whole has, where the table is its beginning.
        device: as in `embed_texts`.
        dims: dimensions of text vectors without an embedder.
        seed: of the text vectors' random sketch.

    With none of text, vectors and columns, an NPY file gives its array and any other table its only vector column.

    Returns:
        `X`, (n, d), and `how` it was made, in one line.

    Raises:
        InputError: not exactly one of text, vectors and columns; an unknown column; a value that cannot be used; texts
            that take more than `max_memory`.
    """
    given = [name for name, value in (("text", text), ("vectors", vectors), ("columns", columns)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; give one of text, vectors, columns")
    if categories and not columns:
        raise InputError(f"categories={', '.join(categories)}: they are some of the columns; name these with columns")
    if embedder is not None and text is None:
        raise InputError(f"embedder={embedder!r} needs text: name the column to embed")
    if text is not None:
        texts = table.texts(text)
        notes = _like_fields(table, texts)
        model = model_for(texts, embedder)
        if model is not None:
            embedded = by_model(texts, model, cache=cache, progress=progress, stand_in=stand_in, device=device)
            return PoolVectors(embedded.X, embedded.how(f"column {text!r}", asked=embedder is not None), notes=notes)
        from kofn.io.text_memory import refuse_texts_over

        refuse_texts_over(texts, text, max_memory, times, in_parts)
        X = text_vectors(beginnings(texts) if stand_in else texts, dims=dims, seed=seed)
        return PoolVectors(X, f"TF-IDF of column {text!r}, reduced to {X.shape[1]} dimensions", True, notes)
    if columns:
        frame = compared_columns(table, columns, categories)
        X, dimensions = column_vectors(frame)
        # A column of names has a dimension "column=name" for each, and either may hold that sign.
        own = set(frame.columns)
        named = [part for part in dimensions if part not in own]
        counts = Counter(part[:end] for part in named for end in range(len(part)) if part[end] == "=")
        whole = set(dimensions)
        shown = [
            f"{name} ({counts[name]} names)" if counts[name] and name not in whole else name for name in frame.columns
        ]
        names = {name: counts[name] for name in frame.columns if name not in whole}
        return PoolVectors(
            X, f"columns {', '.join(shown)} scaled to equal weight", notes=_unlike_in_every_row(names, len(X))
        )
    if vectors is None:
        vectors = only_vectors(table)
    # The rows of an array stand under a name that only the library gives them.
    source = "the array" if table.path.suffix.lower() == ".npy" else f"column {vectors!r}"
    return PoolVectors(table.vectors(vectors), f"{source} as it is")


def _like_fields(table: Table, texts: pl.Series) -> tuple[str, ...]:
    """A warning where the first texts of the only column have as many words each as its name, as fields have.

    Two words, such as a first and a last name, are texts unless numbers stand in one place of all.
    """
    if not table.by_spaces or table.reading.delimiter is not None:
        return ()
    width = len(table.columns[0].split())
    rows = [str(cell).split() for cell in texts.head(_FIRST_TEXTS).drop_nulls()]
    if len(rows) < 2 or any(len(words) != width for words in rows):
        return ()
    if width == 2 and not any(all(map(_NUMBER.fullmatch, words)) for words in zip(*rows, strict=True)):
        return ()
    return (
        f"warning: the texts of {table.columns[0]!r} have {width} words each, as that name has: if spaces separate its "
        "fields, say --delimiter ' '",
    )


def _unlike_in_every_row(names: Mapping[str, int], n: int) -> tuple[str, ...]:
    """A line on each column of names in which (nearly) every row has one of its own, as a column of ids does.

    Args:
        names: how many names each column has.
        n: how many rows there are.
    """
    return tuple(
        f"warning: column {name!r} differs in {'every row' if count == n else f'{count:,} of {n:,} rows'}, so that it "
        f"only puts all rows equally far apart; if it names them, say --id {shlex.quote(name)} and leave it out of "
        "--columns"
        for name, count in names.items()
        if n >= _FEW_ROWS and count >= _MOSTLY * n
    )


def beginnings(texts: pl.Series) -> pl.Series:
    """Texts cut to so many characters that all of them are soon made into vectors, which have the same shape."""
    return texts.str.head(max(_SHORTEST, _LOOKED_AT // max(1, len(texts))))


def compared_columns(table: Table, columns: Sequence[str], categories: Sequence[str] = ()) -> pl.DataFrame:
    """The columns that rows are compared by, those of `categories` as names.

    Raises:
        InputError: a column of `categories` is none of them, or a column cannot be compared.
    """
    if other := next((name for name in categories if name not in columns), None):
        raise InputError(f"categories names {other!r}, which is none of the columns that rows are compared by")
    return pl.DataFrame([table.names(name) if name in categories else table.compared(name) for name in columns])


def by_model(
    texts: pl.Series,
    model: str,
    *,
    cache: bool = True,
    progress: Progress = None,
    stand_in: bool = False,
    device: str | None = None,
) -> Embedded:
    """Texts embedded by a model, or vectors that stand in for these; arguments as in `pool_vectors`."""
    if not stand_in:
        return embedded(texts, model, cache=cache, progress=progress, device=device)
    embedder = open_embedder(model)
    words = text_vectors(beginnings(texts))
    X = np.zeros((len(texts), max(embedder.dims, words.shape[1])), np.float32)
    X[:, : words.shape[1]] = words
    return Embedded(X, embedder.shown, None)


def only_vectors(table: Table, besides: Collection[str] = ()) -> str:
    """The only column of vectors of a table; a refusal proposes no column of `besides`, unless there is no other.

    Raises:
        InputError: there is none, or several.
    """
    kinds = {name: table.dtype(name) for name in table.columns}
    vectors = [name for name, kind in kinds.items() if kind == "vector"]
    if len(vectors) == 1:
        return vectors[0]
    if vectors:
        raise InputError(f"{table.path} has several columns of vectors ({', '.join(vectors)}); name one with --vectors")
    offered = {
        name: kind for name, kind in kinds.items() if not _UNNAMED.fullmatch(name) and name not in besides
    } or kinds
    texts = [name for name, kind in offered.items() if kind == "text"][:4]
    if texts and table.by_spaces:
        typed = shlex.quote(texts[0])
        raise InputError(
            f"{table.path} has no column of vectors{table.by_spaces}; if it holds texts, say --text {typed}"
        )
    numbers = [name for name, kind in offered.items() if kind in ("number", "date", "boolean")][:4]
    hints = []
    if texts:
        hints.append(f"--text COLUMN (such as {', '.join(texts)})")
    if numbers:
        hints.append(f"--columns A,B (such as {','.join(numbers)})")
    raise InputError(
        f"{table.path} has no column of vectors; say what the rows are compared by: {' or '.join(hints) or '--vectors'}"
    )


def column_vectors(frame: pl.DataFrame) -> tuple[NDArray[np.float32], list[str]]:
    """Vectors from mixed columns in which every column weighs the same.

    Numbers, booleans (0 and 1), dates and times (their position in time) are centred and divided by their standard
    deviation. Text and categories become one dimension a value (1 or 0), centred and divided by sqrt(1 - sum p²), p
    being the values' shares. Each column then has mean 0 and total variance 1: between two random rows it adds 2 to the
    expected squared distance whatever its kind, unit or number of values. A constant column is all zeros.
    Text that is a date in every row (2024-05-31, or with a time) counts as a date.

    Args:
        frame: the columns, n rows; no missing cells.

    Returns:
        (n, d) float32 and the d names ("price", "origin=USA").

    Raises:
        InputError: a missing or infinite value (row and column), a kind of column that has no scale, or more than 1,000
            different values of a category.

    Cost: O(n * d) time and memory.

    >>> X, names = column_vectors(pl.DataFrame({"price": [1, 2, 3], "make": ["a", "b", "a"]}))
    >>> names, X.shape, X.var(axis=0).sum().round(5).item()
    (['price', 'make=a', 'make=b'], (3, 3), 2.0)
    """
    scaled = scaled_columns(frame)
    vectors = np.concatenate([part.block(0, frame.height) for part in scaled], axis=1, dtype=np.float32)
    return vectors, [name for part in scaled for name in part.names]


@dataclass(frozen=True)
class ScaledColumn:
    """A column as the dimensions of vectors, made block by block.

    Attributes:
        names: of the dimensions.
        values: (n,) the scaled numbers, or the numbers of the values in alphabetical order.
        shares: of each value; None of numbers.
    """

    names: tuple[str, ...]
    values: Array
    shares: Array | None = None

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """The dimensions of some rows, (rows, len(names))."""
        values = self.values[start:stop]
        if self.shares is None:
            return values[:, None]
        block = np.zeros((len(values), len(self.shares)), np.float32)
        if len(self.shares) > 1:
            block[np.arange(len(values)), values] = 1
            block -= self.shares.astype(np.float32)
            block /= np.float32(np.sqrt(1 - np.sum(self.shares**2)))
        return block


def scaled_columns(frame: pl.DataFrame) -> list[ScaledColumn]:
    """The columns of `column_vectors`, of which the vectors are made block by block: 2 or 4 bytes a row and column."""
    if frame.width == 0 or frame.height == 0:
        raise InputError("columns is empty; name at least one column of a table with rows")
    return [_scaled(series) for series in frame]


def _scaled(series: pl.Series) -> ScaledColumn:
    label = f"column {series.name!r}"
    missing = missing_in(series)
    if missing.any():
        row = missing.arg_max() or 0
        raise InputError(f"{label} at row {row} is {'empty' if series[row] is None else 'NaN'}; {FILL_OR_DROP}")
    kind = series.dtype
    if kind == pl.String:
        series = _as_dates(series)
        kind = series.dtype
    if kind.is_temporal():
        series = series.to_physical()
    if kind.is_numeric() or kind == pl.Boolean or kind.is_temporal():
        values = _from_the_least(series)
        refuse_nonfinite(values, label)
        return ScaledColumn((series.name,), _standard(values).astype(np.float32))
    if kind == pl.String or kind == pl.Categorical or kind == pl.Enum:
        return _one_hot(series.cast(pl.String), label)
    raise InputError(f"{label} holds {kind}; use --vectors for a column of vectors, or leave it out")


def _from_the_least(series: pl.Series) -> Array:
    """The values as floats; large whole numbers less the smallest, since floats do not hold them apart."""
    floats = series.cast(pl.Float64).to_numpy()
    if series.dtype in (pl.Int128, pl.UInt128) or series.dtype.is_decimal():
        exact = [Fraction(value) for value in series.to_list()] if np.abs(floats).max() >= 1 << 53 else []
        least = min(exact, default=Fraction(0))
        return np.array([float(value - least) for value in exact]) if exact else floats
    if series.dtype.is_integer():
        whole = series.cast(pl.UInt64 if series.dtype == pl.UInt64 else pl.Int64).to_numpy()
        low = int(whole.min())
        if max(-low, int(whole.max())) >= 1 << 53:
            # Differences of 64 bits may exceed them; as unsigned numbers, which go round, they do not.
            return (whole.astype(np.uint64) - np.uint64(low % (1 << 64))).astype(np.float64)
    return floats


def _standard(values: Array) -> Array:
    """Centred, divided by the standard deviation; zeros if constant up to rounding."""
    largest = np.abs(values).max()
    scaled = values / largest if largest > 0 else values  # so that squares of huge numbers stay finite
    centred = scaled - scaled.mean()
    deviation = np.sqrt(np.mean(centred**2))
    return centred / deviation if deviation > 1e-12 else np.zeros_like(values)


def _one_hot(series: pl.Series, label: str) -> ScaledColumn:
    values = series.unique().sort()
    if len(values) > MAX_CATEGORIES:
        raise InputError(f"{label} has {len(values)} different values; more than {MAX_CATEGORIES} is text, use --text")
    codes = series.cast(pl.Enum(values)).to_physical().to_numpy()
    shares = np.bincount(codes, minlength=len(values)) / len(codes)
    return ScaledColumn(tuple(f"{series.name}={value}" for value in values.to_list()), codes, shares)


def _as_dates(series: pl.Series) -> pl.Series:
    """Dates, or dates with times, where every row is written as one in ISO form; otherwise the text unchanged.

    Raises:
        InputError: a row is written as a date that no calendar has.
    """
    if not series.str.contains(r"^\d{4}-\d{2}-\d{2}([T ]|$)").all():
        return series
    try:
        if series.str.len_chars().max() == 10:
            return series.str.to_date("%Y-%m-%d")
        return series.str.to_datetime(time_unit="us", time_zone="UTC")
    except pl.exceptions.PolarsError:
        wrong = series.str.head(10).str.to_date("%Y-%m-%d", strict=False).is_null()
        if not wrong.any():
            return series
        row = wrong.arg_max() or 0
        raise InputError(
            f"column {series.name!r} at row {row} is {series[row]!r}, which is no date; correct it"
        ) from None
