"""Steps of a population, one by one and composed, against exact sums over small programs.

Simulated: programs with random tables, in which everything can be enumerated: a die that is seen through noise, the
sprinkler network, and a hidden Markov model of six steps.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.runs import derive, spread
from kofn.combination import Population

Floats = NDArray[np.float64]
ROWS, WALKS, PARTICLES = 60_000, 3, 16
# Standard errors that an estimate may be off. Of some 200 that are looked at, one in 10,000 seeds has one beyond.
ERRORS = 5.0


@claim(
    paper=98,
    says="Inference that is composed of steps which each keep the distribution that a weighted sample stands for is "
    "right as a whole: weighting, resampling, Metropolis-Hastings-Green moves, and filters made of them",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Errors of each step in standard errors; broken: proposals' densities are left out of the acceptance."""
    programs, runs = (4, 400) if scale == "small" else (10, 5000)
    rows = spread(functools.partial(_run, runs=runs, broken=broken), derive(seed, programs))
    worst = {name: float(max(row[name] for row in rows)) for name in rows[0]}
    criteria = {
        "weighting is exact": worst["weigh"] < 1e-12,
        "resampling is unbiased": worst["resample"] < ERRORS,
        "moves are stationary": worst["move"] < ERRORS,
        "moves are in detailed balance": worst["balance"] < ERRORS,
        "the filter's evidence is unbiased": worst["evidence"] < ERRORS,
        "the filter with moves between is as well": worst["evidence with moves"] < ERRORS,
        "a filter of many particles has the right marginals": worst["marginal"] < 0.02,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={name: float(f"{value:.3g}") for name, value in worst.items()},
        expected=f"estimates within {ERRORS:g} of their standard errors from the enumerated values, and weights that "
        "are multiplied exactly; marginals of 20,000 particles within 0.02",
        baseline="the enumerated values",
        kind="simulated",
    )


def _run(seed: int, *, runs: int, broken: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    programs = [_die(rng), _sprinkler(rng)]
    out = dict.fromkeys(("weigh", "resample", "move", "balance"), 0.0)
    for prior, likelihood in programs:
        posterior = prior * likelihood / (prior * likelihood).sum()
        states = np.arange(len(prior))
        with np.errstate(divide="ignore"):
            logs = np.log(likelihood)
        weighed = Population(states, np.log(prior)).weigh(logs.__getitem__)
        out["weigh"] = max(out["weigh"], float(np.abs(weighed.weights - posterior).max()))
        shares = np.array(
            [np.bincount(weighed.resample(seed=number).x, minlength=len(prior)) for number in range(runs)]
        ) / len(prior)
        # A count is one of two whole numbers, whose variance is known: that of few runs would miss rare states.
        part = (len(prior) * posterior) % 1
        error = np.sqrt(part * (1 - part) / runs) / len(prior)
        out["resample"] = max(out["resample"], _errors(shares, posterior, error))
        for name, value in _walked(posterior, rng, broken=broken).items():
            out[name] = max(out[name], value)
    model = _markov(rng)
    exact = _forward(*model)
    for name, moves in (("evidence", False), ("evidence with moves", True)):
        found = [_filtered(*model, PARTICLES, number, moves=moves, broken=broken) for number in range(runs)]
        evidence = np.exp([population.log_evidence for population in found])
        out[name] = _errors(evidence[:, None], np.array([exact.sum()]))
    many = _filtered(*model, 20_000, seed, moves=True, broken=broken)
    last = np.bincount(many.x[:, -1], many.weights, len(exact))
    out["marginal"] = float(np.abs(last - exact / exact.sum()).max())
    return out


def _errors(estimates: Floats, truth: Floats, error: Floats | None = None) -> float:
    """By how many standard errors the means of estimates are off, at most."""
    if error is None:
        error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    off = np.abs(estimates.mean(axis=0) - truth)
    return float(np.max(np.where(off < 1e-12, 0.0, off / np.maximum(error, 1e-15))))


def _die(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A loaded die, and the chance of what is seen of it."""
    return rng.dirichlet(np.ones(6)), rng.random(6)


def _sprinkler(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Cloudy, sprinkler, rain: eight states, and the chance of wet grass in each, never in dry weather."""
    cloudy, sprinkler, rain = rng.random(), rng.random(2), rng.random(2)
    wet = np.array([0.0, *rng.random(3)])
    prior, likelihood = [], []
    for c, s, r in itertools.product((0, 1), repeat=3):
        prior.append(
            (cloudy if c else 1 - cloudy) * (sprinkler[c] if s else 1 - sprinkler[c]) * (rain[c] if r else 1 - rain[c])
        )
        likelihood.append(wet[2 * s + r])
    return np.array(prior), np.array(likelihood)


def _walked(posterior: Floats, rng: np.random.Generator, *, broken: bool) -> dict[str, float]:
    """Rows of the posterior after one move, and the flows between states."""
    table = rng.dirichlet(np.ones(len(posterior)), len(posterior))
    with np.errstate(divide="ignore"):
        logs, proposals = np.log(posterior), np.log(table)
    # Exact numbers of rows a state, so that only the move is random.
    start = np.repeat(np.arange(len(posterior)), np.rint(ROWS * posterior).astype(int))
    moved = _moved(Population(start), table, proposals, logs, int(rng.integers(2**31)), broken=broken)
    flows = np.zeros((len(posterior),) * 2)
    np.add.at(flows, (start, moved.x), 1)
    gap = np.abs(flows - flows.T) / np.sqrt(np.maximum(flows + flows.T, 1))
    held = np.bincount(start, minlength=len(posterior)).astype(float)
    leaving = flows.sum(axis=1) - flows.diagonal() + flows.sum(axis=0) - flows.diagonal()
    off = np.abs(flows.sum(axis=0) - held) / np.sqrt(np.maximum(leaving, 1))
    return {"balance": float(gap.max()), "move": float(off.max())}


def _moved(
    population: Population, table: Floats, proposals: Floats, logs: Floats, seed: int, *, broken: bool
) -> Population:
    edges = np.cumsum(table, axis=1)

    def propose(x: Any, rng: np.random.Generator) -> Any:
        return np.minimum((rng.random(len(x))[:, None] > edges[x]).sum(axis=1), len(edges) - 1)

    return population.move(
        propose,
        lambda x: logs[x],
        log_proposal=None if broken else lambda x, following: proposals[x, following],
        seed=seed,
    )


def _markov(rng: np.random.Generator) -> tuple[Floats, Floats, Floats, list[int]]:
    """First state, steps, what each state shows, and six symbols."""
    start, steps, shows = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3), 3)
    return start, steps, shows, rng.integers(0, 3, 6).tolist()


def _forward(start: Floats, steps: Floats, shows: Floats, seen: list[int]) -> Floats:
    ahead = start * shows[:, seen[0]]
    for symbol in seen[1:]:
        ahead = (ahead @ steps) * shows[:, symbol]
    return np.asarray(ahead)


def _seen(logs: Floats) -> Any:
    """Logs by the last state of each path."""
    return lambda x: logs[x[:, -1]]


def _filtered(
    start: Floats, steps: Floats, shows: Floats, seen: list[int], n: int, seed: int, *, moves: bool, broken: bool
) -> Population:
    """Paths drawn step by step, weighed by what is seen, resampled, and moved at their last state."""
    rng = np.random.default_rng([seed, n])
    population = Population(rng.choice(len(start), n, p=start)[:, None])
    with np.errstate(divide="ignore"):
        sights, log_steps, log_start = np.log(shows), np.log(steps), np.log(start)
    edges = np.cumsum(steps, axis=1)
    for number, symbol in enumerate(seen):
        if number:

            def onward(x: Any, rng: np.random.Generator) -> Any:
                following = np.minimum((rng.random(len(x))[:, None] > edges[x[:, -1]]).sum(axis=1), len(edges) - 1)
                return np.column_stack([x, following])

            population = population.extend(onward, seed=int(rng.integers(2**31)))
        population = population.weigh(_seen(sights[:, symbol]))
        population = population.resample(seed=int(rng.integers(2**31)))
        if moves:

            def density(x: Any, symbol: int = symbol, first: bool = number == 0) -> Any:
                before = log_start[x[:, -1]] if first else log_steps[x[:, -2], x[:, -1]]
                return before + sights[x[:, -1], symbol]

            def propose(x: Any, rng: np.random.Generator) -> Any:
                # Upwards twice as often as down, around the ring of states.
                by = np.where(rng.random(len(x)) < 2 / 3, 1, -1)
                return np.column_stack([x[:, :-1], (x[:, -1] + by) % len(start)])

            def log_proposal(x: Any, following: Any) -> Any:
                return np.where((following[:, -1] - x[:, -1]) % len(start) == 1, np.log(2 / 3), np.log(1 / 3))

            population = population.move(
                propose,
                density,
                log_proposal=None if broken else log_proposal,
                steps=WALKS,
                seed=int(rng.integers(2**31)),
            )
    return population
