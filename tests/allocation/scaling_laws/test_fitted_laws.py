"""Laws of experts and of distillation: recovered from their own losses, spent like a brute-force grid, and refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import annotation_split, fit_distillation_law, fit_moe_law, fit_supervised_law
from kofn.allocation.scaling_laws import DistillationLaw, MoELaw, SupervisedLaw
from kofn.core.checks import InfeasibleError, KofnWarning

RNG = np.random.default_rng(9)


def moe_loss(active: Any, tokens: Any, experts: Any) -> Any:
    """A law of the paper's form, written out plainly."""
    seen = 1 / (1 / (np.asarray(experts) - 1 + 1 / (1 - 1 / 290)) + 1 / 290)
    log = np.log(seen)
    return (
        40 * seen**0.1 * np.asarray(active, float) ** (-0.2 - 0.012 * log)
        + 40 * seen**-0.75 * np.asarray(tokens, float) ** (-0.18 + 0.028 * log)
        + 1.4
    )


@pytest.fixture(scope="module")
def moe() -> MoELaw:
    N, D, E = (x.ravel() for x in np.meshgrid([2e7, 1e8, 4e8, 1e9], [1e9, 4e9, 2e10, 4e10], [1, 4, 16]))
    return fit_moe_law(N, D, E, moe_loss(N, D, E) * np.exp(0.002 * RNG.normal(size=len(N))), resamples=8)


@pytest.fixture(scope="module")
def supervised() -> SupervisedLaw:
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 3e9, 5), np.geomspace(2e9, 2e11, 5)))
    return fit_supervised_law(N, D, alone(N, D), resamples=6)


def alone(N: Any, D: Any) -> Any:
    return 1.4 + 300 / N**0.3 + 500 / D**0.3


def distilled(N: Any, D: Any, T: Any) -> Any:
    ratio = T / (alone(N, D) * 1.3)
    return T + T**-2.5 * (1 + ratio**10) ** -5.0 * (300 / N**0.3 + 500 / D**0.4) ** 0.9


@pytest.fixture(scope="module")
def distillation(supervised: Any) -> DistillationLaw:
    grid = np.meshgrid(np.geomspace(1e8, 3e9, 4), np.geomspace(2e9, 2e11, 4), [1.9, 2.1, 2.4, 2.8])
    N, D, T = (x.ravel() for x in grid)
    return fit_distillation_law(N, D, T, distilled(N, D, T), supervised=supervised, resamples=6)


def test_losses_beyond_the_runs_are_predicted(moe: Any, supervised: Any, distillation: Any) -> None:
    for N, D, E in ((4e9, 2e11, 8), (2e9, 1e11, 32)):
        assert moe.loss(N, D, E)[0] == pytest.approx(moe_loss(N, D, E), rel=0.01)
        low, high = moe.interval(N, D, E)
        assert low[0] <= moe.loss(N, D, E)[0] * 1.002
        assert high[0] >= moe.loss(N, D, E)[0] * 0.998
    assert supervised.loss(1e10, 1e12)[0] == pytest.approx(alone(1e10, 1e12), rel=0.005)
    assert distillation.loss(6e9, 5e11, 1.95)[0] == pytest.approx(distilled(6e9, 5e11, 1.95), rel=0.01)
    assert moe.fit.error < 0.004
    assert moe.coefficients["c"] == pytest.approx(1.4, abs=0.2)


@pytest.mark.parametrize("memory", [None, 4e9, 4e8])
def test_experts_are_spent_as_a_grid_says(moe: Any, memory: float | None) -> None:
    flops = 2e20
    plan = moe.spend(flops, memory=memory, experts=(1, 4, 16))
    best = np.inf
    for experts in (1, 4, 16):
        most = (memory or np.inf) / 2 / (1 + (experts - 1) * 2 / 3)
        sizes = np.minimum(np.geomspace(1e6, 1e11, 4000), most)
        best = min(best, float(moe.loss(sizes, flops / (6 * sizes), experts).min()))
    assert plan.value == pytest.approx(best, rel=1e-5)
    active, tokens, experts = plan.amounts
    assert 6 * active * tokens <= flops * (1 + 1e-9)
    if memory is not None:
        assert 2 * active * (1 + (experts - 1) * 2 / 3) <= memory * (1 + 1e-9)
    assert moe.loss(active, tokens, experts)[0] == pytest.approx(plan.value)
    assert moe.loss(active, tokens, experts)[0] <= plan.info["by_experts"][1]["loss"] + 1e-12


@pytest.mark.parametrize("students", [1, 1000])
def test_compute_of_a_teacher_is_split_as_a_grid_says(distillation: Any, supervised: Any, students: int) -> None:
    flops, size = 3e20, 3e8
    plan = distillation.spend(flops, student=size, students=students)
    best = np.inf
    for parameters in np.geomspace(1e7, 9e10, 400):
        part = np.linspace(0.005, 0.95, 400)
        taught = part * flops * students / (6 * parameters)
        seen = (1 - part) * flops / (6 * size + 2 * parameters)
        best = min(best, float(distillation.loss(size, seen, supervised.loss(parameters, taught)).min()))
    assert plan.info["distilled"] == pytest.approx(best, rel=2e-4)
    assert plan.info["distilled"] <= best * (1 + 1e-6)
    assert plan.info["alone"] == pytest.approx(supervised.loss(size, flops / (6 * size))[0])
    assert plan.value == min(plan.info["distilled"], plan.info["alone"])
    assert plan.amounts.sum() <= flops * (1 + 1e-12)
    assert plan.amounts.sum() == pytest.approx(flops, rel=1e-6)
    assert plan.info["distil"] == (plan.amounts[1] > 0)


def test_a_shared_teacher_is_never_worse_and_a_ready_one_costs_only_its_running(distillation: Any) -> None:
    shared = [distillation.spend(3e20, student=3e8, students=many).info["distilled"] for many in (1, 10, 1000)]
    assert shared == sorted(shared, reverse=True)
    ready = distillation.spend(3e20, student=3e8, teacher=(1e9, 2.0))
    assert ready.info["teacher"]["tokens"] == 0
    seen = 3e20 / (6 * 3e8 + 2 * 1e9)
    assert ready.info["distilled"] == pytest.approx(distillation.loss(3e8, seen, 2.0)[0])


def test_what_the_data_do_not_support_is_told(moe: Any) -> None:
    far = moe.spend(1e26)
    assert any("times the largest measured" in text for text in far.info["warnings"])
    rng = np.random.default_rng(1)
    N, D, E = rng.uniform(1e8, 2e8, 14), rng.uniform(1e9, 2e9, 14), rng.choice([1, 4, 16], 14)
    noise = fit_moe_law(N, D, E, 3 + 0.3 * rng.random(14), resamples=8)
    plan = noise.spend(1e19, experts=(1, 4, 16))
    assert plan.info["agreement"] < 0.9
    assert any("the data do not tell how many" in text for text in plan.info["warnings"])
    low, high = noise.interval(1e9, 1e10, 4)
    assert high[0] - low[0] > 0.02


def test_refusals(moe: Any, supervised: Any, distillation: Any) -> None:
    few = np.array([1e7, 1e8, 1e9])
    many = np.tile(few, 4)
    for call, says in (
        (lambda: fit_moe_law(few, few, few, few), "losses has 3 runs, the law has 9 parameters"),
        (lambda: fit_supervised_law(few, few, few), "losses has 3 runs, the law has 6 parameters"),
        (lambda: fit_supervised_law(np.ones(12), many, many), "parameters has 1 different values; a power law takes 3"),
        (lambda: fit_moe_law(many, many, np.ones(12), many), "experts has 1 different values"),
        (lambda: fit_moe_law(many, many, many / 1e8, many), "experts at row 0 is 0.1; give at least 1"),
        (lambda: fit_supervised_law(many, many, -many), "losses at row 2 is -1e+09; give numbers above 0"),
        (lambda: fit_supervised_law(many, few, many), "tokens has 3 values"),
        (
            lambda: fit_distillation_law(many, many, np.ones(12), many, supervised=supervised),
            "teacher_loss has 1 different values",
        ),
        (lambda: moe.spend(0), "flops=0: give a number above 0"),
        (lambda: moe.spend(1e20, experts=[]), "experts is empty"),
        (lambda: moe.spend(1e20, memory=0), "memory=0: give a number above 0"),
        (lambda: distillation.spend(1e20, student=0), "student=0: give a number above 0"),
        (lambda: distillation.spend(1e20, student=1e8, teacher=(0, 2.0)), "teacher=0: give a number above 0"),
    ):
        refused(call, says)
    refused(lambda: moe.spend(1e20, memory=1.0), "memory=1: not one parameter fits", InfeasibleError)


def fit_of(law: str, jitter: float, supervised: SupervisedLaw) -> tuple[Any, Any]:
    """A law fitted to runs with 20 tokens a parameter, give or take, and a point of each kind as a function of them."""
    rng = np.random.default_rng(0)
    N = np.tile(np.geomspace(4e7, 1.6e10, 12), 2)
    D = 20 * N * np.exp(jitter * rng.normal(size=len(N)))
    if law == "supervised":
        return fit_supervised_law(N, D, alone(N, D), resamples=3), lambda N, D: (N, D)
    if law == "moe":
        E = np.repeat([1, 8], 12)
        return fit_moe_law(N, D, E, moe_loss(N, D, E), resamples=3), lambda N, D: (N, D, 8)
    T = np.repeat([1.9, 2.4, 2.8], 8)
    fit = fit_distillation_law(N, D, T, distilled(N, D, T), supervised=supervised, resamples=3)
    return fit, lambda N, D: (N, D, 2.2)


@pytest.mark.parametrize(
    ("law", "jitter"),
    [("supervised", 0.0), ("supervised", 0.01), ("supervised", 1.5), ("moe", 0.0), ("distillation", 0.0)],
)
def test_runs_on_one_line_tell_no_exponents_apart(law: str, jitter: float, supervised: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit, point = fit_of(law, jitter, supervised)
    on, off = point(1e9, 2e10), point([1e9, 1e9], [2e10, 6e11])
    if jitter > 1:
        assert not caught
        assert np.isfinite(fit.interval(*off)).all()
        return
    assert ["cannot tell the exponents apart" in str(each.message) for each in caught] == [True]
    low, high = fit.interval(*off)
    assert (low[1], high[1]) == (0, np.inf)
    assert 0 < low[0] <= high[0] < np.inf
    assert fit.loss(*on)[0] > 1
    with pytest.warns(KofnWarning, match="1 of 2 points lie off the line of .* not supported"):
        fit.loss(*off)


def test_spending_off_the_line_of_the_runs_is_told() -> None:
    with pytest.warns(KofnWarning, match="active and tokens lie nearly on one line"):
        law, _ = fit_of("moe", 0.0, None)  # type: ignore[arg-type]
    plan = law.spend(1e20, memory=1e8, experts=(1, 8))
    assert any("off the line of active and tokens" in text for text in plan.info["warnings"])
    n = np.array([10, 20, 40, 80, 160, 320, 640, 1280, 2560])
    with pytest.warns(KofnWarning, match="demonstrations and pairs lie nearly on one line"):
        plan = annotation_split(n, 2 * n, 0.1 + n**-0.3 + (2 * n) ** -0.4, budget=2000, resamples=3)
    assert plan.info["interval"][1] == np.inf or plan.amounts[1] == pytest.approx(2 * plan.amounts[0], rel=0.2)


def test_runs_that_repeat_others_and_points_that_are_none_are_refused() -> None:
    N, D = np.repeat([1e7, 1e8, 1e9], 3), np.repeat([1e9, 4e9, 2e10], 3)
    refused(
        lambda: fit_supervised_law(N, D, alone(N, D)),
        "losses has 9 runs, 3 of them different, the law has",
    )
    N, D = (x.ravel() for x in np.meshgrid([1e7, 1e8, 1e9], [1e9, 4e9, 2e10]))
    law = fit_supervised_law(N, D, alone(N, D), resamples=0)
    refused(lambda: law.interval(1e9, 1e10), "resamples=0: an interval takes fits to resampled runs")
    refused(lambda: law.loss(0, 1e9), "parameters holds 0; give finite numbers above 0")
    refused(lambda: law.loss(1e9, np.nan), "tokens holds nan; give finite numbers above 0")
    refused(
        lambda: fit_distillation_law(N, D, N, alone(N, D), supervised=alone(N, D)),
        "give a SupervisedLaw",
    )
