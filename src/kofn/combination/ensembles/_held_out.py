"""What a blend brings on rows that did not choose it, against the best member and the plain mean of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kofn.combination.ensembles._losses import log_losses, row_losses
from kofn.combination.ensembles._task import Task, name_of
from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Blend
from kofn.core.runtime import Control

# Rows that a fold has at least, and the times its loss that a member may beat the next best before it is suspected.
_LEAST, _SUSPECT, _ROWS = 2, 4.0, 50
# Rows whose predictions are compared at once.
_AT_ONCE = 1 << 13
# Standard errors by which a class's column is higher where another class is true, to be taken for that class's.
_SURE = 4.0
# Relative difference within which two losses are one.
_ROUNDING = 1e-9


def folds_of(task: Task, folds: int, rng: np.random.Generator) -> tuple[Ints, list[int], int]:
    """The rows in a random order, fold by fold, where the folds begin and end, and how many rows repeat another.

    Rows of one block stay in one fold. Without blocks, rows for which all members predict the same are one row given
    several times: they stay in one fold, since a blend would else be judged on rows that it has seen. Only these
    repetitions count of the predictions: the folds are the same in another unit, after a rounding, and for members in
    another order.
    """
    n = task.n
    groups, repeated = _same_predictions(task)
    if task.blocks is None:
        folds = min(folds, (int(groups.max()) + 1) // _LEAST)
    else:
        groups = task.blocks
        folds = min(folds, int(groups.max()) + 1)
    if folds < 2:
        return np.arange(n), [0, n], repeated
    fold_of_group = rng.permutation(np.arange(groups.max() + 1) % folds)
    fold = fold_of_group[groups]
    order = np.argsort(fold, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(fold, minlength=folds))])
    return order, bounds.tolist(), repeated


def cross_validated(
    losses_of: Callable[[Ints, Ints], Iterable[Floats]],
    count: int,
    order: Ints,
    bounds: list[int],
    control: Control,
) -> Floats | None:
    """(count, n) the loss of each row by what was fitted on the other folds; None without folds or time.

    Args:
        losses_of: (rows to fit on, rows of a fold) -> for each of `count` candidates the losses of the fold's rows.
        count: how many candidates there are.
        order, bounds: as `folds_of` gives them.
        control: whether there is time left.
    """
    if len(bounds) < 3:
        return None
    losses = np.empty((count, len(order)))
    for fold in range(len(bounds) - 1):
        inside = np.sort(order[bounds[fold] : bounds[fold + 1]])
        others = np.sort(np.concatenate([order[: bounds[fold]], order[bounds[fold + 1] :]]))
        for number, of_rows in enumerate(losses_of(others, inside)):
            losses[number, inside] = of_rows
            if control.stopped():
                return None
        control.step(fold + 1)
    return losses


def _same_predictions(task: Task) -> tuple[Ints, int]:
    """(n,) the number of each row's pattern of predictions, and how many rows repeat an earlier one.

    Where most rows do, predictions are coarse, as those of small trees, and equal ones say nothing.
    """
    keys = np.random.default_rng(0)
    columns = task.predictions[0].shape[1]
    odd = [[np.uint64(int(keys.integers(2**62)) * 2 + 1) for _ in range(columns)] for _ in task.predictions]
    mixed = np.zeros(task.n, np.uint64)
    # A column of all rows at once would read every cache line of the table anew.
    for low in range(0, task.n, _AT_ONCE):
        part = mixed[low : low + _AT_ONCE]
        for prediction, factors in zip(task.predictions, odd, strict=True):
            for column, factor in zip(prediction[low : low + _AT_ONCE].T, factors, strict=True):
                # Adding 0 turns -0 into 0, which is the same prediction in other bits.
                part ^= (np.ascontiguousarray(column, np.float64) + 0.0).view(np.uint64)
                part *= factor
                part ^= part >> np.uint64(29)
    patterns, first, groups = np.unique(mixed, return_index=True, return_inverse=True)
    repeated = task.n - len(patterns)
    if 2 * repeated > task.n:
        return np.arange(task.n), 0
    # In the order in which they first occur: that of the mixed bits depends on the order of the members, on the unit
    # and on the last bit of every prediction.
    number = np.empty(len(patterns), np.int64)
    number[np.argsort(first)] = np.arange(len(patterns))
    return number[groups], repeated


def compared(
    task: Task,
    order: Ints,
    bounds: list[int],
    weights_without: Callable[[int], tuple[Floats, int] | None],
    best: int,
) -> dict[str, Any] | None:
    """The losses on rows that chose neither the blend nor the best member; None where there are too few, or no time.

    Args:
        task: the predictions.
        order: the rows, fold by fold.
        bounds: where each fold begins and ends.
        weights_without: the blend's weights and the best member by all rows but those of a fold; None where the work
            was stopped.
        best: the member whose loss alone is least, on all rows.
    """
    if len(bounds) < 3:
        return None
    blend, single = np.empty(task.n), np.empty(task.n)
    for fold in range(len(bounds) - 1):
        chosen = weights_without(fold)
        if chosen is None:
            return None
        rows = order[bounds[fold] : bounds[fold + 1]]
        blend[rows] = task.row_losses(chosen[0], rows)
        single[rows] = task.row_losses(task.single(chosen[1]), rows)
    return compared_rows(task, len(bounds) - 1, blend, single, best)


def compared_candidates(task: Task, losses: Floats, order: Ints, bounds: list[int]) -> dict[str, Any]:
    """The losses on rows that had no part in fitting candidates, nor in choosing one of them or the best member.

    Args:
        task: the predictions.
        losses: (candidates, n) what each row loses by each candidate that was fitted on the other folds.
        order: the rows, fold by fold.
        bounds: where each fold begins and ends.
    """
    single = np.array([task.row_losses(task.single(member)) for member in range(task.m)])
    blend_rows, single_rows = np.empty(task.n), np.empty(task.n)
    for fold in range(len(bounds) - 1):
        inside = order[bounds[fold] : bounds[fold + 1]]
        outside = np.ones(task.n, bool)
        outside[inside] = False
        blend_rows[inside] = losses[int(np.argmin(task.mean(losses[:, outside], outside))), inside]
        single_rows[inside] = single[int(np.argmin(task.mean(single[:, outside], outside))), inside]
    return compared_rows(task, len(bounds) - 1, blend_rows, single_rows, int(np.argmin(task.mean(single))))


def compared_rows(task: Task, folds: int, blend: Floats, single: Floats, best: int) -> dict[str, Any]:
    """What the rows' losses come to, beside those of the plain mean and of the best member.

    The best member is chosen on other rows than it is judged on, or, where that loses less, for good: nobody has to
    choose a member five times.
    """
    always = task.row_losses(task.single(best))
    single = always if task.mean(always) < task.mean(single) else single
    mean = task.row_losses(np.full(task.m, 1 / task.m))
    return {
        "folds": folds,
        "blend": task.loss_of(float(task.mean(blend))),
        "best_single": task.loss_of(float(task.mean(single))),
        "plain_mean": task.loss_of(float(task.mean(mean))),
        "over_single": _verdict(task, single - blend),
        "over_mean": _verdict(task, mean - blend),
    }


def judged(task: Task, weights: Floats, best: int) -> dict[str, str]:
    """Whether weights that no row chose are better than the best member, and than the plain mean, on all rows."""
    own = task.row_losses(weights)
    mean = task.row_losses(np.full(task.m, 1 / task.m))
    return {
        "over_single": _verdict(task, task.row_losses(task.single(best)) - own),
        "over_mean": _verdict(task, mean - own),
    }


def _verdict(task: Task, gains: Floats) -> str:
    """ "better", "worse" or "alike": whether the rows' mean gain is two standard errors from none.

    Rows of a block are no independent evidence, so the error is of the sums of blocks.
    """
    mean = float(task.mean(gains))
    parts: Floats = (gains - mean) * (1.0 if task.row_weights is None else task.row_weights)
    if task.blocks is not None:
        parts = np.bincount(task.blocks, parts).astype(np.float64)
    n = len(parts)
    if n < 2:
        return "alike"
    error = float(np.sqrt(np.square(parts).sum() * n / (n - 1))) / len(gains)
    if abs(mean) <= 2 * error:
        return "alike"
    return "better" if mean > 0 else "worse"


def doubted(plan: Blend) -> Blend:
    """The plan whose held-out verdicts are no better than what it does on the rows that chose it.

    Held-out figures are of blends that were chosen anew without each fold, which need not be like the plan's. Where the
    plan's own loses more than the plain mean or the best member even on the rows that chose, a gain is not sure, and
    `info["held_out"]["behind"]` names what is ahead.
    """
    held_out = plan.info["held_out"]
    plan = _below_guessing(plan)
    if held_out is None:
        return plan
    sign = -1.0 if plan.sense == "max" else 1.0
    best = min(sign * float(loss) for loss in plan.info["single"])
    references = {"single": best, "mean": sign * plan.info["plain_mean"]}
    behind = [name for name, loss in references.items() if sign * plan.value > loss + _ROUNDING * abs(loss)]
    verdicts = {f"over_{name}": "alike" for name in behind if held_out[f"over_{name}"] == "better"}
    return dataclasses.replace(plan, info={**plan.info, "held_out": {**held_out, **verdicts, "behind": behind}})


def guessing(task: Task) -> float:
    """The loss of one answer for all rows: the classes' shares, the commonest class, or the mean of numbers."""
    if task.classes is None:
        constant = np.full((1, task.predictions[0].shape[1]), float(task.mean(task.target[:, 0])))
        if task.loss != "rmse":
            constant = np.quantile(task.target[:, 0], task.levels)[None]
    else:
        truth = task.target[:, 0].astype(np.int64)
        shares = np.bincount(truth, task.row_weights, len(task.classes)) / task.n
        if task.loss == "log_loss":
            return task.loss_of(float(task.mean(log_losses(shares[truth]))))
        constant = shares[None, 1:] if task.predictions[0].shape[1] == 1 else shares[None]
    rows = row_losses(task.loss, np.repeat(constant, task.n, axis=0), task.target, task.levels)
    return task.loss_of(float(task.mean(rows)))


def _below_guessing(plan: Blend) -> Blend:
    """The plan with a warning where the same answer for all rows would lose less."""
    info = plan.info
    sign = -1.0 if plan.sense == "max" else 1.0
    if not sign * plan.value > sign * info["guessing"] + _ROUNDING * abs(info["guessing"]):
        return plan
    text = (
        f"this blend's {info['loss']} {plan.value:.4g} is worse than the {info['guessing']:.4g} of one answer for all "
        "rows, however they differ: do not use it before the answers' order of rows and the classes were checked"
    )
    return dataclasses.replace(plan, info={**info, "warnings": [*info["warnings"], text]})


def turned_round(task: Task, plan: Blend) -> tuple[Any, Any] | None:
    """The two classes, where every member is higher for the first, and the blend worse than one answer for all rows."""
    loss = guessing(task)
    worse = plan.value < loss if plan.sense == "max" else plan.value > loss
    if task.classes is None or not worse or not _turned_round(task):
        return None
    first, second = task.classes.tolist()
    return first, second


def suspected(task: Task, alone: Floats) -> list[str]:
    """Warnings: one member is so much better than all others that it may have been trained on these rows, or all have
    higher probabilities of a class where it is not, or the rows are all of one class."""
    out = [*_of_one_class(task), *_turned_round(task), *_exchanged(task)]
    if task.m < 2 or task.n < _ROWS:
        return out
    first, second = np.argsort(alone, kind="stable")[:2].tolist()
    if alone[first] * _SUSPECT > alone[second]:
        return out
    if task.loss == "log_loss":
        # A few sure and wrong rows make the others' log loss as large as they like; squares of chances have an end.
        squares = _mean_squares(task)
        if squares[first] * _SUSPECT > np.delete(squares, first).min():
            return out
    return [
        *out,
        f"{name_of(first)} has {task.loss} {task.loss_of(alone[first]):.4g} on these rows, the next best "
        f"{task.loss_of(alone[second]):.4g}: if it was trained on them, give its out-of-fold predictions",
    ]


def _mean_squares(task: Task) -> Floats:
    """(m,) the mean square of what each member's probability of the true class lacks to one."""
    out = np.empty(task.m)
    for member, chances in enumerate(task.elements(np.arange(task.n))[:, :, 0]):
        lacking = np.square(1 - chances)
        known = np.ones(task.n) if task.known is None else task.known[member].astype(np.float64)
        weights = known if task.row_weights is None else known * task.row_weights
        out[member] = np.average(lacking, weights=weights if weights.any() else known)
    return out


def _of_one_class(task: Task) -> list[str]:
    """A warning where there is nothing to tell apart."""
    if task.classes is None or len(np.unique(task.target)) > 1:
        return []
    name = task.classes.tolist()[int(task.target[0, 0])]
    return [f"y is {name!r} in all {task.n} rows: these cannot say who tells classes apart; give rows of others, too"]


def _turned_round(task: Task) -> list[str]:
    """A warning where every member's one column seems to be the probability of the first class, not of the second."""
    if task.classes is None or task.predictions[0].shape[1] > 1 or len(np.unique(task.target)) < 2:
        return []
    second = task.target[:, 0] == 1
    for prediction in task.predictions:
        known = ~np.isnan(prediction[:, 0])
        if not (known & second).any() or not (known & ~second).any():
            return []
        if prediction[known & second, 0].mean() >= prediction[known & ~second, 0].mean():
            return []
    first, last = task.classes.tolist()
    return [
        f"all members are higher where y is {first!r} than where it is {last!r}, whose probability they are taken for; "
        f"if they are of {first!r}, say classes={[last, first]!r}"
    ]


def _exchanged(task: Task) -> list[str]:
    """A warning on each member whose columns of some classes are each highest where another of these is true."""
    if task.classes is None:
        return []
    truth, names = task.target[:, 0].astype(np.int64), task.classes.tolist()
    out = []
    for member, prediction in enumerate(task.predictions):
        if prediction.shape[1] < 2:
            continue
        known = ~np.isnan(prediction).any(axis=1)
        count = np.bincount(truth[known], minlength=len(names))
        seen = np.flatnonzero(count > 1)
        parts = [prediction[known & (truth == number)].astype(np.float64) for number in seen]
        if not parts:
            continue
        mean, error = np.array([part.mean(axis=0) for part in parts]), [part.var(axis=0) for part in parts]
        squared = np.array(error) / count[seen][:, None]
        holds = {}
        for row, number in enumerate(seen.tolist()):
            top = int(mean[:, number].argmax())
            gap = mean[top, number] - mean[row, number]
            if gap > _SURE * np.sqrt(squared[top, number] + squared[row, number]):
                holds[number] = int(seen[top])
        if holds and set(holds) == set(holds.values()):
            columns, classes = (", ".join(repr(names[part]) for part in which) for which in (holds, holds.values()))
            out.append(
                f"{name_of(member)}: its columns of {columns} are highest where y is {classes}, in this order: if they "
                "are exchanged, put them right; as it is the model is wrong on these classes"
            )
    return out
