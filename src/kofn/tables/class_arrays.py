"""A file of one array whose columns are one model's probabilities of the classes, and not a model each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.io.reading import suffix_of
from kofn.tables.predictions import Predictions
from kofn.tables.read import ARRAYS
from kofn.tables.unlike import listed


def one_model(
    paths: Sequence[str], read: Predictions, y: Array | None, loss: str | None, classes: Sequence[Any] | None
) -> tuple[Predictions, str | None]:
    """The predictions, a file's columns as one model's where these are its probabilities of the classes, and a line.

    They are where each row adds up to 1 and the answers are of as many classes: blends of models would be worth
    nothing where one is 1 less the others.

    Args:
        paths: the files of the members.
        read: what they hold.
        y: the answers, if there are any.
        loss: as it was asked for; one of numbers makes each column a model.
        classes: all classes, where they are named.
    """
    from kofn.combination.ensembles._task import OF_CLASSES, are_chances

    width = len(read.members)
    flat = all(np.ndim(member) == 1 and np.asarray(member).dtype.kind in "biuf" for member in read.members)
    if len(paths) != 1 or suffix_of(Path(paths[0])) != ARRAYS[0] or width < 2 or not flat:
        return read, None
    if loss not in (None, *OF_CLASSES):
        return read, None
    table = np.stack([np.asarray(member, np.float64) for member in read.members], axis=1)
    if not are_chances(table) or not _are_of(width, y, classes):
        return read, None
    names = "" if classes is None and y is None else f" {listed(list(map(str, _names(width, y, classes))))}"
    line = (
        f"{paths[0]}: {width} columns that add up to 1 in each row, taken as one model's probabilities of the classes"
        f"{names}; if each is a model, save a file a column"
    )
    return dataclasses.replace(read, names=(Path(paths[0]).name.partition(".")[0],), members=[table]), line


def _are_of(width: int, y: Array | None, classes: Sequence[Any] | None) -> bool:
    """Whether so many columns may be a class of the answers each."""
    if classes is not None or y is None:
        return classes is None or len(classes) == width
    values = np.unique(y)
    if len(values) == width:
        return values.dtype.kind in "Ubiu" or bool((values == np.rint(values)).all())
    return values.dtype.kind in "iu" and values[0] >= 0 and values[-1] == width - 1


def _names(width: int, y: Array | None, classes: Sequence[Any] | None) -> list[Any]:
    """The classes, in the order of the columns."""
    if classes is not None:
        return list(classes)
    values = np.unique(np.asarray(y)).tolist()
    return values if len(values) == width else list(range(width))
