"""Matchings of items with bins of few items each, against the shortest paths between bins; what `auto` takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import kofn
from kofn.assignment import balanced_assignment
from kofn.assignment.routing import _flows
from kofn.core.checks import InfeasibleError


@pytest.mark.parametrize(
    ("n", "bins", "capacity"), [(60, 60, 1), (60, 80, 1), (90, 40, 3), (60, 30, 2), (60, 60, None), (60, 20, None)]
)
@pytest.mark.parametrize("seed", range(3))
def test_bins_of_few_items_are_matched_with_prices_that_prove_it(
    n: int, bins: int, capacity: int | None, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    # Ties, and some bins that an item does not list.
    scores = rng.integers(0, 20, (n, bins)).astype(float) if seed else rng.random((n, bins))
    if seed == 2 and capacity is not None:
        scores[rng.random((n, bins)) < 0.3] = -np.inf
    call = {"scores": scores} if capacity is None else {"scores": scores, "capacity": capacity}
    plan = kofn.assign(**call, method="balanced_assignment")
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(plan.bound, rel=1e-12)
    listed = np.isfinite(scores)
    assert ((plan.u[:, None] + plan.v >= scores - 1e-9) | ~listed).all()
    monkeypatch.setattr(_flows, "_MOST_SLOTS", 0)
    paths = kofn.assign(**call, method="balanced_assignment")
    assert plan.value == pytest.approx(paths.value, rel=1e-12)


def test_items_that_cannot_all_be_matched_are_named() -> None:
    scores = np.random.default_rng(0).random((60, 60))
    scores[:3, 2:] = -np.inf
    with pytest.raises(InfeasibleError):
        kofn.assign(scores=scores, capacity=1)


def test_scores_alone_are_assigned_at_equal_loads_and_a_full_bin_names_the_exact_way() -> None:
    plan = kofn.assign(scores=np.ones((12, 3)))
    assert plan.method == "balanced_assignment"
    assert np.bincount(plan.labels).tolist() == [4, 4, 4]
    with pytest.raises(
        InfeasibleError, match="method='balanced_assignment' \\(the largest total within the capacities\\)"
    ):
        kofn.assign(scores=np.eye(3)[[0, 0, 1]], capacity=1, method="capped_routing")


def test_bins_of_unlike_capacities_that_add_up_to_the_bins() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 60))
    capacity = rng.permutation([0, 1, 2] * 20)
    plan = balanced_assignment(scores, capacity=capacity)
    slots = np.repeat(np.arange(60), capacity)
    rows, columns = linear_sum_assignment(scores[:, slots], maximize=True)
    assert plan.value == pytest.approx(scores[rows, slots[columns]].sum())
    assert plan.status == "optimal"
    assert (np.bincount(plan.labels, minlength=60) <= capacity).all()
