"""Clustering: chains against SciPy, bounds against brute force, programs that meet their constraints, agreement."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, squareform

import kofn
from kofn.assignment import ila_sdp, partitive_partitioning, sdp_kmeans, single_linkage
from kofn.assignment.means import _gaussian, _ila_sdp, _sdp
from kofn.core.checks import InputError


def same(a: Any, b: Any) -> bool:
    """The same partition, whatever the names."""
    a, b = np.asarray(a), np.asarray(b)
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


def blobs(seed: int, k: int, each: int, apart: float, d: int = 2) -> tuple[Any, Any]:
    """Round groups of unit variance, no two centres nearer than `apart`."""
    rng = np.random.default_rng(seed)
    centers: list[Any] = []
    while len(centers) < k:
        one = rng.uniform(-1, 1, d) * apart * k
        if all(np.linalg.norm(one - other) >= apart for other in centers):
            centers.append(one)
    y = np.repeat(np.arange(k), each)
    return np.array(centers)[y] + rng.normal(size=(len(y), d)), y


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_single_linkage_is_scipys(metric: str) -> None:
    for seed in range(4):
        X = np.random.default_rng(seed).normal(size=(60, 3))
        tree = linkage(X, "single", metric)
        for k in (1, 2, 7, 60):
            plan = single_linkage(X, k=k, metric=metric)
            assert plan.k == k
            assert same(plan.labels, fcluster(tree, k, "maxclust"))
            assert plan.info["merge_lengths"] == pytest.approx(tree[:, 2], rel=1e-9)
            assert plan.value == pytest.approx(tree[: 60 - k, 2].sum(), rel=1e-9)
        for scale in np.quantile(tree[:, 2], [0.1, 0.6, 0.95]) * (1 + 1e-9):
            plan = single_linkage(X, threshold=scale, metric=metric)
            assert same(plan.labels, fcluster(tree, scale, "distance"))
            assert plan.info["spacing"] > scale


def test_single_linkage_from_distances_holds_the_forest_it_names() -> None:
    rng = np.random.default_rng(5)
    D = np.triu(rng.integers(1, 9, (40, 40)).astype(float), 1)
    D += D.T
    plan = single_linkage(distances=D, k=6)
    links = plan.info["links"]
    assert same(
        plan.labels, fcluster(linkage(squareform(D), "single"), plan.info["merge_lengths"][33], "distance")
    ) or (plan.info["merge_lengths"][33] == plan.info["merge_lengths"][34])
    assert plan.value == math.fsum(D[i, j] for i, j in links)
    assert (plan.labels[links[:, 0]] == plan.labels[links[:, 1]]).all()
    apart = D[plan.labels[:, None] != plan.labels]
    assert plan.info["spacing"] == apart.min()
    assert plan.labels[0] == 0
    assert kofn.assign(distances=D, method="single_linkage").k == 1


def test_no_partition_has_a_wider_spacing() -> None:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(7, 2))
    D = cdist(X, X)
    for k in (2, 3, 4):
        plan = single_linkage(X, k=k)
        widest = max(
            D[labels[:, None] != labels].min()
            for labels in map(np.array, itertools.product(range(k), repeat=7))
            if len(set(labels.tolist())) == k
        )
        assert plan.info["spacing"] == pytest.approx(widest, rel=1e-12)


def test_a_long_chain_takes_no_matrix() -> None:
    X = np.arange(4000.0)[np.random.default_rng(7).permutation(4000)][:, None]
    plan = single_linkage(X, threshold=1.0)
    assert plan.k == 1
    assert plan.value == 3999.0


def least_squares(X: Any, k: int) -> float:
    best = math.inf
    for labels in itertools.product(range(k), repeat=len(X)):
        if len(set(labels)) == k:
            best = min(
                best, sum(((X[np.array(labels) == g] - X[np.array(labels) == g].mean(0)) ** 2).sum() for g in range(k))
            )
    return best


def test_the_bound_is_below_every_partition_and_often_meets_the_best() -> None:
    optimal = 0
    for seed in range(6):
        X = np.random.default_rng(seed).normal(size=(8, 2)) * (1, 3)
        for k, steps in ((2, 20), (2, 500), (3, 500)):
            plan = sdp_kmeans(X, k=k, max_iter=steps)
            best = least_squares(X, k)
            assert plan.bound <= best * (1 + 1e-9)
            assert plan.value >= best * (1 - 1e-9)
            optimal += plan.status == "optimal"
    assert optimal > 3


def test_far_groups_are_recovered_and_proven() -> None:
    X, y = blobs(0, 4, 15, 14.0)
    plan = sdp_kmeans(X, k=4)
    assert plan.status == "optimal"
    assert plan.gap == 0
    assert plan.info["rank"] == 4
    assert same(plan.labels, y)
    assert plan.value == pytest.approx(sum(((X[y == g] - X[y == g].mean(0)) ** 2).sum() for g in range(4)))
    # Moving and turning the rows changes nothing.
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    assert same(sdp_kmeans(X @ turn + 100, k=4).labels, y)


def test_the_splitting_ends_at_the_programs_optimum() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(24, 2))
    X -= X.mean(axis=0)
    gram = X @ X.T
    solved = _sdp.kmeans(gram, 3, most=3000, tol=1e-9, stopped=lambda: False, value=lambda Z: math.inf)
    Z = solved.Z
    assert np.allclose(Z.sum(axis=1), 1, atol=1e-6)
    assert np.trace(Z) == pytest.approx(3, abs=1e-6)
    assert Z.min() >= 0
    assert np.linalg.eigvalsh(Z).min() > -1e-6
    assert solved.bound == pytest.approx(np.trace(gram) - (gram * Z).sum(), rel=1e-4)


def test_the_capped_simplex_is_projected_on() -> None:
    rng = np.random.default_rng(3)
    for case in range(50):
        values = rng.normal(size=6) * (0 if case == 0 else 1 + case % 3)
        total = 1 + case % 5
        out = _sdp.capped_simplex(values, total)
        assert out.sum() == pytest.approx(total)
        assert out.min() >= 0
        assert out.max() <= 1
        other = np.stack([_sdp.capped_simplex(rng.normal(size=6), total) for _ in range(20)])
        # At the nearest point every other one lies behind the tangent.
        assert ((other - out) @ (values - out)).max() < 1e-9


def test_memberships_meet_their_constraints() -> None:
    X, y = crossing(0)
    gains = _ila_sdp._gains(X, _ila_sdp._covers(X, y, 3, 1e-2))
    state = _sdp.Memberships.of(np.roll(y, 3), 3)
    steps, residual = _sdp.memberships(gains, state, most=3000, tol=1e-4, stopped=lambda: False)
    assert 0 < steps < 3000
    assert residual <= 1e-4
    Z = state.positive
    assert Z.min() >= 0
    assert np.allclose(np.trace(Z, axis1=1, axis2=2), 1, atol=1e-3)
    assert np.allclose(Z.sum(axis=(0, 2)), 1, atol=1e-3)
    assert np.linalg.eigvalsh(Z).min() > -1e-3
    # The truth is feasible, so the program's optimum is no lower.
    best = sum(gains[g][np.ix_(y == g, y == g)].sum() / (y == g).sum() for g in range(3))
    assert (gains * Z).sum() >= best - 0.02 * abs(best)


def crossing(seed: int) -> tuple[Any, Any]:
    y = np.repeat(np.arange(3), 16)
    scales = np.array([[3, 0.3], [0.4, 0.4], [0.3, 3]])
    return np.array([[0, 0], [4, 3], [6, -4]])[y] + np.random.default_rng(seed).normal(size=(48, 2)) * scales[y], y


def test_shapes_tell_groups_that_squares_do_not() -> None:
    wrong = {"ila_sdp": 0.0, "sdp_kmeans": 0.0}
    for seed in range(3):
        X, y = crossing(seed)
        for name in wrong:
            labels = kofn.assign(X, k=3, method=name).labels
            wrong[name] += ((labels[:, None] == labels) != (y[:, None] == y)).mean()
    assert wrong["ila_sdp"] < 0.7 * wrong["sdp_kmeans"]


def test_starts_of_every_kind_and_what_is_told() -> None:
    X, y = crossing(1)
    truth = ila_sdp(X, k=3, init=y)
    # What it begins from is among what it chooses from.
    assert truth.value >= _gaussian.log_likelihood(X, y, 1e-3 * _gaussian.unit_of(X)) - 1e-9
    for init in ("sdp", "kmeans", "random"):
        plan = ila_sdp(X, k=3, init=init, seed=0)
        assert plan.info["sizes"].sum() == 48
        assert plan.info["sizes"].min() > 0
        assert plan.info["rounds"] >= 1
    assert plan.equals(ila_sdp(X, k=3, init="random", seed=0))
    far, y = blobs(5, 3, 12, 25.0)
    plan = ila_sdp(far, k=3, tol=1e-5, max_iter=2000)
    assert same(plan.labels, y)
    assert plan.info["from_blocks"] < 1e-3


@pytest.mark.parametrize("run", [sdp_kmeans, ila_sdp])
def test_degenerate_pools(run: Any) -> None:
    copies = np.repeat([[0.0, 0.0], [1.0, 2.0]], 4, axis=0)
    for k in (1, 2, 3, 8):
        plan = run(copies, k=k)
        assert np.bincount(plan.labels, minlength=k).min() > 0
    assert run(copies, k=1).status == run(copies, k=8).status == "optimal"
    assert run([[3.0]], k=1).labels.tolist() == [0]
    assert run(copies, k=2, time_limit=1e-9).labels.shape == (8,)
    if run is sdp_kmeans:
        assert run(copies, k=2).value == 0
        assert run(np.zeros((5, 2)), k=3).bound == 0


def test_partitions_that_both_views_keep_fix_the_number_of_groups() -> None:
    for k in (1, 2, 4, 6):
        X, y = blobs(k, k, 60, 9.0)
        plan = partitive_partitioning(X, seed=0)
        assert plan.k == k
        assert same(plan.labels, y)
        assert plan.info["kept"][k - 1] >= 1
        assert not plan.info["kept"][k:].any()
        assert plan.info["separable"].mean() > 0.95
        assert same(partitive_partitioning(X, seed=1).labels, y)


def test_without_agreement_every_partition_is_kept() -> None:
    X, _ = blobs(3, 3, 60, 9.0)
    assert partitive_partitioning(X, seed=0, agreement=0.0).k > 3
    assert partitive_partitioning(X, seed=0, k_max=2).k == 2


def test_too_few_rows_to_check_are_said() -> None:
    X, _ = blobs(3, 3, 60, 9.0)
    plan = partitive_partitioning(X[:12], seed=0)
    assert (plan.k, plan.status) == (1, "stopped")
    assert partitive_partitioning(X, seed=0).status == "heuristic"
    with pytest.raises(InputError, match="two of them need 40 rows; covariance='shrunk' needs 16"):
        partitive_partitioning(X[:39], seed=0, covariance="full")
    assert partitive_partitioning(X[:12], seed=0, k_max=1).k == 1


def test_columns_beyond_the_plane_do_not_hide_the_groups() -> None:
    centers = np.eye(5)[:4] * 6
    X = np.concatenate([np.random.default_rng(1).normal(size=(50, 5)) + center for center in centers])
    assert same(partitive_partitioning(X, seed=0).labels, np.repeat(np.arange(4), 50))
    for n, d in ((200, 5), (200, 13), (600, 30)):
        single = np.random.default_rng(n + d).normal(size=(n, d)) * np.linspace(1, 2, d)
        assert partitive_partitioning(single, seed=0).k == 1


def test_wine_has_three_growers() -> None:
    from sklearn.datasets import load_wine
    from sklearn.metrics import adjusted_rand_score

    X, y = load_wine(return_X_y=True)
    plan = partitive_partitioning((X - X.mean(axis=0)) / X.std(axis=0), seed=0)
    assert plan.k == 3
    assert adjusted_rand_score(y, plan.labels) > 0.85


def test_the_unsure_rows_are_those_between_groups() -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(400, 2)) + np.repeat([[0.0, 0.0], [4.6, 0.0]], 200, axis=0)
    plan = partitive_partitioning(X, seed=0, covariance="diag")
    assert plan.k == 2
    unsure = ~plan.info["separable"]
    assert 0 < unsure.sum() < 80
    assert np.abs(X[unsure, 0] - 2.3).mean() < 0.6 * np.abs(X[~unsure, 0] - 2.3).mean()


def test_lloyd_ends_where_no_row_is_nearer_elsewhere() -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(200, 3))
    labels = _gaussian.lloyd(X, _gaussian.spread_out(X, 7, rng), 7)
    centers = np.array([X[labels == group].mean(axis=0) for group in range(7)])
    assert (cdist(X, centers).argmin(axis=1) == labels).all()
    assert _gaussian.squares(X, labels) == pytest.approx(((X - centers[labels]) ** 2).sum())


def test_a_mixture_fits_as_scikit_learns() -> None:
    from sklearn.mixture import GaussianMixture

    X, y = blobs(10, 3, 80, 5.0)
    ours = _gaussian.Mixture.fit(X, y, 3, 1e-6, True, most=500, tol=1e-9)
    means = np.array([X[y == group].mean(axis=0) for group in range(3)])
    theirs = GaussianMixture(3, means_init=means, tol=1e-9, max_iter=500).fit(X)
    assert np.allclose(ours.centers, theirs.means_, atol=1e-3)
    assert np.allclose(ours.own(X, y), theirs.predict_proba(X)[np.arange(len(X)), y], atol=1e-3)


@pytest.mark.parametrize(
    ("run", "arguments", "says"),
    [
        (single_linkage, {"k": 2, "threshold": 1.0}, "k=2 and threshold=1.0 are both given"),
        (single_linkage, {"k": 4}, "k=4 of 3 items"),
        (single_linkage, {"threshold": -1}, "threshold=-1"),
        (single_linkage, {"threshold": "far"}, "threshold='far'"),
        (single_linkage, {"distances": np.zeros((3, 3))}, "X and distances are both given"),
        (sdp_kmeans, {"k": 4}, "k=4 of 3 items"),
        (sdp_kmeans, {"k": 2, "max_iter": 0}, "max_iter=0"),
        (sdp_kmeans, {"k": 2, "tol": math.nan}, "tol=nan"),
        (sdp_kmeans, {"k": 2, "max_memory": 100}, "X has 3 rows, .* max_memory is 100; give a sample"),
        (ila_sdp, {"k": 2, "ridge": 0}, "ridge=0: it must be > 0"),
        (ila_sdp, {"k": 2, "init": "best"}, "init='best': choose one of sdp, kmeans, random"),
        (ila_sdp, {"k": 2, "init": [0, 1]}, r"init has shape \(2,\); give one label an item"),
        (ila_sdp, {"k": 2, "init": [0, 1, 2]}, "whole numbers 0..1"),
        (ila_sdp, {"k": 2, "max_rounds": 0}, "max_rounds=0"),
        (partitive_partitioning, {"k_max": 0}, "k_max=0"),
        (partitive_partitioning, {"n_starts": 0}, "n_starts=0"),
        (partitive_partitioning, {"agreement": 2}, "agreement=2"),
        (partitive_partitioning, {"covariance": "round"}, "covariance='round': choose one of shrunk, full, diag"),
    ],
)
def test_bad_input_is_named(run: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run([[0.0], [1.0], [5.0]], **arguments)
