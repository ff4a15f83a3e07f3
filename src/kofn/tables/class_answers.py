"""Answers held against the classes that columns of predictions are called after: numbered, or spelt otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.tables.class_columns import MARKS, ByClass, adds_up, by_class, written
from kofn.tables.unlike import as_typed, listed

Grid = dict[str, dict[str, str]]


def as_named(y: Array, classes: Sequence[Any] | None) -> Array:
    """Answers that number the classes, from 0 or from 1 (or False and True), as the classes they number.

    Answers that are classes already are given back as they are, and so is what numbers no classes.

    Args:
        y: the answers.
        classes: all classes in the order of their numbers.

    Raises:
        InputError: the numbers may start at 0 or at 1.

    Examples:
        >>> as_named(np.array([2, 0, 1]), ["cat", "dog", "bird"]).tolist()
        ['bird', 'cat', 'dog']
        >>> as_named(np.array([0.5, 1.0]), ["no", "yes"]).tolist()
        [0.5, 1.0]
    """
    if classes is None or len(classes) < 2 or np.ndim(y) != 1 or not len(y):
        return y
    values, positions = np.unique(y, return_inverse=True)
    count, texts = len(classes), [written(value) for value in values.tolist()]
    called = set(map(str, classes))
    if set(texts) <= called or (set(texts) & called and not all(name.isdigit() for name in called)):
        return y
    numbers, spelt = values, {str(name).lower(): name for name in classes}
    if set(map(str.lower, texts)) <= {"false", "true"}:
        if set(spelt) == {"false", "true"}:  # as Python writes them, where tables write them small
            return np.array([spelt[text.lower()] for text in texts])[positions]
        numbers = np.array([text.lower() == "true" for text in texts], np.int64)
    elif y.dtype.kind not in "iuf" or not (values == np.rint(values)).all():
        return y
    low, high = numbers.min(), numbers.max()
    if len(numbers) == count:
        numbers = np.arange(count)
    elif low == 0 and high < count:
        numbers = numbers.astype(np.int64)
    elif low >= 1 and high == count:
        numbers = numbers.astype(np.int64) - 1
    elif low >= 1 and high < count:
        raise InputError(
            f"the answers are {listed(texts)}, classes of columns are {listed([str(name) for name in classes])}: these "
            "may be numbered from 0 or from 1; write the classes' names as the answers"
        )
    else:
        return y
    return np.array(list(classes))[numbers][positions]


def grouped_by_class(values: Mapping[str, Array], y: Array, classes: Sequence[Any] | None) -> ByClass | None:
    """The columns of each model, as `by_class` tells them; None where they are not named after classes.

    Raises:
        InputError: columns are named after classes by their form, and the answers are others or number them.
    """
    grouped = by_class(values, y, classes)
    if grouped is None:
        _refuse_other_answers(values, y, classes)
    return grouped


def _refuse_other_answers(values: Mapping[str, Array], y: Array, classes: Sequence[Any] | None) -> None:
    """Refuse columns that are named after the same classes for each model, none of which the answers are."""
    if any(np.ndim(column) != 1 or np.asarray(column).dtype.kind not in "iuf" for column in values.values()):
        return
    labels = [written(label) for label in (np.unique(y).tolist() if classes is None else classes)]
    known = {label.strip().casefold() for label in labels}
    for grid in _grids(list(values)):
        names = list(next(iter(grid.values())))
        sure = all(adds_up([values[name] for name in of_class.values()]) for of_class in grid.values())
        spelt = y.dtype.kind == "U" and any(name.strip().casefold() in known for name in names)
        if sure or spelt:
            alone = [of_class[names[-1]] for of_class in grid.values()] if len(names) == 2 else []
            refuse_unlike(names, y, classes, alone)


def refuse_unlike(
    names: Sequence[str],
    y: Array,
    classes: Sequence[Any] | None,
    alone: Sequence[str] = (),
    *,
    by_order: bool = False,
) -> None:
    """Refuse answers that are not the classes that columns are named after; numbers of another kind pass.

    Args:
        names: the classes that columns are named after.
        y: the answers.
        classes: all classes, where they were named.
        alone: of two classes, the columns of the second, which may be given alone.
        by_order: `classes` may call the columns otherwise, in their order.

    Raises:
        InputError: names both, and what to do.
    """
    heads = f"columns are named after {listed(names)}"
    if classes is not None:
        if not set(map(str, classes)) & set(names):
            raise InputError(
                f"{heads}, --classes has {listed([str(name) for name in classes])}; name there what the columns are "
                "named after, in the order that the answers number them"
            )
        return
    labels = np.unique(y).tolist()
    texts = [written(label) for label in labels]
    if set(map(str.lower, names)) == {"false", "true"} and set(map(str.lower, texts)) <= {"false", "true"}:
        return
    lacking = next((number for number, text in enumerate(texts) if text not in names), None)
    if lacking is None:
        return
    answers = f"the answers are {listed(texts)}"
    if (numbered := as_named(y, names)) is not y:
        named = [str(numbered[np.flatnonzero(y == label)[0]]) for label in labels]
        pairs = listed([f"{text} is {name}" for text, name in zip(texts, named, strict=True)])
        rest = f"; or give the probabilities of {texts[-1]} alone, as --columns {as_typed(*alone)}" if alone else ""
        raise InputError(
            f"{heads}, {answers}: name the classes in the order of the answers, --classes {as_typed(*names)} where "
            f"{pairs}{rest}"
        )
    if y.dtype.kind in "iuf":
        whole = bool((np.asarray(labels) == np.rint(labels)).all())
        if whole and len(labels) == len(names) + 1:
            raise InputError(f"{heads}, {answers}, one more: give every model a column of each class")
        return
    row = int(np.flatnonzero(y == labels[lacking])[0])
    folded = {name.strip().casefold(): name for name in names}
    twin = folded.get(texts[lacking].strip().casefold())
    if twin is not None:
        raise InputError(
            f"{heads}, {answers}: {texts[lacking]!r} (row {row}) and {twin!r} differ in case or white space; spell "
            "them alike"
        )
    if set(texts) & set(names):
        raise InputError(
            f"{heads}, no column is of class {texts[lacking]!r} (row {row}); give every model one, or leave such rows "
            "out"
        )
    rest = ", or name the columns' classes in their order with --classes" if by_order else ""
    raise InputError(f"{heads}, {answers}; write the answers as the columns are named{rest}")


def names_by_model(values: Mapping[str, Array]) -> Grid | None:
    """The columns of each model by class, where names split into models and the same classes for each, and each model's
    columns are probabilities that add up to one; None of others.

    Examples:
        >>> names_by_model({"a_no": np.array([0.1, 0.7]), "a_yes": np.array([0.9, 0.3])})
        {'a': {'no': 'a_no', 'yes': 'a_yes'}}
    """
    for grid in _grids(list(values)):
        if all(adds_up([values[name] for name in of_class.values()]) for of_class in grid.values()):
            return grid
    return None


def _grids(names: Sequence[str]) -> list[Grid]:
    """How the names may be split into models and classes so that each model has the same two classes or more: the
    class last, the shortest first, or the class first."""
    grids = [grid for end in _splits(names[0]) if (grid := _grid(names, end)) is not None] if names else []
    turned = [name[::-1] for name in names]
    mirrored = [grid for end in _splits(turned[0]) if (grid := _grid(turned, end)) is not None] if names else []
    grids += [
        {stem[::-1]: {label[::-1]: name[::-1] for label, name in of_class.items()} for stem, of_class in grid.items()}
        for grid in mirrored
    ]
    return grids


def _splits(name: str) -> list[int]:
    """Where a model's name may end, the last such position first."""
    return [end for end in range(len(name) - 2, 0, -1) if name[end] in MARKS]


def _grid(names: Sequence[str], end: int) -> Grid | None:
    """The split in which the first model's name ends here; None where others have other classes."""
    head = names[0][: end + 1]
    tails = sorted((name[end + 1 :] for name in names if name.startswith(head)), key=len, reverse=True)
    grid: Grid = {}
    for name in names:
        tail = next((tail for tail in tails if name.endswith(tail) and name[: -len(tail)][-1:] in tuple(MARKS)), None)
        stem = "" if tail is None else name[: -len(tail) - 1]
        if tail is None or not stem:
            return None
        grid.setdefault(stem, {})[tail.removesuffix("]") if head[-1] == "[" else tail] = name
    classes = [set(of_class) for of_class in grid.values()]
    return grid if len(classes[0]) > 1 and all(own == classes[0] for own in classes) else None


Read = TypeVar("Read", bound=Any)


def in_order(read: Read, classes: Sequence[Any]) -> Read:
    """Members whose columns are called after classes, with the columns in the order of these classes.

    Args:
        read: predictions with `members` and `columns`.
        classes: the classes, one a column; where columns are called otherwise, they are called so in their order.

    Raises:
        InputError: some columns are called after these classes and others are not.
    """
    columns, wanted = list(read.columns), [str(name) for name in classes]
    if columns == wanted or len(set(wanted)) != len(columns):
        return read
    strange = [name for name in columns if name not in wanted]
    if strange and len(strange) < len(columns):
        raise InputError(
            f"column {strange[0]!r} is none of --classes {as_typed(*wanted)}, others are; name the columns' classes"
        )
    if strange:
        return dataclasses.replace(read, columns=tuple(wanted))
    order = [columns.index(name) for name in wanted]
    members = [np.asarray(member)[:, order] for member in read.members]
    return dataclasses.replace(read, members=members, columns=tuple(wanted))
