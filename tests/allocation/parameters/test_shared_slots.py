"""Weights over few stored ones: even loads, and nothing shared where there is no need."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import SharedSlots, shared_slots


@pytest.mark.parametrize(("n", "budget", "chunk"), [(1000, 64, 8), (997, 96, None), (50, 50, None), (1000, 7, 1)])
def test_loads_differ_by_at_most_one_and_partitions_are_whole(n: int, budget: int, chunk: int | None) -> None:
    shared = shared_slots(n, budget, chunk=chunk, seed=3)
    assert isinstance(shared, SharedSlots)
    assert shared.loads.sum() == n
    assert np.ptp(shared.loads) <= 1
    for begin in range(0, n - budget + 1, budget):
        assert sorted(shared.slots[begin : begin + budget]) == list(range(budget))
    assert shared.slots[:budget].tolist() == list(range(budget))
    assert set(shared.signs.tolist()) <= {-1, 1}
    again = shared_slots(n, budget, chunk=chunk, seed=3)
    assert (again.slots == shared.slots).all()
    if n > budget:
        assert (shared_slots(n, budget, chunk=chunk, seed=4).slots != shared.slots).any()


def test_shared_inner_products_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64))
    estimates = []
    for seed in range(400):
        shared = shared_slots(64, 16, chunk=2, seed=seed)
        signs = np.repeat(shared.signs, 2)
        sums = [np.bincount(shared.slots, signs * vector, 16) for vector in (x, y)]
        estimates.append(float(sums[0] @ sums[1]))
    error = np.mean(estimates) - x @ y
    assert abs(error) < 4 * np.std(estimates) / 20


def test_refusals() -> None:
    refused(lambda: shared_slots(4, 5), "budget=5 is above n=4")
    refused(lambda: shared_slots(9, 6, chunk=4), "chunk=4 does not divide budget=6")
