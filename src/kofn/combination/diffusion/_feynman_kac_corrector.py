"""Feynman-Kac correctors: draws of products and powers of diffused densities, by weighted particles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kofn.combination.diffusion._diffused import Diffused, read_diffused
from kofn.combination.diffusion._flow import Flow, refuse_improper
from kofn.combination.posteriors._draws import described
from kofn.combination.posteriors._sizes import kish, normalised, systematic
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import FailureError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress

# The noise in the beginning and in the end, in the largest and the smallest standard deviation of a density.
_MOST_NOISE, _LEAST_NOISE = 20.0, 0.02
# The effective share of the particles below which they are resampled.
_RESAMPLED = 0.5
# A warning names products whose draws descend from fewer particles.
_FEW = 100


@method(
    "combine",
    draws=Draw(
        kinds={"members": "diffused densities"},
        plain={"draws": 40, "steps": 20},
        options=dict.fromkeys(("powers", "draws", "steps", "noise"), "diffusion"),
        silent=("blend",),
    ),
    cost="O(steps) scores of all members at all particles",
    exact="asymptotically: the weights make particles follow the product through all levels of noise, as draws and "
    "steps grow",
    paper=38,
    aliases=(
        "diffusion model",
        "score-based generative model",
        "product of experts",
        "annealing",
        "classifier-free guidance",
        "geometric mean of densities",
        "sequential monte carlo",
    ),
    python_only=True,
)
def feynman_kac_corrector(
    members: Sequence[Any],
    *,
    powers: Any = None,
    draws: int = 1000,
    steps: int = 200,
    noise: Literal["target", "tempered"] = "target",
    weighted: bool = True,
    sigma_max: float | None = None,
    sigma_min: float | None = None,
    seed: int | None = None,
    progress: Progress = None,
) -> Blend:
    """Feynman-Kac correctors: draws of the product of diffusion models' densities to given powers.

    Particles run backwards through ever less noise under the sum of the members' scores, each times its power. That
    alone does not follow prod q_i^powers[i], for noise and products do not commute. What is missing is a weight: its
    logarithm grows by (|sum_i p_i s_i|^2 - sum_i p_i |s_i|^2) / 2 for each unit of variance that is taken away, which
    takes no derivative of a score. A linear drift by the members' means and covariances takes from the weights what
    noise alone would do to them: of Gaussians they stay even. Particles are resampled where few carry the weight
    (sequential Monte Carlo).

    Args:
        members: m densities under noise, of the same d parameters: `DiffusedScore` of a diffusion model, or
            `DiffusedMixture`, also of draws (`DiffusedMixture.of_draws`), of `kofn.combination`.
        powers: (m,) the power of each density, of a positive sum; 1 each by default, their product. Shares (0.3, 0.7)
            make a geometric mean, one member's power above 1 anneals it, and (-1, 2) is guidance away from the first. A
            negative power is of a density with tails as heavy as the others': of a `DiffusedScore` nothing tells.
        draws: how many particles.
        steps: how many levels of noise, evenly on a logarithmic scale.
        noise: "target" moves particles by the whole score and unit noise; "tempered" scales the noise by one over the
            square root of the powers' sum, and the score to match. The weights are the same.
        weighted: False leaves the weights out, the usual heuristic of summed scores, to compare with.
        sigma_max: the standard deviation of the noise in the beginning; 20 times the largest of a density by default.
        sigma_min: that in the end, which the result still holds; 0.02 times the smallest by default.
        seed: draws everything.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        Blend of form "none". `result` (draws, d) is a weighted sample: `info["draw_weights"]` sum to one, and
        `info["ess"]` is what they are worth. `weights` (m,) are the powers, `spread` (m,) the distance of the result's
        mean from each member's, in the member's standard deviations. `info` has the `mean`, `sd` and central 95%
        interval, `low` to `high`, of each parameter; `log_normaliser`, an estimate of the logarithm of the integral of
        the product of powers; `resampled`, how often; `ancestors`, the share of first particles from which these
        descend, counted as effective; `least_ess`, the smallest share that was effective at any level; `warnings`.

    Raises:
        InputError: something else than diffused densities, unlike numbers of parameters, powers whose sum is not
            positive, or whose product has no integral where all members are `DiffusedMixture`, noise that does not
            fall, scores of another shape or that are NaN.
        FailureError: scores so large that no particle keeps a weight.

    Cost: all members' scores at all particles, once a step.

    Exact: in the limit of many steps and draws, for exact scores. With few of them, modes that need large weights are
    found by few particles: `ancestors` says how few. High powers of densities with modes far apart need thousands.

    References:
        Skreta, Akhound-Sadegh, Ohanesian, Bondesan, Aspuru-Guzik, Doucet, Brekelmans, Tong & Neklyudov 2025,
        Feynman-Kac correctors in diffusion: annealing, guidance, and product of experts (ICML).

    Examples:
        >>> from kofn.combination import DiffusedMixture, feynman_kac_corrector
        >>> wide, narrow = DiffusedMixture([[0.0]], [[4.0]]), DiffusedMixture([[1.0]], [[1.0]])
        >>> plan = feynman_kac_corrector([wide, narrow], draws=4000, seed=0)
        >>> plan.info["mean"].round(1), plan.info["sd"].round(1), round(plan.info["log_normaliser"], 1)
        (array([0.8]), array([0.9]), -1.8)
    """
    densities = read_diffused(members)
    exponents = _powers(powers, len(densities))
    count = checks.count(draws, "draws", least=2)
    levels = _levels(densities, checks.count(steps, "steps", least=2), sigma_max, sigma_min)
    refuse_improper(densities, exponents, float(levels[-1]))
    tempering = 1.0 if noise == "target" else 1 / exponents.sum()
    flow = Flow(densities, exponents, float(tempering), guided=weighted)
    rng = np.random.default_rng(seed)
    x, constant = flow.begun(levels[0], count, rng)
    logs, run = np.zeros(count), Run(np.arange(count), constant if weighted else math.nan)
    with Control(title="feynman_kac_corrector", total=len(levels), progress=progress) as control:
        field = flow.field(x, levels[0])
        for before, after in itertools.pairwise(levels):
            x = field.moved(x, before, after, flow.tempering, rng)
            last, field = field, flow.field(x, after)
            if weighted:
                # The rates are about even in the logarithm of the variance, in which the levels are.
                logs = logs + math.log(before / after) * (before**2 * last.rate + after**2 * field.rate)
                run.note(logs)
                if kish(logs) < _RESAMPLED:
                    rows = run.resampled(logs, rng)
                    x, logs, field = x[rows], np.zeros(count), field.of(rows)
            control.step(before)
    return _plan(densities, exponents, x, logs, run, {"sigma_max": levels[0], "sigma_min": levels[-1]})


@dataclass
class Run:
    """What became of the particles: from which they descend, and the log of the product's integral so far."""

    ancestors: Ints
    log_normaliser: float
    least: float = 1.0
    count: int = 0

    def note(self, logs: Floats) -> None:
        """Refuse weights of which none is left."""
        if not np.isfinite(logs.max()):
            raise FailureError("no particle keeps a weight: the scores are too large; take more steps, or lower powers")
        self.least = min(self.least, kish(logs))

    def resampled(self, logs: Floats, rng: np.random.Generator) -> Ints:
        """Which particles go on, drawn by their weights."""
        rows = systematic(normalised(logs), len(logs), rng)
        self.log_normaliser += _log_mean(logs)
        self.ancestors = self.ancestors[rows]
        self.count += 1
        return rows


def _powers(powers: Any, m: int) -> Floats:
    if powers is None:
        return np.ones(m)
    exponents = checks.vector(powers, "powers").astype(np.float64)
    checks.same_length(m, "members", "powers", len(exponents))
    if not exponents.sum() > 0:
        raise InputError(f"powers={exponents.tolist()} sum to {exponents.sum():.6g}; give powers of a positive sum")
    return exponents


def _levels(densities: Sequence[Diffused], steps: int, most: float | None, least: float | None) -> Floats:
    """(steps + 1,) the standard deviations of the noise, falling."""
    means = np.array([density.mean for density in densities])
    apart = float(np.square(means - means.mean(axis=0)).sum(axis=1).max())
    values = np.array([np.linalg.eigvalsh(density.covariance) for density in densities])
    largest, smallest = math.sqrt(values.max() + apart), math.sqrt(values.min())
    high = _MOST_NOISE * largest if most is None else checks.number(most, "sigma_max")
    low = _LEAST_NOISE * smallest if least is None else checks.number(least, "sigma_min")
    if not low > 0:
        raise InputError(f"sigma_min={low:.6g}: give a positive standard deviation")
    if not high > low:
        raise InputError(f"sigma_max={high:.6g} is not above sigma_min={low:.6g}; the noise must fall")
    return np.geomspace(high, low, steps + 1)


def _log_mean(logs: Floats) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def _plan(
    densities: Sequence[Diffused], powers: Floats, x: Floats, logs: Floats, run: Run, noise: dict[str, float]
) -> Blend:
    weights = normalised(logs)
    facts = described(x, weights)
    spread = [
        math.sqrt(float(off @ np.linalg.solve(density.covariance, off)) / density.d)
        for density, off in ((density, facts["mean"] - density.mean) for density in densities)
    ]
    families = float(1 / np.square(np.bincount(run.ancestors, weights, len(x))).sum())
    warnings = []
    if families < min(_FEW, len(x) / 2):
        warnings.append(
            f"the draws descend from {families:.3g} of {len(x):,} particles, so that modes may be missing or weighted "
            "by chance; give more draws, or densities that overlap more"
        )
    return Blend(
        n=len(densities),
        value=math.nan,
        status="heuristic",
        result=x,
        form="none",
        objective="diffused_product",
        weights=powers,
        spread=np.array(spread),
        info={
            **facts,
            **noise,
            "draw_weights": weights,
            "ess": kish(logs) * len(x),
            "least_ess": run.least,
            "ancestors": families / len(x),
            "resampled": run.count,
            "log_normaliser": run.log_normaliser + _log_mean(logs),
            "warnings": warnings,
        },
    )
