"""Capped routing: two independent algorithms, brute force, the law of no justified envy, and its errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.assignment import capped_routing, token_choice
from kofn.assignment.routing import _scores as routing
from kofn.core.checks import InfeasibleError, InputError


def table(rng: np.random.Generator, case: int) -> tuple[Any, Any, int]:
    """Scores with ties, unlisted bins and both precisions; capacities from none to plenty."""
    n, bins = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    scores = rng.integers(-2, 5, (n, bins)).astype(float) if case % 2 else rng.random((n, bins))
    if case % 3 == 0:
        scores[rng.random(scores.shape) < 0.3] = -np.inf
    if case % 5 == 0:
        scores = scores.astype(np.float32)
    per_item = int(rng.integers(1, bins + 1))
    return scores, rng.integers(0, max(2, n * per_item // bins + 2), bins), per_item


def rows_of(plan: Any) -> list[list[int]]:
    return [plan.bins[a:b].tolist() for a, b in itertools.pairwise(plan.indptr)]


def envy(scores: Any, room: Any, per_item: int, held: list[list[int]]) -> list[tuple[int, int]]:
    """Pairs of an item and a bin that it wants and that has no right to refuse it."""
    out = []
    inside = [[i for i, bins in enumerate(held) if j in bins] for j in range(scores.shape[1])]
    for i, j in itertools.product(*map(range, scores.shape)):
        if j in held[i] or scores[i, j] == -np.inf:
            continue
        wants = len(held[i]) < per_item or min(scores[i, held[i]]) < scores[i, j]
        if wants and (len(inside[j]) < room[j] or min(scores[inside[j], j], default=math.inf) < scores[i, j]):
            out.append((i, j))
    return out


def best_total(scores: Any, room: Any, per_item: int) -> float:
    """The best total by linear programming, whose vertices are whole here (a b-matching in a bipartite graph)."""
    from scipy.optimize import linprog

    n, bins = scores.shape
    pairs = [(i, j) for i, j in itertools.product(range(n), range(bins)) if scores[i, j] > 0]
    if not pairs:
        return 0.0
    limits = np.zeros((n + bins, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        limits[i, column] = limits[n + j, column] = 1
    found = linprog(
        [-scores[pair] for pair in pairs], A_ub=limits, b_ub=[*[per_item] * n, *room], bounds=(0, 1), method="highs"
    )
    return float(-found.fun)


@pytest.mark.parametrize("block", range(4))
def test_every_mode_on_small_tables(block: int) -> None:
    rng = np.random.default_rng(block)
    envious = contested = 0
    for case in range(150):
        scores, room, per_item = table(rng, case)
        best = best_total(scores.astype(float), room, per_item)
        for overflow in ("drop", "reroute"):
            plan = capped_routing(scores, capacity=room, per_item=per_item, overflow=overflow)
            held = rows_of(plan)
            assert (plan.col_margin <= room).all()
            assert (plan.row_margin <= per_item).all()
            total = math.fsum(float(scores[i, j]) for i, bins in enumerate(held) for j in bins)
            assert plan.value == pytest.approx(total, abs=1e-9)
            assert plan.info["unfilled"] == len(scores) * per_item - len(plan.bins)
            assert plan.value <= best + 1e-9
            assert plan.bound >= best - 1e-6
            if plan.status == "optimal":
                assert plan.value == pytest.approx(best, abs=1e-6)
                assert plan.gap == pytest.approx(0, abs=1e-12)
            if overflow == "reroute":
                assert not envy(scores, room, per_item, held)
                assert plan.status in ("optimal", "approximate", "heuristic")
                if plan.status == "approximate":
                    assert plan.value >= best / 2 - 1e-9
                    contested += 1
            else:
                envious += bool(envy(scores, room, per_item, held))
    assert envious > 10  # dropping leaves envy of bins that were not asked: nothing is promised about those
    assert contested > 10


@pytest.mark.parametrize("reroute", [True, False])
def test_compiled_equals_sorted(reroute: bool) -> None:
    """Deferred acceptance on heaps and the greedy order of all scores find the same, unique stable plan."""
    rng = np.random.default_rng(7)
    for case in range(200):
        n, bins = int(rng.integers(1, 40)), int(rng.integers(1, 9))
        per_item = int(rng.integers(1, bins + 1))
        scores = rng.integers(-3, 4, (n, bins)).astype(float) if case % 2 else rng.normal(size=(n, bins))
        if case % 3 == 0:
            scores[rng.random(scores.shape) < 0.3] = -np.inf
        if case % 5 == 0:
            scores = scores.astype(np.float32)
        room = rng.integers(0, max(2, n * per_item // bins + 3), bins)
        fast = routing.compiled(scores, room, per_item, reroute)
        plain = routing.plain(scores, room, per_item, reroute)
        for a, b in zip(fast[:3], plain[:3], strict=True):
            assert a.tolist() == b.tolist()
        assert fast[3] == pytest.approx(plain[3], rel=1e-6)


def test_dropping_keeps_the_highest_scores_of_each_bin() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 6, (50, 4)).astype(float)
    plan = capped_routing(scores, capacity=5, per_item=2, overflow="drop")
    first = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    for j in range(4):
        asking = [i for i in range(50) if j in first[i]]
        keep = sorted(asking, key=lambda i: (-scores[i, j], i))[:5]
        assert [i for i, bins in enumerate(rows_of(plan)) if j in bins] == sorted(keep)


def test_large_tables_take_the_compiled_path_with_the_same_promises() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random((3000, 16), np.float32) + np.linspace(0, 0.5, 16, dtype=np.float32)
    room = np.full(16, 400)
    assert scores.size > routing.COMPILED_FROM
    plan = capped_routing(scores, capacity=room, per_item=2, overflow="reroute")
    assert plan.col_margin.max() <= 400
    assert (plan.row_margin == 2).all()
    held = np.zeros(scores.shape, bool)
    held[np.repeat(np.arange(3000), np.diff(plan.indptr)), plan.bins] = True
    worst_of_item = np.where(held, scores, np.inf).min(axis=1)
    worst_of_bin = np.where(held, scores, np.inf).min(axis=0)
    wants = ~held & (scores > worst_of_item[:, None])
    assert wants.any()
    assert not (wants & (scores > worst_of_bin)).any()
    assert (held.sum(axis=0)[wants.any(axis=0)] == 400).all()


def test_room_for_all_is_the_first_choices_and_optimal() -> None:
    scores = np.random.default_rng(0).random((20, 5))
    for overflow in ("error", "drop", "reroute"):
        plan = kofn.assign(scores=scores, capacity=20, overflow=overflow)
        assert plan.labels.tolist() == scores.argmax(axis=1).tolist()
        assert (plan.status, plan.gap) == ("optimal", 0.0)


def test_negative_scores_are_kept_but_not_counted_as_best() -> None:
    """An empty slot would be worth more than a negative score, so the bound is that of leaving it empty."""
    logits = capped_routing([[-1.0, -2.0]], capacity=1)
    assert (logits.value, logits.bound, logits.status) == (-1.0, 0.0, "heuristic")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"capacity": 1}, InfeasibleError, "3 items in 1 bins each need 3 slots, capacity holds 2: 1 too few"),
        (
            {"capacity": 2},
            InfeasibleError,
            "bin 0 is a first choice of 3 items, over its capacity of 2 by 1; .*reroute",
        ),
        ({"capacity": [3, 3], "per_item": 2}, InfeasibleError, r"item 1 lists 1 bins, .*per_item=2"),
        ({"capacity": [3]}, InputError, "capacity has 1 values, scores has 2 bins"),
        ({"capacity": 3, "per_item": 3}, InputError, "per_item=3 of 2 bins"),
        ({"capacity": 3, "overflow": "spill"}, InputError, "overflow='spill': choose one of error, drop, reroute"),
        ({"capacity": -1}, InputError, "capacity=-1"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        capped_routing([[3.0, 1.0], [2.0, -np.inf], [1.0, 0.5]], **arguments)


def test_scores_must_be_a_table() -> None:
    with pytest.raises(InputError, match=r"scores has shape \(3,\); give \(n, bins\)"):
        capped_routing([1.0, 2.0, 3.0], capacity=1)
    with pytest.raises(InputError, match="scores at row 0, column 1 is nan"):
        capped_routing([[1.0, np.nan]], capacity=1)


def test_affinities_that_round_to_each_other_keep_the_order_of_the_scores() -> None:
    high = [[40.0, 50.0]] * 3
    for overflow in ("error", "drop", "reroute"):
        assert capped_routing(high, capacity=3, affinity="sigmoid", overflow=overflow).labels.tolist() == [1, 1, 1]
    assert token_choice(high, affinity="sigmoid").labels.tolist() == [1, 1, 1]
    two = [[1.0, 40.0], [1.0, 50.0]]
    assert capped_routing(two, capacity=1, affinity="sigmoid", overflow="reroute").labels.tolist() == [0, 1]
    low = capped_routing([[0.0, 1.0, 900.0]], capacity=1, per_item=2, affinity="softmax")
    assert low.bins.tolist() == token_choice([[0.0, 1.0, 900.0]], per_item=2).bins.tolist() == [1, 2]


def test_weights_that_float32_cannot_hold_are_refused() -> None:
    with pytest.raises(InputError, match="more than float32 holds"):
        token_choice([[1e39, 2.0]], gates="raw", affinity="none")
