"""Amounts of any size over curves with diminishing returns: against SciPy, and by the conditions of optima."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize as opt

import kofn
from kofn.allocation import multiple_choice_knapsack, water_filling
from kofn.allocation.continuous import _fill
from kofn.core.checks import InfeasibleError, InputError

FAMILIES = {
    "power": (lambda a, b, x: a * x**-b, lambda a, b, x: a * b * x ** (-b - 1)),
    "exponential": (lambda a, b, x: a * np.exp(-x / b), lambda a, b, x: a / b * np.exp(-x / b)),
    "log": (lambda a, b, x: a * np.log1p(x / b), lambda a, b, x: a / (b + x)),
    "root": (lambda a, b, x: a * x**b, lambda a, b, x: a * b * x ** (b - 1)),
    "saturating": (lambda a, b, x: a * (1 - np.exp(-x / b)), lambda a, b, x: a / b * np.exp(-x / b)),
}


def draw(family: str, seed: int, n: int = 7) -> tuple[Any, Any, Any, float]:
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.2, 0.9 if family == "root" else 3.0, n)
    least = rng.uniform(0.0, 0.5, n)
    bounds = np.stack([least, least + rng.uniform(0.2, 4.0, n)], axis=1)
    sizes = rng.uniform(0.5, 2.0, n)
    low, high = (bounds * sizes[:, None]).sum(axis=0)
    return np.stack([rng.uniform(0.5, 5.0, n), shape], axis=1), sizes, bounds, float(low + 0.6 * (high - low))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_scipy_and_keeps_the_conditions_of_an_optimum(family: str, seed: int) -> None:
    curves, sizes, bounds, budget = draw(family, seed)
    value, slope = FAMILIES[family]
    plan = water_filling(curves, budget=budget, sizes=sizes, bounds=bounds, family=family)
    sign = 1.0 if plan.sense == "min" else -1.0
    a, b = curves.T
    reference = opt.minimize(
        lambda x: sign * value(a, b, x).sum(),
        bounds.mean(axis=1),
        jac=lambda x: -slope(a, b, x),
        bounds=bounds,
        constraints={"type": "ineq", "fun": lambda x: budget - sizes @ x, "jac": lambda x: -sizes},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert sign * plan.value <= reference.fun + 1e-9
    assert plan.value == pytest.approx(sign * reference.fun, rel=1e-6)
    assert plan.used["budget"] <= budget
    assert plan.used["budget"] == pytest.approx(budget, rel=1e-12)
    slopes, sides = slope(a, b, plan.amounts) / sizes, plan.at_bounds
    assert slopes[sides == 0] == pytest.approx(plan.price, rel=1e-9)
    assert (slopes[sides == -1] <= plan.price * (1 + 1e-9)).all()
    assert (slopes[sides == 1] >= plan.price * (1 - 1e-9)).all()
    assert plan.status == "optimal"
    assert plan.gap < 1e-9
    uniform = plan.info["uniform"]
    assert uniform["used"] == pytest.approx(budget, rel=1e-9)
    assert sign * plan.value <= sign * uniform["value"] + 1e-12


def test_equal_powers_are_shared_in_closed_form() -> None:
    # The classical allocation of samples to strata: in proportion to the deviations over the roots of the costs.
    deviations, costs = np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 1.0])
    plan = water_filling(np.stack([deviations**2, np.ones(3)], axis=1), budget=50, sizes=costs)
    expected = deviations / np.sqrt(costs)
    assert plan.amounts == pytest.approx(expected * 50 / (expected * costs).sum(), rel=1e-12)


def test_functions_are_filled_as_their_family_is() -> None:
    curves, sizes, bounds, budget = draw("log", 0, n=4)
    functions = [lambda x, a=a, b=b: a * math.log1p(x / b) for a, b in curves.tolist()]
    plan = kofn.allocate(functions, budget=budget, sizes=sizes, bounds=bounds, method="water_filling")
    exact = water_filling(curves, budget=budget, sizes=sizes, bounds=bounds, family="log")
    assert plan.amounts == pytest.approx(exact.amounts, abs=1e-5)
    assert plan.price == pytest.approx(exact.price, rel=1e-4)
    assert (plan.status, plan.bound) == ("heuristic", None)
    losses = [lambda x, f=f: -f(x) for f in functions]
    less = water_filling(losses, budget=budget, sizes=sizes, bounds=bounds, sense="min")
    assert less.amounts.tolist() == plan.amounts.tolist()
    assert less.value == -plan.value


def test_functions_are_read_at_the_levels() -> None:
    curves = [lambda x: 9.0 / (1 + x), lambda x: 4.0 / (1 + x)]
    plan = kofn.allocate(curves, budget=4, levels=[0, 1, 2, 3])
    table = [[9 / (1 + x) for x in range(4)], [4 / (1 + x) for x in range(4)]]
    assert plan.amounts.tolist() == multiple_choice_knapsack(table, budget=4).amounts.tolist()
    with pytest.raises(InputError, match=r"curves are functions; give levels=\[...\], .* or method='water_filling'"):
        kofn.allocate(curves, budget=4)
    with pytest.raises(InputError, match=r"levels has shape \(3, 2\)"):
        kofn.allocate(curves, budget=4, levels=[[0, 1]] * 3)


def test_what_cannot_be_spent_and_free_items_are_told() -> None:
    plan = water_filling([[1.0, 1.0], [2.0, 1.0]], budget=9, bounds=(0, 2), family="log")
    assert (plan.amounts.tolist(), plan.price) == ([2.0, 2.0], 0.0)
    assert plan.info["notes"] == ["budget=9 is above 4, what the most of all items cost; 5 cannot be spent"]
    free = water_filling([[1.0, 1.0], [2.0, 1.0]], budget=3, sizes=[0, 1], bounds=(0, 5), family="log")
    assert free.amounts.tolist() == [5.0, 3.0]
    idle = water_filling([[0.0, 1.0], [2.0, 1.0]], budget=3, family="saturating")
    assert idle.amounts.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("n", [10, 5_000])
def test_the_budget_is_never_exceeded(n: int) -> None:
    rng = np.random.default_rng(n)
    for family in FAMILIES:
        curves = np.stack([rng.random(n) + 0.1, rng.uniform(0.1, 0.9, n)], axis=1)
        plan = water_filling(curves, budget=0.1 * n, family=family)
        assert math.fsum([*plan.amounts.tolist(), -0.1 * n]) <= 0
        assert plan.used["budget"] == pytest.approx(0.1 * n, rel=1e-11)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (
            {"budget": 1, "bounds": (1, 3)},
            InfeasibleError,
            r"budget=1 is below 2, .*the most of all cost 6.*raise it by 1",
        ),
        ({"budget": 0, "family": "power"}, InfeasibleError, "budget=0 leaves item 0 with 0, an infinite loss"),
        ({"sizes": [0, 1]}, InputError, "sizes at item 0 is 0, so that it could have any amount"),
        ({"sizes": [1, 1, 1]}, InputError, "sizes has 3 values"),
        ({"curves": [[-1.0, 1.0]]}, InputError, r"curves at row 0, column 0 is -1; the scale must be >= 0"),
        ({"curves": [[1.0, 0.0]]}, InputError, r"curves at row 0, column 1 is 0; the shape must be > 0"),
        ({"curves": [[1.0, 1.5]], "family": "root"}, InputError, "the shape of family='root' must be below 1"),
        ({"curves": [[1.0]]}, InputError, "curves has 1 columns; family='log' takes scale and shape"),
        ({"sense": "min"}, InputError, "sense='min': family='log' are values"),
        ({"family": "cubic"}, InputError, "family='cubic': choose one of power, exponential"),
        ({"curves": [lambda x: "a"]}, InputError, r"curves\[0\] is 'a' at the amount"),
    ],
)
def test_bad_input_is_named(words: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        water_filling(**{"curves": [[1.0, 1.0], [2.0, 1.0]], "budget": 2, "family": "log", **words})


@pytest.mark.parametrize("family", ["root", "saturating", "log"])
def test_threads_change_nothing(family: Any) -> None:
    rng = np.random.default_rng(9)
    curves = np.stack([rng.random(40_000), rng.uniform(0.1, 0.9, 40_000)], axis=1)
    bounds = np.stack([0.3 * rng.random(40_000), rng.uniform(0.5, 2.0, 40_000)], axis=1)
    plans = [
        kofn.allocate(curves, budget=22_000.0, bounds=bounds, method="water_filling", family=family, n_threads=threads)
        for threads in (1, 3)
    ]
    assert plans[0].amounts.tolist() == plans[1].amounts.tolist()
    assert (plans[0].value, plans[0].price) == (plans[1].value, plans[1].price)
    assert plans[0].info["uniform"]["value"] == plans[1].info["uniform"]["value"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bounded", [False, True])
def test_what_a_sample_begins_is_what_turns_end(family: str, bounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the price of some items on, the same amounts and price as from none."""
    curves, sizes, bounds, budget = draw(family, 5, 3_000)
    given: Any = {"budget": budget, "sizes": sizes, "family": family, "bounds": bounds if bounded else None}
    turns = water_filling(curves, **given)
    monkeypatch.setattr(_fill, "_MANY", 100)
    monkeypatch.setattr(_fill, "_SAMPLE", 60)
    placed = water_filling(curves, **given)
    assert placed.status == turns.status == "optimal"
    assert placed.price == pytest.approx(turns.price, rel=1e-12)
    assert placed.amounts == pytest.approx(turns.amounts, rel=1e-9, abs=1e-12)
    # Where no price settles in the steps that are allowed, bounds are fixed in turns.
    monkeypatch.setattr(_fill, "_PLACED", 1)
    assert water_filling(curves, **given).equals(turns)


def test_the_same_for_all_is_the_most_that_the_budget_buys() -> None:
    rng = np.random.default_rng(6)
    least = rng.random(500)
    most = np.where(rng.random(500) < 0.2, np.inf, least + rng.random(500))
    sizes = rng.random(500) + 0.1
    curves = np.ones((500, 2))
    for budget in (1.001 * float(least @ sizes), 500.0, 5e4):
        uniform = water_filling(
            curves, budget=budget, sizes=sizes, bounds=np.stack([least, most], axis=1), family="log"
        )
        amounts, used = uniform.info["uniform"]["amounts"], uniform.info["uniform"]["used"]
        inside = amounts[(amounts > least) & (amounts < most)]
        assert used == pytest.approx(budget, rel=1e-12)
        assert np.ptp(inside) == 0
        assert (amounts[least > inside[0]] == least[least > inside[0]]).all()
        assert (amounts[most < inside[0]] == most[most < inside[0]]).all()
