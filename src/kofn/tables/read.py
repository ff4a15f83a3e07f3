"""What the commands read: the vectors and columns of a file's rows, ids that flags name, pairs of ids."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError, names_a_file, regular, shown
from kofn.core.lazy import polars as pl
from kofn.core.pools import SomeRows, is_pool
from kofn.core.problems import unlike_scales
from kofn.io.embedding import model_for
from kofn.io.formats import Arrays, Delimited, Npy, SparseNpz
from kofn.io.frames import as_series
from kofn.io.opening import open_table
from kofn.io.pool_texts import texts_at
from kofn.io.tables import Table
from kofn.io.text_memory import refuse_texts_over
from kofn.io.vectors import PoolVectors, beginnings, by_model, only_vectors, pool_vectors
from kofn.io.words import bm25, reduced, tfidf
from kofn.tables.arguments import RowArguments
from kofn.tables.levels import amount_of
from kofn.tables.unlike import as_typed

TABLES = (".csv", ".tsv", ".parquet", ".jsonl")
ARRAYS = (".npy", ".npz")
_TEXTS = (".txt", ".text", "")
# How much relevance counts, and not novelty, among texts that are ranked by BM25: chosen on twelve queries of the
# benchmark of queries, judged on others.
_TEXT_BALANCE = 0.9
# How many columns are named in one note.
_NAMED = 12


class Dropped(NamedTuple):
    """The near-duplicates that were taken out of a file.

    Attributes:
        rows: their row numbers.
        of: the row number of the row that each repeats.
        similarity: how similar the two are.
        owned: True where that row is one of `--private`, and its number of that table; None without such rows.
        owned_keys: what that row is called there.
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    similarity: NDArray[np.float64]
    owned: NDArray[np.bool_] | None = None
    owned_keys: NDArray[Any] | None = None


# From so many rows it is seen whether all numbers of a column differ.
_SEEN = 100_000
# What columns of keys are called.
_LIKE_A_KEY = re.compile(r"(?i)^$|(^|[_ ])(id|ids|idx|index|key|keys|row|rows|rank|unnamed.*)$")


@dataclass(frozen=True)
class Pool:
    """What was read of a file for one command.

    Attributes:
        table: the file.
        rows: the file's rows that are in the pool; every array below has one row for each of them.
        X: vectors, or the (n, n) matrix of `--metric precomputed`.
        matrix: scores by bin, or the judges' scores, one row an item.
        matrix_columns: what the file calls the columns of `matrix`; empty where they have no names.
        entries: the items are the entries of `matrix`, row by row, and not the rows.
        ids: the user's keys.
        values: one value a row, under the word of the vocabulary: scores, groups, y, costs, weights; several columns of
            groups by name.
        named: keys of the rows that include, exclude and start name, by word.
        vectors: vectors of other files that were made like X, by the option that names the file.
        notes: lines about what was read.
        by_words: X holds the words of texts, without a model.
        duplicates: the file's rows that `--dedupe` took out.
        items: the row numbers of X, where it holds the picks and a sample of a pool larger than memory.
    """

    table: Table
    rows: NDArray[np.int64]
    X: Any = None
    matrix: NDArray[Any] | None = None
    matrix_columns: tuple[str, ...] = ()
    entries: bool = False
    ids: NDArray[Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    vectors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by_words: bool = False
    duplicates: Dropped | None = None
    items: NDArray[np.int64] | None = None

    @property
    def keys(self) -> NDArray[Any]:
        """What the user calls each row: its id, or its row number in the file."""
        return self.rows if self.ids is None else self.ids

    @property
    def dropped(self) -> int:
        """How many of the file's rows are not in the pool."""
        return self.table.n - len(self.rows)

    def drop(self, positions: NDArray[np.int64]) -> Pool:
        """The pool without the rows at these positions; what they were named for is forgotten with them."""
        kept = np.setdiff1d(np.arange(len(self.rows)), positions)
        keys = self.keys[kept]
        return dataclasses.replace(
            self,
            rows=self.rows[kept],
            X=SomeRows(self.X, kept) if is_pool(self.X) else None if self.X is None else self.X[kept],
            matrix=self.matrix if self.matrix is None or self.entries else self.matrix[kept],
            ids=None if self.ids is None else self.ids[kept],
            values={name: _kept(column, kept) for name, column in self.values.items()},
            named={word: named[np.isin(named, keys)] for word, named in self.named.items()},
        )


def _kept(values: Any, rows: NDArray[np.int64]) -> Any:
    """The values of some rows, of one column or of several by name."""
    if isinstance(values, Mapping):
        return {name: column[rows] for name, column in values.items()}
    return values[rows]


def read_vectors(table: Table, arguments: RowArguments) -> PoolVectors:
    """The vectors that `--text`, `--columns` or `--vectors` ask for, or the only vectors of the file.

    A sparse matrix on disk is returned as it is: a precomputed similarity, or rows compared by their cosines.
    """
    if isinstance(table, SparseNpz):
        if arguments.metric == "cosine" and arguments.VERB in ("select", "assign"):
            return PoolVectors(table.matrix(), "the cosines of sparse rows")
        if arguments.metric != "precomputed":
            compares = arguments.VERB in ("select", "assign")
            rows = "; if its rows are to be compared, say --metric cosine" if compares else ""
            raise InputError(
                f"{table.path} holds a sparse matrix; if it is a similarity, say --metric precomputed{rows}"
            )
        return PoolVectors(table.matrix(), "the similarity as it is")
    if names := numbers_alone(table, arguments):
        X = np.stack([table.numbers(name) for name in names], axis=1)
        unlike = f"; {text}" if (text := unlike_scales(names, X)) else ""
        remedy_of_scales = "to scale them to equal weight name them by --columns"
        note = f"the table holds numbers alone, taken as the vectors{unlike}; {remedy_of_scales}"
        return PoolVectors(X, f"{_counted(names)} as they are", notes=(note,))
    vectors = arguments.vectors
    if not (arguments.text or vectors or arguments.columns):
        vectors = only_vectors(table, columns_named_by(arguments))
    return pool_vectors(
        table,
        text=arguments.text,
        vectors=vectors,
        columns=arguments.columns,
        categories=arguments.categories or (),
        embedder=arguments.embedder,
        cache=not arguments.no_cache,
        progress=arguments.progress,
        stand_in=arguments.dry_run,
        max_memory=arguments.max_memory,
        in_parts="two_round_greedy" if arguments.VERB == "select" else None,
        times=_times(table, arguments),
        device=arguments.device,
    )


def numbers_alone(table: Table, arguments: RowArguments) -> tuple[str, ...]:
    """The columns that no word names, where these are all numbers and measure something; none of other tables.

    A column that is called like a key, or whose whole numbers all differ, may name the rows: that is asked about.
    """
    if arguments.text or arguments.vectors or arguments.columns or arguments.categories or isinstance(table, Arrays):
        return ()
    refuse_no_header(table)
    named = columns_named_by(arguments)
    names = tuple(name for name in table.columns if name not in named)
    if any(table.dtype(name) not in ("number", "boolean") or _LIKE_A_KEY.search(name) for name in names):
        return ()
    columns = [table.column(name).head(_SEEN) for name in names]
    whole = [column for column in columns if column.dtype.is_integer() and len(column) > 1]
    return () if any(column.n_unique() == len(column) for column in whole) else names


def columns_named_by(arguments: RowArguments) -> set[Any]:
    """The columns of which a word says what they are."""
    named = {getattr(arguments, field.name) for field in dataclasses.fields(arguments) if "_column" in field.name}
    return named | {*getattr(arguments, "groupings", ()), *getattr(arguments, "quota_columns", ())}


def refuse_no_header(table: Table) -> None:
    """Refuse a text file all of whose columns are called by numbers: its first row would be lost as their names.

    Columns that count, from 0 or 1 on, are named so by programs that know no names.

    Raises:
        InputError: they are; says what the names were taken from.
    """
    names = [name for name in table.columns if name not in getattr(table, "keys", ())]
    if not isinstance(table, Delimited) or not names:
        return
    amounts = [amount_of(name.strip().replace(table.reading.decimal, ".")) for name in names]
    if None in amounts or amounts in (list(range(len(names))), list(range(1, len(names) + 1))):
        return
    first = table.separator.join(names[:_NAMED]) + (".." if len(names) > _NAMED else "")
    raise InputError(
        f"{table.path}: no header? the first row {first} was taken as names; add a header line, or if these are names, "
        f"say which count: --columns {as_typed(*names[:2])}{',..' if len(names) > 2 else ''}"
    )


def _counted(names: Sequence[str]) -> str:
    """The columns by name, or how many there are."""
    return f"columns {', '.join(names)}" if len(names) <= _NAMED else f"{len(names):,} columns"


def _times(table: Table, arguments: RowArguments) -> float:
    """How many times as many rows as the table the whole has."""
    return 1.0 if arguments.rows_of_whole is None else arguments.rows_of_whole / max(table.n, 1)


def read_vectors_together(
    table: Table, arguments: RowArguments, files: Mapping[str, Any], *, whole_words: bool = False
) -> tuple[PoolVectors, dict[str, Any]]:
    """The pool's vectors and those of other files, made together: texts are weighted and projected alike.

    Args:
        table: the pool.
        arguments: how its rows are compared.
        files: option -> the file that it names, or its texts.
        whole_words: texts without a model are compared by all their words, as sparse rows; with the queries by BM25
            unless the options say another relevance.
    """
    name = arguments.text
    if name is None:
        if arguments.columns:
            option, file = next(iter(files.items()))
            raise InputError(f"--{option} {file} goes with --text or --vectors; for --columns give @{option}.npy")
        for option, file in files.items():
            if not isinstance(file, str) or not is_file(Path(file)):
                raise InputError(
                    f"--{option} {file!r}: no such file; the rows have no texts to compare it with as a text: say "
                    f"--text COL for texts, or give a file of vectors"
                )
        pool = read_vectors(table, arguments)
        return pool, {option: read_vectors(open_table(file), arguments).X for option, file in files.items()}
    texts = [table.texts(name), *(_texts_of(file, name, option) for option, file in files.items())]
    every = pl.concat([part.cast(pl.String) for part in texts])
    model = model_for(every, arguments.embedder)
    if model is not None:
        cache, progress = not arguments.no_cache, arguments.progress
        embedded = by_model(
            every, model, cache=cache, progress=progress, stand_in=arguments.dry_run, device=arguments.device
        )
        X = embedded.X
        how = embedded.how(f"column {name!r} and {' and '.join(files)}", asked=arguments.embedder is not None)
        parts = np.split(X, np.cumsum([len(part) for part in texts])[:-1])
        return PoolVectors(parts[0], how), dict(zip(files, parts[1:], strict=True))
    refuse_texts_over(every, name, arguments.max_memory, _times(table, arguments))
    seen = beginnings(every) if arguments.dry_run else every
    ends = np.cumsum([0, *map(len, texts)]).tolist()
    by_score = whole_words and arguments.options.get("relevance", "product") == "product"
    if by_score:
        words = list(bm25(seen[: ends[1]], seen[ends[1] :]))
        how = f"BM25 of the words of column {name!r} and {' and '.join(files)}"
    else:
        A = tfidf(seen)
        words = [A[start:stop] for start, stop in itertools.pairwise(ends)]
        how = f"TF-IDF of column {name!r} and {' and '.join(files)}"
    own: Any = words[0]
    vectors: dict[str, Any] = dict(zip(files, words[1:], strict=True))
    notes: list[str] = []
    # A query is about its words: a few dimensions of a whole pool blur them.
    if not whole_words:
        X = reduced(A)
        how = f"column {name!r} and {' and '.join(files)} by TF-IDF, reduced to {X.shape[1]} dimensions"
        own, *others = (X[start:stop] for start, stop in itertools.pairwise(ends))
        vectors = dict(zip(files, others, strict=True))
    for option, part, part_words in zip(files, texts[1:], words[1:], strict=True):
        # The rest of a file, of which a look beforehand sees the beginning, may have other words.
        if option == "queries" and not arguments.dry_run:
            matched = (words[0] @ part_words.T).getnnz(axis=0) > 0
            vectors[option] = vectors[option][matched]
            given = f" {files[option]}" if isinstance(files[option], str) else ""
            notes += _unmatched(part, matched, name, f"--{option}{given}")
    if by_score:
        balance = arguments.options.get("balance", _TEXT_BALANCE)
        vectors |= {"relevance": "product", "balance": balance}
    return PoolVectors(own, how, by_words=True, notes=tuple(notes)), vectors


def _unmatched(texts: pl.Series, matched: NDArray[np.bool_], column: str, option: str) -> list[str]:
    """What to say of queries that share no word with any row.

    Raises:
        InputError: none shares one.
    """
    if not matched.any():
        raise InputError(
            f"{option}: no row of {column!r} shares a word with it; put it into the rows' own words, or compare by "
            "meaning with --embedder"
        )
    left = texts.filter(pl.Series(~matched)).to_list()
    if not left:
        return []
    named = ", ".join(repr(text if len(text) < 40 else f"{text[:37]}...") for text in left[:3])
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return [f"left out, as no row shares a word with {'it' if len(left) == 1 else 'them'}: {named}{more}"]


def _texts_of(file: Any, column: str, option: str) -> pl.Series:
    """The texts of a file: its lines, or the column of a table. What names no file is a text, a list is texts."""
    if not isinstance(file, str):
        return as_series(option, file).cast(pl.String).fill_null("")
    suffix = Path(file).suffix.lower()
    if not file.strip():
        raise InputError(f"--{option} {file!r} holds no text; give a text, or a file of one text a line")
    if not Path(file).is_file():
        if suffix in (*_TEXTS[:2], *TABLES, *ARRAYS) or (os.sep in file and " " not in file):
            raise InputError(f"--{option} {file}: no such file")
        return pl.Series([file], dtype=pl.String)
    if suffix not in _TEXTS:
        return open_table(file).texts(column)
    lines = lines_of(file, option)
    if not lines:
        raise InputError(f"--{option} {file} holds no text; write one text a line")
    return pl.Series(lines, dtype=pl.String)


def gaps_of(table: Table, arguments: RowArguments, rows: NDArray[np.int64] | None = None) -> tuple[str, ...]:
    """What to say of rows that miss a value and were filled or are left out; nothing where there are none."""
    if table.empty is None or not (count := int(table.empty[rows].sum() if rows is not None else table.empty.sum())):
        return ()
    some = "1 row misses" if count == 1 else f"{count:,} rows miss"
    if arguments.empty == "drop":
        return (f"{some} a value and {'is' if count == 1 else 'are'} left out",)
    of_names = " (of names, the most frequent one)" if table.fills_names else ""
    return (f"{some} a value, filled with the {arguments.empty.replace('_', ' ')} of the column{of_names}",)


def without_gaps(pool: Pool, arguments: RowArguments) -> Pool:
    """The pool without the rows that miss a value, or with a line on how many were filled."""
    notes = gaps_of(pool.table, arguments, pool.rows)
    if not notes:
        return pool
    if arguments.empty == "drop":
        assert pool.table.empty is not None
        gaps = np.flatnonzero(pool.table.empty[pool.rows])
        if len(gaps) == len(pool.rows):
            raise InputError(
                "--drop-empty leaves no row: every one misses a value in a column that is used; fill them by "
                "--impute median, or name fewer columns"
            )
        whole, pool = pool, pool.drop(gaps)
        _refuse_named_gaps(whole, pool)
    return dataclasses.replace(pool, notes=(*pool.notes, *notes))


def _refuse_named_gaps(whole: Pool, left: Pool) -> None:
    """Refuse rows of include and start that miss a value, and rows of any word that the table does not have.

    Raises:
        InputError: such a row, which would be forgotten with the rows that are left out.
    """
    if whole.entries:  # which are not named by row
        return
    for word, named in whole.named.items():
        checks.positions(named, word, len(whole.rows), whole.ids)
        gone = [] if word == "exclude" else named[~np.isin(named, left.keys)].tolist()
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            which = "which misses a value and is" if len(gone) == 1 else "which miss a value and are"
            raise InputError(
                f"--{word} names row {shown(gone[0])}{more}, {which} left out by --drop-empty; fill what is "
                f"missing, or say --impute median in its place, or take it out of --{word}"
            )


def is_file(path: Path) -> bool:
    """Whether a path, which may be a text of any kind, names a regular file."""
    return names_a_file(path) and regular(path).is_file()


def lines_of(file: str, option: str) -> list[str]:
    """The lines of a file of text that hold something."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"--{option} {file} is not UTF-8 text; write one a line") from None
    return [line.strip() for line in lines if line.strip()]


def read_pairs(file: str, keys: NDArray[Any], option: str) -> NDArray[np.int64]:
    """(p, 2) row numbers of the pairs of ids in a file's two columns.

    A header that is itself a pair of ids is a pair: the file was written without one.
    """
    table = open_table(file, header_alone=True)
    if len(table.columns) < 2:
        raise InputError(f"--{option} {file} has one column; give two, the ids of each pair")
    if len(table.columns) > 2:
        raise InputError(
            f"--{option} {file} has {len(table.columns)} columns ({', '.join(table.columns[:5])}"
            f"{', ..' if len(table.columns) > 5 else ''}); give two columns, one pair a line"
        )
    row_of = {str(key): row for row, key in enumerate(keys.tolist())}
    header = tuple(name.strip() for name in table.columns[:2])
    named = list(zip(*(table.labels(name).tolist() for name in table.columns[:2]), strict=True)) if table.n else []
    for row, pair in enumerate(named):
        for key in pair:
            if key not in row_of:
                raise InputError(f"--{option} {file} names {key!r} at row {row}, which no row has as its id")
    unknown = [key for key in header if key not in row_of]
    if not unknown:
        named.insert(0, header)
    elif len(unknown) == 1 or not named:
        # A header that names one id, or stands alone, is a pair with a mistake in it, or there is no pair.
        raise InputError(
            f"--{option} {file} names {unknown[0]!r} in its first line, which no row has as its id; give one pair of "
            "ids a line, below a header or without one"
        )
    return np.array([[row_of[a], row_of[b]] for a, b in named], np.int64).reshape(-1, 2)


def seen_in_report(
    table: Table, arguments: RowArguments, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """What people see of each row in a report: its text and its picture, where the command names them.

    Args:
        table: the file.
        arguments: what was typed.
        rows: row numbers of the pool's items, rising.
        items: the items that the report shows, rising; of a pool that is read in parts the other texts are not read.
    """
    seen: dict[str, Any] = {}
    if arguments.text and items is not None:
        seen["text"] = np.full(len(rows), "", object)
        seen["text"][items] = texts_at(table, arguments.text, rows[items]).to_list()
    elif arguments.text:
        seen["text"] = table.texts(arguments.text).to_numpy()[rows]
    if arguments.images:
        seen["images"] = images_of(table, arguments.images)[rows]
    return seen


def images_of(table: Table, name: str) -> NDArray[Any]:
    """The array of images, one a row.

    Raises:
        InputError: the file holds no such array, or not of that shape.
    """
    if not isinstance(table, Arrays) or isinstance(table, Npy):
        raise InputError("--images names an array of an .npz file, one image a row, shape (n, height, width)")
    images = table.array(name)
    if images.ndim not in (3, 4) or len(images) != table.n:
        raise InputError(f"--images {name} has shape {images.shape}; give (n, height, width) with n={table.n}")
    return images
