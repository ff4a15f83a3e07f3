"""What `auto` takes where all pairs are too many, and what that costs on real rows."""

from __future__ import annotations

import numpy as np
import pytest

import kofn
from kofn.core import dispatch
from kofn.datasets import load


def test_samples_stand_for_pools_whose_pairs_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    X = load("digits").X
    assert dispatch.choose("assign", {"X": X, "k": 10}) == "fasterpam"
    large = np.broadcast_to(np.float32(0), (70_000, 784))
    assert dispatch.choose("assign", {"X": large, "k": 10}) == "fastclara"
    assert dispatch.choose("assign", {"X": large[:10_000, :64], "k": 10}) == "fasterpam"
    monkeypatch.setattr(dispatch, "_PATIENCE", 0.0)
    assert dispatch.choose("assign", {"X": X, "k": 10}) == "fastclara"
    assert dispatch.choose("assign", {"X": X, "k": 10}, {"max_iter": 3}) == "fasterpam"
    assert kofn.assign(X, k=10, seed=0).method == "fastclara"


def test_a_large_pool_is_sampled_by_thousands() -> None:
    digits = load("digits").X
    rng = np.random.default_rng(0)
    X = (digits[rng.integers(0, len(digits), 20_000)] + rng.normal(size=(20_000, 64))).astype(np.float32)
    sampled = kofn.assign(X, k=10, seed=0, method="fastclara")
    assert sampled.info["sample_size"] == 4_000
    few = kofn.assign(X, k=10, seed=0, method="fastclara", sample_size=120)
    assert sampled.value < 0.99 * few.value
    assert kofn.assign(X[:19_999], k=10, seed=0, method="fastclara").info["sample_size"] == 120
