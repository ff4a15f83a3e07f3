"""Transport on histograms as they are: narrow margins, masses down to nothing, hardly any entropy or none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import kofn
from kofn.assignment.transport import _sinkhorn_newton_sparse
from kofn.core.checks import InfeasibleError, InputError

ot = pytest.importorskip("ot")


def bell(n: int, middle: float, width: float) -> np.ndarray:
    return np.asarray(ot.datasets.make_1D_gauss(n, m=middle, s=width))


def gaps(n: int) -> np.ndarray:
    x = np.arange(n, dtype=float)
    return (x[:, None] - x) ** 2


def transported(n: int, first: np.ndarray, second: np.ndarray, reg: float) -> kofn.core.plans.Assignment:
    return kofn.assign(scores=-gaps(n), margins=(first, second), method="sinkhorn_newton_sparse", reg=reg)


@pytest.mark.parametrize(("middle", "width"), [(20, 5), (220, 5), (420, 10)])
@pytest.mark.parametrize("reg", [1.0, 100.0])
def test_bells_far_apart_are_met_as_in_the_log_domain(middle: int, width: int, reg: float) -> None:
    first, second = bell(500, 20, 5), bell(500, middle, width)
    plan = transported(500, first, second, reg)
    assert plan.status in ("optimal", "approximate")
    assert plan.value == pytest.approx(plan.bound, rel=1e-6)
    if reg == 100:
        log = ot.bregman.sinkhorn_log(first, second, gaps(500), reg, numItermax=20_000, stopThr=1e-11, warn=False)
        held = log[log > 0]
        assert plan.value == pytest.approx(-(log * gaps(500)).sum() - reg * (held * np.log(held)).sum(), rel=1e-8)


@pytest.mark.parametrize("middle", [220, 420])
@pytest.mark.parametrize("width", [5, 10])
@pytest.mark.parametrize("reg", [1e-3, 1e-5])
def test_bells_far_apart_with_hardly_any_entropy(middle: int, width: int, reg: float) -> None:
    first, second = bell(500, 20, width), bell(500, middle, width)
    plan, exact = transported(500, first, second, reg), ot.emd(first, second, gaps(500))
    assert (plan.status, plan.info["reg"]) == ("optimal", reg)
    assert plan.info["newton_steps"] < 20
    held, least = exact[exact > 0], -(exact * gaps(500)).sum()
    assert plan.value >= least - reg * (held * np.log(held)).sum() - 1e-9 * abs(least)
    assert least * (1 + 1e-9) <= plan.info["transport"] + reg * np.log(500**2)
    assert plan.info["transport"] <= least * (1 - 1e-9)


def dense(plan: kofn.core.plans.Assignment) -> np.ndarray:
    out = np.zeros((plan.n, plan.k))
    out[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    return out


def entropic(scores: np.ndarray, reg: float, **margins: object) -> kofn.core.plans.Assignment:
    return kofn.assign(scores=scores, method="sinkhorn_newton_sparse", reg=reg, **margins)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("reg", [0.1, 1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("never", [-1e9, -1e32, -1e300])
def test_scores_that_mean_never_change_no_reg(shape: tuple[int, int], reg: float, never: float) -> None:
    rng = np.random.default_rng(0)
    scores, barred = rng.random(shape), rng.random(shape) < 0.2
    margins = (rng.dirichlet(np.ones(shape[0])), rng.dirichlet(np.ones(shape[1])))
    told = entropic(np.where(barred, never, scores), reg, margins=margins)
    asked = entropic(np.where(barred, -np.inf, scores), reg, margins=margins)
    assert (told.status, told.info["reg"]) == ("optimal", reg)
    np.testing.assert_allclose(dense(told), dense(asked), atol=1e-9)
    assert told.value == pytest.approx(asked.value, abs=1e-9)


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-8, 1e-7])
@pytest.mark.parametrize("offset", [0.0, -1e12])
def test_a_plan_that_is_known_in_closed_form(apart: float, offset: float) -> None:
    reg, never = 1e-8, -1e20
    scores = np.array([[0, -apart, never], [-apart, 0, never], [never, never, offset]])
    plan = entropic(scores, reg)
    stays = 1 / (1 + np.exp(-apart / reg))
    expected = [[stays, 1 - stays, 0], [1 - stays, stays, 0], [0, 0, 1]]
    np.testing.assert_allclose(dense(plan), expected, atol=1e-4 if offset else 1e-8)
    assert plan.info["reg"] == reg


def test_a_reg_that_float64_cannot_tell_from_none_is_said() -> None:
    scores = np.random.default_rng(0).random((4, 5))
    scores[0, 1:] -= 1e32  # and one column cannot take all of row 0
    with pytest.warns(kofn.core.checks.KofnWarning, match=r"reg=0.1 is below .* the plan is that of reg=.*e\+"):
        plan = entropic(scores, 0.1, margins=(np.full(4, 1.25), np.ones(5)))
    assert plan.info["reg_asked"] == 0.1
    assert plan.info["reg"] > 1e15
    held = plan.weights[plan.weights > 0]
    counted = (dense(plan) * scores).sum() - plan.info["reg"] * (held * np.log(held)).sum()
    assert plan.value == pytest.approx(counted, rel=1e-12)


def test_rows_with_a_score_of_their_own_keep_the_reg_that_is_asked() -> None:
    scores = np.array([[3.0, 1.0], [2.0, 1.5], [2.0, 0.0], [1.0, 0.5]])
    moved = entropic(scores + np.array([[0], [2.0**40], [0], [-(2.0**45)]]), 0.1)
    np.testing.assert_allclose(dense(moved), dense(entropic(scores, 0.1)), atol=1e-9)
    assert moved.info["reg"] == 0.1


def test_hardly_any_entropy() -> None:
    first, second = bell(100, 30, 10), bell(100, 40, 10)
    plan = transported(100, first, second, 0.01)
    assert plan.status == "optimal"
    assert plan.info["transport"] == pytest.approx(-99.3153, abs=1e-3)
    assert kofn.assign(scores=np.ones((4, 4)), reg=1e-310, method="sinkhorn_newton_sparse").value == pytest.approx(4)


@pytest.mark.parametrize("seed", range(3))
def test_without_entropy_it_is_the_exact_transport(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second, costs = rng.random(30), rng.random(40), rng.random((30, 40))
    first, second = first / first.sum(), second / second.sum()
    plan = kofn.assign(scores=-costs, margins=(first, second), method="sinkhorn_newton_sparse", reg=0)
    assert plan.status == "optimal"
    assert -plan.value == pytest.approx(ot.emd2(first, second, costs), rel=1e-6)
    assert plan.value <= plan.bound
    assert -transported(100, bell(100, 30, 10), bell(100, 40, 10), 0).value == pytest.approx(
        ot.emd2(bell(100, 30, 10), bell(100, 40, 10), gaps(100)), rel=1e-6
    )
    with pytest.raises(InputError, match="reg=-1: give a number >= 0"):
        kofn.assign(scores=-costs, reg=-1, method="sinkhorn_newton_sparse")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_margins_add_up_to_their_own_rounding(dtype: type) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(500), rng.random(400)
    sides = ((first / first.sum()).astype(dtype), (second / second.sum()).astype(dtype))
    plan = kofn.assign(scores=-rng.random((500, 400)), margins=sides, reg=0.1)
    assert plan.status == "optimal"
    with pytest.raises(InputError, match="do not add up"):
        kofn.assign(scores=-rng.random((500, 400)), margins=(sides[0], sides[1] * dtype(1.1)), reg=0.1)
    wide = tuple(side.astype(np.float64) for side in sides)
    with pytest.raises(InputError, match="do not add up"):
        kofn.assign(scores=-rng.random((500, 400)), margins=(wide[0], wide[1] * (1 + 1e-6)), reg=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_without_entropy_items_of_one_total_are_assigned(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 9, (40, 5)) + rng.random((40, 5)) * (seed > 0)
    rows, columns = np.full(40, 0.25), 0.25 * np.array([8, 0, 12, 5, 15])
    monkeypatch.setattr("scipy.optimize.linprog", None)
    plan = kofn.assign(scores=-costs, margins=(rows, columns), method="sinkhorn_newton_sparse", reg=0)
    assert plan.status == "optimal"
    assert -plan.value == pytest.approx(ot.emd2(rows, columns, costs.astype(float)))
    assert plan.col_margin == pytest.approx(columns)
    assert (plan.u[:, None] + plan.v >= -costs - 1e-9).all()
    square = kofn.assign(scores=-costs[:5], method="sinkhorn_newton_sparse", reg=0)
    assert square.value == pytest.approx(-costs[:5][linear_sum_assignment(costs[:5])].sum())
    shut = np.where(np.arange(5) == 0, -np.inf, -costs)
    with pytest.raises(InfeasibleError, match="0"):
        kofn.assign(scores=shut, margins=(rows, columns), method="sinkhorn_newton_sparse", reg=0)


def test_a_small_table_without_room_is_refused_before_any_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sinkhorn_newton_sparse, "_solve", None)
    costs = np.array([[np.inf, 1, np.inf], [np.inf, 3, np.inf], [2, np.inf, 3]])
    with pytest.raises(InfeasibleError, match="rows 0, 1 have 2 in total, and the bins that they list hold 1"):
        kofn.assign(scores=-costs, margins=(np.ones(3), np.ones(3)))
