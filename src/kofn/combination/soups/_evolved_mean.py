"""Optimise the weights of a mean of checkpoints on a score by CMA-ES."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from kofn.combination._sweep.files import Files, SweepOptions
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.soups._trials import Trials
from kofn.combination.task_vectors._task_arithmetic import TaskArithmetic
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.optim import CMAES


@method(
    "combine",
    cost="budget calls of score; a blend to rate is one pass over the members; O(m^3) a generation beside it",
    exact="never rated below the uniform mean; the blend returned is, bit for bit, the one that was rated best",
    paper=309,
)
def evolved_mean(
    members: Sequence[Any],
    *,
    score: Callable[[Any], float],
    budget: int,
    base: Any = None,
    negative: bool = True,
    sigma: float = 1.0,
    population: int | None = None,
    record: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    **files: Unpack[Files],
) -> Blend:
    """Optimise the weights of a mean of checkpoints on a score by CMA-ES.

    The weights start uniform and are searched by CMA-ES (`kofn.optim.CMAES`): unconstrained numbers, shifted so that
    they sum to one.

    Args:
        members: m arrays, mappings name -> array, or checkpoints (paths) of one family.
        score: rates a blend, higher is better, as `greedy_soup` has it; for several tasks, the mean of theirs.
        budget: number of blends to rate, exactly (unless time or Ctrl-C ends the search). The first is the uniform
            mean. A pool of m needs about 10 m ratings or more.
        base: the checkpoint that the members were fine-tuned from. With it each task vector has its own factor,
            initially 1/m, and the factors need not sum to one.
        negative: False holds all weights at >= 0: numbers below zero count as zero, and what is left is divided by its
            sum.
        sigma: standard deviation of the first generation, in shares of a uniform weight.
        population: blends in a generation, by default 4 + floor(3 ln m).
        record: a file that stores every rating, as in `greedy_soup`.
        time_limit: seconds; no rating starts after them. Ctrl-C ends the search the same way.
        seed: whole number, 0 by default, so that a search that is started again is the same search.

    Returns:
        Blend: of form "simplex" or "affine", what `weighted_mean` gives with `weights`; with a base of form "none",
        what `task_arithmetic` gives with `weights` and normalize=False. `value` is its score; `info` has the
        "evaluations" ({"weights", "score"}, in order), the finished "generations" and how many ratings came from the
        record ("resumed"). The status is "stopped" if time or Ctrl-C ended it.

    Raises:
        InputError: members that do not match, a score that is no number, a record of another search.

    Cost: `budget` calls of `score`; beside each, O(m d) to blend, and one blend in memory (none for checkpoints). The
    best of many ratings is biased upwards: evaluate the blend on rows that no rating used.

    >>> import numpy as np
    >>> corners = [np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])]
    >>> target = np.array([0.7, 0.5, -0.2])
    >>> blend = evolved_mean(corners, score=lambda mean: -float(np.square(mean - target).sum()), budget=150)
    >>> blend.weights.round(2), len(blend.info["evaluations"])
    (array([ 0.7,  0.5, -0.2]), 150)

    References:
        Khalifa, Tan, Ahmadian, Hosking, Lee, Wang, Üstün, Sherborne & Gallé 2025, If You Can't Use Them, Recycle Them:
        Optimizing Merging at Scale Mitigates Performance Tradeoffs (ICML); Hansen 2016, The CMA evolution strategy: a
        tutorial (arXiv 1604.00772).
    """
    options = SweepOptions(**files)
    pool = options.open(members, base)
    m = len(pool.members)
    limit = checks.count(budget, "budget")
    signed = checks.flag(negative, "negative")
    search = CMAES(np.zeros(m), sigma=sigma, population=population, seed=seed)
    settings = {
        "method": "evolved_mean",
        "negative": signed,
        "sigma": search.sigma,
        "population": search.population,
        "seed": seed,
    }

    def weights_of(point: Floats) -> Floats:
        shares = 1 + point if signed else np.maximum(1 + point, 0)
        if base is not None:
            return shares / m
        if signed:
            return _to_one((shares - shares.mean() + 1) / m)
        return _to_one(shares / shares.sum()) if shares.any() else np.full(m, 1 / m)

    rule_of = WeightedMean.of_weights if base is None else TaskArithmetic.of_factors
    with Trials(pool, options, score, limit, record, settings, rule_of, time_limit) as trials:
        trials.rate(weights_of(np.zeros(m)))
        # A single member has only one mean.
        while m > 1 or base is not None:
            ratings = []
            for point in search.ask():
                rating = trials.rate(weights_of(point))
                if rating is None:
                    break
                ratings.append(rating)
            if len(ratings) < search.population:
                break
            search.tell(-np.array(ratings))
    best = max(trials.seen, key=lambda row: row["score"])
    return trials.plan(np.array(best["weights"]), best["score"], {"generations": search.generation})


def _to_one(weights: Floats) -> Floats:
    """The same weights but for a rounding that makes their sum one."""
    weights[np.argmax(weights)] += 1 - math.fsum(weights.tolist())
    return weights
