"""Groups under constraints against integer programs, exhaustion and plain loops; Laplacian clustering from its text."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from refusals import refused, untested
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

import kofn
from kofn.assignment import constrained_kmeans, constrained_kmedoids, place
from kofn.assignment.means import _constrained, _constrained_kmeans, _constrained_kmedoids, _links, _place
from kofn.core.checks import FailureError, InfeasibleError, InputError


def cloud(n: int, d: int = 2, seed: int = 0) -> Any:
    """A few Gaussians of unequal weight."""
    rng = np.random.default_rng(seed)
    centres = 4 * rng.normal(size=(5, d))
    return centres[rng.choice(5, n, p=[0.4, 0.3, 0.15, 0.1, 0.05])] + rng.normal(size=(n, d))


def squares(X: Any, centers: Any) -> Any:
    return ((np.asarray(X, np.float64)[:, None] - centers[None]) ** 2).sum(axis=2)


def cheapest(cost: Any, low: int, high: Any, must: Any = (), cannot: Any = ()) -> float:
    """The least total cost of any placement, by an integer program of its own."""
    n, k = cost.shape
    rows: list[Any] = []
    least: list[float] = []
    most: list[float] = []

    def line(entries: dict[tuple[int, int], float], floor: float, top: float) -> None:
        row = np.zeros((n, k))
        for entry, value in entries.items():
            row[entry] = value
        rows.append(row.ravel())
        least.append(floor)
        most.append(top)

    for i in range(n):
        line({(i, j): 1.0 for j in range(k)}, 1, 1)
    for j in range(k):
        line({(i, j): 1.0 for i in range(n)}, low, np.broadcast_to(high, k)[j])
        for a, b in must:
            line({(a, j): 1.0, (b, j): -1.0}, 0, 0)
        for a, b in cannot:
            line({(a, j): 1.0, (b, j): 1.0}, -np.inf, 1)
    done = milp(
        cost.ravel(),
        integrality=np.ones(n * k),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.array(rows), least, most),
    )
    assert done.success, done.message
    return float(done.fun)


@pytest.mark.parametrize("seed", range(8))
def test_the_assignment_step_is_the_best_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(12, 40)), int(rng.integers(2, 6))
    X, weights = cloud(n, seed=seed), rng.integers(0, 4, n) + (np.arange(n) == 0)
    high = -(-n // k) + int(rng.integers(0, 3))
    low = int(rng.integers(0, n // k + 1))
    plan = constrained_kmeans(X, k=k, capacity=high, min_size=low, weights=weights, seed=seed)
    loads = np.bincount(plan.labels, minlength=k)
    assert loads.min() >= low
    assert loads.max() <= high
    assert plan.status == "local"
    cost = weights[:, None] * squares(X, plan.centers)
    assert plan.value == pytest.approx(cheapest(cost, low, high), rel=1e-9)
    # From the answer, neither step finds anything better.
    again = constrained_kmeans(X, k=k, capacity=high, min_size=low, weights=weights, centers=plan.centers)
    assert again.value == pytest.approx(plan.value, rel=1e-9)
    assert again.info["rounds"] <= 2


@pytest.mark.parametrize("seed", range(6))
def test_large_pools_take_the_compiled_path_to_the_same_optimum(seed: int) -> None:
    X = cloud(1500, 3, seed).astype(np.float32)
    plan = constrained_kmeans(X, k=12, capacity=140, min_size=90, seed=seed)
    loads = np.bincount(plan.labels, minlength=12)
    assert loads.max() <= 140
    assert loads.min() >= 90
    cost = squares(X, plan.centers)
    own = cost[np.arange(1500), plan.labels]
    # The dual of the assignment step at the plan's prices meets it, which proves that it is the best one.
    dual = (cost + plan.v).min(axis=1).sum() - np.where(plan.v > 0, 140 * plan.v, 90 * plan.v).sum()
    assert math.fsum(own) == pytest.approx(dual, rel=1e-9)
    assert plan.value == pytest.approx(math.fsum(own), rel=1e-9)


def test_without_constraints_it_is_k_means() -> None:
    from sklearn.cluster import KMeans

    X = cloud(300, 4, 1)
    start = np.random.default_rng(0).choice(300, 6, replace=False)
    plan = constrained_kmeans(X, k=6, start=start)
    peer = KMeans(6, init=X[start], n_init=1, tol=0, max_iter=300).fit(X)
    assert plan.labels.tolist() == peer.labels_.tolist()
    assert plan.value == pytest.approx(peer.inertia_, rel=1e-9)
    assert (plan.v == 0).all()


def test_the_peer_package_is_no_better_from_its_own_answer() -> None:
    peers = pytest.importorskip("k_means_constrained")
    for seed in range(3):
        X = cloud(300, 4, seed)
        start = np.random.default_rng(seed).choice(300, 6, replace=False)
        peer = peers.KMeansConstrained(6, size_min=40, size_max=55, init=X[start], n_init=1, tol=0).fit(X)
        plan = constrained_kmeans(X, k=6, capacity=55, min_size=40, centers=peer.cluster_centers_)
        assert plan.value <= peer.inertia_ * (1 + 1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e15])
def test_units_do_not_matter(scale: float) -> None:
    X = cloud(60, 2, 3)
    plan, small = (constrained_kmeans(rows, k=4, capacity=16, start=[0, 1, 2, 3]) for rows in (X, X * scale))
    assert plan.labels.tolist() == small.labels.tolist()
    assert small.value == pytest.approx(plan.value * scale**2, rel=1e-9)
    assert small.centers == pytest.approx(plan.centers * scale, rel=1e-9)


def test_weights_count_as_copies() -> None:
    X, times = cloud(30, 2, 5), np.random.default_rng(5).integers(1, 4, 30)
    plan = constrained_kmeans(X, k=3, weights=times, start=[0, 1, 2])
    copies = constrained_kmeans(np.repeat(X, times, axis=0), k=3, start=np.cumsum(times)[:3] - times[:3])
    assert plan.value == pytest.approx(copies.value, rel=1e-9)
    assert np.repeat(plan.labels, times).tolist() == copies.labels.tolist()


def test_a_group_never_becomes_empty_unless_it_may() -> None:
    X = np.array([[0.0], [0.1], [0.2], [10.0]])
    centers = [[0.1], [10.0], [100.0]]
    assert sorted(np.bincount(constrained_kmeans(X, k=3, centers=centers).labels).tolist()) == [1, 1, 2]
    loose = constrained_kmeans(X, k=3, centers=centers, min_size=0)
    assert np.bincount(loose.labels, minlength=3).tolist() == [3, 1, 0]
    assert loose.centers[2] == pytest.approx([100.0])


def test_more_runs_are_no_worse() -> None:
    X = cloud(200, 2, 7)
    one, many = (constrained_kmeans(X, k=7, capacity=30, seed=1, n_init=runs) for runs in (1, 6))
    assert many.value <= one.value
    assert constrained_kmeans(X, k=7, init="random", seed=0).status == "local"


@pytest.mark.parametrize("seed", range(10))
def test_links_hold_and_no_step_goes_up(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    n, k = 36, 4
    X = cloud(n, seed=seed)
    witness = rng.permutation(np.arange(n) % k)
    pairs = rng.permutation([(a, b) for a in range(n) for b in range(a)])
    must = [pair for pair in pairs.tolist() if witness[pair[0]] == witness[pair[1]]][:8]
    cannot = [pair for pair in pairs.tolist() if witness[pair[0]] != witness[pair[1]]][:8]
    totals: list[float] = []
    step = _links.Seating.__call__

    def watched(self: Any, scores: Any, held: Any, prices: Any) -> Any:
        labels, out = step(self, scores, held, prices)
        assert self._fits(labels)
        if held is not None:
            rows = np.arange(len(held))
            assert scores[rows, labels].sum() >= scores[rows, held].sum() - 1e-9
        totals.append(float(scores[np.arange(len(labels)), labels].sum()))
        return labels, out

    monkeypatch.setattr(_links.Seating, "__call__", watched)
    size = n // k
    links = {"must_link": must, "cannot_link": cannot}
    plan = constrained_kmeans(X, k=k, capacity=size, min_size=size, n_init=1, seed=seed, **links)
    assert (np.diff(totals) >= -1e-9).all()
    assert (np.bincount(plan.labels) == n // k).all()
    assert all(plan.labels[a] == plan.labels[b] for a, b in must)
    assert all(plan.labels[a] != plan.labels[b] for a, b in cannot)
    assert plan.status == "heuristic"


def test_linked_steps_are_near_the_best() -> None:
    """How far the search over linked units stays from the integer program's optimum of the same step, on average."""
    gaps = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, k = 24, 3
        X, witness = cloud(n, seed=seed), rng.permutation(np.arange(n) % k)
        pairs = rng.permutation([(a, b) for a in range(n) for b in range(a)]).tolist()
        must = [pair for pair in pairs if witness[pair[0]] == witness[pair[1]]][:6]
        cannot = [pair for pair in pairs if witness[pair[0]] != witness[pair[1]]][:6]
        plan = constrained_kmeans(X, k=k, capacity=10, must_link=must, cannot_link=cannot, seed=seed)
        best = cheapest(squares(X, plan.centers), 1, 10, must, cannot)
        assert plan.value >= best * (1 - 1e-9)
        gaps.append(plan.value / best - 1)
    assert np.mean(gaps) < 0.02


def test_must_link_alone_is_exact() -> None:
    X = cloud(40, 2, 2)
    plan = constrained_kmeans(X, k=3, must_link=[[0, 1], [1, 2], [7, 30]], seed=0)
    assert plan.status == "local"
    assert plan.info["units"] == 37
    assert plan.value == pytest.approx(cheapest(squares(X, plan.centers), 1, 40, [[0, 1], [1, 2], [7, 30]]), rel=1e-9)


def test_tight_parts_are_packed_by_the_integer_program(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sizes 4, 4, 2, 2, 2, 2, 2 fill two groups of 9 only as 4 + ... never: 18 items, sums are even, 9 is odd.
    sizes = (4, 4, 2, 2, 2, 2, 2)
    first = np.cumsum(sizes) - sizes
    chains = [(int(a + i), int(a + i + 1)) for a, size in zip(first, sizes, strict=True) for i in range(size - 1)]
    X = np.random.default_rng(0).normal(size=(18, 2))
    refused(
        lambda: constrained_kmeans(X, k=2, capacity=9, must_link=chains),
        "parts of 4, 4, 2, 2, 2, 2, ... that stay whole",
        InfeasibleError,
    )
    plan = constrained_kmeans(X, k=2, capacity=[10, 8], must_link=chains, seed=0)
    assert np.bincount(plan.labels).tolist() == [10, 8]
    # Largest first puts 3 + 3 and then has no room for both of 2 + 2 + 2: the program finds 3 + 3 | 2 + 2 + 2.
    sizes = (3, 3, 2, 2, 2)
    first = np.cumsum(sizes) - sizes
    chains = [(int(a + i), int(a + i + 1)) for a, size in zip(first, sizes, strict=True) for i in range(size - 1)]
    X = np.array([[0.0, 0]] * 3 + [[10.0, 0]] * 3 + [[0.0, 1]] * 2 + [[10.0, 1]] * 2 + [[5.0, 3]] * 2)
    plan = constrained_kmeans(X + np.arange(12)[:, None] * 1e-3, k=2, capacity=6, must_link=chains, start=[0, 3])
    assert plan.labels[0] == plan.labels[3]
    assert np.bincount(plan.labels).tolist() == [6, 6]
    monkeypatch.setattr(_links, "_SEARCH_SECONDS", 1e-9)
    with pytest.raises(FailureError, match="nor proved impossible"):
        constrained_kmeans(X + np.arange(12)[:, None] * 1e-3, k=2, capacity=6, must_link=chains, start=[0, 3])


def test_groups_of_like_size_may_part_equal_rows() -> None:
    X = np.repeat(np.arange(6.0), 5)[:, None]
    plan = constrained_kmeans(X, k=10, capacity=3, min_size=3, seed=0)
    assert (np.bincount(plan.labels) == 3).all()
    assert plan.value == pytest.approx(8 / 3)
    with pytest.raises(InputError, match="6 of them distinct; ask for k <= 6"):
        constrained_kmeans(X, k=10)
    with pytest.raises(InputError, match="ask for k <= 30"):
        constrained_kmeans(X, k=31, capacity=3)


def test_a_least_size_of_0_asks_medoids_for_nothing_more() -> None:
    X = cloud(12)
    free, one = (constrained_kmedoids(X, k=3, capacity=5, min_size=least, seed=0) for least in (0, 1))
    assert free.labels.tolist() == one.labels.tolist()
    for method in (constrained_kmeans, constrained_kmedoids):
        with pytest.raises(InputError, match="min_size=-1"):
            method(X, k=3, min_size=-1)
        with pytest.raises(InputError, match="min_size has 2 values, k=3; give one number, or one for each group"):
            method(X, k=3, min_size=[1, 2])
        assert (np.bincount(method(X, k=3, min_size=[1, 2, 7], seed=0).labels, minlength=3) >= [1, 2, 7]).all()


@pytest.mark.parametrize("given", ["X", "distances"])
def test_medoids_of_like_groups_may_be_equal_rows(given: str) -> None:
    X = np.repeat(np.arange(6.0), 5)[:, None]
    pool = {"X": X} if given == "X" else {"distances": np.abs(X - X.T)}
    plan = constrained_kmedoids(**pool, k=10, capacity=3, min_size=3, seed=0)
    assert (np.bincount(plan.labels) == 3).all()
    # Five pupils a level: two are left of each, and four groups of three hold them at one level's distance each.
    assert plan.value == 4
    assert len(set(plan.medoids.tolist())) == 10
    assert plan.labels[plan.medoids].tolist() == list(range(10))
    with pytest.raises(InputError, match="6 of them distinct; ask for k <= 6"):
        constrained_kmedoids(**pool, k=10)
    with pytest.raises(InputError, match="ask for k <= 30"):
        constrained_kmedoids(**pool, k=31, capacity=3)


def test_new_items_fill_what_is_left() -> None:
    X = cloud(60, 2, 3)
    plan = constrained_kmeans(X, k=4, capacity=20, seed=0)
    left = 20 - np.bincount(plan.labels, minlength=4)
    rows = cloud(int(left.sum()), 2, 4)
    groups = place(plan, rows, capacity=left)
    assert np.bincount(groups, minlength=4).tolist() == left.tolist()
    costs = squares(rows, plan.centers)
    slots = np.repeat(np.arange(4), left)
    best = linear_sum_assignment(costs[:, slots])
    assert costs[np.arange(len(rows)), groups].sum() == pytest.approx(costs[:, slots][best].sum())
    with pytest.raises(InputError, match="capacity has 2 values"):
        place(plan, rows, capacity=[5, 5])


def test_centers_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"centers has shape \(4, 2\); k=4 and X ask for \(4, 3\)"):
        constrained_kmeans(cloud(40, 3, 0), k=4, centers=np.zeros((4, 2)))


def test_new_items_go_by_the_prices() -> None:
    X = cloud(600, 2, 9)
    weights = np.random.default_rng(1).integers(1, 4, 600).astype(float)
    plan = constrained_kmeans(X, k=5, capacity=120, weights=weights, seed=2)
    assert (place(plan, X, weights=weights) == plan.labels).mean() > 0.98
    assert plan.v.max() > 0
    # An equal share of like items would then be nearly as large, without a bound on the new ones.
    plan = constrained_kmeans(X[:300], k=5, capacity=60, n_init=1, seed=2)
    loads = np.bincount(place(plan, X[300:]), minlength=5)
    nearest = np.bincount(squares(X[300:], plan.centers).argmin(axis=1), minlength=5)
    assert loads.max() < nearest.max()
    for metric in ("euclidean", "cosine"):
        rows = X[:80]
        medoids = constrained_kmedoids(rows, k=4, capacity=20, metric=metric, seed=0)
        again = place(medoids, rows)
        others = np.setdiff1d(np.arange(80), medoids.medoids)
        assert (again[others] == medoids.labels[others]).mean() > 0.9
    D = np.sqrt(squares(X[:50], X[:50]))
    plan = constrained_kmedoids(distances=D, k=3, seed=0)
    assert place(plan, distances=D[:, plan.medoids]).tolist() == plan.labels.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_k_medoids_by_exhaustion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k, high = 9, 3, 4
    D = np.triu(rng.integers(1, 9, (n, n)) if seed % 2 else rng.random((n, n)), 1).astype(float)
    D += D.T
    weights = rng.integers(1, 4, n)
    plan = constrained_kmedoids(distances=D, k=k, capacity=high, min_size=2, weights=weights, seed=seed)
    loads = np.bincount(plan.labels, minlength=k)
    assert loads.max() <= high
    assert loads.min() >= 2
    assert plan.labels[plan.medoids].tolist() == list(range(k))
    cost = weights[:, None] * D[:, plan.medoids]
    held = cost.copy()
    held[plan.medoids] = np.where(np.eye(k) > 0, held[plan.medoids], 1e6)
    assert plan.value == pytest.approx(cheapest(held, 2, high), rel=1e-9)
    everyone = min(
        cheapest(weights[:, None] * D[:, list(medoids)], 2, high) for medoids in itertools.combinations(range(n), k)
    )
    assert everyone - 1e-9 <= plan.value <= 1.6 * everyone
    again = constrained_kmedoids(distances=D, k=k, capacity=high, min_size=2, weights=weights, start=plan)
    assert again.medoids.tolist() == plan.medoids.tolist()


def test_k_medoids_with_links() -> None:
    X = cloud(40, 2, 4)
    must, cannot = [[0, 1], [1, 2], [8, 9]], [[0, 9], [3, 4], [5, 6]]
    plan = constrained_kmedoids(X, k=4, capacity=11, must_link=must, cannot_link=cannot, start=[0, 1, 2, 3])
    assert np.bincount(plan.labels).max() <= 11
    assert len({plan.labels[i] for i in (0, 1, 2)}) == 1
    assert all(plan.labels[a] != plan.labels[b] for a, b in cannot)
    assert constrained_kmedoids(np.sqrt(squares(X, X)), k=2, metric="precomputed", seed=0).k == 2


def test_medoids_keep_their_seats_when_linked_items_move() -> None:
    # Two pairs that all but coincide.
    X = [[2.0, 1.0], [0.0, -2.0], [-1.0, -3.0], [2.0, 1.0 + 1e-12], [0.0, -2.0 - 1e-12]]
    plan = constrained_kmedoids(X, k=4, capacity=[2, 1, 1, 1], cannot_link=[[1, 0]], seed=0)
    assert plan.labels[plan.medoids].tolist() == [0, 1, 2, 3]


def test_the_audit_sees_what_is_broken() -> None:
    import dataclasses

    from kofn.core import problems

    X = cloud(12)
    plan = constrained_kmeans(X, k=3, min_size=3, must_link=[[0, 1]], cannot_link=[[2, 3]], seed=0)
    problem = problems.build("assign", {"X": X, "k": 3})
    assert problem.audit(plan) == []
    for bins, says in (
        ([0] * 11 + [1], "less than min_size=3"),
        ([0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2], "rows 0 and 1 of must_link are not in one bin"),
        ([0, 0, 1, 1, 2, 0, 1, 2, 0, 1, 2, 2], "rows 2 and 3 of cannot_link are in one bin"),
    ):
        assert says in "; ".join(problem.audit(dataclasses.replace(plan, bins=np.array(bins, np.int32))))


def test_through_the_verb() -> None:
    plan = kofn.assign(cloud(30), k=3, capacity=10, method="constrained_kmeans", options={"min_size": 10}, seed=0)
    assert np.bincount(plan.labels).tolist() == [10, 10, 10]
    assert plan.used["capacity"].tolist() == plan.budget["capacity"].tolist() == [10, 10, 10]


A = cloud(8)
CALLS: dict[str, tuple[Any, str, Any]] = {
    "the chain of rows": (
        lambda: constrained_kmeans(A, k=2, must_link=[[0, 4], [4, 2], [2, 7]], cannot_link=[[0, 7]]),
        "cannot_link keeps rows 0 and 7 apart, must_link joins them (0-4-2-7): drop one of these pairs",
        InfeasibleError,
    ),
    "a long chain": (
        lambda: constrained_kmeans(cloud(30), k=2, must_link=[[i, i + 1] for i in range(29)], cannot_link=[[29, 0]]),
        "(29-28-27-26-25-24-...-4-3-2-1-0)",
        InfeasibleError,
    ),
    "no room": (
        lambda: constrained_kmeans(A, k=3, capacity=2),
        "8 items need a group each, capacity holds 6 in k=3 groups: 2 too few; raise it to 3 a group",
        InfeasibleError,
    ),
    "too few items": (
        lambda: constrained_kmeans(A, k=3, min_size=4),
        "min_size=4 in each of k=3 groups needs 12 items, there are 8: 4 too few; lower min_size to 2",
        InfeasibleError,
    ),
    "an empty group": (
        lambda: constrained_kmeans(A, k=2, capacity=[8, 0]),
        "capacity of group 1 is 0: the group would be empty",
        InfeasibleError,
    ),
    "less than the least": (
        lambda: constrained_kmedoids(A, k=2, capacity=[8, 2], min_size=3),
        "capacity of group 1 is 2: 1 less than min_size=3",
        InfeasibleError,
    ),
    "a part too large": (
        lambda: constrained_kmeans(A, k=3, capacity=3, must_link=[[0, 1], [1, 2], [2, 3]]),
        "must_link joins 4 rows (0, 1, 2, 3), the largest capacity is 3: 1 too many",
        InfeasibleError,
    ),
    "all apart": (
        lambda: constrained_kmeans(A, k=2, cannot_link=[[0, 3], [3, 5], [5, 0]]),
        "cannot_link keeps 3 rows apart from each other (0, 3, 5): they need 3 groups, k=2",
        InfeasibleError,
    ),
    "all apart with their links": (
        lambda: constrained_kmeans(A, k=2, must_link=[[3, 6]], cannot_link=[[0, 3], [6, 5], [5, 0]]),
        "cannot_link keeps 3 rows, with those that must_link joins to them, apart from each other (0, 3, 5)",
        InfeasibleError,
    ),
    "an odd circle": (
        lambda: constrained_kmeans(A, k=2, cannot_link=[[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]),
        "5 pairs kept apart",
        InfeasibleError,
    ),
    "distinct rows": (
        lambda: constrained_kmeans([[0.0], [0.0], [1.0]], k=3),
        "k=3 groups of 3 rows, 2 of them distinct; ask for k <= 2",
        InputError,
    ),
    "more than all": (lambda: constrained_kmedoids(A, k=9), "k=9 of 8 items", InputError),
    "both": (lambda: constrained_kmedoids(A, distances=np.zeros((8, 8)), k=2), "are both given", InputError),
    "start": (lambda: constrained_kmeans(A, k=2, start=[1]), "start names 1 rows, k=2", InputError),
    "medoids": (lambda: constrained_kmedoids(A, k=2, start=[1]), "start has 1 medoids, k=2", InputError),
    "two beginnings": (
        lambda: constrained_kmeans(A, k=2, start=[1, 2], n_init=3),
        "start or centers say where to begin",
        InputError,
    ),
    "centers": (
        lambda: constrained_kmeans(A, k=2, centers=[[1.0, 2.0]]),
        "centers has shape (1, 2); k=2 and X ask for (2, 2)",
        InputError,
    ),
    "capacities": (lambda: constrained_kmeans(A, k=2, capacity=[9]), "capacity has 1 values, k=2", InputError),
    "pairs": (lambda: constrained_kmeans(A, k=2, must_link=[1, 2]), "must_link=[1, 2]: give pairs of row", InputError),
    "ragged pairs": (lambda: constrained_kmeans(A, k=2, must_link=[[1, 2], [3]]), "must_link is ragged", InputError),
    "beyond": (lambda: constrained_kmeans(A, k=2, cannot_link=[[1, 8]]), "cannot_link names row 8", InputError),
    "itself": (
        lambda: constrained_kmeans(A, k=2, cannot_link=[[0, 1], [3, 3]]),
        "cannot_link at pair 1 keeps row 3 apart from itself",
        InputError,
    ),
    "no vectors": (lambda: place(kofn.assign(A, k=2, method="pam"), A), "give centers=pool", InputError),
    "no centers": (lambda: place(kofn.assign(scores=np.ones((3, 2))), A), "has no centers and no medoids", InputError),
    "neither": (lambda: place(constrained_kmeans(A, k=2)), "give X, new vectors, or distances", InputError),
    "nothing left": (
        lambda: place(constrained_kmeans(A, k=2), A, capacity=1),
        f"{len(A)} new items, capacity has room for 2; raise it",
        InfeasibleError,
    ),
    "width": (lambda: place(constrained_kmeans(A, k=2), [[1.0]]), "X has 1 columns, the plan's 2 centers", InputError),
    "columns": (
        lambda: place(constrained_kmeans(A, k=2), distances=[[1.0]]),
        "distances has 1 columns, the plan has 2 groups",
        InputError,
    ),
    "no rows of its own": (
        lambda: place(constrained_kmedoids(distances=1 - np.eye(3), k=2), [[1.0]]),
        "the plan holds no vectors; give centers=",
        InputError,
    ),
}


def test_every_refusal() -> None:
    reached = {refused(call, says, kind) for call, says, kind in CALLS.values()}
    assert untested([_constrained, _constrained_kmeans, _constrained_kmedoids, _place], reached) == []
    # The refusals that an integer program proves are returned, not raised, by what words them.
    assert untested(_links, reached) == []


def test_links_name_rows_by_their_ids() -> None:
    rows = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    frame = pl.DataFrame({"id": list("abcdef"), "x": rows[:, 0]})
    by_id = kofn.assign(frame, k=2, ids="id", must_link=[("a", "f")], cannot_link=[["b", "c"]], seed=0)
    by_row = kofn.assign(rows, k=2, must_link=[[0, 5]], cannot_link=[[1, 2]], seed=0)
    assert by_id.labels.tolist() == by_row.labels.tolist()
    assert by_id.options["must_link"] == [[0, 5]]
    indexed = pd.DataFrame({"x": rows[:, 0]}, index=[10, 11, 12, 13, 14, 15])
    assert kofn.assign(indexed, k=2, must_link=[(10, 15)], cannot_link=[(11, 12)], seed=0).labels.tolist() == (
        by_row.labels.tolist()
    )
    for links, says in (
        ([("a", "z")], "must_link names 'z', which no row has as its id"),
        ([("a", "b", "c")], "give pairs of row numbers"),
        ([("a",), ("b", "c")], "must_link is ragged"),
    ):
        with pytest.raises(InputError, match=says):
            kofn.assign(frame, k=2, ids="id", must_link=links)
    with pytest.raises(InputError, match="pass ids to name rows by them"):
        kofn.assign(rows, k=2, must_link=[("a", "f")])


def test_new_rows_go_to_the_nearest_medoid_of_a_plan_without_prices() -> None:
    X, new = cloud(60), cloud(20, seed=1)
    plan = kofn.assign(X, k=3, seed=0)
    nearest = np.linalg.norm(new[:, None] - X[plan.medoids], axis=2).argmin(axis=1)
    assert place(plan, new, centers=X[plan.medoids]).tolist() == nearest.tolist()
    assert place(plan, distances=np.linalg.norm(new[:, None] - X[plan.medoids], axis=2)).tolist() == nearest.tolist()
    D = np.linalg.norm(X[:, None] - X, axis=2)
    groups = kofn.Assigner(k=3, metric="precomputed", random_state=0).fit(D)
    assert groups.predict(D).tolist() == groups.labels_.tolist()
    assert groups.predict(D[:5]).tolist() == groups.labels_[:5].tolist()


@pytest.mark.parametrize("power", [-200, 151, 300])
@pytest.mark.parametrize(
    "asked",
    [
        {"method": "sdp_kmeans", "k": 1},
        {"method": "ila_sdp", "k": 2},
        {"method": "constrained_kmeans", "k": 1},
        {"method": "partitive_partitioning"},
    ],
    ids=lambda asked: asked["method"],
)
def test_rows_whose_squares_are_beyond_float64_are_refused(asked: dict[str, Any], power: int) -> None:
    """Infinite squares were said to be optimal."""
    X = np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 0.0]]) * float(f"1e{power}")
    with pytest.raises(InputError, match=f"X has entries up to 3e.* float64 cannot hold; multiply X by 1e{-power}"):
        kofn.assign(X, **asked)
