"""Divide-and-conquer fusion: the exact product of sub-posteriors, by Brownian paths that end in one point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kofn.combination.posteriors._densities import Density, GaussianDensity, Product, read_densities
from kofn.combination.posteriors._draws import Shards, fit_draws, product_plan, read_shards
from kofn.combination.posteriors._paths import LAYER, log_weights, phi, upper_bound
from kofn.combination.posteriors._sizes import kish, normalised, systematic
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress

# The most draws that are made where none are asked for.
_DRAWS = 10_000
# The effective share of the particles that the first weights keep, and below which particles are resampled.
_KEPT, _RESAMPLED = 0.5, 0.5
# A step lasts at most sqrt(C / (4 d)), as the authors advise, and so short that drift alone leaves this share.
_ADVISED, _DRIFT = 0.25, 0.7
# ... and so short that a path has about so many points: those of its third layer.
_POINTS, _FORESEEN = 10.0, 3
# About how many particles a step is chosen by.
_LOOKED = 256
_MOST_STEPS = 200


@method(
    "combine",
    draws=Draw(
        kinds={"members": "draws"},
        plain={"densities": [GaussianDensity([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])] * 3, "draws": 40},
        options=dict.fromkeys(("densities", "draws", "branching"), "densities"),
        silent=("blend",),
    ),
    cost="O(m steps draws points) evaluations of the densities, in d parameters; a handful of steps and points each",
    exact="an importance sample of the product itself, whatever the sub-posteriors' shapes, where the curvature bounds "
    "of the densities hold",
    paper=171,
    aliases=("monte carlo fusion", "bayesian fusion", "d&c-fusion", "fusion", "product of experts", "sub-posteriors"),
    python_only=True,
)
def divide_and_conquer_fusion(
    members: Sequence[Any],
    *,
    densities: Sequence[Any],
    draws: int | None = None,
    branching: int = 2,
    seed: int | None = None,
    progress: Progress = None,
) -> Blend:
    """Divide-and-conquer fusion: the exact product of sub-posteriors, by Brownian paths that end in one point.

    A draw of each sub-posterior begins a path, and the paths of one particle meet in one point after a time T. Weighted
    by how near their starts lie, and by an unbiased estimate of the mean of exp(-integral of phi) along each path (phi
    is half the squared gradient plus half the Laplacian of the log density), the points are an importance sample of the
    product. Sub-posteriors are merged along a tree, a few at a time, with resampling between steps, so that the weights
    do not collapse where there are many. Each one's paths have the covariance of its draws.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...); the
            same parameters, and independent draws in any number.
        densities: the log density of each member, of the same parameters in the same order: `LogDensity`,
            `GaussianDensity` or `LogisticDensity` of `kofn.combination`.
        draws: how many particles; by default as many draws as the largest member has, at most 10,000.
        branching: how many are merged at a time; m merges all at once.
        seed: draws everything.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        Blend of form "none" with what `consensus_monte_carlo` gives. `result` is a weighted sample:
        `info["draw_weights"]` (draws,) sum to one, and `info["ess"]` is what they are worth, no more than the members'.
        `info["merges"]` has for each merge how many were `merged`, the `time` T, the `steps`, the share that the first
        weights kept, `overlap`, the share of particles that is effective at its end, `ess`, and the share of first
        particles from which these descend, counted alike: `ancestors`, whose least is `info["ancestors"]`. Where it is
        small, as where members stand far apart, all draws hang on few of the members', and are worth less than `ess`.
        `info["breaches"]` counts points beyond the curvature bounds, and `info["bounded"]` is whether all densities
        have such bounds.

    Raises:
        InputError: as `consensus_monte_carlo`; another number of densities, derivatives of another shape, NaN or
            infinite derivatives.
        FailureError: members so far apart that no particle keeps a weight.

    Cost: gradients and Laplacians at about three points for each particle, member and step. Members must be sampled
    well: particles begin at their draws.

    Exact: the weights are unbiased, so that means over the sample converge to those of the product with the number of
    draws, at the square root's rate; the time and the steps are tuned on the particles themselves. Without curvature
    bounds (`LogDensity` with no `hessian_bounds`) they are guessed.

    References:
        Dai, Pollock & Roberts 2019, Monte Carlo fusion (Journal of Applied Probability 56).
        Chan, Pollock, Johansen & Roberts 2023, Divide-and-conquer fusion (JMLR 24).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import GaussianDensity, divide_and_conquer_fusion
        >>> rng = np.random.default_rng(0)
        >>> members = [rng.normal(0.0, 2.0, 3000), rng.normal(1.0, 1.0, 3000)]
        >>> densities = [GaussianDensity([0.0], [[4.0]]), GaussianDensity([1.0], [[1.0]])]
        >>> plan = divide_and_conquer_fusion(members, densities=densities, seed=0)
        >>> plan.info["mean"].round(1), plan.info["sd"].round(1), plan.info["ess"] > 500
        (array([0.8]), array([0.9]), True)
    """
    shards = read_shards(members)
    known = read_densities(densities, shards.m, shards.d)
    count = fit_draws(draws, shards, min(_DRAWS, shards.most))
    width = checks.count(branching, "branching", least=2)
    rng = np.random.default_rng(seed)
    nodes = [
        Node(shards.in_units(array), np.full(len(array), 1 / len(array)), density)
        for array, density in zip(shards.draws, known, strict=True)
    ]
    record = Record()
    with Control(title="divide_and_conquer_fusion", total=_merges(shards.m, width), progress=progress) as control:
        while len(nodes) > 1:
            groups = [nodes[low : low + width] for low in range(0, len(nodes), width)]
            nodes = []
            for group in groups:
                nodes.append(group[0] if len(group) == 1 else _merged(group, count, rng, record))
                control.step(len(record.merges))
    return _plan(shards, nodes[0], record, bounded=all(density.bounded for density in known))


@dataclass(frozen=True)
class Node:
    """A weighted sample of a density: a member, or the product of some."""

    x: Floats
    weights: Floats
    density: Density


@dataclass
class Record:
    """What a fusion did."""

    merges: list[dict[str, float]] = field(default_factory=list)
    breaches: int = 0
    evaluations: int = 0


def _merges(m: int, width: int) -> int:
    total = 0
    while m > 1:
        full, rest = divmod(m, width)
        total += full + (rest > 1)
        m = full + (rest > 0)
    return total


def _plan(shards: Shards, node: Node, record: Record, *, bounded: bool) -> Blend:
    draws = (node.x - shards.shift) / shards.unit
    families = min((merge["ancestors"] for merge in record.merges), default=1.0)
    return product_plan(
        shards,
        draws,
        form="none",
        draw_weights=node.weights,
        info={
            "merges": record.merges,
            "ancestors": families,
            "breaches": record.breaches,
            "bounded": bounded,
            "oracle_calls": record.evaluations,
        },
    )


def _merged(nodes: Sequence[Node], count: int, rng: np.random.Generator, record: Record) -> Node:
    """A weighted sample of the product of a few densities, by paths from their draws to one point."""
    d = nodes[0].x.shape[1]
    metrics = [_covariance(node) for node in nodes]
    transforms: list[Floats] = [np.asarray(np.linalg.cholesky(metric)) for metric in metrics]
    precisions: list[Floats] = [np.asarray(np.linalg.inv(metric)) for metric in metrics]
    shared = np.linalg.inv(np.sum(precisions, axis=0))
    factor = np.linalg.cholesky(shared)
    x = np.array([node.x[rng.permutation(systematic(node.weights, count, rng))] for node in nodes])
    squares = _scatter(x, _centre(x, precisions, shared), precisions)
    total = _time(squares)
    logs = -squares / (2 * total)
    facts = {"merged": float(len(nodes)), "time": total, "overlap": kish(logs)}
    if not np.isfinite(facts["overlap"]) or facts["overlap"] * count <= d:
        raise FailureError(
            f"members stand too far apart: of {count} particles {facts['overlap'] * count:.2g} keep a weight; give "
            "draws that overlap, or more of them"
        )
    now, steps, ancestors = 0.0, 0, np.arange(count)
    while now < total:
        if kish(logs) < _RESAMPLED:
            rows = systematic(normalised(logs), count, rng)
            x, logs, ancestors = x[:, rows], np.zeros(count), ancestors[rows]
        left = total - now
        step = _step(nodes, x, logs, left, transforms) if steps < _MOST_STEPS else left
        end = _centre(x, precisions, shared) + np.sqrt(left) * rng.normal(size=(count, d)) @ factor.T
        last = step >= left
        for shard, (node, transform) in enumerate(zip(nodes, transforms, strict=True)):
            spread = np.sqrt(step * (left - step) / left)
            noise = 0.0 if last else spread * rng.normal(size=(count, d)) @ transform.T
            reached = end if last else x[shard] + step / left * (end - x[shard]) + noise
            gains, breaches = log_weights(node.density, x[shard], reached, step, transform, rng)
            logs = logs + gains
            x[shard] = reached
            record.breaches += breaches
            record.evaluations += 1
        now, steps = (total if last else now + step), steps + 1
    if not np.isfinite(logs.max()):
        raise FailureError("no particle keeps a weight: the densities do not belong to the draws; check their order")
    weights = normalised(logs)
    families = float(1 / np.square(np.bincount(ancestors, weights, count)).sum()) / count
    record.merges.append({**facts, "steps": float(steps), "ess": kish(logs), "ancestors": families})
    return Node(x[0], weights, Product([node.density for node in nodes]))


def _covariance(node: Node) -> Floats:
    off = node.x - node.weights @ node.x
    out: Floats = (off * node.weights[:, None]).T @ off / (1 - np.square(node.weights).sum())
    return out


def _centre(x: Floats, precisions: Sequence[Floats], shared: Floats) -> Floats:
    """(n, d) the mean of each particle's points by precision."""
    out: Floats = np.einsum("cnj,cjk->nk", x, np.array(precisions)) @ shared
    return out


def _scatter(x: Floats, centre: Floats, precisions: Sequence[Floats]) -> Floats:
    """(n,) the sum of each particle's squared distances from its centre, by precision."""
    off = x - centre
    out: Floats = np.einsum("cnj,cjk,cnk->n", off, np.array(precisions), off)
    return out


def _time(squares: Floats) -> float:
    """The shortest time after which the first weights keep their share of the particles."""
    low, high = -20.0, 40.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if kish(-squares / (2 * 2.0**middle)) >= _KEPT else (middle, high)
    return float(2.0**high)


def _step(nodes: Sequence[Node], x: Floats, logs: Floats, left: float, transforms: Sequence[Floats]) -> float:
    """How long the next step may last, at most what is left of the time."""
    some = slice(None, None, max(1, x.shape[1] // _LOOKED))
    x, logs = x[:, some], logs[some]
    values = [phi(node.density, x[shard], transforms[shard]) for shard, node in enumerate(nodes)]
    drift: Floats = np.sum(values, axis=0)
    weights = normalised(logs)
    step = float(np.sqrt(_ADVISED * len(nodes) / x.shape[2]))
    while step > left / _MOST_STEPS and (
        kish(-step * drift, weights) < _DRIFT or _points_of(nodes, x, weights, step, drift, transforms) > _POINTS
    ):
        step /= 1.3
    parts = int(np.ceil(left / step))
    return left / parts


def _points_of(
    nodes: Sequence[Node], x: Floats, weights: Floats, step: float, drift: Floats, transforms: Sequence[Floats]
) -> float:
    """About how many points each path of a step needs, on average."""
    half = np.full(x.shape[1:], _FORESEEN * LAYER * np.sqrt(step))
    bounds = [
        upper_bound(node.density, x[shard], half, transform)
        for shard, (node, transform) in enumerate(zip(nodes, transforms, strict=True))
    ]
    return float(step * (weights @ (np.sum(bounds, axis=0) - drift))) / len(nodes)
