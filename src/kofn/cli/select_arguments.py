"""The words of `kofn select`: its flags in sections, and one typed bundle of what was asked."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

from kofn.cli import arguments as words
from kofn.cli.arguments import CAPACITY, NUMBER, Quotas, RowArguments, flag
from kofn.cli.verb_command import Section
from kofn.core.checks import InputError
from kofn.io.tables import Table

FILES = ("queries", "private")

COMPARED = Section(
    "What the rows are compared by",
    (
        words.TEXT,
        words.EMBEDDER,
        words.NO_CACHE,
        words.VECTORS,
        words.columns("Compare rows by these columns: numbers scaled, categories one-hot."),
        words.CATEGORIES,
        words.METRIC,
        flag("--score", "score_column", metavar="COL", help="Pick by this column's scores."),
        flag("--scores", "by_scores", is_flag=True, help="The columns are scores; pick entries of the table."),
        flag("--rankings", "by_rankings", is_flag=True, help="The columns are judges; pick what they rate highest."),
        flag(
            "--queries",
            metavar="FILE|TEXT",
            help="What the picks should be about: a file of texts, a table or vectors, or a text.",
        ),
        flag("--private", metavar="FILE", help="Rows that are owned already, or must not be told, likewise."),
        flag(
            "--dedupe",
            type=words.SHARE,
            metavar="SIMILARITY",
            help="Drop near-duplicates first: from this similarity on (0.9 or 90%) texts, which are the same whatever "
            "case and white space, and vectors, by the cosine with --metric cosine, else 1 - distance / typical "
            "distance; rows that agree in --columns. Without -k all others are kept.",
        ),
        flag("--dropped", metavar="PATH", help="Write which rows --dedupe dropped, and for which row."),
    ),
)
WANTED = Section(
    "What is picked",
    (
        flag(
            "-k",
            "--k",
            type=words.COUNT_OR_SHARE,
            metavar="N|N%",
            help="How many to pick, also as a share of the rows; with --budget, at most how many.",
        ),
        flag("--budget", type=NUMBER, help="What the picks may cost in total."),
        flag("--cost", "--costs", "cost_column", metavar="COL", help="Column of costs, with --budget."),
        flag(
            "--quota",
            "--quotas",
            "quotas",
            multiple=True,
            metavar="COL=GROUP:A-B",
            callback=words.parse_quotas,
            help="From A to B of a group (repeatable; A- or -B; shares as 20%-30%; columns may differ); of a cell of "
            "several columns: lang+year=de,2020:3-.",
        ),
        flag(
            "--proportional",
            multiple=True,
            metavar="COL",
            help="Each group of the column at its share of the pool, to within one pick (repeatable).",
        ),
        flag(
            "--each",
            multiple=True,
            metavar="COL=N",
            callback=words.parse_counts,
            help="N rows of each group of the column, all of those that have fewer: these are the picks; leave -k out.",
        ),
        flag("--include", metavar="IDS_OR_FILE", help="Ids that must be picked: a,b,c or a file."),
        flag("--exclude", metavar="IDS_OR_FILE", help="Ids that must not be picked."),
        flag("--start", metavar="OLD_PICKS", help="Go on from these picks: a plan or a file of ids."),
        flag("--objective", metavar="NAME", help="What the picks maximise: `kofn methods objectives`."),
        flag("--per-item", type=int, help="With --scores: entries that a row may hold."),
        flag("--capacity", type=CAPACITY, metavar="N|A,B", help="With --scores: entries that a column may hold."),
    ),
)
KNOWN = Section(
    "What is known of the rows",
    (
        words.ID,
        words.WEIGHT,
        flag(
            "--group", "--groups", "group_column", metavar="COL", help="Column of groups, for methods that take them."
        ),
        words.LABEL,
        flag(
            "--model",
            metavar="NAME",
            help="With --label filled in part: scikit-learn's classifier that says what it is unsure of, or none.",
        ),
        flag("--all", "every", is_flag=True, help="-o holds all rows, the picks first: fill in their labels, go on."),
        flag(
            "--classes",
            type=int,
            metavar="N",
            help="The picks are to be labelled, in about N classes: a hint to auto.",
        ),
        words.IMAGES,
        words.DROP,
        *words.GAPS,
    ),
)
ANSWER = words.method_section("Where the picks go (.csv, .tsv, .parquet, .jsonl): all columns plus rank and gain.")


@dataclass(frozen=True, kw_only=True)
class SelectArguments(RowArguments):
    """What `kofn select` was asked."""

    VERB: ClassVar[str] = "select"
    OPTIONS: ClassVar[tuple[str, ...]] = (*FILES, "model")

    score_column: str | None
    by_scores: bool
    by_rankings: bool
    queries: str | None
    private: str | None
    dedupe: float | None
    dropped: str | None
    k: int | None
    budget: float | None
    cost_column: str | None
    quotas: Quotas
    proportional: tuple[str, ...]
    each: dict[str, int]
    include: str | None
    exclude: str | None
    start: str | None
    objective: str | None
    per_item: int | None
    capacity: int | list[int] | None
    group_column: str | None
    classes: int | None
    model: str | None
    every: bool

    def __post_init__(self) -> None:
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
        named = {"--quota": set(self.quotas), "--proportional": set(self.proportional), "--each": set(self.each)}
        for (first_flag, columns), (other_flag, others) in itertools.combinations(named.items(), 2):
            if both := sorted(columns & others):
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
        """The same, with the names of columns as the table spells them, and of quotas of cells all of their columns."""
        quotas: dict[Any, Any] = {}
        for column, asked in self.quotas.items():
            parts = tuple(column.split("+"))
            if column in table.columns or len(parts) == 1 or not set(parts) <= set(table.columns):
                quotas[column] = asked
            else:
                quotas[parts] = {_cell(column, parts, group): ends for group, ends in asked.items()}
        return dataclasses.replace(super().named_in(table), quotas=quotas)

    @property
    def quota_columns(self) -> tuple[Any, ...]:
        """The columns that have quotas; the columns of cells as a tuple."""
        return (*self.quotas, *dict.fromkeys(self.proportional), *self.each)

    @property
    def has_cells(self) -> bool:
        """True where a quota is of a cell of several columns."""
        return any(isinstance(column, tuple) for column in self.quotas)

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


def _cell(column: str, parts: tuple[str, ...], group: str) -> tuple[str, ...]:
    """The groups of a cell, parted by commas; a name with a comma stands in quotes."""
    groups = tuple(next(csv.reader([group])))
    if len(groups) != len(parts):
        raise InputError(
            f"--quota {column}={group}: name one group of each of the {len(parts)} columns, as {column}="
            f"{','.join(f'GROUP{i + 1}' for i in range(len(parts)))}:A-B"
        )
    return groups
