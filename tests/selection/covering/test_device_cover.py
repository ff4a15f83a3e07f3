"""Farthest first on a device gives the plan of the processor, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from device_pools import DEVICE, KINDS, drawn
from refusals import refused

from kofn.objectives.kcenter import distances_of_pairs, distances_to
from kofn.selection import farthest_first

torch = pytest.importorskip("torch")

from kofn.objectives import _device_cover  # noqa: E402

METRICS = ("euclidean", "sqeuclidean", "cosine")
N, D = 36, 4
WHERE: tuple[dict[str, Any], ...] = (
    {"k": 15},
    {"k": 9, "include": [30, 2], "exclude": [0, 7]},
    {"k": 9, "start": [3]},
    {"k": 12, "groups": np.arange(N) % 3, "quotas": {0: (6, None), 1: (1, 2)}},
    {"budget": 30, "costs": np.arange(N) % 5 + 1},
    {"k": N},
)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_that_of_the_processor(kind: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = KINDS.index(kind) + METRICS.index(metric)
    monkeypatch.setattr(_device_cover, "_BATCH", 1 if first % 2 else 256)
    X = drawn(kind, 1, N, D)
    for number in range(first, first + 3):
        where = WHERE[number % len(WHERE)]
        plain = farthest_first(X, metric=metric, **where)
        plan = farthest_first(X, metric=metric, device=DEVICE, **where)
        assert plan.equals(plain), (where, plan.indices, plain.indices)
        assert plan.gains.tobytes() == plain.gains.tobytes()


def test_exact_distances_are_taken_of_few_pairs() -> None:
    X = drawn("gaussian", 2, 600, 8)
    cover = _device_cover.DeviceCover(X, "euclidean", torch.device("cpu"))
    open_items = np.ones(600, bool)
    item = cover.central(open_items)
    before = cover._taken
    for _ in range(20):
        cover.add(item)
        item = cover.farthest(open_items)
    # Of each pick's rivals, not of the pool.
    assert cover._taken - before < 20 * 30


def test_pairs_have_the_bits_of_whole_columns() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        X = drawn(kind, 3, 40, 5)
        items, others = rng.integers(0, 40, size=(2, 40))
        for metric in METRICS:
            pairs = distances_of_pairs(X, items, others, metric)
            whole = [distances_to(X, X[j], metric)[i] for i, j in zip(items, others, strict=True)]
            assert pairs.tobytes() == np.array(whole).tobytes()
            assert distances_of_pairs(X, items[:1], others[:1], metric).tobytes() == np.array(whole[:1]).tobytes()


def test_limits_and_refusals() -> None:
    X = drawn("grid", 4, 200, 3)
    plan = farthest_first(X, k=30, device=DEVICE, time_limit=1e-9)
    assert plan.status == "stopped"
    assert len(set(plan.indices.tolist())) == 30
    refused(
        lambda: farthest_first(scipy.sparse.csr_array(X), metric="cosine", k=3, device=DEVICE),
        "X is a sparse matrix, and a device compares dense rows",
    )
    refused(lambda: farthest_first(X * 1e160, k=3, device=DEVICE), "whose squares float64 cannot hold")
