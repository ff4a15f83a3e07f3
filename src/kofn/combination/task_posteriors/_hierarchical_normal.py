"""Tasks whose parameters come from one normal distribution: its mean and covariance from what each task says.

The paper's prior of mean and covariance is normal-inverse-Wishart, worth at least a task and a guess. With a handful of
tasks such a guess decides the spread, so that by default the population is fitted with hardly any: the most likely mean
and covariance, the latter penalised by its root determinant, which keeps it off zero (Chung et al.). The next task is
then the Student distribution of an inverse-Wishart posterior whose every parameter has one degree of freedom less than
there are tasks, as the t interval of the tasks' means where these are known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._draws import described
from kofn.combination.task_posteriors._episodes import Episodes, guess_of, read_episodes
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
# Tasks that a guess of the spread is worth: one that was given, and how surely tasks know themselves, which only bounds
# the spread of a parameter that a single task tells of.
_GIVEN, _OWN = 1.0, 0.01
# With fewer degrees of freedom the interval of a next task is warned of.
_LEAST_FREEDOM = 3


@method(
    "combine",
    draws=Draw(
        kinds={"members": "draws"},
        options=dict.fromkeys(("scale", "draws"), "hierarchy"),
        silent=("blend",),
        slow=True,
    ),
    cost="O(m d^3) an iteration, of which there are tens to thousands; memory m covariances",
    exact="a local optimum of the penalised likelihood, which never falls; each task's posterior given the population "
    "is exact",
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

    Shards of one data set share their parameters, tasks do not: theta_i ~ N(mu, Sigma). Each task's log likelihood is a
    quadratic, so that its posterior has a closed form given the population; both are fitted in turn, and what each task
    says of itself is shrunk towards what all say. `FewShotPrior` does so with each task looked at once.

    Args:
        members: m arrays (draws, parameters), or (draws,) of one parameter, or mappings parameter -> (draws, ...),
            drawn from each task's posterior under a flat prior, of which Gaussians are fitted; or m `GaussianDensity`;
            or m `QuadraticEpisode` (of fewer rows than parameters too), of `kofn.combination`.
        scale: (d,) a guess of the standard deviations between tasks, worth one task; by default there is none, and the
            spread is that between the tasks.
        draws: of a next task's parameters, to make.
        seed: draws these.

    Returns:
        Blend of form "none". `result` (draws, d), or (draws,) where members are vectors, are draws of the next task's
        parameters, a Student distribution. `weights` (m,) is each task's part in the mean of all, `spread` (m,) the
        distance of its posterior mean from that, in standard deviations between tasks. `info` has
        `population_mean` (d,) and `population_covariance` (d, d); the normal-inverse-Wishart posterior around them by
        its `scale_matrix`, `degrees` and `count`; `freedom`, the Student distribution's degrees of freedom, one less
        than there are tasks where no scale is given; each task's posterior, `member_means` and `member_sds` (m, d) and
        `member_covariances`; the `mean`, `sd` and central 95% interval of each parameter of a next task; `history` of
        the penalised log likelihood; `warnings`, one where tasks are so few that the interval is very wide.

    Raises:
        InputError: draws that `consensus_monte_carlo` refuses, members of several kinds or unlike parameters, a
            parameter that no task tells of, a single task without a scale, a scale that is not positive.

    Cost: m inverses of d x d matrices an iteration.

    Exact: the fit is the fixed point of coordinate ascent, reached by extrapolated steps that never lower its
    objective. Intervals of a next task cover what they say where tasks know themselves well, and more where they
    hardly do.

    References:
        Kim & Hospedales 2023, A hierarchical Bayesian model for deep few-shot meta learning (arXiv 2306.09702);
        Chung, Gelman, Rabe-Hesketh, Liu & Dorie 2015, Weakly informative prior for point estimation of covariance
        matrices in hierarchical models (Journal of Educational and Behavioral Statistics 40).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import GaussianDensity, hierarchical_normal
        >>> rng = np.random.default_rng(0)
        >>> truth = 3 + 2 * rng.normal(size=300)
        >>> schools = [GaussianDensity([value + rng.normal()], [[1.0]]) for value in truth]
        >>> plan = hierarchical_normal(schools, seed=0)
        >>> plan.info["population_mean"].round(1), plan.info["population_covariance"].round(1)
        (array([2.9]), array([[4.3]]))
    """
    episodes = read_episodes(members)
    mean, guess = guess_of(episodes)
    worth = _OWN
    if scale is not None:
        guess, worth = np.diag(_scale(scale, episodes.d) ** 2), _GIVEN
    elif len(episodes.pulls) < 2:
        raise InputError("members: one task does not tell how far tasks lie apart; give two or more, or a scale")
    population, history, settled = fitted(episodes, Population(mean, guess, guess, worth, len(episodes.pulls)))
    means, covariances = population.adapted(episodes.precisions, episodes.pulls)
    count = checks.count(draws, "draws", least=2)
    made = episodes.centre + population.draws(count, np.random.default_rng(seed))
    warnings = list(episodes.warnings)
    if not settled:
        warnings.append(
            f"the fit still moved after {_ITERATIONS:,} iterations: the tasks hardly tell the covariance between them; "
            "give more tasks, or a scale"
        )
    if population.freedom < _LEAST_FREEDOM:
        warnings.append(
            f"{len(means)} tasks hardly tell the spread between them ({population.freedom:.0f} degrees of freedom), so "
            "that the interval of a next task is very wide; give more tasks, or a scale"
        )
    if not (np.isfinite(made).all() and np.isfinite(population.covariance).all()):
        raise InputError("members hold numbers whose squares float64 cannot hold; rescale them")
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
            "population_mean": episodes.centre + population.mean,
            "population_covariance": population.covariance,
            "scale_matrix": population.covariance * population.freedom,
            "degrees": population.freedom + episodes.d - 1,
            "count": float(population.count),
            "freedom": population.freedom,
            "member_means": episodes.centre + means,
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


@dataclass
class Population:
    """The mean (d,), less the tasks' centre, and the covariance (d, d) of all tasks' parameters.

    The covariance is that after a guess worth so many tasks.
    """

    mean: Floats
    covariance: Floats
    guess: Floats
    worth: float
    count: int

    @property
    def freedom(self) -> float:
        """Degrees of freedom of each parameter's spread; the mean takes one."""
        return self.count - 1 + self.worth

    def adapted(self, precisions: Floats, pulls: Floats) -> tuple[Floats, Floats]:
        """The closed form of each task's posterior: means (m, d) and covariances (m, d, d)."""
        prior = np.linalg.inv(self.covariance)
        covariances = np.linalg.inv(precisions + prior)
        return np.einsum("mij,mj->mi", covariances, pulls + prior @ self.mean), covariances

    def gather(self, means: Floats, covariances: Floats) -> None:
        """The best mean and covariance given each task's posterior."""
        self.mean = means.mean(axis=0)
        off = means - self.mean
        scatter = off.T @ off + covariances.sum(axis=0) + self.worth * self.guess
        self.covariance = (scatter + scatter.T) / (2 * self.freedom)

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """(count, d) parameters of a next task: a Student distribution, wider by what is not known of the mean."""
        widened = self.covariance * (1 + 1 / self.count)
        noise = rng.normal(size=(count, len(self.mean))) @ np.linalg.cholesky(widened).T
        out: Floats = self.mean + noise / np.sqrt(rng.chisquare(self.freedom, (count, 1)) / self.freedom)
        return out

    def objective(self, precisions: Floats, pulls: Floats, means: Floats, covariances: Floats) -> float:
        """The penalised log likelihood's bound by these posteriors, once `gather` has taken them; no constants."""
        seconds = covariances + means[:, :, None] * means[:, None, :]
        local = np.einsum("mi,mi->m", pulls, means) - 0.5 * np.einsum("mij,mji->m", precisions, seconds)
        local += 0.5 * np.linalg.slogdet(covariances)[1]
        return float(local.sum()) - self.freedom / 2 * float(np.linalg.slogdet(self.covariance)[1])


def fitted(episodes: Episodes, population: Population) -> tuple[Population, list[float], bool]:
    """The population after coordinate ascent, the objective after each iteration, and whether it settled.

    Plain steps are slow where tasks say little. Two of them tell the rate, by which the mean and the covariance's
    logarithm are extrapolated (SQUAREM, Varadhan & Roland 2008); what lowers the objective is not taken.
    """
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
        kept = (population.mean, population.covariance)
        _unpack(population, first + 2 * length * step + length**2 * bend)
        value = _swept(population, episodes)
        if value >= history[-1]:
            history.append(value)
        else:
            population.mean, population.covariance = kept
    return population, history, False


def _swept(population: Population, episodes: Episodes) -> float:
    """All tasks' posteriors given the population, then the population given these; the objective."""
    means, covariances = population.adapted(episodes.precisions, episodes.pulls)
    population.gather(means, covariances)
    return population.objective(episodes.precisions, episodes.pulls, means, covariances)


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
    population.mean, population.covariance = state[:d] * sizes, covariance


def _parts(episodes: Episodes, covariance: Floats) -> Floats:
    """(m,) the share of each task in the precision-weighted mean of all, on average over the parameters."""
    prior = np.linalg.inv(covariance)
    # Equal to prior - prior (precision + prior)^-1 prior, which would cancel where a task says little beside the prior.
    own = prior @ np.linalg.inv(episodes.precisions + prior) @ episodes.precisions
    total = np.linalg.inv(own.sum(axis=0))
    out: Floats = np.einsum("ij,mji->m", total, own) / episodes.d
    return out
