"""Tables of scores in the long form: one score a row, of a system by a judge (and of an item)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.tables import Table
from kofn.tables.read import is_scores

# What the columns of a table of scores in the long form are called, word by word.
_CALLED = {
    "system": {"system", "model", "method", "team", "player", "competitor", "candidate", "algorithm", "submission"},
    "judge": {"judge", "task", "dataset", "benchmark", "metric", "annotator", "rater", "voter", "expert", "subset"},
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
    "score": {"score", "value", "rating", "points", "grade", "accuracy", "mark"},
}
_HINT = "--long SYSTEM,JUDGE,SCORE (or SYSTEM,JUDGE,ITEM,SCORE)"


class LongColumns(NamedTuple):
    """The columns of a table that holds one score a row."""

    system: str
    judge: str
    item: str | None
    score: str


def long_columns(table: Table, named: Sequence[str] | None) -> LongColumns | None:
    """The columns of a table in the long form: those that are named, or that are called so; None where it is not.

    Raises:
        InputError: names of another number, or that the table does not have; a score that is not numeric.
    """
    if named is not None:
        if len(named) not in (3, 4):
            raise InputError(f"--long {','.join(named)}: give {_HINT}")
        names = table.named(tuple(named))
        if not is_scores(table, names[-1]):
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
        words = set(re.split(r"[^a-z0-9]+", name.strip().casefold()))
        words |= {word.removesuffix("s") for word in words}
        roles = [role for role, known in _CALLED.items() if words & known]
        if len(roles) != 1 or roles[0] in parts:
            return None
        parts[roles[0]] = name
    if not {"system", "judge", "score"} <= parts.keys() or not is_scores(table, parts["score"]):
        return None
    return LongColumns(parts["system"], parts["judge"], parts.get("item"), parts["score"])


def _repeats(table: Table, columns: LongColumns) -> bool:
    """Whether systems and judges stand in more than one row, as they do in the long form alone."""
    return all(table.column(name).n_unique() < table.n for name in (columns.system, columns.judge))


def refuse_long_form(table: Table) -> None:
    """Refuse a table of one score a row, whose alternatives would count as many times as they have scores.

    Raises:
        InputError: no two rows have the same names, and each name of one column stands with most of another's.
    """
    texts = [name for name in table.columns if table.dtype(name) == "text"]
    numbers = [name for name in table.columns if table.dtype(name) == "number"]
    if len(numbers) != 1 or len(texts) not in (2, 3):
        return
    keys = pl.DataFrame({name: table.column(name).cast(pl.String) for name in texts})
    counts = [keys[name].n_unique() for name in texts]
    product = 1
    for count in counts:
        product *= count
    if keys.n_unique() == table.n and max(counts) < table.n and min(counts) > 1 and 2 * table.n >= product:
        of_each = " by each ".join(map(repr, texts))
        example = ",".join([*texts, *numbers])
        raise InputError(
            f"{table.path} holds one score a row: {numbers[0]!r} of each {of_each}; say which column names what is "
            f"ranked and which who judges, as in --long {example}"
        )
