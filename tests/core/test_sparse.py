"""Sparse input: a damaged matrix is refused before compiled code follows its indices."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from command_line import refused

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
    for words in ({}, {"method": "farthest_first"}, {"objective": "graph_cut"}):
        with pytest.raises(kofn.InputError, match="sparse matrix"):
            kofn.select(X, k=2, **words)
