"""The types of the shared words, each written once, in bundles that a method takes as `**where: Unpack[Where]`.

`@method` expands a bundle (PEP 692) into the method's signature and docstring. Words of the vocabulary take their
sentence from `kofn.core.vocabulary`; other keys of a bundle carry theirs: `Annotated[type, sentence, default]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Protocol, TypedDict

from numpy.typing import ArrayLike

Metric = Literal["euclidean", "sqeuclidean", "cosine", "rbf", "precomputed"]
Items = ArrayLike | Iterable[Any]
# True shows how far the work is; a callable is told each `kofn.core.progress.Step`.
Progress = bool | Callable[[Any], Any] | None


class HasColumns(Protocol):
    """A frame of pandas or polars, an Arrow table."""

    @property
    def columns(self) -> Any: ...


class HasColumnNames(Protocol):
    """A `datasets.Dataset`."""

    @property
    def column_names(self) -> Any: ...


# A table with named columns, or its file.
Table = HasColumns | HasColumnNames | Mapping[str, Any] | PurePath


class Inputs(TypedDict, total=False):
    """What there is to decide about."""

    X: ArrayLike | None
    distances: ArrayLike | None
    similarity: Any
    scores: ArrayLike | None
    curves: ArrayLike | None
    members: Iterable[Any] | None
    rankings: ArrayLike | None
    graph: Any


class Qualifiers(TypedDict, total=False):
    """What is known of the items."""

    y: ArrayLike | None
    ids: ArrayLike | str | None
    weights: ArrayLike | None
    base: Any
    importance: ArrayLike | None
    metric: Metric | None


class Grouped(TypedDict, total=False):
    """What a selection must obey beside its size: quotas, and items that must or must not be picked."""

    groups: ArrayLike | Mapping[Any, ArrayLike] | None
    quotas: Mapping[Any, Any] | None
    include: Items | None
    exclude: Items | None
    start: Any


class Where(Grouped, total=False):
    """What a selection must obey: `kofn.core.constraints.Constraints` holds these words together."""

    k: int | None
    budget: float | None
    costs: ArrayLike | None


class Margins(TypedDict, total=False):
    """What an assignment or an allocation must obey."""

    capacity: int | ArrayLike | None
    per_item: int | None
    margins: tuple[ArrayLike, ArrayLike] | None
    bounds: ArrayLike | None


class Rules(TypedDict, total=False):
    """What is maximised."""

    objective: Any
    score: Callable[..., Any] | None


class Limits(TypedDict, total=False):
    """What long work may take, and whether it shows how far it is; `kofn.core.runtime.Control` reads it."""

    time_limit: float | None
    progress: bool | Callable[[Any], Any] | None


class Resources(Limits, total=False):
    """Limits, and how much memory and how many threads the work may use."""

    max_memory: int | str | None
    n_threads: int | None


class Runtime(Resources, total=False):
    """Resources, and the seed of what is drawn at random."""

    seed: int | None


class Words(Inputs, Qualifiers, Where, Margins, Rules, Runtime, total=False):
    """Every word of the vocabulary with its type."""

    engine: str | None
    device: str | None


# Words that say something of a table, for the verbs whose items may be its rows: the type, and a sentence.
OF_TABLES: Mapping[str, tuple[str, str]] = {
    "text": ("str | None", "Of a table: compare rows by this column of texts."),
    "embedder": ("str | None", "Of texts: the model that embeds them, or 'tfidf' for their words."),
    "cache": ("bool | None", "Of texts: keep what a model gave, and use what it gave before; default True."),
    "vectors": ("str | None", "Of a table: compare rows by this column of vectors."),
    "columns": (
        "str | Sequence[str] | None",
        "Of a table: compare rows by these columns, numbers scaled, categories one-hot.",
    ),
    "categories": ("str | Sequence[str] | None", "Those of columns that hold names, also where they are numbers."),
    "drop_empty": ("bool | None", "Leave out rows that miss a value in a column that is used."),
    "impute": ("str | None", "Fill missing values of compared columns: 'median', 'mean' or 'most_frequent'."),
    "na": ("str | Sequence[str] | None", "Cells that stand for a missing value, such as ['NA', '-']."),
    "decimal": ("str | None", "The sign before decimals in columns of text, '.' or ','."),
    "dedupe": (
        "float | None",
        "Drop near-duplicates first, from this similarity on; without k all others are kept, but for rows that "
        "repeat one of private.",
    ),
    "proportional": (
        "str | Sequence[str | tuple[str, ...]] | None",
        "Each group of these columns at its share of the pool; a tuple of columns: each cell.",
    ),
    "each": (
        "Mapping[str | tuple[str, ...], int] | None",
        "{column: N}: N rows of each of its groups, all of those that have fewer; of a tuple of columns: of each cell.",
    ),
    "classes": ("int | None", "The picks are to be labelled, in about so many classes: a hint to auto."),
    "equal": ("bool | None", "Groups of equal size, up to one row."),
    "long": (
        "str | Sequence[str] | None",
        "Of a table of one score a row: the columns of the item, the bin and the score.",
    ),
}
_OF_ROWS = ("text", "embedder", "cache", "vectors", "columns", "categories", "drop_empty", "impute", "na", "decimal")
OF_TABLES_BY_VERB: Mapping[str, tuple[str, ...]] = {
    "select": (*_OF_ROWS, "dedupe", "proportional", "each", "classes"),
    "assign": (*_OF_ROWS, "equal", "long"),
}


def part(words: Mapping[str, Any], bundle: type[Any]) -> dict[str, Any]:
    """Those of `words` that belong to the bundle."""
    keys: Sequence[str] = tuple(bundle.__annotations__)
    return {name: words[name] for name in keys if name in words}
