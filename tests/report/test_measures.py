"""The report's measures against independent counts: coverage, knees, planes, distances in any unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pages import farthest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

import kofn
from kofn.objectives.similarity import pairwise_distances
from kofn.report import measures

REFERENCE = {
    "euclidean": lambda a, b: cdist(a, b),
    "sqeuclidean": lambda a, b: cdist(a, b, "sqeuclidean"),
    "cosine": lambda a, b: cdist(a, b, "cosine"),
}


@pytest.mark.parametrize("metric", sorted(REFERENCE))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [64, 1 << 21])
def test_coverage_is_what_a_plain_count_gives(metric: str, weighted: bool, block: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(measures, "BLOCK_CELLS", block)
    rng = np.random.default_rng(3)
    X, picks = rng.normal(size=(150, 7)) + 2, rng.choice(150, 11, replace=False)
    weight = rng.random(150) if weighted else np.ones(150)
    far = REFERENCE[metric](X, X[picks])
    mean = np.array([weight @ far[:, :t].min(axis=1) for t in range(1, 12)]) / weight.sum()
    typical = weight @ REFERENCE[metric](X, X) @ weight / weight.sum() ** 2

    got = measures.coverage(measures.Space(X, metric), picks, weight if weighted else None)

    np.testing.assert_allclose(got.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(got.typical, typical, rtol=1e-9)
    np.testing.assert_allclose(got.share, 1 - mean / typical, rtol=1e-9)
    np.testing.assert_array_equal(got.nearest, far.argmin(axis=1))
    assert (np.diff(got.share) >= 0).all()


def test_coverage_is_exact_far_from_the_origin_in_float32() -> None:
    X = (np.random.default_rng(0).normal(size=(300, 4)) * 8 + 4096).astype(np.float32)
    picks = np.array([5, 17, 200])
    got = measures.coverage(measures.Space(X, "euclidean"), picks)
    np.testing.assert_allclose(got.distance, cdist(X.astype(float), X[picks].astype(float)).min(axis=1), atol=1e-5)


def test_coverage_of_everything_is_whole_and_of_equal_rows_too() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    assert measures.coverage(measures.Space(X, "euclidean"), np.arange(20)).share[-1] == 1.0
    same = measures.coverage(measures.Space(np.ones((20, 3)), "euclidean"), np.array([3, 9]))
    np.testing.assert_array_equal(same.share, [1.0, 1.0])
    np.testing.assert_array_equal(same.nearest[[3, 9]], [0, 1])  # a picked duplicate stands for itself


def test_coverage_of_a_huge_pool_is_sampled_and_near_the_truth(monkeypatch: Any) -> None:
    X = np.random.default_rng(1).normal(size=(8000, 3))
    picks = farthest(X, 10)
    whole = measures.coverage(measures.Space(X, "euclidean"), picks)
    monkeypatch.setattr(measures, "MAX_DISTANCES", 20_000)
    part = measures.coverage(measures.Space(X, "euclidean"), picks)
    assert len(whole.items) == 8000
    assert len(part.items) == 2000
    np.testing.assert_allclose(part.share, whole.share, atol=0.02)
    true = float(cdist(X[:2000], X).mean())
    assert abs(whole.typical - true) < 0.01 * true


def test_knee_is_where_a_pick_adds_less_than_average() -> None:
    bent = np.concatenate([np.linspace(0.1, 0.8, 8), np.linspace(0.81, 0.9, 40)])
    assert measures.knee(bent) == 8
    gains = np.diff(bent)
    average = (bent[-1] - bent[0]) / (len(bent) - 1)
    assert gains[6] > average > gains[7]
    assert measures.knee(np.linspace(0, 1, 30)) is None
    assert measures.knee(np.ones(30)) is None
    assert measures.knee(np.array([0.1, 0.9])) is None


@pytest.mark.parametrize("shape", [(400, 12), (90, 700)])
def test_plane_is_pca(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(5).normal(size=shape) * np.linspace(3, 1, shape[1]) ** 2
    reference = PCA(2, svd_solver="full").fit(X)
    got = measures.plane(measures.Space(X, "euclidean"))
    np.testing.assert_allclose(np.abs(got.points), np.abs(reference.transform(X)), atol=1e-8)
    assert got.shown == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-9)
    np.testing.assert_array_equal(got.points, measures.plane(measures.Space(X, "euclidean")).points)


def test_plane_of_many_wide_rows_keeps_most_of_what_pca_finds() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(1500, 2)) @ rng.normal(size=(2, 600)) * 3 + rng.normal(size=(1500, 600))
    found = measures.plane(measures.Space(X, "euclidean")).points.var(axis=0).sum()
    best = PCA(2, svd_solver="full").fit_transform(X).var(axis=0).sum()
    assert 0.98 * best < found <= best * (1 + 1e-9)


@pytest.mark.parametrize("X", [np.ones((9, 4)), np.arange(9.0)[:, None], np.zeros((1, 3))])
def test_plane_of_degenerate_pools(X: Any) -> None:
    got = measures.plane(measures.Space(X, "cosine" if X.shape[1] == 4 else "euclidean"))
    assert got.points.shape == (len(X), 2)
    assert np.isfinite(got.points).all()


def test_sample_runs_from_best_to_worst_covered() -> None:
    X = np.random.default_rng(2).normal(size=(100, 2))
    picks = farthest(X, 6)
    cover = measures.coverage(measures.Space(X, "euclidean"), picks)
    chosen = measures.spaced(cover, picks, 12)
    assert len(set(chosen.tolist())) == 12
    assert not set(cover.items[chosen].tolist()) & set(picks.tolist())
    far = cover.distance[chosen]
    assert (np.diff(far) >= 0).all()
    assert far[-1] == cover.distance.max()
    assert (
        len(measures.spaced(measures.coverage(measures.Space(X, "euclidean"), np.arange(100)), np.arange(100), 5)) == 0
    )


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_picks_beside_random_ones_of_the_same_size(metric, monkeypatch):
    X = np.random.default_rng(0).normal(size=(300, 4))
    picks = kofn.select(X, k=12, metric=metric).indices
    space = measures.Space(X, metric)
    got = measures.at_random(space, picks)
    apart = REFERENCE[metric](X, X)
    np.testing.assert_allclose(got.own, apart[:, picks].min(axis=1).mean(), rtol=1e-9)
    rng = np.random.default_rng(2)
    usual = sorted(apart[:, rng.choice(300, 12, replace=False)].min(axis=1).mean() for _ in range(20))
    np.testing.assert_allclose(got.draws, usual, rtol=1e-6)
    assert got.beaten == 20
    assert measures.at_random(space, np.arange(300)).own == 0
    # Of a large pool a sample of the items is measured, the picks as the random ones.
    monkeypatch.setattr(measures, "RANDOM_CELLS", 1)
    sampled = measures.at_random(space, picks)
    assert sampled.own == pytest.approx(got.own, rel=0.1)
    # Items that weigh nothing do not count.
    weights = np.zeros(300)
    weights[:50] = 1
    own = measures.at_random(space, picks, weights).own
    monkeypatch.undo()
    np.testing.assert_allclose(measures.at_random(space, picks, weights).own, apart[:50][:, picks].min(axis=1).mean())
    assert own >= 0


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("scale", [1e-170, 1e200])
def test_distances_of_entries_whose_squares_leave_the_floats(metric: str, scale: float) -> None:
    X = np.random.default_rng(0).normal(size=(6, 3))
    plain, scaled = (measures.Space(rows, metric) for rows in (X, X * scale))
    at_first, at_scale = (space.between(space.rows(slice(3)), space.rows(slice(3, 6))) for space in (plain, scaled))
    if metric == "cosine":
        np.testing.assert_allclose(at_scale, at_first, rtol=1e-9)
    elif metric == "euclidean":
        np.testing.assert_allclose(at_scale, at_first * scale, rtol=1e-9)
        np.testing.assert_allclose(scaled.apart(scaled.rows(slice(3)), scaled.rows(slice(3, 6))), np.diag(at_scale))
    else:
        assert (np.isinf(at_scale) if scale > 1 else at_scale == 0).all()


@pytest.mark.parametrize("metric", sorted(REFERENCE))
def test_the_report_measures_zero_rows_as_the_objectives_do(metric: str) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[:20] = 0
    plan = kofn.select(X, k=5, metric=metric)
    far = pairwise_distances(X, metric)
    space = measures.Space(X, metric)
    rows = space.rows(np.arange(40))
    assert np.allclose(space.between(rows, rows), far, atol=1e-7)
    assert np.allclose(space.apart(rows, np.roll(rows, 1, axis=0)), [far[i, i - 1] for i in range(40)], atol=1e-7)
    mean = far[:, plan.indices].min(axis=1).mean()
    assert measures.at_random(space, plan.indices).own == pytest.approx(mean, abs=1e-9)
    assert measures.coverage(space, plan.indices, None).mean[-1] == pytest.approx(mean, abs=1e-9)
