"""`EnsembleSelector`, `Stacker` and `DynamicSelector` against scikit-learn's own checks, and on data of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

from kofn import DynamicSelector, EnsembleSelector, Stacker, combination
from kofn.core.checks import InfeasibleError, InputError

CLASSIFIERS = [("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
REGRESSORS = [("ridge", Ridge()), ("linear", LinearRegression())]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "models"),
    [
        *((kind, models) for kind in (EnsembleSelector, Stacker) for models in (CLASSIFIERS, REGRESSORS)),
        (DynamicSelector, CLASSIFIERS),
    ],
)
def test_scikit_learns_checks(kind: type, models: list) -> None:
    # Few folds, since the checks fit hundreds of times.
    ensemble = kind(models, cv=2, folds=2 if kind is Stacker else 0)
    # A neighbour is one neighbour whatever it weighs.
    expected = {"check_sample_weight_equivalence_on_dense_data": "neighbours are counted"}
    checked = check_estimator(
        ensemble, on_fail=None, expected_failed_checks=expected if kind is DynamicSelector else None
    )
    bad = [row for row in checked if row["status"] == "failed"]
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


@pytest.mark.parametrize("kind", [EnsembleSelector, Stacker, DynamicSelector])
def test_weights_of_rows_reach_the_models_and_the_blend(kind: type) -> None:
    X, y = load_iris(return_X_y=True)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    heavy = np.random.default_rng(0).integers(0, 2, len(y))
    kept = np.flatnonzero(heavy)
    number = np.cumsum(heavy) - 1
    of_kept = [(number[train[heavy[train] > 0]], number[test[heavy[test] > 0]]) for train, test in folds]
    weighed = kind(CLASSIFIERS, cv=folds, folds=0, random_state=0).fit(X, y, sample_weight=heavy)
    alone = kind(CLASSIFIERS, cv=of_kept, folds=0, random_state=0).fit(X[kept], y[kept])
    np.testing.assert_allclose(weighed.weights_[0], alone.weights_[0], atol=0.15 if kind is DynamicSelector else 1e-6)
    np.testing.assert_allclose(weighed.predict_proba(X), alone.predict_proba(X), atol=1e-6)
    assert weighed.plan_.value == pytest.approx(alone.plan_.value)
    with pytest.raises(InputError, match=r"but 'near' \(KNeighborsClassifier\) does not take it"):
        kind([*CLASSIFIERS, ("near", KNeighborsClassifier())]).fit(X, y, sample_weight=heavy)


@pytest.mark.parametrize("models", [CLASSIFIERS, REGRESSORS], ids=["classifiers", "regressors"])
def test_groups_stay_in_one_fold(models: list) -> None:
    """Each row is given three times: who saw a copy knows the answer, and must not be asked for it."""
    rng = np.random.default_rng(0)
    X, y = np.repeat(rng.normal(size=(40, 3)), 3, axis=0), np.repeat(rng.integers(0, 2, 40), 3)
    groups = np.repeat([f"patient {code}" for code in range(40)], 3)
    knower = DecisionTreeClassifier(random_state=0) if models is CLASSIFIERS else DecisionTreeRegressor(random_state=0)
    words = {"loss": "brier" if models is CLASSIFIERS else "rmse", "random_state": 0}
    models = [*models, ("knower", knower)]
    leaking, kept = (
        EnsembleSelector(models, **words).fit(X, y),
        EnsembleSelector(models, **words).fit(X, y, groups=groups),
    )
    assert leaking.weights_[2] > 0.9
    assert kept.weights_[2] < 0.4
    assert kept.plan_.info["held_out"]["blend"] > 2 * leaking.plan_.info["held_out"]["blend"]
    with pytest.raises(InputError, match="groups has one group"):
        EnsembleSelector(models).fit(X, y, groups=np.zeros(120))


def test_a_dynamic_selector_asks_all_that_may_serve() -> None:
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    blend = DynamicSelector(CLASSIFIERS, strategy="ola", n_neighbors=5, random_state=0).fit(X, names)
    assert list(blend.estimators_) == ["bayes", "tree"]
    assert blend.score(X, names) > 0.93
    static = DynamicSelector([*CLASSIFIERS, ("useless", DummyClassifier())], random_state=0).fit(X, names)
    asked = {name for name, weight in zip(static.plan_.ids, static.weights_, strict=True) if weight > 0}
    whole = static.plan_.info["n_neighbors"] is not None
    assert set(static.estimators_) == ({"bayes", "tree", "useless"} if whole else asked)
    with pytest.raises(InputError, match="estimators are regressors"):
        DynamicSelector(REGRESSORS).fit(X, y)
    with pytest.raises(ValueError, match="could not convert string to float"):
        DynamicSelector(CLASSIFIERS).fit(np.array([["a"], ["b"]] * 10), [0, 1] * 10)


REFUSED = {
    "none": ([], r"estimators=\[\]: give a list of models"),
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


class Numbers:
    """A problem of 40 rows in which anything can be changed."""

    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(int)


def _hole() -> np.ndarray:
    X = Numbers.X.copy()
    X[7, 1] = np.nan
    return X


FITS: dict[str, tuple[dict, dict, str]] = {
    "ragged": ({}, {"X": [[1, 2], [3]] * 20}, "X: row 1 has 1 values, row 0 has 2; give each row as many"),
    "no rows": ({}, {"X": 3.0}, "X=3.0: give rows"),
    "two answers": (
        {},
        {"y": np.zeros((40, 2))},
        r"got an array of shape \(40, 2\) instead; give \(n,\), one answer a row",
    ),
    "groups": ({}, {"groups": [1] * 6}, "X has 40 rows, groups has 6 values; give one a row"),
    "options": ({"options": [1]}, {}, r"options=\[1\]: give a mapping of the method's options"),
    "own option": (
        {"options": {"folds": 2}},
        {},
        "options names 'folds', which the estimator has of its own; give it as",
    ),
    "untested rows": ({"cv": [(np.arange(9), np.arange(9, 40))]}, {}, r"cv has row 0 in 0 test folds \(9 rows are not"),
    "tested twice": (
        {"cv": [(np.arange(20), np.arange(20, 40)), (np.arange(30), np.arange(40))]},
        {},
        r"cv has row 20 in 2 test folds \(20 rows",
    ),
    "a dictionary": ({"estimators": dict(CLASSIFIERS)}, {}, "give a list of models.*items"),
    "a class": ({"estimators": [GaussianNB]}, {}, r"is the class GaussianNB; give a model, GaussianNB\(\)"),
    "other columns": (
        {"estimators": [GaussianNB().fit(Numbers.X[:, :2], Numbers.y)], "prefit": True},
        {},
        "'gaussiannb' was fitted on 2 columns and X has 3; give its columns",
    ),
    "other names": (
        {"estimators": [GaussianNB().fit(Numbers.X, np.array(["n", "p"])[Numbers.y])], "prefit": True},
        {},
        r"fitted on class 'n', which y does not have \(its classes: \[0, 1\]\); give y",
    ),
}


@pytest.mark.parametrize("kind", [EnsembleSelector, Stacker, DynamicSelector])
@pytest.mark.parametrize(("words", "rows", "says"), FITS.values(), ids=FITS)
def test_what_cannot_be_fitted_is_refused_by_its_place(kind: type, words: dict, rows: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        kind(**{"estimators": CLASSIFIERS, **words}).fit(**{"X": Numbers.X, "y": Numbers.y, **rows})


def test_rows_to_predict_and_classes_for_regressors_are_refused_by_their_place() -> None:
    near = DynamicSelector(CLASSIFIERS, random_state=0, strategy="knora_u", n_neighbors=5).fit(Numbers.X, Numbers.y)
    for call in (near.predict, lambda X: near.fit(X, Numbers.y)):
        with pytest.raises(InputError, match=r"X at .*7.*1.* is NaN"):
            call(_hole())
    for kind in (EnsembleSelector, Stacker):
        with pytest.raises(InputError, match="y at row 1 is 'b', which is no number, and estimators are regressors"):
            kind(REGRESSORS).fit(Numbers.X, ["1", "b"] * 20)
        with pytest.raises(InputError, match="give rows"):
            kind(CLASSIFIERS, random_state=0).fit(Numbers.X, Numbers.y).predict(0)
    with pytest.raises(InfeasibleError, match="k=9 of 2 members: there are only 2 to choose from; ask for k <= 2"):
        EnsembleSelector(CLASSIFIERS, k=9).fit(Numbers.X, Numbers.y)


@pytest.mark.parametrize("kind", [EnsembleSelector, Stacker, DynamicSelector])
def test_every_option_of_the_method_is_a_parameter_that_a_grid_can_set(kind: type) -> None:
    ensemble = kind(CLASSIFIERS, random_state=0, cv=3)
    method = getattr(combination, kind._method).__kofn__.signature.parameters
    # What rows are is given to `fit`; what the classes are is read from y.
    given = {"members", "y", "X", "groups", "quantiles", "classes", "row_weights", "blocks", "seed", "n_threads"}
    limits = {"time_limit", "max_memory", "progress", "limits"}
    assert set(method) - given - limits <= set(ensemble.get_params(deep=False))
    for name in kind._own:
        assert ensemble.get_params()[name] == method[name].default, name
    X, y = load_iris(return_X_y=True)
    own, values = {
        EnsembleSelector: ("rounds", [1, 20]),
        Stacker: ("final", ["simplex", "logistic"]),
        DynamicSelector: ("n_neighbors", [5, 11]),
    }[kind]
    search = GridSearchCV(ensemble.set_params(folds=0), {own: values, "tree__max_depth": [1, 3]}, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_params_["tree__max_depth"] == search.best_estimator_.get_params()["tree__max_depth"]
    assert search.best_estimator_.plan_.options.get(own, values[-1]) in values
