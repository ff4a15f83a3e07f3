"""What a time limit leaves undone, by counters: starts, passes over all pairs, eigendecompositions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kofn

X = np.random.default_rng(0).normal(size=(6_000, 4)).astype(np.float32)
# Each pass looks at one block of rows before it looks at the clock; the groups themselves take k rows.
FEW_ROWS = 3 * 704 + 200


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("fastpam1", {"k": 20}),
        ("pam", {"k": 20}),
        ("fasterpam", {"k": 20}),
        ("fasterpam", {"k": 1}),
        ("fasterpam", {"k": 20, "init": "build"}),
        ("fastermsc", {"k": 20}),
        ("fastermsc", {"k": 1}),
        ("alternating", {"k": 20}),
        ("alternating", {"k": 20, "init": "build"}),
        ("dynmsc", {}),
    ],
)
def test_initial_medoids_and_passes_over_all_pairs_end_with_the_limit(method: str, given: dict[str, Any]) -> None:
    plan = kofn.assign(X, method=method, seed=0, time_limit=1e-9, max_memory=1, **given)
    assert plan.status == "stopped"
    assert plan.info["distance_evals"] <= FEW_ROWS * len(X)
    assert len(set(plan.medoids.tolist())) == plan.k
    gaps = ((X[:, None, :] - X[plan.medoids]) ** 2).sum(axis=2)
    assert np.allclose(gaps[np.arange(len(X)), plan.labels], gaps.min(axis=1), rtol=1e-4)


@pytest.mark.parametrize("method", ["fasterpam", "fastpam1", "fastermsc", "alternating"])
def test_no_matrix_is_computed_that_takes_most_of_the_limit(method: str) -> None:
    wide = np.random.default_rng(0).normal(size=(6_000, 64)).astype(np.float32)
    plan = kofn.assign(wide, k=5, method=method, seed=0, time_limit=1e-3)
    assert plan.status == "stopped"
    assert plan.info["distance_evals"] <= FEW_ROWS * len(wide)


def test_no_eigendecomposition_begins_that_ends_beyond_the_limit() -> None:
    rows = X[:500]
    plan = kofn.assign(rows, k=4, method="sdp_kmeans", time_limit=1e-9)
    assert (plan.status, plan.info["steps"], plan.info["rank"], plan.bound) == ("stopped", 0, None, 0)
    assert np.bincount(plan.labels).min() >= 1
    plan = kofn.assign(rows, k=3, method="ila_sdp", init="kmeans", seed=0, time_limit=1e-9)
    assert (plan.status, plan.info["steps"]) == ("stopped", 0)
