"""Two-stage robust programs against enumeration; the network inside programs against the network itself."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.optimize import linprog

from kofn.allocation import LearnedRecourse, TwoStageProgram, fit_recourse, two_stage_knapsack, two_stage_robust
from kofn.core.checks import FailureError, InfeasibleError


def drawn(seed: int, n: int = 4, gamma: float = 1.5) -> TwoStageProgram:
    rng = np.random.default_rng(seed)
    weights = rng.integers(2, 9, n)
    values = weights + rng.integers(1, 6, n)
    return two_stage_knapsack(
        values,
        np.round(values * rng.uniform(0.2, 0.9, n)),
        weights,
        outsourcing=values + rng.integers(0, 3, n),
        repair_weights=rng.integers(1, 4, n),
        capacity=float(weights.sum() // 2),
        gamma=gamma,
    )


def enumerated(stages: TwoStageProgram) -> float:
    """The least over x of the worst u, which is a linear program over all y that x leaves."""
    n, m, p = len(stages.c), len(stages.d), stages.uncertain
    plans = np.array(list(itertools.product((0, 1), repeat=m)))
    best = np.inf
    for x in itertools.product((0, 1), repeat=n):
        able = plans[(plans @ stages.W.T <= stages.h - stages.T @ np.array(x) + 1e-9).all(axis=1)]
        if stages.scenarios is None:
            rows = np.vstack([np.c_[np.ones(len(able)), -able @ stages.deviations], np.r_[0, np.ones(p)]])
            ends = [(None, None), *[(0, 1)] * p]
            worst = -linprog(
                np.r_[-1.0, np.zeros(p)], A_ub=rows, b_ub=np.r_[able @ stages.d, stages.gamma], bounds=ends
            ).fun
        else:
            worst = max(float((able @ stages.costs(u)).min()) for u in np.asarray(stages.scenarios))
        best = min(best, float(stages.c @ x) + worst)
    return best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_optimum_is_that_of_enumeration(seed: int) -> None:
    stages = drawn(seed)
    plan = two_stage_robust(stages)
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(enumerated(stages), abs=1e-5)
    assert float(stages.c @ plan.amounts) + stages.worst(plan.amounts)[0] == pytest.approx(plan.value)
    corners = np.vstack([np.zeros(4), np.eye(4), 0.5 * np.ones(4)])
    listed = TwoStageProgram(
        c=stages.c, d=stages.d, deviations=stages.deviations, T=stages.T, W=stages.W, h=stages.h, scenarios=corners
    )
    assert two_stage_robust(listed).value == pytest.approx(enumerated(listed), abs=1e-5)


def in_units(stages: TwoStageProgram, of_costs: float, of_rows: float) -> TwoStageProgram:
    """The program with costs and limits in other units."""
    return TwoStageProgram(
        c=stages.c * of_costs, d=stages.d * of_costs, deviations=stages.deviations * of_costs, T=stages.T * of_rows,
        W=stages.W * of_rows, h=stages.h * of_rows, gamma=stages.gamma, scenarios=stages.scenarios,
    )  # fmt: skip


@pytest.mark.parametrize("of_costs", [1e-100, 1e-8, 1e-6, 1e9, 1e13])
@pytest.mark.parametrize("of_rows", [1e-100, 1e-6, 1.0, 1e8])
def test_programs_in_any_unit_against_enumeration(of_costs: float, of_rows: float) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        n, m, p = 2, 3, 2
        stages = TwoStageProgram(
            c=rng.integers(-6, 7, n),
            d=rng.integers(-9, 3, m),
            deviations=rng.integers(0, 6, (m, p)),
            T=np.vstack([-np.eye(n), rng.integers(0, 4, n)]),
            W=np.vstack([np.eye(n, m), rng.integers(1, 5, m)]),
            h=np.r_[np.zeros(n), 5.0],
            gamma=1,
        )
        plan = two_stage_robust(in_units(stages, of_costs, of_rows))
        optimum = enumerated(stages)
        assert plan.status == "optimal"
        assert plan.value / of_costs == pytest.approx(optimum, rel=1e-8, abs=1e-8)
        x = plan.amounts.astype(float)
        scaled = in_units(stages, of_costs, of_rows)
        value, u = scaled.worst(x)
        cost, y = scaled.recourse(x, u)
        assert cost == value
        assert (stages.T @ x + stages.W @ y <= stages.h).all()
        assert float(stages.c @ x) + value / of_costs == pytest.approx(optimum, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("unit", [1e-100, 1e-9, 1e12])
def test_knapsacks_and_networks_in_any_unit(unit: float) -> None:
    stages = drawn(2)
    rows = np.ones((len(stages.h), 1))
    rows[0] = unit
    weighed = TwoStageProgram(
        c=stages.c * unit, d=stages.d * unit, deviations=stages.deviations * unit, T=stages.T * rows,
        W=stages.W * rows, h=stages.h * rows[:, 0], gamma=stages.gamma,
    )  # fmt: skip
    assert two_stage_robust(weighed).value / unit == pytest.approx(enumerated(stages), rel=1e-8)
    same, learned = (fit_recourse(program, samples=20, units=2) for program in (stages, weighed))
    assert learned.r2 == pytest.approx(same.r2, rel=0.05, abs=0.05)
    x, cost = learned.main(weighed, [np.zeros(4)])
    choices = [
        unit * float(stages.c @ bits) + learned.predict(bits, np.zeros(4))
        for bits in itertools.product((0, 1), repeat=4)
    ]
    assert cost / unit == pytest.approx(min(choices) / unit, rel=1e-5)
    assert unit * float(stages.c @ x) + learned.predict(x, np.zeros(4)) == pytest.approx(min(choices), rel=1e-5)


def test_costs_that_differ_in_a_late_digit_are_told_apart() -> None:
    stages = TwoStageProgram(
        c=[-1e7, -1e7 - 1], d=[0.0], deviations=[[0.0]], T=np.zeros((1, 2)), W=[[1.0]], h=[1.0], gamma=1,
        A=[[1.0, 1.0]], high=[1.0],
    )  # fmt: skip
    plan = two_stage_robust(stages)
    assert plan.amounts.tolist() == [0, 1]
    assert plan.value == -1e7 - 1


def test_programs_that_hold_the_network_agree_with_it() -> None:
    stages = drawn(3, n=5, gamma=2)
    learned = fit_recourse(stages, samples=80, units=6, seed=1)
    assert isinstance(learned, LearnedRecourse)
    u = np.array([1.0, 0.5, 0, 0, 0.5])
    x, cost = learned.main(stages, [np.zeros(5), u])
    choices = {
        bits: float(stages.c @ bits) + max(learned.predict(bits, np.zeros(5)), learned.predict(bits, u))
        for bits in itertools.product((0, 1), repeat=5)
    }
    assert cost == pytest.approx(min(choices.values()), abs=1e-5)
    assert choices[tuple(int(bit) for bit in x)] == pytest.approx(cost, abs=1e-5)
    worst, highest = learned.adversary(stages, x)
    assert worst.sum() <= 2 + 1e-9
    rng = np.random.default_rng(0)
    tried = rng.dirichlet(np.ones(6), 300)[:, :5] * 2
    assert highest >= max(learned.predict(x, np.minimum(row, 1)) for row in tried) - 1e-6
    plan = two_stage_robust(stages, learned=learned)
    assert plan.status == "heuristic"
    assert plan.bound is None
    assert plan.value == pytest.approx(float(stages.c @ plan.amounts) + stages.worst(plan.amounts)[0])
    assert two_stage_robust(stages).value <= plan.value + 1e-6


def test_limits_of_the_first_stage_and_rounds() -> None:
    stages = drawn(1)
    limited = TwoStageProgram(
        c=stages.c, d=stages.d, deviations=stages.deviations, T=stages.T, W=stages.W, h=stages.h, gamma=1.5,
        A=np.ones((1, 4)), high=[1],
    )  # fmt: skip
    assert two_stage_robust(limited).amounts.sum() <= 1
    stopped = two_stage_robust(stages, iterations=1)
    assert stopped.status in ("stopped", "optimal")
    assert stopped.bound <= two_stage_robust(stages).value + 1e-6 <= stopped.value + 2e-6


def test_refusals() -> None:
    given: dict[str, Any] = {
        "c": [1.0], "d": [-3.0], "deviations": [[2.0]], "T": [[-1.0]], "W": [[1.0]], "h": [0.0], "gamma": 1
    }  # fmt: skip
    for change, says in (
        ({"T": [[-1.0, 0.0]]}, "T has shape (1, 2); c, d and h ask for (1, 1)"),
        ({"gamma": None}, "gamma, scenarios: give one of them"),
        ({"gamma": -1}, "gamma=-1"),
        ({"gamma": None, "scenarios": [[1.0, 2.0]]}, "scenarios has 2 columns, deviations 1"),
    ):
        refused(lambda change=change: TwoStageProgram(**{**given, **change}), says)  # type: ignore[misc]
    stages = TwoStageProgram(**given)
    refused(lambda: two_stage_robust("knapsack"), "give a TwoStageProgram")  # type: ignore[arg-type]
    refused(lambda: fit_recourse(stages, samples=5), "samples=5: too few")
    refused(lambda: fit_recourse(TwoStageProgram(**{**given, "bounds": (0.0, 3.0)})), "stages has bounds")
    refused(
        lambda: two_stage_robust(stages, learned=fit_recourse(drawn(0), samples=20, units=2)), "learned is of (4, 4)"
    )
    for call, says in (
        (lambda: stages.recourse([1, 1], [0]), "x has 2 values, c has 1; give"),
        (lambda: stages.recourse([2], [0]), "x at row 0 is 2; give whole numbers from 0 to 1"),
        (lambda: stages.worst([0.5]), "x at row 0 is 0.5; give whole numbers"),
        (lambda: stages.worst([np.nan]), "x at row 0 is NaN"),
        (lambda: stages.recourse([1], [0, 0]), "u has 2 values, deviations 1 columns"),
        (lambda: stages.recourse([1], [1.5]), "u at row 0 is 1.5; give numbers from 0 to 1"),
        (lambda: stages.recourse([1], [np.nan]), "u at row 0 is NaN"),
        (lambda: TwoStageProgram(**{**given, "gamma": 0.5}).recourse([1], [1]), "u comes to 1, gamma is 0.5"),
        (
            lambda: TwoStageProgram(**{**given, "gamma": None, "scenarios": [[0.0]]}).recourse([1], [1]),
            "u is none of the scenarios",
        ),
        (lambda: TwoStageProgram(**{**given, "bounds_y": (0, np.nan)}), "bounds_y has a NaN"),
        (lambda: TwoStageProgram(**{**given, "W": [[1e15]]}), "T, W at row 0, column 1 is 1e+15"),
        (
            lambda: TwoStageProgram(**{**given, "W": [[1e-10]], "bounds_y": (0, 1e9)}),
            "T, W at row 0, column 1 is 1e-10, which the solver reads as 0",
        ),
        (lambda: TwoStageProgram(**{**given, "T": [[0]], "W": [[1e-100]], "h": [1]}), "h at row 0 is 1, too far from"),
    ):
        refused(call, says)
    open_ended = TwoStageProgram(**{**given, "T": [[0.0]], "W": [[-1.0]], "bounds_y": (0, np.inf)})
    for call in (lambda: open_ended.recourse([0], [0]), lambda: two_stage_robust(open_ended)):
        refused(call, "give bounds_y", FailureError)
    none = TwoStageProgram(**{**given, "h": [-2.0]})
    refused(lambda: two_stage_robust(none), "A, T: no x keeps its limits", InfeasibleError)
    refused(lambda: none.recourse([0], [0]), "x leaves no y", InfeasibleError)
