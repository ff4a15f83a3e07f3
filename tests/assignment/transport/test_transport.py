"""Couplings: POT, HiGHS and brute force as references; margins, bounds, limits of the regularisation, and errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.assignment import bottleneck_coupling, bottleneck_encoder, minimum_entropy_coupling, sinkhorn_newton_sparse
from kofn.assignment.transport import _sinkhorn_newton_sparse
from kofn.assignment.transport._codes import bits
from kofn.core.checks import InfeasibleError, InputError


def problem(seed: int, n: int = 30, m: int = 20) -> tuple[Any, Any, Any]:
    """Costs between points, and two densities."""
    rng = np.random.default_rng(seed)
    costs = ((rng.random((n, 1, 2)) - rng.random((1, m, 2))) ** 2).sum(axis=2)
    return costs, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def dense(plan: Any) -> Any:
    out = np.zeros((plan.n, plan.k))
    out[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    return out


def least_cost(costs: Any, r: Any, c: Any) -> float:
    """The unregularised optimum by HiGHS."""
    from scipy.optimize import linprog

    n, m = costs.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return float(linprog(costs.ravel(), A_eq=sums, b_eq=np.concatenate([r, c]), method="highs").fun)


@pytest.mark.parametrize("shape", [(30, 20), (15, 40)])
@pytest.mark.parametrize("reg", [0.3, 0.02])
def test_the_plan_is_that_of_pot(shape: tuple[int, int], reg: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        # POT loads every array library that it finds.
        monkeypatch.setenv(f"POT_BACKEND_DISABLE_{other}", "1")
    ot = pytest.importorskip("ot")
    costs, r, c = problem(1, *shape)
    plan = kofn.assign(scores=-costs, margins=(r, c), method="sinkhorn_newton_sparse", options={"reg": reg})
    theirs = ot.sinkhorn(r, c, costs, reg, method="sinkhorn_log", numItermax=100_000, stopThr=1e-14)
    np.testing.assert_allclose(dense(plan), theirs, atol=1e-10)
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(-(theirs * costs).sum() - reg * (theirs * np.log(theirs)).sum(), abs=1e-10)


@pytest.mark.parametrize("reg", [1.0, 0.05, 1e-3, 1e-5, 1e-9, 1e-12, 1e-300])
@pytest.mark.filterwarnings("default::kofn.core.checks.KofnWarning")
def test_bounds_enclose_both_optima_at_any_regularisation(reg: float) -> None:
    costs, r, c = problem(2, 25, 25)
    plan = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=reg)
    best = -least_cost(costs, r, c)
    info = plan.info
    assert info["transport"] <= best + 1e-12
    assert best <= info["transport_bound"] + 1e-12
    assert info["transport_bound"] - info["transport"] <= reg * math.log(costs.size) + 1e-8
    assert plan.value <= plan.bound
    assert np.isfinite(plan.weights).all()
    assert np.isfinite(plan.u).all()
    assert np.isfinite(plan.v).all()
    assert plan.status == "optimal"
    assert info["reg"] == (reg if reg > 1e-300 else pytest.approx(1e-12, rel=0.9))
    np.testing.assert_allclose(plan.row_margin, r, rtol=0, atol=1e-15)
    np.testing.assert_allclose(plan.col_margin, c, rtol=0, atol=1e-15)


def test_newton_needs_few_passes_where_sinkhorn_needs_thousands() -> None:
    costs = np.random.default_rng(3).random((40, 40))
    ours = sinkhorn_newton_sparse(-costs, reg=1e-2)
    theirs = sinkhorn_newton_sparse(-costs, reg=1e-2, newton=False)
    assert theirs.info["newton_steps"] == 0
    assert ours.info["sweeps"] + ours.info["newton_steps"] < 60
    assert theirs.info["sweeps"] > 20 * (ours.info["sweeps"] + ours.info["newton_steps"])
    assert ours.info["kept"] < 0.5
    assert ours.info["dual_falls"] == theirs.info["dual_falls"] == 0
    np.testing.assert_allclose(dense(ours), dense(theirs), atol=1e-7)


def test_a_hessian_of_the_papers_density_reaches_the_same_plan() -> None:
    costs = np.random.default_rng(4).random((50, 50))
    whole = sinkhorn_newton_sparse(-costs, reg=2e-3)
    sparse = sinkhorn_newton_sparse(-costs, reg=2e-3, density=4 / 50)
    assert sparse.info["kept"] <= 4 / 50 < whole.info["kept"]
    assert sparse.status == "optimal"
    np.testing.assert_allclose(dense(sparse), dense(whole), atol=1e-9)


def test_potentials_give_the_plan_and_place_a_new_item() -> None:
    costs, r, c = problem(5)
    plan = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=0.05)
    np.testing.assert_allclose(np.exp((-costs - plan.u[:, None] - plan.v) / 0.05), dense(plan), atol=1e-12)
    assert plan.v.min() == 0
    new = np.exp((-costs[3] - plan.v) / 0.05)
    np.testing.assert_allclose(new / new.sum(), dense(plan)[3] / r[3], rtol=1e-8)


def test_rounding_holds_the_margins_whatever_the_tolerance() -> None:
    costs, r, c = problem(6)
    rough = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=1e-3, tol=0.2, sweeps=1)
    assert rough.info["solved_to"] > 1e-3
    assert rough.info["margin_error"] < 1e-14
    fine = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=1e-3)
    assert rough.value < fine.value <= rough.bound
    assert rough.status == "approximate"
    loose = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=1e-3, tol=0.2, sweeps=1, rounded=False)
    assert 1e-3 < loose.info["margin_error"] <= 0.2


def test_margins_default_to_whole_items_and_equal_bins() -> None:
    plan = sinkhorn_newton_sparse(np.random.default_rng(7).normal(size=(9, 4)))
    np.testing.assert_allclose(plan.row_margin, 1, atol=1e-14)
    np.testing.assert_allclose(plan.col_margin, 9 / 4, atol=1e-14)


def test_totals_of_nothing_take_no_part() -> None:
    costs, r, c = problem(8, 6, 5)
    r[2] = c[4] = 0
    plan = sinkhorn_newton_sparse(-costs, margins=(r / r.sum(), c / c.sum()), reg=0.1)
    assert plan.u[2] == plan.v[4] == np.inf
    assert dense(plan)[2].sum() == dense(plan)[:, 4].sum() == 0
    assert plan.status == "optimal"


def test_entries_that_are_not_listed_stay_empty() -> None:
    scores = np.random.default_rng(9).normal(size=(8, 8))
    away = np.random.default_rng(10).random((8, 8)) < 0.4
    np.fill_diagonal(away, False)
    scores[away] = -np.inf
    plan = sinkhorn_newton_sparse(scores, reg=0.05)
    assert not dense(plan)[away].any()
    assert plan.info["margin_error"] < 1e-9


def test_totals_that_leave_only_one_plan_are_met() -> None:
    # The potentials of the entry that has to be empty run away, the plan converges all the same.
    plan = sinkhorn_newton_sparse([[0.0, 5.0], [-np.inf, 0.0]], reg=0.1)
    np.testing.assert_allclose(dense(plan), np.eye(2), atol=1e-8)


def test_bins_that_cannot_hold_their_items_are_named() -> None:
    scores = np.zeros((4, 3))
    scores[:3, 1:] = -np.inf
    with pytest.raises(
        InfeasibleError, match=r"rows 0, 1, 2 have 3 in total, and the bins that they list hold 1\.33333"
    ):
        sinkhorn_newton_sparse(scores, reg=0.1, max_steps=60)


def test_a_row_that_lists_nothing_is_named() -> None:
    scores = np.zeros((3, 2))
    scores[1] = -np.inf
    with pytest.raises(InfeasibleError, match="the scores of item 1 are all -inf"):
        sinkhorn_newton_sparse(scores)
    assert sinkhorn_newton_sparse(scores, margins=([1, 0, 1], [1, 1])).status == "optimal"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reg": -1}, "reg=-1: give a number >= 0, in units of the scores"),
        ({"reg": float("nan")}, "reg=nan"),
        ({"tol": 0}, "tol=0: give a number between 1e-14 and 1"),
        ({"density": 2}, "density=2: give a number between 0 and 1"),
        ({"sweeps": 0}, "sweeps=0: ask for at least 1"),
        ({"max_steps": 0.5}, "max_steps=0.5: give a whole number"),
        ({"newton": 1}, "newton=1: give True or False"),
        ({"rounded": "yes"}, "rounded='yes': give True or False"),
        ({"margins": ([1, 1], [1, 2])}, "the row totals sum to 2, the column totals to 3"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        sinkhorn_newton_sparse([[1.0, 0.0], [0.0, 1.0]], **options)
    assert says in str(refused.value)


def test_time_that_is_up_leaves_a_plan_with_exact_margins() -> None:
    costs = np.random.default_rng(11).random((80, 80))
    plan = sinkhorn_newton_sparse(-costs, reg=1e-7, time_limit=1e-9)
    assert plan.status == "stopped"
    assert plan.info["margin_error"] < 1e-10
    assert plan.value <= plan.bound


# --- least entropy ---


def joint_bits(plan: Any) -> float:
    return -float((plan.weights * np.log2(plan.weights)).sum())


def vertices(p: Any, q: Any) -> Any:
    """All basic couplings: entropy is concave, so that the least is at one of them."""
    n, m = len(p), len(q)
    cells = list(itertools.product(range(n), range(m)))
    for basis in itertools.combinations(cells, n + m - 1):
        sums = np.zeros((n + m, n + m - 1))
        for column, (i, j) in enumerate(basis):
            sums[i, column] = sums[n + j, column] = 1
        if np.linalg.matrix_rank(sums) == n + m - 1:
            masses = np.linalg.lstsq(sums, np.concatenate([p, q]), rcond=None)[0]
            if masses.min() > -1e-12:
                yield masses


def test_greedy_coupling_is_near_the_least_entropy() -> None:
    rng = np.random.default_rng(12)
    gaps = []
    for _ in range(12):
        p, q = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
        plan = minimum_entropy_coupling((p, q))
        best = min(bits(masses) for masses in vertices(p, q))
        assert plan.bound <= best + 1e-9
        assert best - 1e-9 <= plan.value <= best + plan.info["within_bits"]
        gaps.append(plan.value - best)
    assert np.mean(gaps) < 0.05


@pytest.mark.parametrize("sizes", [(8, 8), (64, 20), (5, 40), (1, 7)])
def test_greedy_coupling_has_its_margins_and_few_pairs(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(13)
    p, q = (rng.dirichlet(np.full(size, 0.5)) for size in sizes)
    plan = minimum_entropy_coupling((p, q))
    np.testing.assert_allclose(plan.row_margin, p, atol=1e-15)
    np.testing.assert_allclose(plan.col_margin, q, atol=1e-15)
    assert len(plan.bins) <= sum(sizes) - 1
    assert plan.value == pytest.approx(joint_bits(plan), abs=1e-12)
    assert max(bits(p), bits(q)) - 1e-12 <= plan.bound <= plan.value <= plan.bound + 1
    assert plan.info["mutual_information"] == pytest.approx(bits(p) + bits(q) - plan.value)


def test_coupling_of_counts_is_of_their_shares() -> None:
    plan = minimum_entropy_coupling(([2, 1, 1, 0], [4, 0]))
    assert plan.weights.tolist() == [2, 1, 1]
    assert plan.value == 1.5


def partitions(n: int) -> Any:
    """All maps of n symbols to codes, each partition once."""

    def grow(codes: list[int]) -> Any:
        if len(codes) == n:
            yield codes
            return
        for code in range(max(codes, default=-1) + 2):
            yield from grow([*codes, code])

    yield from grow([])


def test_the_encoder_is_near_the_best_function_and_within_its_rate() -> None:
    rng = np.random.default_rng(14)
    for _ in range(4):
        p = rng.dirichlet(np.ones(7))
        rates = np.array([bits(np.bincount(codes, p)) for codes in partitions(7)])
        for rate in rng.uniform(0, bits(p) + 0.2, 6):
            best = rates[rates <= rate].max()
            function = bottleneck_encoder(p, rate, mixed=False)
            plan = bottleneck_encoder(p, rate)
            assert function.info["function"]
            assert function.info["rate"] == pytest.approx(function.value)
            assert best - function.info["within_bits"] <= function.value <= best + 1e-9
            assert function.value <= plan.value + 1e-12
            assert plan.info["rate"] <= rate + 1e-12
            assert plan.value <= plan.bound <= rate
            np.testing.assert_allclose(plan.row_margin, p, atol=1e-15)
            split = plan.weights[np.repeat(np.diff(plan.indptr), np.diff(plan.indptr)) > 1]
            lost = 0.0 if plan.info["function"] else split.sum() * bits(split)
            assert plan.value == pytest.approx(bits(plan.col_margin) - lost, abs=1e-9)


def test_a_split_comes_near_the_best_of_all_encoders() -> None:
    """The paper's example, p = (0.7, 0.2, 0.1), against a grid of all encoders of two codes."""
    p = np.array([0.7, 0.2, 0.1])
    steps = np.linspace(0, 1, 41)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    joint = np.stack([grid * p, (1 - grid) * p], -1)

    def entropy(masses: Any, axis: Any) -> Any:
        return -np.where(masses > 0, masses * np.log2(np.maximum(masses, 1e-300)), 0).sum(axis=axis)

    held = entropy(joint.sum(axis=1), 1)
    told = held + bits(p) - entropy(joint, (1, 2))
    for rate in (0.3, 0.6, 0.8):
        best = told[held <= rate].max()
        assert bottleneck_encoder(p, rate).value >= best - 0.02


def test_the_whole_rate_and_no_rate() -> None:
    p = np.array([0.4, 0.3, 0.2, 0.1])
    assert bottleneck_encoder(p, 0).value == 0
    assert bottleneck_encoder(p, 5).value == pytest.approx(bits(p))
    assert bottleneck_encoder(p, 5).status == "optimal"
    q = np.array([0.6, 0.4])
    whole = bottleneck_coupling((p, q), 5)
    plain = minimum_entropy_coupling((p, q))
    assert whole.coupling.value == pytest.approx(plain.info["mutual_information"])
    np.testing.assert_allclose(dense(whole.coupling), dense(plain), atol=1e-15)
    none = bottleneck_coupling((p, q), 0)
    assert none.coupling.value == 0
    np.testing.assert_allclose(dense(none.coupling), np.outer(p, q), atol=1e-15)


def test_a_coupling_through_a_code_keeps_margins_and_the_papers_bound() -> None:
    rng = np.random.default_rng(15)
    for rate in np.linspace(0.2, 4, 8):
        p, q = rng.dirichlet(np.ones(16)), rng.dirichlet(np.ones(12))
        made = bottleneck_coupling((p, q), rate)
        coupling, encoder, decoder = made
        np.testing.assert_allclose(coupling.row_margin, p, atol=1e-14)
        np.testing.assert_allclose(coupling.col_margin, q, atol=1e-14)
        told = bits(p) + bits(q) - joint_bits(coupling)
        assert coupling.value == pytest.approx(told, abs=1e-9)
        lemma = encoder.value + decoder.info["mutual_information"] - encoder.info["rate"]
        assert lemma - 1e-9 <= coupling.value <= coupling.bound + 1e-12


def test_bad_codes_and_couplings_are_refused() -> None:
    with pytest.raises(InputError, match="rate=-1: it must be >= 0"):
        bottleneck_encoder([1, 1], -1)
    with pytest.raises(InputError, match="weights at row 1 is -1"):
        bottleneck_encoder([1, -1], 1)
    with pytest.raises(InputError, match="mixed=1: give True or False"):
        bottleneck_encoder([1, 1], 1, mixed=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="do not add up: the row totals sum to 2, the column totals to 3"):
        minimum_entropy_coupling(([1, 1], [3]))
    with pytest.raises(InputError, match="margins=list: give two vectors"):
        bottleneck_coupling([1, 2, 3], 1)


STUBBORN = {
    "entries that may not be used": (
        np.array([[-np.inf, 0, 0, 0.3], [0.2, 0.3, -np.inf, 0.1]]),
        np.array([0.6548709506945549, 0.6428192707167715]),
        np.array([0.44509591721029257, 0.2025508722742307, 0.1097480699296571, 0.5402953619971459]),
    ),
    **{
        f"drawn, {rows} x {columns}": (
            (rng := np.random.default_rng(seed)).normal(size=(rows, columns)),
            rng.random(rows),
            rng.random(columns),
        )
        for seed, rows, columns in ((117405327, 7, 4), (417761791, 3, 6))
    },
}


@pytest.mark.parametrize("name", STUBBORN)
@pytest.mark.parametrize("entries", [0, 1 << 10])
@pytest.mark.parametrize("reg", [1e-3, 1e-5, 3e-6, 3e-7, 1e-8])
def test_any_regularisation_comes_to_an_end(
    name: str, reg: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Newton's method from a level above wanders: the plan without entropy is begun with instead."""
    monkeypatch.setattr(_sinkhorn_newton_sparse, "_FEW_ENTRIES", entries)
    scores, rows, columns = STUBBORN[name]
    columns = columns * rows.sum() / columns.sum()
    plan = sinkhorn_newton_sparse(scores, margins=(rows, columns), reg=reg)
    exact = sinkhorn_newton_sparse(scores, margins=(rows, columns), reg=0)
    assert plan.status == "optimal"
    assert plan.info["newton_steps"] < 500
    assert plan.info["margin_error"] < 1e-8
    most = rows.sum() * (np.log(scores.size) + 1)
    assert exact.value - 1e-12 <= plan.value <= exact.value + reg * most
    assert plan.info["transport"] <= exact.value + 1e-9


def test_auto_sends_masses_exactly_where_that_is_cheap() -> None:
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(1)
    costs, first, second = rng.random((6, 5)), np.full(6, 1 / 6), np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    plan = kofn.assign(scores=-costs, margins=(first, second))
    assert plan.value == pytest.approx(-ot.emd2(first, second, costs), rel=1e-12)
    assert (plan.status, plan.options["reg"], plan.info["transport"]) == ("optimal", 0.0, plan.value)
    assert "entropy" not in repr(plan)
    # Who asks for the soft plan by an option, or by the method's name, is given it.
    for soft in (
        kofn.assign(scores=-costs, margins=(first, second), reg=0.01),
        kofn.assign(scores=-costs, margins=(first, second), tol=1e-6),
        kofn.assign(scores=-costs, margins=(first, second), method="sinkhorn_newton_sparse"),
    ):
        assert soft.value == pytest.approx(soft.info["transport"] + soft.info["reg"] * soft.info["entropy"])
        assert soft.value > plan.value + 1e-3
        said = f"of which transport={soft.info['transport']:.6g} + reg {soft.info['reg']:.3g} x entropy"
        assert said in repr(soft)
    with pytest.raises(InputError, match=r"does not take margins; .* sinkhorn_newton_sparse is exact with reg=0$"):
        kofn.assign(scores=-costs, margins=(first, second), method="partial_transport")


def test_auto_takes_the_soft_plan_of_large_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.core.dispatch._FEW_SCORES", 29)
    scores = np.random.default_rng(0).random((6, 5)).tolist()
    assert kofn.assign(scores=scores, margins=(np.ones(6), np.full(5, 1.2))).info["reg"] > 0
    assert kofn.assign(scores=scores[:5], margins=(np.ones(5), np.ones(5))).info["reg"] == 0
