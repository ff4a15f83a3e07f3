"""Mixtures of experts fitted on shards, reduced to one of a few components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._draws import name_of
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

PARTS = ("gates", "experts", "variances")
_ITERATIONS, _TOLERANCE = 200, 1e-10
# Keeps the gates finite where components never meet.
_PENALTY = 1e-6


@method(
    "combine",
    draws=Draw(
        kinds={"members": "mixtures of experts"},
        plain={"inputs": np.random.default_rng(0).normal(size=(8, 2))},
        options={"inputs": "mixtures"},
        silent=("blend",),
    ),
    cost="O(restarts iterations m K k n) for K components a member and n inputs; memory O(m K n)",
    exact="a local optimum of the expected transportation divergence, the best of the restarts; it never rises",
    paper=178,
    aliases=("mixture of experts", "mixture reduction", "distributed em", "gaussian mixture regression"),
    python_only=True,
)
def reduce_mixtures(
    members: Sequence[Any],
    *,
    inputs: Any,
    components: int | None = None,
    weights: Any = None,
    restarts: int = 10,
    seed: int | None = None,
) -> Blend:
    """Mixtures of experts fitted on shards, reduced to one of a few components.

    The members' components together are one large mixture, which answers as all of them do but has m times too many
    components, called in any order. The reduced one loses least of the expected transportation divergence: at each
    input every large component's mass goes to the reduced component of the least Kullback-Leibler divergence from it.
    Majorisation-minimisation alternates that plan with the experts that are best for it; the gates are then fitted to
    the mass that each gets.

    Args:
        members: m mappings with "gates" (K, d + 1), "experts" (K, d + 1) and "variances" (K,): log odds of the
            components and their linear means of an input, the intercept first; K may differ.
        inputs: (n, d) rows over which divergences are averaged, a sample of all shards' inputs.
        components: how many the result has; as many as the first member by default.
        weights: (m,) relative weights of the members, such as the sizes of their shards; uniform by default.
        restarts: of how many starts the best is kept.
        seed: draws the starts.

    Returns:
        Blend of form "none". `result` is a mapping like the members, of `components`; `value` the expected
        transportation divergence from the members' mixture; `spread` (m,) each member's own part of it, over its
        weight; `info["history"]` the divergence after each iteration of the best start.

    Raises:
        InputError: members without these parts, of other shapes, NaN, infinities or variances that are not positive,
            inputs of another width, fewer components in all than asked for.

    Cost: k divergences for each component and input an iteration; one multinomial regression at the end.

    Exact: every iteration lowers the divergence; the end is a local optimum. The experts' update is the closed form.

    References:
        Chamroukhi & Pham 2023, Distributed learning of mixtures of experts (arXiv 2312.09877).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import reduce_mixtures
        >>> first = {"gates": [[0, 0], [0, 4]], "experts": [[0, 1], [5, -1]], "variances": [1, 1]}
        >>> other = {name: part[::-1] for name, part in first.items()}  # the same, its components called otherwise
        >>> plan = reduce_mixtures([first, other], inputs=np.linspace(-1, 1, 50)[:, None], seed=0)
        >>> bool(abs(plan.value) < 1e-12), np.sort(plan.result["experts"][:, 1]).round(3).tolist()
        (True, [-1.0, 1.0])
    """
    rows = checks.matrix(inputs, "inputs").astype(np.float64)
    design = np.column_stack([np.ones(len(rows)), rows])
    mixtures = [read_mixture(member, name_of(number), rows.shape[1]) for number, member in enumerate(members)]
    counts = [len(mixture["variances"]) for mixture in mixtures]
    count = counts[0] if components is None else checks.count(components, "components")
    if count > sum(counts):
        raise InputError(f"components={count}: the members have {sum(counts)} in all; ask for at most as many")
    shares = np.ones(len(mixtures)) if weights is None else np.asarray(weights, np.float64)
    if (shares < 0).any() or not shares.any():
        raise InputError(f"weights={shares.tolist()}: give weights >= 0, some of them positive, as of shards' sizes")
    shares = shares / shares.sum()
    large = Large.of(mixtures, shares, design)
    rng = np.random.default_rng(seed)
    fits = [_descended(large, large.start(count, rng)) for _ in range(checks.count(restarts, "restarts"))]
    fit = min(fits, key=lambda fit: fit.history[-1])
    owner = np.repeat(np.arange(len(mixtures)), counts)
    parts = np.bincount(owner, fit.divergences, len(mixtures))
    return Blend(
        n=len(mixtures),
        value=fit.history[-1],
        sense="min",
        status="local",
        result={"gates": _gates(large, fit), "experts": fit.experts, "variances": fit.variances},
        form="none",
        objective="transportation_divergence",
        weights=shares,
        spread=np.divide(parts, shares, out=np.zeros(len(shares)), where=shares > 0),
        info={"history": np.array(fit.history), "components": count},
    )


def read_mixture(member: Any, label: str, width: int) -> dict[str, Floats]:
    """A member's parts, checked.

    Raises:
        InputError: see `reduce_mixtures`.
    """
    if not isinstance(member, Mapping):
        raise InputError(f"{label} is {type(member).__name__}; give a mapping with {', '.join(PARTS)}")
    if odd := sorted(map(str, set(member) ^ set(PARTS))):
        raise InputError(f"{label}: part {odd[0]!r} is missing or unknown; give {', '.join(PARTS)}")
    out: dict[str, Floats] = {}
    for name in PARTS:
        array = checks.as_float(checks.as_array(member[name], f"{label}: {name}"), f"{label}: {name}")
        checks.refuse_nonfinite(array, f"{label}: {name}")
        out[name] = array.astype(np.float64)
    size = out["variances"].size
    for name, shape in (("variances", (size,)), ("gates", (size, width + 1)), ("experts", (size, width + 1))):
        if out[name].shape != shape or not size:
            raise InputError(f"{label}: {name} has shape {out[name].shape}; give {shape}, an intercept first")
    if (out["variances"] <= 0).any():
        row = int(np.flatnonzero(out["variances"] <= 0)[0])
        raise InputError(f"{label}: variances at {row} is {out['variances'][row]:.6g}; give positive numbers")
    return out


def chances_of(gates: Floats, design: Floats) -> Floats:
    """(n, K) the softmax of the gates."""
    odds = design @ gates.T
    raw = np.exp(odds - odds.max(axis=1, keepdims=True))
    out: Floats = raw / raw.sum(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class Large:
    """All members' components: the mass (L, n) and the mean (L, n) of each at each input, and its variance."""

    design: Floats
    experts: Floats
    variances: Floats
    masses: Floats
    means: Floats

    @classmethod
    def of(cls, mixtures: Sequence[Mapping[str, Floats]], shares: Floats, design: Floats) -> Large:
        """The mixture of the members, by their shares."""
        experts = np.concatenate([mixture["experts"] for mixture in mixtures])
        masses = [
            share * chances_of(mixture["gates"], design).T / len(design)
            for share, mixture in zip(shares, mixtures, strict=True)
        ]
        variances = np.concatenate([mixture["variances"] for mixture in mixtures])
        return cls(design, experts, variances, np.concatenate(masses), experts @ design.T)

    def start(self, count: int, rng: np.random.Generator) -> Ints:
        """Components drawn by their mass, each next one by its divergence from the nearest before."""
        weight = self.masses.sum(axis=1)
        chosen = [int(rng.choice(len(weight), p=weight / weight.sum()))]
        while len(chosen) < count:
            far = np.min([self.divergence(self.means[c], self.variances[c]).mean(axis=1) for c in chosen], axis=0)
            far = weight * np.maximum(far, 0.0)
            far[chosen] = 0.0
            if not far.any():  # all are copies of what was chosen
                far[np.setdiff1d(np.arange(len(weight)), chosen)] = 1.0
            chosen.append(int(rng.choice(len(weight), p=far / far.sum())))
        return np.array(chosen)

    def divergence(self, mean: Floats, variance: float) -> Floats:
        """(L, n) the Kullback-Leibler divergence of a Gaussian at each input from each component."""
        own = self.variances[:, None]
        out: Floats = 0.5 * (np.log(variance / own) + (own + np.square(self.means - mean)) / variance - 1)
        return out


@dataclass
class Fit:
    """A reduced mixture without its gates, which of its components each large one goes to at each input, and how."""

    experts: Floats
    variances: Floats
    plan: Ints
    divergences: Floats
    history: list[float]


def _descended(large: Large, start: Ints) -> Fit:
    """Plan and experts in turn, until the divergence falls no more."""
    experts, variances = large.experts[start].copy(), large.variances[start].copy()
    history: list[float] = []
    while True:
        costs = np.stack([large.divergence(large.design @ b, v) for b, v in zip(experts, variances, strict=True)])
        plan = costs.argmin(axis=0)
        divergences = (large.masses * np.maximum(costs.min(axis=0), 0.0)).sum(axis=1)
        history.append(float(divergences.sum()))
        done = len(history) > 1 and history[-2] - history[-1] <= _TOLERANCE * max(history[0], 1e-300)
        if done or len(history) > _ITERATIONS:
            return Fit(experts, variances, plan, divergences, history)
        for component in range(len(experts)):
            mass = np.where(plan == component, large.masses, 0.0)
            total = float(mass.sum())
            if total <= 0:
                continue
            root = np.sqrt(mass.sum(axis=0))
            target = (mass * large.means).sum(axis=0) / np.where(root > 0, root, 1.0)
            expert = np.linalg.lstsq(large.design * root[:, None], target, rcond=None)[0]
            off = np.square(large.means - large.design @ expert)
            experts[component] = expert
            variances[component] = float((mass * (large.variances[:, None] + off)).sum()) / total


def _gates(large: Large, fit: Fit) -> Floats:
    """Gates that give each component the mass it gets at each input, the last of them 0."""
    from scipy.optimize import minimize

    k, width = len(fit.experts), large.design.shape[1]
    targets = np.stack([np.where(fit.plan == component, large.masses, 0.0).sum(axis=0) for component in range(k)], 1)
    targets *= len(large.design)

    def loss(free: Floats) -> tuple[float, Floats]:
        gates = np.zeros((k, width))
        gates[:-1] = free.reshape(k - 1, width)
        chances = chances_of(gates, large.design)
        value = -float((targets * np.log(np.maximum(chances, 1e-300))).sum()) / len(targets)
        slope = (chances - targets).T @ large.design / len(targets) + _PENALTY * gates
        return value + _PENALTY * float(np.square(free).sum()) / 2, slope[:-1].ravel()

    out = np.zeros((k, width))
    if k > 1:
        out[:-1] = minimize(loss, np.zeros((k - 1) * width), jac=True, method="L-BFGS-B").x.reshape(k - 1, width)
    return out
