"""The product of kernel estimates of sub-posteriors, plain or around their Gaussian fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kofn.combination.posteriors._draws import Shards, fit_draws, product_plan, read_shards
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

# Draws before the first that is kept, over those that are: the bandwidth falls in them.
_BURNT = 0.25


@method(
    "combine",
    draws=Draw(
        kinds={"members": "draws"},
        options=dict.fromkeys(("draws", "kernel", "sweeps"), "kernel"),
        silent=("blend",),
    ),
    cost="O(n sweeps m d) for n draws after the fits; memory the draws, in float64",
    exact="asymptotically, as draws and sweeps grow and the bandwidth falls; in many dimensions slowly",
    paper="neiswanger2014",
    aliases=(
        "semiparametric density product",
        "nonparametric density product",
        "embarrassingly parallel mcmc",
        "sub-posteriors",
    ),
)
def kernel_product(
    members: Sequence[Any],
    *,
    kernel: Literal["semiparametric", "nonparametric"] = "semiparametric",
    draws: int | None = None,
    sweeps: int = 100,
    seed: int | None = None,
) -> Blend:
    """The product of kernel estimates of sub-posteriors, plain or around their Gaussian fits.

    The product of m kernel estimates is a mixture with a component for each choice of one draw a shard. An independent
    Metropolis-within-Gibbs chain walks over these choices, some sweeps over the shards for each draw, while the
    bandwidth falls as i^(-1 / (4 + d)) with the draws. It runs in coordinates in which the product of the Gaussian fits
    is standard.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...); the
            same parameters, and draws in any number.
        kernel: "semiparametric" estimates each sub-posterior as its Gaussian fit times a correction by kernels,
            "nonparametric" by kernels alone.
        draws: how many to make; as many as the largest shard has by default.
        sweeps: how often the chain goes over all shards between draws; with many shards more make better draws.
        seed: draws the chain.

    Returns:
        Blend of form "none" with what `consensus_monte_carlo` gives, and `info["accepted"]`, the share of proposed
        draws that the chain took. `ess` is of the chain, whose draws depend on each other, and no more than the choices
        that it made anew; a chain that hardly moved is named in `warnings`.

    Raises:
        InputError: as `consensus_monte_carlo`.

    Cost: m kernels of d parameters for each sweep, and a quarter more before the first draw is kept.

    Exact: for sub-posteriors of any shape as the number of draws grows; with few, the plain kernels widen the product
    by the bandwidth, the semiparametric ones where it is no Gaussian. In many dimensions few choices of draws lie close
    together, and with many shards the chain hardly moves: see `info["accepted"]` and `info["ess"]`.

    References:
        Neiswanger, Wang & Xing 2014, Asymptotically exact, embarrassingly parallel MCMC (UAI).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import kernel_product
        >>> rng = np.random.default_rng(0)
        >>> plan = kernel_product([rng.normal(0.0, 2.0, 4000), rng.normal(1.0, 1.0, 5000)], seed=0)
        >>> bool(abs(plan.info["mean"][0] - 0.8) < 0.1), bool(abs(plan.info["sd"][0] - 0.89) < 0.1)
        (True, True)
    """
    from kofn.combination.posteriors._kernels import walk

    shards = read_shards(members)
    count, apart = fit_draws(draws, shards, shards.most), checks.count(sweeps, "sweeps")
    mean, covariance = shards.gaussian()
    factor = np.linalg.cholesky(covariance)
    whitened = [np.linalg.solve(factor, (array - mean).T).T for array in shards.draws]
    rows = np.ascontiguousarray(np.concatenate(whitened))
    starts = np.cumsum([0, *map(len, shards.draws)])
    fitted = _log_fits(shards) if kernel == "semiparametric" else np.zeros(len(rows))
    around, burnt = kernel == "semiparametric", int(_BURNT * count)
    made, accepted = walk(rows, starts, fitted, around, count, burnt, apart, np.random.default_rng(seed))
    share = accepted / (count * apart * shards.m)
    # Around a choice that never changes the draws are independent, and worth no more than one.
    moves = 1 + share * count * apart
    return product_plan(shards, mean + made @ factor.T, form="none", info={"accepted": share}, most=moves)


def _log_fits(shards: Shards) -> Floats:
    """The log density of every draw under the Gaussian fit of its shard, up to the shard's constant."""
    parts = []
    for array, mean, precision in zip(shards.draws, shards.means, shards.precisions(), strict=True):
        off = array - mean
        parts.append(-0.5 * np.einsum("ni,ij,nj->n", off, precision, off))
    return np.concatenate(parts)
