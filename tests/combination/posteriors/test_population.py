"""Each step of a population keeps the distribution it stands for: by enumeration, by matrices, and by known answers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused, untested

from kofn.combination import Population
from kofn.combination.posteriors import _population
from kofn.combination.posteriors._population import acceptance
from kofn.combination.posteriors._sizes import systematic

RNG = np.random.default_rng(0)


class Fixed(np.random.Generator):
    """A generator whose uniform number is given."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.number = number

    def random(self, *_: Any, **__: Any) -> Any:
        """The number."""
        return self.number


def test_resampling_keeps_every_mean_exactly() -> None:
    n = 7
    weights = RNG.dirichlet(np.full(n, 0.4))
    # Rows are piecewise constant in the uniform number: between two of these ends nothing changes.
    ends = np.unique(np.concatenate([[0.0, 1.0], (n * np.cumsum(weights)) % 1]))
    total = np.zeros(n)
    for low, high in itertools.pairwise(ends):
        total += (high - low) * np.bincount(systematic(weights, n, Fixed((low + high) / 2)), minlength=n) / n
    np.testing.assert_allclose(total, weights, atol=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_moves_are_in_detailed_balance(symmetric: bool) -> None:
    states = 6
    density = RNG.dirichlet(np.ones(states))
    density[2] = 0.0
    proposals = RNG.dirichlet(np.ones(states), states)
    if symmetric:
        proposals = (proposals + proposals.T) / 2
    with np.errstate(divide="ignore"):
        logs = np.log(density)
    first, second = (grid.ravel() for grid in np.meshgrid(range(states), range(states), indexing="ij"))
    ahead, back = (np.log(proposals[a, b]) for a, b in ((first, second), (second, first)))
    chances = np.exp(acceptance(logs[first], logs[second], ahead, back)).reshape(states, states)
    flows = density[:, None] * proposals * chances
    np.testing.assert_allclose(flows, flows.T, atol=1e-15)


def test_moves_of_rows_follow_the_density() -> None:
    density = np.array([0.1, 0.2, 0.3, 0.4])
    start = np.repeat(np.arange(4), (density * 20_000).astype(int))
    # Upwards twice as often as down, around a ring: not symmetric, so that the proposals' ratio matters.
    steps = np.log([2 / 3, 1 / 3])

    def log_proposal(x: Any, following: Any) -> Any:
        return np.where((following - x) % 4 == 1, steps[0], steps[1])

    moved = Population(start).move(
        lambda x, rng: (x + np.where(rng.random(len(x)) < 2 / 3, 1, -1)) % 4,
        lambda x: np.log(density)[x],
        log_proposal=log_proposal,
        steps=5,
        seed=1,
    )
    assert moved.x.dtype == start.dtype
    np.testing.assert_allclose(np.bincount(moved.x) / len(start), density, atol=6 * 0.5 / len(start) ** 0.5)


def test_a_filter_has_the_evidence_of_the_forward_algorithm() -> None:
    step, sees, seen = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([[0.8, 0.2], [0.25, 0.75]]), [0, 1, 1, 0, 1, 1]
    forward = np.array([0.5, 0.5])
    for number, symbol in enumerate(seen):
        forward = (forward if number == 0 else forward @ step) * sees[:, symbol]

    def filtered(seed: int, n: int) -> Population:
        rng = np.random.default_rng(seed)
        population = Population(rng.integers(0, 2, n))
        for number, symbol in enumerate(seen):
            if number:
                population = population.extend(
                    lambda x, rng: (rng.random(len(x)) < step[x, 1]).astype(int), seed=int(rng.integers(2**31))
                )
            population = population.weigh(np.log(sees[:, symbol]).__getitem__)
            population = population.resample(below=0.9, seed=int(rng.integers(2**31)))
        return population

    runs = [filtered(seed, 20) for seed in range(150)]
    evidence = np.exp([run.log_evidence for run in runs])
    assert abs(evidence.mean() - forward.sum()) < 4 * evidence.std() / len(runs) ** 0.5
    assert filtered(7, 10_000).mean() == pytest.approx(forward[1] / forward.sum(), abs=0.03)


def test_weights_that_are_even_are_left_and_rows_of_vectors_move_whole() -> None:
    population = Population(RNG.normal(size=(50, 2)))
    assert population.resample(below=0.5) is population
    assert population.effective_size == pytest.approx(50)
    assert population.resample(seed=1).log_evidence == 0.0
    moved = population.move(lambda x, rng: x + rng.normal(size=x.shape), lambda x: -np.square(x).sum(axis=1), seed=2)
    changed = moved.x != population.x
    assert (changed[:, 0] == changed[:, 1]).all()
    assert 0 < changed[:, 0].sum() < 50
    assert Population([1.0, 2.0], [-np.inf, -np.inf]).log_evidence == -np.inf
    assert Population([1.0, 2.0], [-np.inf, -np.inf]).effective_size == 0.0


ROWS = Population([1.0, 2.0])
NOTHING = Population([1.0, 2.0], [-np.inf, -np.inf])
REFUSED: dict[str, tuple[Any, str]] = {
    "no rows": (lambda: Population([]), "x has shape (0,); give (n, d) rows"),
    "another length": (lambda: Population([1.0, 2.0], [0.0]), "log_weights has shape (1,) for 2 rows; give (2,)"),
    "NaN": (lambda: ROWS.weigh(lambda _: np.array([0.0, np.nan])), "log_likelihood at row 1 is nan"),
    "no weight": (lambda: NOTHING.resample(), "none of the 2 rows has a weight: all log_weights are -inf"),
    "no mean": (lambda: NOTHING.mean(), "none of the 2 rows has a weight"),
    "rows lost": (lambda: ROWS.extend(lambda x, _: x[:1]), "draw gave shape (1,) for 2 rows"),
    "impossible": (
        lambda: ROWS.move(lambda x, _: x, lambda x: np.where(x > 1, -np.inf, 0.0)),
        "log_density at row 1 is -inf, and it has a weight; weigh by it first",
    ),
    "steps": (lambda: ROWS.move(lambda x, _: x, lambda x: x, steps=0), "steps=0"),
}


def test_what_is_refused_says_why() -> None:
    reached = {refused(call, message) for call, message in REFUSED.values()}
    assert not untested([_population], reached)
