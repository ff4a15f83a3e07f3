"""Online matching with stochastic rewards: least load against a plain simulation, states, bounds, and errors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from kofn.core.checks import InputError
from kofn.online import StochasticBalance, matching_bound


def play(balance: StochasticBalance, chances: Any, luck: Any) -> list[int]:
    sent = []
    for row, draw in zip(chances, luck, strict=True):
        sent.append(balance.ask(row))
        if sent[-1] >= 0:
            balance.tell(draw < row[sent[-1]])
    return sent


def graph(seed: int, arrivals: int = 60, bins: int = 7) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    chances = np.where(rng.random((arrivals, bins)) < 0.5, rng.uniform(0.05, 0.4, (arrivals, bins)), 0.0)
    return chances, rng.random(arrivals)


@pytest.mark.parametrize("seed", range(4))
def test_every_arrival_goes_to_the_open_bin_of_least_load(seed: int) -> None:
    chances, luck = graph(seed)
    balance = StochasticBalance(7, rule="least_load")
    sent = play(balance, chances, luck)
    loads, won = [0.0] * 7, set()
    for row, draw, bin_ in zip(chances.tolist(), luck.tolist(), sent, strict=True):
        able = [j for j in range(7) if row[j] > 0 and j not in won]
        assert bin_ == (min(able, key=lambda j: loads[j]) if able else -1)
        if bin_ >= 0:
            loads[bin_] += row[bin_]
            won |= {bin_} if draw < row[bin_] else set()
    plan = balance.plan
    assert plan.value == len(won) == balance.successes
    assert plan.labels.tolist() == sent
    assert plan.col_margin.tolist() == pytest.approx(loads)
    assert plan.info["loads"] == pytest.approx(loads)
    assert len(plan.info["won"]) == len(won)
    assert balance.arrivals == 60
    assert balance.attempts == sum(bin_ >= 0 for bin_ in sent)


def test_both_rules_agree_where_chances_and_weights_are_equal() -> None:
    chances, luck = graph(5, arrivals=200, bins=20)
    chances = np.where(chances > 0, 0.1, 0.0)
    runs = [play(StochasticBalance(20, rule=rule), chances, luck) for rule in ("least_load", "discounted")]
    assert runs[0] == runs[1]


def test_the_discounted_rule_weighs_worth_and_chance_against_load() -> None:
    balance = StochasticBalance(3, weights=[1, 2, 4])
    assert balance.ask([0.5, 0.5, 0.1]) == 1
    balance.tell(False)
    assert balance.loads.tolist() == [0, 0.5, 0]
    # 0.5 at no load is now less than 1 x exp(-0.5); a second failure turns it.
    assert balance.ask([0.5, 0.5, 0.1]) == 1
    balance.tell(False)
    assert balance.ask([0.5, 0.5, 0.1]) == 0
    balance.tell(True)
    assert balance.plan.value == 1
    assert balance.plan.bound == 7


def test_least_load_alone_wastes_arrivals_on_small_chances() -> None:
    chances, rng = np.tile([1e-4, 0.05], (60, 1)), np.random.default_rng(8)
    luck = rng.random((50, 60))
    won = {
        rule: sum(play_won(StochasticBalance(2, rule=rule), chances, draws) for draws in luck)
        for rule in ("discounted", "least_load")
    }
    assert won["discounted"] > 40
    assert won["least_load"] < 10


def play_won(balance: StochasticBalance, chances: Any, luck: Any) -> int:
    play(balance, chances, luck)
    return balance.successes


def test_a_state_goes_on_bit_for_bit() -> None:
    chances, luck = graph(6)
    whole = StochasticBalance(7)
    play(whole, chances, luck)
    first = StochasticBalance(7)
    play(first, chances[:30], luck[:30])
    asked = first.ask(chances[30])
    later = StochasticBalance(7)
    later.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    if asked >= 0:
        later.tell(luck[30] < chances[30, asked])
    play(later, chances[31:], luck[31:])
    assert later.plan.equals(whole.plan)
    assert later.plan.info["won"] == whole.plan.info["won"]
    mine, theirs = later.state_dict(), whole.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_the_plan_before_anything_came() -> None:
    plan = StochasticBalance(2).plan
    assert (plan.n, plan.value, plan.bound, len(plan.bins)) == (0, 0.0, 2.0, 0)


def test_the_bound_is_the_matching_program() -> None:
    assert matching_bound(np.full((20, 2), 0.1)) == pytest.approx(2)
    assert matching_bound(np.full((10, 2), 0.1)) == pytest.approx(1)
    assert matching_bound([[0.5, 0.0], [0.5, 1.0]], weights=[1, 3]) == pytest.approx(3.5)
    assert matching_bound(np.zeros((2, 2))) == 0
    chances, _ = graph(7)
    won = [play_value(chances, np.random.default_rng(seed).random(60)) for seed in range(20)]
    assert np.mean(won) <= matching_bound(chances) <= 7 + 1e-9


def play_value(chances: Any, luck: Any) -> float:
    balance = StochasticBalance(7)
    play(balance, chances, luck)
    return balance.plan.value


def test_asking_and_telling_take_turns() -> None:
    balance = StochasticBalance(2)
    with pytest.raises(InputError, match="tell: no try is waiting"):
        balance.tell(True)
    assert balance.ask([0.5, 0.5]) == 0
    with pytest.raises(InputError, match="the try at bin 0 went is not told yet"):
        balance.ask([0.5, 0.5])
    balance.tell(True)
    assert balance.ask([0.5, 0.0]) == -1
    with pytest.raises(InputError, match="no try is waiting"):
        balance.tell(False)


def test_bad_input_is_refused_and_changes_nothing() -> None:
    balance = StochasticBalance(2)
    before = pickle.dumps(balance.state_dict())
    for chances, says in (
        ([0.5], "chances has 1 values"),
        ([0.5, 1.5], "chances at row 1 is 1.5; give probabilities"),
        ([-0.5, 0.5], "chances at row 0 is -0.5"),
        ([np.nan, 0.5], "chances at row 0 is NaN"),
    ):
        with pytest.raises(InputError) as refused:
            balance.ask(chances)
        assert says in str(refused.value)
        assert pickle.dumps(balance.state_dict()) == before
    with pytest.raises(InputError, match="weights at row 0 is 0"):
        StochasticBalance(2, weights=[0, 1])
    with pytest.raises(InputError, match="weights has 3 values"):
        StochasticBalance(2, weights=[1, 1, 1])
    with pytest.raises(InputError, match="rule='leastload': choose one of discounted, least_load"):
        StochasticBalance(2, rule="leastload")
    with pytest.raises(InputError, match="bins=3, here it is 2"):
        balance.load_state_dict(StochasticBalance(3).state_dict())
    with pytest.raises(InputError, match="chances at row 0, column 1 is 2"):
        matching_bound([[0.5, 2.0]])
