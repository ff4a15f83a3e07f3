"""What models predicted for rows of known answer: read, checked, and put as the losses need it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.combination.ensembles._losses import OF_CLASSES, log_losses, row_losses, summed_up
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.checks.class_votes import as_shares, votes_again

# How far probabilities may be from the range [0, 1], and those of a row from the sum 1: half precision rounds so.
_OUTSIDE, _OFF = 1e-3, 2e-2
# Entries of a table that are read together.
_ENTRIES_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Task:
    """Predictions of m members for n rows, and the answers.

    Attributes:
        loss: what is kept small (`accuracy`: large).
        predictions: m arrays (n, c) of floats, NaN in whole rows where a member has no prediction.
        known: (m, n) whether a member has a prediction; None where all have.
        target: (n, 1) the number of each row's class, or the answer times `unit`.
        levels: (c,) the quantile that each column predicts, 0.5 elsewhere.
        classes: the classes in the order of the columns; None of numbers.
        unit: a power of two that brings numbers near 1, so that no square overflows.
        flat: the members were (n,) arrays.
        row_weights: (n,) how much each row counts, of mean one; None where all count alike.
        blocks: (n,) the number of the block of rows that each row is in; None where rows are on their own.
        votes: the members predicted one class a row.
    """

    loss: str
    predictions: list[Array]
    known: Mask | None
    target: Floats
    levels: Floats
    classes: Array | None
    unit: float
    flat: bool
    row_weights: Floats | None = None
    blocks: Ints | None = None
    votes: bool = False

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.target)

    @property
    def m(self) -> int:
        """The number of members."""
        return len(self.predictions)

    def part(self, rows: Ints) -> Task:
        """The same of some of the rows."""
        return dataclasses.replace(
            self,
            predictions=[prediction[rows] for prediction in self.predictions],
            known=None if self.known is None else self.known[:, rows],
            target=self.target[rows],
            row_weights=None if self.row_weights is None else self.row_weights[rows],
            blocks=None if self.blocks is None else self.blocks[rows],
        )

    def mean(self, losses: Floats, rows: Ints | Mask | slice = slice(None)) -> Any:
        """The weighted mean of the losses (..., rows) of some of the rows, over the last axis."""
        weights = None if self.row_weights is None else self.row_weights[rows]
        if weights is None or not weights.any():
            return losses.mean(axis=-1)
        return losses @ weights / weights.sum()

    def elements(self, rows: Ints) -> Floats:
        """(m, n, w) what the loss needs of the predictions, of rows in this order; zeros where there are none.

        Of the log loss that is the probability of the true class alone.
        """
        width = 1 if self.loss == "log_loss" else self.predictions[0].shape[1]
        out = np.empty((self.m, len(rows), width))
        for member, prediction in enumerate(self.predictions):
            if self.loss == "log_loss":
                out[member] = self._chances[member][rows]
            else:
                np.multiply(prediction[rows], self.unit, out=out[member])
        if self.known is not None:
            out[~self.known[:, rows]] = 0.0
        return out

    def blended(self, weights: Floats, rows: Ints | slice = slice(None)) -> Floats:
        """(n, c) the weighted mean of those members that have a prediction, of the plain mean where none with a weight
        has one."""
        known = None if self.known is None else self.known[:, rows]
        return mean_of_known([prediction[rows] for prediction in self.predictions], known, weights)

    def row_losses(self, weights: Floats, rows: Ints | slice = slice(None)) -> Floats:
        """(n,) the loss of each row under these weights, in squares of the unit for `rmse`."""
        if self.loss == "log_loss" and self.predictions[0].shape[1] > 1:
            known = None if self.known is None else self.known[:, rows]
            return log_losses(mean_of_known([chances[rows] for chances in self._chances], known, weights)[:, 0])
        return row_losses(self.loss, self.unit * self.blended(weights, rows), self.target[rows], self.levels)

    @functools.cached_property
    def _chances(self) -> list[Floats]:
        """m arrays (n, 1) of the probability of each row's true class, which is all that the log loss reads."""
        truth = self.target[:, 0].astype(np.int64)
        if self.predictions[0].shape[1] == 1:
            return [np.where(truth[:, None] == 1, prediction, 1 - prediction) for prediction in self.predictions]
        return [prediction[np.arange(self.n), truth][:, None] for prediction in self.predictions]

    def loss_of(self, mean: float) -> float:
        """What people call a mean of row losses."""
        return summed_up(self.loss, mean) / self.unit

    def single(self, member: int) -> Floats:
        """(m,) the weights of a member alone."""
        return np.eye(1, self.m, member)[0]

    def like_the_members(self, blend: Floats) -> Floats:
        """A blend in the shape that the members came in."""
        return blend[:, 0] if self.flat else blend


def read_task(
    members: Sequence[Any],
    y: Any,
    loss: str | None,
    quantiles: Any = None,
    classes: Sequence[Any] | None = None,
    *,
    row_weights: Any = None,
    blocks: Any = None,
) -> Task:
    """Check predictions and answers, weights and blocks of rows, and settle the loss where none is named.

    Raises:
        InputError: see the methods that call this.
    """
    answers = checks.labels(y, "y")
    task = _read_task(members, answers, loss, quantiles, classes)
    shares, numbers = None, None
    if row_weights is not None:
        given = checks.weights(row_weights, "row_weights").astype(np.float64)
        checks.same_length(task.n, "y", "row_weights", len(given))
        shares = given / given.max()
        shares *= task.n / shares.sum()
    if blocks is not None:
        names = checks.labels(blocks, "blocks")
        checks.same_length(task.n, "y", "blocks", len(names))
        different, numbers = np.unique(names, return_inverse=True)
        if len(different) < 2:
            raise InputError(
                f"blocks has one block ({checks.shown(different[0].item())}); folds need two, leave blocks out"
            )
    return dataclasses.replace(task, row_weights=shares, blocks=numbers)


def _read_task(
    members: Sequence[Any], answers: Array, loss: str | None, quantiles: Any, classes: Sequence[Any] | None
) -> Task:
    names = [name_of(member) for member in range(len(members))]
    shares = as_shares(members, names, answers, classes, numbers_vote=None if loss is None else loss in OF_CLASSES)
    if shares is not None:
        task = _read_task(shares[0], answers, loss or "accuracy", quantiles, shares[1].tolist())
        return dataclasses.replace(task, votes=True)
    predictions, flat = _read_members(members, len(answers))
    known = _known(predictions)
    levels = _levels(quantiles, predictions[0].shape[1])
    chosen = loss or ("log_loss" if classes is not None else _loss_of(answers, predictions, quantiles))
    if quantiles is not None and chosen != "pinball":
        raise InputError(f"quantiles are of loss='pinball', this is loss={chosen!r}; leave quantiles out")
    if chosen == "pinball" and quantiles is None:
        raise InputError("loss='pinball' needs quantiles: one in (0, 1) for each column of the members, as [0.1, 0.5]")
    if chosen in OF_CLASSES:
        named, target = _class_numbers(answers, predictions[0].shape[1], classes)
        if (loss or classes is not None) and (chosen != "accuracy" or predictions[0].shape[1] == 1):
            for member, prediction in enumerate(predictions):
                _refuse_no_chances(member, prediction, chosen)
        return Task(chosen, predictions, known, target.astype(np.float64)[:, None], levels, named, 1.0, flat)
    if classes is not None:
        raise InputError(f"classes are of {', '.join(OF_CLASSES)}, this is loss={chosen!r}; leave classes out")
    if answers.dtype.kind not in "biuf":
        raise InputError(
            f"y holds text ({checks.shown(answers[0].item())}), which loss={chosen!r} cannot be of; give numbers"
        )
    if chosen in ("rmse", "mae") and predictions[0].shape[1] > 1:
        columns = predictions[0].shape[1]
        raise InputError(f"members have {columns} columns, loss={chosen!r} is of one number a row; give (n,) arrays")
    numbers = answers.astype(np.float64)
    largest = max(float(np.nanmax(np.abs(part), initial=0.0)) for part in (numbers, *predictions))
    unit = float(np.ldexp(1.0, int(np.clip(-np.frexp(largest)[1], -1000, 1000))))
    return Task(chosen, predictions, known, unit * numbers[:, None], levels, None, unit, flat)


def blocks_of_rows(n: int, columns: int) -> Iterator[slice]:
    """The rows of (n, columns) tables in blocks that stay in the cache."""
    step = max(1, _ENTRIES_AT_ONCE // max(columns, 1))
    for low in range(0, n, step):
        yield slice(low, low + step)


def mean_of_known(predictions: Sequence[Array], known: Mask | None, weights: Floats) -> Floats:
    """(n, c) the weighted mean of those members that have a prediction, the plain one where none with a weight has."""
    n, columns = predictions[0].shape
    total = np.zeros((n, columns))
    if known is None:
        # In blocks of rows that stay in the cache: a product of whole tables would be written out and read again.
        for rows in blocks_of_rows(n, columns):
            for member in np.flatnonzero(weights).tolist():
                total[rows] += weights[member] * predictions[member][rows]
        return total
    plain, heard, votes = np.zeros(total.shape), np.zeros(len(total)), np.zeros(len(total))
    for member, prediction in enumerate(predictions):
        some = np.where(known[member][:, None], prediction, 0.0)
        plain, votes = plain + some, votes + known[member]
        if weights[member]:
            total, heard = total + weights[member] * some, heard + weights[member] * known[member]
    heard, votes = heard[:, None], votes[:, None]
    return np.where(heard > 0, total / np.where(heard > 0, heard, 1), plain / np.maximum(votes, 1))


def read_rows(members: Sequence[Any], classes: Sequence[Any] | None = None) -> tuple[list[Array], Mask | None, bool]:
    """Predictions of rows whose answers are not known: (n, c) arrays, which of them there are, and whether they came
    as vectors. With `classes` vectors are votes for these."""
    if classes is not None:
        members = votes_again(members, [name_of(member) for member in range(len(members))], classes)
    first = checks.as_array(members[0], name_of(0)) if len(members) else np.empty(0)
    n = len(first) if first.ndim else 0
    predictions, flat = _read_members(members, n, of=name_of(0) if len(members) else "")
    return predictions, _known(predictions, some_silent=True), flat


def name_of(member: int) -> str:
    """`member 'forest'`, or `member 3` where members have no ids."""
    return f"member {checks.item_key(member)}"


def _read_members(members: Sequence[Any], n: int, *, of: str = "y") -> tuple[list[Array], bool]:
    """The members as (n, c) arrays of floats, and whether they came as vectors.

    Args:
        members: the arrays.
        n: how many rows each must have.
        of: what has so many.
    """
    arrays = []
    for member, value in enumerate(members):
        if isinstance(value, str | os.PathLike):
            raise InputError(
                f"{name_of(member)} is a path ({checks.shown(value)}); load the predictions, or use kofn combine"
            )
        array = checks.as_float(checks.gaps_as_nan(checks.as_array(value, name_of(member))), name_of(member))
        if array.ndim not in (1, 2) or (array.ndim == 2 and not array.shape[1]):
            raise InputError(f"{name_of(member)} has shape {array.shape}; give (n,) predictions, or (n, classes)")
        if len(array) != n:
            turned = array.ndim == 1 and len(members) == n
            remedy = "give one prediction and one answer a row" if of == "y" else "give predictions of the same rows"
            count = " values" if of == "y" else ""
            remedy = "give their transpose, one member a row" if turned else remedy
            raise InputError(f"{name_of(member)} has {len(array)} predictions, {of} has {n}{count}; {remedy}")
        arrays.append(array)
    for member, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InputError(
                f"{name_of(member)} has {_columns(array)}, {name_of(0)} has {_columns(arrays[0])}; "
                "give every member the same classes in the same order"
            )
        if np.isinf(array).any():
            row = int(np.argwhere(np.isinf(array))[0][0])
            raise InputError(f"{name_of(member)} at row {row} is infinite; use NaN where it has no prediction")
    flat = arrays[0].ndim == 1
    return [array[:, None] if flat else array for array in arrays], flat


def _columns(array: Array) -> str:
    return "one column" if array.ndim == 1 or array.shape[1] == 1 else f"{array.shape[1]} columns"


def _known(predictions: Sequence[Array], *, some_silent: bool = False) -> Mask | None:
    """(m, n) which predictions there are; None where all are."""
    # All at once first: a row at a time is slow where rows are short.
    if not any(np.isnan(prediction).any() for prediction in predictions):
        return None
    known = np.array([~np.isnan(prediction).any(axis=1) for prediction in predictions])
    silent = np.flatnonzero(~known.any(axis=1))
    if len(silent) and not some_silent:
        raise InputError(f"{name_of(int(silent[0]))} has no prediction (all NaN); leave it out")
    unseen = np.flatnonzero(~known.any(axis=0))
    if len(unseen):
        more = f" ({len(unseen)} such rows)" if len(unseen) > 1 else ""
        raise InputError(f"members have no prediction (NaN) of row {unseen[0]}{more}; leave such rows out, of y too")
    return known


def _levels(quantiles: Any, columns: int) -> Floats:
    if quantiles is None:
        return np.full(columns, 0.5)
    levels = checks.as_float(np.atleast_1d(checks.as_array(quantiles, "quantiles")), "quantiles").astype(np.float64)
    if levels.shape != (columns,):
        raise InputError(f"quantiles has {levels.size} values, members have {columns} columns; give one a column")
    if not ((levels > 0) & (levels < 1)).all():
        raise InputError(f"quantiles={levels.tolist()}: give numbers in (0, 1)")
    return levels


def _loss_of(answers: Array, predictions: Sequence[Array], quantiles: Any) -> str:
    """The loss that answers and predictions are of: log loss of probabilities, root mean squares of numbers."""
    if quantiles is not None:
        return "pinball"
    chances = all(are_chances(prediction) for prediction in predictions)
    columns = predictions[0].shape[1]
    if answers.dtype.kind in "Ub":
        for member, prediction in enumerate(predictions if not chances else ()):
            _refuse_no_chances(member, prediction, "log_loss")
        return "log_loss"
    if columns > 1:
        if chances:
            return "log_loss"
        raise InputError(
            f"members have {columns} columns that are no probabilities of classes; say loss='accuracy' of scores, or "
            "quantiles=[...] of quantiles"
        )
    return "log_loss" if chances and len(np.unique(answers)) == 2 and np.isin(answers, (0, 1)).all() else "rmse"


def are_chances(prediction: Array) -> bool:
    """Whether (n, c) predictions are probabilities, NaN in some rows aside."""
    sums = prediction.sum(axis=1)
    missing = np.isnan(sums)
    if missing.any():
        prediction, sums = prediction[~missing], sums[~missing]
    within = bool(prediction.min(initial=0.0) >= -_OUTSIDE and prediction.max(initial=0.0) <= 1 + _OUTSIDE)
    return within and (prediction.shape[1] == 1 or bool((np.abs(sums - 1) <= _OFF).all()))


def _refuse_no_chances(member: int, prediction: Array, loss: str) -> None:
    """Refuse what is no probability, naming member and row."""
    if are_chances(prediction):
        return
    scores = ", of scores say loss='accuracy'" if prediction.shape[1] > 1 else ""
    with np.errstate(invalid="ignore"):
        outside = np.argwhere((prediction < -_OUTSIDE) | (prediction > 1 + _OUTSIDE))
    if len(outside):
        row, column = outside[0].tolist()
        raise InputError(
            f"{name_of(member)} at row {row} is {prediction[row, column]:.6g}; {loss} is of probabilities in [0, 1] "
            f"(of logits take the softmax{scores})"
        )
    with np.errstate(invalid="ignore"):
        row = int(np.flatnonzero(np.abs(prediction.sum(axis=1) - 1) > _OFF)[0])
    raise InputError(
        f"{name_of(member)} at row {row} has probabilities that sum to {prediction[row].sum():.6g}; divide each row by "
        "its sum"
    )


def _class_numbers(answers: Array, columns: int, classes: Sequence[Any] | None) -> tuple[Array, Ints]:
    """The classes in the order of the columns, and the number of each row's class."""
    names, numbers = np.unique(answers, return_inverse=True)
    whole = names.dtype.kind in "iub" or (names.dtype.kind == "f" and (names == np.rint(names)).all())
    if names.dtype.kind == "f" and not whole:
        raise InputError(f"y holds {names[0]:.6g}, which is no class; give classes, or loss='rmse' for numbers")
    count = max(columns, 2)
    if classes is not None:
        return _named_classes(answers, columns, classes)
    if len(names) == count:
        _refuse_two_orders(names)
        return names, numbers.astype(np.int64)
    if whole and names[0] >= 0 and names[-1] < count:
        return np.arange(count), answers.astype(np.int64)
    listed = ", ".join(str(name) for name in names[:4].tolist()) + (", ..." if len(names) > 4 else "")
    if columns == 1:
        some = "one class" if len(names) == 1 else f"{len(names)} classes"
        raise InputError(
            f"y has {some} ({listed}), members have one column; give the probability of each class, or of the second "
            "of two classes"
        )
    raise InputError(
        f"y has {len(names)} classes ({listed}), members have {columns} columns; name these by classes=[...]"
    )


def _refuse_two_orders(names: Array) -> None:
    """Refuse classes that are numbers written as text, sorted otherwise by text than by number: 10 and 9.

    So are whole numbers beyond 64 bits and exact fractions, which no array of numbers holds.
    """
    if names.dtype.kind != "U":
        return
    try:
        numbers = [Fraction(name) for name in names.tolist()]
    except ValueError:
        return
    if numbers != sorted(numbers):
        by_number = [name for _, name in sorted(zip(numbers, names.tolist(), strict=True))]
        listed = ", ".join(map(repr, by_number[:4])) + (", ..." if len(by_number) > 4 else "")
        raise InputError(
            f"y holds numbers as text, in another order by number ({listed}) than by text; name the classes in the "
            f"order of the members' columns: classes=[{listed}]"
        )


def _named_classes(answers: Array, columns: int, classes: Sequence[Any]) -> tuple[Array, Ints]:
    count = max(columns, 2)
    names = checks.labels(list(classes), "classes")
    values, times = np.unique(names, return_counts=True)
    if len(values) < len(names):
        twice = checks.shown(values[times.argmax()].item())
        raise InputError(f"classes names {twice} {times.max()} times; name each class once")
    if len(names) != count:
        per = (
            "members have one column, the probability of the second of two"
            if columns == 1
            else (f"members have {columns} columns")
        )
        raise InputError(f"classes names {len(names)}, {per}; name as many, or give every member a column a class")
    position = {name: number for number, name in enumerate(names.tolist())}
    numbers = np.array([position.get(answer, -1) for answer in answers.tolist()], np.int64)
    if (numbers < 0).any():
        row = int(np.flatnonzero(numbers < 0)[0])
        raise InputError(f"y at row {row} is {checks.shown(answers[row].item())}, which is none of classes")
    return names, numbers
