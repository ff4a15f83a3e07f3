"""The next rows to label, against the same greedy search written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import kofn
from kofn import InputError, datasets
from kofn.core.checks import InfeasibleError
from kofn.selection import uncertainty_herding
from kofn.selection.labels import _uncertainty_herding
from kofn.selection.labels._classifier import classifier, predict, short_name


def digits(n: int, labelled: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scanned digits, the first of them with their labels."""
    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    return data.X[:n].astype(np.float64), np.where(np.arange(n) < labelled, data.y[:n], -1)


def test_picks_are_those_of_plain_greedy_search() -> None:
    X, y = digits(150, 40)
    plan = uncertainty_herding(X, y=y, k=12)
    width, doubt = plan.info["bandwidth"], plan.info["uncertainty"]
    kernel = np.exp(-((X[:, None] - X[None]) ** 2).sum(axis=2) / (2 * width * width))
    covered = kernel[:, :40].max(axis=1)
    picks: list[int] = []
    gains = []
    for _ in range(12):
        worth = (doubt[:, None] * np.maximum(kernel - covered[:, None], 0)).sum(axis=0)
        worth[[*range(40), *picks]] = -1
        picks.append(int(worth.argmax()))
        gains.append(worth.max())
        covered = np.maximum(covered, kernel[:, picks[-1]])
    assert plan.indices.tolist() == picks
    np.testing.assert_allclose(plan.gains, gains, rtol=1e-9)
    assert plan.bound is not None
    assert plan.value <= plan.bound


def test_without_labels_it_is_max_herding() -> None:
    X, _ = digits(200, 0)
    herding = kofn.select(X, k=15, metric="rbf", objective="facility_location").indices.tolist()
    assert uncertainty_herding(X, k=15).indices.tolist() == herding
    assert uncertainty_herding(X, y=np.full(200, -1), k=15).indices.tolist() == herding
    assert uncertainty_herding(X, y=np.full(200, ""), k=15, unlabelled="").indices.tolist() == herding


def test_without_a_model_the_labelled_rows_come_first_in_max_herding() -> None:
    X, y = digits(200, 30)
    both = kofn.select(X, k=45, metric="rbf", objective="facility_location", start=np.arange(30)).indices.tolist()
    assert uncertainty_herding(X, y=y, k=15, model="none").indices.tolist() == both[30:]


def test_doubt_moves_the_picks_to_where_the_classes_meet() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(at, 0.3, (60, 2)) for at in ((0, 0), (3, 0), (1.5, 0), (-3, 0))])
    y = np.full(240, -1)
    y[:20], y[60:80] = 0, 1
    plain, unsure = (
        uncertainty_herding(X, y=y, k=8, model=model, bandwidth=0.2).indices
        for model in ("none", "logistic_regression")
    )
    between, beyond = slice(120, 180), slice(180, 240)
    counts = [
        [int(np.isin(picks, np.arange(240)[part]).sum()) for part in (between, beyond)] for picks in (plain, unsure)
    ]
    assert min(counts[0]) >= 3
    assert counts[1][0] >= 7


def test_labels_are_classes_and_the_same_call_gives_the_same_picks() -> None:
    X, y = digits(200, 50)
    as_numbers = uncertainty_herding(X, y=y, k=10)
    named = np.array(["?" if label < 0 else f"digit {label}" for label in y])
    assert uncertainty_herding(X, y=named, k=10, unlabelled="?").indices.tolist() == as_numbers.indices.tolist()
    assert uncertainty_herding(X, y=y.astype(float), k=10).indices.tolist() == as_numbers.indices.tolist()
    drawn = [uncertainty_herding(X, y=y, k=10, model="decision_tree", seed=3).indices.tolist() for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_probabilities_are_calibrated_on_rows_that_were_kept_from_the_classifier() -> None:
    X, y = digits(400, 80)
    rows = np.arange(80)
    sure = predict("gaussian_nb", X, rows, y[:80], 0)
    truth = datasets.load("digits").y
    assert truth is not None
    raw = classifier("gaussian_nb", 0).fit(X[:80], y[:80]).predict_proba(X[80:])
    losses = [
        -np.log(np.maximum(p[np.arange(320), truth[80:400]], 1e-6)).mean() for p in (raw, sure.probabilities[80:])
    ]
    assert sure.temperature > 2
    assert losses[1] < losses[0]
    assert abs(sure.accuracy - (raw.argmax(axis=1) == truth[80:400]).mean()) < 0.2


def test_too_few_labels_to_calibrate_by_make_all_rows_count_alike() -> None:
    X, y = digits(100, 2)
    assert y[0] != y[1]
    plan = uncertainty_herding(X, y=y, k=5)
    assert np.isinf(plan.info["temperature"])
    assert plan.indices.tolist() == uncertainty_herding(X, y=y, k=5, model="none").indices.tolist()
    one_class = np.where(np.arange(100) < 3, 7, -1)
    same = uncertainty_herding(X, y=one_class, k=5)
    assert same.info["labels"] == {"7": 3}
    assert set(same.info["uncertainty"].tolist()) == {1.0}


def test_weights_count_beside_the_doubt() -> None:
    X, y = digits(120, 30)
    weights = np.zeros(120)
    weights[100:] = 1
    plan = uncertainty_herding(X, y=y, k=1, weights=weights, bandwidth=0.5)
    assert plan.indices[0] >= 100


def test_a_classifier_that_is_sure_of_all_rows_tells_none_apart() -> None:
    X = np.concatenate([np.zeros((12, 1)), np.full((12, 1), 1e6)]) + np.arange(24)[:, None] * 1e-3
    y = np.full(24, -1)
    y[[0, 4, 8, 11]], y[[12, 16, 20, 23]] = 0, 1
    plan = uncertainty_herding(X, y=y, k=4, model="GaussianNB", seed=0, bandwidth=1e-3)
    assert plan.info["sure"] is True
    covered = uncertainty_herding(X, y=y, k=4, model="none", bandwidth=1e-3)
    assert plan.indices.tolist() == covered.indices.tolist()
    # So it is where rows that it doubts count for nothing.
    plan = uncertainty_herding(X, y=y, k=2, weights=np.where(np.arange(24) < 3, 1.0, 0.0), model="GaussianNB", seed=0)
    assert len(plan) == 2


def test_what_is_wrong_is_said() -> None:
    X, y = digits(60, 20)
    with pytest.raises(InputError, match="all 20 rows are labelled"):
        uncertainty_herding(X[:20], y=y[:20], k=1)
    with pytest.raises(InfeasibleError, match="k=41, but 40 of 60 rows have no label yet; ask for k <= 40"):
        uncertainty_herding(X, y=y, k=41)
    with pytest.raises(InfeasibleError, match="of which 5 are excluded; ask for k <= 35"):
        uncertainty_herding(X, y=y, k=36, exclude=[20, 21, 22, 23, 24, 3])
    with pytest.raises(InputError, match="include names row 3, which has a label"):
        uncertainty_herding(X, y=y, k=2, include=[30, 3])
    with pytest.raises(InputError, match="no such classifier; did you mean 'random_forest'"):
        uncertainty_herding(X, y=y, k=2, model="random_forrest")
    with pytest.raises(InputError, match="gives no probabilities"):
        uncertainty_herding(X, y=y, k=2, model="ridge")
    with pytest.raises(InputError, match="built from other classifiers"):
        uncertainty_herding(X, y=y, k=2, model="voting")
    with pytest.raises(InputError, match="cannot learn from these rows"):
        uncertainty_herding(X, y=y, k=2, model="complement_nb")
    with pytest.raises(InputError, match="give a classifier of scikit-learn or its name"):
        uncertainty_herding(X, y=y, k=2, model=5)


def test_names_of_classifiers() -> None:
    names = [short_name(name) for name in ("RandomForestClassifier", "GaussianNB", "SVC", "k_neighbors")]
    assert names == ["random_forest", "gaussian_nb", "svc", "k_neighbors"]


def test_a_plan_that_had_no_time_for_all_labelled_rows_states_no_value(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.full(60, -1)
    y[:30] = rng.integers(0, 2, 30)
    monkeypatch.setattr(_uncertainty_herding, "_FEW_PAIRS", 100)
    plan = kofn.select(X, y=y, k=5, method="uncertainty_herding", time_limit=1e-9)
    assert (plan.status, len(plan)) == ("stopped", 5)
    assert np.isnan([plan.value, *plan.gains]).all()
    assert not set(plan.indices.tolist()) & set(range(30))
