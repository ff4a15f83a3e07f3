"""The trial of `kofn compare`: methods pick from a part of the labelled rows, classifiers are judged on the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, directions
from kofn.core.checks import FailureError, InputError, is_sparse, nearest
from kofn.core.dispatch import methods_of
from kofn.core.registry import Entry
from kofn.core.runtime import Control
from kofn.core.vocabulary import argument
from kofn.engines.opening import addressed, opened
from kofn.io.tables import UNLABELLED, Table
from kofn.selection.labels._accuracy import (
    Judge,
    accuracy,
    beaten,
    column_judges,
    dense_judges,
    half_width,
    text_judges,
)
from kofn.tables.arguments import RowArguments
from kofn.tables.odd_classes import odd_classes
from kofn.tables.read import gaps_of, read_vectors
from kofn.verbs import select

METHODS = ("auto", "typiclust", "probability_cover", "uncertainty_herding")
SPLITS, DRAWS, ROUNDS = 10, 20, 5
# Rows of a pool and rows to judge on, at most.
MOST_POOL, MOST_TEST = 2_000, 1_000
_LEAST_TEST = 10
# Rows that a class has at least, on average.
_ROWS_OF_A_CLASS = 3
_POOL_SHARE = 2 / 3


@dataclass(frozen=True, kw_only=True)
class CompareArguments(RowArguments):
    """What `kofn compare` was asked."""

    VERB: ClassVar[str] = "select"

    label_column: str
    k: tuple[int, ...]
    methods: tuple[str, ...]
    address: str | None = None

    @classmethod
    def of_typed(cls, typed: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The arguments from click's values; words of other commands stay unset."""
        names = {field.name for field in fields(cls)}
        unset: dict[str, Any] = dict.fromkeys(names - {field.name for field in fields(cls) if field.name in values})
        given = {**unset, **{name: value for name, value in values.items() if name in names}}
        for value in values["k"]:
            if not float(value).is_integer() or value < 1:
                raise InputError(f"-k {value:g}: give whole numbers of rows, such as 20,60")
        entries = methods_of("select")
        for name in values["methods"]:
            if name not in entries and name != "auto":
                raise InputError(f"--methods {name!r}: no such method of select{nearest(name, entries)}")
            if name != "auto" and entries[name].takes({"X", "k"}) is None:
                raise InputError(f"--methods {name!r} needs {entries[name].inputs}; give methods that take rows and k")
        more = {
            "typed": tuple(typed),
            "own_options": {},
            "method": "auto",
            "methods": tuple(dict.fromkeys(values["methods"])),
            "dry_run": False,
            "no_cache": values["no_cache"],
        }
        ks = tuple(sorted({int(value) for value in values["k"]}))
        return cls(**{**given, **more, "label_column": values["judge"], "k": ks})


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        labelled, classes: rows with a label, and how many classes they have.
        splits, pool, test: how often, from how many rows and on how many it was tried.
        rows: of each k and method: points of accuracy over the mean random draw, half the width of their interval, and
            the share of draws that are worse.
        verdicts: by k, in plain words.
        notes: lines about what was read.
    """

    labelled: int
    classes: int
    splits: int
    pool: int
    test: int
    rows: list[dict[str, Any]]
    verdicts: dict[int, str]
    notes: tuple[str, ...]

    def answer(self, seconds: float) -> dict[str, Any]:
        """The answer for machines."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"seconds": seconds}


def try_methods(table: Table, arguments: CompareArguments) -> Trial:
    """Let each method pick from ten pools of labelled rows, and judge what is learnt from its picks.

    Raises:
        InputError: too few labelled rows, one class alone, or a k above what a pool holds.
        FailureError: the time limit passed before two splits were done.
    """
    column = arguments.label_column
    if column in (arguments.columns or ()) or column in (arguments.text, arguments.vectors):
        raise InputError(f"--judge {column} is what the rows are compared by too; nobody has it of rows to label")
    labels = table.labels_so_far(column)
    rows, y, size, test = _labelled(labels, arguments)
    compared = read_vectors(table, arguments)
    if is_sparse(compared.X) or arguments.metric == "precomputed":
        raise InputError("compare takes rows of a table or a dense array; give --text, --columns or --vectors")
    gaps = gaps_of(table, arguments)
    if arguments.drop_empty and table.empty is not None:
        rows, y, size, test = _labelled(np.where(table.empty, UNLABELLED, labels), arguments)
    X = np.asarray(compared.X)[rows]
    if arguments.metric is None and arguments.text:
        X = directions(X.astype(np.float64))
    judges, judge_note = _judges(table, arguments, rows, X, y)
    lesson = _Lesson(X, y, judges, size, test, arguments)
    random: list[Floats] = []
    points: dict[str, list[Floats]] = {name: [] for name in arguments.methods}
    shares: dict[str, list[Floats]] = {name: [] for name in arguments.methods}
    spent = dict.fromkeys(arguments.methods, 0.0)
    with Control(time_limit=arguments.time_limit, progress=True, total=SPLITS, title="comparing") as control:
        for split, tried in enumerate(_tried(lesson, control)):
            random.append(tried.random)
            for name in arguments.methods:
                points[name].append(tried.points[name])
                shares[name].append(tried.shares[name])
                spent[name] += tried.seconds[name]
            control.step(split + 1)
    if len(random) < 2:
        raise FailureError(f"--time-limit {arguments.time_limit:g} s left no time for two splits; give more")
    table_rows = []
    for position, k in enumerate(arguments.k):
        for name in arguments.methods:
            values = np.array(points[name])[:, position]
            table_rows.append(
                {
                    "k": k,
                    "method": name,
                    "random": float(np.mean(np.array(random)[:, position])),
                    "points": float(values.mean()),
                    "interval": half_width(values, overlap=test / size, of=len(arguments.methods)),
                    "beaten": float(np.array(shares[name])[:, position].mean()),
                    "seconds": spent[name],
                }
            )
    return Trial(
        labelled=len(rows),
        classes=len(np.unique(y)),
        splits=len(random),
        pool=size,
        test=test,
        rows=table_rows,
        verdicts={k: _verdict([row for row in table_rows if row["k"] == k]) for k in arguments.k},
        notes=(f"compared by {compared.how}", *gaps, judge_note, *odd_classes(labels, column)),
    )


@dataclass(frozen=True)
class _Lesson:
    """What all splits share: the labelled rows, the judges, rows of a pool and of a test, and what was asked."""

    X: NDArray[Any]
    y: Ints
    judges: tuple[Judge, ...]
    size: int
    test: int
    arguments: CompareArguments


@dataclass(frozen=True)
class _Tried:
    """What one split shows, of each k: the mean of random draws; of each method its points over it, and the share of
    draws that are worse; and the seconds that each method took."""

    random: Floats
    points: dict[str, Floats]
    shares: dict[str, Floats]
    seconds: dict[str, float]


def _tried(lesson: _Lesson, control: Control) -> Iterator[_Tried]:
    """The splits in their order, here one after another, or where --engine says."""
    arguments = lesson.arguments
    where = argument("engine", addressed(arguments.engine, arguments.address))
    if where is None:
        for split in range(SPLITS):
            if control.stopped():
                return
            yield try_split(split, lesson)
        return
    with opened(where, arguments.n_threads) as engine:
        yield from engine.map(try_split, range(SPLITS), shared=(engine.share(lesson),), stopped=control.stopped)


def try_split(split: int, lesson: _Lesson) -> _Tried:
    """Let each method pick from one pool of labelled rows, beside random draws of the same pool."""
    arguments, judges, y = lesson.arguments, lesson.judges, lesson.y
    rng = np.random.default_rng([arguments.seed or 0, split])
    order = rng.permutation(len(y))
    pool, judged = order[: lesson.size], order[lesson.size : lesson.size + lesson.test]
    orders = [rng.permutation(lesson.size) for _ in range(DRAWS)]
    drawn = [np.array([accuracy(judges, pool[order[:k]], judged) for order in orders]) for k in arguments.k]
    points, shares, seconds = {}, {}, {}
    for name in arguments.methods:
        began = time.perf_counter()
        picked = [_picks(name, arguments, lesson.X[pool], y[pool], k, split) for k in arguments.k]
        seconds[name] = time.perf_counter() - began
        reached = [accuracy(judges, pool[chosen], judged) for chosen in picked]
        points[name] = np.array([mine - float(d.mean()) for mine, d in zip(reached, drawn, strict=True)])
        shares[name] = np.array([beaten(mine, d) for mine, d in zip(reached, drawn, strict=True)])
    return _Tried(np.array([float(reached.mean()) for reached in drawn]), points, shares, seconds)


def _labelled(labels: NDArray[Any], arguments: CompareArguments) -> tuple[Ints, Ints, int, int]:
    """The rows that have a label, their classes by number, and how many make a pool and a test."""
    rows = np.flatnonzero(labels != UNLABELLED)
    classes, codes = np.unique(labels[rows], return_inverse=True)
    size, test = _sizes(len(rows), len(classes), arguments)
    if len(classes) > max(2, len(rows) // _ROWS_OF_A_CLASS):
        raise InputError(
            f"--judge {arguments.label_column}: {len(classes):,} different values in {len(rows):,} rows are no "
            "classes; name a column whose values repeat"
        )
    return rows, codes.astype(np.int64), size, test


def _sizes(n: int, classes: int, arguments: CompareArguments) -> tuple[int, int]:
    """Rows of a pool, and rows to judge on."""
    column = arguments.label_column
    if classes < 2:
        raise InputError(
            f"--judge {column}: {n:,} rows have a label, of {classes} classes; at least 2 classes are needed"
        )
    size = min(MOST_POOL, int(n * _POOL_SHARE))
    test = min(MOST_TEST, n - size)
    most = arguments.k[-1]
    if most >= MOST_POOL:
        # More labels would not help, so they are advised only where there are too few for any k.
        labels = "" if test >= _LEAST_TEST else f" and label at least {math.ceil(_LEAST_TEST / (1 - _POOL_SHARE))}"
        here = "" if size == MOST_POOL else f" and here {size:,}"
        raise InputError(
            f"-k {most}: pools have {MOST_POOL:,} rows at most{here}; ask for k < {max(size, 2):,}{labels}"
        )
    if test < _LEAST_TEST or most >= size:
        least = max(math.ceil((most + 1) / _POOL_SHARE), math.ceil(_LEAST_TEST / (1 - _POOL_SHARE)))
        fewer = f"ask for k < {size}, or " if test >= _LEAST_TEST else ""
        raise InputError(
            f"-k {most}: {n:,} rows have a label in {column!r}, of which {size:,} are the pool of a split; "
            f"{fewer}label at least {least:,}"
        )
    return size, test


def _judges(
    table: Table, arguments: CompareArguments, rows: Ints, X: NDArray[Any], y: Ints
) -> tuple[tuple[Judge, ...], str]:
    """Two classifiers on features that the picking does not see, and a line that says so."""
    if arguments.text:
        texts = table.texts(arguments.text)[rows].to_list()
        return text_judges(texts, y), "judged by ridge regression and naive Bayes on character n-grams"
    if arguments.columns:
        frame = pl.DataFrame([_plain(table.compared(name)[rows]) for name in arguments.columns])
        return column_judges(frame, y), "judged by ridge regression on ranks and by trees on the values"
    centred = X - X.mean(axis=0)
    judges = dense_judges(centred, X, y)
    return judges, "judged by ridge regression and trees on the same vectors, since the file holds no other features"


def _plain(column: pl.Series) -> pl.Series:
    """Numbers or words: dates as numbers, categories as words."""
    if column.dtype.is_temporal():
        return column.to_physical()
    return column if column.dtype.is_numeric() or column.dtype == pl.Boolean else column.cast(pl.String)


def _picks(name: str, arguments: CompareArguments, X: NDArray[Any], y: Ints, k: int, seed: int) -> Ints:
    """The rows that a method picks; one that learns from labels is told those of its picks, in five rounds."""
    entry = methods_of("select").get(name)
    if entry is not None and "unlabelled" in entry.options:
        return _in_rounds(entry, X, y, k, seed)
    call: dict[str, Any] = {"X": X, "k": k, "n_threads": arguments.n_threads}
    if entry is None or "metric" in entry.accepted:
        call["metric"] = arguments.measured_by
    if entry is not None and "seed" in entry.accepted:
        call["seed"] = seed
    if entry is not None:
        call = {word: value for word, value in call.items() if word in entry.accepted}
    run: Callable[..., Any] = select
    return np.asarray(run(method=name, **{word: value for word, value in call.items() if value is not None}).indices)


def _in_rounds(entry: Entry, X: NDArray[Any], y: Ints, k: int, seed: int) -> Ints:
    """Five rounds of about as many rows each."""
    run: Callable[..., Any] = select
    picks = np.empty(0, np.int64)
    for number in range(1, ROUNDS + 1):
        batch = k * number // ROUNDS - len(picks)
        if batch:
            known = np.full(len(X), -1)
            known[picks] = y[picks]
            plan = run(X, y=known, k=batch, method=entry.name, seed=seed)
            picks = np.concatenate([picks, plan.indices])
    return picks


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Which method to use, in plain words."""
    best = max(rows, key=lambda row: row["points"])
    worse = [row["method"] for row in rows if row["points"] + row["interval"] < 0]
    against = f"; {' and '.join(worse)} {'is' if len(worse) == 1 else 'are'} surely worse than random" if worse else ""
    if best["points"] - best["interval"] > 0:
        alike = [row["method"] for row in rows if row is not best and row["points"] + row["interval"] > best["points"]]
        also = f" ({', '.join(alike)} may do as well)" if alike else ""
        return f"use {best['method']}: surely better than random here{also}{against}"
    return f"no method is surely better than random here{against}"
