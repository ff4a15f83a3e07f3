"""DivBO: which configurations of models to train for an ensemble, by their loss alone or by diversity as well.

A hundred configurations of five of scikit-learn's classifiers on scanned digits, tumours and prices of diamonds; each
search may evaluate 25 on validation rows. All are followed by the same greedy ensemble selection, and judged by the
ensemble's log loss on test rows.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, diamonds, digits
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import blend_predictions, diverse_search, ensemble_selection

DATA = ("digits", "tumours", "diamonds")
CONFIGURATIONS, BUDGET, START = 100, 25, 6
TRAIN, VALID, TEST = 300, 200, 600
ARMS = ("DivBO", "BO", "random")

Floats = NDArray[np.float64]


@claim(
    paper=263,
    says="Looking for unlike models as well, Bayesian optimisation leaves an ensemble of less test loss than by loss "
    "alone and than random search at as many evaluations, the best mean rank of the three, and models that disagree "
    "more",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Three searches on three sets; broken: diversity weighs nothing."""
    runs = 4 if scale == "small" else 12
    jobs = [(data, word) for word in derive(seed, runs) for data in DATA]
    rows = spread(functools.partial(_trial, broken=broken), jobs)
    losses = {arm: np.array([row[arm][0] for row in rows]) for arm in ARMS}
    apart = {arm: np.array([row[arm][1] for row in rows]) for arm in ARMS}
    gaps = {arm: difference(losses[arm], losses["DivBO"]) for arm in ARMS[1:]}
    more = difference(apart["DivBO"], apart["BO"])
    ranks = np.array([[1 + sum(row[b][0] < row[a][0] for b in ARMS) for a in ARMS] for row in rows]).mean(axis=0)
    criteria = {
        **{f"less test loss than {arm}": gap.above(0) for arm, gap in gaps.items()},
        "the best mean rank": bool(ranks[0] < ranks[1:].min()),
        "models that disagree more": more.above(0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "test log loss": {
                data: {arm: round(float(losses[arm][i :: len(DATA)].mean()), 4) for arm in ARMS}
                for i, data in enumerate(DATA)
            },
            "mean rank": dict(zip(ARMS, np.round(ranks, 3).tolist(), strict=True)),
            "less DivBO's loss": {arm: gap.figures() for arm, gap in gaps.items()},
            "mean disagreement of the evaluated": {
                arm: round(float(values.mean()), 4) for arm, values in apart.items()
            },
            "disagreement less BO's": more.figures(),
        },
        expected="lower 95% limits of paired differences over sets and draws above 0: of the others' test log loss "
        "less DivBO's, and of the share of test rows on which two evaluated models disagree; the least mean rank",
        baseline="the same optimisation without diversity, and random search: the same configurations, random start, "
        "number of evaluations and ensemble selection",
        kind="reduced",
    )


def _trial(job: tuple[str, int], *, broken: bool) -> dict[str, tuple[float, float]]:
    data, seed = job
    rng = np.random.default_rng(seed)
    train, valid, test = _rows(data, rng)
    table, models = _configurations(rng)
    asked: dict[int, tuple[Floats, Floats]] = {}

    def answers(index: int) -> tuple[Floats, Floats]:
        if index not in asked:
            model = models[index].fit(train.X, train.y)
            asked[index] = (model.predict_proba(valid.X), model.predict_proba(test.X))
        return asked[index]

    words: dict[str, Any] = {"y": valid.y, "seed": seed % 2**31}

    def searched(diversity: float) -> Any:
        return diverse_search(table, lambda i: answers(i)[0], budget=BUDGET, start=START, diversity=diversity, **words)

    # The random search begins with the same configurations as the others.
    order = np.random.default_rng(words["seed"]).permutation(len(table))[:BUDGET]
    plans = {"DivBO": searched(0.0 if broken else 0.05), "BO": searched(0.0)}
    numbers = {arm: plan.info["evaluated"].tolist() for arm, plan in plans.items()} | {"random": order.tolist()}
    plans["random"] = ensemble_selection([answers(i)[0] for i in numbers["random"]], **words)
    out = {}
    for arm, plan in plans.items():
        members = [answers(i)[1] for i in numbers[arm]]
        blend = blend_predictions(plan, members)
        loss = -np.log(np.maximum(blend[np.arange(len(test)), test.y], 1e-12)).mean()
        guesses = [member.argmax(axis=1) for member in members]
        out[arm] = (float(loss), float(np.mean([(a != b).mean() for a, b in itertools.combinations(guesses, 2)])))
    return out


def _rows(data: str, rng: np.random.Generator) -> tuple[Labelled, Labelled, Labelled]:
    if data == "tumours":
        from sklearn.datasets import load_breast_cancer

        X, y = load_breast_cancer(return_X_y=True)
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        # Every class's rows are few here: a third of each part's size.
        whole, sizes = Labelled(X.astype(np.float32), y.astype(np.int64), 2), (120, 120, 320)
    else:
        whole, sizes = digits() if data == "digits" else diamonds(5), (TRAIN, VALID, TEST)
    order = rng.permutation(len(whole))
    parts = np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
    train, valid, test = (whole.take(part) for part in parts)
    return train, valid, test


def _configurations(rng: np.random.Generator) -> tuple[Floats, list[Any]]:
    """What is searched: the algorithm one-hot, and its two parameters between 0 and 1."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier

    kinds = rng.integers(0, 5, CONFIGURATIONS)
    own = rng.random((CONFIGURATIONS, 2))
    models: list[Any] = []
    for kind, (a, b) in zip(kinds.tolist(), own.tolist(), strict=True):
        trees = {"n_estimators": 10, "max_depth": 2 + round(10 * a), "max_features": 0.05 + 0.9 * b, "random_state": 0}
        models.append(
            (
                lambda a=a: LogisticRegression(C=10 ** (4 * a - 3), max_iter=60),
                lambda a=a, b=b: KNeighborsClassifier(1 + round(25 * a), weights="distance" if b > 0.5 else "uniform"),
                lambda a=a: GaussianNB(var_smoothing=10 ** (6 * a - 6)),
                lambda trees=trees: RandomForestClassifier(**trees),
                lambda trees=trees: ExtraTreesClassifier(**trees),
            )[kind]()
        )
    return np.hstack([np.eye(5)[kinds], own]), models
