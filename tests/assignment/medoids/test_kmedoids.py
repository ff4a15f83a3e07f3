"""k-medoids: swap-optimal by exhaustion, PAM's own swaps, the reference package, work that k does not multiply."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.assignment import alternating, fasterpam, fastpam1, pam
from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.core.checks import InputError


def pairwise(X: Any, metric: str = "euclidean") -> Any:
    X = np.asarray(X, np.float64)
    if metric == "cosine":
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
        return 1 - X @ X.T
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    return np.sqrt(squares) if metric == "euclidean" else squares


def dissimilarity(rng: np.random.Generator, n: int, case: int) -> Any:
    """Random, not metric, with ties in every third case and duplicates in every fifth."""
    D = rng.integers(1, 9, (n, n)).astype(float) if case % 3 == 0 else rng.random((n, n))
    D = np.triu(D, 1)
    D += D.T
    if case % 5 == 0 and n > 2:
        D[1], D[:, 1] = D[0], D[:, 0]
        D[0, 1] = D[1, 0] = D[1, 1] = 0
    return D.astype(np.float32) if case % 2 else D


def loss(D: Any, medoids: Any, weights: Any = None) -> float:
    near = np.asarray(D, np.float64)[:, list(medoids)].min(axis=1)
    return math.fsum(near * (1 if weights is None else weights))


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_laid_out_in_parts_have_the_bits_of_all_at_once(
    metric: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(0).normal(size=(3_000, 5)).astype(kind)
    X[7] = 0
    monkeypatch.setattr(_sources, "_LAID_OUT", 1)
    sources = [_sources.source_of(X, None, metric, 0, 2, limit) for limit in (None, 2 * X.nbytes, X.nbytes)]
    for candidates in (np.array([2_999]), np.array([7, 0, 1_500, 2_048, 511])):
        rows = [source.rows(candidates) for source in sources]
        assert all(np.array_equal(row, rows[0]) for row in rows)
    assert len({source.evals for source in sources}) == 1


def test_a_limit_on_memory_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(1).normal(size=(3_000, 5)).astype(np.float32)
    monkeypatch.setattr(_sources, "_LAID_OUT", 1)
    for method, words in (("fasterpam", {"k": 3}), ("pam", {"k": 3}), ("pamk", {"k_max": 4, "sample_size": 200})):
        free, held = (kofn.assign(X, method=method, seed=0, max_memory=m, **words) for m in (None, X.nbytes))
        assert free.medoids.tolist() == held.medoids.tolist()
        assert free.value == held.value


def best_swap(D: Any, medoids: Any, weights: Any = None) -> float:
    """The loss after the best of all k (n - k) swaps."""
    medoids = list(medoids)
    outside = set(range(len(D))) - set(medoids)
    return min(
        (loss(D, [*medoids[:m], j, *medoids[m + 1 :]], weights) for m in range(len(medoids)) for j in outside),
        default=math.inf,
    )


@pytest.fixture(params=[False, True], ids=["numpy", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Force one of the two paths, whatever the size."""
    monkeypatch.setattr(_swaps, "worth_compiling", lambda *_: request.param)
    return bool(request.param)


@pytest.mark.parametrize("run", [fasterpam, fastpam1, pam])
def test_swap_optimal_by_exhaustion(run: Any, path: bool) -> None:
    rng = np.random.default_rng(0)
    for case in range(60):
        n = int(rng.integers(2, 13))
        k = int(rng.integers(1, n + 1))
        D = dissimilarity(rng, n, case)
        k = min(k, len(np.unique(D, axis=0)))
        weights = rng.integers(0, 4, n) + (np.arange(n) == 0) if case % 4 == 0 else None
        plan = run(distances=D, k=k, weights=weights, init=("lab", "build", "random")[case % 3], seed=case)
        total = loss(D, plan.medoids, weights)
        assert plan.value == pytest.approx(total, rel=1e-12)
        assert best_swap(D, plan.medoids, weights) >= total * (1 - 1e-9)
        assert plan.status == ("optimal" if k in (1, n) else "local")
        assert len(set(plan.medoids.tolist())) == k
        assert plan.labels[plan.medoids].tolist() == list(range(k))
        near = D[:, plan.medoids]
        assert (near[np.arange(n), plan.labels] == near.min(axis=1)).all()
        again = run(distances=D, k=k, weights=weights, start=plan)
        assert again.medoids.tolist() == plan.medoids.tolist()
        assert again.labels.tolist() == plan.labels.tolist()
        assert again.info["swaps"] == 0
        if plan.status == "optimal":
            least = min(loss(D, pick, weights) for pick in itertools.combinations(range(n), k))
            assert plan.value == pytest.approx(least, rel=1e-12)
            assert plan.gap == 0


def swaps_in_order(D: Any, k: int, start: Any, naive: bool, compiled: bool) -> tuple[list[tuple[int, int]], Any]:
    state = _swaps.Swaps(_sources.Matrix(D), np.asarray(start), np.ones(len(D)), compiled=compiled)
    made: list[tuple[int, int]] = []
    swap = state._swap
    state._swap = lambda j, m, row: (made.append((j, m)), swap(j, m, row))[1]  # type: ignore[method-assign,func-returns-value]
    state.best(None, lambda: False, lambda _: None, naive=naive)
    return made, state


@pytest.mark.parametrize("case", range(12))
def test_fastpam1_makes_pams_swaps(case: int) -> None:
    rng = np.random.default_rng(case)
    n, k = int(rng.integers(40, 90)), int(rng.integers(2, 12))
    D = dissimilarity(rng, n, case)
    start = rng.choice(n, k, replace=False)
    paths = {(naive, compiled): swaps_in_order(D, k, start, naive, compiled) for naive in (0, 1) for compiled in (0, 1)}
    reference, state = paths[1, 0]
    assert reference
    for made, other in paths.values():
        assert made == reference
        assert other.medoids.tolist() == state.medoids.tolist()
        assert other.loss == pytest.approx(state.loss, rel=1e-12)
        assert other.evaluated == state.evaluated


def test_pam_is_written_out_plainly() -> None:
    """PAM's first swap is the best of all swaps."""
    rng = np.random.default_rng(4)
    for case in range(10):
        D = dissimilarity(rng, 15, case)
        start = rng.choice(15, 4, replace=False)
        one = pam(distances=D, k=4, start=start, max_iter=1)
        assert one.value == pytest.approx(best_swap(D, start), rel=1e-9)


@pytest.mark.parametrize("case", range(12))
def test_numpy_and_compiled_make_the_same_eager_swaps(case: int) -> None:
    rng = np.random.default_rng(100 + case)
    n, k = int(rng.integers(20, 200)), int(rng.integers(2, 15))
    D = dissimilarity(rng, n, case)
    start = rng.choice(n, k, replace=False)
    weights = rng.random(n) + 0.5
    states = []
    for compiled in (False, True):
        state = _swaps.Swaps(_sources.Matrix(D), start, weights, compiled=compiled)
        assert state.eager(None, lambda: False, lambda _: None)[0]
        states.append(state)
    a, b = states
    assert a.medoids.tolist() == b.medoids.tolist()
    assert (a.swaps, a.evaluated, a.loss) == (b.swaps, b.evaluated, b.loss)
    assert a.removal.tolist() == b.removal.tolist()
    assert a.runner.tolist() == b.runner.tolist()


def test_equals_the_reference_implementation() -> None:
    reference = pytest.importorskip("kmedoids")
    rng = np.random.default_rng(2)
    D = pairwise(rng.normal(size=(600, 6))).astype(np.float32)
    for k in (2, 10, 40):
        start = rng.choice(600, k, replace=False)
        plan = fasterpam(distances=D, k=k, start=start)
        other = reference.fasterpam(D, start.astype(np.uint64), max_iter=100, random_state=None, n_cpu=1)
        assert plan.value == pytest.approx(other.loss, rel=1e-6)
        assert plan.info["swaps"] == other.n_swap
        assert sorted(plan.medoids.tolist()) == sorted(int(m) for m in other.medoids)


def test_alternation_stops_where_neither_step_improves() -> None:
    for case in range(12):
        rng = np.random.default_rng(case)
        n, k = 40, 4
        D = dissimilarity(rng, n, case)
        weights = rng.integers(1, 4, n).astype(float)
        start = rng.choice(np.unique(D, axis=0, return_index=True)[1], k, replace=False)
        plan = alternating(distances=D, k=k, weights=weights, start=start)
        assert plan.status == "local"
        assert plan.value == pytest.approx(loss(D, plan.medoids, weights))
        assert plan.value <= loss(D, start, weights) + 1e-9
        # A medoid that ties with another one by its distance to itself is in its own group.
        for group, medoid in enumerate(plan.medoids.tolist()):
            members = np.flatnonzero(plan.labels == group)
            within = np.asarray(D, np.float64)[np.ix_(members, members)] @ weights[members]
            assert within[members.tolist().index(medoid)] <= within.min() * (1 + 1e-9)
        assert alternating(distances=D, k=k, weights=weights, start=plan).medoids.tolist() == plan.medoids.tolist()


def test_alternation_equals_the_reference_implementation_and_is_worse_than_swaps() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(500, 5))
    D, worse = pairwise(X), []
    for seed in range(5):
        start = np.random.default_rng(seed).choice(500, 8, replace=False)
        plan = alternating(distances=D, k=8, start=start)
        worse.append(plan.value / fasterpam(distances=D, k=8, start=start).value)
        assert alternating(X, k=8, start=start, max_memory=1).medoids.tolist() == plan.medoids.tolist()
    assert min(worse) >= 1
    assert np.mean(worse) > 1.005
    reference = pytest.importorskip("kmedoids")
    other = reference.alternating(D, start.astype(np.uint64), max_iter=100, random_state=None)
    assert plan.value == pytest.approx(other.loss, rel=1e-9)
    assert sorted(plan.medoids.tolist()) == sorted(int(m) for m in other.medoids)


def test_alternation_at_its_edges() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    assert alternating(X, k=30).status == "optimal"
    assert alternating(X, k=1, seed=0).value == pytest.approx(fasterpam(X, k=1).value)
    assert alternating(X, k=3, seed=0, max_iter=1).status in ("stopped", "local")
    assert alternating(X, k=3, seed=0, time_limit=1e-9).info["rounds"] == 0


def test_build_is_the_full_greedy_search() -> None:
    rng = np.random.default_rng(6)
    for case in range(20):
        n, k = 30, 7
        D = dissimilarity(rng, n, case).astype(np.float64)
        weights = rng.integers(1, 4, n).astype(float)
        medoids, looked = _inits.build(_sources.Matrix(D), k, weights)
        picked: list[int] = []
        for m in medoids.tolist():
            best = min(loss(D, [*picked, j], weights) for j in range(n) if j not in picked)
            picked.append(m)
            assert loss(D, picked, weights) == pytest.approx(best, rel=1e-12)
        assert n <= looked <= n * (k + 1)


def test_work_does_not_grow_with_k_as_pams_does() -> None:
    rng = np.random.default_rng(8)
    D = pairwise(rng.normal(size=(300, 5)))
    start = {k: rng.choice(300, k, replace=False) for k in (5, 40)}
    work = {}
    for k, begin in start.items():
        slow, fast = (run(distances=D, k=k, start=begin, max_iter=5) for run in (pam, fastpam1))
        assert slow.medoids.tolist() == fast.medoids.tolist()
        assert slow.info["swap_evaluations"] == k * fast.info["swap_evaluations"]
        work[k] = fasterpam(distances=D, k=k, start=begin)
    assert work[40].info["swap_evaluations"] < 4 * work[5].info["swap_evaluations"]
    full = pam(distances=D, k=40, init="build")
    assert work[40].value <= 1.03 * full.value
    assert work[40].info["swap_evaluations"] < full.info["swap_evaluations"] / 20


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_from_rows_with_and_without_a_matrix(metric: str, kind: type) -> None:
    X = np.random.default_rng(9).normal(size=(400, 7)).astype(kind)
    D = pairwise(X, metric)
    start = np.arange(0, 400, 40)
    plain = fasterpam(X, k=10, metric=metric, start=start)
    rows = fasterpam(X, k=10, metric=metric, start=start, max_memory=100_000)
    assert plain.info["distance_evals"] == 400 * 400
    assert rows.info["distance_evals"] > 400 * 400
    for plan in (plain, rows):
        assert plan.value == pytest.approx(loss(D, plan.medoids), rel=1e-9)
        slack = 1e-6 if kind is np.float32 else 1e-9
        assert best_swap(D, plan.medoids) >= plan.value * (1 - slack)
    assert rows.value == pytest.approx(plain.value, rel=0.02)
    for threads in (1, 2, 4):
        same = fasterpam(X, k=10, metric=metric, start=start, max_memory=100_000, n_threads=threads)
        assert same.medoids.tolist() == rows.medoids.tolist()
        assert same.value == rows.value
    for run in (fastpam1, pam):
        other = run(X[:120], k=4, metric=metric, max_memory=1000)
        assert best_swap(D[:120, :120], other.medoids) >= other.value * (1 - 1e-6)
    for init in ("lab", "build", "random"):
        begun = fasterpam(X, k=10, metric=metric, init=init, seed=1, max_memory=100_000)
        assert begun.status == "local"


def test_real_groups_are_found() -> None:
    rng = np.random.default_rng(10)
    centres = rng.normal(size=(12, 8)) * 20
    truth = np.repeat(np.arange(12), 100)
    X = (centres[truth] + rng.normal(size=(1200, 8))).astype(np.float32)
    plan = min((fasterpam(X, k=12, seed=seed) for seed in range(3)), key=lambda p: p.value)
    assert all(len(set(truth[plan.labels == j])) == 1 for j in range(12))
    assert kofn.assign(X, k=12, seed=0).method == "fasterpam"


def test_limits_return_a_valid_plan() -> None:
    X = np.random.default_rng(11).normal(size=(300, 4))
    D = pairwise(X)
    start = list(range(20))
    cut = fasterpam(X, k=20, start=start, max_iter=1)
    late = fasterpam(X, k=20, start=start, time_limit=1e-9)
    for plan in (cut, late):
        assert plan.status == "stopped"
        assert plan.bound is None
        assert plan.value == pytest.approx(loss(D, plan.medoids), rel=1e-12)
        assert plan.value < loss(D, start)
    done = fasterpam(X, k=20, start=cut)
    assert done.status == "local"
    assert done.value <= cut.value


def test_ids_name_the_start_and_weights_count_like_copies() -> None:
    D = dissimilarity(np.random.default_rng(12), 9, 1)
    names = [f"row {i}" for i in range(9)]
    plan = kofn.assign(distances=D, k=3, start=["row 2", "row 4", "row 6"], ids=names)
    assert plan.value == fasterpam(distances=D, k=3, start=[2, 4, 6]).value
    weights = np.array([1, 2, 1, 3, 1, 1, 1, 2, 1])
    copies = np.repeat(np.arange(9), weights)
    weighted = fasterpam(distances=D, k=3, start=[2, 4, 6], weights=weights)
    assert weighted.value == pytest.approx(loss(D[np.ix_(copies, copies)], np.searchsorted(copies, weighted.medoids)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"k": 4}, "k=4 of 3 items"),
        ({"k": 2, "start": [0]}, "start has 1 medoids, k=2"),
        ({"k": 1, "start": [0], "init": "lab"}, "start and init='lab' are both given"),
        ({"k": 1, "init": "best"}, "init='best': choose one of lab, build, random"),
        ({"k": 1, "max_iter": 0}, "max_iter=0"),
        ({"k": 1, "X": [[0.0], [1.0]], "distances": [[0.0, 1.0], [1.0, 0.0]]}, "X and distances are both given"),
        ({"k": 1, "distances": [[1.0, 1.0], [1.0, 0.0]]}, "distances at row 0, column 0 is 1; .*fill_diagonal"),
        ({"k": 1, "distances": [[0.0, 1.0], [2.0, 0.0]]}, "distances is not symmetric"),
        ({"k": 1, "distances": [[0.0, -1.0], [-1.0, 0.0]]}, "distances at row 0, column 1 is -1"),
        ({"k": 1, "distances": [[0.0, np.nan], [np.nan, 0.0]]}, "distances at row 0, column 1 is NaN"),
    ],
)
@pytest.mark.parametrize("run", [fasterpam, fastpam1, pam])
def test_bad_input_is_named(run: Any, arguments: dict[str, Any], says: str) -> None:
    if "distances" not in arguments:
        arguments = {"X": [[0.0], [1.0], [5.0]], **arguments}
    with pytest.raises(InputError, match=says):
        run(**arguments)


def test_rounding_on_the_diagonal_is_forgiven() -> None:
    D = pairwise(np.random.default_rng(13).normal(size=(30, 3)))
    np.fill_diagonal(D, 1e-15)
    plan = fasterpam(distances=D, k=5, seed=0)
    assert plan.labels[plan.medoids].tolist() == list(range(5))


def test_compiled_code_is_loaded_once_numpy_has_worked_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kofn.assignment.medoids._kernels", raising=False)
    monkeypatch.setattr(_swaps, "_numpy_seconds", [])
    asked = [_swaps.worth_compiling("eager", 1000, 20) for _ in range(20)]
    assert not asked[0]
    assert asked[-1]
    assert asked == sorted(asked)
    assert _swaps.worth_compiling("eager", 20_000, 20)
