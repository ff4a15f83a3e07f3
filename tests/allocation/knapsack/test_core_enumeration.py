"""Plans near the bound of prices, by enumeration: against every choice, and against HiGHS on the whole program."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.allocation.knapsack import _core_enumeration
from kofn.allocation.knapsack._core_enumeration import OPEN, Deviations, least_gap
from kofn.allocation.knapsack._core_search import Search
from tests.allocation.knapsack.test_side_constraints import by_highs, question


def drawn(rng: np.random.Generator) -> Deviations:
    """Nine items of one or more levels beside the best one, under two rows, of which one has two ends."""
    item = np.concatenate([np.arange(9), rng.integers(0, 9, 5)])
    excess = rng.integers(0, 30, len(item)).astype(np.float64)
    order = np.argsort(excess, kind="stable")
    return Deviations(
        excess=excess[order],
        item=item[order].astype(np.int64),
        change=rng.integers(-6, 7, (len(item), 2)).astype(np.float64),
        prices=np.array([1.5, rng.choice([0.0, -1.0, 2.0])]),
        above=np.array([float(rng.integers(-4, 12)), 9.0]),
        below=np.array([OPEN, float(rng.integers(-3, 6))]),
    )


def every_gap(core: Deviations) -> float:
    """The least gap over all sets of at most four deviations, none of the same item."""
    best = np.inf
    for size in range(5):
        for chosen in map(list, itertools.combinations(range(len(core.excess)), size)):
            if len(set(core.item[chosen].tolist())) < size:
                continue
            moved = core.change[chosen].sum(axis=0)
            over, under = core.above - moved, core.below + moved
            if min(over.min(), under.min()) >= 0:
                worth = np.where(core.prices > 0, core.prices * over, -core.prices * np.where(core.prices, under, 0))
                best = min(best, core.excess[chosen].sum() + worth.sum())
    return float(best)


def test_the_least_gap_is_that_of_every_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core_enumeration, "_FIRST", 6)
    rng, settled = np.random.default_rng(3), 0
    for _ in range(12):
        core = drawn(rng)
        chosen, sets = least_gap(core, lambda: False)
        assert sets > 0
        if chosen is None:
            # Whatever there is may need a deviation that was not among those that were looked at.
            continue
        settled += 1
        assert len(set(core.item[chosen].tolist())) == len(chosen)
        moved = core.change[chosen].sum(axis=0)
        over, under = core.above - moved, core.below + moved
        assert min(over.min(), under.min()) >= 0
        worth = np.where(core.prices > 0, core.prices * over, -core.prices * np.where(core.prices, under, 0))
        assert core.excess[chosen].sum() + worth.sum() <= every_gap(core)
    assert settled >= 6


def test_too_many_sets_are_left_to_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core_enumeration, "_MOST_SETS", 5)
    loss, sizes, levels, budget = question(200, 3)
    ms = np.random.default_rng(3).integers(1, 50, 200)[:, None] * levels
    words: dict[str, Any] = {"budget": budget, "sizes": sizes, "levels": levels, "resources": {"ms": ms}}
    few = kofn.allocate(loss, **words, limits={"ms": int(ms[:, 3].sum())})
    monkeypatch.undo()
    many = kofn.allocate(loss, **words, limits={"ms": int(ms[:, 3].sum())})
    assert few.info["sets"] == 6 < many.info["sets"]
    assert few.info["columns"] > many.info["columns"]
    assert few.value == pytest.approx(many.value, rel=1e-12)
    assert few.status == many.status == "optimal"


@pytest.mark.parametrize("whole", [True, False])
def test_two_resources_need_no_whole_program(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, sizes, levels, budget = question(250, 1)
    took: Any = np.random.default_rng(1).integers(1, 50, 250)[:, None] * levels
    limit: Any = int(took[:, 3].sum() * 0.97)
    if not whole:
        took, limit = took / 7, limit / 7
    monkeypatch.setattr(Search, "program", None)
    plan = kofn.allocate(loss, budget=budget, sizes=sizes, levels=levels, resources={"ms": took}, limits={"ms": limit})
    best = by_highs(loss, [(sizes[:, None] * levels, -np.inf, budget), (took, -np.inf, limit)])
    assert plan.value == pytest.approx(best, rel=1e-9)
    assert (plan.status, plan.gap) == ("optimal", 0.0)
    assert plan.used["ms"] <= limit * (1 + 1e-13)


def test_limits_between_whole_numbers_bound_as_the_number_below() -> None:
    loss, sizes, levels, budget = question(200, 2)
    took = np.random.default_rng(2).integers(1, 50, 200)[:, None] * levels
    limit = int(took[:, 3].sum() * 0.97)
    plans = [
        kofn.allocate(loss, budget=budget, sizes=sizes, levels=levels, resources={"ms": took}, limits={"ms": end})
        for end in (limit, limit + 0.9)
    ]
    assert plans[0].amounts.tolist() == plans[1].amounts.tolist()
    assert plans[0].info["sets"] == plans[1].info["sets"] > 0
