"""`Selector` and `Assigner` against scikit-learn's and imbalanced-learn's own checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils import estimator_checks as imbalanced
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from kofn import Assigner, Selector
from kofn.core.checks import InputError

# imbalanced-learn's checks that ask for a rebalancing of classes, or for sparse input.
OTHERS = {"check_target_type", "check_samplers_one_label", "check_samplers_fit", "check_samplers_pandas_sparse"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"method": "random_sample"}, {"k": 3, "method": "farthest_first"}])
def test_scikit_learns_checks(options: dict[str, object]) -> None:
    bad = [row for row in check_estimator(Selector(**options), on_fail=None) if row["status"] == "failed"]
    assert not bad, [(row["check_name"], row["exception"]) for row in bad]


@pytest.mark.filterwarnings("ignore")
def test_imbalanced_learns_checks() -> None:
    failed = {}
    marked = imbalanced.parametrize_with_checks([Selector()])
    for estimator, check in marked.args[1]:
        try:
            check(estimator)
        except SkipTest:
            continue
        except Exception as error:
            failed[check.func.__name__] = error
    assert set(failed) == OTHERS, failed


def test_classes_may_be_a_column() -> None:
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    want = Selector(k=6, per_class=True).fit(X, y).sample_indices_.tolist()
    frame = pd.DataFrame({"y": y})
    assert Selector(k=6, per_class=True).fit(X, y[:, None]).sample_indices_.tolist() == want
    kept, labels = Selector(k=6, per_class=True).fit_resample(X, frame)
    assert len(kept) == 6
    assert labels.index.tolist() == want
    with pytest.raises(InputError, match="one label an item"):
        Selector(k=6, per_class=True).fit(X, np.column_stack([y, y]))


def test_frames_stay_frames_and_classes_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(90, 3)), columns=list("abc"), index=np.arange(90) + 1000)
    y = pd.Series(["x"] * 60 + ["y"] * 27 + ["z"] * 3, index=X.index)
    kept, labels = Selector(k=10, per_class=True).fit_resample(X, y)
    assert kept.index.equals(labels.index)
    assert list(kept.columns) == list("abc")
    assert labels.value_counts().to_dict() == {"x": 6, "y": 3, "z": 1}


def test_the_number_kept_is_a_count_or_a_share() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    assert len(Selector(k=0.25).fit(X).sample_indices_) == 10
    assert len(Selector(k=7).fit(X).sample_indices_) == 7
    assert Selector(k=7).fit(X).get_support().sum() == 7
    with pytest.raises(ValueError, match="requires y"):
        Selector(k=7, per_class=True).fit(X)


def test_same_random_state_same_rows() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    pick = [Selector(k=5, method="random_sample", random_state=3).fit(X).sample_indices_.tolist() for _ in range(2)]
    assert pick[0] == pick[1]


def test_in_a_pipeline_chosen_rows_beat_random_ones() -> None:
    X, y = load_digits(return_X_y=True)
    scores = {}
    for method in ("lazy_greedy", "random_sample"):
        selector = Selector(k=0.05, method=method, per_class=True, random_state=0)
        pipeline = make_pipeline(selector, KNeighborsClassifier(n_neighbors=1))
        scores[method] = cross_val_score(pipeline, X, y, cv=3).mean()
    assert scores["lazy_greedy"] > scores["random_sample"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{}, {"k": 3, "metric": "cosine"}, {"k": 2, "method": "pam"}, {"k": 2, "method": "single_linkage"}]
)
def test_scikit_learns_checks_of_groups(options: dict[str, object]) -> None:
    bad = [row for row in check_estimator(Assigner(**options), on_fail=None) if row["status"] == "failed"]
    assert not bad, [(row["check_name"], row["exception"]) for row in bad]


def test_new_rows_join_the_nearest_medoid() -> None:
    X, _ = load_digits(return_X_y=True)
    groups = Assigner(k=10, random_state=0).fit(X[:400])
    assert np.array_equal(groups.cluster_centers_, X[groups.medoid_indices_])
    gaps = np.linalg.norm(X[400:450, None] - groups.cluster_centers_[None], axis=2)
    assert groups.predict(X[400:450]).tolist() == gaps.argmin(axis=1).tolist()
    assert groups.predict(X[:400]).tolist() == groups.labels_.tolist()


def test_weights_count() -> None:
    X = np.array([[0.0], [1.0], [2.0], [10.0]])
    heavy = Assigner(k=1, random_state=0).fit(X, weights=[1, 1, 1, 50])
    assert heavy.medoid_indices_.tolist() == [3]


def test_without_centers_new_rows_join_the_group_of_the_nearest_row() -> None:
    def halves(X, k):
        return np.arange(len(X)) % k

    groups = Assigner(k=2, method=halves).fit(np.arange(6.0).reshape(-1, 1))
    assert groups.labels_.tolist() == [0, 1, 0, 1, 0, 1]
    assert groups.predict([[1.2], [3.9], [9.0]]).tolist() == [1, 0, 1]
    chain = Assigner(k=2, method="single_linkage").fit([[0.0], [1.0], [2.0], [3.0], [9.0]])
    assert chain.predict([[4.0], [7.0]]).tolist() == [0, 1]


def test_weights_go_by_both_names() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    weights = np.random.default_rng(1).random(40)
    by_ours = Assigner(k=3, random_state=0).fit(rows, weights=weights)
    by_theirs = Assigner(k=3, random_state=0).fit(rows, sample_weight=weights)
    assert by_ours.labels_.tolist() == by_theirs.labels_.tolist()
    with pytest.raises(InputError, match="one thing"):
        Assigner(k=3).fit(rows, weights=weights, sample_weight=weights)
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        Assigner(k=3).fit(rows, weight=weights)


def test_in_a_grid_search_of_their_pipeline_every_step_sees_its_rows() -> None:
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), Selector(k=30, per_class=True), KNeighborsClassifier(n_neighbors=1))
    search = GridSearchCV(model, {"selector__k": [6, 30, 0.5], "selector__method": ["auto", "farthest_first"]}, cv=3)
    search.fit(X, y)
    best = search.best_estimator_
    assert best[0].n_samples_seen_ == len(X)
    assert best[-1].n_samples_fit_ == len(best[1].sample_indices_) < len(X)
    assert len(best.predict(X)) == len(X)
    assert search.best_score_ > 0.85


def test_scikit_learns_pipeline_takes_it_last_alone() -> None:
    X, y = load_iris(return_X_y=True)
    alone = Pipeline([("scale", StandardScaler()), ("select", Selector(k=12))]).fit(X, y)
    expected = Selector(k=12).fit(StandardScaler().fit_transform(X)).sample_indices_
    assert alone[-1].sample_indices_.tolist() == expected.tolist()
    with pytest.raises(TypeError, match="implement fit and transform"):
        Pipeline([("select", Selector(k=12)), ("model", KNeighborsClassifier())]).fit(X, y)


def test_options_are_given_flat_too() -> None:
    X = np.random.default_rng(0).random((60, 2))
    flat = Assigner(k=4, capacity=20, random_state=0, min_size=14)
    assert flat.get_params()["options"] == {"min_size": 14}
    assert clone(flat).get_params() == flat.get_params()
    assert np.bincount(flat.fit(X).labels_).min() >= 14
    nested = Assigner(k=4, capacity=20, random_state=0, options={"min_size": 14}).fit(X)
    assert nested.labels_.tolist() == flat.labels_.tolist()
    assert set(np.bincount(Assigner(k=4, equal=True).fit(X).labels_)) == {15}
    assert clone(flat).set_params(k=3, min_size=18).options == {"min_size": 18}
    assert flat.options == {"min_size": 14}
    assert Selector(k=5, objective="log_determinant").fit(X).plan_.objective.startswith("log_determinant")


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda: Assigner(n_clusters=4), "assign has no argument 'n_clusters'; did you mean 'k'?"),
        (lambda: Assigner(k=4, min_sise=4), "did you mean 'min_size'?"),
        (lambda: Selector(k=4, size=4), "select has no argument 'size'"),
        (lambda: Assigner(k=4, seed=3, random_state=1), "options names 'seed', which the estimator has of its own"),
        (lambda: Assigner(k=4, min_size=3, options={"min_size": 2}), "min_size is given twice: flat and in options"),
        (lambda: Assigner(k=4, options=[3]), "options=[3]: give a mapping"),
    ],
)
def test_what_is_no_option_is_refused_in_words(made: Callable[[], Any], fault: str) -> None:
    with pytest.raises(InputError) as refusal:
        made().fit(np.random.default_rng(0).random((20, 2)))
    assert fault in str(refusal.value)
