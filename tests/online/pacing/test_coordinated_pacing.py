"""Paced bids against a plain simulation, budgets that are never exceeded, and what coordination saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.online import CoordinatedPacing


def auctions(pacing: CoordinatedPacing, values: Any, outside: Any) -> None:
    """Second-price auctions of the bids against the highest bid of others; a tie goes to the others."""
    for row, other in zip(values, outside, strict=True):
        bids = pacing.ask(row)
        best = int(bids.argmax())
        if bids[best] > other:
            pacing.tell(best, max(float(other), float(np.delete(bids, best).max(initial=0.0))))
        else:
            pacing.tell(-1)


def market(seed: int, rounds: int = 400, clients: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.random((rounds, clients)), rng.random(rounds)


@pytest.mark.parametrize("coordination", ["independent", "coordinated"])
def test_bids_are_those_of_dual_descent_written_out(coordination: str) -> None:
    values, outside = market(1)
    budgets, rounds = [8.0, 20.0, 5.0], 400
    pacing = CoordinatedPacing(budgets, rounds, coordination=coordination, rate=0.2)
    pace, left = [0.0] * 3, list(budgets)
    for row, other in zip(values.tolist(), outside.tolist(), strict=True):
        wish = [min(v / (1 + p), m) for v, p, m in zip(row, pace, left, strict=True)]
        if coordination == "coordinated":
            wish = [bid if i == wish.index(max(wish)) else 0.0 for i, bid in enumerate(wish)]
        bids = pacing.ask(row)
        assert bids == pytest.approx(wish, abs=1e-12)
        order = sorted(range(3), key=lambda i: -wish[i])
        paid = [0.0] * 3
        if wish[order[0]] > other:
            paid[order[0]] = max(other, wish[order[1]])
            pacing.tell(order[0], paid[order[0]])
        else:
            pacing.tell(-1)
        left = [m - p for m, p in zip(left, paid, strict=True)]
        pace = [max(0.0, x + 0.2 * (p / (b / rounds) - 1)) for x, p, b in zip(pace, paid, budgets, strict=True)]
    assert pacing.plan.info["multipliers"] == pytest.approx(pace)
    assert pacing.left == pytest.approx(left)


@pytest.mark.parametrize("seed", range(3))
def test_the_hybrid_follows_what_independent_pacing_would_do(seed: int) -> None:
    values, outside = market(seed)
    alone, hybrid = (
        CoordinatedPacing([15.0, 30.0, 8.0], 400, coordination=kind, rate=0.1) for kind in ("independent", "hybrid")
    )
    auctions(alone, values, outside)
    auctions(hybrid, values, outside)
    # The multipliers that it keeps beside are those of a run by independent pacing, auction for auction.
    state = hybrid.state_dict()
    assert state["alone"] == pytest.approx(alone.multipliers)
    assert state["alone_left"] == pytest.approx(alone.left)
    assert (hybrid.multipliers <= state["alone"]).all()
    assert (hybrid.left >= state["alone_left"] - 1e-12).all()
    assert (hybrid.plan.values >= alone.plan.values - 1e-12).all()
    assert hybrid.plan.value > 1.1 * alone.plan.value


@pytest.mark.parametrize("coordination", ["hybrid", "coordinated", "independent"])
def test_no_budget_is_exceeded_and_spending_is_spread(coordination: str) -> None:
    values, outside = market(7, rounds=2000)
    budgets = np.array([30.1, 7.3, 60.7])
    pacing = CoordinatedPacing(budgets, 2000, coordination=coordination)
    half = None
    for start in (0, 1000):
        auctions(pacing, values[start : start + 1000], outside[start : start + 1000])
        half = pacing.plan.amounts if half is None else half
        assert (pacing.left >= 0).all()
        assert (pacing.plan.amounts <= budgets).all()
        assert pacing.plan.used["budget"] <= pacing.plan.budget["budget"]
    assert pacing.auctions == 2000
    short = pacing.plan.amounts > 0.9 * budgets
    assert short.any()
    # Who runs out of budget would have wanted more: half of it is still there at half time.
    assert (half[short] < 0.75 * budgets[short]).all()


def test_one_of_the_coalition_enters_and_pays_no_other() -> None:
    pacing = CoordinatedPacing([5.0, 5.0], 10, coordination="coordinated")
    assert pacing.ask([0.4, 0.9]).tolist() == [0.0, 0.9]
    pacing.tell(1, 0.1)
    assert pacing.plan.values.tolist() == pytest.approx([0.0, 0.8])
    assert pacing.plan.amounts.tolist() == pytest.approx([0.0, 0.1])
    broke = CoordinatedPacing([0.25, 5.0], 10)
    assert broke.ask([0.9, 0.8]).tolist() == [0.0, 0.8]


def test_refusals() -> None:
    def asked() -> CoordinatedPacing:
        pacing = CoordinatedPacing([1.0, 2.0], 10)
        pacing.ask([0.5, 0.4])
        return pacing

    for call, says in (
        (lambda: CoordinatedPacing([1.0, 0.0], 10), "budgets at row 1 is 0; leave out a client that has none"),
        (lambda: CoordinatedPacing([1.0], 0), "horizon=0: ask for at least 1"),
        (lambda: CoordinatedPacing([1.0], 5, rate=0), "rate=0: the multipliers would not move"),
        (lambda: CoordinatedPacing([1.0], 5, coordination="alone"), "coordination='alone'"),
        (lambda: CoordinatedPacing([1.0], 5).ask([-1.0]), "values at row 0 is -1"),
        (lambda: CoordinatedPacing([1.0], 5).ask([1.0, 1.0]), "values has 2 values"),
        (lambda: CoordinatedPacing([1.0], 5).tell(0, 0.1), "no bids are waiting"),
        (lambda: asked().ask([0.1, 0.1]), "how the last auction went is not told yet"),
        (lambda: asked().tell(2, 0.1), "winner=2: give a client, 0 to 1, or -1"),
        (lambda: asked().tell(1, 0.1), "winner=1: that client did not bid"),
        (lambda: asked().tell(0, 0.6), "price=0.6: client 0 bid 0.5; a second price is not above"),
        (lambda: asked().tell(-1, 0.1), "price=0.1: nobody won"),
    ):
        refused(call, says)
