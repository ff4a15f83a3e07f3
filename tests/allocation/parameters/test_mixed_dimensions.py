"""Widths of rows within bytes: never over them, never less for what is looked up more, and as wide as fits."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import mixed_dimensions
from kofn.core.checks import InfeasibleError


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_bytes_are_kept_and_frequent_rows_are_no_narrower(temperature: float) -> None:
    rng = np.random.default_rng(4)
    counts = np.floor(1000 / rng.permutation(np.arange(1, 301)))
    last = np.zeros(300)
    for budget in (4000, 9000, 20000, 10**6):
        plan = mixed_dimensions(counts, budget=budget, dim=16, temperature=temperature)
        widths, sizes = plan.info["widths"], np.bincount(plan.info["block"])
        used = 4 * sum(w * s + (w * 16 if w < 16 else 0) for w, s in zip(widths, sizes, strict=True))
        assert plan.used["bytes"] == used <= budget
        # More bytes make no row narrower.
        assert (plan.amounts >= last).all()
        last = plan.amounts
        order = np.argsort(-counts, kind="stable")
        assert (np.diff(plan.amounts[order]) <= 0).all()
        if temperature == 0:
            assert len(set(widths.tolist())) == 1
    assert (plan.amounts == 16).all()


def test_refusals() -> None:
    refused(lambda: mixed_dimensions([1, 2], budget=4, dim=2), "widths of 1 take", InfeasibleError)
    refused(lambda: mixed_dimensions([1, -2], budget=99, dim=2), "counts")
    refused(lambda: mixed_dimensions([1, 2], budget=99, dim=2, temperature=2), "temperature")
    refused(lambda: mixed_dimensions([1, 2], budget=99, dim=2, bytes_each=0), "bytes_each=0")
