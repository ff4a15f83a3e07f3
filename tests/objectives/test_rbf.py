"""Facility location with exp(-d^2 / (2 bandwidth^2)) against a plain float64 greedy, and who refuses it."""

from __future__ import annotations

import numpy as np
import pytest

import kofn
from kofn.core.checks import InputError
from kofn.objectives import FacilityLocation, similarity
from kofn.objectives.similarity import usual_bandwidth


def plain(X, k, width, weights=None):
    """Greedy picks and gains from the definition."""
    X = X.astype(np.float64)
    table = np.exp(-((X[:, None] - X[None]) ** 2).sum(axis=2) / (2 * width * width))
    weights = np.ones(len(X)) if weights is None else weights
    best, picks, gains = np.zeros(len(X)), [], []
    for _ in range(k):
        gain = (weights[:, None] * np.maximum(table - best[:, None], 0)).sum(axis=0)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(float(gain.max()))
        best = np.maximum(best, table[:, picks[-1]])
    return picks, gains


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "d", "width"), [(60, 3, None), (500, 5, None), (700, 16, 0.7), (2300, 4, 0.2), (900, 2, 50.0)]
)
def test_greedy_picks_and_gains(n, d, width, dtype):
    X = np.random.default_rng(n).normal(size=(n, d)).astype(dtype)
    weights = np.random.default_rng(1).uniform(0, 2, n)
    objective = "facility_location" if width is None else f"facility_location(bandwidth={width})"
    plans = [kofn.select(X, k=20, metric="rbf", objective=objective, weights=weights, n_threads=t) for t in (1, 2)]
    picks, gains = plain(X, 20, usual_bandwidth(X) if width is None else width, weights)
    assert plans[0].indices.tolist() == picks
    np.testing.assert_allclose(plans[0].gains, gains, rtol=1e-9)
    assert plans[0].equals(plans[1])
    assert plans[0].value <= plans[0].bound


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_gains_are_within_their_tolerance(offset):
    X = (offset + np.random.default_rng(0).normal(size=(1200, 6))).astype(np.float32)
    f = FacilityLocation(X, metric="rbf", bandwidth=1.0)
    everyone = np.arange(len(X))
    for _ in range(30):
        rough, exact = f.gains(everyone), f.exact_gains(everyone)
        assert np.abs(rough - exact).max() <= f.tolerance
        f.add(int(exact.argmax()))


def test_compiled_and_interpreted_code_agree_to_the_last_bit(monkeypatch):
    X = np.random.default_rng(0).normal(size=(400, 7))
    compiled = FacilityLocation(X, metric="rbf")
    compiled.gains(np.arange(400))
    monkeypatch.setattr("kofn.objectives.facility_location._ALWAYS_SMALL", 10**6)
    plain_table = FacilityLocation(X, metric="rbf")
    assert type(plain_table._source).__name__ == "Table"
    for item in (3, 77, 200):
        assert compiled.exact_gains(np.arange(400)).tolist() == plain_table.exact_gains(np.arange(400)).tolist()
        assert compiled.add(item) == plain_table.add(item)


def test_copies_tie_and_extreme_units_do_not_matter():
    X = np.repeat(np.random.default_rng(0).normal(size=(40, 3)), 3, axis=0)
    usual = kofn.select(X, k=12, metric="rbf")
    for unit in (2.0**200, 2.0**-200):
        plan = kofn.select(X * unit, k=12, metric="rbf")
        assert plan.indices.tolist() == usual.indices.tolist()
        np.testing.assert_allclose(plan.gains, usual.gains, rtol=1e-12)
    assert len(set((usual.indices // 3).tolist())) == 12


def test_the_usual_bandwidth():
    X = np.random.default_rng(0).normal(size=(300, 4))
    apart = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    assert usual_bandwidth(X) == pytest.approx(float(np.median(np.sort(apart, axis=1)[:, 20])))
    assert usual_bandwidth(X[:3]) == pytest.approx(float(np.median(apart[:3, :3].max(axis=1))))
    assert usual_bandwidth(np.zeros((50, 2))) == 1.0
    copies = np.concatenate([np.zeros((80, 2)), X[:20, :2]])
    assert usual_bandwidth(copies) > 0
    # A sample of a large pool, the same each time.
    X = np.random.default_rng(0).normal(size=(5_000, 3))
    assert usual_bandwidth(X) == usual_bandwidth(X.copy())
    # Compiled code, with many features, and NumPy give the same number.
    X = np.random.default_rng(0).normal(size=(1_000, 1_200))
    compiled = usual_bandwidth(X)
    table = np.sort(similarity.geometry(X, "sqeuclidean").table(), axis=1)[:, 20]
    assert compiled == pytest.approx(float(np.median(np.sqrt(table))), rel=1e-12)


@pytest.mark.parametrize(
    "objective",
    ["saturated_coverage", "graph_cut", "medoid_loss", "dispersion", "feature_based", "log_determinant"],
)
def test_objectives_without_it_refuse(objective):
    with pytest.raises(InputError, match="rbf"):
        kofn.select(
            np.random.default_rng(0).random((9, 2)), k=2, objective=objective, metric="rbf", method="naive_greedy"
        )


@pytest.mark.parametrize(
    ("verb", "method"), [("select", "farthest_first"), ("select", "typiclust"), ("assign", "fasterpam")]
)
def test_methods_of_distances_refuse(verb, method):
    with pytest.raises(InputError, match=f"metric='rbf': {method}"):
        getattr(kofn, verb)(np.random.default_rng(0).random((9, 2)), k=2, method=method, metric="rbf")


def test_a_bandwidth_is_above_zero_and_belongs_to_rbf():
    X = np.random.default_rng(0).random((9, 2))
    for words, metric, width in (
        ("bandwidth=0", "rbf", 0),
        ("belongs to", "euclidean", 1.0),
        ("bandwidth=-1", "rbf", -1),
    ):
        with pytest.raises(InputError, match=words):
            FacilityLocation(X, metric=metric, bandwidth=width)


def test_uncertainty_as_weights_moves_the_picks():
    """Uncertainty Herding: the rows that a model is unsure of are those that are to be covered."""
    X = np.concatenate(
        [np.random.default_rng(0).normal(size=(80, 2)), 9 + np.random.default_rng(1).normal(size=(40, 2))]
    )
    sure = np.repeat([0.0, 1.0], [80, 40])
    assert (kofn.select(X, k=3, metric="rbf", weights=sure).indices >= 80).all()
    assert not (kofn.select(X, k=3, metric="rbf").indices >= 80).all()
