"""Laplacian clustering against the loops of its text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.spatial.distance import cdist

import kofn
from kofn.assignment import laplacian_shot
from kofn.assignment.graphs import _laplacian_shot
from kofn.core.checks import InputError


def cloud(n: int, d: int = 2, seed: int = 0) -> Any:
    """A few Gaussians of unequal weight."""
    rng = np.random.default_rng(seed)
    centres = 4 * rng.normal(size=(5, d))
    return centres[rng.choice(5, n, p=[0.4, 0.3, 0.15, 0.1, 0.05])] + rng.normal(size=(n, d))


def squares(X: Any, centers: Any) -> Any:
    return ((np.asarray(X, np.float64)[:, None] - centers[None]) ** 2).sum(axis=2)


def _plain_laplacian(X: Any, y: Any, lam: float, neighbours: int, temperature: float, steps: int) -> Any:
    """The bound optimiser of the paper in loops: dense, undamped."""
    n, classes = len(X), sorted(set(y) - {-1})
    apart = squares(X, X)
    W = np.zeros((n, n))
    for i in range(n):
        for j in np.argsort(apart[i] + (np.arange(n) == i) * 1e9, kind="stable")[:neighbours]:
            W[i, j] += 0.5
            W[j, i] += 0.5
    m = np.array([X[np.array(y) == c].mean(axis=0) for c in classes])
    S = np.zeros((n, len(classes)))
    cost = squares(X, m) / temperature
    for step in range(steps):
        additive = -cost + (lam * W @ S if step else 0)
        S = np.exp(additive - additive.max(axis=1)[:, None])
        S /= S.sum(axis=1)[:, None]
        for i, label in enumerate(y):
            if label != -1:
                S[i] = np.array(classes) == label
    return S, m


def test_laplacian_steps_are_those_of_the_paper() -> None:
    X = cloud(50, 3, 6)
    y = np.full(50, -1)
    y[:6] = [0, 1, 2, 0, 1, 2]
    # No row's degree is above 10, so at this lam nothing is damped.
    ours = laplacian_shot(X, y=y, lam=0.2, n_neighbors=4, temperature=3.0, update_prototypes=False, tol=1e-12)
    S, m = _plain_laplacian(X, y.tolist(), 0.2, 4, 3.0, 200)
    soft = np.zeros((50, 3))
    soft[np.repeat(np.arange(50), np.diff(ours.indptr)), ours.bins] = ours.weights
    assert soft == pytest.approx(S, abs=1e-4)
    assert ours.centers == pytest.approx(m)
    assert ours.labels.tolist() == S.argmax(axis=1).tolist()


def test_laplacian_objective_falls_where_the_plain_step_would_not() -> None:
    # Two stars: a graph with strongly negative eigenvalues, on which the undamped step swings between two states.
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(30, 2)) * 0.01 + c for c in ((0, 0), (1, 0))])
    y = np.full(60, -1)
    y[[0, 30]] = [0, 1]
    for lam in (0.0, 1.0, 10.0, 1000.0):
        plan = laplacian_shot(X, y=y, lam=lam, n_neighbors=3)
        assert np.diff(plan.info["trace"]).max() <= 1e-9 * np.abs(plan.info["trace"]).max()
        assert plan.status == "local"
        assert plan.labels.tolist() == [0] * 30 + [1] * 30
        assert plan.value == plan.info["trace"][-1]


def test_laplacian_keeps_labels_and_names() -> None:
    X = cloud(30, 2, 8)
    y = ["?"] * 30
    y[3], y[17] = "cat", "dog"
    plan = laplacian_shot(X, y=y, unlabelled="?")
    assert plan.info["classes"] == ["cat", "dog"]
    assert plan.labels[[3, 17]].tolist() == [0, 1]
    assert plan.row_margin == pytest.approx(np.ones(30))
    assert laplacian_shot(X, y=y, unlabelled="?", max_iter=1).status in ("stopped", "local")
    assert laplacian_shot([[0.0], [0.0]], y=[1, -1]).labels.tolist() == [0, 0]


def test_laplacian_counts_rows_that_no_label_reaches() -> None:
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) + np.repeat([[0, 0], [60, 0], [120, 0]], 20, axis=0)
    y = np.full(60, -1)
    y[[0, 20]] = [0, 1]
    plan = laplacian_shot(X, y=y, n_neighbors=4)
    near = cdist(X, X) + np.where(np.eye(60), np.inf, 0)
    joined = np.zeros((60, 60))
    joined[np.repeat(np.arange(60), 4), np.argsort(near, axis=1)[:, :4].ravel()] = 1
    parts, part = connected_components(joined, directed=False)
    assert plan.info["parts"] == parts >= 3
    assert plan.info["unreached"] == (~np.isin(part, part[[0, 20]])).sum() >= 20
    said = f"falls into {parts} parts, and {plan.info['unreached']} rows (row "
    with pytest.raises(InputError, match=re.escape(said)):
        laplacian_shot(X, y=y, n_neighbors=4, unreached="error")
    y[40] = 1
    whole = laplacian_shot(X, y=y, n_neighbors=12, unreached="error")
    assert (whole.info["parts"], whole.info["unreached"]) == (3, 0)


A = cloud(8)


LAPLACIAN = {
    "nobody": (lambda: laplacian_shot(A, y=[-1] * 8), "no row is labelled"),
    "everybody": (lambda: laplacian_shot(A, y=[1] * 8), "all 8 rows are labelled"),
    "far away": (
        lambda: laplacian_shot([[0.0], [1.0], [9.0], [10.0]], y=[1, -1, -1, -1], n_neighbors=1, unreached="error"),
        "the graph of 1 neighbours falls into 2 parts, and 2 rows (row 2 is one) lie in parts without a labelled row; "
        "raise n_neighbors, or label a row there",
    ),
    "cold": (lambda: laplacian_shot(A, y=[1, *[-1] * 7], temperature=0), "temperature=0: give a positive number"),
}


@pytest.mark.parametrize(("call", "says"), LAPLACIAN.values(), ids=LAPLACIAN)
def test_laplacian_refusals(call: Any, says: str) -> None:
    refused(call, says)


def test_a_plan_without_time_for_its_graph_states_no_value(monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(40, 3)), [0, 1, *[-1] * 38]
    monkeypatch.setattr(_laplacian_shot, "_FEW_ROWS", 10)
    plan = kofn.assign(X, y=y, method="laplacian_shot", time_limit=1e-9)
    assert plan.status == "stopped"
    assert np.isnan(plan.value)
    assert plan.labels.min() >= 0


@pytest.mark.parametrize("unit", [2.0**-300, 2.0**-3, 2.0**40, 2.0**300])
def test_rows_at_their_prototypes_have_no_unit(unit: float) -> None:
    X, y = np.array([[2.0, 1.0], [0.0, -2.0], [2.0, 1.0]]), [0, 1, -1]
    plain, other = (kofn.assign(rows, y=y, method="laplacian_shot", lam=0.0) for rows in (X, X * unit))
    assert other.bins.tolist() == plain.bins.tolist()
    np.testing.assert_allclose(other.weights, plain.weights, rtol=1e-12)
