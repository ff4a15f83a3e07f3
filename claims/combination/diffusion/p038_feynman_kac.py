"""Feynman-Kac correctors against summed scores, alone and with Langevin corrector steps, on densities known on a grid.

Simulated: two mixtures of two Gaussians in the plane, of which the product, a geometric mean and a power are sampled.
Real: mixtures fitted to the first two principal components of even digits and of digits below five; their product.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn import datasets
from kofn.combination import DiffusedMixture, feynman_kac_corrector

Floats = NDArray[np.float64]
TARGETS: dict[str, tuple[float, float]] = {"product": (1.0, 1.0), "geometric": (0.3, 0.7), "annealed": (3.0, 0.0)}
DRAWS, STEPS, SIZES = 1000, 80, (250, 1000, 4000)
# Levels of the Langevin baseline and its steps at each: as many scores in all.
LEVELS, CORRECTIONS, STEP_SIZES = 20, 3, (0.1, 0.3)
DIRECTIONS = 6


@claim(
    paper=38,
    says="Particles weighted by Feynman-Kac correctors follow products, geometric means and powers of diffused "
    "densities, which summed scores miss",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Distances from the density on a grid; broken: no weights, so that particles follow the summed scores alone."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_simulated, broken=broken), derive(seed, runs))
    real = spread(functools.partial(_digits, broken=broken), derive(seed, runs, stream=1))
    kinds = {name: {side: [row[name][side] for row in rows] for side in rows[0][name]} for name in TARGETS}
    kinds["digits"] = {side: [row[side] for row in real] for side in real[0]}
    ratios = {name: float(np.mean(sides["summed"]) / np.mean(sides["corrected"])) for name, sides in kinds.items()}
    gaps = {
        name: {side: difference(sides[side], sides["corrected"]) for side in ("summed", "langevin")}
        for name, sides in kinds.items()
    }
    errors = [[row["sizes"][size] for size in SIZES] for row in rows]
    slope = float(np.polyfit(np.log(SIZES), np.log(np.mean(errors, axis=0)), 1)[0])
    even = min(row["gaussians"] for row in rows)
    criteria = {
        **{f"{name}: half the distance of summed scores or less": ratio >= 2 for name, ratio in ratios.items()},
        **{f"{name}: nearer than summed scores": gap["summed"].above(0) for name, gap in gaps.items()},
        **{
            f"{name}: nearer than with Langevin corrector steps": gap["langevin"].above(0) for name, gap in gaps.items()
        },
        "the distance falls about as the square root of the particles": -0.65 <= slope <= -0.35,
        "Gaussians: weights stay even": even > 0.99,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "sliced Wasserstein distance": {
                name: {side: round(float(np.mean(values)), 4) for side, values in sides.items()}
                for name, sides in kinds.items()
            },
            "summed over corrected": {name: round(ratio, 2) for name, ratio in ratios.items()},
            "others less corrected": {
                name: {side: gap.figures() for side, gap in sides.items()} for name, sides in gaps.items()
            },
            "exponent of the particles": round(slope, 3),
            "least effective share of Gaussians": round(even, 4),
        },
        expected="mean distances of summed scores at least twice the corrected ones, paired lower 95% limits of the "
        "others' distances less theirs above 0; an exponent from -0.65 to -0.35; effective share above 0.99",
        baseline="summed scores, with noise as they are or tempered, the better by the mean distance in hindsight of "
        "each run; summed scores with Langevin steps at every level, the better of two step sizes in hindsight, as "
        "many scores in all",
        kind="measured",
    )


def _distance(draws: Floats, weights: Floats | None, grid: Floats, shares: Floats) -> float:
    """The mean over directions of the one-dimensional Wasserstein distances."""
    from scipy.stats import wasserstein_distance

    total = 0.0
    for angle in np.linspace(0, np.pi, DIRECTIONS, endpoint=False):
        way = np.array([np.cos(angle), np.sin(angle)])
        total += wasserstein_distance(draws @ way, grid @ way, weights, shares)
    return total / DIRECTIONS


def _grid(members: list[DiffusedMixture], powers: Any, size: int = 121) -> tuple[Floats, Floats]:
    """Points of the plane around all components, and the share of the target at each."""
    means = np.concatenate([member.means for member in members])
    reach = 4 * max(float(np.sqrt(member.covariances.reshape(-1, 4).max())) for member in members)
    axes = [np.linspace(means[:, axis].min() - reach, means[:, axis].max() + reach, size) for axis in (0, 1)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    logs = np.sum([power * member.log_density(points) for power, member in zip(powers, members, strict=True)], axis=0)
    raw = np.exp(logs - logs.max())
    shares = raw / raw.sum()
    kept = shares > 1e-9
    return points[kept], shares[kept] / shares[kept].sum()


def _sides(members: list[DiffusedMixture], powers: Any, seed: int, *, broken: bool) -> dict[str, float]:
    """The distance of each way of sampling from the target."""
    truth = _grid(members, powers)
    sample = functools.partial(feynman_kac_corrector, members, powers=powers, draws=DRAWS, steps=STEPS, seed=seed)
    mine = sample(weighted=not broken)
    plain = [sample(weighted=False, noise=noise).result for noise in ("target", "tempered")]
    walked = [_langevin(members, powers, size, seed) for size in STEP_SIZES]
    rng = np.random.default_rng([seed, 1])
    exact = truth[0][rng.choice(len(truth[0]), DRAWS, p=truth[1])]
    return {
        "corrected": _distance(mine.result, mine.info["draw_weights"], *truth),
        "summed": min(_distance(draws, None, *truth) for draws in plain),
        "langevin": min(_distance(draws, None, *truth) for draws in walked),
        "of the grid": _distance(exact, None, *truth),
    }


def _langevin(members: list[DiffusedMixture], powers: Any, size: float, seed: int) -> Floats:
    """Summed scores down the levels, with Langevin steps at each."""
    rng = np.random.default_rng([seed, 2])
    total = float(np.sum(powers))
    levels = np.geomspace(60.0, 0.02, LEVELS + 1)
    centre = np.sum([power * member.mean for power, member in zip(powers, members, strict=True)], axis=0) / total
    x = centre + levels[0] / np.sqrt(total) * rng.normal(size=(DRAWS, 2))

    def summed(x: Floats, sigma: float) -> Floats:
        return np.asarray(
            np.sum([power * member.score(x, sigma) for power, member in zip(powers, members, strict=True)], axis=0)
        )

    for before, after in itertools.pairwise(levels):
        gone = before**2 - after**2
        shrunk = after**2 / before**2
        denoised = x + summed(x, before) * before**2 / total
        x = denoised + shrunk * (x - denoised) + np.sqrt(gone * shrunk / total) * rng.normal(size=x.shape)
        # Steps as wide as the noise that is left, or as the narrowest component.
        width = size * (after**2 + 0.3) / total
        for _ in range(CORRECTIONS):
            x = x + width / 2 * summed(x, after) + np.sqrt(width) * rng.normal(size=x.shape)
    return x


def _pair(rng: np.random.Generator) -> list[DiffusedMixture]:
    """Two mixtures whose components overlap in pairs, with weights and widths that differ."""
    places = np.array([[-2.0, 0.0], [2.0, 0.0]]) + 0.3 * rng.normal(size=(2, 2))
    out = []
    for _ in range(2):
        widths = rng.uniform(0.25, 0.7, (2, 2))
        share = rng.uniform(0.25, 0.75)
        means = places + 0.3 * rng.normal(size=(2, 2))
        out.append(DiffusedMixture(means, np.array([np.diag(width) for width in widths]), [share, 1 - share]))
    return out


def _simulated(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    members = _pair(rng)
    own = seed % 2**31
    out: dict[str, Any] = {name: _sides(members, powers, own, broken=broken) for name, powers in TARGETS.items()}
    truth = _grid(members, TARGETS["product"])
    out["sizes"] = {}
    for size in SIZES:
        plan = feynman_kac_corrector(members, draws=size, steps=STEPS, weighted=not broken, seed=own + 1)
        out["sizes"][size] = _distance(plan.result, plan.info["draw_weights"], *truth)
    single = [DiffusedMixture(member.means[:1], member.covariances[:1]) for member in members]
    out["gaussians"] = float(feynman_kac_corrector(single, draws=200, steps=STEPS, seed=own).info["least_ess"])
    return out


@functools.cache
def _components() -> tuple[Floats, NDArray[np.int64]]:
    from sklearn.decomposition import PCA

    data = datasets.load("digits")
    plane = PCA(2, random_state=0).fit_transform(np.asarray(data.X, np.float64))
    return plane / plane.std(), np.asarray(data.y)


def _digits(seed: int, *, broken: bool) -> dict[str, float]:
    from sklearn.mixture import GaussianMixture

    plane, labels = _components()
    rows = np.random.default_rng(seed).random(len(plane)) < 0.7
    members = []
    for inside in (labels % 2 == 0, labels < 5):
        fit = GaussianMixture(5, random_state=0).fit(plane[rows & inside])
        members.append(DiffusedMixture(fit.means_, fit.covariances_, fit.weights_))
    return _sides(members, (1.0, 1.0), seed % 2**31, broken=broken)
