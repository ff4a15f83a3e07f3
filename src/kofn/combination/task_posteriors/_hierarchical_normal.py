"""Tasks whose parameters come from one normal distribution: its mean and covariance from what each task says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination.posteriors._draws import described
from kofn.combination.task_posteriors._episodes import Episodes, Population, guess_of, read_episodes
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

# How many draws are made where none are asked for.
_DRAWS = 1000
# The fit ends where no mean and no logarithm of a variance moves by more, or is warned of.
_TOLERANCE, _ITERATIONS = 1e-7, 5000
# A step of the extrapolation may multiply an ordinary one by so much.
_LONGEST = 64.0


@method(
    "combine",
    draws=Draw(
        kinds={"members": "draws"},
        options=dict.fromkeys(("scale", "draws"), "hierarchy"),
        silent=("blend",),
    ),
    cost="O(m d^3) an iteration, of which there are tens to thousands; memory m covariances",
    exact="a local optimum of the variational bound, which never falls; each task's posterior given the population is "
    "exact",
    paper=108,
    aliases=(
        "hierarchical bayes",
        "few-shot meta-learning",
        "random effects",
        "meta-analysis",
        "partial pooling",
        "shrinkage",
        "normal-inverse-wishart",
    ),
)
def hierarchical_normal(
    members: Sequence[Any], *, scale: Any = None, draws: int = _DRAWS, seed: int | None = None
) -> Blend:
    """Tasks whose parameters come from one normal distribution: the prior of the next task, from what each says.

    Shards of one data set share their parameters, tasks do not: theta_i ~ N(mu, Sigma), and (mu, Sigma) are
    normal-inverse-Wishart. Each task's log likelihood is a quadratic, so that its posterior has a closed form given the
    population's; both are fitted in turn, and what each task says of itself is shrunk towards what all say.
    `FewShotPrior` does the same with each task looked at once.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...),
            drawn from each task's posterior under a flat prior, of which Gaussians are fitted; or m `GaussianDensity`;
            or m `QuadraticEpisode` (of fewer rows than parameters too), of `kofn.combination`.
        scale: (d,) a guess of the standard deviations between tasks, worth one task; by default how surely a typical
            task alone knows each parameter.
        draws: of a next task's parameters, to make.
        seed: draws these.

    Returns:
        Blend of form "none". `result` (draws, d), or (draws,) where members are vectors, are draws of the next task's
        parameters, a Student distribution. `weights` (m,) is each task's part in the mean of all, `spread` (m,) the
        distance of its posterior mean from that, in standard deviations between tasks. `info` has the normal-inverse-
        Wishart posterior, `population_mean` (d,), `population_covariance` (d, d) its mean, `scale_matrix`, `degrees`
        and `count`; each task's posterior, `member_means` and `member_sds` (m, d) and `member_covariances`; the `mean`,
        `sd` and central 95% interval of each parameter of a next task; `history` of the bound; `warnings`.

    Raises:
        InputError: draws that `consensus_monte_carlo` refuses, members of several kinds or unlike parameters, a
            parameter that no task tells of, a scale that is not positive.

    Cost: m inverses of d x d matrices an iteration.

    Exact: the fit is the fixed point of coordinate ascent, reached by extrapolated steps that never lower the bound.
    Means between many tasks are consistent; with few tasks the covariance leans towards the guess.

    References:
        Kim & Hospedales 2023, A hierarchical Bayesian model for deep few-shot meta learning (arXiv 2306.09702).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import GaussianDensity, hierarchical_normal
        >>> rng = np.random.default_rng(0)
        >>> truth = 3 + 2 * rng.normal(size=300)
        >>> schools = [GaussianDensity([value + rng.normal()], [[1.0]]) for value in truth]
        >>> plan = hierarchical_normal(schools, seed=0)
        >>> plan.info["population_mean"].round(1), plan.info["population_covariance"].round(1)
        (array([2.9]), array([[4.2]]))
    """
    episodes = read_episodes(members)
    mean, guess = guess_of(episodes)
    if scale is not None:
        guess = np.diag(_scale(scale, episodes.d) ** 2)
    population, history, settled = fitted(episodes, mean, guess)
    means, covariances = population.adapted(episodes.precisions, episodes.pulls)
    made = population.draws(checks.count(draws, "draws", least=2), np.random.default_rng(seed))
    warnings = list(episodes.warnings)
    if not settled:
        warnings.append(
            f"the fit still moved after {_ITERATIONS:,} iterations: the tasks hardly tell the covariance between them; "
            "give more tasks, or a scale"
        )
    off = means - population.mean
    return Blend(
        n=len(means),
        value=math.nan,
        status="local",
        result=made[:, 0] if episodes.flat else made,
        form="none",
        objective="draws_of_a_population",
        weights=_parts(episodes, population.covariance),
        spread=np.sqrt(np.einsum("mi,mi->m", off, np.linalg.solve(population.covariance, off.T).T) / episodes.d),
        info={
            "parameters": list(episodes.parameters),
            **episodes.facts,
            **described(made),
            "ess": float(len(made)),
            "population_mean": population.mean,
            "population_covariance": population.covariance,
            "scale_matrix": population.scale,
            "degrees": population.degrees,
            "count": population.count,
            "member_means": means,
            "member_covariances": covariances,
            "member_sds": np.sqrt(np.diagonal(covariances, axis1=1, axis2=2)),
            "history": np.array(history),
            "warnings": warnings,
        },
    )


def _scale(scale: Any, d: int) -> Floats:
    sizes = checks.vector(scale, "scale").astype(np.float64)
    if sizes.shape != (d,):
        raise InputError(f"scale has shape {sizes.shape}; give ({d},), one standard deviation a parameter")
    if (sizes <= 0).any():
        column = int(np.flatnonzero(sizes <= 0)[0])
        raise InputError(f"scale at {column} is {sizes[column]:.6g}; give positive standard deviations")
    return sizes


def fitted(episodes: Episodes, mean: Floats, guess: Floats) -> tuple[Population, list[float], bool]:
    """The population after coordinate ascent from this mean, the bound after each iteration, and whether it settled.

    Plain steps are slow where tasks say little. Two of them tell the rate, by which the mean and the covariance's
    logarithm are extrapolated (SQUAREM, Varadhan & Roland 2008); what lowers the bound is not taken.
    """
    population = Population.around(mean, guess)
    history = [_swept(population, episodes)]
    while len(history) < _ITERATIONS:
        states = [_packed(population)]
        for _ in range(2):
            history.append(_swept(population, episodes))
            states.append(_packed(population))
        first, step = states[0], states[1] - states[0]
        bend = states[2] - states[1] - step
        if np.abs(states[2] - states[1]).max() <= _TOLERANCE:
            return population, history, True
        length = min(_LONGEST, math.sqrt(float(step @ step) / max(float(bend @ bend), 1e-300)))
        if length <= 1:
            continue
        kept = (population.mean, population.scale)
        _unpack(population, first + 2 * length * step + length**2 * bend)
        value = _swept(population, episodes)
        if value >= history[-1]:
            history.append(value)
        else:
            population.mean, population.scale = kept
    return population, history, False


def _swept(population: Population, episodes: Episodes) -> float:
    """All tasks' posteriors given the population, then the population given these; the bound."""
    means, covariances = population.adapted(episodes.precisions, episodes.pulls)
    seconds = covariances + means[:, :, None] * means[:, None, :]
    population.gather(float(len(means)), means.mean(axis=0), seconds.mean(axis=0))
    return population.evidence(episodes.precisions, episodes.pulls, means, covariances)


def _packed(population: Population) -> Floats:
    """The mean in standard deviations of the guess, and the logarithm of the covariance in its units."""
    sizes = np.sqrt(np.diag(population.guess))
    values, basis = np.linalg.eigh(population.covariance / np.outer(sizes, sizes))
    return np.concatenate([population.mean / sizes, ((basis * np.log(values)) @ basis.T).ravel()])


def _unpack(population: Population, state: Floats) -> None:
    d = len(population.mean)
    sizes = np.sqrt(np.diag(population.guess))
    values, basis = np.linalg.eigh(state[d:].reshape(d, d))
    covariance = (basis * np.exp(np.clip(values, -700, 700))) @ basis.T * np.outer(sizes, sizes)
    population.mean, population.scale = state[:d] * sizes, covariance * (population.degrees - d - 1)


def _parts(episodes: Episodes, covariance: Floats) -> Floats:
    """(m,) the share of each task in the precision-weighted mean of all, on average over the parameters."""
    prior = np.linalg.inv(covariance)
    own = prior - prior @ np.linalg.inv(episodes.precisions + prior) @ prior
    total = np.linalg.inv(own.sum(axis=0))
    out: Floats = np.einsum("ij,mji->m", total, own) / episodes.d
    return out
