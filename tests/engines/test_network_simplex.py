"""Exact transport of real masses: the network simplex against HiGHS and POT, its certificates, trees and counters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, kron, vstack

import kofn
from kofn.assignment import partial_transport, sinkhorn_newton_sparse
from kofn.core.checks import InfeasibleError
from kofn.engines import network_simplex
from kofn.engines.network_simplex import cheapest_plan


def least(costs: Any, r: Any, c: Any) -> float:
    """The least cost by HiGHS, of costs and totals of about 1."""
    n, m = costs.shape
    listed = np.isfinite(costs.ravel())
    sums: Any = vstack(
        [kron(eye_array(n), csr_array(np.ones((1, m)))), kron(csr_array(np.ones((1, n))), eye_array(m))]
    ).tocsc()[:, listed]
    found: Any = linprog(costs.ravel()[listed], A_eq=sums, b_eq=np.concatenate([r, c]), method="highs")
    assert found.status == 0
    return float(found.fun)


def certified(costs: Any, r: Any, c: Any) -> float:
    """The plan's cost as a share of the largest cost and the mass, its margins and prices checked."""
    plan = cheapest_plan(costs, r, c)
    assert plan.optimal
    assert not plan.missed
    total, size = r.sum(), np.abs(costs[np.isfinite(costs)]).max() or 1.0
    r, c, mass, costs = r / total, c / total, plan.mass / total, costs / size
    u, v = plan.u / size, plan.v / size
    rounding = 4e-16 * sum(costs.shape)
    np.testing.assert_allclose(np.bincount(plan.row, mass, len(r)), r, rtol=0, atol=rounding)
    np.testing.assert_allclose(np.bincount(plan.column, mass, len(c)), c, rtol=0, atol=rounding)
    assert (plan.mass > 0).all()
    assert len(plan.mass) < sum(costs.shape)
    assert (costs - u[:, None] - v).min() >= -rounding
    value = float(costs[plan.row, plan.column] @ mass)
    assert value == pytest.approx(r @ u + c @ v, rel=0, abs=rounding * max(1.0, np.abs(u).max(), np.abs(v).max()))
    return value


KINDS = ["real", "tied", "uniform", "empty totals", "large", "denormal", "wide", "tall", "uneven"]


def problem(kind: str, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 13, 2)
    n, m = (1, m) if kind == "wide" else (n, 1) if kind == "tall" else (n, m)
    costs, r, c = rng.normal(size=(n, m)), rng.random(n), rng.random(m)
    if kind == "tied":
        costs, r, c = rng.integers(0, 3, (n, m)).astype(float), np.ones(n), np.ones(m)
    if kind == "uniform":
        r, c = np.ones(n), np.ones(m)
    if kind == "empty totals":
        r, c = np.append(r * (rng.random(n) < 0.5), 1.0)[:n], np.append(c * (rng.random(m) < 0.5), 1.0)[:m]
        r[0], c[-1] = 1.0, 1.0
    if kind == "uneven":
        r, c = r * 10.0 ** rng.integers(-300, 0, n), c * 10.0 ** rng.integers(-20, 0, m)
    r, c = r / r.sum(), c / c.sum()
    if kind == "large":
        costs, r, c = costs * 2.0**1020, r * 2.0**1020, c * 2.0**1020
    if kind == "denormal":
        costs, r, c = costs * 2.0**-1040, r * 2.0**-1020, c * 2.0**-1020
    return costs, r, c


@pytest.mark.parametrize("kind", KINDS)
def test_plans_are_the_linear_programs_and_their_prices_prove_it(kind: str) -> None:
    for seed in range(25):
        costs, r, c = problem(kind, seed)
        size = np.abs(costs).max()
        best = least(costs / (size or 1.0), r / r.sum(), c / r.sum())
        assert certified(costs, r, c) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("kind", ["points", "random", "histogram", "uniform"])
def test_larger_plans_are_those_of_pot_in_few_pivots(kind: str) -> None:
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(0)
    n, m = 300, 200
    costs = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2))) ** 2).sum(axis=2)
    r, c = rng.random(n), rng.random(m)
    if kind == "random":
        costs = rng.random((n, m))
    if kind == "uniform":
        r, c = np.ones(n), np.ones(m)
    if kind == "histogram":
        x, y = np.linspace(0, 1, n), np.linspace(0, 1, m)
        costs, r, c = (x[:, None] - y) ** 2, np.exp(-((x - 0.2) ** 2) / 0.002), np.exp(-((y - 0.7) ** 2) / 0.01)
    r, c = r / r.sum(), c / c.sum()
    assert certified(costs, r, c) * costs.max() == pytest.approx(ot.emd2(r, c, costs), rel=1e-9)
    plan = cheapest_plan(costs, r, c)
    # Measured: 4 to 11 a node.
    assert plan.pivots <= 20 * (n + m)
    again, turned = cheapest_plan(costs, r, c), cheapest_plan(np.asfortranarray(costs), r, c)
    for other in (again, turned):
        assert np.array_equal(other.mass, plan.mass)
        assert np.array_equal(other.v, plan.v)


@pytest.mark.parametrize("shape", [(900, 20), (2000, 7), (300, 2), (20, 900)])
@pytest.mark.parametrize("listed", [1.0, 0.6])
def test_tall_plans_keep_the_prices_of_rows_by_their_parents(shape: tuple[int, int], listed: float) -> None:
    rng = np.random.default_rng(0)
    costs = ((rng.normal(size=(shape[0], 1, 2)) - rng.normal(size=(1, shape[1], 2))) ** 2).sum(axis=2)
    plan = rng.random(shape) * (rng.random(shape) < listed)
    plan[:, -1] += 0.1  # so that every row and column has a total
    costs = np.where(plan > 0, costs, np.inf)
    r, c = plan.sum(axis=1) / plan.sum(), plan.sum(axis=0) / plan.sum()
    found = cheapest_plan(costs, r, c)
    assert found.optimal
    np.testing.assert_allclose(np.bincount(found.row, found.mass, shape[0]), r, atol=1e-15)
    np.testing.assert_allclose(np.bincount(found.column, found.mass, shape[1]), c, atol=1e-15)
    assert (found.u[:, None] + found.v <= costs + 1e-12).all()
    assert r @ found.u + c @ found.v == pytest.approx(found.mass @ costs[found.row, found.column], abs=1e-12)


def test_trees_stay_strongly_feasible_on_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arcs without flow lead from a row up; sizes and flows are those of the tree; no tree is seen twice."""
    rng = np.random.default_rng(1)
    costs = rng.integers(0, 5, (24, 12)).astype(float)
    totals = np.full(24, 4, np.int64), np.full(12, 8, np.int64)
    basis = network_simplex._Basis(costs, *totals)
    seen = []

    def look() -> bool:
        parent, flow = basis.parent, basis.flow
        assert not ((flow[:-1] <= 0) & (np.arange(35) >= 24)).any()
        assert (flow[:-1] >= 0).all()
        sizes, net = np.ones(36, int), np.concatenate([totals[0], -totals[1]])
        row, column = basis.arcs()
        for node, up in enumerate(parent[:-1]):
            while up >= 0:
                sizes[up], up = sizes[up] + 1, parent[up]
            net[row[node]] -= flow[node]
            net[24 + column[node]] += flow[node]
        assert np.array_equal(sizes, basis.size)
        assert not net.any()
        seen.append(tuple(sorted(zip(row.tolist(), column.tolist(), strict=True))))
        return False

    monkeypatch.setattr(network_simplex, "_PIVOTS", 1)
    basis.search(costs, look)
    assert basis.idle > 5
    assert len(set(seen)) == len(seen) >= basis.pivots


def test_costs_that_mean_never_hide_none_of_the_others() -> None:
    """Parts that only such costs join: the tree needs them, and potentials across them are large."""
    rng = np.random.default_rng(2)
    costs, r = np.full((60, 60), np.inf), rng.integers(1, 9, 60).astype(float)
    parts = [slice(first, first + 20) for first in (0, 20, 40)]
    for part in parts:
        costs[part, part] = rng.random((20, 20))
    costs[0, 1] = 1e-17
    c = np.concatenate([rng.permutation(r[part]) for part in parts])
    best = least(costs, r / r.sum(), c / c.sum()) * r.sum()
    for never in (1e5, 1e6, 1e12, 1e18, 1e300, np.inf):
        table = np.where(costs < np.inf, costs, never)
        plan = cheapest_plan(table, r, c)
        assert table[plan.row, plan.column] @ plan.mass == pytest.approx(best, rel=1e-9)
        assert plan.u @ r + plan.v @ c == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_entries_that_are_not_listed_carry_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(3, 25, 2)
    some = np.where(rng.random((n, m)) < 0.3, rng.random((n, m)), 0.0)
    some[0], some[:, 0] = some[0] + 0.01, some[:, 0] + 0.01
    r, c = some.sum(axis=1), some.sum(axis=0)
    costs = np.where(some > 0, rng.normal(size=(n, m)), np.inf)
    size = np.abs(costs[np.isfinite(costs)]).max()
    assert certified(costs, r, c) == pytest.approx(least(costs / size, r / r.sum(), c / r.sum()), abs=1e-7)


def test_parts_whose_totals_agree_up_to_rounding_are_served_and_others_named() -> None:
    costs = np.full((6, 6), -np.inf)
    rng = np.random.default_rng(0)
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        costs[part, part] = rng.random((2, 2))
    r = rng.random(6)
    c = np.repeat(r.reshape(3, 2).sum(axis=1), 2) * np.tile([0.3, 0.7], 3)
    plan = sinkhorn_newton_sparse(costs, margins=(r, c), reg=0)
    assert plan.status == "optimal"
    assert plan.info["margin_error"] < 1e-15 * 6
    c[0], c[2] = c[0] + 0.1, c[2] - 0.1
    with pytest.raises(InfeasibleError, match=r"rows 2, 3.* 0\.1 too little"):
        sinkhorn_newton_sparse(costs, margins=(r, c), reg=0)


def test_a_search_that_is_stopped_keeps_totals_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    costs = ((rng.normal(size=(80, 1, 2)) - rng.normal(size=(1, 60, 2))) ** 2).sum(axis=2)
    r, c = rng.random(80), rng.random(60)
    r, c = r / r.sum(), c / c.sum()
    best: Any = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=0, time_limit=60)
    assert (best.status, best.value) == ("optimal", pytest.approx(best.bound, rel=1e-12))
    plan: Any = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=0, time_limit=1e-9)
    assert (plan.status, plan.info["pivots"]) == ("stopped", 0)
    monkeypatch.setattr(network_simplex, "_PIVOTS", 20)
    asked = iter([False] * 5 + [True] * 5)
    part = cheapest_plan(costs, r, c, lambda: next(asked))
    assert (part.optimal, part.pivots) == (False, 100)
    for value, bound, row in ((plan.value, plan.bound, plan.row_margin), (
        -costs[part.row, part.column] @ part.mass, -(r @ part.u + c @ part.v), np.bincount(part.row, part.mass, 80)
    )):  # fmt: skip
        assert value <= best.value + 1e-12
        assert best.value <= bound + 1e-12
        np.testing.assert_allclose(row, r, atol=1e-14)
    free: Any = partial_transport(-costs, row_totals=r, column_totals=c, mass=0.5, time_limit=1e-9)
    assert free.status == "stopped"
    assert free.info["mass"] == pytest.approx(0.5)
    whole: Any = partial_transport(-costs, row_totals=r, column_totals=c, mass=0.5)
    assert free.value <= whole.value <= free.bound


@pytest.mark.parametrize("seed", range(12))
def test_parts_on_listed_entries_are_the_linear_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 10, 2)
    table = np.where(rng.random((n, m)) < 0.5, rng.normal(size=(n, m)), -np.inf)
    r, c = rng.random(n) * (rng.random(n) < 0.8), rng.random(m)
    r[0], table[0, 0] = 1.0, 0.0
    listed = np.flatnonzero(np.isfinite(table))
    sums = np.array(
        [[(e // m == i) for e in listed] for i in range(n)] + [[(e % m == j) for e in listed] for j in range(m)]
    )
    within: Any = {"A_ub": sums.astype(float), "b_ub": np.concatenate([r, c]), "method": "highs"}
    most = -linprog(-np.ones(len(listed)), **within).fun
    for mass in (None, 0.4 * most):
        plan: Any = kofn.assign(scores=table, method="partial_transport", row_totals=r, column_totals=c, mass=mass)
        sent = most if mass is None else mass
        best = -linprog(-table.ravel()[listed], A_eq=np.ones((1, len(listed))), b_eq=[sent * (1 - 1e-12)], **within).fun
        assert plan.status == "optimal"
        assert plan.info["mass"] == pytest.approx(sent)
        assert plan.value == pytest.approx(best, abs=1e-7)
        assert min(plan.u.min(), plan.v.min()) >= 0
        assert (plan.u[:, None] + plan.v + plan.info["price"] - table).min() >= -1e-12
    with (
        pytest.raises(InfeasibleError, match="cannot carry a mass")
        if most < 0.98 * min(r.sum(), c.sum())
        else (pytest.raises(kofn.core.checks.InputError, match="mass="))
    ):
        partial_transport(table, row_totals=r, column_totals=c, mass=most * 1.01)
