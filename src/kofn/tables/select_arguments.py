"""What `select` was asked of a table's rows."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kofn.core.checks import InputError
from kofn.engines.opening import elsewhere
from kofn.tables.arguments import Quotas, RowArguments

if TYPE_CHECKING:
    from kofn.io.tables import Table

FILES = ("queries", "private")


@dataclass(frozen=True, kw_only=True)
class SelectArguments(RowArguments):
    """What `kofn select` was asked."""

    VERB: ClassVar[str] = "select"
    OPTIONS: ClassVar[tuple[str, ...]] = (*FILES, "model", "part_rows", "work")

    score_column: str | None = None
    by_scores: bool = False
    by_rankings: bool = False
    # A file or a text; in Python texts or vectors too.
    queries: Any = None
    private: Any = None
    dedupe: float | None = None
    dropped: str | None = None
    k: int | None = None
    budget: float | None = None
    cost_column: str | None = None
    quotas: Quotas = field(default_factory=dict)
    # Columns, or of the cells of several a tuple of them.
    proportional: tuple[Any, ...] = ()
    each: Mapping[Any, int] = field(default_factory=dict)
    # Ids with commas, or a file of them; in Python an array or a plan too.
    include: Any = None
    exclude: Any = None
    start: Any = None
    objective: Any = None
    per_item: int | None = None
    capacity: int | list[int] | None = None
    group_column: str | None = None
    classes: int | None = None
    model: str | None = None
    every: bool = False
    export: tuple[tuple[str, str], ...] = ()  # labelling tools, each with its file
    part_rows: int | None = None
    work: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None and self.classes < 2:
            raise InputError(f"--classes {self.classes}: give about how many classes the rows have, at least 2")
        if self.by_scores and self.by_rankings:
            raise InputError("--scores and --rankings both say what the columns are; give one of them")
        if self.dedupe is not None and self.metric == "precomputed":
            raise InputError(
                "--dedupe compares rows, of which --metric precomputed has only the similarities; drop near-duplicates "
                "from the rows before the similarities are computed (kofn.selection.near_duplicates), or leave it out"
            )
        if self.dropped is not None and self.dedupe is None:
            raise InputError(f"--dropped {self.dropped} lists what --dedupe drops; give --dedupe too, for example 0.9")
        if (self.budget is None) != (self.cost_column is None):
            raise InputError("--budget and --cost belong together: what may be spent, and the column of costs")
        named = self.quotas_by_flag
        for (first_flag, columns), (other_flag, others) in itertools.combinations(named.items(), 2):
            if both := sorted(columns & others, key=str):
                raise InputError(f"{first_flag} and {other_flag} both name {both[0]!r}; give one of them for a column")
        other = [column for column in self.quota_columns if column != self.group_column]
        if self.group_column is not None and other:
            flag_of = next(flag for flag, columns in named.items() if other[0] in columns)
            raise InputError(f"--group names {self.group_column!r}, {flag_of} names {other[0]!r}; give one column")

    def of_rows(self, n: int) -> Self:
        """The arguments for a file of n rows, of which -k may be a share."""
        share: Any = self.k
        return dataclasses.replace(self, k=max(1, round(share * n))) if isinstance(share, Fraction) else self

    def named_in(self, table: Table) -> Self:
        """The same, with the names of columns as the table spells them, and of cells all of their columns."""
        quotas: dict[Any, Any] = {}
        for column, asked in self.quotas.items():
            parts = _parts(column, table)
            if parts == column:
                quotas[column] = asked
            else:
                quotas[parts] = {_cell(column, parts, group): ends for group, ends in asked.items()}
        proportional = tuple(_parts(column, table) for column in self.proportional)
        each = {_parts(column, table): most for column, most in self.each.items()}
        for column in self.groupings:
            if not isinstance(column, str) and column not in table.columns:
                raise InputError(f"{column!r} names no column; give its name as text, or a tuple of names for cells")
        for flag, cells in (("--proportional", proportional), ("--each", each)):
            if alone := next((cell for cell in cells if isinstance(cell, tuple) and len(set(cell)) < 2), None):
                raise InputError(f"{flag} {alone!r}: give two columns or more, each once; a single column by its name")
        return dataclasses.replace(super().named_in(table), quotas=quotas, proportional=proportional, each=each)

    @property
    def in_parts(self) -> bool:
        """Whether a flag asks for parts of the pool."""
        return self.part_rows is not None or self.work is not None or (elsewhere(self.engine) and not self.shares_rows)

    @property
    def shares_rows(self) -> bool:
        """Whether the method that is named takes an engine for rows that are all in memory."""
        entry = self.entry
        return entry is not None and "engine" in entry.accepted and "part_rows" not in entry.options

    @property
    def quotas_by_flag(self) -> dict[str, set[Any]]:
        """The columns that have quotas, cells as tuples, by the flag that names them."""
        return {"--quota": set(self.quotas), "--proportional": set(self.proportional), "--each": set(self.each)}

    @property
    def quota_columns(self) -> tuple[Any, ...]:
        """The columns that have quotas; the columns of cells as a tuple."""
        return (*self.quotas, *dict.fromkeys(self.proportional), *self.each)

    @property
    def has_cells(self) -> bool:
        """True where a quota is of a cell of several columns."""
        return any(isinstance(column, tuple) for column in self.quota_columns)

    @property
    def only_dedupes(self) -> bool:
        """True where nothing but --dedupe says which rows to keep."""
        asked = (self.k, self.budget, self.objective, self.queries, self.start)
        given = any(value is not None for value in asked) or self.quota_columns or self.method != "auto"
        return self.dedupe is not None and not given

    @property
    def groupings(self) -> tuple[str, ...]:
        """The columns of groups."""
        named = [column if isinstance(column, tuple) else (column,) for column in self.quota_columns]
        return tuple(dict.fromkeys(itertools.chain(*named))) or ((self.group_column,) if self.group_column else ())

    @property
    def seeks(self) -> bool:
        """True where rows about queries are wanted, and no other method or objective is named for it."""
        named = self.method not in ("auto", "marginal_relevance") or self.objective is not None
        return self.queries is not None and self.private is None and not named

    @property
    def picks_by_label(self) -> bool:
        """True where the method reads the labels; elsewhere they are only counted."""
        return self.entry is not None and "y" in self.entry.accepted

    @property
    def takes_some_labels(self) -> bool:
        """True where rows without a label are those to pick from, and no fault of the file."""
        return not self.picks_by_label or (self.entry is not None and "unlabelled" in self.entry.options)

    @property
    def distance(self) -> str:
        """The distance that the picks are measured by: of similarities that fall with it, the plain one."""
        return "euclidean" if self.measured_by in ("precomputed", "rbf") else self.measured_by

    @property
    def compares_nothing(self) -> bool:
        """Whether the method draws rows whatever they hold."""
        return self.method == "random_sample"

    @property
    def compares(self) -> bool:
        """Whether rows are read as vectors: where the method asks for them, or the user names what holds them."""
        named = bool(self.text or self.vectors or self.columns)
        return named or not (self.score_column or self.compares_nothing)

    @property
    def ranks_by_score(self) -> bool:
        """True where the method ranks by a column of scores alone: vectors serve only --dedupe and the report."""
        return self.score_column is not None and (self.entry is None or "X" not in self.entry.accepted)


def _parts(column: Any, table: Table) -> Any:
    """The columns of a cell as a tuple, which a text names with + between; other columns as they are."""
    parts = tuple(column.split("+")) if isinstance(column, str) else ()
    if column in table.columns or len(parts) < 2 or not set(parts) <= set(table.columns):
        return column
    return parts


def _cell(column: str, parts: tuple[str, ...], group: Any) -> tuple[Any, ...]:
    """The groups of a cell: a tuple, or a text parted by commas, in which a name with a comma stands in quotes."""
    try:
        groups = tuple(next(csv.reader([group]))) if isinstance(group, str) else group
    except csv.Error:  # a line end that is not in quotes
        groups = ()
    if not isinstance(groups, tuple) or len(groups) != len(parts):
        raise InputError(
            f"--quota {column}={group}: name one group of each of the {len(parts)} columns, as {column}="
            f"{','.join(f'GROUP{i + 1}' for i in range(len(parts)))}:A-B"
        )
    return groups
