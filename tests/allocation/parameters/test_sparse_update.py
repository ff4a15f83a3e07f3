"""Which layers learn within bytes, against all combinations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import sparse_update


@pytest.mark.parametrize("biases", [False, True])
def test_the_choice_is_the_best_of_all_combinations(biases: bool) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shares = np.array([0, 0.3, 1.0])
        gains = np.c_[np.zeros(4), np.sort(rng.integers(0, 9, (4, 2)), axis=1)]
        weight, kept, own = rng.integers(5, 40, 4), rng.integers(5, 40, 4), rng.integers(1, 9, 4)
        more = np.cumsum(rng.integers(0, 4, 4)) if biases else None
        plan = sparse_update(
            gains, shares=shares, weight_bytes=weight, activation_bytes=kept, budget=70,
            bias_gains=more, bias_bytes=own if biases else None,
        )  # fmt: skip
        best = 0.0
        for levels in itertools.product(range(3), repeat=4):
            for last in range(5 if biases else 1):
                cost = sum(int(np.ceil((weight[i] + kept[i]) * shares[s])) for i, s in enumerate(levels))
                cost += int(own[4 - last :].sum()) if last else 0
                if cost <= 70:
                    gain = sum(gains[i, s] for i, s in enumerate(levels)) + (more[last - 1] if last else 0)
                    best = max(best, float(gain))
        assert plan.value == pytest.approx(best)
        assert plan.used["bytes"] <= 70
        assert plan.status == "optimal"


def test_refusals() -> None:
    def call(**changes: object) -> None:
        words = {"gains": [[0, 1.0]], "shares": [0, 1], "weight_bytes": [4], "activation_bytes": [4], "budget": 9}
        words |= changes
        sparse_update(words.pop("gains"), **words)

    refused(lambda: call(gains=[[1, 2.0]]), "gains at row 0 has 1 for a share of 0")
    refused(lambda: call(shares=[0, 0.5, 1]), "gains has 2 columns for 3 shares")
    refused(lambda: call(shares=[0, 2]), "shares are [0.0, 2.0]")
    refused(lambda: call(bias_bytes=[1]), "bias_bytes without bias_gains")
    refused(lambda: call(bias_gains=[1, 2]), "bias_gains")
    refused(lambda: call(weight_bytes=[1, 2]), "weight_bytes")
