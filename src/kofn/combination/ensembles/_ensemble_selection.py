"""Greedy ensemble selection: from a library of models those whose mean prediction loses least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np

from kofn.combination.ensembles._greedy import Pool, Search, grow
from kofn.combination.ensembles._held_out import compared, doubted, folds_of, guessing, suspected
from kofn.combination.ensembles._plan import blend_plan
from kofn.combination.ensembles._task import Task, read_task
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits
from kofn.engines.threads import limited

_ROUNDS = 50


@method(
    "combine",
    draws=Draw(kinds={"members": "predictions"}),
    cost="O(rounds m n c) for bags = 1 and folds = 0; O(m^2 n c) for squared losses of complete predictions; 8 m n c "
    "bytes, m n of the log loss",
    exact="each addition is the best one; of the additions those up to the least loss are kept; the bound holds of "
    "every weighted mean of the members",
    paper=("caruana2004", "caruana2006"),
    aliases=("ensembling", "caruana", "weighted ensemble", "model averaging", "stacking weights"),
)
def ensemble_selection(
    members: Sequence[Any],
    *,
    y: Any,
    k: int | None = None,
    loss: Literal["log_loss", "brier", "accuracy", "rmse", "mae", "pinball"] | None = None,
    quantiles: Any = None,
    classes: Sequence[Any] | None = None,
    rounds: int = _ROUNDS,
    sorted_start: bool = False,
    bags: int = 1,
    bag_share: float = 0.5,
    folds: int = 5,
    row_weights: Any = None,
    blocks: Any = None,
    seed: int | None = 0,
    n_threads: int | None = None,
    **limits: Unpack[Limits],
) -> Blend:
    """Blend the predictions of a few of m models: greedily, with replacement, those whose mean loses least.

    Each round adds the member that leaves the mean of all additions with the least loss; one that is added again weighs
    more. The predictions must be of rows that the models were not trained on: out-of-fold, or a validation set.

    Args:
        members: m arrays of predictions for the same n rows: (n,) numbers or probabilities of the second of two
            classes, (n, c) probabilities of c classes or quantiles; NaN where a member has no prediction. Or (n,) names
            of classes, as votes: `result` is then (n, c), the weighted share of the votes for each class.
        y: (n,) the answer of each row: its class, or a number.
        k: at most so many different members; all by default.
        loss: "log_loss", "brier" or "accuracy" of classes, "rmse" or "mae" of numbers, "pinball" of quantiles. By
            default log_loss where the answers are classes and the predictions probabilities, accuracy of votes, pinball
            with quantiles, else rmse. Of whole numbers that are all answers too it says whether they are votes for
            classes (accuracy) or amounts (rmse).
        quantiles: (c,) the quantile in (0, 1) that each column predicts.
        classes: the classes in the order of the columns; by default sorted, as scikit-learn's.
        rounds: how many additions; weights are multiples of one over those that are kept.
        sorted_start: begin with the best members alone, as many as together lose least.
        bags: how many searches, of each some of the members, whose weights are averaged; 1 searches all members once.
        bag_share: the share of the members that each of several bags searches.
        folds: parts of the rows by which the gain is judged on rows that did not choose; 0 leaves that out.
        row_weights: (n,) how much each row counts, >= 0; all alike by default.
        blocks: (n,) the block of each row, such as its patient or day: rows of one block stay in one fold.
        seed: draws the bags and the folds; the same ones by default, so that the same call gives the same verdict.
            With None others are drawn.
        n_threads: how many threads; the answer is the same for any number.

    Returns:
        Blend of form "simplex". `result` is the blended predictions, of the members' shape; `weights` (m,) sum to one;
        `selection` has the members with a weight, the heaviest first, with what each brings: the loss without it, less
        the loss. `value` is the loss on these rows, which chose the weights; `bound`, of log_loss, brier and rmse of
        complete predictions, what no weighted mean of the members gets below. `info["held_out"]` is the honest
        comparison: the loss of "blend", "best_single" and "plain_mean" on rows that had no part in the choice, and
        whether the blend is "better", "worse" or "alike" (two standard errors of the rows' differences). "blend" is of
        blends chosen anew without each fold: where `result` itself loses more than the mean or the best member on the
        rows that chose, "behind" names them, and it is not "better".
        `info["single"]` (m,) is the loss of each member alone, `info["warnings"]` names a member that looks trained on
        these rows. `spread` (m,) is the root mean square of each member's distance from the blend.

    Raises:
        InputError: members of unlike shapes or classes, other lengths than y's, infinities, what is no probability
            where classes need one, a row without any prediction, classes that the columns do not fit, quantiles
            outside (0, 1), negative weights of rows or weights that are all zero, one block alone; a vote for no class
            of y, whole numbers that may be classes or amounts without a loss.

    Cost: a round looks at every member once, for the log loss n additions and n / 16 logarithms a member. Squared
    losses of complete predictions need one product of (m, n c) with itself in all. Every fold is another search. 8
    bytes for each member and row (and column, but for the log loss).

    Exact: greedy; other weights may lose less, by no more than `value - bound`. Ties go to the lowest number.

    References:
        Caruana, Niculescu-Mizil, Crew & Ksikes 2004, Ensemble selection from libraries of models (ICML).
        Caruana, Munson & Niculescu-Mizil 2006, Getting the most out of ensemble selection (ICDM).

    Examples:
        >>> from kofn.combination import ensemble_selection
        >>> plan = ensemble_selection([[1.0, 2.0, 3.4], [1.4, 1.6, 2.6], [9.0, 9.0, 9.0]], y=[1.0, 2.0, 3.0])
        >>> plan.weights.round(2).tolist(), plan.selection.indices.tolist(), round(plan.value, 3)
        ([0.67, 0.33, 0.0], [0, 1], 0.133)
    """
    settings = (checks.count(rounds, "rounds"), checks.count(bags, "bags"), checks.count(folds, "folds", least=0))
    share = checks.fraction(bag_share, "bag_share")
    checks.flag(sorted_start, "sorted_start")
    task = read_task(members, y, loss, quantiles, classes, row_weights=row_weights, blocks=blocks)
    rng = np.random.default_rng(seed)
    order, bounds, repeated = folds_of(task, settings[2], rng) if settings[2] else (np.arange(task.n), [0, task.n], 0)
    most = task.m if k is None else k
    searched = _bags_of(task.m, settings[1], share, rng)
    with Control(title="ensemble_selection", total=len(bounds), **limits) as control:
        pool = Pool(task, order, bounds, n_threads)
        whole = pool.search()
        alone = whole.after_adding(np.arange(task.m)) / _entries(task) + 0.0
        weights = _weights(whole, searched, settings[0], most, control, sorted_start=sorted_start)
        control.step(1)
        stopped = control.stopped()
        calls = [whole]

        def without(fold: int) -> tuple[Floats, int] | None:
            if control.stopped():
                return None
            search = pool.search(fold)
            calls.append(search)
            best = int(np.argmin(search.after_adding(np.arange(task.m))))
            chosen = _weights(search, searched, settings[0], most, control, sorted_start=sorted_start)
            control.step(len(calls))
            return None if control.stopped() else (chosen, best)

        held_out = compared(task, order, bounds, without, int(np.argmin(alone)))
    plan = blend_plan(
        task,
        weights,
        bound=_bound(pool, weights),
        status="stopped" if stopped else "heuristic",
        info={
            "single": np.array([task.loss_of(float(part)) for part in alone]),
            "held_out": held_out,
            "repeated_rows": repeated,
            "warnings": suspected(task, alone),
            "guessing": guessing(task),
            "oracle_calls": sum(search.evaluations for search in calls),
        },
    )
    return doubted(plan)


def _entries(task: Task) -> float:
    """By what a summed loss is divided."""
    columns = task.predictions[0].shape[1] if task.loss == "pinball" else 1
    return task.n * columns / (2 if task.loss == "mae" else 1)


def _bags_of(m: int, bags: int, share: float, rng: np.random.Generator) -> list[Ints]:
    """The members that each search may add."""
    if bags == 1:
        return [np.arange(m)]
    size = max(1, math.ceil(share * m))
    return [np.sort(rng.choice(m, size, replace=False)) for _ in range(bags)]


def _weights(
    search: Search, bags: Sequence[Ints], rounds: int, k: int, control: Control, *, sorted_start: bool
) -> Floats:
    """(m,) the weights of the searches' best blends, averaged; of the k heaviest where several searches found more."""
    total = np.zeros(search.m)
    for candidates in bags:
        search.empty()
        best = grow(search, candidates, rounds, k, control, sorted_start=sorted_start).best()
        total += np.bincount(best, minlength=search.m) / len(best)
        if control.stopped():
            break
    heaviest = np.argsort(-total, kind="stable")[:k]
    weights = np.zeros(search.m)
    weights[heaviest] = total[heaviest]
    return weights / weights.sum()


def _bound(pool: Pool, weights: Floats) -> float | None:
    """What no weighted mean gets below, by the slope of a convex loss at this one; None where it is not convex."""
    task = pool.task
    if task.known is not None or task.loss not in ("log_loss", "brier", "rmse"):
        return None
    if pool.by_products:
        slopes = 2 * np.sum(pool.products, axis=0) @ weights / task.n
        loss = float(slopes @ weights) / 2
    else:
        chances = pool.values[:, :, 0]
        with limited(1):
            blend = weights @ chances
        slopes = -(pool.weights * chances / blend).mean(axis=1)
        loss = -float((pool.weights * np.log(blend)).mean())
    least = loss - float(slopes @ weights - slopes.min())
    return task.loss_of(max(0.0, least * (1 - 1e-12) if least > 0 else least))
