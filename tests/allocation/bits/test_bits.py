"""Bits by reverse water-filling and of experts, against convex solvers, dynamic programming and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError, InputError

RNG = np.random.default_rng(7)


def test_fractions_are_those_of_a_convex_solver() -> None:
    from scipy.optimize import LinearConstraint, minimize

    for _ in range(10):
        n = 6
        c, sizes = RNG.lognormal(0, 2, n), RNG.integers(1, 5, n)
        low, high = RNG.uniform(0, 2, n), RNG.uniform(3, 6, n)
        budget = 0.5 * float(sizes @ (low + high))
        plan = kofn.allocate(
            scores=c,
            budget=budget,
            sizes=sizes,
            bounds=np.stack([low, high], axis=1),
            method="reverse_water_filling",
            whole=False,
        )
        solved = minimize(
            lambda b, c=c: float(np.sum(c * 4.0**-b)),
            (low + high) / 2,
            jac=lambda b, c=c: -2 * np.log(2) * c * 4.0**-b,
            bounds=list(zip(low, high, strict=True)),
            constraints=[LinearConstraint(sizes[None].astype(float), ub=budget)],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert plan.value <= solved.fun * (1 + 1e-9)
        assert plan.status == "optimal"
        assert plan.value == pytest.approx(solved.fun, rel=1e-5)


def test_what_the_closed_form_says_where_nothing_is_clipped() -> None:
    c = RNG.lognormal(0, 1, 64)
    plan = kofn.allocate(scores=c, mean_budget=8, bounds=(0, 40), method="reverse_water_filling", whole=False)
    geometric = np.exp(np.log(c).mean())
    np.testing.assert_allclose(plan.amounts, 8 + 0.5 * np.log2(c / geometric), atol=1e-9)
    np.testing.assert_allclose(plan.values, plan.values[0], rtol=1e-9)
    assert plan.info["uniform"] / plan.value == pytest.approx(c.mean() / geometric)


def test_whole_bits_are_optimal_for_one_size_and_bounded_for_others() -> None:
    for trial in range(60):
        n = int(RNG.integers(1, 8))
        c = RNG.lognormal(0, 3, n) * (RNG.random(n) > 0.1)
        sizes = RNG.integers(0, 5, n) if trial % 2 else np.full(n, 3)
        low = RNG.integers(0, 3, n)
        high = low + RNG.integers(0, 6, n)
        budget = float(sizes @ low + RNG.random() * 1.1 * (sizes @ (high - low)))
        plan = kofn.allocate(
            scores=c, budget=budget, sizes=sizes, bounds=np.stack([low, high], axis=1), method="reverse_water_filling"
        )
        bits = np.minimum(low[:, None] + np.arange(int((high - low).max()) + 1), high[:, None])
        exact = kofn.allocate(c[:, None] * 4.0**-bits, budget=budget, sizes=sizes, levels=bits)
        assert plan.bound <= exact.value * (1 + 1e-9)
        assert plan.value >= exact.value * (1 - 1e-9)
        if trial % 2 == 0:
            assert plan.status == "optimal"
            assert plan.value == pytest.approx(exact.value, rel=1e-9)


def test_extreme_sensitivities_and_free_groups() -> None:
    plan = kofn.allocate(scores=[1e-300, 1e299, 0.0], mean_budget=4, method="reverse_water_filling")
    assert plan.amounts.tolist() == [3, 8, 1]
    plan = kofn.allocate(scores=[1.0, 1.0], budget=2, sizes=[0, 1], method="reverse_water_filling")
    assert plan.amounts.tolist() == [8, 2]


def test_refusals_of_bits() -> None:
    refused(
        lambda: kofn.allocate(scores=[1.0, 2.0], mean_budget=1, bounds=(2, 8), method="reverse_water_filling"),
        "budget=2 is 2 short: the least bits of all groups cost 4",
        InfeasibleError,
    )
    refused(
        lambda: kofn.allocate(scores=[1e300, 1e300], budget=4, method="reverse_water_filling"),
        "scores add up to 2e+300, beyond what sums hold; divide them by the largest",
    )
    refused(
        lambda: kofn.allocate(scores=[1.0], method="reverse_water_filling"),
        "give budget (the total) or mean_budget (the total over the summed sizes), not neither",
    )


@pytest.mark.parametrize("at_least", [None, {3: 1, 2: 1}])
def test_expert_bits_are_those_of_brute_force(at_least: dict[int, int] | None) -> None:
    blocks = np.array([0, 0, 0, 1, 1, 1])
    found = 0
    for budget in range(9, 17):
        error = -np.sort(-RNG.random((6, 3)), axis=1)
        share, gate = RNG.dirichlet(np.ones(6)), RNG.random(6)
        weighted = (share * gate**1.5)[:, None] * error**2
        able = [
            float(weighted[range(6), list(choice)].sum())
            for choice in itertools.product(range(3), repeat=6)
            if sum(choice) + 6 <= budget and _counted(np.array(choice) + 1, blocks, at_least)
        ]
        call = {"frequency": share, "gate": gate, "at_least": at_least, "method": "expert_bits", "budget": budget}
        given = {"groups": blocks} if at_least else {}
        if not able:
            with pytest.raises(InfeasibleError, match="cannot be had within budget"):
                kofn.allocate(error, **call, **given)
            continue
        found += 1
        plan = kofn.allocate(error, **call, **given)
        assert plan.value == pytest.approx(min(able), rel=1e-12)
        assert _counted(plan.amounts, blocks, at_least)
    assert found >= 4


def _counted(bits: np.ndarray, blocks: np.ndarray, at_least: dict[int, int] | None) -> bool:
    return all(
        ((bits == width) & (blocks == block)).sum() >= count
        for width, count in (at_least or {}).items()
        for block in set(blocks.tolist())
    )


def test_refusals_of_expert_bits() -> None:
    error = [[0.5, 0.2], [0.4, 0.1]]
    for options, says in (
        ({"at_least": {7: 1}}, "at_least=7: no column has that width; give those of levels"),
        ({"frequency": [0.5, -1.0]}, "frequency at row 1 is -1"),
        ({"gamma": 0.0}, "gamma=0.0: give a number between 0.001 and 16"),
    ):
        refused(lambda options=options: kofn.allocate(error, budget=3, method="expert_bits", **options), says)
    with pytest.raises(InputError, match="groups are the blocks that at_least is held in"):
        kofn.allocate(error, budget=3, groups=["a", "b"], method="expert_bits")


@pytest.mark.parametrize("of_losses", [1e-100, 1e-9, 1e13])
@pytest.mark.parametrize("of_costs", [1e-100, 1e-9, 1e8])
def test_bits_of_experts_in_any_unit_against_enumeration(of_losses: float, of_costs: float) -> None:
    rng = np.random.default_rng(1)
    loss = np.sort(rng.integers(1, 60, (4, 3)), axis=1)[:, ::-1].astype(float)
    sizes, rows = rng.integers(1, 5, 4).astype(float), np.arange(4)
    kept = [
        level
        for level in itertools.product(range(3), repeat=4)
        if sizes @ (np.array(level) + 1) <= 2 * sizes.sum() and level.count(1) >= 2
    ]
    plan = kofn.allocation.expert_bits(
        loss * of_losses, budget=2 * sizes.sum() * of_costs, sizes=sizes * of_costs, gamma=1.0, at_least={2: 2}
    )
    assert tuple((plan.amounts - 1).tolist()) in kept
    assert plan.value / of_losses == pytest.approx(min(float(loss[rows, level].sum()) for level in kept), rel=1e-9)
