"""Tables of scores in the long form: one score a row, of a system by a judge (and of an item)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.cells import typed_cells
from kofn.io.reading import suffix_of
from kofn.io.tables import Table
from kofn.tables.scores import is_blank, is_scores, scores_with_gaps
from kofn.tables.unlike import as_typed

# What the columns of a table of scores in the long form are called, word by word.
_CALLED = {
    "system": {"system", "model", "method", "team", "player", "competitor", "candidate", "algorithm", "submission"},
    "judge": {
        "judge",
        "task",
        "dataset",
        "benchmark",
        "metric",
        "annotator",
        "rater",
        "voter",
        "expert",
        "subset",
        "reviewer",
        "bin",
    },
    "item": {
        "item",
        "instance",
        "example",
        "sample",
        "prompt",
        "question",
        "document",
        "doc",
        "segment",
        "fold",
        "seed",
    },
    "score": {"score", "value", "rating", "points", "grade", "accuracy", "acc", "correct", "mark"},
}
# What a column of answers is called, which predictions of each row are held against.
ANSWER = re.compile(r"y|y_true|target|label|labels|truth|answer|class|outcome", re.IGNORECASE)
_HINT = "--long SYSTEM,JUDGE,SCORE (or SYSTEM,JUDGE,ITEM,SCORE)"


class LongColumns(NamedTuple):
    """The columns of a table that holds one score a row."""

    system: str
    judge: str
    item: str | None
    score: str


def long_columns(table: Table, named: Sequence[str] | None) -> LongColumns | None:
    """The columns of a table in the long form: those that are named, or that are called so; None where it is not.

    Scores are numbers, or truth values, which count as 1 and 0.

    Raises:
        InputError: names of another number, or that the table does not have; a score that is neither.
    """
    if named is not None:
        if len(named) not in (3, 4):
            raise InputError(f"--long {as_typed(*named)}: give {_HINT}")
        names = table.named(tuple(named))
        if not _may_score(table, names[-1]):
            raise InputError(f"--long: {names[-1]!r} holds no numbers; name the column of scores last, as in {_HINT}")
        return LongColumns(names[0], names[1], names[2] if len(names) == 4 else None, names[-1])
    called = _called(table)
    return called if called is not None and _repeats(table, called) else None


def _called(table: Table) -> LongColumns | None:
    """The columns by what they are called; None unless every column plays one part, and each part is played once."""
    if len(table.columns) not in (3, 4):
        return None
    parts: dict[str, str] = {}
    for name in table.columns:
        roles = _roles(name)
        if len(roles) != 1 or roles[0] in parts:
            return None
        parts[roles[0]] = name
    if not {"system", "judge", "score"} <= parts.keys() or not _may_score(table, parts["score"]):
        return None
    return LongColumns(parts["system"], parts["judge"], parts.get("item"), parts["score"])


def _roles(name: str) -> list[str]:
    """The parts that a column may play by what it is called."""
    words = set(re.split(r"[^a-z0-9]+", name.strip().casefold()))
    words |= {word.removesuffix("s") for word in words}
    return [role for role, known in _CALLED.items() if words & known]


def _may_score(table: Table, name: str) -> bool:
    """Whether a column holds numbers or truth values."""
    return is_scores(table, name) or _truth_values(table, name) is not None


def _truth_values(table: Table, name: str) -> pl.Series | None:
    """A column of truth values as such, however they are written; None of any other."""
    column = table.column(name)
    if table.dtype(name) == "text":
        column = typed_cells(table.reading.cells(column.cast(pl.String)).str.strip_chars().str.to_lowercase())
    return column if column.dtype == pl.Boolean else None


def long_scores(table: Table, name: str) -> Floats:
    """The scores of a table in the long form, NaN where a cell is empty; of truth values 1 and 0."""
    truths = _truth_values(table, name)
    if truths is None:
        return scores_with_gaps(table, name)
    return np.asarray(truths.cast(pl.Float64).fill_null(float("nan")).to_numpy(), np.float64)


def _repeats(table: Table, columns: LongColumns) -> bool:
    """Whether systems and judges stand in more than one row, as they do in the long form alone."""
    return all(table.column(name).n_unique() < table.n for name in (columns.system, columns.judge))


def refuse_long_form(
    table: Table, id_column: str | None = None, call: Callable[[Sequence[str]], str] | None = None
) -> None:
    """Refuse a table whose rows no column names, since the same names stand in several: most often one score a row.

    Args:
        table: the table, whose judges nobody has named.
        id_column: the column that names the rows, as the user says.
        call: the remedy for these columns (of what is ranked, who judges, the item, the score), `--long` by default.

    Raises:
        InputError: no column of text differs in every row, or those do not that are called as systems and judges are.
    """
    texts = [name for name in table.columns if table.dtype(name) == "text" and not is_blank(table, name)]
    texts = [name for name in texts if not ANSWER.fullmatch(name.strip()) and _truth_values(table, name) is None]
    if table.n < 2 or not texts:
        return
    if id_column is not None and (len(texts) < 2 or _differs(table, [id_column])):
        return  # names that repeat are refused where they are read
    guess = _guessed(table, texts)
    if any(_differs(table, [name]) for name in texts) and not _called_long(table, guess):
        return
    columns = [name or part.upper() for part, name in guess._asdict().items() if name or part != "item"]
    whole = bool(guess.system and guess.judge and guess.score)
    of_each = f": {guess.score!r} of each {guess.system!r} by each {guess.judge!r}" if whole else ""
    on_each = f" on each {guess.item!r}" if whole and guess.item else ""
    key = next((name for name in table.columns if name != guess.score and _may_name(table, name)), "COL")
    judges = as_typed(*[name for name in table.columns if is_scores(table, name)] or ["A", "B"])
    named = as_typed(*columns)
    remedy = call(columns) if call else f"--long {named}"
    repeated = ", ".join(repr(name) for name in texts if not _differs(table, [name]))
    raise InputError(
        f"{table.path} repeats what it holds in {repeated}, as a table of one score a row{of_each}"
        f"{on_each}; if it is one, say {remedy}; if each row is an alternative of its own, say which column names it, "
        f"--id {as_typed(key)}, or which judge, --columns {judges}"
    )


class _Guess(NamedTuple):
    """The columns of a table in the long form as far as they can be told."""

    system: str | None
    judge: str | None
    item: str | None
    score: str | None


def _guessed(table: Table, texts: Sequence[str]) -> _Guess:
    """The parts that columns play, by what they are called, or else by their kind and order."""
    called = {role: [name for name in table.columns if role in _roles(name)] for role in _CALLED}
    scoring = [name for name in table.columns if _may_score(table, name)]
    items = called["item"]
    score = next(iter([name for name in called["score"] if name in scoring]), None)
    score = score or next((name for name in reversed(scoring) if name not in items), None)
    keys = [name for name in texts if name != score]
    system = next(iter([name for name in called["system"] if name in keys] or keys), None)
    rest = [name for name in keys if name != system and name not in items]
    judge = next(iter([name for name in called["judge"] if name not in (system, score)] or rest), None)
    if system and judge is None:
        others = [name for name in table.columns if name not in (system, score)]
        judge = next((name for name in others if _differs(table, [system, name])), None)
    item = None
    if system and judge and not _differs(table, [system, judge]):
        others = [name for name in (*items, *rest, *table.columns) if name not in (system, judge, score)]
        item = next((name for name in others if _differs(table, [system, judge, name])), None)
        item = item or next(iter([name for name in items if name in others]), None)
    return _Guess(system, judge, item, score)


def _called_long(table: Table, guess: _Guess) -> bool:
    """Whether the columns are called as systems, judges and scores are, and neither of the first names the rows."""
    if guess.system is None or guess.judge is None or guess.score is None:
        return False
    roles = ((guess.system, "system"), (guess.judge, "judge"), (guess.score, "score"))
    called = all(role in _roles(name) for name, role in roles)
    return called and not _differs(table, [guess.system]) and not _differs(table, [guess.judge])


def _differs(table: Table, names: Sequence[str]) -> bool:
    """Whether no two rows hold the same in these columns, and none holds nothing."""
    keys = pl.DataFrame([table.column(name) for name in names])
    return keys.drop_nulls().n_unique() == table.n


def _may_name(table: Table, name: str) -> bool:
    """Whether a column holds texts or whole numbers of which no two rows share one."""
    column = table.column(name)
    return (column.dtype.is_integer() or table.dtype(name) == "text") and _differs(table, [name])


def refuse_long_judges(table: Table, id_column: str | None, named: Collection[str]) -> None:
    """Refuse a table of one score a row where each row should be an item and each column a judge of it.

    It is one by the names of its columns (an item or a system, a judge, a score), or where one column of numbers stands
    beside two of text that both repeat what they hold, and no two rows hold the same in both.

    Args:
        table: the table, whose judges nobody has named.
        id_column: the column that names the rows, as the user says.
        named: other columns of which the user has said what they are.

    Raises:
        InputError: it is such a table; the message has the call that makes it a wide one.
    """
    names = [name for name in table.columns if name not in named]
    keys = [name for name in names if not _differs(table, [name])]
    called = {role: [name for name in names if role in _roles(name)] for role in _CALLED}
    item = next((name for name in (*called["item"], *called["system"]) if name in keys), None)
    judge = next((name for name in called["judge"] if name in keys and name != item), None)
    score = next((name for name in called["score"] if is_scores(table, name)), None)
    if item is None or judge is None or score is None:
        scoring = [name for name in names if is_scores(table, name)]
        texts = [name for name in keys if table.dtype(name) == "text" and not is_blank(table, name)]
        if len(scoring) != 1 or len(texts) != 2 or not _differs(table, texts):
            return
        (score,), (judge, item) = scoring, sorted(texts, key=lambda name: table.column(name).n_unique())
    if id_column is not None and id_column not in (item, judge) and _differs(table, [id_column]):
        return
    raise InputError(
        f"{table.path} holds one score a row, {score!r} of each {item!r} by each {judge!r}, and --rankings reads an "
        f"item a row and a judge a column; {_widened(table, item, judge, score)}"
    )


def score_of_pairs(table: Table) -> tuple[str, str, str] | None:
    """Item, bin and score of a table of three columns that holds a score of each pair; None of other tables.

    Neither of the first two names the rows, no two rows hold the same pair, and one of them is text, or is called as
    items or judges are; the last is of numbers.
    """
    if len(table.columns) != 3 or table.n < 2:
        return None
    for score in reversed(table.columns):
        keys = [name for name in table.columns if name != score]
        named = any(table.dtype(name) == "text" or {"item", "judge", "system"} & set(_roles(name)) for name in keys)
        if not named or not is_scores(table, score) or any(_differs(table, [name]) for name in keys):
            continue
        if _differs(table, keys):
            item, judge = sorted(keys, key=lambda name: "judge" in _roles(name))
            return item, judge, score
    return None


def _widened(table: Table, item: str, judge: str, score: str) -> str:
    """The call that makes a table in the long form a wide one."""
    turned = f".pivot(on={judge!r}, index={item!r}, values={score!r})"
    if not table.path.suffix:
        return (
            f"in polars X{turned}, in pandas X.pivot(columns={judge!r}, index={item!r}, values={score!r}).reset_index()"
        )
    kind = {".parquet": "parquet", ".jsonl": "ndjson", ".ndjson": "ndjson"}.get(suffix_of(table.path), "csv")
    mark = ", separator='\\t'" if suffix_of(table.path) == ".tsv" else ""
    read = f"polars.read_{kind}({str(table.path)!r}{mark})"
    return f"make it so in Python: {read}{turned}.write_{kind}('wide.{kind}')".replace("wide.ndjson", "wide.jsonl")
