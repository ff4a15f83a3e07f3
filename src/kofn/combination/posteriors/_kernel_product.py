"""The product of kernel estimates of sub-posteriors, plain or around their Gaussian fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kofn.combination.posteriors._draws import FEW, Shards, fit_draws, name_of, product_plan, read_shards
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


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
    Metropolis-within-Gibbs chain walks over these choices, some sweeps over the shards for each draw, in which the
    bandwidth falls from a wide one to n^(-1 / (4 + d)), n the draws of the shard with the fewest. It runs in
    coordinates in which the product of the Gaussian fits is standard.

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
        draws that the chain took. `ess` is of the chain, whose draws depend on each other, no more than the choices
        that it made anew, and no more than the draws of each shard that tell of where the product is (`member_near`):
        where shards stand apart it is in their tails. `warnings` names both.

    Raises:
        InputError: as `consensus_monte_carlo`.

    Cost: m kernels of d parameters for each sweep.

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
    from kofn.combination.posteriors._sizes import kish

    shards = read_shards(members)
    count, apart = fit_draws(draws, shards, shards.most), checks.count(sweeps, "sweeps")
    mean, covariance = shards.gaussian()
    factor = np.linalg.cholesky(covariance)
    whitened = [np.linalg.solve(factor, (array - mean).T).T for array in shards.draws]
    rows = np.ascontiguousarray(np.concatenate(whitened))
    starts = np.cumsum([0, *map(len, shards.draws)])
    fits = _log_fits(shards)
    around, bandwidth = kernel == "semiparametric", shards.fewest ** (-1 / (4 + shards.d))
    fitted = fits if around else np.zeros(len(rows))
    made, accepted = walk(rows, starts, fitted, around, count, bandwidth, apart, np.random.default_rng(seed))
    share = accepted / (count * apart * shards.m)
    # Around a choice that never changes the draws are independent, and worth no more than one.
    moves = 1 + share * count * apart
    # What a shard says of the product is said by its draws near it, of which few may be as many as all.
    logs = np.split(-0.5 * np.einsum("ni,ni->n", rows, rows) - fits, starts[1:-1])
    near = np.array([kish(part) * len(part) for part in logs])
    return product_plan(
        shards,
        mean + made @ factor.T,
        form="none",
        info={"accepted": share, "member_near": near},
        most=min(moves, float(near.min())),
        warnings=[*_stuck(moves), *_in_the_tails(near)],
    )


def _stuck(moves: float) -> list[str]:
    if moves >= FEW:
        return []
    return [
        f"the chain changed its choice of draws only {moves:.3g} times, so that the draws lie around few of the "
        "members'; give more draws or sweeps, or use divide_and_conquer_fusion, which needs the densities"
    ]


def _in_the_tails(near: Floats) -> list[str]:
    worst = int(near.argmin())
    if near[worst] >= FEW:
        return []
    return [
        f"the product lies where {name_of(worst)} has few draws, worth {near[worst]:.3g}: its shape there is not "
        "known, and its spread may come out several times too small; use gaussian_product or consensus_monte_carlo, "
        "which need no draws there, or give more draws of each member"
    ]


def _log_fits(shards: Shards) -> Floats:
    """The log density of every draw under the Gaussian fit of its shard, up to the shard's constant."""
    parts = []
    for array, mean, precision in zip(shards.draws, shards.means, shards.precisions(), strict=True):
        off = array - mean
        parts.append(-0.5 * np.einsum("ni,ij,nj->n", off, precision, off))
    return np.concatenate(parts)
