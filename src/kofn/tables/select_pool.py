"""The pool of `kofn select`: its rows as vectors, what is known of them, what is left out, and the call of the verb."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError, KofnError
from kofn.core.checks.kinds import holds_texts
from kofn.core.dispatch import methods_of
from kofn.core.plans import Selection
from kofn.core.pools import is_pool
from kofn.io.tables import UNLABELLED, Table
from kofn.io.vectors import PoolVectors
from kofn.tables.alike import alike_notes
from kofn.tables.labelling import default_method
from kofn.tables.long_form import refuse_long_judges
from kofn.tables.named_rows import NamedRows
from kofn.tables.odd_classes import odd_classes
from kofn.tables.read import Pool, read_vectors, read_vectors_together, without_gaps
from kofn.tables.scores import read_judges, read_scores
from kofn.tables.select_arguments import FILES, SelectArguments
from kofn.tables.select_dedupe import refuse_labels_without_use, without_duplicates
from kofn.tables.select_groups import counted_quotas, groups_of, quotas_of, with_count
from kofn.tables.select_rounds import labelled, next_round, without_labelled
from kofn.tables.select_unused import refuse_unused
from kofn.tables.spelling import with_column
from kofn.tables.unlike import of_the_row, unlike_bins, unlike_line
from kofn.tables.words import NAMES_ROWS

# What a method may compare rows by.
_COMPARED = {"X", "similarity", "distances", "rankings"}
# Texts that are looked at together.
_TEXTS = 1 << 14


class Call(NamedTuple):
    """A call of the verb that answers what was asked of a table; `method` is None where rows are only deduplicated."""

    pool: Pool
    arguments: SelectArguments
    method: Any = None
    words: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})

    def answer(self, verb: Callable[..., Selection]) -> Selection:
        """The plan, by row of the pool: of a round of labelling its own picks alone."""
        with self.naming_quotas():
            return without_labelled(verb(method=self.method, options=self.options, **self.words), self.pool)

    @contextmanager
    def naming_quotas(self) -> Iterator[None]:
        """Inside, refusals of quotas of one column name that column, as whoever typed them did."""
        columns = self.arguments.quota_columns
        try:
            yield
        except KofnError as error:
            if len(columns) != 1 or (named := with_column(str(error), str(columns[0]))) == str(error):
                raise
            raise type(error)(named) from None


def prepared(table: Table, arguments: SelectArguments, parts: Any = None) -> Call:
    """Read what was asked about; nothing is picked yet, but for near-duplicates. `parts` as in `read_pool`."""
    refuse_unused(arguments, in_parts=parts is not None)
    pool = read_pool(table, arguments, parts)
    if arguments.only_dedupes:
        refuse_labels_without_use(pool, arguments)
        return Call(pool, arguments)
    arguments = with_count(arguments, pool)
    words = call_of(pool, arguments)
    options = {**arguments.options, **pool.vectors}
    return Call(pool, arguments, *next_round(pool, arguments, method_of(pool, arguments, words), words, options))


def read_pool(table: Table, arguments: SelectArguments, parts: Any = None) -> Pool:
    """The pool and what is known of its rows, each from the columns that it needs and no others.

    `parts` are the vectors of a pool larger than memory (`kofn.io.pool.Pool`), which are not read here.
    """
    X: Any = None
    matrix: NDArray[Any] | None = None
    matrix_columns: tuple[str, ...] = ()
    vectors: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    by_words = False
    scores = table.numbers(arguments.score_column) if arguments.score_column else None
    if parts is not None:
        X, notes, by_words = parts, (how_of(parts),), parts.by_words
    elif arguments.by_scores:
        matrix, bins, notes = read_scores(table, arguments)
        notes += () if arguments.columns else tuple(unlike_bins(bins, matrix))
        if matrix.ndim == 1:
            matrix, scores = None, matrix
    elif arguments.by_rankings:
        if arguments.columns is None:
            refuse_long_judges(table, arguments.id_column, _named_columns(arguments))
        matrix_columns, matrix = read_judges(table, arguments.columns, arguments.id_column)
        if arguments.columns is None:
            notes = tuple(unlike_line(matrix_columns, of_the_row(matrix_columns), "judge"))
    elif arguments.compares and not (arguments.only_dedupes and arguments.text):
        refuse_no_scores(table, arguments)
        files = {
            name: file
            for name, file in arguments.options.items()
            # Beside --dedupe alone --private is read with the near-duplicates.
            if not arguments.only_dedupes and name in FILES and (isinstance(file, str) or holds_texts(file))
        }
        if files:
            compared, vectors = read_vectors_together(table, arguments, files, whole_words=arguments.seeks)
        else:
            compared = read_vectors(table, arguments)
        X, notes, by_words = compared.X, _how(compared, arguments), compared.by_words
    elif arguments.compares and arguments.empty == "drop":
        # Near-duplicates read the texts themselves; which rows miss one must be known before.
        table.texts(table.require(arguments.text or ""))
    ids = table.ids(arguments.id_column) if arguments.id_column else None
    values = values_of(table, arguments)
    notes += alike_notes(values, arguments.label_column, arguments.groupings)
    if arguments.label_column:
        notes += odd_classes(values["y"], arguments.label_column)
    pool = Pool(
        table=table,
        rows=np.arange(table.n),
        X=X,
        matrix=matrix,
        matrix_columns=matrix_columns,
        entries=arguments.by_scores and matrix is not None,
        ids=ids,
        values=values if scores is None else {**values, "scores": scores},
        named=named_of(table, arguments, ids),
        vectors=vectors,
        notes=notes,
        by_words=by_words,
    )
    pool = without_gaps(pool, arguments)
    if arguments.dedupe is not None:
        pool = without_duplicates(pool, arguments)
    return wordless_last(pool, arguments) if arguments.text and not arguments.only_dedupes else pool


def refuse_no_scores(table: Table, arguments: SelectArguments) -> None:
    """Refuse a method that ranks by scores alone, and compares nothing, where no column of scores is named."""
    taken = set() if arguments.entry is None else set(arguments.entry.accepted)
    if arguments.score_column or "scores" not in taken or taken & _COMPARED:
        return
    numbers = [name for name in table.columns if table.dtype(name) == "number"][:4]
    such = f" (such as {', '.join(numbers)})" if numbers else ""
    raise InputError(
        f"-m {arguments.method} needs scores of the rows: name their column with --score COLUMN{such}, or say --scores "
        "if the cells of all columns are what is picked from"
    )


def _named_columns(arguments: SelectArguments) -> set[str]:
    """The columns of which the user has said what they are, but for the ids."""
    fields = [item.name for item in dataclasses.fields(arguments) if item.name.endswith("_column")]
    named = {getattr(arguments, name) for name in fields if name != "id_column"} | set(arguments.groupings)
    return {name for name in (*named, *(arguments.drop or ())) if name is not None}


def named_of(table: Table, arguments: SelectArguments, ids: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Keys of the rows that include, exclude and start name, by word."""
    given = {word: getattr(arguments, word) for word in NAMES_ROWS}
    return {
        word: NamedRows(word, table, ids, arguments.id_column).read(keys)
        for word, keys in given.items()
        if not (keys is None or (isinstance(keys, str) and not keys))
    }


def how_of(parts: Any) -> str:
    """What is said of vectors that are read in parts."""
    files = f"{len(parts.files):,} file{'s' if len(parts.files) != 1 else ''}"
    size = f"{parts.n * parts.width * parts.dtype.itemsize / 1e9:,.3g} GB"
    if parts.how:
        return f"compared by {parts.how}: {files}, {parts.n:,} x {parts.width:,} ({size}), read in parts"
    named = "the array" if str(parts.files[0]).lower().endswith(".npy") else f"column {parts.vectors!r}"
    by = f"{named} as it is" if parts.columns is None else f"columns {', '.join(parts.columns)} scaled"
    return f"compared by {by}: {files}, {parts.n:,} x {parts.width:,} ({size}), read in parts"


def values_of(table: Table, arguments: SelectArguments) -> dict[str, Any]:
    """What the columns say of each row, under the word of the vocabulary."""
    readers = {
        "y": (table.labels_so_far if arguments.takes_some_labels else table.labels, arguments.label_column),
        "costs": (table.numbers, arguments.cost_column),
        "weights": (table.numbers, arguments.weight_column),
    }
    values: dict[str, Any] = {word: read(column) for word, (read, column) in readers.items() if column}
    if arguments.label_column in arguments.groupings and arguments.takes_some_labels:
        _refuse_quotas_of_labels(values["y"], arguments)
    if arguments.groupings:
        # One column goes by no name.
        columns = {column: table.labels(column) for column in arguments.groupings}
        values["groups"] = columns if len(columns) > 1 else columns[arguments.groupings[0]]
    return values


def _refuse_quotas_of_labels(y: NDArray[Any], arguments: SelectArguments) -> None:
    """Refuse quotas on a column of labels that is filled in part: rows without one are those to pick from."""
    if not (y == UNLABELLED).any():
        return
    column = arguments.label_column
    flags = {
        flag: [*named, *(part for cell in named if isinstance(cell, tuple) for part in cell)]
        for flag, named in arguments.quotas_by_flag.items()
    }
    flag = next((flag for flag, names in flags.items() if column in names), "--group")
    raise InputError(
        f"{flag} names {column!r}, the column of --label: the next rows to label are picked from those without a "
        f"label, so that none of them counts to a quota of labels; give {flag} another column, or leave it out"
    )


def _how(compared: PoolVectors, arguments: SelectArguments) -> tuple[str, ...]:
    """What is said of the vectors: nothing, where scores alone decide."""
    return () if arguments.ranks_by_score else (f"compared by {compared.how}", *compared.notes)


def wordless_last(pool: Pool, arguments: SelectArguments) -> Pool:
    """Texts without a word, or without one that another has, stand for nothing but themselves.

    They are said, and left out where enough others can be picked: by distances they would look central.
    """
    assert arguments.text is not None
    wordless = ~_holds_words(pool, arguments.text)
    alone = np.zeros(len(wordless), bool)
    if is_pool(pool.X):
        alone = ~np.concatenate([pool.X.read(part).any(axis=1) for part in pool.X.fragments()]) & ~wordless
    elif pool.by_words and pool.X is not None and not checks.is_sparse(pool.X):
        alone = ~pool.X.any(axis=1) & ~wordless
    if not (wordless | alone).any():
        return pool
    note = "; ".join(
        f"{mask.sum():,} {single if mask.sum() == 1 else plural} (first: {pool.keys[mask.argmax()]})"
        for mask, single, plural in (
            (wordless, "text has no word", "texts have no word"),
            (alone, "text shares no word with another", "texts share no word with another"),
        )
        if mask.any()
    )
    wordless |= alone
    keys = checks.ids(pool.keys)
    named = {word: checks.positions(value, word, len(keys), keys) for word, value in pool.named.items()}
    out = wordless.copy()
    for position in named.values():
        out[position] = False
    left = ~out
    left[named.get("exclude", np.empty(0, np.int64))] = False
    if (known := labelled(pool)) is not None:
        left[known] = False
    enough = left.any() and (arguments.k is None or arguments.k <= left.sum())
    for column, ends in counted_quotas(pool, arguments).items():
        labels = groups_of(pool, arguments)[column]
        enough = enough and all((left & (labels == group)).sum() >= least for group, (least, _) in ends.items())
    if not enough or (arguments.entry is not None and "exclude" not in arguments.entry.accepted):
        return dataclasses.replace(pool, notes=(*pool.notes, note))
    excluded = np.concatenate([pool.named.get("exclude", keys[:0]), keys[out]])
    note += "; such rows are not picked while others are left"
    return dataclasses.replace(pool, named={**pool.named, "exclude": excluded}, notes=(*pool.notes, note))


def _holds_words(pool: Pool, text: str) -> NDArray[np.bool_]:
    """Which rows of the pool have a text with a word in it."""
    blocks = pool.table.text_blocks(text, _TEXTS) if is_pool(pool.X) else [pool.table.texts(text)]
    return np.concatenate([block.str.contains(r"\w").to_numpy() for block in blocks])[pool.rows]


def _by_judge(pool: Pool) -> pl.DataFrame:
    """The judges' scores under their names, so that options can name them."""
    assert pool.matrix is not None
    return pl.DataFrame({judge: pool.matrix[:, column] for column, judge in enumerate(pool.matrix_columns)})


def call_of(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """The arguments of `kofn.select`."""
    call = arguments.given("k", "budget", "objective", "per_item", "capacity") | dict(pool.values)
    if not arguments.picks_by_label:
        call.pop("y", None)
    if arguments.quota_columns:
        quotas = quotas_of(pool, arguments)
        if arguments.has_cells:
            groups = groups_of(pool, arguments)
            call |= {"groups": {column: groups[column] for column in quotas}, "quotas": quotas}
        else:
            call["quotas"] = quotas if len(quotas) > 1 else quotas[arguments.quota_columns[0]]
    if pool.matrix is not None:
        call |= {"scores": pool.matrix} if pool.entries else {"rankings": _by_judge(pool)}
    if pool.X is None and arguments.compares_nothing:
        # Only the number of rows counts.
        call.setdefault("scores", np.zeros(len(pool.rows)))
    metric = arguments.metric
    if pool.X is not None and not arguments.ranks_by_score:
        call["similarity" if metric == "precomputed" else "X"] = pool.X
        entry = arguments.entry
        if metric is None and not arguments.seeks and (entry is None or "metric" in entry.accepted):
            metric = arguments.measured_by
        if metric not in (None, "precomputed"):
            call["metric"] = metric
    if (pool.ids is not None or pool.dropped) and not pool.entries:
        call["ids"] = pool.keys
    return {**call, **pool.named}


def method_of(pool: Pool, arguments: SelectArguments, call: Mapping[str, Any]) -> Any:
    """The method that was named; of rows that are to be labelled, what the benchmark's sets chose."""
    if arguments.seeks:
        return "marginal_relevance"
    if arguments.in_parts and arguments.method == "auto":
        return "two_round_greedy"
    kept = arguments.method != "auto" or arguments.options or arguments.metric in ("rbf", "precomputed")
    if arguments.classes is None or kept:
        return arguments.method
    a_class = (arguments.k or arguments.classes) / arguments.classes
    method = default_method(kind_of(pool, arguments), len(pool.rows), a_class)
    return method if method == "auto" or methods_of("select")[method].takes(call) is not None else "auto"


def kind_of(pool: Pool, arguments: SelectArguments) -> str:
    """The kind of data, as the benchmark of rows to label tells them apart."""
    if pool.by_words:
        return "text"
    return "table" if arguments.columns else "any"
