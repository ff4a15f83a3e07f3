"""The universal mixture against integrals, its bound on adverse paths, and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.integrate import dblquad, quad

from kofn.online import UniversalMixture


def test_weights_are_the_integrals_for_two_strategies() -> None:
    rng = np.random.default_rng(2)
    mixture, rounds = UniversalMixture(2, mixes=20), rng.uniform(0.5, 2.0, (9, 2))
    for row in rounds:
        mixture.tell(row)
    wealth = lambda b: float(np.prod(rounds @ [b, 1 - b]))  # noqa: E731
    whole = quad(wealth, 0, 1)[0]
    share = quad(lambda b: b * wealth(b), 0, 1)[0] / whole
    assert mixture.exact_rounds == 39
    assert mixture.ask() == pytest.approx([share, 1 - share], rel=1e-9)
    # The wealth of the mixture is the mean wealth of constant mixes.
    assert mixture.log_wealth == pytest.approx(math.log(whole), rel=1e-9)


def test_weights_are_the_integrals_for_three_strategies() -> None:
    rng = np.random.default_rng(3)
    mixture, rounds = UniversalMixture(3, mixes=64), rng.uniform(0.5, 2.0, (6, 3))
    for row in rounds:
        mixture.tell(row)
    wealth = lambda b, a: float(np.prod(rounds @ [a, b, 1 - a - b]))  # noqa: E731
    whole = dblquad(wealth, 0, 1, 0, lambda a: 1 - a)[0]
    first = dblquad(lambda b, a: a * wealth(b, a), 0, 1, 0, lambda a: 1 - a)[0] / whole
    assert mixture.exact_rounds == 15
    assert mixture.ask()[0] == pytest.approx(first, rel=1e-7)
    assert mixture.log_wealth == pytest.approx(math.log(2 * whole), rel=1e-7)


def best_mix(rounds: Any) -> float:
    """Log-wealth of the best constant mix, from above and below alike: Cover's updates to convergence."""
    mix = np.full(rounds.shape[1], 1 / rounds.shape[1])
    for _ in range(5000):
        mix = mix * (rounds / (rounds @ mix)[:, None]).mean(axis=0)
    return float(np.log(rounds @ (mix / mix.sum())).sum())


@pytest.mark.parametrize("m", [2, 3])
def test_the_bound_holds_on_adverse_paths(m: int) -> None:
    mixture, rounds = UniversalMixture(m), []
    for _ in range(90):
        # What has most weight loses, and the least weighted gains.
        row = np.ones(m)
        row[mixture.ask().argmax()], row[mixture.ask().argmin()] = 0.4, 1.6
        rounds.append(row)
        mixture.tell(row)
    plan = mixture.plan
    assert plan.status == "approximate"
    assert plan.bound == pytest.approx(plan.value + (m - 1) * math.log(91))
    assert best_mix(np.array(rounds)) <= plan.bound
    assert plan.values == pytest.approx(np.log(rounds).sum(axis=0))


def test_drawn_mixes_come_near_the_integral() -> None:
    rng = np.random.default_rng(4)
    rounds = rng.uniform(0.8, 1.25, (30, 7))
    drawn = [UniversalMixture(7, mixes=4000, seed=seed) for seed in (1, 2)]
    for row in rounds:
        for mixture in drawn:
            mixture.tell(row)
    assert drawn[0].exact_rounds == 0
    assert drawn[0].plan.bound is None
    assert drawn[0].ask() == pytest.approx(drawn[1].ask(), abs=0.01)


def test_acceleration_leans_to_what_is_ahead() -> None:
    plain, fast = UniversalMixture(2), UniversalMixture(2, acceleration=4.0)
    for mixture in (plain, fast):
        for _ in range(10):
            mixture.tell([1.1, 1.0])
    assert 0.5 < plain.ask()[0] < fast.ask()[0] < 1
    assert fast.plan.status == "heuristic"
    assert fast.plan.bound is None
    single = UniversalMixture(1)
    single.tell([2.0])
    assert single.ask().tolist() == [1.0]
    assert single.plan.value == pytest.approx(math.log(2)) == single.plan.bound


def test_refusals() -> None:
    for call, says in (
        (lambda: UniversalMixture(0), "strategies=0: ask for at least 1"),
        (lambda: UniversalMixture(2, acceleration=0.5), "acceleration=0.5: give a number of at least 1"),
        (lambda: UniversalMixture(2, mixes=1), "mixes=1: ask for at least 2"),
        (lambda: UniversalMixture(2).tell([1.0, 0.0]), "returns at row 1 is 0; give wealth after over wealth before"),
        (lambda: UniversalMixture(2).tell([1.0]), "returns has 1 values"),
    ):
        refused(call, says)
