"""FasterPAM makes the same swaps with the bounds of a device, and tries few candidates on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_pools import DEVICE, KINDS, drawn
from refusals import refused

import kofn.objectives.similarity as similarity
from kofn.assignment import fasterpam
from kofn.assignment.medoids import _sources, _swaps
from kofn.core.plans import Assignment

torch = pytest.importorskip("torch")
METRICS = ("euclidean", "sqeuclidean", "cosine")
INITS = ("lab", "build", "random")


@pytest.fixture(params=["a small table", "rows on demand"])
def sources(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pools are compared in float64; in others distances are those of a matrix in the precision of X."""
    small = request.param == "a small table"
    for module in (_sources, similarity):
        monkeypatch.setattr(module, "is_small", lambda _n, _d: small)
    monkeypatch.setattr(_swaps, "_FEWEST", 3)


def same(plan: Assignment, plain: Assignment) -> bool:
    counted = ("swaps", "rounds", "swap_evaluations")
    return plan.equals(plain) and [plan.info[name] for name in counted] == [plain.info[name] for name in counted]


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_swaps_are_those_of_the_processor(kind: str, metric: str) -> None:
    X = drawn(kind, 1, 45, 4)
    distinct, first = len(np.unique(X, axis=0)), KINDS.index(kind) + METRICS.index(metric)
    for seed in range(first, first + 2):
        words: dict[str, Any] = {"k": min((2, 7, 12)[seed % 3], distinct), "metric": metric, "seed": seed}
        words["init"] = INITS[seed % 3]
        if seed % 2:
            words["weights"] = np.array([1.0, 2.0, 5e3])[np.arange(45) % 3]
        assert same(fasterpam(X, device=DEVICE, **words), fasterpam(X, **words))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_that_are_given_are_compared_as_they_are(dtype: Any) -> None:
    X = drawn("grid", 2, 80, 3).astype(np.float64)
    distances = np.abs(X[:, None] - X[None]).sum(axis=2).astype(dtype)
    for k in (2, 9):
        plain = fasterpam(distances=distances, k=k, seed=0)
        assert same(fasterpam(distances=distances, k=k, seed=0, device=DEVICE), plain)
        assert same(fasterpam(distances=distances, k=k, seed=0, device=DEVICE, max_memory="1100kB"), plain)


def test_few_candidates_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    X = drawn("gaussian", 3, 600, 6)
    monkeypatch.setattr(_sources, "is_small", lambda _n, _d: False)
    tried: list[int] = []
    sweep = _swaps.BoundedSwaps.sweep

    def counted(self: _swaps.BoundedSwaps, rows: Any, candidates: Any, patience: int) -> None:
        tried.extend(candidates.tolist())
        sweep(self, rows, candidates, patience)

    monkeypatch.setattr(_swaps.BoundedSwaps, "sweep", counted)
    plan = fasterpam(X, k=6, seed=0, device=DEVICE)
    assert plan.status == "local"
    # At least a round without a swap looks at all of them.
    assert plan.info["swap_evaluations"] > 600 * 600
    assert plan.info["swaps"] <= len(tried) <= 3 * plan.info["swaps"] + 10


def test_limits_and_refusals() -> None:
    X = drawn("gaussian", 4, 300, 3)
    plan = fasterpam(X, k=5, seed=0, device=DEVICE, time_limit=1e-9)
    assert plan.status == "stopped"
    assert len(set(plan.medoids.tolist())) == 5
    assert same(fasterpam(X, k=5, seed=0, max_iter=1, device=DEVICE), fasterpam(X, k=5, seed=0, max_iter=1))
    refused(lambda: fasterpam(X, k=5, device=DEVICE, max_memory=10_000), "max_memory=10000 is too little for k-medoids")
