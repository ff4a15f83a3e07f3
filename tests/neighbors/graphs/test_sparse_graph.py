"""The nearest sparse rows against brute force: ties, copies, signs, rows without a common column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from kofn.core.runtime import Control, Stopped
from kofn.neighbors import knn_graph
from kofn.neighbors.graphs import _sparse_graph, _sparse_kernels
from kofn.objectives._sparse_rows import cosine_distances, unit_rows


def brute(X: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other rows of each row from all pairs, ties to the lowest."""
    unit = unit_rows(X)
    away = cosine_distances(unit, unit)
    np.fill_diagonal(away, np.inf)
    near = np.argsort(away, axis=1, kind="stable")[:, :count]
    return near, np.take_along_axis(away, near, axis=1)


def texts(n: int, words: int, each: int, seed: int) -> Any:
    """Rows whose columns follow Zipf's law, weighted by their rarity."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, words + 1)
    drawn = rng.choice(words, n * each, p=share / share.sum())
    X = sparse.csr_array((np.ones(n * each), (np.repeat(np.arange(n), each), drawn)), shape=(n, words))
    X.sum_duplicates()
    X.data *= np.log((1 + n) / (1 + np.bincount(X.indices, minlength=words)))[X.indices]
    return X


def pools() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    near = texts(900, 300, 12, 0)
    signed = near.copy()
    signed.data *= rng.choice([-1.0, 1.0], len(signed.data))
    choices = rng.integers(0, 4, (500, 5)) + 4 * np.arange(5)
    rows = np.repeat(np.arange(500), 5)
    apart = sparse.block_diag([texts(6, 5, 3, seed) for seed in range(40)], format="csr")
    cancelling = sparse.csr_array(np.kron(np.eye(30), [[1.0, 1, 0], [1, -1, 0], [2, -2, 1e-8]]))
    return {
        "texts": near,
        "long and short": sparse.vstack([near, texts(60, 300, 200, 1), texts(60, 300, 1, 2)], format="csr"),
        "signed": signed,
        "categories, all tied": sparse.csr_array((np.ones(2500), (rows, choices.ravel())), shape=(500, 20)),
        "no common column": apart,
        "copies": sparse.vstack([near[:50]] * 12 + [near[:3] * 2.5, sparse.csr_array((4, 300))], format="csr"),
        "empty rows": sparse.csr_array(([1.0, 2.0], ([3, 7], [0, 0])), shape=(90, 4)),
        "cancelling": cancelling,
        "dense": sparse.csr_array(rng.normal(size=(300, 6))),
        "float32": near.astype(np.float32),
        "explicit zeros": sparse.csr_array(
            (np.r_[np.ones(60), np.zeros(60)], (np.r_[:60, :60] % 60, np.arange(120) % 9))
        ),
    }


@pytest.mark.parametrize("kind", list(pools()))
@pytest.mark.parametrize("count", [1, 7, 40])
def test_lists_are_those_of_brute_force(kind: str, count: int) -> None:
    X = pools()[kind]
    near, away = brute(X, count)
    found, lengths, _ = _sparse_graph.neighbors_of_sparse(X, count, 1, Control())
    np.testing.assert_array_equal(lengths, away)
    np.testing.assert_array_equal(found, near)


@pytest.mark.parametrize("n_threads", [2, 4])
def test_threads_and_blocks_change_nothing(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X = pools()["long and short"]
    whole = knn_graph(X, 9, "cosine", n_threads=1)
    monkeypatch.setattr(_sparse_graph, "_ROWS_AT_ONCE", 7)
    parts = knn_graph(X, 9, "cosine", n_threads=n_threads)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_array_equal(parts.distances, whole.distances)


def test_bounds_leave_out_most_products() -> None:
    """Work grows with what can be near, not with all products of entries; copies are searched for once."""
    X = texts(4000, 4000, 40, 0)
    unit = unit_rows(X)
    index = _sparse_graph._Index.of(unit)
    near, away = np.empty((200, 9), np.int32), np.empty((200, 9))
    work = _sparse_kernels.nearest(0, 200, *index.arrays(), 1e-14, 60 * 2.0**-23, near, away)
    popular = np.bincount(unit.indices)
    products = popular[unit.indices[: unit.indptr[200]]].sum()
    assert work < 0.25 * products
    repeated = sparse.vstack([X[:40]] * 100, format="csr")
    assert len(np.unique(_sparse_graph._kinds(unit_rows(repeated)))) == 40


def test_a_search_can_be_stopped() -> None:
    with pytest.raises(Stopped):
        knn_graph(texts(300, 60, 5, 0), 3, "cosine", control=Control(time_limit=1e-9))
