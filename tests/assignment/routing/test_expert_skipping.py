"""Expert skipping against a plain loop over items: which routes are left, what they weigh, who is protected."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.special import expit, softmax

from kofn.assignment import expert_skipping, token_choice


def plainly(scores: np.ndarray, per_item: int, threshold: float, protected: set[int], affinity: str) -> list[list[int]]:
    """The bins of each item, one item after the other."""
    out = []
    for i, row in enumerate(scores.tolist()):
        if max(row) == -math.inf:
            out.append([])
            continue
        felt = softmax(row) if affinity == "softmax" else expit(row)
        order = [j for j in sorted(range(len(row)), key=lambda j: (-row[j], j)) if row[j] > -math.inf][:per_item]
        kept = [j for j in order if j == order[0] or i in protected or felt[j] / felt[order[0]] >= threshold]
        out.append(sorted(kept))
    return out


def rows_of(plan: Any) -> list[list[int]]:
    return [plan.bins[a:b].tolist() for a, b in itertools.pairwise(plan.indptr)]


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid"])
def test_what_is_skipped_is_what_a_plain_loop_skips(affinity: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, bins = int(rng.integers(1, 12)), int(rng.integers(1, 6))
        scores = rng.normal(size=(n, bins))
        scores[rng.random(scores.shape) < 0.15] = -np.inf
        per_item, threshold = int(rng.integers(1, bins + 1)), float(rng.uniform(0.1, 0.9))
        weights = 1.0 + rng.permutation(n)
        plan = expert_skipping(
            scores, per_item=per_item, threshold=threshold, weights=weights, protect=0.3, affinity=affinity
        )
        protected = set(np.argsort(-weights)[: math.ceil(0.3 * n)].tolist())
        assert rows_of(plan) == plainly(scores, per_item, threshold, protected, affinity)
        full = token_choice(scores, per_item=per_item, affinity=affinity)
        assert plan.info["skipped"] == len(full.bins) - len(plan.bins)
        assert plan.bound == pytest.approx(full.value)
        assert plan.value <= plan.bound * (1 + 1e-12)


def test_the_median_skips_half_and_shares_sum_to_one() -> None:
    scores = np.random.default_rng(1).normal(size=(501, 8))
    plan = expert_skipping(scores, per_item=2)
    assert (plan.info["candidates"], plan.info["skipped"], plan.info["protected"]) == (501, 250, 0)
    sums = np.add.reduceat(plan.weights.astype(float), plan.indptr[:-1])
    np.testing.assert_allclose(sums, 1, rtol=1e-6)
    again = expert_skipping(scores, per_item=2, threshold=plan.info["threshold"])
    assert rows_of(again) == rows_of(plan)
    assert rows_of(expert_skipping(scores, per_item=2, threshold=0)) == rows_of(token_choice(scores, per_item=2))
    assert np.diff(expert_skipping(scores, per_item=2, threshold=1.0).indptr).tolist() == [1] * 501


def test_equals_are_skipped_and_protected_alike() -> None:
    # The same gaps at other heights: a softmax rounds their ratios differently.
    scores = np.array([[0.1, 0.0], [7.1, 7.0], [-3.0, -3.1], [1e4 + 0.125, 1e4]]).astype(np.float32).astype(float)
    scores[:, 1] = scores[:, 0] - 0.125
    plan = expert_skipping(scores, per_item=2, threshold=float(np.exp(-0.125)))
    assert np.diff(plan.indptr).tolist() == [2, 2, 2, 2]
    tied = expert_skipping(scores, per_item=2, threshold=1.0, weights=[5, 5, 5, 1], protect=0.25)
    assert (tied.info["protected"], np.diff(tied.indptr).tolist()) == (3, [2, 2, 2, 1])
    assert expert_skipping(np.full((3, 2), -np.inf), per_item=2).info["threshold"] == 0


def test_refusals() -> None:
    scores = np.zeros((3, 2))
    for call, says in (
        (lambda: expert_skipping(scores, per_item=2, threshold=1.5), "threshold=1.5"),
        (lambda: expert_skipping(scores, per_item=2, protect=-0.1), "protect=-0.1"),
        (lambda: expert_skipping(scores, per_item=3), "per_item=3 of 2 bins"),
        (lambda: expert_skipping(scores, per_item=2, affinity="none"), "affinity='none'"),
        (lambda: expert_skipping(scores, per_item=2, weights=[1.0, 2.0]), "weights has 2"),
        (lambda: expert_skipping([1.0, 2.0], per_item=1), "give (n, bins)"),
    ):
        refused(call, says)
