"""What is asked of a table's rows, on the command line or in Python: one frozen dataclass of arguments a verb."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from kofn.core import dispatch, registry
from kofn.core.checks import InputError, load_arrays
from kofn.core.vocabulary import SETTINGS, argument
from kofn.engines.opening import addressed
from kofn.io.reading import Reading

if TYPE_CHECKING:
    from kofn.io.tables import Table

# Of each column that quotas name, (least, most) of each group: whole numbers, or shares as fractions.
Quotas = Mapping[str, Mapping[str, tuple[int | Fraction | None, int | Fraction | None]]]


class KeysOf(tuple[str, ...]):
    """What a flag for ids was given each time it was typed, files of ids among them."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class VerbArguments:
    """What every verb's command takes, each field named like the word of Python that it becomes.

    Attributes:
        typed: the whole command, word by word, for the report.
        own_options: options of the method that are no flags of the command itself.
    """

    VERB: ClassVar[str]
    # Fields that are options of methods.
    OPTIONS: ClassVar[tuple[str, ...]] = ()

    typed: tuple[str, ...] = ()
    own_options: Mapping[str, Any] = field(default_factory=dict)
    method: Any = "auto"  # a name; of Any type, since the verbs' types know each method by its own literal
    output: str | None = None
    report: str | None = None
    plan_path: str | None = None
    as_json: bool = False
    dry_run: bool = False
    seed: int | None = None
    max_memory: int | str | None = None
    n_threads: int | None = None
    time_limit: float | None = None
    engine: str | None = None
    address: str | None = None
    # Rows of the whole, where what is read is its beginning.
    rows_of_whole: int | None = None
    device: str | None = None
    # The commands show how far they are.
    progress: Any = True
    na: tuple[str, ...] | None = None
    decimal: str | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        addressed(self.engine, self.address)
        # Before files are read, and where a look beforehand would not come to read them.
        for name in SETTINGS - {"engine"}:
            if getattr(self, name, None) is not None:
                argument(name, getattr(self, name))

    # Whether the command has --drop-empty and --impute.
    has_gaps: ClassVar[bool] = False

    def beginning_of(self, rows: int | None) -> Self:
        """The same, of the beginning of so many rows."""
        return replace(self, rows_of_whole=rows)

    @property
    def reading(self) -> Reading:
        """How tables of text are read."""
        mark = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}.get(self.delimiter or "", self.delimiter)
        return Reading(self.na or (), self.decimal or ".", mark, self.encoding, self.empty, self.has_gaps)

    @property
    def empty(self) -> str:
        """What becomes of rows with a missing value."""
        return "refuse"

    @classmethod
    def of(cls, typed: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The arguments from click's values; what no field is named after is an option of the method."""
        names = {item.name for item in fields(cls)}
        own = _pairs_of(values["extra"])
        for name, value in values.items():
            if name not in names and name != "extra" and value is not None:
                own[name] = literal(value) if isinstance(value, str) else value
        known = {name: value for name, value in values.items() if name in names}
        return cls(typed=tuple(typed), own_options=own, **known)

    def named_in(self, table: Table) -> Self:
        """The same, with the names of columns as the table spells them."""
        spelt: dict[str, Any] = {}
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            if value is not None and name in ("columns", "drop", "categories", "lower"):
                spelt[name] = table.named(value)
            elif value is not None and (name.endswith("_column") or name in ("text", "vectors", "images")):
                spelt[name] = table.require(value)
        return replace(self, **spelt)

    def given(self, *words: str) -> dict[str, Any]:
        """Those of these words and of the settings that were given."""
        named = {name: getattr(self, name) for name in (*words, *SETTINGS) if hasattr(self, name)}
        if self.engine is not None:
            named["engine"] = addressed(self.engine, self.address)
        return {name: value for name, value in named.items() if value is not None}

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method that were typed, as Python values."""
        named = {name: getattr(self, name) for name in self.OPTIONS}
        typed = {name: value for name, value in named.items() if not _is_left_out(value)}
        arrays = {name: literal(text) for name, text in typed.items() if isinstance(text, str) and text[:1] == "@"}
        return {**typed, **arrays, **self.own_options}

    @property
    def entry(self) -> registry.Entry | None:
        """The method that is named, or None for auto."""
        return dispatch.methods_of(self.VERB).get(self.method) if isinstance(self.method, str) else None


@dataclass(frozen=True, kw_only=True)
class RowArguments(VerbArguments):
    """What a command on rows takes: how they are compared, and columns that hold what is known of them."""

    text: str | None = None
    embedder: str | None = None
    vectors: str | None = None
    columns: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    metric: str | None = None
    id_column: str | None = None
    weight_column: str | None = None
    label_column: str | None = None
    images: str | None = None
    drop: tuple[str, ...] | None = None
    has_gaps: ClassVar[bool] = True
    drop_empty: bool = False
    impute: str | None = None
    no_cache: bool = False

    @property
    def empty(self) -> str:
        if self.drop_empty and self.impute:
            raise InputError("--drop-empty and --impute both say what becomes of missing values; give one of them")
        if self.impute is not None and self.impute not in ("median", "mean", "most_frequent"):
            raise InputError(f"--impute {self.impute}: give median, mean or most_frequent")
        return "drop" if self.drop_empty else self.impute or "refuse"

    @property
    def measured_by(self) -> str:
        """How far apart two rows are: texts are compared by their directions."""
        return self.metric or ("cosine" if self.text else "euclidean")


def _is_left_out(value: Any) -> bool:
    """Whether an option was not given; arrays have no answer to ==."""
    return value is None or value is False or (isinstance(value, tuple) and not value)


def _pairs_of(texts: Sequence[str]) -> dict[str, Any]:
    """The options of `--option key=value` flags, as Python values."""
    typed: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--option {text!r}: write key=value, for example --option n_strata=50")
        name = key.strip().replace("-", "_")
        if typed.setdefault(name, value) != value:
            raise InputError(f"--option {name} is given twice, {typed[name]} and {value}; give it once")
    return {name: literal(value) for name, value in typed.items()}


def literal(text: str) -> Any:
    """A Python value where the text is one (50, 0.1, true, [1, 2]), an array for @file.npy, else the text itself."""
    if text.startswith("@"):
        return _array(text[1:])
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _array(path: str) -> Any:
    """The array of an .npy file, or the only one of an .npz file."""
    loaded = load_arrays(path, f"@{path}")
    if isinstance(loaded, np.ndarray):
        return loaded
    if len(loaded) != 1:
        raise InputError(f"@{path} holds {len(loaded)} arrays ({', '.join(loaded)}); give an .npy file")
    return next(iter(loaded.values()))
