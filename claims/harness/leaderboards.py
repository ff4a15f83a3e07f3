"""Real leaderboards: what scikit-learn's classifiers get right, row by row, on labelled sets, cut afresh for a seed."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from claims.harness.data import Labelled, diamonds, digits

SETS = ("digits", "breast_cancer", "wine", "diabetes", "diamonds")
MOST_ROWS = 1000

Floats = NDArray[np.float64]


class Sheet(NamedTuple):
    """What every classifier makes of one set's rows that it did not learn from.

    Attributes:
        correct: (classifiers, rows) 1 where the label is right.
        log_loss: (classifiers,) of the probabilities.
    """

    correct: Floats
    log_loss: Floats


def classifiers(seed: int) -> dict[str, Any]:
    """Thirteen that differ in kind and in how much they bend."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import BernoulliNB, GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    return {
        "normal naive Bayes": GaussianNB(var_smoothing=1e-3),
        "binary naive Bayes": BernoulliNB(),
        "1 neighbour": KNeighborsClassifier(1),
        "5 neighbours": KNeighborsClassifier(5),
        "25 neighbours": KNeighborsClassifier(25),
        "logistic, C=0.001": LogisticRegression(C=0.001, max_iter=200),
        "logistic, C=1": LogisticRegression(C=1.0, max_iter=200),
        "linear discriminants": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "smoothed naive Bayes": GaussianNB(var_smoothing=1.0),
        "tree of depth 3": DecisionTreeClassifier(max_depth=3, random_state=seed),
        "tree": DecisionTreeClassifier(random_state=seed),
        "random forest": RandomForestClassifier(15, random_state=seed),
        "extra trees": ExtraTreesClassifier(15, max_depth=6, random_state=seed),
    }


def rows_of(name: str) -> Labelled:
    from kofn import datasets

    if name == "digits":
        return digits()
    if name == "diamonds":
        return diamonds(4)
    data = datasets.load(name)
    assert data.X is not None
    assert data.y is not None
    y = np.digitize(data.y, np.quantile(data.y, [1 / 3, 2 / 3])) if name == "diabetes" else data.y
    return Labelled(data.X.astype(np.float32), y.astype(np.int64), int(y.max()) + 1)


def sheet(name: str, seed: int) -> Sheet:
    """Each classifier, fitted on half of at most a thousand rows and judged on the other half."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    data = rows_of(name)
    rows = np.random.default_rng(seed).permutation(len(data))[:MOST_ROWS]
    X, y = data.X[rows], data.y[rows]
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=seed % 2**32, stratify=y)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    correct, losses = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in classifiers(seed % 2**32).values():
            model.fit(train, y_train)
            share = np.clip(model.predict_proba(test), 1e-6, 1)
            position = np.searchsorted(model.classes_, y_test)
            losses.append(-np.log(share[np.arange(len(test)), position]).mean())
            correct.append(model.classes_[share.argmax(axis=1)] == y_test)
    return Sheet(np.array(correct, np.float64), np.array(losses))
