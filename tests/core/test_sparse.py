"""Sparse input: a damaged matrix is refused before compiled code follows its indices."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from command_line import refused, run

import kofn
from kofn.core import checks
from kofn.objectives.coverage import FeatureBased, WeightedCoverage

_N = 30


def _damaged(kind: str, how: str) -> Any:
    """A matrix of three entries of which something is wrong: an index, or the row pointers, which "coo" lacks."""
    indices, starts = np.array([0, 1, 2], np.int32), np.array([0] + [3] * _N, np.int32)
    if how == "too large":
        indices[2] = 2_000_000
    elif how == "negative":
        indices[0] = -7
    else:
        starts[5] = 1
    if kind == "coo":
        table = sp.coo_array((np.ones(3), (indices.clip(0, 2), [0, 1, 2])), shape=(_N, _N))
        table.coords = (indices, table.coords[1])
        return table
    return getattr(sp, f"{kind}_matrix")((np.ones(3), indices, starts), shape=(_N, _N))


@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, how) for kind in ("csr", "csc", "coo") for how in ("too large", "negative", "pointers")][:-1],
)
def test_damaged_matrices_are_refused(kind: str, how: str) -> None:
    for objective in ("facility_location", "saturated_coverage", "graph_cut", "log_determinant"):
        with pytest.raises(kofn.InputError, match="damaged sparse matrix"):
            kofn.select(similarity=_damaged(kind, how), k=2, objective=objective)
    for coverage in (FeatureBased, WeightedCoverage):
        with pytest.raises(kofn.InputError, match="damaged sparse matrix"):
            coverage(_damaged(kind, how))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"])
def test_sound_matrices_of_every_format_pass(kind: str) -> None:
    table = sp.random_array((_N, _N), density=0.2, rng=np.random.default_rng(0))
    assert checks.sound_sparse(table.asformat(kind), "similarity").shape == (_N, _N)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.npz"
    starts = np.array([0] + [3] * _N)
    np.savez(path, format=b"csr", shape=[_N, _N], data=[1, 1, 1.0], indices=[0, 1, 2_000_000], indptr=starts)
    for more in ([], ["--dry-run"]):
        error = refused(capsys, "select", path, "--metric", "precomputed", "-k", 2, *more)
        assert "damaged sparse matrix" in error


@pytest.mark.parametrize("objective", ["feature_based", "weighted_coverage", "0.5*feature_based + weighted_coverage"])
def test_sparse_rows_give_what_dense_rows_give(objective: str) -> None:
    X = sp.random_array((80, 40), density=0.1, rng=np.random.default_rng(3), format="coo")
    asked: Any = {"k": 7, "objective": objective, "groups": np.arange(80) % 2, "quotas": {0: (4, 4)}}
    sparse, dense = kofn.select(X, **asked), kofn.select(X.toarray(), **asked)
    np.testing.assert_array_equal(sparse.indices, dense.indices)
    assert sparse.value == pytest.approx(dense.value)


def test_sparse_rows_are_never_made_dense() -> None:
    X = sp.random_array((20_000, 5_000), density=0.0005, rng=np.random.default_rng(3), format="csr")
    kofn.select(X[:50], k=2, objective="feature_based")
    tracemalloc.start()
    plan = kofn.select(X, k=20, objective="feature_based")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan) == 20
    assert peak < 40e6  # dense, X would take 800 MB


def test_other_methods_and_objectives_refuse_sparse_rows() -> None:
    X = sp.random_array((20, 5), density=0.5, rng=np.random.default_rng(0))
    for words in ({}, {"method": "gist"}, {"objective": "graph_cut"}):
        with pytest.raises(kofn.InputError, match="sparse matrix"):
            kofn.select(X, k=2, **words)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("unit", [1.0, 1e100])
def test_distances_of_sparse_rows_give_what_dense_rows_give(metric: str, unit: float) -> None:
    X = _signed_rows(150, 40, 0.1)
    X.data *= unit
    # Copies, one of them with a zero that is stored, and rows of zeros.
    X = sp.vstack([X, X[:9], sp.csr_array((2, 40))], format="csr")
    X.data[:1] = 0.0
    words: Any = {"k": 12, "metric": metric, "method": "farthest_first", "exclude": [3]}
    sparse, dense = kofn.select(X, **words), kofn.select(X.toarray(), **words)
    np.testing.assert_array_equal(sparse.indices, dense.indices)
    np.testing.assert_allclose(sparse.gains, dense.gains, rtol=1e-12)
    assert (sparse.value, sparse.bound) == pytest.approx((dense.value, dense.bound), rel=1e-12)
    distinct = len(np.unique(X.toarray(), axis=0))
    every = kofn.select(X, k=distinct, metric=metric, method="farthest_first")
    assert every.value == 0.0  # copies are no further from their row than it is from itself
    assert every.status == "optimal"


def test_squares_that_overflow_are_refused() -> None:
    for unit in (1e200, 1e-200):
        with pytest.raises(kofn.InputError, match="metric='sqeuclidean'; multiply X by"):
            kofn.select(sp.csr_array([[unit], [0.0]]), k=1, metric="sqeuclidean", method="farthest_first")


def _signed_rows(n: int, d: int, density: float) -> Any:
    X = sp.random_array((n, d), density=density, rng=np.random.default_rng(7), format="csr")
    X.data *= np.random.default_rng(8).choice([1.0, -1.0], X.nnz)
    return X


@pytest.mark.parametrize("method", ["lazy_greedy", "naive_greedy", "stochastic_greedy", "sampled_greedy"])
def test_cosines_of_sparse_rows_give_what_dense_rows_give(method: str) -> None:
    X = _signed_rows(150, 40, 0.1)
    X = sp.vstack([X, sp.csr_array((3, 40)), X[:2] * 1e-200, X[5:6] * 1e160]).tocsr()
    words: Any = {"k": 9, "metric": "cosine", "method": method, "weights": np.arange(156) % 3 + 1}
    words |= {"seed": 1} if method in ("stochastic_greedy", "sampled_greedy") else {}
    words |= {"reference": 60} if method == "sampled_greedy" else {}
    sparse, dense = kofn.select(X, **words), kofn.select(X.toarray(), **words)
    np.testing.assert_array_equal(sparse.indices, dense.indices)
    assert sparse.value == pytest.approx(dense.value, rel=1e-9)
    assert sparse.info["distance"] == pytest.approx(dense.info["distance"], rel=1e-9)
    if sparse.bound is not None:
        assert sparse.bound >= sparse.value
        assert sparse.bound == pytest.approx(dense.bound, rel=1e-6)


@pytest.mark.parametrize("n_neighbors", [3, 20, 500])
def test_a_graph_of_sparse_rows_gives_what_dense_rows_give(n_neighbors: int) -> None:
    # Dense enough that no two rows are as far from a third, which rounding would decide.
    X = sp.vstack([_signed_rows(150, 40, 0.6), sp.csr_array((1, 40))]).tocsr()
    words: Any = {"k": 9, "metric": "cosine", "method": "sparse_greedy", "n_neighbors": n_neighbors}
    words |= {"weights": np.arange(151) % 3 + 1, "groups": np.arange(151) % 2, "quotas": {0: (4, 4)}}
    sparse, dense = kofn.select(X, **words), kofn.select(X.toarray(), **words)
    np.testing.assert_array_equal(sparse.indices, dense.indices)
    assert sparse.value == pytest.approx(dense.value, rel=1e-9)
    assert sparse.bound == pytest.approx(dense.bound, rel=1e-6)
    del words["n_neighbors"]
    assert sparse.bound >= kofn.select(X, **words | {"method": "lazy_greedy"}).value
    stopped = kofn.select(X, **words, n_neighbors=n_neighbors, time_limit=1e-9)
    assert (stopped.status, len(stopped)) == ("stopped", 9)


def test_farthest_first_on_sparse_rows() -> None:
    X = _signed_rows(150, 12, 0.5)
    sparse, dense = (kofn.select(rows, k=8, metric="cosine", method="farthest_first") for rows in (X, X.toarray()))
    np.testing.assert_array_equal(sparse.indices, dense.indices)
    assert sparse.value == pytest.approx(dense.value)
    assert kofn.select(sp.csr_array((4, 3)), k=2, metric="cosine", method="farthest_first").value == 0


def test_cosines_of_many_sparse_rows_take_little_memory() -> None:
    X = sp.random_array((20_000, 5_000), density=0.0005, rng=np.random.default_rng(3), format="csr")
    kofn.select(X[:50], k=2, metric="cosine")
    for words in ({"method": "farthest_first"}, {"method": "sampled_greedy", "reference": 200, "seed": 0}):
        tracemalloc.start()
        kofn.select(X, k=5, metric="cosine", **words)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200e6  # dense, X would take 800 MB, and all pairs 3.2 GB


def test_an_objective_of_sparse_rows_is_a_pool_by_itself() -> None:
    X = sp.random_array((80, 40), density=0.1, rng=np.random.default_rng(3), format="csr")
    named = kofn.select(X, k=5, objective="feature_based")
    for given in ({}, {"X": X}):
        plan = kofn.select(**given, k=5, objective=FeatureBased(X))
        np.testing.assert_array_equal(plan.indices, named.indices)
    with pytest.raises(kofn.InputError, match="X has 79 rows and the objective 80 items"):
        kofn.select(X[:79], k=5, objective=FeatureBased(X))


def test_sparse_rows_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sp.save_npz(tmp_path / "rows.npz", _signed_rows(90, 20, 0.2))
    code, out, err = run(capsys, "select", tmp_path / "rows.npz", "--metric", "cosine", "-k", 4)
    assert code == 0, err
    assert "compared by the cosines of sparse rows" in out
    assert "say --metric cosine" in refused(capsys, "select", tmp_path / "rows.npz", "-k", 4)


def test_rows_are_drawn_at_random_whatever_they_hold() -> None:
    X = sp.random_array((80, 40), density=0.1, rng=np.random.default_rng(3), format="csr")
    sparse, dense = (kofn.select(rows, k=7, method="random_sample", seed=0) for rows in (X, X.toarray()))
    np.testing.assert_array_equal(sparse.indices, dense.indices)
