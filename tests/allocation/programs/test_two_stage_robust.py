"""Two-stage robust programs against enumeration; the network inside programs against the network itself."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.optimize import linprog

from kofn.allocation import LearnedRecourse, TwoStageProgram, fit_recourse, two_stage_knapsack, two_stage_robust
from kofn.core.checks import InfeasibleError


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
    none = TwoStageProgram(**{**given, "h": [-2.0]})
    refused(lambda: two_stage_robust(none), "A, T: no x keeps its limits", InfeasibleError)
    refused(lambda: none.recourse([0], [0]), "x leaves no y", InfeasibleError)
