"""The law against its formula pass by pass, the fit against laws it must recover, and the choice of pools."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.allocation import fit_utility, quality_quantity
from kofn.allocation.scaling_laws._fit_utility import Utility
from kofn.core.checks import InfeasibleError

PASSES = np.array([0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16])
TRUTH = Utility(
    sizes=np.array([1e4, 1e4, 1e4]),
    b=np.array([0.3, 0.25, 0.2]),
    tau=np.array([1.0, 2.0, 4.0]),
    a=1.2,
    d=0.15,
    unit=50.0,
    error=0.0,
)


def curves(law: Utility, passes: np.ndarray = PASSES) -> np.ndarray:
    return np.array([[law.loss([pool], law.sizes[pool] * level) for level in passes] for pool in range(len(law.b))])


def by_passes(law: Utility, pools: list[int], samples: float) -> float:
    """The paper's product over the passes of a mixture of pools of one size: half-lives p times as long, mean power."""
    size = law.sizes[pools].sum()
    whole = int(samples // size)
    epochs = np.arange(whole + 1)
    powers = np.mean([law.b[i] * 0.5 ** (epochs / (law.tau[i] * len(pools))) for i in pools], axis=0)
    ends = np.minimum(size * (epochs + 1), samples)
    loss = (ends[0] / law.unit) ** -powers[0]
    for j in range(1, len(epochs)):
        loss *= (ends[j] / (size * j)) ** -powers[j]
    return law.d + law.a * loss


@pytest.mark.parametrize("samples", [10.0, 5e3, 1e4, 2e4, 25_000.0, 3e5])
def test_the_law_is_the_product_over_passes(samples: float) -> None:
    for count in (1, 2, 3):
        for pools in itertools.combinations(range(3), count):
            assert TRUTH.loss(list(pools), samples) == pytest.approx(by_passes(TRUTH, list(pools), samples), rel=1e-12)


def test_pools_count_by_their_share_of_the_rows() -> None:
    """A pool cut in two alike halves of any sizes is the same pool."""
    whole = Utility(np.array([1e4]), np.array([0.3]), np.array([2.0]), 1.0, 0.1, 10.0, 0.0)
    cut = Utility(np.array([7e3, 3e3]), np.array([0.3, 0.3]), np.array([2.0 * 0.7, 2.0 * 0.3]), 1.0, 0.1, 10.0, 0.0)
    for samples in (5e3, 1e4, 7.7e4):
        assert cut.loss([0, 1], samples) == pytest.approx(whole.loss([0], samples), rel=1e-12)


def test_what_one_more_sample_saves() -> None:
    for samples in (5e3, 2.5e4, 9.9e4):
        slope = (TRUTH.loss([0, 1], samples * 1.000001) - TRUTH.loss([0, 1], samples)) / (samples * 1e-6)
        assert TRUTH.worth([0, 1], samples) == pytest.approx(-slope, rel=1e-4)


def test_the_fit_recovers_the_law() -> None:
    fit = fit_utility(curves(TRUTH), sizes=TRUTH.sizes, levels=PASSES)
    np.testing.assert_allclose(fit.b, TRUTH.b, rtol=1e-3)
    np.testing.assert_allclose(fit.tau, TRUTH.tau, rtol=1e-2)
    assert fit.d == pytest.approx(TRUTH.d, abs=1e-3)
    assert fit.error < 1e-6
    noisy = curves(TRUTH) * np.exp(0.005 * np.random.default_rng(0).normal(size=(3, len(PASSES))))
    fit = fit_utility(noisy, sizes=TRUTH.sizes, levels=PASSES)
    for pools in ([0, 1], [0, 1, 2], [1, 2]):
        for samples in (1e4, 1e5, 4e5):
            assert fit.loss(pools, samples) == pytest.approx(TRUTH.loss(pools, samples), rel=0.03)


def test_one_pool_and_levels_of_its_own() -> None:
    law = Utility(np.array([500.0]), np.array([0.4]), np.array([3.0]), 2.0, 0.5, 20.0, 0.0)
    fit = fit_utility(curves(law), sizes=[500], levels=PASSES[None])
    assert fit.b[0] == pytest.approx(0.4, rel=1e-3)
    assert fit.tau[0] == pytest.approx(3.0, rel=1e-2)
    with_zero = fit_utility(np.hstack([[[99.0]], curves(law)]), sizes=[500], levels=np.concatenate([[0.0], PASSES]))
    assert with_zero.b[0] == pytest.approx(fit.b[0])


def test_strict_for_little_compute_and_loose_for_much() -> None:
    table = curves(TRUTH)
    chosen = []
    for budget in (2e3, 2e4, 1e5, 1e6, 1e7):
        plan = kofn.allocate(
            curves=table,
            budget=budget,
            method="quality_quantity",
            options={"sizes": TRUTH.sizes, "levels": PASSES},
        )
        losses = [TRUTH.loss(list(range(count)), budget) for count in (1, 2, 3)]
        assert len(plan.info["pools"]) == int(np.argmin(losses)) + 1
        assert plan.value == pytest.approx(min(losses), rel=1e-3)
        assert plan.used["budget"] <= budget
        assert plan.used["budget"] == pytest.approx(budget, rel=1e-12)
        np.testing.assert_allclose(plan.values, [TRUTH.loss([pool], budget) for pool in range(3)], rtol=1e-3)
        chosen.append(len(plan.info["pools"]))
    assert chosen == sorted(chosen)
    assert chosen[0] == 1
    assert chosen[-1] > 1


def test_all_unions_are_no_worse_than_prefixes() -> None:
    table = curves(TRUTH)
    for budget in (1e4, 1e6):
        some = quality_quantity(table, budget=budget, sizes=TRUTH.sizes, levels=PASSES)
        every = quality_quantity(table, budget=budget, sizes=TRUTH.sizes, levels=PASSES, unions="all")
        assert len(some.info["tried"]) == 3
        assert len(every.info["tried"]) == 7
        assert every.value <= some.value


def test_curves_that_teach_nothing() -> None:
    flat = quality_quantity(np.ones((3, 4)), budget=10)
    assert flat.value == pytest.approx(1.0, abs=1e-3)
    rising = quality_quantity([[1.0, 2.0, 3.0], [1.0, 1.5, 2.0]], budget=10)
    assert np.isfinite(rising.value)


def test_refusals() -> None:
    table = curves(TRUTH)
    call = lambda **more: quality_quantity(table, **{"budget": 10, "levels": PASSES, **more})  # noqa: E731
    refused(lambda: call(budget=0), "budget=0 samples leave nothing to train on", InfeasibleError)
    refused(lambda: call(unions="some"), "unions='some': choose one of prefix, all")
    refused(lambda: call(sizes=[1, 2]), "sizes has 2 values, curves has 3 rows")
    refused(lambda: call(sizes=[1, 0, 2]), "sizes at row 1 is 0")
    refused(lambda: call(levels=[1, 2]), "levels has shape (2,); give (10,) or (3, 10), one for each column of curves")
    refused(lambda: call(levels=-PASSES), "levels at row 0, column 9 is -16; levels must be >= 0")
    refused(lambda: call(levels=0 * PASSES), "curves of pool 0 have no level above 0")
    refused(lambda: quality_quantity(np.ones((17, 3)), budget=1, unions="all"), "unions='all' of 17 pools")
