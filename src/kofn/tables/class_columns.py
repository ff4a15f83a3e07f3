"""Columns of predictions that are called after a model and a class, as `forest_yes` and `forest_no`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.tables.unlike import as_typed, listed

# What stands between a model's name and a class in the name of a column.
MARKS = "_:.|/- ["


class ByClass(NamedTuple):
    """The columns of each model, by its name, in the order of the classes."""

    stems: dict[str, list[str]]
    classes: tuple[str, ...]


def by_class(values: Mapping[str, Array], y: Array, classes: Sequence[Any] | None = None) -> ByClass | None:
    """The columns of each model; None where they are not named after classes.

    The answers may lack a class that every model has a column of.

    Args:
        values: the columns.
        y: the answers.
        classes: all classes in the order wanted, where they are known.

    Raises:
        InputError: some models have a column for every class and others lack one, or the columns are one model's.

    Examples:
        >>> chances = dict.fromkeys(["a_cat", "a_dog", "a_fox", "b_cat", "b_dog", "b_fox"], np.full(2, 1 / 3))
        >>> by_class(chances, np.array(["cat", "dog"]))
        ByClass(stems={'a': ['a_cat', 'a_dog', 'a_fox'], 'b': ['b_cat', 'b_dog', 'b_fox']}, \
classes=('cat', 'dog', 'fox'))
    """
    labels = [written(label) for label in (np.unique(y).tolist() if classes is None else classes)]
    if len(labels) < 2:
        return None
    if set(labels) == {"false", "true"}:  # as columns of booleans are read, and pandas writes them otherwise
        labels = [next((label.title() for name in values if name.endswith(label.title())), label) for label in labels]
    names = list(values)
    if classes is None and set(labels) <= set(names):
        _refuse_one_model(values, names, labels)
    stems = _by_suffix(names, labels)
    if stems is None:
        stems = _by_prefix(names, labels)
        alike = stems is not None and len({frozenset(of_class) for of_class in stems.values()}) == 1
        if stems is None or not alike or not _all_add_up(values, stems, stems):
            return None
    numbers = y.dtype.kind not in "Ub"
    every = list(dict.fromkeys([*labels, *(label for of_class in stems.values() for label in of_class)]))
    more = every[len(labels) :]
    whole = [stem for stem, of_class in stems.items() if len(of_class) == len(every)]
    if more and classes is not None:
        _refuse_strange(stems, labels, more[0])
        return None
    if more and not numbers and (2 * len(whole) < len(stems) or not _all_add_up(values, stems, whole)):
        _ask(stems, labels, more)
    if not whole or (more and (2 * len(whole) < len(stems) or (numbers and not all(map(_is_whole, more))))):
        return None
    # Numbers at the end of names may count seeds or folds: columns of classes add up to one.
    doubtful = numbers and classes is None and (bool(more) or set(labels) == {"0", "1"} or len(stems) == 1)
    if doubtful and not _all_add_up(values, stems, whole):
        return None
    _refuse_lacking(stems, whole[0], every)
    if more:
        every = sorted(every, key=float if numbers else str)
    return ByClass({stem: [of_class[label] for label in every] for stem, of_class in stems.items()}, tuple(every))


def beside_classes(values: Mapping[str, Array], y: Array, classes: Sequence[Any] | None = None) -> list[str]:
    """The columns that are called after no class, where the others are all models' probabilities of all classes.

    Of two classes a column of probabilities may be a model by itself, so that nothing is left out there.

    Examples:
        >>> chances = dict.fromkeys(["a_cat", "a_dog", "b_cat", "b_dog"], np.full(2, 1 / 2))
        >>> beside_classes({"age": np.array([31, 40]), **chances}, np.array(["cat", "dog"]))
        ['age']
    """
    from kofn.combination.ensembles._task import are_chances

    labels = [written(label) for label in (np.unique(y).tolist() if classes is None else classes)]
    labels += [label.title() for label in labels if label in ("false", "true")]
    after = {name: column for name, column in values.items() if _called_after(name, labels)}
    others = [name for name in values if name not in after]
    if not after or not others or any(np.ndim(column) != 1 for column in values.values()):
        return []
    alone = len(labels) == 2 and any(are_chances(np.asarray(values[name]).reshape(-1, 1)) for name in others)
    try:
        grouped = None if alone else by_class(after, y, classes)
    except InputError:
        return []
    if grouped is None or not all(adds_up([after[name] for name in names]) for names in grouped.stems.values()):
        return []
    return others


def _called_after(name: str, labels: Sequence[str]) -> bool:
    """Whether a class stands at one end of a name, apart from what else is in it."""
    bare = name.removesuffix("]")
    return any(
        len(bare) > len(label) + 1
        and (
            (bare.endswith(label) and bare[-len(label) - 1] in MARKS)
            or (bare.startswith(label) and bare[len(label)] in MARKS)
        )
        for label in labels
    )


def as_answers(classes: Sequence[str], y: Array) -> list[Any]:
    """The classes that columns are called after, as the answers spell them."""
    spelt = {written(label): label for label in np.unique(y).tolist()}
    spelt |= {name.title(): name for name in ("false", "true") if name in spelt}
    if y.dtype.kind in "iuf" and all(map(_is_whole, classes)):
        return [spelt.get(name, type(y.flat[0].item())(name)) for name in classes]
    return [spelt.get(name, name) for name in classes]


def written(label: Any) -> str:
    """A class as the name of a column ends: 1.0 is "1"."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _by_suffix(names: Sequence[str], labels: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """The columns of each model by what follows its name: a class of the answers, or what may be another class."""
    stems: dict[str, dict[str, str]] = {}
    left = []
    for name in names:
        bare = name.removesuffix("]") if "[" in name else name
        split = [(bare[: -len(label)], label) for label in labels if bare.endswith(label)]
        split = [(stem[:-1], label) for stem, label in split if len(stem) > 1 and stem[-1] in MARKS]
        if split:
            stem, label = min(split, key=lambda part: len(part[0]))
            stems.setdefault(stem, {})[label] = name
        else:
            left.append(name)
    for name in left:
        bare = name.removesuffix("]") if "[" in name else name
        owners = [stem for stem in stems if bare.startswith(stem) and bare[len(stem) : len(stem) + 1] in tuple(MARKS)]
        label = bare[len(max(owners, key=len)) + 1 :] if owners else ""
        if not label:
            return None
        stems[max(owners, key=len)][label] = name
    order = {name: number for number, name in enumerate(names)}
    return dict(sorted(stems.items(), key=lambda stem: min(order[name] for name in stem[1].values()))) or None


def _by_prefix(names: Sequence[str], labels: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """The same where the class stands first, as in `yes_forest`."""
    mirrored = _by_suffix([name[::-1] for name in names], [label[::-1] for label in labels])
    if mirrored is None:
        return None
    return {
        stem[::-1]: {label[::-1]: name[::-1] for label, name in of_class.items()} for stem, of_class in mirrored.items()
    }


def _all_add_up(values: Mapping[str, Array], stems: Mapping[str, Mapping[str, str]], some: Iterable[str]) -> bool:
    return all(adds_up([values[name] for name in stems[stem].values()]) for stem in some)


def adds_up(columns: Sequence[Array]) -> bool:
    """Whether columns are probabilities that add up to one in each row."""
    from kofn.combination.ensembles._task import are_chances

    return are_chances(np.stack(columns, axis=1))


def _refuse_lacking(stems: Mapping[str, Mapping[str, str]], whole: str, classes: Sequence[str]) -> None:
    """Refuse models without a column that another model has."""
    for stem, of_class in stems.items():
        lacking = next((label for label in classes if label not in of_class), None)
        if lacking is not None:
            raise InputError(
                f"model {stem!r} has no column of class {lacking!r}, model {whole!r} has; give every model all "
                "classes, or name the columns with --columns"
            )


def _refuse_strange(stems: Mapping[str, Mapping[str, str]], classes: Sequence[str], strange: str) -> None:
    """Refuse a column that is called after none of the classes that were named, where others are called after them."""
    owner = next(stem for stem, of_class in stems.items() if strange in of_class)
    if len(set(stems[owner]) & set(classes)) > 1:
        raise InputError(
            f"column {stems[owner][strange]!r} is called after {strange!r}, which is none of --classes "
            f"{as_typed(*classes)}; name it there, or name the columns of predictions with --columns"
        )


def _ask(stems: Mapping[str, Mapping[str, str]], labels: Sequence[str], more: Sequence[str]) -> NoReturn:
    """Refuse columns of which nothing tells whether they are of a class that the answers lack."""
    names = [of_class[label] for of_class in stems.values() for label in more if label in of_class]
    raise InputError(
        f"columns {listed(names)} are called after no class of the answers ({listed(labels)}), and others beside them "
        f"are; where {'they are classes' if len(more) > 1 else 'it is a class'} too say --classes "
        f"{as_typed(*labels, *more)}, else name the columns of predictions with --columns"
    )


def _refuse_one_model(values: Mapping[str, Array], names: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse columns that are called as the classes are and add up to one: they are the probabilities of one model."""
    if adds_up([values[name] for name in names]):
        raise InputError(
            f"columns {listed(names)} are called as the classes of the answers and add up to one, so that they are one "
            "model's; give a table for each model, or call the columns after model and class, as in "
            f"{as_typed(*(f'forest_{label}' for label in labels[:2]))}"
        )


def plain_names(names: Sequence[str]) -> list[str]:
    """What columns are called without what all begin with up to a mark.

    >>> plain_names(["forest_yes", "forest_no"])
    ['yes', 'no']
    """
    head = names[0]
    while any(not name.startswith(head) for name in names):
        head = head[:-1]
    while head and (head[-1] not in MARKS or head in names):
        head = head[:-1]
    return [name[len(head) :] for name in names]
