"""Evolution over levels where losses do not add up, and the test of whether they do."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.allocation import MeasuredAdditivity, additivity

RNG = np.random.default_rng(3)
CURVES = np.sort(RNG.random((8, 4)), axis=1)[:, ::-1].copy()


def test_a_loss_that_adds_up_is_brought_to_its_optimum() -> None:
    def loss(amounts: np.ndarray) -> float:
        return float(CURVES[np.arange(8), amounts].sum())

    best = kofn.allocate(CURVES, budget=12).value
    plan = kofn.allocate(CURVES, budget=12, score=loss, method="evopress", begin="even", generations=150, seed=1)
    assert plan.value == pytest.approx(best)
    assert kofn.allocate(CURVES, budget=12, score=loss, method="evopress", seed=1).info["start_value"] == pytest.approx(
        best
    )


def test_every_choice_that_is_scored_keeps_the_budget() -> None:
    sizes, seen = np.array([3, 1, 2, 5, 1, 4, 2, 2]), []
    levels = np.array([2, 3, 4, 8])

    def loss(amounts: np.ndarray) -> float:
        seen.append(int(sizes @ amounts))
        return float(amounts[0] * amounts[3] - amounts.sum())

    kofn.allocate(
        CURVES, mean_budget=3.7, sizes=sizes, levels=levels, score=loss, method="evopress", generations=40, seed=2
    )
    assert len(seen) > 100
    assert max(seen) <= 3.7 * 20
    # Switches that spend what is left are among them.
    assert max(seen) >= 72


def test_rounds_are_judged_on_more_and_more_samples() -> None:
    asked = []

    def loss(amounts: np.ndarray, samples: int) -> float:
        asked.append(samples)
        return float(amounts @ np.arange(8))

    plan = kofn.allocate(
        CURVES,
        budget=9,
        score=loss,
        method="evopress",
        generations=1,
        offspring=12,
        survivors=[5, 1],
        samples=[10, 90],
        seed=0,
    )
    first = asked.index(10)
    assert set(asked[:first]) == {90}
    assert asked[first:] == sorted(asked[first:])
    assert 1 <= asked.count(90) <= 2 + 5
    assert plan.info["oracle_calls"] == len(asked)


def test_a_run_that_is_stopped_is_said_to_be() -> None:
    import time

    def loss(amounts: np.ndarray) -> float:
        time.sleep(0.005)
        return float(amounts[0])

    plan = kofn.allocate(CURVES, budget=9, score=loss, method="evopress", generations=10**6, time_limit=0.05, seed=0)
    assert plan.status == "stopped"


def test_sums_are_trusted_where_losses_add_up_and_not_elsewhere() -> None:
    choices = RNG.integers(4, size=(24, 8))
    sums = np.take_along_axis(CURVES, choices.T, 1).sum(axis=0)
    noisy: MeasuredAdditivity = additivity(CURVES, choices, sums + RNG.normal(0, 0.1 * sums.std(), 24))
    assert noisy.trusted
    assert noisy.explained > 0.9
    assert not additivity(CURVES, choices, RNG.random(24)).trusted
    assert not additivity(CURVES, choices, -sums).trusted
    assert "search with method='evopress'" in str(additivity(CURVES, choices, -sums))


def test_refusals() -> None:
    call = {"budget": 9, "score": lambda amounts: 1.0, "method": "evopress"}
    for options, says in (
        ({"survivors": [4, 2]}, "survivors=[4, 2]: give falling numbers from offspring=16 to 1 at last"),
        ({"survivors": [40, 1]}, "survivors=[40, 1]: give falling numbers from offspring=16 to 1 at last"),
        ({"samples": [4, 2]}, "samples=[4, 2]: give one number for each of 3 rounds of survivors"),
        ({"score": lambda amounts: float("nan")}, "score returned nan for amounts=["),
    ):
        refused(lambda options=options: kofn.allocate(CURVES, **{**call, **options}), says)
    choices, losses = np.zeros((8, 8), int), np.arange(8.0)
    for run, says in (
        (lambda: additivity(CURVES, choices[:3], losses[:3]), "losses has 3 measurements, too few to tell"),
        (lambda: additivity(CURVES, choices + 4, losses), "choices reach from 4 to 4; curves has columns 0 to 3"),
        (lambda: additivity(CURVES, choices[:, :2], losses), "choices has shape (8, 2); give a column of curves for"),
        (lambda: additivity(CURVES, choices, np.ones(8)), "losses are all alike; measure choices that differ"),
    ):
        refused(run, says)
