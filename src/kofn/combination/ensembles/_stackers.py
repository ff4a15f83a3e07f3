"""The ways to stack predictions, from equal weights to weights of their own for every group of rows, and their fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kofn.combination.ensembles._losses import EPS, KINDS, LOG
from kofn.combination.ensembles._simplex import Loss, Penalised, least, loss_of, settled
from kofn.combination.ensembles._task import Task
from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.engines.threads import limited

# How strongly weights are drawn: to equal ones, to shared ones, and those of the linear stackers; in units of the loss.
SHARED, VARYING, LINEAR = (1.0, 0.1, 0.01, 0.0), (10.0, 1.0, 0.1, 0.01), (1.0, 0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Freedom:
    """How freely weights may differ: `final` and how strongly they are drawn back (infinitely: not at all free)."""

    final: str
    penalty: float

    def __str__(self) -> str:
        return "equal weights" if math.isinf(self.penalty) else f"{self.final}, penalty {self.penalty:g}"


@dataclass(frozen=True)
class Fit:
    """Fitted weights: shared (m,), of groups of their own by number, and the linear stackers' constants.

    `within` is how much less of what was minimised there may be at other weights, at most, in shares of the loss of
    equal weights; None where nothing bounds it.
    """

    freedom: Freedom
    weights: Floats
    by_group: Mapping[int, Floats] = field(default_factory=dict)
    intercept: Floats | None = None
    within: float | None = None


class Rows:
    """The rows that stackers are fitted on: predictions (n, m, c) in the unit of the task, gaps filled.

    Args:
        task: what was predicted.
        groups: (n,) the number of each row's group.
        by_column: whether the weights of columns may differ too.
    """

    def __init__(self, task: Task, groups: Ints, by_column: bool) -> None:
        self.task, self.groups, self.by_column = task, groups, by_column
        filled = fill_gaps(task.predictions, task.known)
        self.values = np.stack([task.unit * part for part in filled], axis=1)
        self.columns = self.values.shape[2]
        self.kind = KINDS[task.loss]
        self.target = self._targets()

    def _targets(self) -> Floats:
        """(n, c) what each column should have been."""
        task = self.task
        if task.classes is None or self.columns == 1:
            return np.broadcast_to(task.target, (task.n, self.columns))
        return np.asarray(task.target.astype(np.int64) == np.arange(self.columns), np.float64)

    def number_of_groups(self) -> int:
        """How many parts may have weights of their own."""
        return (int(self.groups.max()) + 1) * (self.columns if self.by_column else 1)

    def parts(self, rows: Ints) -> list[tuple[int, Ints, slice]]:
        """Of these rows the parts that may have weights of their own: number, rows and columns."""
        out = []
        every = [slice(column, column + 1) for column in range(self.columns)] if self.by_column else [slice(None)]
        for group in np.unique(self.groups[rows]).tolist():
            inside = rows[self.groups[rows] == group]
            out += [(group * len(every) + number, inside, columns) for number, columns in enumerate(every)]
        return out

    def shares(self, rows: Ints) -> Floats | None:
        """(rows,) how much each of these rows counts, of sum one; None where all count alike."""
        weights = None if self.task.row_weights is None else self.task.row_weights[rows]
        return None if weights is None or not weights.any() else weights / weights.sum()

    def loss(self, rows: Ints, columns: slice = slice(None)) -> Any:
        """The loss of weights on these rows and columns."""
        m, task, shares = self.task.m, self.task, self.shares(rows)
        if self.kind == LOG:
            truth = task.target[rows, 0].astype(np.int64)
            if self.columns == 1:
                chance = self.values[rows, :, 0]
                A = np.where(truth[:, None] == 1, chance, 1 - chance)
            else:
                A = self.values[rows, :, truth]
            return loss_of(LOG, A, np.empty(0), np.empty(0), shares)
        A = np.moveaxis(self.values[rows][:, :, columns], 1, 2).reshape(-1, m)
        target = self.target[rows][:, columns].ravel()
        levels = np.tile(task.levels[columns], len(rows))
        if shares is not None:
            width = len(target) // len(rows)
            shares = np.repeat(shares, width) / width
        return loss_of(self.kind, A, target, levels, shares)


def fill_gaps(predictions: Sequence[Array], known: Mask | None) -> list[Floats]:
    """Predictions with the mean of the others in place of those that are missing."""
    if known is None:
        return [np.asarray(part, np.float64) for part in predictions]
    total = sum(np.where(known[member][:, None], part, 0.0) for member, part in enumerate(predictions))
    mean = total / np.maximum(known.sum(axis=0), 1)[:, None]
    return [np.where(known[member][:, None], part, mean) for member, part in enumerate(predictions)]


def freedoms(rows: Rows, final: str | None) -> list[Freedom]:
    """The ways that are tried, from the least free to the freest."""
    ways = [Freedom("simplex", math.inf)]
    ways += [Freedom("simplex", penalty) for penalty in SHARED]
    if rows.number_of_groups() > 1:
        ways += [Freedom("varying", penalty) for penalty in VARYING]
    linear = {"rmse": "ridge", "log_loss": "logistic"}.get(rows.task.loss)
    if linear is not None:
        ways += [Freedom(linear, penalty) for penalty in LINEAR]
    return ways if final is None else [way for way in ways if way.final == final]


def fits_of(rows: Rows, index: Ints, ways: Sequence[Freedom], *, settle: bool = False) -> list[Fit]:
    """What each of the ways gives on some of the rows; each begins where the one before it ended.

    Args:
        rows: all rows.
        index: the rows to fit.
        ways: from the least free to the freest.
        settle: whether the last of the ways, which is handed out, is solved to the last digits.
    """
    m = rows.task.m
    equal = np.full(m, 1 / m)
    whole = rows.loss(index)
    scale = max(abs(whole.value_and_slopes(equal)[0]), 1e-300)
    out: list[Fit] = []
    shared = equal
    by_group: dict[int, Floats] = {}
    freest = None
    for way in ways:
        last = settle and way is ways[-1]
        within: float | None = None
        if way.final == "simplex":
            if math.isinf(way.penalty):
                shared, within = equal, 0.0
            else:
                shared, within = _fitted(whole, shared, equal, way.penalty * scale, settle=last)
            out.append(Fit(way, shared, within=within / scale))
        elif way.final == "varying":
            if freest is None or last:
                freest, _ = _fitted(whole, shared, equal, SHARED[-2] * scale, settle=last)
            gaps = []
            for part, inside, columns in rows.parts(index):
                loss, start = rows.loss(inside, columns), by_group.get(part, freest)
                by_group[part], gap = _fitted(loss, start, freest, way.penalty * scale, settle=last)
                gaps.append(gap / scale)
            out.append(Fit(way, freest, dict(by_group), within=max(gaps)))
        elif way.final == "ridge":
            out.append(_ridge(rows, index, way))
        else:
            out.append(_logistic(rows, index, way, out[-1] if out and out[-1].freedom.final == "logistic" else None))
    return out


def _fitted(loss: Loss, start: Floats, towards: Floats, penalty: float, *, settle: bool) -> tuple[Floats, float]:
    """The weights, and how much less of loss and penalty there may be at others, at most."""
    weights = least(loss, start, towards, penalty)
    if settle:
        weights = settled(loss, weights, towards, penalty)
    return weights, Penalised(loss, towards, penalty).gap(weights)


def _ridge(rows: Rows, index: Ints, way: Freedom) -> Fit:
    """Least squares with a constant, the weights drawn towards equal ones."""
    A, target = rows.values[index, :, 0], rows.target[index, 0]
    shares = rows.shares(index)
    shares = np.full(len(A), 1 / len(A)) if shares is None else shares
    mean, middle = shares @ A, float(shares @ target)
    A, off = A - mean, target - middle
    equal = np.full(rows.task.m, 1 / rows.task.m)
    weighted = A.T * shares
    products = weighted @ A
    size = float(np.trace(products)) / len(products)
    system = products + (way.penalty * size + 1e-12 * size + 1e-300) * np.eye(len(products))
    weights = equal + np.linalg.solve(system, weighted @ (off - A @ equal))
    return Fit(way, weights, intercept=np.array([middle - float(mean @ weights)]), within=0.0)


def pooled_logits(chances: Floats, weights: Floats, intercept: Floats) -> Floats:
    """(n, C) weighted sums of the logarithms of probabilities (n, m, c), with a constant for each class."""
    if chances.shape[2] == 1:
        chances = np.concatenate([1 - chances, chances], axis=2)
    logs = np.log(np.maximum(chances, EPS))
    return np.asarray(np.tensordot(logs, weights, axes=(1, 0)) + intercept)


def softmax(logits: Floats) -> Floats:
    """Probabilities, row by row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _logistic(rows: Rows, index: Ints, way: Freedom, before: Fit | None) -> Fit:
    """Multinomial regression on the logarithms of the probabilities, one weight a member, drawn towards equal ones."""
    from scipy.optimize import minimize

    chances, m = rows.values[index], rows.task.m
    if chances.shape[2] == 1:
        chances = np.concatenate([1 - chances, chances], axis=2)
    logs = np.log(np.maximum(chances, EPS))
    n, classes = len(index), logs.shape[2]
    truth = rows.task.target[index, 0].astype(np.int64)
    equal, zeros = np.full(m, 1 / m), np.zeros(classes)
    hits = np.eye(classes)[truth]
    by_member = np.ascontiguousarray(np.moveaxis(logs, 1, 2)).reshape(-1, m)
    shares = rows.shares(index)
    shares = np.full(n, 1 / n) if shares is None else shares

    def penalised(parameters: Floats) -> tuple[float, Floats]:
        weights, constants = parameters[:m], parameters[m:]
        chance = softmax((by_member @ weights).reshape(n, classes) + constants)
        off = (chance - hits) * shares[:, None]
        drawn = np.concatenate([weights - equal, constants])
        value = -float(shares @ np.log(np.maximum(chance[np.arange(n), truth], 1e-300)))
        slopes = np.concatenate([by_member.T @ off.ravel(), off.sum(axis=0)])
        return value + way.penalty * float(drawn @ drawn), slopes + 2 * way.penalty * drawn

    start = np.concatenate([equal, zeros])
    if before is not None and before.intercept is not None:
        start = np.concatenate([before.weights, before.intercept])
    # Threads that wait for each other would take longer than these small products.
    with limited(1):
        parameters = minimize(penalised, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return Fit(way, parameters[:m], intercept=parameters[m:])


def applied(fit: Fit, values: Floats, groups: Ints, *, by_column: bool) -> Floats:
    """(n, c) the blend of predictions (n, m, c) whose gaps are filled; a group that has no weights gets the shared."""
    if fit.freedom.final == "logistic":
        assert fit.intercept is not None
        chance = softmax(pooled_logits(values, fit.weights, fit.intercept))
        return chance[:, 1:] if values.shape[2] == 1 else chance
    blend = np.tensordot(values, fit.weights, axes=(1, 0))
    if fit.intercept is not None:
        return np.asarray(blend + fit.intercept)
    width = values.shape[2] if by_column else 1
    for part, weights in fit.by_group.items():
        inside = groups == part // width
        columns = slice(part % width, part % width + 1) if by_column else slice(None)
        blend[inside, columns] = np.tensordot(values[inside][:, :, columns], weights, axes=(1, 0))
    return np.asarray(blend)
