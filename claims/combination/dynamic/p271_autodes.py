"""Ensemble strategies searched, static and dynamic, against each fixed one, on pools of bagged and of regional models.

Real: three labelled sets (digits, diabetes, diamonds); simulated: two moons. A pool is 30 models: trees
and logistic regressions on bootstrap samples, or each on the fifth of the rows nearest to a row of its own.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.leaderboards import rows_of
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import blend_predictions, dynamic_ensemble_selection, ensemble_selection, stacking

Floats = NDArray[np.float64]
SETS = ("digits", "diabetes", "diamonds", "moons")
POOLS = ("bagged", "regional")
STRATEGIES = ("best_single", "stacking", "greedy", "knora_e", "knora_u", "searched")
MODELS, ROWS, SHARE, FOLDS = 30, 500, 0.2, 3


@claim(
    paper=271,
    says="A search over static and dynamic ensemble strategies errs less than the best model, stacking and greedy "
    "selection, and has the best mean rank; most of all where models are experts of regions",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Test errors over sets and pools; broken: the search has no dynamic strategies to choose among."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_errors, broken=broken), derive(seed, runs))
    cells = [(name, pool) for name in SETS for pool in POOLS]

    def mean(strategy: str, *, pool: str | None = None) -> list[float]:
        chosen = [cell for cell in cells if pool in (None, cell[1])]
        return [float(np.mean([row[cell][strategy] for cell in chosen])) for row in rows]

    ranks = {
        strategy: float(np.mean([_rank(row[cell], strategy) for row in rows for cell in cells]))
        for strategy in STRATEGIES
    }
    gaps = {other: difference(mean(other), mean("searched")) for other in STRATEGIES[:-1]}
    regional = {
        other: difference(mean(other, pool="regional"), mean("searched", pool="regional")) for other in STRATEGIES[:-1]
    }
    criteria = {
        "best mean rank of the six": min(ranks, key=lambda name: ranks[name]) == "searched",
        "fewer errors than the best model": gaps["best_single"].above(0),
        "fewer errors than stacking": gaps["stacking"].above(0),
        "fewer errors than greedy selection": gaps["greedy"].above(0),
        "regional experts: fewer errors than stacking": regional["stacking"].above(0),
        "regional experts: fewer errors than greedy selection": regional["greedy"].above(0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "mean rank": {name: round(rank, 3) for name, rank in ranks.items()},
            "errors": {
                f"{name}, {pool}": {
                    strategy: round(float(np.mean([row[name, pool][strategy] for row in rows])), 4)
                    for strategy in STRATEGIES
                }
                for name, pool in cells
            },
            "errors more than the search's": {name: gap.figures() for name, gap in gaps.items()},
            "regional experts, errors more than the search's": {name: gap.figures() for name, gap in regional.items()},
        },
        expected="paired lower 95% limits of the errors of the best model, of stacking and of greedy selection, less "
        "the search's, above 0 over all sets and pools, the latter two also over pools of regional experts; the "
        "search has the least mean rank",
        baseline="the best model on the validation rows; stacking, whose freedom cross-validation chooses; greedy "
        "selection by accuracy; KNORA-E and KNORA-U, whose neighbours cross-validation chooses; all by the same rows",
        kind="measured",
    )


def _rank(errors: dict[str, float], strategy: str) -> float:
    """The rank of a strategy by its errors, those of equal errors sharing theirs."""
    own = errors[strategy]
    below = sum(error < own for error in errors.values())
    return below + (sum(error == own for error in errors.values()) + 1) / 2


def _errors(seed: int, *, broken: bool) -> dict[Any, dict[str, float]]:
    """The share of test rows that each strategy errs on, for every set and pool."""
    return {(name, pool): _judged(name, pool, seed, broken=broken) for name in SETS for pool in POOLS}


def _cut(name: str, seed: int) -> list[tuple[Floats, NDArray[np.int64]]]:
    """Training, validation and test rows, columns in one unit."""
    rng = np.random.default_rng(seed)
    if name == "moons":
        from sklearn.datasets import make_moons

        X, y = make_moons(ROWS, noise=0.3, random_state=seed % 2**31)
    else:
        data = rows_of(name)
        chosen = rng.permutation(len(data))[:ROWS]
        X, y = data.X[chosen].astype(np.float64), data.y[chosen]
    n = len(y)
    parts = np.split(rng.permutation(n), [int(0.4 * n), int(0.7 * n)])
    size = X[parts[0]].std(axis=0)
    X = (X - X[parts[0]].mean(axis=0)) / np.where(size > 0, size, 1)
    return [(X[part], y[part]) for part in parts]


def _predictions(
    pool: str, cut: list[tuple[Floats, NDArray[np.int64]]], seed: int
) -> tuple[list[Floats], list[Floats]]:
    """The pool's probabilities of the validation and the test rows, a column for every class of the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    (X, y), (validation, _), (test, _) = cut
    rng = np.random.default_rng([seed, POOLS.index(pool)])
    classes = int(max(part[1].max() for part in cut)) + 1
    out: tuple[list[Floats], list[Floats]] = ([], [])
    for number in range(MODELS):
        if pool == "bagged":
            rows = rng.integers(0, len(X), len(X))
        else:
            rows = np.argsort(np.square(X - X[rng.integers(len(X))]).sum(axis=1))[: max(20, int(SHARE * len(X)))]
        if len(np.unique(y[rows])) < 2:
            rows = np.concatenate([rows, rng.permutation(len(X))[:20]])
        tree = DecisionTreeClassifier(max_depth=4, random_state=number)
        model = tree if number % 2 else LogisticRegression(C=0.3, max_iter=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X[rows], y[rows])
        for given, predictions in zip((validation, test), out, strict=True):
            chances = np.zeros((len(given), classes))
            chances[:, model.classes_] = model.predict_proba(given)
            predictions.append(chances)
    return out


def _judged(name: str, pool: str, seed: int, *, broken: bool) -> dict[str, float]:
    """The test errors of each strategy on one set and pool."""
    cut = _cut(name, seed)
    (_, _), (X, y), (test, truth) = cut
    members, of_test = _predictions(pool, cut, seed)
    classes = list(range(members[0].shape[1]))
    words: dict[str, Any] = {"y": y, "classes": classes, "seed": seed % 2**31, "folds": FOLDS}
    stack = stacking(members, loss="log_loss", **words)
    greedy = ensemble_selection(members, loss="accuracy", **words)
    dynamic = functools.partial(dynamic_ensemble_selection, members, X=X, loss="accuracy", **words)
    plans = {
        "stacking": stack,
        "greedy": greedy,
        "knora_e": dynamic(strategy="knora_e"),
        "knora_u": dynamic(strategy="knora_u"),
    }
    if broken:
        held = {"stacking": _held_out_accuracy(stack, members, y), "greedy": greedy.info["held_out"]["blend"]}
        plans["searched"] = plans[max(held, key=lambda strategy: held[strategy])]
    else:
        plans["searched"] = dynamic()
    errors = {"best_single": float((of_test[int(np.argmax(greedy.info["single"]))].argmax(axis=1) != truth).mean())}
    for strategy, plan in plans.items():
        blend = blend_predictions(plan, of_test, X=test)
        errors[strategy] = float((blend.argmax(axis=1) != truth).mean())
    return errors


def _held_out_accuracy(plan: Any, members: list[Floats], y: NDArray[np.int64]) -> float:
    """The accuracy of a stacker on the rows that fitted its few weights."""
    return float((blend_predictions(plan, members).argmax(axis=1) == y).mean())
