"""Greedy posterior approximation: diminishing returns of every divergence, brute force over members, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.stats import norm

from kofn.combination import blend_predictions
from kofn.combination.ensembles._divergences import TERMS, divergence_of
from kofn.combination.ensembles._greedy_posterior import greedy_posterior, kernels_of, posterior_of
from kofn.core.checks import InputError

DIVERGENCES = sorted(TERMS)
# The generator of each as sum of q f(p / q) or of p f(q / p), by SciPy's relative entropy where it has one.
PLAIN = {
    "reverse_kl": lambda p, q: float(rel_entr(q, p).sum()),
    "kl": lambda p, q: float(rel_entr(p, q).sum()),
    "hellinger": lambda p, q: 1 - float(np.sqrt(p * q).sum()),
    "jensen_shannon": lambda p, q: float(rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / 2,
    "total_variation": lambda p, q: float(np.maximum(p - q, 0).sum()),
}


def _functions(m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A posterior of two modes over m functions on a line, and a kernel at each."""
    rng = np.random.default_rng(seed)
    where = np.sort(rng.uniform(-4, 4, m))
    energies = -np.log(norm.pdf(where, -2, 0.7) + norm.pdf(where, 2, 0.7))
    return posterior_of(energies), kernels_of(np.square(where[:, None] - where), 0.6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_returns_diminish_with_fixed_shares_and_not_with_renormalised_ones(divergence: str) -> None:
    """Over all nested pairs of sets: with 1 / M a member they do for every f; with 1 / |S| they do not."""
    posterior, kernels = _functions(6, 3)
    subsets = [set(some) for size in range(1, 6) for some in itertools.combinations(range(6), size)]

    def violations(worth: dict[frozenset[int], float]) -> int:
        return sum(
            worth[frozenset(small | {new})] - worth[frozenset(small)]
            < worth[frozenset(large | {new})] - worth[frozenset(large)] - 1e-12
            for small, large in itertools.product(subsets, subsets)
            if small < large
            for new in set(range(6)) - large
        )

    every = [frozenset(some) for some in (*subsets, set(range(6)))]

    def worth(shared: bool) -> dict[frozenset[int], float]:
        masses = {some: kernels[sorted(some)].sum(axis=0) / (6 if shared else len(some)) for some in every}
        return {some: -float(divergence_of(divergence, posterior, mass)) for some, mass in masses.items()}

    assert violations(worth(shared=True)) == 0
    assert violations(worth(shared=False)) > 0


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_brute_force_is_between_the_bound_and_the_greedy_choice(divergence: str) -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=30)
    members = [y + 0.5 * rng.normal(size=30) for _ in range(9)]
    plan = greedy_posterior(members, y=y, k=3, divergence=divergence, noise=0.5, temperature=8.0, bandwidth=0.5)
    energies = np.array([-norm.logpdf(y, member, 0.5).sum() for member in members]) / 8
    posterior = np.exp(energies.min() - energies)
    posterior /= posterior.sum()
    np.testing.assert_allclose(plan.info["posterior"], posterior, rtol=1e-9)
    squares = np.array([[np.mean((a - b) ** 2) for b in members] for a in members])
    kernels = np.exp(-squares / (2 * 0.5**2))
    kernels /= kernels.sum(axis=1, keepdims=True)
    distance = {
        some: PLAIN[divergence](posterior, kernels[list(some)].mean(axis=0))
        for some in itertools.combinations(range(9), 3)
    }
    assert plan.value == pytest.approx(distance[tuple(sorted(plan.selection.indices.tolist()))], rel=1e-9)
    least = min(distance.values())
    assert plan.bound - 1e-12 <= least <= plan.value + 1e-12
    # The bound is of this problem and no trivial one.
    assert plan.bound > 0.5 * least


def test_copies_of_the_best_are_passed_over_for_what_is_unlike() -> None:
    y = np.repeat([0, 1], 20)
    first, second = np.where(y == 1, 0.9, 0.2), np.where(y == 1, 0.8, 0.1)
    plan = greedy_posterior([first, first, first, second], y=y, k=2, bandwidth=0.03, temperature=40.0)
    assert sorted(plan.selection.indices.tolist()) == [0, 3]
    np.testing.assert_allclose(plan.result, (first + second) / 2)
    np.testing.assert_allclose(blend_predictions(plan, [first, first, first, second]), plan.result)
    assert plan.info["blend_loss"] == pytest.approx(
        float(-np.log(np.where(y == 1, plan.result, 1 - plan.result)).mean())
    )


def test_distances_are_between_unlabeled_rows_where_they_are_given() -> None:
    """Members that agree on the rows with answers are told apart by others."""
    y, same = [0, 1, 1], [0.1, 0.8, 0.9]
    plan = greedy_posterior([same] * 4, y=y, k=2, unlabeled=[[0.5], [0.5], [0.5], [0.9]], bandwidth=0.1)
    assert sorted(plan.selection.indices.tolist()) == [0, 3]
    assert plan.info["posterior"].tolist() == [0.25] * 4
    wide = greedy_posterior([same] * 4, y=y, k=2, unlabeled=[[0.5], [0.5], [0.5], [0.9]], bandwidth=1e6)
    assert wide.selection.indices.tolist() == [0, 1]


def test_certainty_and_tiny_units_stay_finite() -> None:
    """Posteriors and kernels that leave the range of floats."""
    y = np.array([1e-200, 2e-200, 5e-200])
    for divergence in DIVERGENCES:
        plan = greedy_posterior([y, 2 * y, 9 * y], y=y, k=2, divergence=divergence)
        assert math.isfinite(plan.value)
        assert plan.bound <= plan.value
        assert plan.info["posterior"][0] > 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 4}, "k=4 of 3 members: there are only 3 to choose from"),
        ({"temperature": 0.0}, "temperature=0.0 is not above 0; give a number above 0"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0: it must be >= 0"),
        ({"noise": 0.0}, "noise=0.0 is not above 0"),
        ({"y": [0, 1], "noise": 1.0}, "noise=1.0 is of numbers, this is loss='log_loss'; leave noise out"),
        ({"unlabeled": [[1.0], [2.0]]}, "unlabeled has 2 arrays, members has 3; give one for each member"),
        ({"unlabeled": [[], [], []]}, "unlabeled has no rows"),
        ({"unlabeled": [[0.1, 0.2], [0.1, np.nan], [0.1, 0.3]]}, "unlabeled: member 1 of 3 has no prediction"),
        ({"members": [[0.1, 0.2], [np.nan, 0.3], [0.2, 0.1]]}, "members: member 1 of 3 has no prediction .* of row 0"),
        ({"loss": "brier"}, "loss='brier'"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"members": [[0.1, 0.2], [0.4, 0.3], [0.2, 0.1]], "y": [0.5, 0.2], "k": 2} | options
    with pytest.raises(InputError, match=words):
        greedy_posterior(call.pop("members"), **call)


def test_where_time_is_up_distances_are_of_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.combination.ensembles import _greedy_posterior

    monkeypatch.setattr(_greedy_posterior, "_BLOCK", 4 * 10)
    rng = np.random.default_rng(0)
    y, members = rng.integers(0, 2, 50), [rng.random(50) for _ in range(4)]
    plan = greedy_posterior(members, y=y, k=2, time_limit=1e-9)
    assert (plan.status, plan.info["rows_compared"], len(plan.selection.indices)) == ("stopped", 10, 1)
    unhurried = greedy_posterior(
        members, y=y, k=1, bandwidth=plan.info["bandwidth"], unlabeled=[m[:10] for m in members]
    )
    assert plan.selection.indices.tolist() == unhurried.selection.indices.tolist()
    assert greedy_posterior(members, y=y, k=2).info["rows_compared"] == 50


def test_one_object_in_place_of_predictions_is_refused() -> None:
    with pytest.raises(InputError, match="member 0"):
        greedy_posterior([[0.1, 0.9], [0.2, 0.8]], y=[0, 1], k=1, unlabeled=[np.array({}, object), [0.5]])
