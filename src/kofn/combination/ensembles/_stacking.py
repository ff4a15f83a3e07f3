"""Stacked generalisation: weights fitted to predictions, as free to vary as cross-validation says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np

from kofn.combination.ensembles._held_out import (
    compared_candidates,
    cross_validated,
    doubted,
    folds_of,
    guessing,
    suspected,
)
from kofn.combination.ensembles._losses import row_losses
from kofn.combination.ensembles._plan import distances, facts_of
from kofn.combination.ensembles._stackers import Fit, Freedom, Rows, applied, fits_of, freedoms
from kofn.combination.ensembles._task import Task, read_task
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

# What is fitted where there are too few rows, or no time, to choose.
_UNCHOSEN = Freedom("simplex", 0.1)


@method(
    "combine",
    draws=Draw(kinds={"members": "predictions"}),
    cost="O(folds ways n m c) a step of a fit, of which there are at most 100; 8 m n c bytes",
    exact="weights on the simplex are within a hundred-thousandth of their least loss, or after 100 steps; the way "
    "is the one of least cross-validated loss",
    paper=(163, "wolpert1992", "breiman1996"),
    aliases=("stacked generalization", "super learner", "meta-learner", "blending", "weighted average of models"),
)
def stacking(
    members: Sequence[Any],
    *,
    y: Any,
    groups: Any = None,
    loss: Literal["log_loss", "brier", "rmse", "mae", "pinball"] | None = None,
    quantiles: Any = None,
    classes: Sequence[Any] | None = None,
    by_column: bool = False,
    final: Literal["simplex", "varying", "ridge", "logistic"] | None = None,
    penalty: float | None = None,
    folds: int = 5,
    row_weights: Any = None,
    blocks: Any = None,
    seed: int | None = 0,
    **limits: Unpack[Limits],
) -> Blend:
    """Blend the predictions of m models by fitted weights, whose freedom is chosen by cross-validation.

    Tried are, from the least free to the freest: equal weights; weights on the simplex (>= 0, of sum one), drawn more
    or less towards equal ones; with `groups` (or `by_column`), weights of their own for every group, drawn more or less
    towards the shared ones; and a linear model with a constant, of numbers ridge regression, of classes multinomial
    regression on the logarithms of the probabilities. Whichever loses least on rows that it was not fitted on is fitted
    on all. The predictions must be of rows that the models were not trained on.

    Args:
        members: m arrays of predictions for the same n rows, as `ensemble_selection` takes them; for a missing one
            counts the mean of the others.
        y: (n,) the answer of each row: its class, or a number.
        groups: (n,) what the weights may vary over: the item, or the step of the horizon, of each row.
        loss: "log_loss" or "brier" of classes, "rmse" or "mae" of numbers, "pinball" of quantiles; by default as in
            `ensemble_selection`.
        quantiles: (c,) the quantile in (0, 1) that each column predicts.
        classes: the classes in the order of the columns; by default sorted.
        by_column: the weights may vary over the quantiles too.
        final: only this one, its freedom still chosen: "simplex", "varying", "ridge" (of rmse) or "logistic" (of
            log_loss).
        penalty: with `final`, how strongly its weights are drawn back, in units of the loss; then nothing is chosen.
        folds: parts of the rows for the choice; 0 fits the simplex, drawn a little towards equal weights.
        row_weights: (n,) how much each row counts, >= 0; all alike by default.
        blocks: (n,) the block of each row, such as its patient or day: rows of one block stay in one fold.
        seed: draws the folds, by default the same, so that a call gives the same verdict again; None draws others.

    Returns:
        Blend. `form` is "simplex", or "none" of a linear model. `result` is the blended predictions; `weights` (m,), or
        {group: (m,)} where they vary; `info["final"]` and `info["penalty"]` are what was chosen, `info["tried"]` the
        cross-validated loss of each way, `info["within"]` how much less of loss and penalty other weights could have at
        most, in shares of the loss of equal ones, `info["intercept"]` the constants, `info["shared"]` (m,) those of a
        group that is not known. `value` is the loss on these rows, `info["held_out"]` that on rows that chose nothing,
        with those of the best model and the plain mean, as in `ensemble_selection`.

    Raises:
        InputError: what `ensemble_selection` refuses; loss="accuracy"; `by_column` without quantiles; a `final` that
            the loss, or one group, has no use for; groups of another length than y.

    Cost: at most 16 ways, each fitted once for every fold; a step of a fit reads all predictions, but of squares only
    their products, (m, m).

    Exact: the fits are convex problems. The one that is handed out is solved until no other weights can lose less by
    1e-10 of the loss, or as `info["within"]` says (a logistic one by a general minimiser); those that only choose a
    way, to a hundred-thousandth or for 100 steps. Absolute errors and quantiles are rounded off within a twentieth of
    the median error. The choice is by cross-validation, which is not much worse than the best way for these data (the
    first reference).

    References:
        Hasson, Maddix, Wang, Gupta & Park 2023, Theoretical guarantees of learning ensembling strategies with
        applications to time series forecasting (ICML); Wolpert 1992, Stacked generalization; Breiman 1996, Stacked
        regressions.

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import stacking
        >>> rng = np.random.default_rng(0)
        >>> y = rng.normal(size=200)
        >>> members = [y + rng.normal(size=200), y + 0.5 * rng.normal(size=200), 0 * y]
        >>> plan = stacking(members, y=y, final="simplex", seed=0)
        >>> plan.weights.round(1).tolist(), plan.info["held_out"]["over_mean"]
        ([0.1, 0.7, 0.2], 'better')
    """
    checks.flag(by_column, "by_column")
    parts = checks.count(folds, "folds", least=0)
    task = read_task(members, y, loss, quantiles, classes, row_weights=row_weights, blocks=blocks)
    if task.loss == "accuracy":
        raise InputError("loss='accuracy' has no slopes to fit weights by; say loss='log_loss', or ensemble_selection")
    if by_column and task.loss != "pinball":
        raise InputError(f"by_column is of quantiles, this is loss={task.loss!r}; leave it out")
    names, numbers = _groups_of(groups, task.n)
    rows = Rows(task, numbers, by_column)
    ways = freedoms(rows, final)
    if penalty is not None:
        if final is None:
            raise InputError(f"penalty={penalty:g} is of one way of weighing; name it by final='simplex'")
        ways = [Freedom(final, checks.number(penalty, "penalty"))] if ways else []
    if not ways:
        raise InputError(
            f"final={final!r} is not of loss={task.loss!r}"
            + ("" if final != "varying" else " without groups or by_column")
            + "; leave it out, or choose simplex"
        )
    rng = np.random.default_rng(seed)
    order, bounds, repeated = folds_of(task, parts, rng) if parts else (np.arange(task.n), [0, task.n], 0)
    alone = np.array([float(task.mean(task.row_losses(task.single(member)))) for member in range(task.m)])
    with Control(title="stacking", total=len(bounds), **limits) as control:
        losses = cross_validated(
            lambda others, inside: (_losses(rows, fit, inside) for fit in fits_of(rows, others, ways)),
            len(ways),
            order,
            bounds,
            control,
        )
        stopped = control.stopped()
        if losses is None:
            chosen = next((way for way in ways if way == _UNCHOSEN), ways[-1])
            held_out = None
        else:
            chosen = ways[int(np.argmin(task.mean(losses)))]
            held_out = compared_candidates(task, losses, order, bounds)
        fit = fits_of(rows, np.arange(task.n), ways[: ways.index(chosen) + 1], settle=True)[-1]
    tried = (
        {}
        if losses is None
        else {str(way): task.loss_of(float(task.mean(part))) for way, part in zip(ways, losses, strict=True)}
    )
    info = {
        "single": np.array([task.loss_of(float(part)) for part in alone]),
        "held_out": held_out,
        "repeated_rows": repeated,
        "warnings": suspected(task, alone),
        "guessing": guessing(task),
        "tried": tried,
    }
    return doubted(stacked_plan(task, rows, fit, names, "stopped" if stopped else "heuristic", info))


def _groups_of(groups: Any, n: int) -> tuple[Array, Ints]:
    """The groups' names, and the number of each row's group."""
    if groups is None:
        return np.array(["all"]), np.zeros(n, np.int64)
    labels = checks.labels(groups, "groups")
    if len(labels) != n:
        raise InputError(f"groups has {len(labels)} values, y has {n}; give one a row")
    names, numbers = np.unique(labels, return_inverse=True)
    return names, numbers.astype(np.int64)


def _losses(rows: Rows, fit: Fit, index: Ints) -> Floats:
    blend = applied(fit, rows.values[index], rows.groups[index], by_column=rows.by_column)
    return row_losses(rows.task.loss, blend, rows.task.target[index], rows.task.levels)


def stacked_plan(task: Task, rows: Rows, fit: Fit, names: Array, status: str, info: Mapping[str, Any]) -> Blend:
    """The plan of fitted weights.

    Args:
        task: what was predicted, with the loss that the plan tells.
        rows: what the weights were fitted on.
        fit: the weights.
        names: the groups'.
        status: of the plan.
        info: what else it tells.
    """
    blend = applied(fit, rows.values, rows.groups, by_column=rows.by_column)
    # Constants are in the unit of the task, weights in none.
    intercept = None if fit.intercept is None else fit.intercept / task.unit
    mean = float(task.mean(row_losses(task.loss, blend, task.target, task.levels)))
    weights: Any = fit.weights
    if fit.by_group:
        width = rows.columns if rows.by_column else 1
        columns = [f", column {column}" for column in range(width)] if rows.by_column else [""]
        weights = {f"{names[part // width]}{columns[part % width]}": own for part, own in sorted(fit.by_group.items())}
    return Blend(
        n=task.m,
        value=task.loss_of(mean),
        sense="max" if task.loss == "accuracy" else "min",
        status=status,
        result=task.like_the_members(blend / task.unit),
        form="simplex" if fit.intercept is None else "none",
        weights=weights,
        spread=distances(task, blend / task.unit),
        objective=task.loss,
        info={
            **facts_of(task),
            "sum_of": "filled predictions",
            "final": fit.freedom.final,
            "penalty": fit.freedom.penalty if math.isfinite(fit.freedom.penalty) else "equal weights",
            "within": fit.within,
            "shared": fit.weights,
            "intercept": intercept,
            "groups": names.tolist(),
            **info,
        },
    )
