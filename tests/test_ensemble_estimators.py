"""`EnsembleSelector` and `Stacker` against scikit-learn's own checks, and on data of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor, Ridge, RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from kofn import EnsembleSelector, Stacker
from kofn.core.checks import InputError

CLASSIFIERS = [("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
REGRESSORS = [("ridge", Ridge()), ("linear", LinearRegression())]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("models", [CLASSIFIERS, REGRESSORS], ids=["classifiers", "regressors"])
@pytest.mark.parametrize("kind", [EnsembleSelector, Stacker])
def test_scikit_learns_checks(kind: type, models: list) -> None:
    # Few folds, since the checks fit hundreds of times.
    ensemble = kind(models, cv=2, options={"folds": 0 if kind is EnsembleSelector else 2})
    bad = [row for row in check_estimator(ensemble, on_fail=None) if row["status"] == "failed"]
    assert not bad, [(row["check_name"], row["exception"]) for row in bad]


@pytest.mark.parametrize("kind", [EnsembleSelector, Stacker])
def test_classes_by_name_in_a_frame(kind: type) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    blend = kind([*CLASSIFIERS, ("logistic", LogisticRegression(max_iter=500))], random_state=0).fit(X, names)
    assert blend.predict_proba(X).sum(axis=1) == pytest.approx(1)
    assert blend.score(X, names) > 0.93
    assert blend.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert blend.plan_.ids.tolist() == ["bayes", "tree", "logistic"]
    assert list(blend.feature_names_in_) == list(X.columns)
    assert {"over_single", "over_mean"} <= blend.plan_.info["held_out"].keys()


def test_models_without_weight_are_not_fitted_again() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    models = [("useless", DummyClassifier(strategy="uniform", random_state=0)), ("bayes", GaussianNB())]
    blend = EnsembleSelector(models, k=1, random_state=0).fit(X, y)
    assert list(blend.estimators_) == ["bayes"]
    assert blend.weights_.tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(blend.predict(X), GaussianNB().fit(X, y).predict(X))


def test_fitted_models_are_taken_as_they_are() -> None:
    X, y = load_diabetes(return_X_y=True)
    models = [Ridge(0.1).fit(X[:200], y[:200]), KNeighborsRegressor(20).fit(X[:200], y[:200])]
    stack = Stacker(models, prefit=True, final="simplex", random_state=0).fit(X[200:320], y[200:320])
    assert stack.estimators_["ridge"] is models[0]
    mean = models[0].predict(X[320:]) * stack.weights_[0] + models[1].predict(X[320:]) * stack.weights_[1]
    np.testing.assert_allclose(stack.predict(X[320:]), mean)
    with pytest.raises(InputError, match="prefit=True, but 'ridge' is not fitted"):
        Stacker([Ridge()], prefit=True).fit(X, y)


def test_quantiles_and_splitters() -> None:
    X, y = load_diabetes(return_X_y=True)
    models = [
        ("flat", QuantileRegressor(quantile=0.9, alpha=1.0)),
        ("fine", QuantileRegressor(quantile=0.9, alpha=0.0)),
    ]
    blend = EnsembleSelector(models, quantile=0.9, random_state=0).fit(X, y)
    assert 0.85 < (y <= blend.predict(X)).mean() < 0.95
    assert blend.plan_.objective == "pinball"
    groups = np.arange(len(y)) % 4
    splits = list(GroupKFold(4).split(X, y, groups))
    assert Stacker(REGRESSORS, cv=splits).fit(X, y).score(X, y) > 0.4
    assert cross_val_score(EnsembleSelector(REGRESSORS, random_state=0), X, y, cv=3).mean() > 0.4


REFUSED = {
    "none": ([], "estimators: give a list of models"),
    "one name twice": ([("a", Ridge()), ("a", Ridge())], "estimators has the name 'a' twice"),
    "no model": ([("a", 3)], "estimators: 'a' is int, which cannot fit and predict"),
    "two kinds": ([Ridge(), LogisticRegression()], "'logisticregression' is unlike 'ridge'"),
    "no probabilities": ([GaussianNB(), RidgeClassifier()], "'ridgeclassifier' .* has no predict_proba"),
}


@pytest.mark.parametrize(("models", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(models: list, says: str) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(InputError, match=says):
        EnsembleSelector(models).fit(X, y)


def test_models_of_unlike_classes_are_named() -> None:
    X, y = load_iris(return_X_y=True)
    three = GaussianNB().fit(X, y)
    with pytest.raises(InputError, match="'gaussiannb' was fitted on class 2, which y does not have"):
        EnsembleSelector([three], prefit=True).fit(X[:100], y[:100])
    with pytest.raises(InputError, match="X has 150 rows, y has 100 values"):
        EnsembleSelector([GaussianNB()]).fit(X, pd.Series(y[:100]))
