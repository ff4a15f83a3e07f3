"""The plan of a blend of predictions, and the same blend of other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.ensembles._held_out import judged
from kofn.combination.ensembles._task import Task, blocks_of_rows, read_task
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.plans import Blend, Selection


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


def weighted_mean(
    members: Sequence[Any],
    y: Any,
    weights: Any = None,
    loss: str | None = None,
    quantiles: Any = None,
    classes: Sequence[Any] | None = None,
    row_weights: Any = None,
    blocks: Any = None,
) -> Blend:
    """The mean of predictions by weights that are given, equal ones by default, and what it loses.

    A prediction that is missing is left to the other members of its row; names of classes are votes. Nothing is chosen,
    so that the loss is no better than on other rows, and `info["on_these_rows"]` says whether it is "better", "worse"
    or "alike" beside the best member, who is chosen by them, and the plain mean. The arguments are those of
    `ensemble_selection`.
    """
    task = read_task(members, y, loss, quantiles, classes, row_weights=row_weights, blocks=blocks)
    given = np.ones(task.m) if weights is None else checks.weights(weights).astype(np.float64)
    checks.same_length(task.m, "members", "weights", len(given))
    shares = given / given.sum()
    alone = [float(task.mean(task.row_losses(task.single(member)))) for member in range(task.m)]
    info = {
        "single": np.array([task.loss_of(loss) for loss in alone]),
        "held_out": None,
        "given_weights": True,
        "on_these_rows": judged(task, shares, int(np.argmin(alone))),
    }
    return blend_plan(task, shares, bound=None, status="heuristic", info=info)


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
    if task.known is None:
        squares = np.zeros(task.m)
        for rows in blocks_of_rows(len(blend), blend.shape[1]):
            for member, prediction in enumerate(task.predictions):
                off = (task.unit * (prediction[rows] - blend[rows])).ravel()
                squares[member] += off @ off
        return np.sqrt(squares / blend.size) / task.unit
    squares = np.array([np.nanmean(np.square(task.unit * (prediction - blend))) for prediction in task.predictions])
    return np.sqrt(squares) / task.unit
