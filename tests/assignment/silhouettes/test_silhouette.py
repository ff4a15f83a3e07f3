"""Medoid silhouettes: by hand, swap-optimal by exhaustion, the reference package, k found where it is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.assignment import dynmsc, fastermsc, fasterpam, medoid_silhouette
from kofn.assignment.silhouettes import _silhouette
from kofn.core.checks import InputError
from kofn.objectives.similarity import pairwise_distances


def average(D: Any, medoids: Any, weights: Any = None) -> float:
    near = np.sort(np.asarray(D, np.float64)[:, list(medoids)], axis=1)[:, :2]
    weights = np.ones(len(near)) if weights is None else weights
    terms = [w * (1 - a / b if b > 0 else 0.0) for w, (a, b) in zip(weights, near.tolist(), strict=True)]
    return math.fsum(terms) / math.fsum(weights)


def best_swap(D: Any, medoids: Any, weights: Any = None) -> float:
    medoids = list(medoids)
    outside = set(range(len(D))) - set(medoids)
    swaps = ([*medoids[:m], j, *medoids[m + 1 :]] for m in range(len(medoids)) for j in outside)
    return max((average(D, swap, weights) for swap in swaps), default=-math.inf)


def dissimilarity(rng: np.random.Generator, n: int, case: int) -> Any:
    """Random, not metric, with ties in every third case and duplicates in every fifth."""
    D = rng.integers(1, 9, (n, n)).astype(float) if case % 3 == 0 else rng.random((n, n))
    D = np.triu(D, 1)
    D += D.T
    if case % 5 == 0 and n > 2:
        D[1], D[:, 1] = D[0], D[:, 0]
        D[0, 1] = D[1, 0] = D[1, 1] = 0
    return D.astype(np.float32) if case % 2 else D


@pytest.fixture(params=[False, True], ids=["numpy", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Force one of the two paths, whatever the size."""
    monkeypatch.setattr(_silhouette, "worth_compiling", lambda *_: request.param)
    return bool(request.param)


def test_swap_optimal_by_exhaustion(path: bool) -> None:
    rng = np.random.default_rng(0)
    for case in range(60):
        n = int(rng.integers(2, 12))
        k = int(rng.integers(2, n + 1))
        D = dissimilarity(rng, n, case)
        k = min(k, len(np.unique(D, axis=0)))
        weights = rng.integers(0, 4, n) + (np.arange(n) == 0) * 1.0 if case % 4 == 0 else None
        plan = fastermsc(distances=D, k=k, weights=weights, init=("lab", "build", "random")[case % 3], seed=case)
        assert plan.value == pytest.approx(average(D, plan.medoids, weights), abs=1e-12)
        assert best_swap(D, plan.medoids, weights) <= plan.value + 1e-11
        assert plan.status == ("optimal" if k == n else "local")
        assert plan.sense == "max"
        assert plan.labels[plan.medoids].tolist() == list(range(k))
        again = fastermsc(distances=D, k=k, weights=weights, start=plan)
        assert again.medoids.tolist() == plan.medoids.tolist()
        assert again.info["swaps"] == 0
        most = max(average(D, pick, weights) for pick in itertools.combinations(range(n), k))
        assert plan.value <= most + 1e-12


@pytest.mark.parametrize("case", range(12))
def test_numpy_and_compiled_make_the_same_swaps(case: int) -> None:
    from kofn.assignment.medoids import _sources

    rng = np.random.default_rng(100 + case)
    n, k = int(rng.integers(20, 150)), int(rng.integers(2, 12))
    D = dissimilarity(rng, n, case)
    start, weights = rng.choice(n, k, replace=False), rng.random(n) + 0.5
    a, b = (_silhouette.State(_sources.Matrix(D), start, weights, compiled=compiled) for compiled in (False, True))
    for state in (a, b):
        assert state.eager(None, lambda: False, lambda _: None)[0]
    assert a.medoids.tolist() == b.medoids.tolist()
    assert (a.swaps, a.evaluated, a.loss) == (b.swaps, b.evaluated, b.loss)
    assert a.removal.tolist() == b.removal.tolist()
    assert a.swaps > 0


@pytest.mark.parametrize("k", [2, 3, 10])
def test_change_is_what_each_swap_does(k: int, path: bool) -> None:
    """All k changes of a candidate, counted again from scratch."""
    from kofn.assignment.medoids import _sources

    rng = np.random.default_rng(k)
    D = pairwise_distances(rng.normal(size=(60, 3)))
    start = rng.choice(60, k, replace=False)
    state = _silhouette.State(_sources.Matrix(D), start, np.ones(60), compiled=path)
    for j in sorted(set(range(60)) - set(start.tolist())):
        shared, change = state._change(D[j])
        for m in range(k):
            after = [*start[:m], j, *start[m + 1 :]]
            assert shared + change[m] == pytest.approx(60 * (average(D, start) - average(D, after)), abs=1e-10)
    if k > 2:
        for m in range(k):
            gone = np.delete(start, m)
            assert state.removal[m] == pytest.approx(60 * (average(D, start) - average(D, gone)), abs=1e-10)


def test_equals_the_reference_implementation() -> None:
    reference = pytest.importorskip("kmedoids")
    rng = np.random.default_rng(2)
    D = pairwise_distances(rng.normal(size=(300, 4)))
    for k in (2, 3, 8):
        start = rng.choice(300, k, replace=False)
        plan = fastermsc(distances=D, k=k, start=start)
        other = reference.fastermsc(D, start.astype(np.uint64), max_iter=100, random_state=None)
        assert plan.value == pytest.approx(other.loss, rel=1e-9)
        assert sorted(plan.medoids.tolist()) == sorted(int(m) for m in other.medoids)
        per_item = reference.medoid_silhouette(D, plan.medoids.astype(np.uint64), samples=True)[1]
        assert medoid_silhouette(plan, distances=D) == pytest.approx(np.asarray(per_item), abs=1e-12)


def test_k_is_found_where_it_is_known(path: bool) -> None:
    for seed, truth in enumerate((3, 5, 8)):
        rng = np.random.default_rng(seed)
        middles = np.array(list(itertools.product((0, 12), (0, 12), (0, 12))))[rng.permutation(8)[:truth]]
        X = (middles[np.arange(40 * truth) % truth] + rng.normal(size=(40 * truth, 3))).astype(np.float32)
        plan = dynmsc(X, k_max=14, seed=seed)
        curve = plan.info["curve"]
        assert plan.k == truth
        assert curve["k"] == list(range(2, 15))
        assert plan.value == max(curve["silhouette"])
        assert all(len(set((np.arange(len(X)) % truth)[plan.labels == j].tolist())) == 1 for j in range(truth))
        D = pairwise_distances(X.astype(np.float64))
        assert plan.value == pytest.approx(average(D, plan.medoids), abs=1e-6)
        assert best_swap(D, plan.medoids) <= plan.value + 1e-6
        best = curve["k"].index(truth)
        assert curve["loss"][best] == pytest.approx(D[:, plan.medoids].min(axis=1).sum(), rel=1e-6)
        # Summed distances alone only fall with k.
        assert (np.diff(curve["loss"]) < 0).mean() > 0.6


def test_dynmsc_goes_on_from_where_it_was() -> None:
    X = np.random.default_rng(3).normal(size=(400, 4))
    whole = dynmsc(X, k_min=6, k_max=12, seed=0)
    alone = [fastermsc(X, k=k, seed=0) for k in range(6, 13)]
    assert whole.info["curve"]["silhouette"][-1] == alone[-1].value
    assert whole.info["swap_evaluations"] < 0.8 * sum(plan.info["swap_evaluations"] for plan in alone)
    assert whole.k == whole.info["curve"]["k"][int(np.argmax(whole.info["curve"]["silhouette"]))]


def test_work_does_not_grow_with_k() -> None:
    """One look at a candidate judges all k swaps: evaluations are candidates times points."""
    X = np.random.default_rng(4).normal(size=(250, 5))
    for k in (3, 30):
        plan = fastermsc(X, k=k, seed=0, max_iter=1)
        assert plan.info["swap_evaluations"] <= 250 * 250
        assert plan.info["swap_evaluations"] >= 250 * (250 - k - plan.info["swaps"])


def test_two_medoids_in_one_place_tell_nothing_apart() -> None:
    X = np.repeat([[0.0], [1.0], [5.0]], 4, axis=0)
    twins = fastermsc(X, k=2, start=[0, 1], max_iter=1)
    assert set(X[twins.medoids].ravel()) != {0.0}
    full = fastermsc(X, k=3, seed=0)
    assert full.value == 1.0
    # A fourth medoid would have to share a place, so the curve ends where distinct items do.
    best = dynmsc(X, k_max=6, seed=0)
    assert (best.k, best.info["curve"]["k"]) == (3, [2, 3])
    same = dynmsc(np.zeros((5, 2)), k_max=3, k_min=1, seed=0)
    assert (same.k, same.value) == (1, 0.0)


def test_one_group_has_no_silhouette() -> None:
    X = np.array([[0.0], [1.0], [5.0]])
    plan = fastermsc(X, k=1)
    assert (plan.medoids.tolist(), plan.value, plan.status) == ([1], 0.0, "optimal")
    assert medoid_silhouette([0, 0, 0], X).tolist() == [0.0, 0.0, 0.0]
    assert dynmsc([[3.0]]).k == 1


def test_silhouettes_of_labels_and_of_any_plan() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(120, 3))
    D = pairwise_distances(X)
    labels = rng.integers(-1, 4, 120)
    told = medoid_silhouette(labels, X)
    medoids = []
    for j in range(4):
        members = np.flatnonzero(labels == j)
        medoids.append(members[D[np.ix_(members, members)].sum(axis=1).argmin()])
    for i, label in enumerate(labels.tolist()):
        if label < 0:
            assert math.isnan(told[i])
            continue
        own = D[i, medoids[label]]
        other = min(D[i, medoids[j]] for j in range(4) if j != label)
        assert told[i] == pytest.approx((other - own) / max(own, other), abs=1e-9)
    assert (told[labels >= 0] < 0).any()
    plan = fasterpam(X, k=4, seed=0)
    values = medoid_silhouette(plan, distances=D)
    assert values.min() >= 0
    assert values.mean() == pytest.approx(average(D, plan.medoids), abs=1e-9)
    assert fastermsc(X, k=4, start=plan).value >= values.mean()
    rows = medoid_silhouette(plan, X, max_memory=1000)
    assert rows == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_from_rows_with_and_without_a_matrix(metric: str, kind: type) -> None:
    X = np.random.default_rng(9).normal(size=(300, 5)).astype(kind)
    D = pairwise_distances(X.astype(np.float64), metric)
    start = np.arange(0, 300, 50)
    plain = fastermsc(X, k=6, metric=metric, start=start)
    for threads in (1, 2, 4):
        rows = fastermsc(X, k=6, metric=metric, start=start, max_memory=50_000, n_threads=threads)
        assert rows.medoids.tolist() == plain.medoids.tolist()
        assert rows.value == pytest.approx(average(D, rows.medoids), abs=1e-6)


def test_limits_return_a_valid_plan() -> None:
    X = np.random.default_rng(11).normal(size=(300, 4))
    D = pairwise_distances(X)
    for plan in (fastermsc(X, k=9, seed=0, max_iter=1), fastermsc(X, k=9, seed=0, time_limit=1e-9)):
        assert plan.status == "stopped"
        assert plan.value == pytest.approx(average(D, plan.medoids), abs=1e-9)
    late = dynmsc(X, k_max=9, seed=0, time_limit=1e-9)
    assert late.status == "stopped"
    assert late.info["curve"]["k"] == [9]
    assert kofn.assign(X, method="dynmsc", options={"k_max": 4}, seed=0).k <= 4


@pytest.mark.parametrize(
    ("run", "arguments", "says"),
    [
        (fastermsc, {"k": 4}, "k=4 of 3 items"),
        (fastermsc, {"k": 2, "start": [0]}, "start has 1 medoids, k=2"),
        (fastermsc, {"k": 2, "start": [0, 1], "init": "lab"}, "start and init='lab' are both given"),
        (fastermsc, {"k": 2, "max_iter": 0}, "max_iter=0"),
        (dynmsc, {"k_max": 4}, "k_max=4 of 3 items"),
        (dynmsc, {"k_min": 3, "k_max": 2}, "k_min=3 is above k_max=2"),
        (dynmsc, {"k_min": 0}, "k_min=0"),
        (dynmsc, {"init": "best"}, "init='best': choose one of lab, build, random"),
        (medoid_silhouette, {"groups": [0, 1]}, r"groups has shape \(2,\)"),
        (medoid_silhouette, {"groups": [0.0, 1.0, 1.0]}, "dtype float64; give a whole number"),
        (medoid_silhouette, {"groups": [0, 1, 1], "distances": np.zeros((3, 3))}, "give X or distances, one of them"),
    ],
)
def test_bad_input_is_named(run: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(X=[[0.0], [1.0], [5.0]], **arguments)
