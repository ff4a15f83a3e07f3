"""Transport of a part, at a price for what is missed, and with a free side: POT and a plain solver as references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from refusals import refused, untested
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

import kofn
from kofn.assignment import partial_transport, unbalanced_transport
from kofn.assignment.transport import _partial_transport, _unbalanced_transport
from kofn.core.checks import InfeasibleError, InputError


@pytest.fixture
def ot(monkeypatch: pytest.MonkeyPatch) -> Any:
    for other in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        # POT loads every array library that it finds.
        monkeypatch.setenv(f"POT_BACKEND_DISABLE_{other}", "1")
    return pytest.importorskip("ot")


def problem(seed: int, n: int = 30, m: int = 20) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    costs = ((rng.random((n, 1, 2)) - rng.random((1, m, 2))) ** 2).sum(axis=2)
    return costs, rng.random(n), 1.7 * rng.random(m)


def dense(plan: Any) -> Any:
    out = np.zeros((plan.n, plan.k))
    out[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.02, 0.4, 1.0])
def test_a_part_is_sent_as_pot_sends_it(seed: int, share: float, ot: Any) -> None:
    costs, r, c = problem(seed)
    mass = share * min(r.sum(), c.sum())
    plan = kofn.assign(scores=-costs, method="partial_transport", row_totals=r, column_totals=c, mass=mass)
    assert plan.status == "optimal"
    assert -plan.value == pytest.approx(ot.partial.partial_wasserstein2(r, c, costs, m=mass), rel=1e-7, abs=1e-10)
    assert plan.value <= plan.bound
    assert plan.info["mass"] == pytest.approx(mass)
    assert (plan.row_margin <= r * (1 + 1e-12)).all()
    assert (plan.col_margin <= c * (1 + 1e-12)).all()
    gaps = plan.u[:, None] + plan.v + plan.info["price"] + costs
    assert gaps.min() >= -1e-9
    assert gaps[dense(plan) > 0] == pytest.approx(0, abs=1e-6)


def test_without_a_mass_the_larger_side_is_free() -> None:
    costs, r, _ = problem(0)
    many = np.full(20, 100.0)
    plan = partial_transport(-costs, row_totals=r, column_totals=many)
    assert -plan.value == pytest.approx(r @ costs.min(axis=1))
    assert plan.row_margin == pytest.approx(r)


@pytest.mark.parametrize("listed", [1.0, 0.7])
def test_without_a_mass_whole_totals_send_whole_units_and_all_that_can_be(listed: float) -> None:
    rng = np.random.default_rng(int(10 * listed))
    tried = 0
    while tried < 60:
        n, m = rng.integers(1, 5, 2)
        r, c = rng.integers(0, 4, n), rng.integers(0, 4, m)
        scores = np.where(rng.random((n, m)) < listed, rng.integers(-5, 6, (n, m)), -np.inf)
        network = np.zeros((n + m + 2, n + m + 2), np.int32)
        network[0, 1 : n + 1], network[n + 1 : -1, -1] = r, c
        network[1 : n + 1, n + 1 : -1] = np.where(scores > -np.inf, 99, 0)
        most = maximum_flow(csr_array(network), 0, n + m + 1).flow_value
        if not r.sum() or not c.sum() or (scores == -np.inf).all(axis=1).any():
            continue
        tried += 1
        plan = partial_transport(scores, row_totals=r, column_totals=c)
        assert plan.info["mass"] == pytest.approx(most, rel=1e-14, abs=1e-14)
        np.testing.assert_allclose(plan.weights, np.round(plan.weights), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("reg", "reg_m"), [(0.05, 1.0), (0.05, (0.3, 2.0)), (0.02, (math.inf, 0.5)), (0.05, (1.0, 0.0)), (1.0, 1e-3)]
)
def test_missed_totals_are_those_of_pot(reg: float, reg_m: Any, ot: Any) -> None:
    costs, r, c = problem(1)
    plan = unbalanced_transport(-costs, row_totals=r, column_totals=c, reg=reg, reg_m=reg_m, tol=1e-14)
    theirs = ot.unbalanced.sinkhorn_unbalanced(r, c, costs, reg, reg_m, numItermax=100_000, stopThr=1e-14)
    np.testing.assert_allclose(dense(plan), theirs, rtol=1e-5, atol=1e-7)
    assert plan.value <= plan.bound <= plan.value + 1e-10 * (1 + abs(plan.value))


def test_value_is_the_maximum_and_bound_holds_at_any_stop() -> None:
    costs, r, c = problem(2, 4, 3)
    reg, reg_m = 0.1, (0.5, 2.0)

    def divergence(x: Any, y: Any) -> float:
        return float((x * np.log(np.maximum(x, 1e-300) / y)).sum() - x.sum() + y.sum())

    def loss(flat: Any) -> float:
        P = np.exp(flat).reshape(4, 3)
        penalty = reg * divergence(P, np.outer(r, c))
        penalty += reg_m[0] * divergence(P.sum(axis=1), r) + reg_m[1] * divergence(P.sum(axis=0), c)
        return float((P * costs).sum()) + penalty

    best = -min(minimize(loss, np.full(12, start), tol=1e-12).fun for start in (-3.0, 0.0))
    for sweeps in (1, 3, 200):
        plan = unbalanced_transport(-costs, row_totals=r, column_totals=c, reg=reg, reg_m=reg_m, max_sweeps=sweeps)
        assert plan.value - 1e-7 <= best <= plan.bound + 1e-7
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(best, abs=1e-7)


def test_a_free_side_gives_each_row_its_softmax() -> None:
    costs, r, _ = problem(3)
    plan = unbalanced_transport(-costs, row_totals=r, reg=0.1, reg_m=(math.inf, 0.0))
    soft = np.exp(-costs / 0.1)
    np.testing.assert_allclose(dense(plan), r[:, None] * soft / soft.sum(axis=1, keepdims=True), rtol=1e-9)


def test_high_penalties_come_near_the_balanced_plan() -> None:
    costs, r, c = problem(4)
    r, c = r / r.sum(), c / c.sum()
    plan = unbalanced_transport(-costs, row_totals=r, column_totals=c, reg=0.2, reg_m=(math.inf, 500.0))
    balanced = kofn.assign(scores=-costs, margins=(r, c), reg=0.2, method="sinkhorn_newton_sparse")
    np.testing.assert_allclose(dense(plan), dense(balanced), rtol=1e-2)


def test_what_lists_nothing_misses_its_total() -> None:
    table = np.array([[1.0, -np.inf], [-np.inf, -np.inf], [0.5, 0.2]])
    plan = unbalanced_transport(table, reg=0.1, reg_m=1.0)
    assert plan.row_margin[1] == 0
    assert plan.value <= plan.bound <= plan.value + 1e-9
    nothing = np.full((2, 2), -np.inf)
    assert unbalanced_transport(nothing, reg=0.1, reg_m=1.0).value == pytest.approx(-4 - 0.4)
    assert partial_transport(nothing).labels.tolist() == [-1, -1]
    shut = partial_transport([[5.0, -np.inf], [4.0, -np.inf]])
    assert (shut.value, shut.info["mass"], shut.status) == (pytest.approx(5), pytest.approx(1), "optimal")
    late = unbalanced_transport(-problem(0)[0], reg=1e-3, time_limit=1e-9)
    assert late.status == "stopped"
    assert late.info["sweeps"] == 1
    assert partial_transport(table, mass=1.5).labels.tolist()[1] == -1


T = [[1.0, 2.0], [3.0, 0.0]]
CALLS = {
    "mass": (lambda: partial_transport(T, mass=3), "mass=3: give a number > 0, at most 2", InputError),
    "no mass": (lambda: partial_transport(T, mass=0), "mass=0: give a number > 0", InputError),
    "shut": (
        lambda: partial_transport([[1.0, 2.0], [-np.inf, -np.inf]], mass=2),
        "cannot carry a mass of 2 within the totals",
        InfeasibleError,
    ),
    "length": (lambda: partial_transport(T, row_totals=[1]), "row_totals has 1 values, scores asks for 2", InputError),
    "negative": (lambda: partial_transport(T, column_totals=[1, -1]), "column_totals at 1 is -1", InputError),
    "nothing": (lambda: unbalanced_transport(T, row_totals=[0, 0]), "row_totals are all zero", InputError),
    "both": (lambda: unbalanced_transport(T, reg_m=math.inf), "reg_m is infinite on both sides", InputError),
    "three": (lambda: unbalanced_transport(T, reg_m=(1, 2, 3)), "reg_m=(1, 2, 3): give a number >= 0", InputError),
    "no entropy": (lambda: unbalanced_transport(T, reg=0), "reg=0: give a number > 0", InputError),
    "beyond floats": (
        lambda: unbalanced_transport([[-np.inf], [3615.95]], reg=0.01, reg_m=0.1),
        "send a mass beyond floats at this penalty; raise reg_m",
        InputError,
    ),
    "unlisted": (
        lambda: unbalanced_transport([[1.0, 2.0], [-np.inf, -np.inf]], reg_m=(math.inf, 1)),
        "rows with a total of 1 list no entry",
        InfeasibleError,
    ),
}


def test_every_refusal() -> None:
    reached = {refused(call, says, kind) for call, says, kind in CALLS.values()}
    left = untested([_partial_transport, _unbalanced_transport], reached)
    # HiGHS gives no plan only where it fails.
    assert [text for text in left if "HiGHS found no plan" not in text] == []


@pytest.mark.parametrize("never", [1e3, 1e6, 1e10, 1e16, 1e32])
def test_costs_that_stand_for_never_do_not_blur_the_others(never: float) -> None:
    rng = np.random.default_rng(0)
    costs, shut = rng.random((5, 4)) * 30 + 90, rng.random((5, 4)) < 0.3
    shut[:, 3] = False
    totals = {"row_totals": [1, 1, 1, 1, 4], "column_totals": [2, 2, 2, 2]}
    plan = partial_transport(np.where(shut, -never, -costs), **totals)
    without = partial_transport(np.where(shut, -np.inf, -costs), **totals)
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(without.value, rel=1e-7)
    assert plan.bound >= plan.value
    # Where such a cost cannot be avoided, it is paid.
    shut[:, 3] = True
    shut[0] = True
    forced = partial_transport(np.where(shut, -never, -costs), **totals)
    assert forced.value <= -never


def test_the_default_penalty_asks_for_no_mass_beyond_floats() -> None:
    scores = [[-np.inf], [3615.95]]
    plan = unbalanced_transport(scores)
    assert plan.status == "optimal"
    assert 0 < plan.info["mass"] < 10
