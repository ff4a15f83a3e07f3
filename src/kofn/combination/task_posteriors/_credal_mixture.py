"""A credal set of posteriors, blended by preference and cut to its region of highest density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination.diffusion._diffused import DiffusedMixture
from kofn.combination.posteriors._draws import described
from kofn.combination.task_posteriors._gaussians import Gaussians, read_gaussians, wasserstein
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

# The most draws that are made where none are asked for.
_DRAWS = 1000
# By so many draws the region's edge is found: its mass is then known to a third of a per cent.
_AT_THE_EDGE = 20_000
# Regions of less mass would be found by few of these draws.
_LEAST_MASS = 0.01


@method(
    "combine",
    draws=Draw(
        kinds={"members": "draws"},
        options=dict.fromkeys(("mass", "within", "average", "draws"), "credal set"),
        signed_weights=False,
        silent=("blend",),
    ),
    cost="O(m n d^2) to fit m posteriors of n draws, m^2 distances of d^3, and 20,000 densities to find the edge",
    exact="the mixture is exact for Gaussian members; the region's edge is a quantile of 20,000 draws, or exact where "
    "one member carries all",
    paper=125,
    aliases=(
        "imprecise bayesian continual learning",
        "IBCL",
        "highest density region",
        "preferences over tasks",
        "task trade-off",
        "zero-shot model generation",
    ),
)
def credal_mixture(
    members: Sequence[Any],
    *,
    weights: Any = None,
    mass: float = 0.9,
    within: float = 0.0,
    average: bool = False,
    draws: int | None = None,
    seed: int | None = None,
) -> Blend:
    """A credal set of posteriors, blended by preference: draws of its mixture's region of highest density.

    Each member is the posterior of one task's parameters; all their mixtures are the credal set. A preference over the
    tasks picks one of these, and any draw of its smallest region with the given mass is a model for that preference:
    nothing is trained again. A member nearer than `within` to one before it adds no extreme point: that one stands for
    it, and carries its weight.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...), of
            which Gaussians are fitted; or m `GaussianDensity` of `kofn.combination`. The same parameters in all.
        weights: (m,) the preference for each task, >= 0, relative; all alike by default.
        mass: of the mixture that the region holds, from 0.01 to 1; 1 cuts nothing.
        within: the 2-Wasserstein distance below which a member is represented by an earlier one; 0 leaves out copies.
        average: True blends parameters in place of densities, as the authors' code does: the region is that of the one
            Gaussian whose mean and covariance are the members', weighted. Its draws lie between the tasks' posteriors,
            where a draw of the mixture lies within one of them.
        draws: how many models to draw; as many as the largest member has draws by default, at most 1,000.
        seed: draws the edge and the models.

    Returns:
        Blend of form "none". `result` (draws, d), or (draws,) of vectors, are independent draws of the mixture inside
        the region. `weights` (m,) is the preference, `spread` (m,) each member's 2-Wasserstein distance from a Gaussian
        with the mixture's moments. `info` has `extremes`, the members that are kept, and `represented_by` (m,);
        `log_density_at_edge`, above which the region is; `member_means`, `member_covariances`, `member_sds`; the
        `mean`, `sd` and central 95% interval of each parameter over the draws; `ess`, the draws made; `warnings`.

    Raises:
        InputError: draws that `consensus_monte_carlo` refuses, draws beside densities, negative or all-zero weights, a
            mass outside [0.01, 1], a negative distance.

    Cost: a covariance for each member, a distance between every two of them, and the mixture's density at 20,000 draws.

    Exact: the mixture, or the average, where the members are Gaussian. The region's mass errs by 0.2 to 0.4 points
    where several members carry weight, and not at all where one does.

    References:
        Lu, Caprio, Eaton & Lee 2023, IBCL: zero-shot model generation for task trade-offs in continual learning (arXiv
        2310.02995).
        Hyndman 1996, Computing and graphing highest density regions (The American Statistician 50).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import GaussianDensity, credal_mixture
        >>> tasks = [GaussianDensity([centre], [[1.0]]) for centre in (-4.0, 4.0, 4.0)]
        >>> plan = credal_mixture(tasks, weights=[2, 1, 1], mass=0.9, seed=0)
        >>> plan.info["extremes"], plan.info["represented_by"].tolist(), bool(np.abs(plan.result).min() > 2)
        ([0, 1], [0, 1, 1], True)
    """
    share = checks.number(mass, "mass")
    if not _LEAST_MASS <= share <= 1:
        raise InputError(f"mass={share:.6g}: give a share from {_LEAST_MASS:g} to 1")
    near = checks.number(within, "within")
    tasks = read_gaussians(members)
    shares = _preference(weights, len(tasks.means))
    owner = _represented(tasks, near)
    extremes = np.flatnonzero(owner == np.arange(len(owner)))
    carried = np.bincount(owner, shares, len(owner))[extremes]
    means, covariances = tasks.means[extremes], tasks.covariances[extremes]
    if checks.flag(average, "average"):
        means, covariances = carried[None] @ means, np.tensordot(carried[None], covariances, axes=1)
    mixture = DiffusedMixture(means, covariances, carried if len(means) == len(carried) else None)
    finite = tasks.draws[np.isfinite(tasks.draws)]
    most = min(_DRAWS, int(finite.max())) if len(finite) else _DRAWS
    count = most if draws is None else checks.count(draws, "draws", least=2)
    rng = np.random.default_rng(seed)
    edge = _edge(mixture, share, rng)
    made = _inside(mixture, edge, count, rng)
    return Blend(
        n=len(owner),
        value=math.nan,
        status="heuristic",
        result=tasks.shaped(made),
        form="none",
        objective="draws_of_a_region",
        weights=shares,
        spread=np.array(
            [
                wasserstein(mean, covariance, mixture.mean, mixture.covariance)
                for mean, covariance in zip(tasks.means, tasks.covariances, strict=True)
            ]
        ),
        info={
            **tasks.facts(),
            **described(made),
            "member_covariances": tasks.covariances,
            "extremes": extremes.tolist(),
            "represented_by": owner,
            "log_density_at_edge": edge,
            "ess": float(count),
            "warnings": list(tasks.warnings),
        },
    )


def _preference(weights: Any, m: int) -> Floats:
    if weights is None:
        return np.full(m, 1 / m)
    shares = checks.vector(weights, "weights").astype(np.float64)
    checks.same_length(m, "members", "weights", len(shares))
    if (shares < 0).any() or not shares.any():
        raise InputError(f"weights={shares.tolist()}: give weights >= 0, some of them positive")
    out: Floats = shares / shares.sum()
    return out


def _represented(tasks: Gaussians, within: float) -> Ints:
    """(m,) the member that stands for each: itself, or the nearest kept one that is near enough."""
    owner = np.arange(len(tasks.means))
    kept: list[int] = []
    for member in owner.tolist():
        gaps = [_distance(tasks, member, other) for other in kept]
        if gaps and min(gaps) <= within:
            owner[member] = kept[int(np.argmin(gaps))]
        else:
            kept.append(member)
    return owner


def _distance(tasks: Gaussians, member: int, other: int) -> float:
    mine, theirs = (tasks.means[member], tasks.covariances[member]), (tasks.means[other], tasks.covariances[other])
    if all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)):
        return 0.0
    return max(wasserstein(*mine, *theirs), np.finfo(np.float64).tiny)


def _edge(mixture: DiffusedMixture, mass: float, rng: np.random.Generator) -> float:
    """The log density above which the mixture has this mass."""
    from scipy.stats import chi2

    if mass == 1.0:
        return -math.inf
    carried = np.flatnonzero(mixture.weights)
    if len(carried) == 1:
        covariance = mixture.covariances.reshape(-1, mixture.d, mixture.d)[carried[0]]
        size = mixture.d * math.log(2 * math.pi) + float(np.linalg.slogdet(covariance)[1])
        return -0.5 * (float(chi2.ppf(mass, mixture.d)) + size)
    heights = mixture.log_density(_drawn(mixture, _AT_THE_EDGE, rng))
    return float(np.quantile(heights, 1 - mass))


def _inside(mixture: DiffusedMixture, edge: float, count: int, rng: np.random.Generator) -> Floats:
    """(count, d) draws of the mixture where its log density is at least that of the edge."""
    parts: list[Floats] = []
    while sum(map(len, parts)) < count:
        made = _drawn(mixture, 2 * count, rng)
        parts.append(made[mixture.log_density(made) >= edge])
    return np.concatenate(parts)[:count]


def _drawn(mixture: DiffusedMixture, count: int, rng: np.random.Generator) -> Floats:
    chosen = rng.choice(len(mixture.means), count, p=mixture.weights)
    factors = np.linalg.cholesky(mixture.covariances)
    noise = rng.normal(size=(count, mixture.d))
    out: Floats = mixture.means[chosen] + np.einsum("nij,nj->ni", factors[chosen], noise)
    return out
