"""k-medoids of SciPy-sparse rows: the groups of the dense rows, which are never made."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import kofn
from kofn.objectives.similarity import pairwise_distances


def words(n: int, m: int = 60, density: float = 0.1, seed: int = 0) -> Any:
    X = sp.random_array((n, m), density=density, rng=np.random.default_rng(seed), format="csr")
    # Rows without an entry, and copies.
    return sp.vstack([X, sp.csr_array((2, m)), X[:3]], format="csr")


@pytest.mark.parametrize("given", ["plain", "weights", "start", "samples"])
@pytest.mark.parametrize("n", [95, 900])
def test_groups_are_those_of_the_dense_rows(given: str, n: int) -> None:
    X = words(n)
    asked: dict[str, Any] = {
        "plain": {},
        "weights": {"weights": np.random.default_rng(1).random(n + 5)},
        "start": {"start": [3, 9, 20, n]},
        "samples": {"n_samples": 2, "sample_size": 40},
    }[given]
    call: Any = {"k": 4, "metric": "cosine", "method": "fastclara", "seed": 0, **asked}
    sparse, dense = kofn.assign(X, **call), kofn.assign(X.toarray(), **call)
    np.testing.assert_array_equal(sparse.medoids, dense.medoids)
    assert sparse.value == pytest.approx(dense.value, rel=1e-12)
    # Every row is with its nearest medoid; a tie may go to either.
    away = pairwise_distances(X.toarray(), "cosine")[:, sparse.medoids]
    np.testing.assert_allclose(away[np.arange(n + 5), sparse.labels], away.min(axis=1), atol=1e-12)


def test_auto_groups_sparse_rows_by_the_method_that_takes_them() -> None:
    assert kofn.assign(words(50), k=3, metric="cosine").method == "fastclara"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"k": 3}, "or metric='cosine', which takes sparse rows as they are"),
        ({"k": 3, "metric": "sqeuclidean"}, "or metric='cosine', which takes sparse rows as they are"),
        ({"k": 3, "metric": "cosine", "method": "fasterpam"}, "X is a sparse matrix; give a dense array"),
        ({"k": 3, "metric": "cosine", "capacity": 30}, "X is a sparse matrix; give a dense array"),
        ({"k": 52, "metric": "cosine"}, "k=52 groups of 55 items, 51 of them distinct; ask for k <= 51"),
        ({"k": 56, "metric": "cosine"}, "k=56 of 55 items"),
    ],
)
def test_what_sparse_rows_cannot_be_grouped_by_is_said(call: dict[str, Any], message: str) -> None:
    with pytest.raises(kofn.InputError) as raised:
        kofn.assign(words(50), **call)
    assert message in str(raised.value)


def test_rows_are_never_made_dense() -> None:
    X = sp.random_array((30_000, 5_000), density=0.0005, rng=np.random.default_rng(3), format="csr", dtype=np.float32)
    kofn.assign(X[:200], k=2, metric="cosine")
    tracemalloc.start()
    plan = kofn.assign(X, k=5, metric="cosine", method="fastclara", sample_size=300, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan.labels) == 30_000
    assert peak < 30_000 * 5_000 * 4 / 8
