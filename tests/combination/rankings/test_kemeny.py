"""kemeny against every order, its integer programmes against its dynamic programme, and what majorities split."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import kofn
from kofn.combination import compare_rules, kemeny
from kofn.combination.rankings import _kemeny
from kofn.core.checks import InputError


def drawn(seed: int, most: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """A table of alternatives by judges with ties and gaps, and the judges' weights."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 4, (rng.integers(1, most + 1), rng.integers(1, 6))).astype(float)
    table[rng.random(table.shape) < 0.2] = np.nan
    table[0] = np.nan_to_num(table[0])
    weights = rng.integers(0, 3, table.shape[1]).astype(float)
    return table, weights if weights.any() else weights + 1


def overturned(table: np.ndarray, weights: np.ndarray, order: tuple[int, ...]) -> float:
    """The weight of the judges' preferences that an order turns round, pair by pair."""
    return math.fsum(
        weight
        for a, b in itertools.combinations(order, 2)
        for judge, weight in zip(table.T, weights, strict=True)
        if judge[b] > judge[a]
    )


@pytest.mark.parametrize("seed", range(20))
def test_no_order_overturns_less(seed: int) -> None:
    table, weights = drawn(seed)
    plan = kemeny(table, weights=weights)
    best = min(overturned(table, weights, order) for order in itertools.permutations(range(len(table))))
    assert plan.value == plan.bound == best == overturned(table, weights, tuple(plan.result.tolist()))
    assert plan.status == "optimal"
    for judge, share in zip(table.T, plan.spread, strict=True):
        pairs = [(a, b) for a, b in itertools.permutations(range(len(judge)), 2) if judge[a] > judge[b]]
        place = np.argsort(plan.result)
        assert share == pytest.approx(sum(place[a] > place[b] for a, b in pairs) / max(len(pairs), 1))


@pytest.mark.parametrize("seed", range(40))
def test_runs_that_may_be_exchanged_are_all_and_cost_nothing(seed: int) -> None:
    table, weights = drawn(seed)
    plan = kemeny(table, weights=weights)
    never = plan.info["never_compared"]  # last, and in no run
    order, runs = plan.result.tolist()[: plan.n - len(never)], plan.info["exchangeable"]
    for run in runs:
        begin = order.index(run[0])
        assert order[begin : begin + len(run)] == run
        for other in itertools.permutations(run):
            changed = (*order[:begin], *other, *order[begin + len(run) :])
            assert overturned(table, weights, changed) == plan.value
    for position, pair in enumerate(itertools.pairwise(order)):
        swapped = (*order[:position], pair[1], pair[0], *order[position + 2 :])
        free = any(set(pair) <= set(run) for run in runs)
        assert free == (overturned(table, weights, swapped) == plan.value)


def test_alternatives_that_are_alike_stand_by_their_rows() -> None:
    for table in ([[1.0, 1], [3, 3], [2, 2], [2, 2], [2, 2]], [[0.0], [5], [5], [5]]):
        plan = kemeny(table)
        (run,) = plan.info["exchangeable"]
        assert run == sorted(run)
        assert len(run) == 3


@pytest.mark.parametrize("seed", range(12))
def test_programmes_give_what_subsets_give(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((rng.integers(8, 16), rng.integers(3, 8)))
    weights = rng.random(table.shape[1]) if seed % 2 else None
    exact = kemeny(table, weights=weights)
    monkeypatch.setattr(_kemeny, "_SUBSETS", 2)
    other = kemeny(table, weights=weights)
    assert other.status == exact.status == "optimal"
    assert other.value == pytest.approx(exact.value, rel=1e-12)
    assert other.bound <= other.value


def test_thirty_alternatives_that_disagree_are_proven() -> None:
    plan = kemeny(np.random.default_rng(0).random((30, 7)))
    assert (plan.status, plan.info["components"]) == ("optimal", [1, 29])
    assert plan.bound == plan.value


def test_majorities_split_what_is_solved() -> None:
    """Two cycles of three, the one above the other in every ballot: 6 alternatives, no subset of more than 3."""
    cycle = np.array([[2.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]])
    plan = kemeny(np.concatenate([cycle, cycle + 10]))
    assert plan.info["components"] == [3, 3]
    assert sorted(plan.result[:3].tolist()) == [3, 4, 5]
    assert plan.value == 2 * 4.0  # a cycle of three costs one majority (2 of 3) and the minority of the others (1, 1)


def test_beyond_the_programmes_no_move_betters_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kemeny, "_SUBSETS", 3)
    monkeypatch.setattr(_kemeny, "_PROGRAMMES", 3)
    table = np.random.default_rng(1).random((6, 5))
    plan, weights = kemeny(table), np.ones(5)
    best = min(overturned(table, weights, order) for order in itertools.permutations(range(6)))
    assert plan.bound <= best <= plan.value
    assert plan.status == ("optimal" if plan.bound == plan.value else "local")
    order = plan.result.tolist()
    for item, target in itertools.product(order, range(6)):
        moved = [other for other in order if other != item]
        moved.insert(target, item)
        assert overturned(table, weights, tuple(moved)) >= plan.value


def test_a_time_limit_leaves_a_ranking_and_a_bound() -> None:
    table = np.random.default_rng(0).random((90, 9))
    plan = kofn.combine(rankings=table, method="kemeny", time_limit=0.2)
    assert sorted(plan.result.tolist()) == list(range(90))
    assert plan.bound <= plan.value
    assert plan.status in ("stopped", "optimal")


def test_lower_names_and_refusals() -> None:
    table = [[1.0, 9.0], [2.0, 3.0], [3.0, 5.0]]
    assert kemeny(table, lower=[1]).result.tolist() == kemeny([[1, -9], [2, -3], [3, -5]]).result.tolist()
    assert kemeny([[1.0, np.nan], [2.0, np.nan], [np.nan, 4.0]]).info["never_compared"] == [2]
    with pytest.raises(InputError, match="5,001 alternatives; kemeny compares every two of at most 5,000: use borda"):
        kemeny(np.ones((5001, 1)))
    with pytest.raises(InputError, match="lower names row 2"):
        kemeny(table, lower=[2])


def test_parts_that_no_judge_compares_are_told_apart() -> None:
    gap = np.nan
    ballots = [[1.0, gap, 2.0], [2.0, gap, 1.0], [gap, 3.0, gap], [gap, 1.0, gap], [gap, gap, gap]]
    assert kemeny(ballots).info["parts"] == [[0, 1], [2, 3]]
    ballots[3][2] = 5.0
    assert kemeny(ballots).info["parts"] == [[0, 1, 2, 3]]


def test_a_judge_of_no_weight_compares_nobody() -> None:
    nan = math.nan
    plan = kemeny([[4, 0, 0, nan], [1, 6, nan, 6], [7, 2, 2, nan]], weights=[0, 0, 3, 2])
    assert plan.info["never_compared"] == [1]
    assert kemeny([[4, 0, 0, nan], [1, 6, nan, 6], [7, 2, 2, nan]]).info["never_compared"] == []


def ranks_in_best_orders(table: np.ndarray, weights: np.ndarray) -> tuple[list[int], list[int]]:
    """The best and the worst rank in all orders of what is compared that overturn the least, 0 for the others."""
    heard = [
        item
        for item in range(len(table))
        if any(
            weight and not np.isnan(judge[item]) and (~np.isnan(judge)).sum() > 1
            for judge, weight in zip(table.T, weights, strict=True)
        )
    ]
    against = {(a, b): overturned(table[[a, b]], weights, (0, 1)) for a, b in itertools.permutations(heard, 2)}
    costs = {
        order: math.fsum(against[pair] for pair in itertools.combinations(order, 2))
        for order in itertools.permutations(heard)
    }
    least = min(costs.values())
    ranks = np.array([np.argsort(order) + 1 for order, cost in costs.items() if cost <= least + 1e-9])
    best, worst = [0] * len(table), [0] * len(table)
    for position, item in enumerate(heard):
        best[item], worst[item] = ranks[:, position].min(), ranks[:, position].max()
    return best, worst


def as_judges(wins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table of wins as judges of two alternatives each, with their weights."""
    pairs = [(a, b) for a, b in itertools.permutations(range(len(wins)), 2) if wins[a, b]]
    table = np.full((len(wins), len(pairs)), np.nan)
    for judge, (a, b) in enumerate(pairs):
        table[a, judge], table[b, judge] = 1.0, 0.0
    return table, np.array([float(wins[pair]) for pair in pairs])


@pytest.mark.parametrize("seed", range(60))
def test_ranks_as_good_are_those_of_all_best_orders(seed: int) -> None:
    table, weights = drawn(seed, 6)
    if seed % 2:
        rng = np.random.default_rng(seed)
        table, weights = as_judges(rng.integers(0, 3, (6, 6)) * (rng.random((6, 6)) < 0.4) + np.eye(6)[::-1])
    if seed % 3 == 0:
        weights = weights / 10  # 0.1 + 0.2 is a draw with 0.3
    plan = kemeny(table, weights=weights)
    best, worst = ranks_in_best_orders(table, weights)
    assert plan.info["best_rank"].tolist() == best
    assert plan.info["worst_rank"].tolist() == worst
    never = plan.info["never_compared"]
    assert never == [item for item, rank in enumerate(best) if not rank]
    assert plan.result.tolist()[plan.n - len(never) :] == never
    assert (plan.ranks()[never] == plan.n - len(never) + 1).all()


def test_who_is_first_is_first_in_a_best_order_and_not_by_a_chain_of_draws() -> None:
    wins = np.zeros((3, 3))
    wins[0, 1] = 2
    table, weights = as_judges(wins)
    draws = np.array([[1.0, np.nan], [np.nan, 1], [1, 1]])
    plan = kemeny(np.hstack([table, draws]), weights=[*weights, 1, 1])
    assert (plan.info["best_rank"].tolist(), plan.info["worst_rank"].tolist()) == ([1, 2, 1], [2, 3, 3])
    apart = np.zeros((4, 4))
    apart[0, 1], apart[1, 0], apart[2, 3], apart[3, 2] = 2, 1, 1, 2
    table, weights = as_judges(apart)
    assert compare_rules(table, weights=weights).winners["kemeny"] == [0, 3]


@pytest.mark.parametrize("seed", range(12))
def test_ranks_beyond_the_subsets_are_those_of_best_orders(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    table, weights = as_judges(rng.integers(0, 3, (6, 6)) * (rng.random((6, 6)) < 0.35) + np.eye(6)[::-1])
    best, worst = ranks_in_best_orders(table, weights)
    monkeypatch.setattr(_kemeny, "_SUBSETS", 4)
    plan = kemeny(table, weights=weights)
    sizes = plan.info["components"]
    low, high = plan.info["best_rank"], plan.info["worst_rank"]
    assert ((np.array(best) <= low) & (low <= high) & (high <= np.array(worst))).all()
    if max(sizes) <= 4:
        assert np.flatnonzero(low == 1).tolist() == [item for item, rank in enumerate(best) if rank == 1]
        assert np.flatnonzero(high == max(worst)).tolist() == [i for i, rank in enumerate(worst) if rank == max(worst)]
    if max(sizes) == 1:
        assert (low.tolist(), high.tolist()) == (best, worst)


def test_what_no_vote_compares_is_last_and_in_no_run() -> None:
    nan = math.nan
    plan = kemeny([[80.0, 70], [nan, nan], [79, 75]])
    assert (plan.result.tolist(), plan.ranks().tolist()) == ([0, 2, 1], [1, 3, 2])
    assert (plan.info["exchangeable"], plan.info["never_compared"]) == ([[0, 2]], [1])
    assert plan.to_frame()["worst_rank"].to_list() == [2, 2, 0]
    alone = kemeny([[1.0, nan], [nan, 2.0]])
    assert (alone.result.tolist(), alone.ranks().tolist(), alone.info["components"]) == ([0, 1], [1, 1], [])
