"""Cheapest choices to the last unit, against every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError
from kofn.core.whole_choices import cheapest_choice


def problem(seed):
    """Items with large costs that differ by little, in groups of two columns; the choices within both."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 9))
    costs = 10 ** int(rng.integers(7, 13)) + rng.integers(0, 1000, n)
    columns = rng.integers(0, 3, (2, n))
    matrix = np.vstack([columns[j] == group for j in range(2) for group in range(3)]).astype(float)
    low = rng.integers(0, 2, 6)
    high = low + rng.integers(0, 3, 6)
    every = [np.array(x) for x in itertools.product((0, 1), repeat=n)]
    return costs, matrix, low, high, [x for x in every if ((low <= matrix @ x) & (matrix @ x <= high)).all()]


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_any_choice_becomes_the_cheapest(kind):
    tried = 0
    for seed in range(60):
        costs, matrix, low, high, allowed = problem(seed)
        if not allowed:
            continue
        least = min(int(costs @ x) for x in allowed)
        # HiGHS would give one that is within its tolerance of the cheapest.
        near = next(x for x in allowed if int(costs @ x) <= least + 5000)
        found = cheapest_choice(costs.astype(kind), scipy.sparse.csc_array(matrix), low, high, near)
        assert ((low <= matrix @ found) & (matrix @ found <= high)).all()
        assert int(costs @ found) == least
        tried += int(costs @ near) > least
    assert tried > 10


@pytest.mark.parametrize("base", [10**3, 10**7, 10**9, 10**12])
def test_a_budget_that_just_pays_for_the_minima_is_enough(base):
    costs = [base + 331, base, base + 126, base + 452, base + 735, base + 460, base + 358]
    words = {
        "scores": np.ones(7),
        "costs": costs,
        "groups": {"a": list("bcbbccc"), "b": list("bacbbac")},
        "quotas": {"a": {"c": (1, None)}, "b": dict.fromkeys("abc", (1, 3))},
    }
    ways = [
        sum(costs[i] for i in some)
        for size in range(3, 8)
        for some in itertools.combinations(range(7), size)
        if {"b", "a", "c"} == {"bacbbac"[i] for i in some}
        and "c" in {"bcbbccc"[i] for i in some}
        and max("".join("bacbbac"[i] for i in some).count(x) for x in "abc") <= 3
    ]
    plan = kofn.select(budget=min(ways), **words)
    assert sum(costs[i] for i in plan.indices) == min(ways)
    less = f"cost at least {min(ways):g}" if float(f"{min(ways):g}") == min(ways) else f"cost at least {min(ways):,}"
    refused(lambda: kofn.select(budget=min(ways) - 1, **words), f"{less}, over the budget of", InfeasibleError)
    refused(lambda: kofn.select(budget=min(ways) - 1, **words), "by 1;", InfeasibleError)


def test_totals_beyond_64_bits_are_told_apart():
    big = 2**62
    costs = np.array([big + 3, big + 1, big + 2, big])
    matrix = scipy.sparse.csc_array(np.ones((1, 4)))
    found = cheapest_choice(costs, matrix, np.array([3]), np.array([3]), np.array([1, 0, 1, 1]))
    assert found.tolist() == [0, 1, 1, 1]
