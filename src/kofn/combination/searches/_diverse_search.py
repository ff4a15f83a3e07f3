"""DivBO: configurations of models searched for an ensemble, by how good and how unlike the others they will be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kofn.combination.ensembles._ensemble_selection import ensemble_selection
from kofn.combination.ensembles._task import read_task
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.runtime import Control
from kofn.core.words import Progress

__all__ = ["diverse_search"]

_TREES, _DRAWS = 20, 10
Evaluate = Callable[[int], Any]


@helper
def diverse_search(
    X: Any,
    evaluate: Evaluate,
    *,
    y: Any,
    budget: int,
    start: int | None = None,
    diversity: float = 0.05,
    warmth: float = 0.2,
    pool: int = 25,
    loss: str | None = None,
    classes: Sequence[Any] | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
) -> Blend:
    """DivBO: choose which configurations of models to train, for the ensemble of them, by Bayesian optimisation.

    One surrogate predicts the loss of a configuration, another how unlike the predictions of two configurations are.
    Each round a temporary pool is selected from those that were evaluated, as `ensemble_selection` does, and the
    configuration is evaluated whose rank by expected improvement plus w times its rank by distance from the nearest of
    the pool is least; w = diversity (sigmoid(warmth round) - 1/2) grows over the rounds. At last the ensemble of all
    that were evaluated is selected.

    Args:
        X: (n, d) the configurations to choose among, as numbers: algorithms one-hot, parameters on the scale on which
            they matter.
        evaluate: `evaluate(i) -> predictions`, of configuration i for the validation rows, as `ensemble_selection`
            takes them: (rows,) or (rows, columns).
        y: (rows,) the answers of the validation rows.
        budget: how many configurations to evaluate.
        start: how many of these are drawn at random to begin with; by default a fifth, 3 at least.
        diversity: the most that the rank by diversity weighs, times two; 0 looks for single models alone.
        warmth: how fast its weight grows over the rounds.
        pool: additions of the temporary pool's selection.
        loss: as in `ensemble_selection`.
        classes: as in `ensemble_selection`.
        seed: of the random start, the surrogates and their draws.
        time_limit: seconds; the ensemble of what was evaluated by then is returned, as after Ctrl-C.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        The Blend of `ensemble_selection` over the evaluated configurations, in the order of their evaluation;
        `info["evaluated"]` (budget,) are their numbers, `info["losses"]` their own losses.

    Raises:
        InputError: a budget beyond the number of configurations, a start beyond the budget, an `evaluate` that returns
            other shapes, options below 0; as `ensemble_selection`.

    Cost: a round fits two random forests, one to the t losses and one to the t^2 pairs, and asks them for n and n x
    pool values.

    Exact: nothing; forests of scikit-learn stand for the paper's surrogates.

    References:
        Shen, Lu, Li, Tu, Zhang & Cui 2022, DivBO: diversity-aware CASH for ensemble learning (NeurIPS).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import diverse_search
        >>> rng = np.random.default_rng(0)
        >>> y = rng.normal(size=50)
        >>> X = rng.random((20, 2))  # how biased a model is, and what it does not see
        >>> noise = rng.normal(size=(20, 50))
        >>> plan = diverse_search(X, lambda i: y + X[i, 0] + noise[i] * X[i, 1], y=y, budget=8, seed=0)
        >>> plan.n, len(set(plan.info["evaluated"].tolist())), bool(plan.value <= plan.info["losses"].min())
        (8, 8, True)
    """
    table = checks.matrix(X, "X").astype(np.float64)
    n = len(table)
    total = checks.count(budget, "budget")
    if total > n:
        raise InputError(f"budget={budget}: there are {n} configurations; ask for at most {n}")
    first = min(total, max(3, total // 5)) if start is None else checks.count(start, "start")
    if first > total:
        raise InputError(f"start={start} is more than budget={budget}; give at most the budget")
    weight, speed = float(checks.number(diversity, "diversity")), float(checks.number(warmth, "warmth"))
    additions = checks.count(pool, "pool")
    rng = np.random.default_rng(checks.entropy(seed))
    asked: list[int] = []
    predictions: list[Array] = []
    losses: list[float] = []

    def ask(index: int) -> None:
        answer = _checked(evaluate(index), predictions, index)
        predictions.append(answer)
        asked.append(index)
        task = read_task([answer], y, loss, None, classes)
        value = task.loss_of(float(task.mean(task.row_losses(np.ones(1)))))
        if not np.isfinite(value):
            raise InputError(
                f"evaluate({index}) has a loss of {value}: its predictions or y are too large to square; give both "
                "in a smaller unit"
            )
        losses.append(-value if task.loss == "accuracy" else value)

    words: dict[str, Any] = {"y": y, "loss": loss, "classes": classes}
    with Control(time_limit=time_limit, progress=progress, total=total, title="searching for an ensemble") as control:
        for index in rng.permutation(n)[:first].tolist():
            if asked and control.stopped():
                break
            ask(index)
            control.step(len(asked))
        while len(asked) < total and not control.stopped():
            share = weight * (1 / (1 + np.exp(-speed * (len(asked) - first + 1))) - 0.5)
            mates = np.zeros(0, np.int64)
            if share > 0:
                selection = ensemble_selection(predictions, rounds=additions, folds=0, **words).selection
                assert selection is not None
                mates = selection.indices
            ask(_next(table, np.array(asked), np.array(losses), predictions, mates, share, rng))
            control.step(len(asked))
        stopped = len(asked) < total
    plan = ensemble_selection(predictions, seed=int(rng.integers(2**31)), **words)
    signs = -1.0 if plan.sense == "max" else 1.0
    info = {**plan.info, "evaluated": np.array(asked, np.int64), "losses": signs * np.array(losses)}
    return dataclasses.replace(plan, info=info, status="stopped" if stopped else plan.status)


def _checked(value: Any, predictions: Sequence[Array], index: int) -> Array:
    """Predictions of a configuration, of the shape of those before.

    Raises:
        InputError: another shape.
    """
    answer = checks.as_array(value, f"evaluate({index})")
    if predictions and answer.shape != predictions[0].shape:
        raise InputError(
            f"evaluate({index}) returned shape {answer.shape}, before it {predictions[0].shape}; predict the same rows"
        )
    return answer


def _next(
    table: Floats,
    asked: Ints,
    losses: Floats,
    predictions: Sequence[Array],
    mates: Ints,
    share: float,
    rng: np.random.Generator,
) -> int:
    """The configuration that was not asked of the least sum of ranks; ties go to the lowest number."""
    left = np.setdiff1d(np.arange(len(table)), asked)
    # Ranks do not depend on the units; forests do, whose inputs are float32 and whose impurities are squares.
    table, losses = table / _unit(table, axis=0), losses / _unit(losses)
    mean, spread = _forest(table[asked], losses, table[left], rng)
    ranks = _ranks(_improvement(losses.min() - mean, spread))
    if share > 0:
        nearest = _nearest(table, left, asked, predictions, mates, rng)
        ranks = ranks + share * _ranks(nearest)
    return int(left[ranks.argmin()])


def _nearest(
    table: Floats, left: Ints, asked: Ints, predictions: Sequence[Array], mates: Ints, rng: np.random.Generator
) -> Floats:
    """(left,) expected distance of each configuration's predictions from the nearest of the pool's."""
    flat = np.stack([np.nan_to_num(part.reshape(len(part), -1)) for part in predictions]).astype(np.float64)
    unit = _unit(flat)
    flat = flat / unit
    i, j = np.triu_indices(len(asked), 1)
    # Distances of rows' probabilities, the mean over rows; two certain answers that differ are at distance 1.
    far = np.sqrt(np.square(flat[i] - flat[j]).sum(axis=2)).mean(axis=1) / np.sqrt(2) * unit
    pairs = np.concatenate([np.hstack([table[asked[a]], table[asked[b]]]) for a, b in ((i, j), (j, i))])
    questions = np.hstack([np.repeat(table[left], len(mates), axis=0), np.tile(table[asked[mates]], (len(left), 1))])
    mean, spread = _forest(pairs, np.concatenate([far, far]), questions, rng)
    draws = mean + spread * rng.standard_normal((_DRAWS, len(mean)))
    out: Floats = draws.reshape(_DRAWS, len(left), len(mates)).min(axis=2).mean(axis=0)
    return out


def _unit(values: Floats, axis: int | None = None) -> Any:
    """A power of two near the largest value."""
    largest = np.abs(values).max(axis=axis)
    return np.ldexp(1.0, np.clip(np.frexp(largest)[1], -1000, 1000))


def _forest(X: Floats, values: Floats, questions: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Mean and spread over the trees of a forest fitted to values."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(_TREES, min_samples_leaf=1, max_features=0.8, random_state=int(rng.integers(2**31)))
    unit = _unit(values)
    forest.fit(X, values / unit)
    answers = np.stack([tree.predict(questions) for tree in forest.estimators_])
    return answers.mean(axis=0) * unit, answers.std(axis=0) * unit


def _improvement(gain: Floats, spread: Floats) -> Floats:
    """Expected improvement over the least loss, of normal predictions."""
    from scipy.special import ndtr

    safe = np.maximum(spread, 1e-12)
    z = gain / safe
    out: Floats = gain * ndtr(z) + safe * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return out


def _ranks(values: Floats) -> Floats:
    """Ranks from 1 for the largest; equal values share the mean of theirs."""
    from scipy.stats import rankdata

    out: Floats = rankdata(-values)
    return out
