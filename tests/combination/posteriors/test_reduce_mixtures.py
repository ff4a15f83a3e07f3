"""Mixtures of experts reduced to one: copies, brute force over plans, gates, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from kofn.combination.posteriors._reduce_mixtures import Large, chances_of, reduce_mixtures
from kofn.core.checks import InputError


def _mixture(rng: np.random.Generator, count: int, d: int) -> dict[str, np.ndarray]:
    return {
        "gates": rng.normal(size=(count, d + 1)),
        "experts": 4 * rng.normal(size=(count, d + 1)),
        "variances": rng.uniform(0.5, 2, count),
    }


def test_copies_in_any_order_give_the_mixture_back() -> None:
    rng = np.random.default_rng(0)
    mixture, inputs = _mixture(rng, 4, 3), rng.normal(size=(400, 3))
    members = [{name: part[rng.permutation(4)] for name, part in mixture.items()} for _ in range(3)]
    orders = [rng.permutation(4) for _ in range(3)]
    members = [{name: part[order] for name, part in mixture.items()} for order in orders]
    plan = reduce_mixtures(members, inputs=inputs, seed=0)
    order = np.argsort(mixture["experts"][:, 0])
    mine = np.argsort(plan.result["experts"][:, 0])
    assert plan.value < 1e-12
    np.testing.assert_allclose(plan.result["experts"][mine], mixture["experts"][order], atol=1e-8)
    np.testing.assert_allclose(plan.result["variances"][mine], mixture["variances"][order], rtol=1e-8)
    design = np.column_stack([np.ones(400), inputs])
    np.testing.assert_allclose(
        chances_of(plan.result["gates"], design)[:, mine], chances_of(mixture["gates"], design)[:, order], atol=2e-3
    )


def test_no_plan_of_constant_experts_is_better() -> None:
    """With an input of no columns' influence the plan is the same for every input: all plans can be looked at."""
    rng = np.random.default_rng(1)
    members = [
        {"gates": np.zeros((2, 2)), "experts": np.column_stack([rng.normal(size=2), [0, 0]]), "variances": [0.5, 1.5]}
        for _ in range(3)
    ]
    inputs = np.linspace(-1, 1, 5)[:, None]
    plan = reduce_mixtures(members, inputs=inputs, weights=[1, 2, 3], restarts=40, seed=0)
    means = np.concatenate([member["experts"][:, 0] for member in members])
    variances = np.concatenate([member["variances"] for member in members])
    masses = np.repeat(np.array([1, 2, 3]) / 12, 2)
    best = np.inf
    for labels in itertools.product(range(2), repeat=6):
        total = 0.0
        for group in range(2):
            inside = np.array(labels) == group
            if inside.any():
                mass = masses[inside]
                mean = mass @ means[inside] / mass.sum()
                wide = mass @ (variances[inside] + (means[inside] - mean) ** 2) / mass.sum()
                total += float(
                    mass
                    @ (
                        0.5
                        * (
                            np.log(wide / variances[inside])
                            + (variances[inside] + (means[inside] - mean) ** 2) / wide
                            - 1
                        )
                    )
                )
        best = min(best, total)
    assert plan.value == pytest.approx(best, rel=1e-9)
    assert plan.value == pytest.approx(float(plan.weights @ plan.spread))


def test_the_divergence_never_rises_and_is_that_of_gaussians() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(60, 2))
    members = [_mixture(rng, 3, 2) for _ in range(4)]
    plan = reduce_mixtures(members, inputs=inputs, components=2, restarts=1, seed=0)
    assert (np.diff(plan.info["history"]) <= 1e-12).all()
    assert len(plan.info["history"]) > 2
    design = np.column_stack([np.ones(60), inputs])
    large = Large.of([{name: np.asarray(part) for name, part in members[0].items()}], np.ones(1), design)
    grid = np.linspace(-60, 60, 20001)

    def density(mean: float, variance: float) -> np.ndarray:
        return np.exp(-((grid - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    p = density(large.means[0, 0], large.variances[0])
    log_ratio = -((grid - large.means[0, 0]) ** 2) / (2 * large.variances[0]) + (grid - 1.0) ** 2 / 4
    log_ratio += 0.5 * np.log(2.0 / large.variances[0])
    integral = float(np.trapezoid(p * log_ratio, grid))
    assert large.divergence(np.full(60, 1.0), 2.0)[0, 0] == pytest.approx(integral, rel=1e-6)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"components": 9}, "components=9: the members have 4 in all; ask for at most as many"),
    ({"weights": [1.0, -1.0]}, "weights=[1.0, -1.0]: give weights >= 0"),
    ({"inputs": np.ones((5, 3))}, "member 0: gates has shape (2, 3); give (2, 4)"),
    ({"restarts": 0}, "restarts=0: ask for at least 1"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:16] for _, message in REFUSED])
def test_refusals(words: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError) as error:
        reduce_mixtures([_mixture(rng, 2, 2)] * 2, **{"inputs": np.ones((5, 2)), **words})
    assert message in str(error.value)
