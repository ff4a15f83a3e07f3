"""Bins whose items' sizes are limited, and bins that must hold so many items: against every placement there is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import kofn
from kofn.assignment import balanced_assignment, generalized_assignment
from kofn.assignment.routing import _generalized_assignment
from kofn.core.checks import FailureError, InfeasibleError, InputError


def _best(scores: Any, least: Any, most: Any, sizes: Any, limits: Any, reserve: float | None) -> float | None:
    """The largest total of any placement."""
    n, bins = scores.shape
    best = None
    for bin_of in itertools.product(range(0 if reserve is None else -1, bins), repeat=n):
        counts = np.bincount([j for j in bin_of if j >= 0], minlength=bins)
        held = [math.fsum(sizes[i, j] for i, of in enumerate(bin_of) if of == j) for j in range(bins)]
        fits = all(total <= limit * (1 + 1e-12) for total, limit in zip(held, limits, strict=True))
        if not fits or (counts < least).any() or (counts > most).any():
            continue
        total = math.fsum(reserve or 0.0 if j < 0 else scores[i, j] for i, j in enumerate(bin_of))
        if total > -math.inf and (best is None or total > best):
            best = total
    return best


def _problem(seed: int) -> tuple[Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    n, bins = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    scores = rng.integers(-2, 3, (n, bins)).astype(float) if seed % 2 else np.round(rng.normal(size=(n, bins)), 1)
    scores[rng.random((n, bins)) < 0.15] = -np.inf
    words: dict[str, Any] = {}
    if rng.random() < 0.4:
        words["capacity"] = rng.integers(0, n + 1, bins)
    if rng.random() < 0.5:
        words["min_size"] = rng.integers(0, 2, bins)
    if rng.random() < 0.5:
        words["reserve"] = float(rng.choice([0.0, -1.0, 0.5]))
    return scores, words


@pytest.mark.parametrize("seed", range(80))
def test_sizes_within_limits_are_the_best_of_all_placements(seed: int) -> None:
    scores, words = _problem(seed)
    n, bins = scores.shape
    rng = np.random.default_rng(seed + 1000)
    sizes = [rng.integers(0, 5, n), rng.integers(0, 5, (n, bins)), np.round(rng.random(n), 1)][seed % 3]
    limits = rng.integers(0, 9, bins) if seed % 4 else np.round(rng.random(bins) * 4, 1)
    table = sizes if sizes.ndim == 2 else np.broadcast_to(sizes[:, None], (n, bins))
    best = _best(scores, words.get("min_size", 0), words.get("capacity", n), table, limits, words.get("reserve"))
    if best is None:
        with pytest.raises(InfeasibleError):
            kofn.assign(scores=scores, sizes=sizes, limits=limits, **words)
        return
    plan = kofn.assign(scores=scores, sizes=sizes, limits=limits, **words)
    assert plan.method == "generalized_assignment"
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(best, abs=1e-9)
    assert plan.bound == plan.value
    assert (plan.used["limits"] <= plan.budget["limits"] * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", range(60))
def test_bins_that_must_hold_so_many_are_the_best_of_all_placements(seed: int) -> None:
    scores, words = _problem(seed)
    n, bins = scores.shape
    words["min_size"] = least = np.random.default_rng(seed).integers(0, 3, bins)
    if not least.any():
        words["min_size"] = least = np.ones(bins, int)
    best = _best(scores, least, words.get("capacity", n), np.zeros((n, bins)), np.zeros(bins), words.get("reserve"))
    if best is None:
        with pytest.raises(InfeasibleError):
            kofn.assign(scores=scores, **words, method="balanced_assignment")
        return
    plan = kofn.assign(scores=scores, **words, method="balanced_assignment")
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(best, abs=1e-9)
    most = np.broadcast_to(words.get("capacity", n), bins)
    dual = math.fsum(plan.u.tolist()) + float((plan.v * np.where(plan.v < 0, least, most)).sum())
    assert dual == pytest.approx(best, abs=1e-9)
    loads = np.bincount(plan.bins, minlength=bins)
    assert ((plan.v >= 0) | (loads == least)).all()


def test_minima_hold_in_the_compiled_search_too() -> None:
    scores = np.random.default_rng(0).normal(size=(900, 12))
    scores[:, 0] -= 3.0
    free = balanced_assignment(scores, capacity=100)
    least = np.bincount(free.labels, minlength=12)[0] + 25
    plan = balanced_assignment(scores, capacity=100, min_size=[least] + [0] * 11)
    assert np.bincount(plan.labels, minlength=12)[0] == least
    assert plan.status == "optimal"
    assert plan.v[0] < 0
    assert plan.value < free.value


def test_a_limit_is_held_to_the_last_unit() -> None:
    sizes = np.array([2**40, 2**40 + 1, 1])
    plan = generalized_assignment(np.array([[1.0], [1.0], [1.0]]), sizes=sizes, limits=2**41, reserve=0.0)
    assert sizes[plan.labels == 0].sum() <= 2**41
    assert plan.value == 2.0


def test_a_bin_of_one_is_the_knapsack() -> None:
    rng = np.random.default_rng(3)
    worth, sizes, limit = rng.integers(1, 50, 60), rng.integers(1, 30, 60), 300
    best = np.zeros(limit + 1, np.int64)
    for value, size in zip(worth.tolist(), sizes.tolist(), strict=True):
        best[size:] = np.maximum(best[size:], best[:-size] + value)
    plan = generalized_assignment(worth[:, None].astype(float), sizes=sizes, limits=limit, reserve=0.0)
    assert plan.value == best[-1]
    # One more unit of the limit adds at least nothing, and of an item split in two what it is worth.
    assert plan.prices["limits"][0] > 0


@pytest.mark.parametrize(
    ("words", "able", "remedy"),
    [
        ({"min_size": 3}, "without min_size", "lower min_size"),
        (
            {"min_size": [2, 0], "capacity": [3, 2]},
            "without limits or without capacity",
            "raise the limits or raise capacity",
        ),
    ],
)
def test_limits_that_clash_are_named(words: dict[str, Any], able: str, remedy: str) -> None:
    """Bins of 8 and 6 hold sizes 5, 3, 2, 2, 2 only as 5+3 and 2+2+2."""
    scores = np.zeros((5, 2))
    limits = [8, 6]
    with pytest.raises(InfeasibleError, match=f"together, .*; {able} there is one; {remedy}, or give a reserve"):
        generalized_assignment(scores, sizes=[5, 3, 2, 2, 2], limits=limits, **words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sizes": [3, 1], "limits": 2}, r"item 0 has size 3 and fits in no bin"),
        ({"sizes": [2, 2], "limits": [2, 1]}, r"the sizes add up to 4, the limits to 3: 1 too little"),
        ({"sizes": [1, 1], "limits": 2, "capacity": [1, 0]}, r"2 items need a bin each, capacity holds 1"),
        (
            {"sizes": [1, 1], "limits": 2, "min_size": [2, 1]},
            r"no placement keeps min_size, not even one of parts of items; lower min_size, or",
        ),
        ({"sizes": [1, 1], "limits": 2, "min_size": [3, 0]}, r"bin 0 must hold 3 items .* 2 items list it and fit"),
        ({"sizes": [1, 1, 1], "limits": 2}, r"sizes has shape \(3,\); give one an item, \(2,\)"),
        ({"sizes": [1, 1], "limits": [1, 2, 3]}, r"limits has shape \(3,\), scores has 2 bins"),
        ({"sizes": [1, -1], "limits": 2}, r"sizes at row 1 is -1"),
        ({"sizes": [1, 1], "limits": -2}, r"limits at row 0 is -2"),
        ({"sizes": [1, 1], "limits": 2, "reserve": math.nan}, r"reserve=nan: give a finite number"),
    ],
)
def test_what_no_placement_keeps_is_refused_by_name(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generalized_assignment([[1.0, 2.0], [3.0, 1.0]], **words)


@pytest.mark.parametrize(
    ("scores", "words", "message"),
    [
        ([[-np.inf, 2.0]], {"capacity": [2, 0]}, r"bin 0 it does not list .*, bin 1 has capacity 0; list a bin"),
        (
            [[0.0, 7.0]],
            {"sizes": [[5, 5]], "limits": [13, 4], "capacity": [0, 1]},
            r"bin 0 has capacity 0, bin 1 holds 4, its size is 5; list a bin, raise one, or give a reserve",
        ),
        (
            [[1.0] * 7],
            {"sizes": [3], "limits": [4, *[2] * 6], "capacity": [0, *[1] * 6]},
            r"bin 4 .* is 3, \.\.\.; list",
        ),
    ],
)
def test_an_item_that_each_bin_refuses_for_a_reason_of_its_own(
    scores: list[list[float]], words: dict[str, Any], message: str
) -> None:
    with pytest.raises(InfeasibleError, match=rf"^item 0 has nowhere to go: .*{message}"):
        generalized_assignment(scores, **words)
    assert generalized_assignment(scores, **words, reserve=-1.0).labels.tolist() == [-1]


def test_an_item_that_no_bin_takes_is_refused_beside_links() -> None:
    with pytest.raises(InfeasibleError, match=r"item 0 has nowhere to go: bin 0 it does not list .* has capacity 0"):
        generalized_assignment([[-np.inf, 2.0], [1.0, 1.0]], capacity=[2, 0], cannot_link=[[0, 1]])


def test_whole_items_may_not_fit_where_parts_would() -> None:
    with pytest.raises(InfeasibleError, match="no placement of whole items keeps the limits"):
        generalized_assignment(np.zeros((3, 2)), sizes=[2, 2, 2], limits=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"min_size": 2}, r"min_size asks for 4 items in all, there are 2: lower it by 2"),
        ({"min_size": [2, 0], "capacity": [1, 1]}, r"bin 0 must hold 2 \(min_size\) and can hold 1 \(capacity\)"),
        ({"min_size": [1, 0, 0]}, r"min_size has 3 values, scores has 2 bins"),
        ({"min_size": -1}, r"min_size"),
        ({"min_size": [0, 1]}, r"bins 1 must hold 1 items \(min_size"),
    ],
)
def test_minima_that_clash_are_refused_by_name(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        balanced_assignment([[1.0, -np.inf], [3.0, -np.inf]], **words)


def test_a_time_limit_keeps_a_placement_and_a_bound_or_says_that_there_was_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    # Scores that fall with the sizes, and full bins: the hard kind.
    sizes = rng.integers(5, 26, (60, 8))
    scores = 111.0 - sizes + rng.integers(-10, 11, (60, 8))
    limits = np.full(8, int(0.8 * sizes.mean() * 60 / 8))
    plan = generalized_assignment(scores, sizes=sizes, limits=limits, reserve=0.0, time_limit=1e-9)
    assert plan.status in ("stopped", "optimal")
    assert plan.bound >= plan.value > 0
    assert (plan.used["limits"] <= limits).all()
    # Without HiGHS a quick placement is left, and a bound by the best bin of each item.
    monkeypatch.setattr(_generalized_assignment, "_whole", lambda *_: (None, -np.inf, False))
    plan = generalized_assignment(scores, sizes=sizes, limits=limits, reserve=0.0, time_limit=1e-9)
    assert (plan.used["limits"] <= limits).all()
    assert 0 < plan.value <= plan.bound
    assert plan.status == "stopped"
    # HiGHS may prove within a millisecond that there is none, which is another answer.
    out_of_time = OptimizeResult(status=1, x=None)
    monkeypatch.setattr(_generalized_assignment, "linprog", lambda *_, **__: out_of_time)
    with pytest.raises(FailureError, match="no placement was found within time_limit"):
        generalized_assignment(
            scores, sizes=sizes, limits=limits, min_size=[10] + [0] * 7, reserve=0.0, time_limit=1e-9
        )
