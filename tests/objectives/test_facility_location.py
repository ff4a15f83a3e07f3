"""Facility location against a plain float64 greedy that shares nothing with it."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from refusals import refused

import kofn
from kofn.core.checks import InputError
from kofn.objectives import _sources, facility_location, similarity
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.similarity import exact_sum, pairwise_distances

METRICS = ("euclidean", "sqeuclidean", "cosine")


def plain_similarity(X, metric, c=1000.0):
    """Similarities from the definition; any c will do, since the picks must not depend on it."""
    points = X.astype(np.float64)
    if metric == "cosine":
        norms = np.sqrt((points**2).sum(axis=1))
        zero = norms == 0
        cosine = points @ points.T / np.outer(np.where(zero, 1, norms), np.where(zero, 1, norms))
        cosine[np.outer(zero, zero)] = 1
        return (1 + cosine) / 2
    squares = np.zeros((len(X), len(X)))
    for feature in points.T:
        squares += (feature[:, None] - feature[None, :]) ** 2
    return c - (squares if metric == "sqeuclidean" else np.sqrt(squares))


def plain_similarity_to(X, some, metric, offset):
    """Similarity (n, len(some)) of all rows to some, for pools too large for a table."""
    X = X.astype(np.float64)
    if metric == "cosine":
        units = X / np.linalg.norm(X, axis=1, keepdims=True)
        return (1 + units @ units[some].T) / 2
    return np.stack([offset - np.linalg.norm(X - X[j], axis=1) for j in some], axis=1)


def plain_greedy(S, k, weights=None):
    """Greedy on a table, every sum exact; returns picks and, for each step, the gains of all candidates."""
    weights = np.ones(len(S)) if weights is None else weights
    best, picks, trace = np.zeros(len(S)), [], []
    for _ in range(k):
        saved = weights[:, None] * np.maximum(S - best[:, None], 0)
        gains = np.array([math.fsum(column) for column in saved.T.tolist()])
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        trace.append(gains)
        best = np.maximum(best, S[:, picks[-1]])
    return picks, trace


def assert_greedy(X, metric, picks, weights=None):
    """The picks are a plain greedy's.

    Distances must give the very same picks. Cosines differ in the last bit from one formula to the next, and so do
    candidates that tie mathematically: there, each pick must be the best to 13 digits.
    """
    S = plain_similarity(X, metric)
    if metric != "cosine":
        assert picks == plain_greedy(S, len(picks), weights)[0]
        return
    best, weights = np.zeros(len(S)), np.ones(len(S)) if weights is None else weights
    for pick in picks:
        gains = weights @ np.maximum(S - best[:, None], 0)
        assert gains[pick] >= gains.max() * (1 - 1e-13) - 1e-13
        best = np.maximum(best, S[:, pick])


def greedy(f, k, batch=None, exclude=()):
    """The search in its simplest form: everyone within the tolerance of the best is settled exactly."""
    picks, gains = [], []
    for _ in range(k):
        open_items = np.setdiff1d(np.arange(f.n), [*picks, *exclude])
        if batch:
            parts = [open_items[low : low + batch] for low in range(0, len(open_items), batch)]
            fast = np.concatenate([f.gains(part) for part in parts])
        else:
            fast = f.gains(open_items)
        rivals = open_items[fast + f.tolerance >= fast.max() - f.tolerance]
        exact = f.exact_gains(rivals)
        assert np.abs(fast[np.isin(open_items, rivals)] - exact).max() <= f.tolerance + 1e-13 * exact.max()
        picks.append(int(rivals[exact.argmax()]))
        gains.append(f.add(picks[-1]))
        assert gains[-1] == pytest.approx(exact.max(), rel=1e-14, abs=1e-300)
    return picks, gains


@pytest.fixture
def compiled(monkeypatch):
    """Take the compiled path at every size."""
    monkeypatch.setattr(facility_location, "is_small", lambda n, d: False)
    monkeypatch.setattr(similarity, "is_small", lambda n, d: False)


@pytest.fixture(params=["numpy", "compiled"])
def path(request):
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    return request.param


def clusters(n, d, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(12, d))[rng.integers(12, size=n)] * 3 + rng.normal(size=(n, d))).astype(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(700, 7), (90, 33), (3, 2)])
def test_picks_are_those_of_a_plain_float64_greedy(path, metric, dtype, n, d):
    X, k = clusters(n, d, n + d, dtype), min(n, 20)
    f = FacilityLocation(X, metric=metric)
    picks, gains = greedy(f, k)
    assert_greedy(X, metric, picks)
    assert math.fsum(gains) == pytest.approx(f.value(picks), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_weights_count(path, metric):
    X = clusters(300, 5, 1)
    weights = np.random.default_rng(2).exponential(size=300)
    weights[::7] = 0
    f = FacilityLocation(X, metric=metric, weights=weights)
    picks, gains = greedy(f, 25)
    assert_greedy(X, metric, picks, weights)
    assert math.fsum(gains) == pytest.approx(f.value(picks), rel=1e-12)


def test_a_weight_is_a_number_of_copies(path):
    X = clusters(120, 4, 3)
    copies = np.random.default_rng(4).integers(1, 4, 120)
    first = np.cumsum(copies) - copies
    weighted, _ = greedy(FacilityLocation(X, weights=copies.astype(float)), 15)
    spelt, _ = greedy(FacilityLocation(np.repeat(X, copies, axis=0)), 15)
    assert first[weighted].tolist() == spelt


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("seed", range(4))
def test_ties_go_to_the_lowest_index(path, metric, seed):
    # A coarse grid: many equal rows, and many candidates whose gains are equal only as multisets of terms.
    X = np.random.default_rng(seed).integers(-2, 3, (400, 2)).astype(np.float32)
    picks, _ = greedy(FacilityLocation(X, metric=metric), 30)
    assert picks == plain_greedy(plain_similarity(X, metric), 30)[0]


def test_equidistant_rows_are_picked_in_order(path):
    picks, gains = greedy(FacilityLocation(np.eye(60)), 60)
    assert picks == list(range(60))
    assert gains[1:] == [math.sqrt(2)] * 59


def test_identical_rows_are_picked_in_order_for_nothing(path):
    f = FacilityLocation(np.full((50, 3), 7.25))
    picks, gains = greedy(f, 5)
    assert picks == [0, 1, 2, 3, 4]
    assert gains == [0.0] * 5
    assert f.nearest.tolist() == [0] * 50
    assert f.tolerance == 0


def test_once_everything_is_served_nothing_gains_and_nothing_is_uncertain(path):
    X = np.repeat(clusters(6, 3, 5), 40, axis=0)
    f = FacilityLocation(X)
    _, gains = greedy(f, 12)
    assert gains[6:] == [0.0] * 6
    assert f.tolerance == 0
    assert not f.gains(np.arange(240)).any()


@pytest.mark.parametrize("metric", METRICS)
def test_fast_gains_stay_within_the_tolerance(path, metric):
    X = clusters(900, 19, 6)
    S = plain_similarity(X, metric, c=0.0) + FacilityLocation(X, metric=metric)._source.start * (metric != "cosine")
    f, best, everyone = FacilityLocation(X, metric=metric), np.zeros(900), np.arange(900)
    for pick in np.random.default_rng(0).permutation(900)[:60]:
        true = np.maximum(S - best[:, None], 0).sum(axis=0)
        error = np.abs(f.gains(everyone) - true).max()
        assert error <= f.tolerance + 1e-12 * true.max()
        f.add(pick)
        best = np.maximum(best, S[:, pick])
    assert f.tolerance < 1e-4 * best.sum()


def test_a_tight_cluster_far_from_the_origin_is_resolved(path):
    # |x|^2 + |y|^2 - 2xy in float32 sees nothing here.
    rng = np.random.default_rng(7)
    X = (1000 + rng.normal(size=(300, 4)) * 0.01).astype(np.float32)
    picks, _ = greedy(FacilityLocation(X), 10)
    assert picks == plain_greedy(plain_similarity(X, "euclidean"), 10)[0]


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9, 1e18, 1e30])
def test_units_do_not_matter(path, factor):
    X = clusters(150, 3, 8)
    expected, _ = greedy(FacilityLocation(X.astype(np.float64)), 12)
    assert greedy(FacilityLocation(X * np.float32(factor)), 12)[0] == expected
    f = FacilityLocation(X.astype(np.float64) * factor)
    picks, gains = greedy(f, 12)
    assert picks == expected
    assert math.fsum(gains) == pytest.approx(f.value(picks), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_threads_change_nothing(compiled, metric):
    X = clusters(3000, 9, 9)
    runs = []
    for threads in (1, 2, 4):
        f = FacilityLocation(X, metric=metric, n_threads=threads)
        picks, gains = greedy(f, 15)
        runs.append((picks, gains, f.gains(np.arange(3000)).tolist(), f.nearest.tolist(), f.calls))
    assert runs[0] == runs[1] == runs[2]


def test_both_sides_of_the_size_threshold_agree(monkeypatch):
    X = clusters(600, 6, 10)
    answers = []
    for small in (True, False):
        monkeypatch.setattr(facility_location, "is_small", lambda n, d, small=small: small)
        f = FacilityLocation(X)
        answers.append((*greedy(f, 60), f.nearest.tolist()))
    # Not close: the same bits.
    assert answers[0] == answers[1]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_gains_of_steps_looked_ahead_are_those_of_the_picks_made(metric, follow):
    """One pass serves the next picks where they were guessed right; where they were not, nothing of it may be left."""
    X = clusters(9000, 4, 26)
    some = np.random.default_rng(1).choice(9000, 50, replace=False)
    S = plain_similarity_to(X, some, metric, offset=FacilityLocation(X, metric=metric).offset)
    f, everyone, best = FacilityLocation(X, metric=metric), np.arange(9000), np.zeros(9000)
    looked_ahead = 0
    for step in range(6):
        gains = f.gains(everyone)
        looked_ahead += len(f._ahead)
        true = np.maximum(S - best[:, None], 0).sum(axis=0)
        assert np.abs(gains[some] - true).max() <= f.tolerance + 1e-12 * true.max()
        pick = int(gains.argmax()) if follow or step % 2 else 4321 + step
        assert f.exact_gains([pick])[0] == pytest.approx(f.add(pick), rel=1e-14)
        best = np.maximum(best, plain_similarity_to(X, [pick], metric, f.offset)[:, 0])
    assert looked_ahead
    assert f.distance_evals < (4 if follow else 8) * 9000**2


def test_work_may_be_stopped_in_the_middle_and_taken_up_again(compiled, monkeypatch):
    X = clusters(2500, 5, 27)
    expected = greedy(FacilityLocation(X), 6)
    monkeypatch.setattr(_sources, "_PRODUCTS_AT_ONCE", 1)
    monkeypatch.setattr(_sources, "_FEWEST_AT_ONCE", 1024)
    f, asked = FacilityLocation(X), []

    def third_time():
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    f.bind(third_time)
    f.gains(np.arange(2500))
    f.add(expected[0][0])
    with pytest.raises(KeyboardInterrupt):
        f.gains(np.arange(2500))
    assert np.abs(f.gains(np.arange(2500)) - f.exact_gains(np.arange(2500))).max() <= f.tolerance
    again = FacilityLocation(X)
    assert greedy(again, 6) == expected


@pytest.mark.parametrize("features", [8, 96])
def test_the_work_between_two_looks_at_the_clock_does_not_grow_with_the_features(compiled, monkeypatch, features):
    n = 2500
    X, products = clusters(n, features, 3), 1 << 26
    whole = FacilityLocation(X).gains(np.arange(n))
    monkeypatch.setattr(_sources, "_PRODUCTS_AT_ONCE", products)
    f, looked = FacilityLocation(X), []
    f.bind(lambda: looked.append(1))
    assert f.gains(np.arange(n)).tolist() == whole.tolist()
    # Never more than the products, or the fewest items, at once: so many looks between the blocks.
    most = max(_sources._FEWEST_AT_ONCE, products // (n * features))
    assert len(looked) >= n // most - 1


@pytest.mark.parametrize("batch", [1, 64, 700])
def test_asking_in_parts_gives_the_same_picks(path, batch):
    X = clusters(300 if batch == 1 else 800, 5, 11)
    assert greedy(FacilityLocation(X), 12, batch)[0] == greedy(FacilityLocation(X), 12)[0]


def test_candidates_asked_for_now_and_then_are_brought_up_to_date(path):
    X = clusters(1500, 6, 12)
    rng = np.random.default_rng(0)
    f = FacilityLocation(X)
    for step, pick in enumerate(rng.permutation(1500)[:150]):
        some = rng.integers(0, 1500, rng.integers(1, 60) if step % 10 else 1400)
        assert np.abs(f.gains(some) - f.exact_gains(some)).max() <= f.tolerance + 1e-10
        f.add(int(pick))


def test_repeated_and_unordered_candidates_are_answered_in_place(path):
    f = FacilityLocation(clusters(200, 3, 13))
    f.add(5)
    asked = np.array([9, 3, 9, 199, 3])
    got = f.gains(asked)
    assert got[0] == got[2]
    assert got[1] == got[4]
    assert np.abs(got - f.exact_gains(asked)).max() <= f.tolerance


def test_nearest_is_the_first_of_the_closest_picks(path):
    X = clusters(250, 4, 14)
    f = FacilityLocation(X)
    picks, _ = greedy(f, 20)
    distance = 1000 - plain_similarity(X, "euclidean")[:, picks]
    assert f.nearest.tolist() == distance.argmin(axis=1).tolist()


def test_rows_of_zeros_are_like_each_other_and_half_like_the_rest(path):
    X = np.vstack([np.zeros((4, 3)), np.abs(clusters(30, 3, 15))])
    f = FacilityLocation(X, metric="cosine")
    assert f.add(0) == pytest.approx(4 + 30 / 2, rel=1e-14)
    assert f.value([0]) == pytest.approx(4 + 30 / 2, rel=1e-14)
    assert np.allclose(f.exact_gains([1, 2, 3]), 0)
    assert_greedy(X, "cosine", greedy(FacilityLocation(X, metric="cosine"), 8)[0])


def test_nothing_is_worth_nothing():
    f = FacilityLocation(clusters(20, 2, 16))
    assert f.value([]) == 0.0
    assert (f.submodular, f.monotone, f.sense, f.name, f.n) == (True, True, "max", "facility_location", 20)


# -- similarity as given ----------------------------------------------------------------------------------------------


def given(n, seed, symmetric=False, ties=False):
    rng = np.random.default_rng(seed)
    S = rng.integers(0, 4, (n, n)).astype(float) if ties else rng.exponential(size=(n, n)) ** 3
    return np.maximum(S, S.T) if symmetric else S


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("symmetric", "ties"), [(True, False), (False, False), (False, True)])
def test_given_similarities(dtype, order, symmetric, ties):
    S = np.asarray(given(250, 17, symmetric, ties).astype(dtype), order=order)
    f = FacilityLocation(similarity=S)
    picks, gains = greedy(f, 30)
    assert picks == plain_greedy(S.astype(np.float64), 30)[0]
    assert math.fsum(gains) == pytest.approx(f.value(picks), rel=1e-12)
    assert f._source.table is S, "a copy of n x n was made"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_given_similarities_above_the_threshold(dtype, order):
    S = np.asarray(given(2100, 18).astype(dtype), order=order)
    f = FacilityLocation(similarity=S, n_threads=2)
    assert f._source.compiled
    best = np.zeros(2100)
    for _ in range(6):
        everyone = np.maximum(S - best[:, None], 0).sum(axis=0, dtype=np.float64)
        assert np.allclose(f.gains(np.arange(2100)), everyone, rtol=1e-12, atol=1e-9)
        some = np.arange(3, 2100, 50)
        assert np.allclose(f.gains(some), everyone[some], rtol=1e-12, atol=1e-9)
        f.add(int(everyone.argmax()))
        best = np.maximum(best, S[:, everyone.argmax()])
    one, two = FacilityLocation(similarity=S, n_threads=1), FacilityLocation(similarity=S, n_threads=2)
    assert greedy(one, 20) == greedy(two, 20)
    assert one.distance_evals < 8 * 2100**2, "items that a pick did not change were looked at again"


@pytest.mark.parametrize("layout", [sp.csr_array, sp.csc_array, sp.coo_matrix])
@pytest.mark.parametrize("ties", [False, True])
def test_sparse_is_dense_with_zeros(layout, ties):
    S = given(300, 19, ties=ties)
    S[np.random.default_rng(1).random(S.shape) < 0.95] = 0
    dense, sparse = FacilityLocation(similarity=S), FacilityLocation(similarity=layout(S))
    expected = plain_greedy(S, 40)[0]
    assert greedy(dense, 40)[0] == expected
    assert greedy(sparse, 40)[0] == expected
    assert sparse.value(expected) == pytest.approx(dense.value(expected), rel=1e-14)
    assert sparse.nearest.tolist() == dense.nearest.tolist()
    assert sparse.distance_evals < dense.distance_evals


def test_who_is_like_no_pick_has_none():
    f = FacilityLocation(similarity=np.diag([1.0, 2.0, 0.0]))
    picks, gains = greedy(f, 2)
    assert (picks, gains, f.nearest.tolist()) == ([1, 0], [2.0, 1.0], [1, 0, -1])


def test_precomputed_reads_x_as_similarity():
    S = given(40, 20)
    assert greedy(FacilityLocation(S, metric="precomputed"), 5)[0] == greedy(FacilityLocation(similarity=S), 5)[0]


def test_row_is_the_item_and_column_the_candidate():
    # Candidate 2 serves everyone; nobody serves candidate 2.
    f = FacilityLocation(similarity=np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 0]]))
    assert f.exact_gains([0, 1, 2]).tolist() == [0, 0, 2]


# -- costs, limits, errors --------------------------------------------------------------------------------------------


def test_work_is_a_few_passes_where_the_plain_greedy_takes_k(compiled):
    f = FacilityLocation(clusters(4000, 8, 21))
    greedy(f, 100)
    assert f.distance_evals < 8 * 4000**2
    assert f.calls == -(-f.distance_evals // 4000)


def test_memory_limit_is_kept_or_refused():
    X = clusters(500, 4, 22)
    with pytest.raises(InputError, match="max_memory=1000 is too little for facility location on 500 rows"):
        FacilityLocation(X, max_memory=1000)
    tight = FacilityLocation(X, max_memory=400_000, n_threads=1)
    assert greedy(tight, 5)[0] == greedy(FacilityLocation(X), 5)[0]
    assert not hasattr(tight._source, "table")


@pytest.mark.parametrize(
    ("dtype", "metric", "n", "d"), [(np.float32, "cosine", 6000, 16), (np.float64, "euclidean", 3000, 5)]
)
def test_peak_memory_is_what_the_limit_asks_for(dtype, metric, n, d):
    X = clusters(n, d, 24, dtype)
    greedy(FacilityLocation(X[:2100], metric=metric), 2)  # compiled code is loaded before the count begins
    with pytest.raises(InputError, match="give at least") as refused:
        FacilityLocation(X, max_memory=1, n_threads=2)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        f = FacilityLocation(X, metric=metric, n_threads=2)
        greedy(f, 20)
        f.exact_gains(np.arange(40))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= int(re.search(r"at least (\d+)", str(refused.value))[1])
    assert peak - before < n * n


def test_input_may_be_locked_or_laid_out_otherwise(path):
    X = clusters(600, 6, 25)
    expected, _ = greedy(FacilityLocation(X), 10)
    locked = X.copy()
    locked.flags.writeable = False
    for same in (locked, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X.astype(">f4"), X.astype(np.float64)):
        assert greedy(FacilityLocation(same), 10)[0] == expected


def test_a_small_pool_never_waits_for_a_compiler():
    code = (
        "import sys, numpy as np; from kofn.objectives.facility_location import FacilityLocation; "
        "f = FacilityLocation(np.random.default_rng(0).normal(size=(500, 32))); "
        "f.gains(np.arange(500)); f.add(3); f.gains(np.arange(500)); f.exact_gains([1, 2]); f.value([1, 2]); "
        "heavy = {'numba', 'scipy', 'sklearn', 'polars'} & set(sys.modules); sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs X or similarity"),
        ({"X": np.ones((3, 2)), "similarity": np.eye(3)}, "needs X or similarity"),
        ({"X": np.ones((3, 2)), "metric": "manhattan"}, "metric='manhattan'"),
        ({"X": np.array([[1.0], [np.nan]])}, "X at row 1, column 0 is NaN"),
        ({"similarity": np.array([[1.0, -2.0], [0, 1]])}, "similarity at row 0, column 1 is -2"),
        ({"similarity": np.ones((3, 2))}, "must be square"),
        ({"X": np.ones((3, 2)), "weights": np.array([1.0, -1, 1])}, "weights at row 1 is -1"),
        ({"X": np.ones((3, 2)), "weights": np.ones(2)}, "weights has 2 values, X has 3 rows"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        FacilityLocation(**arguments)


# -- the metric maths that others share -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairwise_distances(path, metric, dtype):
    X = clusters(333, 10, 23, dtype)
    X[5] = X[7]
    found = pairwise_distances(X, metric)
    expected = 2 * (1 - plain_similarity(X, metric)) if metric == "cosine" else 1000 - plain_similarity(X, metric)
    assert found.dtype == dtype
    assert np.allclose(
        found, expected, rtol=1e-5 if dtype == np.float32 else 1e-10, atol=1e-6 if dtype == np.float32 else 1e-12
    )
    assert np.array_equal(found, found.T)
    assert not np.diagonal(found).any()
    assert found[5, 7] == 0
    assert np.array_equal(found, pairwise_distances(X, metric, n_threads=1))


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_exact_sum_rounds_once_and_has_no_order(scale):
    terms = np.random.default_rng(0).exponential(size=4001) ** 4 * scale
    assert exact_sum(terms) == math.fsum(terms.tolist())
    assert exact_sum(terms[::-1].copy()) == exact_sum(terms)
    assert exact_sum(np.zeros(3)) == 0
    assert exact_sum(np.empty(0)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_no_two_rows_are_further_apart_than_the_ceiling(metric):
    for seed in range(5):
        X = clusters(80, 3, seed)
        assert similarity.ceiling(X, metric) >= (
            pairwise_distances(X.astype(float), metric).max() / (2 if metric == "cosine" else 1)
        )


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "rbf"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_reference_is_what_is_served(metric, kind):
    """Candidates and served rows apart: gains, exact gains and values are those of the plain formula."""
    rng = np.random.default_rng(1)
    X, R = rng.normal(size=(700, 5)).astype(kind), rng.normal(size=(90, 5)).astype(kind)
    X[3] = R[4] = 0
    X[20:40] = X[:20]
    weights = rng.integers(0, 4, 90) / 3
    width = {"bandwidth": 2.0} if metric == "rbf" else {}
    f = FacilityLocation(X, reference=R, metric=metric, weights=weights, **width)
    both = np.vstack([R, X])
    if metric == "rbf":
        S = np.exp(plain_similarity(both, "sqeuclidean", c=0.0) / 8)[:90, 90:]
    else:
        S = plain_similarity(both, metric, c=f.offset)[:90, 90:]
    best, picks = np.zeros(90), rng.permutation(700)[:12].tolist()
    for pick in picks:
        gains, exact = f.gains(np.arange(700)), f.exact_gains(np.arange(700))
        assert np.abs(gains - exact).max() <= f.tolerance
        assert exact[:20].tolist() == exact[20:40].tolist()
        plain = weights @ np.maximum(S - best[:, None], 0)
        np.testing.assert_allclose(exact, plain, rtol=1e-6, atol=1e-6 * S.max() * weights.sum())
        best = np.maximum(best, S[:, pick])
        assert f.add(pick) == exact[pick]
    assert f.nearest.shape == (90,)
    assert f.value(picks) == pytest.approx(float(weights @ best), rel=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_greedy_with_a_reference_is_proven_by_brute_force(metric):
    rng = np.random.default_rng(2)
    for _ in range(10):
        X, R = rng.integers(-3, 4, (8, 2)).astype(float), rng.integers(-3, 4, (13, 2)).astype(float)
        plan = kofn.select(objective=FacilityLocation(X, reference=R, metric=metric), k=3)
        f = FacilityLocation(X, reference=R, metric=metric)
        best = max(f.value(list(picks)) for picks in itertools.combinations(range(8), 3))
        assert plan.value == pytest.approx(f.value(plan.indices), rel=1e-12)
        assert (1 - 1 / np.e) * best <= plan.value * (1 + 1e-12)
        assert plan.value <= best * (1 + 1e-12)
        assert best <= plan.bound * (1 + 1e-9)


def test_a_reference_equal_to_the_pool_changes_nothing():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 6))
    plain, apart = kofn.select(X, k=9), kofn.select(objective=FacilityLocation(X, reference=X), k=9)
    assert plain.indices.tolist() == apart.indices.tolist()
    assert plain.gains.tolist() == apart.gains.tolist()


def test_a_reference_that_does_not_fit_is_refused():
    X = np.eye(4)
    refused(lambda: FacilityLocation(X, reference=np.eye(3)), "reference has 3 features and X 4; give the same ones")
    refused(lambda: FacilityLocation(similarity=X, reference=X), "reference goes with X")
    refused(lambda: FacilityLocation(X, reference=np.ones((5, 4)), weights=np.ones(4)), "weights")
    refused(lambda: FacilityLocation(X, reference=np.full((5, 4), np.nan)), "reference")


@pytest.mark.parametrize("n", [2, 90, 513])
def test_few_rows_serve_many(n):
    rng = np.random.default_rng(0)
    X, R = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=(9_000, 3)).astype(np.float32)
    plan = kofn.select(objective=FacilityLocation(X, reference=R), k=min(n, 12))
    far = np.linalg.norm(R.astype(np.float64)[:, None] - X.astype(np.float64)[None], axis=2)
    picked = []
    for pick in plan.indices.tolist():
        reached = np.minimum(far, far[:, picked].min(axis=1)[:, None]) if picked else far
        assert reached[:, pick].sum() <= reached.sum(axis=0).min() * (1 + 1e-6)
        picked.append(pick)
