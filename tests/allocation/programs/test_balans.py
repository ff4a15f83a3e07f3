"""Neighbourhood search over mixed-integer programs, against optima that HiGHS proves and by enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from kofn.allocation import balans
from kofn.allocation.programs._mixed_integer import program
from kofn.allocation.programs._neighborhoods import NEIGHBORHOODS, Search
from kofn.core.checks import InfeasibleError

# Answers are those of any machine where no second ends a call.
EXACT: Any = {"seconds_each": float("inf"), "seed": 0}


def knapsack(seed: int, n: int = 40, rows: int = 5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 100, (rows, n))
    return -rng.integers(50, 150, n).astype(np.float64), weight.astype(np.float64), weight.sum(axis=1) // 2


def test_the_optimum_is_reached_where_the_solver_proves_it() -> None:
    c, A, high = knapsack(3, n=30, rows=3)
    best = milp(c, integrality=np.ones(30), bounds=Bounds(0, 1), constraints=LinearConstraint(A, -np.inf, high)).fun
    # From nothing in the knapsack, so that all of it is the search's.
    plan = balans(c, A, high=high, start=np.zeros(30), iterations=15, nodes_each=50, **EXACT)
    assert plan.value == pytest.approx(best)
    assert plan.bound <= best + 1e-9
    assert (A @ plan.amounts <= high).all()
    assert plan.amounts.dtype == np.int64
    assert plan.info["path"] == sorted(plan.info["path"], reverse=True)
    assert sum(plan.info["uses"].values()) == len(plan.info["path"]) - 1
    again = balans(c, csr_array(A), high=high, start=np.zeros(30), iterations=15, nodes_each=50, **EXACT)
    assert again.amounts.tolist() == plan.amounts.tolist()


def test_integers_equalities_and_continuous_variables() -> None:
    rng = np.random.default_rng(5)
    c, A = np.append(rng.integers(-5, 6, 4), 0.3), np.array([[2.0, 3, 1, 2, 1], [1.0, -1, 1, 0, 0]])
    low, high = np.array([11.5, 0.0]), np.array([11.5, np.inf])
    bounds = np.array([[0, 3]] * 4 + [[0, 2]])
    choices = []
    for whole in itertools.product(range(4), repeat=4):
        rest = 11.5 - A[0, :4] @ whole
        if 0 <= rest <= 2 and A[1, :4] @ whole >= 0:
            choices.append(float(c @ [*whole, rest]))
    plan = balans(c, A, low=low, high=high, bounds=bounds, integrality=[1, 1, 1, 1, 0], iterations=30, **EXACT)
    assert plan.value == pytest.approx(min(choices))
    assert plan.amounts.dtype == np.float64
    assert not set(plan.info["uses"]) & {"local_branching_10", "proximity_1"}


@pytest.mark.parametrize("name", list(NEIGHBORHOODS))
def test_each_neighborhood_gives_points_of_the_program_near_the_point(name: str) -> None:
    c, A, high = knapsack(8, n=30, rows=3)
    model = program(c, A, None, high, (0, 1), 1)
    point, other = np.zeros(30), np.zeros(30)
    point[:4], other[2:6] = 1.0, 1.0
    relaxed, bound = model.relaxed()
    neighborhood, share = NEIGHBORHOODS[name]
    search = Search(model, point, relaxed, [other, point], np.random.default_rng(1), {"nodes": 100})
    reached = neighborhood(search, share)
    assert reached is not None
    assert (A @ reached <= high).all()
    assert set(reached.tolist()) <= {0.0, 1.0}
    assert model.value(reached) >= bound - 1e-6
    assert model.value(reached) < model.value(point)
    changed = int((reached != point).sum())
    if name.startswith("mutation"):
        assert changed <= np.ceil(share * 30)
    elif name.startswith("local_branching"):
        assert changed <= share * 30
    elif name.startswith("proximity"):
        assert model.value(reached) <= model.value(point) * (1 + share) + 1e-6
    elif name.startswith("crossover"):
        assert (reached != point)[(point != other)].sum() >= changed - np.ceil(share * 26)


def test_the_bandit_takes_what_improves_and_the_uniform_one_does_not_learn() -> None:
    c, A, high = knapsack(4, n=60)
    names = ["mutation_10", "crossover_5"]
    plans = {
        bandit: balans(c, A, high=high, start=np.zeros(60), iterations=12, neighborhoods=names, bandit=bandit, **EXACT)
        for bandit in ("thompson", "softmax", "uniform")
    }
    for plan in plans.values():
        assert list(plan.info["uses"]) == names
        assert all(plan.info["successes"][name] <= plan.info["uses"][name] for name in names)
        assert plan.value < plan.info["start_value"] == 0
    annealed = balans(c, A, high=high, iterations=5, acceptance="simulated_annealing", **EXACT)
    assert annealed.info["path"] == sorted(annealed.info["path"], reverse=True)


def test_what_is_stopped_is_a_point_of_the_program() -> None:
    c, A, high = knapsack(6, n=200, rows=10)
    plan = balans(c, A, high=high, start=np.zeros(200), iterations=10**6, time_limit=0.3, seconds_each=0.1)
    assert plan.status == "stopped"
    assert plan.bound < plan.value
    assert (A @ plan.amounts <= high).all()


def test_refusals() -> None:
    c, A = [1.0, 2.0], [[1.0, 1.0]]
    for call, says in (
        (lambda: balans(c, [[1.0]]), "A has 1 columns, c has 2 values"),
        (lambda: balans(c, csr_array([[1.0, np.inf]])), "A has an entry that is not finite"),
        (lambda: balans(c, A, high=[1.0, 2.0]), "high has shape (2,), A has 1 rows"),
        (lambda: balans(c, A, low=np.nan), "low at row 0 is NaN"),
        (lambda: balans(c, A, bounds=[0, 1, 2]), "bounds has shape (3,)"),
        (lambda: balans(c, A, bounds=[0, np.nan]), "bounds has a NaN"),
        (lambda: balans(c, A, integrality=[1, 2]), "integrality: give 1 for whole numbers"),
        (lambda: balans([-1.0, 0.0], A, bounds=[0, np.inf]), "c: the program has no least cost"),
        (lambda: balans(c, A, low=1, start=[0, 0]), "start does not keep the program"),
        (lambda: balans(c, A, start=[0.5, 0]), "start does not keep the program"),
        (lambda: balans(c, A, neighborhoods=[]), "neighborhoods is empty"),
        (lambda: balans(c, A, neighborhoods=["mutation_9"]), "neighborhoods='mutation_9'"),
        (lambda: balans(c, A, bounds=(0, 3), neighborhoods=["proximity_1"]), "neighborhoods has 'proximity_1', which"),
        (lambda: balans(c, A, bandit="ucb"), "bandit='ucb'"),
    ):
        refused(call, says)
    for call, says in (
        (lambda: balans(c, A, low=2, high=1), "low at row 0 is 2, high is 1"),
        (lambda: balans(c, A, low=3), "A: no values within bounds keep all rows, not even fractions"),
        (lambda: balans(c, [[2.0, 4.0]], low=3, high=3), "A: no whole point within bounds keeps all rows"),
        (lambda: balans(c, A, bounds=(0.2, 0.8)), "bounds of variable 0 are 0.2 to 0.8, which hold no whole number"),
        (lambda: balans(c, A, bounds=[(0, 1), (1.5, 1.5)]), "bounds of variable 1 are 1.5 to 1.5"),
    ):
        refused(call, says, InfeasibleError)


def test_numbers_that_the_solver_does_not_read_are_named_and_never_called_infeasible() -> None:
    c = [-1.0, -1.0]
    for size in (1e15, 1e16, 1e20, 1e300):
        for start in (None, [0, 0]):
            refused(
                lambda size=size, start=start: balans(c, [[1, 1], [1, -size]], high=size, start=start),
                f"A at row 1, column 1 is {-size:g}; the solver reads entries below 1e+15",
            )
    for words, says in (
        ({"low": 1e21}, "low at row 0 is 1e+21; the solver takes 1e+20 and more for infinite"),
        ({"high": [-1e20]}, "high at row 0 is -1e+20"),
        ({"high": 1e25}, "high at row 0 is 1e+25; the solver takes 1e+20 and more for infinite: give inf for no limit"),
        ({"low": np.inf}, "low at row 0 is inf"),
        ({"bounds": (1e20, np.inf)}, "least of bounds at variable 0 is 1e+20"),
        ({"bounds": [(0, 1), (0, 1e30)]}, "most of bounds at variable 1 is 1e+30"),
    ):
        refused(lambda words=words: balans(c, [[1.0, 1.0]], **words), says)
    # What is just below is solved.
    plan = balans(c, [[9e14, 1.0]], high=9e14, **EXACT)
    assert plan.value in (-1.0, -2.0)
    assert balans(c, [[1.0, 1.0]], high=9e19, **EXACT).value == -2


def test_a_start_that_keeps_the_program_to_tolerances_is_not_called_infeasible() -> None:
    # 1e9 is off by 1 of a row of 2e9, within 1e-6 of it; HiGHS asks for 1e-6 of the row as it stands.
    A, high = [[1e9, 1e9]], 2e9 - 1
    with pytest.raises(InfeasibleError):
        balans([1.0, 1.0], A, low=high, high=high, bounds=(1, 1), **EXACT)
    plan = balans([1.0, 1.0], A, low=high, high=high, bounds=(1, 1), start=[1, 1], iterations=2, **EXACT)
    assert plan.amounts.tolist() == [1, 1]
    assert plan.status == "heuristic"


def test_a_program_without_a_point_is_not_called_unbounded() -> None:
    A = [[-1, 2, -4, 4], [1, 2, 4, -4], [-4, 2, 3, -1]]
    low, high = [6, -5, -np.inf], [6, -3, 1]
    limits = LinearConstraint(A, low, high)
    assert milp([0] * 4, integrality=[1] * 4, bounds=Bounds(0, np.inf), constraints=limits).status == 2
    call = {"low": low, "high": high, "bounds": (0, np.inf)}
    refused(
        lambda: balans([-4, 4, 0, -2], A, **call), "A: no whole point within bounds keeps all rows", InfeasibleError
    )
    # With fractions the same program has points, and none that costs least.
    refused(lambda: balans([-4, 4, 0, -2], A, integrality=0, **call), "c: the program has no least cost (")


def test_bounds_of_whole_variables_are_taken_to_whole_numbers() -> None:
    plan = balans([-1.0, 1.0], [[1.0, 1.0]], high=10, bounds=[(-0.5, 3.9999999999), (0.3, 7)], **EXACT)
    assert plan.amounts.tolist() == [3, 1]
    assert plan.value == -2
    assert program([1.0], [[1.0]], None, 1, (-0.5, 1.5), 1).binary.all()


@pytest.mark.parametrize("of_costs", [1e-100, 1e-12, 1.0, 1e8])
@pytest.mark.parametrize("of_rows", [1e-100, 1e-12, 1e-3, 1e8])
def test_programs_in_any_unit_against_enumeration(of_costs: float, of_rows: float) -> None:
    rng = np.random.default_rng(3)
    solved = 0
    for _ in range(6):
        n, rows = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        c, A = rng.integers(-9, 10, n).astype(float), rng.integers(-5, 10, (rows, n)).astype(float)
        high = rng.integers(0, 12, rows).astype(float)
        points = [np.array(point) for point in itertools.product((0, 1), repeat=n)]
        best = min((float(c @ point) for point in points if (A @ point <= high).all()), default=np.inf)
        try:
            plan = balans(c * of_costs, A * of_rows, high=high * of_rows, iterations=2, **EXACT)
        except InfeasibleError:
            assert best == np.inf
            continue
        assert (A @ plan.amounts <= high).all()
        assert plan.bound is not None
        assert plan.bound <= of_costs * (best + 1e-6)
        assert plan.value >= of_costs * (best - 1e-6)
        if plan.status == "optimal":
            assert plan.value == pytest.approx(of_costs * best, rel=1e-9, abs=1e-12 * of_costs)
        solved += 1
    assert solved >= 3


def test_what_the_solver_would_leave_out_is_refused() -> None:
    refused(
        lambda: balans([-1.0, -1.0], [[1.0, 1e-10]], high=1, bounds=(0, 1e9)),
        "A at row 0, column 1 is 1e-10, which the solver reads as 0 beside the row's largest entry",
    )
    refused(
        lambda: balans([-1.0], [[1e-10]], low=1e12, bounds=(0, np.inf)),
        "low at row 0 is 1e+12, too far from the row's entries for the solver",
    )
    # Where it changes nothing it may be left out.
    assert balans([-1.0, -1.0], [[1.0, 1e-10]], high=1.5, **EXACT).amounts.tolist() == [1, 1]


def test_every_call_of_the_solver_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def recorded(*arguments: Any, options: Any, **words: Any) -> Any:
        asked.append(options.get("time_limit", np.inf))
        return milp(*arguments, options=options, **words)

    monkeypatch.setattr("scipy.optimize.milp", recorded)
    c, A, high = knapsack(6, n=50, rows=3)
    balans(c, A, high=high, start=np.zeros(50), iterations=4, time_limit=30, seconds_each=float("inf"))
    assert len(asked) >= 3
    assert max(asked) <= 30
    # The relaxation may take as long as there is, however little a neighbourhood may.
    asked.clear()
    balans(c, A, high=high, start=np.zeros(50), iterations=4, seconds_each=0.5)
    assert asked[0] == np.inf
    assert set(asked[1:]) == {0.5}
    plan = balans(c, A, high=high, start=np.zeros(50), time_limit=1e-9)
    assert plan.status == "stopped"
    assert plan.amounts.tolist() == [0] * 50
