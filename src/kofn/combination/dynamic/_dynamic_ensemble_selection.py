"""Dynamic ensemble selection: who predicts a row is chosen by who was right near it, where that is worth it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np

from kofn.combination.dynamic._candidates import Candidate, Tried, candidates_of, chosen_plan
from kofn.combination.ensembles._held_out import (
    compared_candidates,
    cross_validated,
    doubted,
    folds_of,
    guessing,
    suspected,
)
from kofn.combination.ensembles._task import Task, read_task
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

# What is taken where there are too few rows, or no time, to choose.
_UNCHOSEN, _NEIGHBORS = "knora_u", 11


@method(
    "combine",
    draws=Draw(kinds={"members": "predictions"}),
    cost="O(n^2 d) for the distances of n rows, O(folds strategies n k m c) for the choice; 8 n m c bytes",
    exact="neighbours are exact, equally near ones by row number; the strategy is the one of least cross-validated "
    "loss",
    paper=(271, "ko2008", "cruz2015"),
    aliases=(
        "knora",
        "knora_e",
        "knora_u",
        "ola",
        "lca",
        "des_knn",
        "meta_des",
        "autodes",
        "dynamic classifier selection",
    ),
)
def dynamic_ensemble_selection(
    members: Sequence[Any],
    *,
    y: Any,
    X: Any,
    loss: Literal["log_loss", "brier", "accuracy"] | None = None,
    classes: Sequence[Any] | None = None,
    strategy: Literal["knora_e", "knora_u", "ola", "lca", "des_knn", "meta_des"] | None = None,
    n_neighbors: int | None = None,
    standardize: bool = True,
    folds: int = 5,
    row_weights: Any = None,
    blocks: Any = None,
    seed: int | None = 0,
    **limits: Unpack[Limits],
) -> Blend:
    """Blend the predictions of m classifiers row by row: by those that were right on the validation rows near it.

    Classifiers that are experts of a region serve best where they are chosen anew for every row. Who counts for a row
    is said by its nearest validation rows (`n_neighbors` of them) and a strategy:

    - "knora_e": those who are right on the most neighbours in a row, from the nearest on;
    - "knora_u": all, by the number of neighbours on which they are right;
    - "ola": the one that is right most often; "lca": ... on neighbours of the class that it predicts;
    - "des_knn": of the half that is right most often those (three in ten) who share the fewest errors with others;
    - "meta_des": those that a naive Bayes classifier thinks right, by their hits and probabilities on the neighbours,
      their hits where all predict alike, and how sure they are.

    Without a `strategy` the choice is among all of these, each with 5, 11 and 23 neighbours, and blends that are the
    same for every row: the best member, greedy ensemble selection and the ways of `stacking`. Whichever loses least on
    rows that it was not fitted on is taken: no strategy is best everywhere.

    Args:
        members: m arrays of predictions for the same n rows, which the models were not trained on: (n,) probabilities
            of the second of two classes, or (n, c) of c classes; for a missing one (NaN) counts the mean of the others.
        y: (n,) the class of each row.
        X: (n, d) what the rows are compared by: their features.
        loss: "log_loss", "brier" or "accuracy"; default log_loss, of votes accuracy.
        classes: the classes in the order of the columns; by default sorted, as scikit-learn's.
        strategy: only this one.
        n_neighbors: how many validation rows are near a row; by default chosen, too.
        standardize: divide every column of X by its standard deviation.
        folds: parts of the rows for the choice; 0 takes knora_u, or `strategy`, with 11 neighbours.
        row_weights: (n,) how much each row counts in the loss, >= 0, all alike by default; rows of weight 0 are no
            neighbours, others count once.
        blocks: (n,) the block of each row, such as its patient or day: rows of one block stay in one fold.
        seed: draws the folds, by default the same, so that a call gives the same verdict again; None draws others.

    Returns:
        Blend of form "simplex", or "none" where stacking by a linear model was chosen. `result` is the blended
        predictions of these rows, each by the neighbours that it has among the others; `blend_predictions(plan,
        members, X=X)` blends other rows. `info["strategy"]` and `info["n_neighbors"]` are what was chosen,
        `info["tried"]` the
        cross-validated loss of each candidate, `info["row_weights"]` (n, m) the members' weights for each row, of which
        `weights` (m,) are the means. `value` is the loss of `result`, `info["held_out"]` that on rows that chose
        neither members nor strategy, with those of the best model and the plain mean, as in `ensemble_selection`.

    Raises:
        InputError: what `ensemble_selection` refuses; answers that are numbers; rows of X and y that do not match;
            fewer than two rows, or of positive weight; more neighbours than there are others of these.

    Cost: the distances of every two rows, in blocks, and for each candidate a look at k neighbours of every row by all
    members. The plan keeps the rows and the predictions, since other rows are blended by them.

    Exact: the strategies are as their authors describe them, with mean probabilities in place of votes. Members that
    tie are averaged, so that their order does not count.

    References:
        Zhao, Zhang & Li 2022, AutoDES: AutoML pipeline generation of classification with dynamic ensemble
        strategy selection; Ko, Sabourin & Britto 2008, From dynamic classifier selection to dynamic ensemble selection;
        Woods, Kegelmeyer & Bowyer 1997, Combination of multiple classifiers using local accuracy estimates; Soares,
        Santana, Canuto & de Souto 2006, Using accuracy and diversity to select classifiers to build ensembles; Cruz,
        Sabourin, Cavalcanti & Ren 2015, META-DES.

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import blend_predictions, dynamic_ensemble_selection
        >>> X = np.linspace(0, 1, 60)[:, None]
        >>> y = np.arange(60) % 3 > 0
        >>> left = np.where(X[:, 0] < 0.5, np.where(y, 0.9, 0.1), 0.5)  # an expert of the left half
        >>> right = np.where(X[:, 0] < 0.5, 0.5, np.where(y, 0.9, 0.1))
        >>> plan = dynamic_ensemble_selection([left, right], y=y, X=X, loss="accuracy", strategy="ola", n_neighbors=5)
        >>> plan.value > 0.95, blend_predictions(plan, [[0.9, 0.5], [0.4, 0.2]], X=[[0.1], [0.8]]).tolist()
        (True, [0.9, 0.2])
    """
    checks.flag(standardize, "standardize")
    parts = checks.count(folds, "folds", least=0)
    _refuse_numbers(y)
    task = read_task(members, y, loss or "log_loss", None, classes, row_weights=row_weights, blocks=blocks)
    if loss is None and task.votes:
        task = dataclasses.replace(task, loss="accuracy")
    rows = checks.matrix(X, "X").astype(np.float64)
    if len(rows) != task.n:
        raise InputError(f"X has {len(rows)} rows, y has {task.n} values; give the features of the rows of y")
    _refuse_too_few(task, n_neighbors)
    rng = np.random.default_rng(seed)
    order, bounds, repeated = folds_of(task, parts, rng) if parts else (np.arange(task.n), [0, task.n], 0)
    tried = Tried.of(task, rows, standardize=standardize)
    candidates = candidates_of(tried, strategy, n_neighbors)
    alone = np.array([float(task.mean(task.row_losses(task.single(member)))) for member in range(task.m)])
    with Control(title="dynamic_ensemble_selection", total=len(bounds), **limits) as control:
        losses = cross_validated(
            lambda others, inside: (
                tried.losses(blend, inside) for blend in tried.blends(candidates, others, inside, control)
            ),
            len(candidates),
            order,
            bounds,
            control,
        )
        of_each: dict[str, float] = {}
        stopped = control.stopped()
        if losses is None:
            chosen, held_out = _unchosen(tried, strategy, n_neighbors), None
        else:
            means = task.mean(losses)
            chosen = candidates[int(np.argmin(means))]
            held_out = compared_candidates(task, losses, order, bounds)
            of_each = {
                str(candidate): task.loss_of(float(mean)) for candidate, mean in zip(candidates, means, strict=True)
            }
        info = {
            "single": np.array([task.loss_of(float(part)) for part in alone]),
            "held_out": held_out,
            "repeated_rows": repeated,
            "warnings": suspected(task, alone),
            "guessing": guessing(task),
            "tried": of_each,
        }
        return doubted(chosen_plan(tried, chosen, "stopped" if stopped else "heuristic", info, control))


def _refuse_numbers(y: Any) -> None:
    """Refuse answers that are no classes, which other methods blend."""
    answers = checks.labels(y, "y")
    if answers.dtype.kind != "f":
        return
    off = np.flatnonzero(answers != np.rint(answers))
    if len(off):
        raise InputError(
            f"y at row {off[0]} is {answers[off[0]]:.6g}, a number, of which nobody is right or wrong; give classes, "
            "or use ensemble_selection or stacking, which blend numbers"
        )


def _refuse_too_few(task: Task, n_neighbors: int | None) -> None:
    """Refuse rows that do not have as many others near them; rows of weight 0 are near none."""
    if task.n < 2:
        raise InputError("members predict one row, which has no other near it; give at least two")
    count, rows = task.n, "rows"
    if task.row_weights is not None:
        positive = np.flatnonzero(task.row_weights)
        count, rows = len(positive), "rows of positive weight"
    if count < 2:
        raise InputError(
            f"row_weights is positive at row {positive[0]} alone, which has no other near it; give at "
            "least two positive weights"
        )
    if n_neighbors is not None and checks.count(n_neighbors, "n_neighbors") >= count:
        raise InputError(
            f"n_neighbors={n_neighbors}: each of {count} {rows} has {count - 1} others; ask for at most {count - 1}"
        )


def _unchosen(tried: Tried, strategy: str | None, n_neighbors: int | None) -> Candidate:
    """What is taken where nothing is chosen."""
    return candidates_of(tried, strategy or _UNCHOSEN, n_neighbors or _NEIGHBORS)[0]
