"""Items in several bins each, within capacities and minima: against SciPy's integer programmes, every refusal too."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

import kofn
from kofn.assignment import balanced_assignment
from kofn.assignment.routing import _flows
from kofn.core.checks import InfeasibleError, InputError

COMPILED = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])


def best_total(scores: Any, per_item: int, low: Any, high: Any, reserve: float | None = None) -> float | None:
    """The largest total by an integer programme; None where there is none."""
    n, bins = scores.shape
    listed = np.isfinite(scores)
    gain = np.where(listed, scores, 0.0) - (reserve or 0.0)
    rows, columns = np.kron(np.eye(n), np.ones(bins)), np.kron(np.ones(n), np.eye(bins))
    solved = milp(
        -gain.ravel(),
        integrality=np.ones(n * bins),
        bounds=Bounds(0, listed.ravel().astype(float)),
        constraints=[
            LinearConstraint(rows, 0 if reserve is not None else per_item, per_item),
            LinearConstraint(columns, low, high),
        ],
        options={"mip_rel_gap": 0.0},
    )
    return None if solved.x is None else float(-solved.fun) + (reserve or 0.0) * n * per_item


def drawn(seed: int) -> tuple[Any, int, dict[str, Any], Any, Any]:
    """Scores with ties and bins that are not listed, and what the call asks."""
    rng = np.random.default_rng(seed)
    n, bins = int(rng.integers(2, 12)), int(rng.integers(2, 6))
    per_item = int(rng.integers(1, bins + 1))
    scores = rng.integers(-3, 6, (n, bins)).astype(float) if seed % 3 else rng.normal(size=(n, bins))
    scores[rng.random((n, bins)) < rng.choice([0.0, 0.1, 0.3])] = -np.inf
    scores = scores.astype(np.float32) if seed % 5 == 0 else scores
    words: dict[str, Any] = {}
    low, high = np.zeros(bins, int), np.full(bins, n)
    if rng.random() < 0.7:
        mean = -(-n * per_item // bins)
        high = rng.integers(max(0, mean - 1), mean + 3, bins) if seed % 2 else np.full(bins, mean)
        words["capacity"] = high
    if rng.random() < 0.4:
        low = rng.integers(0, 3, bins)
        words["min_size"] = low
    if rng.random() < 0.3:
        words["reserve"] = float(rng.choice([0.0, 0.7, -1.0]))
    if "capacity" not in words and "min_size" not in words:
        slots = n * per_item
        low = np.full(bins, 0 if "reserve" in words else slots // bins)
        high = np.full(bins, -(-slots // bins))
    return scores, per_item, words, low, high


@COMPILED
@pytest.mark.parametrize("part", range(10))
def test_the_total_is_the_largest_and_what_cannot_be_is_refused(
    compiled: bool, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_flows, "COMPILED_FROM", -1 if compiled else 10**9)
    refused = 0
    for seed in range(part * 20, part * 20 + 20):
        scores, per_item, words, low, high = drawn(seed)
        best = best_total(scores, per_item, low, high, words.get("reserve"))
        if best is None:
            refused += 1
            with pytest.raises(InfeasibleError, match=r"\d+ too (few|many)|lists|lower it by \d+|min_size by \d+"):
                balanced_assignment(scores, per_item=per_item, **words)
            continue
        plan = balanced_assignment(scores, per_item=per_item, **words)
        counts, loads = np.diff(plan.indptr), np.bincount(plan.bins, minlength=plan.k)
        assert plan.value == pytest.approx(best, rel=1e-6, abs=1e-6)
        assert (plan.status, plan.bound) == ("optimal", plan.value)
        assert (counts <= per_item).all()
        assert "reserve" in words or (counts == per_item).all()
        assert (low <= loads).all()
        assert (loads <= high).all()
        assert all(len(set(plan.bins[a:b].tolist())) == b - a for a, b in itertools.pairwise(plan.indptr.tolist()))
        assert plan.info["unfilled"] == len(scores) * per_item - counts.sum()
    assert refused < 20


@COMPILED
@pytest.mark.parametrize("part", range(4))
def test_scores_of_unlike_sizes_come_to_an_end(compiled: bool, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside large scores a cycle that costs nothing is below 0 by rounding."""
    monkeypatch.setattr(_flows, "COMPILED_FROM", -1 if compiled else 10**9)
    for seed in range(part * 100, part * 100 + 100):
        rng = np.random.default_rng(seed)
        n, bins = int(rng.integers(1, 14)), int(rng.integers(1, 6))
        per_item = int(rng.integers(1, bins + 1))
        scores = rng.normal(size=(n, bins)) * 10.0 ** rng.integers(-8, 8, (n, bins))
        scores[rng.random((n, bins)) < rng.choice([0.0, 0.3, 0.6])] = -np.inf
        high = rng.integers(max(0, n * per_item // bins - 1), n * per_item // bins + 4, bins)
        low = np.minimum(rng.integers(0, n * per_item // bins + 2, bins), high) * int(rng.integers(2))
        reserve = float(rng.normal()) if seed % 2 else None
        best = best_total(scores, per_item, low, high, reserve)
        if best is None:
            with pytest.raises(InfeasibleError):
                balanced_assignment(scores, per_item=per_item, capacity=high, min_size=low, reserve=reserve)
            continue
        plan = balanced_assignment(scores, per_item=per_item, capacity=high, min_size=low, reserve=reserve)
        loads = np.bincount(plan.bins, minlength=bins)
        assert (low <= loads).all()
        assert (loads <= high).all()
        largest = float(np.abs(scores[np.isfinite(scores)]).max(initial=1.0))
        assert plan.value == pytest.approx(best, rel=1e-6, abs=1e-6 * largest)
        assert plan.bound >= plan.value


@pytest.mark.parametrize("before", [1, 2])
def test_a_cycle_that_comes_nearer_in_every_round_is_left_out_of_the_path(before: int) -> None:
    # 0 -> 1 -> 2, and 2 -> 1 below nothing by rounding: round after round 1 and 2 come nearer by each other.
    rounds = [np.array([-1, 0, -1]), np.array([-1, -1, 1]), *[np.array([-1, 2, -1]), np.array([-1, -1, 1])] * before]
    assert _flows._path(rounds, 2) == [2, 1, 0]
    assert _flows._path(rounds, 1) == [1, 0]


@pytest.mark.parametrize("least", [0, [0, 0]])
def test_minima_of_0_are_the_only_limit(least: Any) -> None:
    scores = [[1.0, 0.0], [1.0, 0.0]]
    assert balanced_assignment(scores, min_size=least).value == 2
    assert kofn.assign(scores=scores, min_size=least).value == 2
    assert balanced_assignment(scores).value == kofn.assign(scores=scores).value == 1


@pytest.mark.parametrize(("n", "bins", "per_item"), [(700, 6, 2), (3000, 8, 3), (400, 40, 7)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_compiled_search_from_prices_of_samples_reaches_the_optimum(
    n: int, bins: int, per_item: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(n)
    scores = rng.normal(size=(n, bins)) + np.linspace(0, 2, bins)
    if ties:
        scores = np.round(scores)
    scores[rng.random((n, bins)) < 0.1] = -np.inf
    scores[(scores > -np.inf).sum(axis=1) < per_item] = 0.0
    room = -(-n * per_item // bins) + 2
    plan = balanced_assignment(scores, per_item=per_item, capacity=room)
    # Weak duality: any prices bound every plan, and the plan's own prove it.
    worth = np.sort(scores - plan.v, axis=1)[:, -per_item:].sum() + room * plan.v.sum()
    assert (plan.v >= 0).all()
    assert plan.value == pytest.approx(worth, rel=1e-9)
    assert np.bincount(plan.bins).max() <= room
    assert plan.status == "optimal"
    # Lists that are cut short change nothing.
    monkeypatch.setattr(_flows, "_WIDTH", 2)
    assert balanced_assignment(scores, per_item=per_item, capacity=room).value == pytest.approx(plan.value, rel=1e-12)


REVIEWS = """paper,ann,bob,cem,dee
p1,0.637,0.27,0.041,0.017
p2,0.813,0.913,0.607,0.729
p3,,0.935,0.816,0.003
p4,0.857,0.034,0.73,0.176
p5,0.863,0.541,0.3,0.423
p6,0.028,0.124,,0.647
"""


def reviews() -> Any:
    rows = [line.split(",")[1:] for line in REVIEWS.split()[1:]]
    return np.array([[float(cell or "-inf") for cell in row] for row in rows])


def test_auto_finds_the_largest_total_of_several_bins_unless_rerouting_is_asked_for() -> None:
    scores = reviews()
    plan = kofn.assign(scores=scores, capacity=3, per_item=2)
    assert plan.method == "balanced_assignment"
    assert plan.value == pytest.approx(7.715)
    assert plan.value == pytest.approx(best_total(scores, 2, 0, 3))
    rerouted = kofn.assign(scores=scores, capacity=3, per_item=2, overflow="reroute")
    assert rerouted.method == "capped_routing"
    assert rerouted.value < plan.value
    assert kofn.assign(scores=np.ones((6, 3)), per_item=2).method == "balanced_assignment"


def test_what_a_full_bin_advises_accepts_the_call() -> None:
    scores = reviews()
    with pytest.raises(InfeasibleError, match="method='balanced_assignment'"):
        kofn.assign(scores=scores, capacity=3, per_item=2, method="capped_routing")
    kofn.assign(scores=scores, capacity=3, per_item=2, method="balanced_assignment")
    for options in ({"affinity": "softmax"}, {"candidates": 3}):
        with pytest.raises(InfeasibleError, match="overflow='reroute'") as caught:
            kofn.assign(scores=scores, capacity=3, per_item=2, method="capped_routing", **options)
        assert "balanced_assignment" not in str(caught.value)


def test_what_cannot_be_is_refused_by_item_and_amount() -> None:
    scores = reviews()
    with pytest.raises(InfeasibleError, match="each need 12, capacity holds 8: 4 too few; raise it to 3 a bin"):
        balanced_assignment(scores, per_item=2, capacity=2)
    scores[2, 1:3] = -np.inf
    with pytest.raises(InfeasibleError, match=r"item 2 lists 1 bins, .*\(1 such items\), per_item=2"):
        balanced_assignment(scores, per_item=2, capacity=6)
    with pytest.raises(InputError, match="per_item=5 of 4 bins"):
        balanced_assignment(scores, per_item=5, capacity=6)
    narrow = np.full((4, 3), -np.inf)
    narrow[:, :2] = 1.0
    narrow[0, 2] = 1.0
    with pytest.raises(
        InfeasibleError, match=r"7 slots of per_item=2 fit in no bins but 0, 1, whose capacity holds 6: 1"
    ):
        balanced_assignment(narrow, per_item=2, capacity=[3, 3, 4])
    with pytest.raises(InfeasibleError, match=r"bin 2 must hold 5 .* there are 4 items: lower it by 1"):
        balanced_assignment(np.ones((4, 3)), per_item=2, min_size=[0, 0, 5], capacity=9)
