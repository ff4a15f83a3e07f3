"""Scores in the long form, one a row, as the ballots that every rule of rankings takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.rankings import group_ballots
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError, nearest, shown
from kofn.core.helpers import helper

__all__ = ["long_ballots"]


@helper
def long_ballots(
    system: Any,
    judge: Any,
    score: Any,
    item: Any = None,
    *,
    method: str = "borda",
    lower: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn scores, one a row, into ballots that `kofn.combine` takes: the judges (tasks) rank the systems.

    With items (the instances of a task) the ranking has two levels: within each judge every item ranks the systems, as
    a judge would, and the rankings of the judges are what is returned. A judge with many items, or with scores on a
    scale of its own, counts as much as any other, and only the order of scores within an item matters.

    Args:
        system: (rows,) what is ranked, by name.
        judge: (rows,) who or what scored it: a judge, a task, a metric.
        score: (rows,) the score, higher is better; NaN or None counts as not given.
        item: (rows,) the instance that was scored; None for one score of each system by each judge.
        method: with items, the rule that ranks within a judge: "borda" is that of the reference.
        lower: the judges for whom lower is better.
        options: of the method, such as its prior.

    Returns:
        `rankings`, a polars frame (systems, judges): the scores, or, with items, minus the ranks; and `ids`, the
        systems in the order in which they first appear.

    Raises:
        InputError: columns of unlike length, a missing name, a score that is no number, two scores of one system by
            one judge (of one item), a judge in `lower` who is none, a judge who compares no two systems.

    Cost: O(rows log rows), and with items the method's for each judge.

    References:
        Colombo, Noiry, Irurozki & Clémençon 2022, What are the best systems? New perspectives on NLP benchmarking
        (NeurIPS).

    Examples:
        >>> import kofn
        >>> from kofn.combination import long_ballots
        >>> ballots = long_ballots(["a", "b", "a", "b"], ["maths", "maths", "code", "code"], [9.0, 1.0, 0.2, 0.1])
        >>> ballots["ids"], kofn.combine(**ballots).to_frame()["id"].to_list()
        (['a', 'b'], ['a', 'b'])
        >>> systems, items = ["a", "b"] * 3, [1, 1, 2, 2, 3, 3]
        >>> two = long_ballots(systems, ["maths"] * 6, [900.0, 1.0, 2.0, 3.0, 0.0, 0.5], items)
        >>> kofn.combine(**two).to_frame()["id"].to_list()
        ['b', 'a']
    """
    import polars

    columns = {"system": system, "judge": judge, **({} if item is None else {"item": item})}
    names, numbers = zip(*(_numbered(value, name) for name, value in columns.items()), strict=True)
    scores = _scores(score)
    for name, codes in zip(columns, numbers, strict=True):
        checks.same_length(len(scores), "score", name, len(codes))
    given = ~np.isnan(scores)
    _refuse_twice(columns, names, [codes[given] for codes in numbers], np.flatnonzero(given))
    falling = [lower] if isinstance(lower, str) else list(lower or ())
    judges = [str(name) for name in names[1]]
    for name in falling:
        if name not in judges:
            raise InputError(f"lower names {shown(name)}, which is no judge{nearest(str(name), judges)}")
    ids = names[0].tolist()
    out: dict[str, Floats] = {}
    for number, name in enumerate(judges):
        rows = given & (numbers[1] == number)
        sign = -1.0 if name in falling else 1.0
        cells = np.zeros(rows.sum(), np.int64) if item is None else numbers[2][rows]
        _, cells = np.unique(cells, return_inverse=True)
        table = np.full((len(ids), int(cells.max(initial=0)) + 1), np.nan)
        table[numbers[0][rows], cells] = sign * scores[rows]
        out[name] = table[:, 0] if item is None else _ranked(table, name, method, options)
    return {"rankings": polars.DataFrame(out), "ids": ids}


def _ranked(table: Floats, judge: str, method: str, options: Mapping[str, Any] | None) -> Floats:
    """(systems,) minus the ranks by the items of a judge, NaN where they compare a system with no other."""
    comparing = np.flatnonzero((~np.isnan(table)).sum(axis=0) > 1)
    if not len(comparing):
        raise InputError(f"judge {judge!r} has no item that two systems have a score of; leave the judge out")
    groups = {judge: list(range(len(comparing)))}
    ballots = group_ballots(table[:, comparing], groups, method=method, options=options)
    return np.asarray(ballots["rankings"][judge].to_numpy(), np.float64)


def _numbered(value: Any, name: str) -> tuple[Array, Ints]:
    """The different names of a column, in the order in which they first appear, and the number of each row's."""
    labels = checks.labels(value, name)
    names, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    return names[order], np.argsort(order)[numbers]


def _scores(value: Any) -> Floats:
    array = checks.as_array(value, "score")
    if array.dtype == object and array.ndim == 1:
        with checks.reading("score", value):
            array = np.array(checks.gaps_as_nan(array).tolist())
    scores = checks.as_float(array, "score").astype(np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError(f"score has shape {scores.shape}; give one a row, shape (rows,)")
    if np.isinf(scores).any():
        row = int(np.isinf(scores).argmax())
        raise InputError(f"score at row {row} is {scores[row]:g}; give finite scores, or none where there is none")
    return scores


def _refuse_twice(columns: Mapping[str, Any], names: Sequence[Array], numbers: Sequence[Ints], rows: Ints) -> None:
    """Refuse two scores of one system by one judge (of one item)."""
    code = np.zeros(len(rows), np.int64)
    for labels, part in zip(names, numbers, strict=True):
        code = code * len(labels) + part
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    if not len(again):
        return
    position = int(again[0])
    named = ", ".join(
        f"{name} {labels[part[position]]!s}" for name, labels, part in zip(columns, names, numbers, strict=True)
    )
    remedy = "average them" if "item" in columns else "average them, or say what tells them apart by item"
    raise InputError(
        f"score at row {rows[position]} is a second one of {named} (the first is at row "
        f"{rows[first[inverse][position]]}); {remedy}"
    )
