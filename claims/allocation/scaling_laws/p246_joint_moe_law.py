"""One scaling law for dense models and mixtures of experts: predicted beyond the runs, and spent under two limits.

Losses are drawn from a law of the paper's form with half a percent of noise, on a grid of runs as small laboratories
have them. The fit is judged on runs of 4 to 30 times the compute, and its choice of size, tokens and experts under
compute and memory by the true loss of what it chose, against the best of a fine grid under the true law. Nothing is
trained: what is judged is the fit and the spending.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.allocation import fit_moe_law, fit_supervised_law

Floats = NDArray[np.float64]
Figures = dict[str, Any]

EXPERTS = (1, 2, 4, 8, 16, 32)
NOISE, FLOPS, SHARE = 0.005, 3e21, 2 / 3
# Bytes; without a limit first.
MEMORY = (None, 2e10, 6e9, 2e9)


@claim(
    paper=246,
    says="A joint law fitted to small runs predicts the loss of larger ones within 1%, better than a law for each "
    "number of experts; what it chooses under compute and memory is within half a percent of the best, and under some "
    "memory it is a mixture of experts",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Laws drawn around the paper's form; broken: one law for all runs, which does not know of experts."""
    runs = 10 if scale == "small" else 40
    trials = spread(functools.partial(_trial, broken=broken), derive(seed, runs))
    off = difference([trial["joint"] for trial in trials], np.zeros(runs))
    ahead = difference([trial["apart"] for trial in trials], [trial["joint"] for trial in trials])
    regret = np.array([trial["regret"] for trial in trials])
    dense = np.array([trial["dense"] for trial in trials])
    covered = float(np.mean([trial["covered"] for trial in trials]))
    measured: Figures = {
        "median relative error on larger runs, joint law": off.figures(),
        "the same of a law for each number of experts - joint": ahead.figures(),
        "share of larger runs inside the 90% interval": round(covered, 3),
        "regret of the choice by memory, mean": dict(
            zip(map(str, MEMORY), regret.mean(axis=0).round(5).tolist(), strict=True)
        ),
        "regret of the best dense model by memory, mean": dict(
            zip(map(str, MEMORY), dense.mean(axis=0).round(5).tolist(), strict=True)
        ),
        "experts chosen by memory, mean": dict(
            zip(
                map(str, MEMORY), np.mean([trial["experts"] for trial in trials], axis=0).round(1).tolist(), strict=True
            )
        ),
    }
    criteria = {
        "larger runs within 1%": off.high < 0.01,
        "better than a law for each number of experts": ahead.above(0.0),
        "regret below half a percent": bool(regret.mean(axis=0).max() < 0.005),
        "a mixture of experts is chosen under a memory limit and beats the best dense model": all(
            any(e > 1 and r < d for e, r, d in zip(t["experts"][1:], t["regret"][1:], t["dense"][1:], strict=True))
            for t in trials
        ),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="an upper 95% limit of the median error below 0.01; a lower 95% limit of the difference to separate "
        "laws above 0; a mean regret below 0.005 under each memory; in each run, under some memory, more than one "
        "expert and a lower true loss than the best dense model's",
        baseline="a law of size and tokens for each number of experts on the same runs; the best dense model of the "
        "true law",
        kind="simulated",
    )


class _Truth:
    """A law drawn around one in which experts help, less the more there are."""

    def __init__(self, rng: np.random.Generator) -> None:
        near = rng.uniform(0.9, 1.1, 9)
        self.terms = np.array([40.0, 0.1, -0.2, -0.012, 40.0, -0.75, -0.18, 0.028, 1.4]) * near

    def loss(self, active: Any, tokens: Any, experts: Any) -> Floats:
        a, delta, alpha, gamma, b, omega, beta, zeta, c = self.terms
        seen = 1 / (1 / (np.asarray(experts, np.float64) - 1 + 1 / (1 - 1 / 290)) + 1 / 290)
        log = np.log(seen)
        size, data = np.asarray(active, np.float64), np.asarray(tokens, np.float64)
        return np.asarray(
            a * seen**delta * size ** (alpha + gamma * log) + b * seen**omega * data ** (beta + zeta * log) + c
        )

    def best(self, flops: float, memory: float | None, experts: tuple[int, ...]) -> float:
        """The least loss of a fine grid."""
        least = np.inf
        for number in experts:
            room = np.inf if memory is None else memory / 2 / (1 + (number - 1) * SHARE)
            sizes = np.minimum(np.geomspace(1e6, 1e12, 6000), room)
            least = min(least, float(self.loss(sizes, flops / (6 * sizes), number).min()))
        return least


def _grid(sizes: Floats, tokens: Floats) -> tuple[Floats, Floats, Floats]:
    N, D, E = (axis.ravel() for axis in np.meshgrid(sizes, tokens, EXPERTS))
    return N, D, E.astype(np.float64)


def _trial(seed: int, *, broken: bool) -> Figures:
    rng = np.random.default_rng(seed)
    truth = _Truth(rng)
    N, D, E = _grid(np.geomspace(2e7, 1e9, 5), np.geomspace(1e9, 3e10, 5))
    losses = truth.loss(N, D, E) * np.exp(NOISE * rng.normal(size=len(N)))
    larger = _grid(np.array([2e9, 4e9]), np.array([6e10, 1.2e11]))
    real = truth.loss(*larger)
    apart = np.empty(len(real))
    for number in EXPERTS:
        rows, far = number == E, number == larger[2]
        own = fit_supervised_law(N[rows], D[rows], losses[rows], resamples=0)
        apart[far] = own.loss(larger[0][far], larger[1][far])
    law = fit_moe_law(N, D, E, losses, resamples=10)
    if broken:
        blind = fit_supervised_law(N, D, losses, resamples=0)
        predicted, covered = blind.loss(larger[0], larger[1]), 0.0
    else:
        predicted = law.loss(*larger)
        low, high = law.interval(*larger)
        covered = float(((low <= real) & (real <= high)).mean())
    out: Figures = {
        "joint": float(np.median(np.abs(predicted / real - 1))),
        "apart": float(np.median(np.abs(apart / real - 1))),
        "covered": covered,
        "regret": [],
        "dense": [],
        "experts": [],
    }
    for memory in MEMORY:
        plan = law.spend(FLOPS, memory=memory, experts=(1,) if broken else EXPERTS, expert_share=SHARE)
        best = truth.best(FLOPS, memory, EXPERTS)
        out["regret"].append(float(truth.loss(*plan.amounts)) / best - 1)
        out["dense"].append(truth.best(FLOPS, memory, (1,)) / best - 1)
        out["experts"].append(int(plan.amounts[2]))
    return out
