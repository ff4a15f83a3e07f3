"""The blend of other rows by a plan of an ensemble, whatever its weights vary by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.ensembles._stackers import Fit, Freedom, applied, fill_gaps
from kofn.combination.ensembles._task import mean_of_known, read_rows
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Blend

__all__ = ["blend_predictions"]
from kofn.combination.dynamic._candidates import blended_by_region


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
