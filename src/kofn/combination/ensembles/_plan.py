"""The plan of a blend of predictions, and the same blend of other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.ensembles._stackers import Fit, Freedom, applied, fill_gaps
from kofn.combination.ensembles._task import Task, mean_of_known, read_rows
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Blend, Selection

__all__ = ["blend_predictions"]


def blend_plan(task: Task, weights: Floats, *, bound: float | None, status: str, info: Mapping[str, Any]) -> Blend:
    """The plan of a weighted mean of the members."""
    blend = task.blended(weights)
    mean = float(task.mean(task.row_losses(weights)))
    value = task.loss_of(mean)
    sense = "max" if task.loss == "accuracy" else "min"
    return Blend(
        n=task.m,
        value=value,
        sense=sense,
        bound=None if bound is None else min(bound, value),
        status=status,
        result=task.like_the_members(blend),
        form="simplex",
        weights=weights,
        spread=distances(task, blend),
        selection=_selection(task, weights, mean, value),
        objective=task.loss,
        info={**facts_of(task), "sum_of": "predictions", **info},
    )


def facts_of(task: Task) -> dict[str, Any]:
    """What every plan of predictions tells of them."""
    return {
        "loss": task.loss,
        "classes": None if task.classes is None else task.classes.tolist(),
        "rows": task.n,
        **({"votes": True} if task.votes else {}),
        "missing": 0 if task.known is None else int((~task.known).sum()),
        "plain_mean": task.loss_of(float(task.mean(task.row_losses(np.full(task.m, 1 / task.m))))),
    }


def _selection(task: Task, weights: Floats, mean: float, value: float) -> Selection:
    """The members with a weight, the heaviest first, and what the blend would lose without each."""
    picked = np.argsort(-weights, kind="stable")[: np.count_nonzero(weights)]
    gains = np.zeros(len(picked))
    if len(picked) > 1:
        for position, member in enumerate(picked.tolist()):
            others = weights.copy()
            others[member] = 0.0
            gains[position] = (float(task.mean(task.row_losses(others / others.sum()))) - mean) / task.unit
    return Selection(n=task.m, indices=picked, gains=gains, weights=weights[picked], value=value)


def distances(task: Task, blend: Floats) -> Floats:
    """(m,) the root mean square of each member's distance from the blend, over the rows that it predicts."""
    out, off = np.empty(task.m), np.empty(blend.shape)
    for member, prediction in enumerate(task.predictions):
        np.subtract(prediction, blend, out=off)
        off *= task.unit
        np.square(off, out=off)
        out[member] = np.sqrt(off.mean() if task.known is None else np.nanmean(off)) / task.unit
    return out


@helper
def blend_predictions(plan: Blend, members: Sequence[Any], groups: Any = None, *, X: Any = None) -> Floats:
    """The blend of other rows: the same members' predictions under the plan's weights.

    Args:
        plan: what `ensemble_selection`, `stacking` or `dynamic_ensemble_selection` gave.
        members: the same members in the same order, predictions of other rows, of the same columns; NaN where there is
            none.
        groups: (n,) the groups of these rows, where the weights vary; a group that was not seen gets the shared ones.
        X: (n, d) the features of these rows, where the members are chosen row by row; else they are not read.

    Returns:
        The blended predictions, of the members' shape; none of no rows.

    Raises:
        InputError: a plan of another kind, another number of members or columns, a row without any prediction, groups
            where weights do not vary, or none where they do; X that is missing, or of another shape, where members are
            chosen row by row.

    Examples:
        >>> from kofn.combination import blend_predictions, ensemble_selection
        >>> plan = ensemble_selection([[1.0, 2.0, 3.4], [1.4, 1.6, 2.6]], y=[1.0, 2.0, 3.0], folds=0)
        >>> blend_predictions(plan, [[3.0], [6.0]]).round(2).tolist()
        [4.0]
    """
    if "predictions" not in str(plan.info.get("sum_of")):
        raise InputError(
            f"plan is of {plan.method or 'a rule of your own'}; give one of ensemble_selection, stacking or "
            "dynamic_ensemble_selection"
        )
    if len(members) != plan.n:
        raise InputError(f"members has {len(members)} predictions, the plan has {plan.n} members; give one for each")
    with checks.naming(items=plan.ids):
        arrays, known, flat = read_rows(members, plan.info["classes"] if plan.info.get("votes") else None)
    width = 1 if np.ndim(plan.result) == 1 else np.shape(plan.result)[1]
    if arrays[0].shape[1] != width:
        raise InputError(f"members have {arrays[0].shape[1]} columns, those of the plan have {width}; give the same")
    varies = isinstance(plan.weights, Mapping)
    if (groups is not None) != (varies and len(plan.info["groups"]) > 1):
        some = "weights do not vary; leave it out" if groups is not None else "weights vary over them; give (n,) groups"
        raise InputError(f"groups={'None' if groups is None else 'given'}, but the plan's {some}")
    if "validated" in plan.info:
        from kofn.combination.dynamic._candidates import blended_by_region

        blend = blended_by_region(plan, arrays, known, _features(plan, X, len(arrays[0])))
    elif "final" not in plan.info:
        blend = mean_of_known(arrays, known, np.asarray(plan.weights))
    else:
        blend = _stacked(plan, np.stack(fill_gaps(arrays, known), axis=1), groups)
    return blend[:, 0] if flat else blend


def _features(plan: Blend, X: Any, n: int) -> Floats:
    """(n, d) the features of rows whose members are chosen by them."""
    if X is None:
        raise InputError("X is missing: the plan chooses members row by row; give the features of these rows")
    width = len(plan.info["validated"]["center"])
    if not n and not np.size(X):
        return np.empty((0, width))
    rows = checks.matrix(X, "X").astype(np.float64)
    if rows.shape != (n, width):
        raise InputError(f"X has shape {rows.shape}; give ({n}, {width}), a row for each prediction, as the plan had")
    return rows


def _stacked(plan: Blend, values: Floats, groups: Any) -> Floats:
    """The blend of predictions (n, m, c) by a fitted stacker."""
    info = plan.info
    names = [str(name) for name in info["groups"]]
    numbers = np.zeros(len(values), np.int64)
    by_group: dict[int, Floats] = {}
    by_column = False
    if isinstance(plan.weights, Mapping):
        if groups is not None:
            labels = checks.labels(groups, "groups") if len(values) or np.size(groups) else np.empty(0, np.int64)
            checks.same_length(len(values), "members", "groups", len(labels))
            position = {name: number for number, name in enumerate(names)}
            numbers = np.array([position.get(str(label), len(names)) for label in labels.tolist()], np.int64)
        by_column = len(plan.weights) > len(names)
        width = values.shape[2] if by_column else 1
        for number, name in enumerate(names):
            for column in range(width):
                key = f"{name}, column {column}" if by_column else name
                if key in plan.weights:
                    by_group[number * width + column] = np.asarray(plan.weights[key])
    fit = Fit(Freedom(info["final"], 0.0), np.asarray(info["shared"]), by_group, info["intercept"])
    return applied(fit, values, numbers, by_column=by_column)
