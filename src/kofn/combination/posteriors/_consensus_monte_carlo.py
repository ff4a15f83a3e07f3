"""Consensus Monte Carlo: average the draws of sub-posteriors, each weighted by its precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kofn.combination.posteriors._draws import product_plan, read_shards
from kofn.core.arrays import Ints
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(kinds={"members": "draws"}, options={"precision": "precision"}),
    cost="O(m n (d^2 + d log n)) for n draws of d parameters; memory the draws, in float64",
    exact="exact for Gaussian sub-posteriors; others come out rounder and less skewed than their product",
    paper="scott2016",
    aliases=("consensus monte carlo", "embarrassingly parallel mcmc", "sub-posteriors", "posterior draws", "shards"),
)
def consensus_monte_carlo(
    members: Sequence[Any], *, precision: Literal["full", "diagonal", "uniform"] = "full"
) -> Blend:
    """Consensus Monte Carlo: average the draws of sub-posteriors, each weighted by its precision.

    Each of m shards of the data was sampled on its own, under the prior to the power 1/m. The t-th draw of the product
    is the average of one draw of each shard, weighted by the inverse of the covariance of its draws.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...); the
            same parameters, and draws in any number.
        precision: "full" weights by inverse covariances, "diagonal" by inverse variances, "uniform" equally.

    Returns:
        Blend of form "affine". `result` (n, parameters), or (n,) of vectors: as many draws as the shard with the fewest
        has, for which longer ones are thinned evenly. `weights` (m,) is each shard's part of the precision, `spread`
        (m,) its distance from the product of the others in standard deviations, near 1 where shards agree. `info` has
        for each of `parameters` the `mean`, `sd` and the central 95% interval, `low` to `high`; `ess`, how many
        independent draws they are worth, which is no more than the shards' own are; for each shard `member_draws`,
        `member_ess`, `member_means`, `member_sds`, and `chance_of_distance`, how seldom shards of one model stand so
        far apart; `warnings` names those that do, those whose draws are worth too few, and parameters of which every
        draw is a whole number: counts, classes and flags have no mean between them.

    Raises:
        InputError: shards of unlike parameters, arrays of more than two axes (join chains first), NaN or infinities, a
            parameter that never moves, no more draws than parameters, parameters that determine each other.

    Cost: one covariance and one product with (parameters, parameters) a shard, and a Fourier transform for each
    parameter's effective size.

    Exact: where all sub-posteriors are Gaussian. Else only mean and covariance are near those of the product, and skew
    and tails are averaged away: `kernel_product` and `divide_and_conquer_fusion` keep them.

    References:
        Scott, Blocker, Bonassi, Chipman, George & McCulloch 2016, Bayes and big data: the consensus Monte Carlo
        algorithm (International Journal of Management Science and Engineering Management 11).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import consensus_monte_carlo
        >>> rng = np.random.default_rng(0)
        >>> plan = consensus_monte_carlo([rng.normal(0.0, 2.0, 4000), rng.normal(1.0, 1.0, 5000)])
        >>> plan.result.shape, plan.weights.round(1).tolist(), plan.info["mean"].round(1), plan.info["sd"].round(1)
        ((4000,), [0.2, 0.8], array([0.8]), array([0.9]))
    """
    shards = read_shards(members)
    matrices = shards.precisions()
    if precision == "uniform":
        matrices = np.broadcast_to(np.eye(shards.d), matrices.shape)
    elif precision == "diagonal":
        variances = np.diagonal(shards.covariances, axis1=1, axis2=2)
        matrices = np.eye(shards.d) / variances[:, None, :]
    total = np.linalg.inv(matrices.sum(axis=0))
    count = shards.fewest
    draws = np.zeros((count, shards.d))
    for array, matrix in zip(shards.draws, matrices, strict=True):
        draws += array[thinned(len(array), count)] @ (total @ matrix).T
    return product_plan(shards, draws, form="affine", info={"precision": precision})


def thinned(length: int, count: int) -> Ints:
    """`count` of `length` rows, evenly."""
    return np.arange(count) * length // count
