"""Whole units in proportion to scores: against the `apportionment` package, and against exhaustive search."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core.checks import InfeasibleError, InputError

METHODS = ("largest_remainder", "dhondt", "sainte_lague", "huntington_hill", "adams", "dean")
FIRST_IS_DUE = ("huntington_hill", "adams", "dean")


def share(votes: Any, budget: int, method: str, **words: Any) -> Any:
    return kofn.allocate(scores=votes, budget=budget, method=method, **words)


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_apportionment_package(method: str) -> None:
    methods = pytest.importorskip("apportionment.methods")
    theirs = {"sainte_lague": "saintelague", "huntington_hill": "huntington"}.get(method, method)
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(60):
        votes = rng.integers(1, 10**6, rng.integers(2, 12))
        budget = int(rng.integers(len(votes), 60))
        try:
            expected = methods.compute(theirs, votes.tolist(), budget, fractions=True, tiesallowed=False)
        except methods.TiesException:
            continue
        compared += 1
        assert share(votes, budget, method).amounts.tolist() == list(expected)
    assert compared > 50


# What each method makes as small as it can, over all amounts that add up.
LEAST = {
    "largest_remainder": lambda a, v: ((a - v * a.sum() / v.sum()) ** 2).sum(),
    "dhondt": lambda a, v: (a / v).max(),
    "sainte_lague": lambda a, v: ((a - v * a.sum() / v.sum()) ** 2 / v).sum(),
    "huntington_hill": lambda a, v: ((a - v * a.sum() / v.sum()) ** 2 / np.maximum(a, 1e-9)).sum(),
    "adams": lambda a, v: -(a / v).min(),
}


@pytest.mark.parametrize("method", LEAST)
def test_has_the_least_of_what_defines_it(method: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(12):
        votes = rng.integers(1, 100, 4).astype(float)
        budget = int(rng.integers(4, 9))
        plans = [np.array(a) for a in itertools.product(range(budget + 1), repeat=4) if sum(a) == budget]
        least = min(LEAST[method](amounts, votes) for amounts in plans)
        plan = share(votes, budget, method)
        assert plan.amounts.sum() == budget
        assert LEAST[method](plan.amounts, votes) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_held_and_marginals_bracket_the_price(method: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        n = int(rng.integers(2, 9))
        least = rng.integers(0, 3, n)
        most = least + rng.integers(1, 6, n)
        low = int(np.maximum(least, 1).sum())
        budget = int(rng.integers(low, most.sum() + 1)) if low <= most.sum() else low
        plan = share(rng.random(n) + 0.01, budget, method, bounds=np.stack([least, most], axis=1))
        assert plan.amounts.sum() == plan.used["budget"] == budget
        assert ((plan.amounts >= least) & (plan.amounts <= most)).all()
        assert plan.amounts.dtype == np.int64
        assert np.nanmax(plan.marginal_up, initial=-np.inf) <= np.nanmin(plan.marginal_down, initial=np.inf) + 1e-12
        assert (np.isnan(plan.marginal_up) >= (plan.amounts == most)).all()
        uniform = plan.info["uniform"]
        assert uniform["amounts"].sum() == budget
        better = plan.value - uniform["value"] if plan.sense == "max" else uniform["value"] - plan.value
        assert better >= -1e-12


def test_exact_ties_are_told_and_go_to_the_first_rows() -> None:
    plan = kofn.allocate(scores=[3, 1, 1, 1], budget=4, method="dhondt", ids=["a", "b", "c", "d"])
    assert plan.amounts.tolist() == [3, 1, 0, 0]
    assert plan.info["tied"].tolist() == [0, 1, 2, 3]
    assert plan.info["tied_units"] == 2
    assert "2 of the units went to the first in order of 4 items" in plan.info["warnings"][0]
    # Decimals that only look alike are no tie: 0.1 + 0.2 is above 0.3.
    assert "tied" not in share([0.3, 0.1 + 0.2], 1, "dhondt").info
    assert share([0.3, 0.1 + 0.2], 1, "dhondt").amounts.tolist() == [0, 1]
    large = share([2**52, 2**52 + 1], 1, "sainte_lague")
    assert large.amounts.tolist() == [0, 1]
    assert "tied" not in share([5, 4, 1], 10, "largest_remainder").info


def test_who_has_no_score_gets_what_the_others_cannot_take() -> None:
    assert share([5, 0, 0], 7, "dhondt", bounds=(0, 4)).amounts.tolist() == [4, 2, 1]
    assert share([5, 0, 0], 4, "huntington_hill", bounds=(0, 4)).amounts.tolist() == [4, 0, 0]
    assert share([5, 0, 1], 3, "adams", bounds=[(0, 1), (0, 5), (0, 2)]).amounts.tolist() == [1, 0, 2]


def test_budgets_of_any_size_add_up() -> None:
    votes = [3, 5, 7]
    for method in METHODS:
        for budget in (10**6, 10**12, 2**53):
            plan = share(votes, budget, method)
            assert sum(plan.amounts.tolist()) == budget
            assert np.abs(plan.amounts - np.array(votes) * (budget / 15)).max() <= 1.5
    assert share([1.0, 2.0], 0, "dhondt").amounts.tolist() == [0, 0]


def by_one(votes: list[int], budget: int, first: float) -> list[int]:
    """Unit by unit, as ballots are counted by hand."""
    amounts = [0] * len(votes)
    for _ in range(budget):
        claims = [vote / (units + 0.5 if units else first) for vote, units in zip(votes, amounts, strict=True)]
        amounts[claims.index(max(claims))] += 1
    return amounts


def test_the_modified_divisor_and_the_quota_of_droop() -> None:
    rng = np.random.default_rng(3)
    differ = 0
    for _ in range(30):
        votes = rng.integers(1, 10**5, 5).tolist()
        plain, modified = (share(votes, 9, "sainte_lague", first=first).amounts.tolist() for first in (None, 0.7))
        assert (plain, modified) == (by_one(votes, 9, 0.5), by_one(votes, 9, 0.7))
        differ += plain != modified
    assert differ
    # A unit costs 46 + 1 by Droop, 56 by Hare: remainders decide differently.
    assert share([150, 90, 40], 5, "largest_remainder").amounts.tolist() == [3, 1, 1]
    assert share([150, 90, 40], 5, "largest_remainder", quota="droop").amounts.tolist() == [3, 2, 0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"budget": 3, "bounds": (2, None)}, r"budget=3 is below 6, the sum of the least .*raise it by 3"),
        ({"budget": 30, "bounds": (1, 4)}, r"budget=30 is above 12, the sum of the most .*that of the least is 3"),
        (
            {"budget": 3, "bounds": [(0, 9), (1.2, 1.8), (0, 9)]},
            r"bounds at row 1 is \(1.2, 1.8\), and no whole number",
        ),
        ({"budget": 2, "method": "huntington_hill"}, "budget=2 is below 3: huntington_hill gives every item"),
    ],
)
def test_what_cannot_be_met_says_by_how_much(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InfeasibleError, match=says):
        kofn.allocate(**{"scores": [5, 3, 1], "method": "dhondt", **words})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"budget": 2.5}, "budget=2.5: give a whole number"),
        ({"budget": 2**54}, "beyond 2\\*\\*53 units"),
        ({"scores": [1, -2]}, "scores at row 1 is -2; votes and sizes must be >= 0"),
        ({"scores": [0, 0]}, "scores are all zero"),
        ({"method": "sainte_lague", "first": 2}, "first=2: give a number between 0 and 1.5"),
        ({"bounds": (3, 1)}, r"bounds at row 0 is \(3, 1\); give 0 <= least <= most"),
    ],
)
def test_bad_input_is_named(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.allocate(**{"scores": [5, 3, 1], "budget": 4, "method": "dhondt", **words})
