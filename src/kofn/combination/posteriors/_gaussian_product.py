"""The product of Gaussian fits to sub-posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination.posteriors._draws import fit_draws, product_plan, read_shards
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(kinds={"members": "draws"}, options={"draws": "draws of a product"}, silent=("blend",)),
    cost="O(m n (d^2 + d log n)) for n draws of d parameters; memory the draws, in float64",
    exact="the product of the fitted Gaussians, whose draws are independent; exact for Gaussian sub-posteriors",
    paper="neiswanger2014",
    aliases=("parametric density product", "precision weighted", "bernstein-von mises", "sub-posteriors"),
)
def gaussian_product(members: Sequence[Any], *, draws: int | None = None, seed: int | None = None) -> Blend:
    """The product of Gaussian fits to sub-posteriors, drawn from.

    The product of Gaussians is one: its precision is the sum of theirs, its mean the average of theirs by precision.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...); the
            same parameters, and draws in any number.
        draws: how many to make; as many as the largest shard has by default.
        seed: draws from the Gaussian.

    Returns:
        Blend of form "none" with what `consensus_monte_carlo` gives, and in `info` the Gaussian itself: `gaussian_mean`
        (parameters,) and `gaussian_covariance` (parameters, parameters).

    Raises:
        InputError: as `consensus_monte_carlo`.

    Cost: one covariance a shard, a Fourier transform for each parameter's effective size.

    Exact: where all sub-posteriors are Gaussian, up to the error of the fits; else skew, tails and modes are lost.

    References:
        Neiswanger, Wang & Xing 2014, Asymptotically exact, embarrassingly parallel MCMC (UAI).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import gaussian_product
        >>> rng = np.random.default_rng(0)
        >>> plan = gaussian_product([rng.normal(0.0, 2.0, 40000), rng.normal(1.0, 1.0, 50000)], seed=0)
        >>> plan.info["gaussian_mean"].round(1), plan.info["gaussian_covariance"].round(1)
        (array([0.8]), array([[0.8]]))
    """
    shards = read_shards(members)
    count = fit_draws(draws, shards, shards.most)
    mean, covariance = shards.gaussian()
    noise = np.random.default_rng(seed).normal(size=(count, shards.d))
    made = mean + noise @ np.linalg.cholesky(covariance).T
    return product_plan(
        shards,
        made,
        form="none",
        info={
            "gaussian_mean": shards.in_units(mean),
            "gaussian_covariance": covariance * np.outer(shards.unit, shards.unit),
        },
    )
