"""Predictions of which no answers are known: a column each, or one for each class; what is no prediction is asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError, shown
from kofn.core.checks.class_votes import votes_again
from kofn.tables.class_answers import in_order, names_by_model
from kofn.tables.class_ballots import classes_voted
from kofn.tables.class_columns import adds_up, by_class
from kofn.tables.long_form import ANSWER
from kofn.tables.predictions import Predictions
from kofn.tables.unlike import as_typed, called_as_keys, refuse_numbers_of_rows

_NUMBER = re.compile(r"-?\d+")
# Classes that whole numbers of predictions are taken to be, at most.
_MOST_CLASSES = 20


def refuse_no_predictions(columns: Mapping[str, Array], path: str) -> None:
    """Refuse columns that nobody named and that are most likely keys of the rows, or the answers.

    Args:
        columns: the columns of numbers, each (n,).
        path: the table.

    Raises:
        InputError: names the column, and the flags that say what it is.
    """
    names = list(columns)
    for name in names:
        others = [other for other in names if other != name]
        as_models = f"if it is a model's predictions, name all of these: --columns {as_typed(*names)}"
        if ANSWER.fullmatch(name.strip()) and others:
            raise InputError(
                f"{path} column {name!r} is called as answers are; if it holds them, say --label {as_typed(name)}, "
                f"{as_models}"
            )
        if called_as_keys(name) and not (np.asarray(columns[name], np.float64) % 1 > 0).any():
            raise InputError(
                f"{path} column {name!r} is called as what names the rows; if it does, say --id {as_typed(name)}, "
                f"{as_models}"
            )
    if len(names) > 1:
        refuse_numbers_of_rows(names, np.stack(list(columns.values()), axis=1), path, "model")


def refuse_missing(read: Predictions, paths: Sequence[str]) -> None:
    """Refuse rows that a file has no prediction of: without answers nothing says how much the other models count there.

    Raises:
        InputError: names the file, the rows and the remedies.
    """
    for name, member in zip(read.names, read.members, strict=True):
        values = np.asarray(member)
        if values.dtype.kind != "f":
            continue
        missing = np.flatnonzero(np.isnan(values).any(axis=tuple(range(1, values.ndim))))
        if not len(missing):
            continue
        row = missing[0]
        of = f"row {row}" if read.ids is None else f"{read.id_name} {shown(read.ids[row].item())}"
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        where = paths[list(read.names).index(name)] if len(paths) == len(read.names) else f"{paths[0]} column {name!r}"
        raise InputError(
            f"{where} has no prediction of {of}{more}, and without answers nothing says how much the other models "
            "count there; give it, leave these rows out, or say --label"
        )


def as_votes(read: Predictions, classes: Sequence[Any]) -> Predictions:
    """Members whose numbers are all classes as votes for them; others as they are."""
    known = {float(name): name for name in classes if _NUMBER.fullmatch(str(name))}
    members = [np.asarray(member) for member in read.members]
    if any(member.ndim != 1 or member.dtype == object or not np.isin(member, list(known)).all() for member in members):
        return read
    return dataclasses.replace(
        read, members=[np.array([known[value] for value in member.tolist()], object) for member in members]
    )


def may_be_classes(read: Predictions) -> tuple[str, ...] | None:
    """The few whole numbers, at least three, that all predictions are, numbered in a row from 0 or 1."""
    members = [np.asarray(member) for member in read.members]
    if any(member.ndim != 1 or member.dtype == object for member in members):
        return None
    numbers = np.unique(np.concatenate(members))
    counted = len(numbers) in range(3, _MOST_CLASSES + 1) and numbers[0] in (0, 1)
    return tuple(f"{number:g}" for number in numbers) if counted and (np.diff(numbers) == 1).all() else None


def of_classes(read: Predictions, path: str, classes: Sequence[Any] | None) -> Predictions:
    """The members of a table, of a column for each class where columns are called after the same classes and add up to
    one for each model; votes as shares of the classes.

    Args:
        read: what one table holds, a column a member.
        path: the table.
        classes: all classes, where they are named.

    Raises:
        InputError: all columns add up to one, so that they are one model's; columns are called after none of
            `classes`, or a vote is for none of them.
    """
    if any(np.asarray(member).dtype == object for member in read.members):
        return as_shares(read, classes_voted(read.members) if classes is None else list(classes))
    if read.columns is not None or any(np.ndim(member) != 1 for member in read.members):
        return read
    values = dict(zip(read.names, read.members, strict=True))
    stems = names_by_model(values) if classes is None else _called_after(values, classes)
    if stems is None and len(values) > 1 and adds_up(list(values.values())):
        first = read.names[:2]
        raise InputError(
            f"{path}: columns {', '.join(read.names)} add up to one in each row, so that they are one model's "
            "probabilities of the classes; give a table for each model, or call the columns after model and class, as "
            f"in {as_typed(*(f'forest_{name}' for name in first))}"
        )
    if stems is None and classes is not None:
        raise InputError(
            f"{path}: columns {', '.join(read.names)} are not called after models and --classes "
            f"{as_typed(*map(str, classes))}; call them so, as in {as_typed(*(f'forest_{name}' for name in classes))}"
        )
    if stems is None:
        return read
    order = list(next(iter(stems.values())))
    members = [np.stack([values[of_class[label]] for label in order], axis=1) for of_class in stems.values()]
    columns = tuple(of_class[label] for of_class in stems.values() for label in order)
    grouped = dataclasses.replace(
        read, names=tuple(stems), members=members, columns=tuple(order), source_columns=columns
    )
    return grouped if classes is None else in_order(grouped, classes)


def _called_after(values: Mapping[str, Array], classes: Sequence[Any]) -> dict[str, dict[str, str]] | None:
    """The columns of each model by class, where they are called after the classes that were named."""
    grouped = by_class(values, np.array([str(name) for name in classes]), classes)
    if grouped is None:
        return None
    return {stem: dict(zip(grouped.classes, names, strict=True)) for stem, names in grouped.stems.items()}


def as_shares(read: Predictions, classes: Sequence[Any]) -> Predictions:
    """Votes as (n, classes) shares: one for the class voted for.

    Raises:
        InputError: a vote for none of the classes, or a row without one, which a plain mean has no weight for.
    """
    for name, member in zip(read.names, read.members, strict=True):
        row = next((row for row, cell in enumerate(np.asarray(member).tolist()) if cell is None), None)
        if row is not None:
            raise InputError(
                f"member {name!r} has no vote at row {row}, and without answers nothing says how much the others "
                "count; give one, leave the row out, or say --label"
            )
    names = [f"member {name!r}" for name in read.names]
    return dataclasses.replace(
        read, members=votes_again(read.members, names, list(classes)), columns=tuple(map(str, classes))
    )
