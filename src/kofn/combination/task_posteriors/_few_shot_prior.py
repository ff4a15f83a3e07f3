"""The prior of few-shot tasks, learnt from a stream of tasks each of which is looked at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kofn.combination.task_posteriors._episodes import QuadraticEpisode, read_episodes
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.stepper import Event, Example, Stepper, stepper

# The t-th batch moves the running means by (t + _LATE) ** -_RATE: less than one over t, so that what early tasks said
# under a poor prior is forgotten; the answer is the average of these means, late ones counting more (Polyak).
_RATE, _LATE = 0.6, 2.0
# Degrees of freedom beyond the parameters of the covariance's prior: as few as give it a mean.
_BEYOND = 2.0


@dataclass
class Population:
    """A normal-inverse-Wishart distribution of the mean and the covariance of all tasks' parameters.

    Sigma ~ IW(scale, degrees) and mu ~ N(mean, Sigma / count), after a flat prior of mu and one of Sigma with the mean
    `guess`, worth one task.
    """

    guess: Floats
    mean: Floats
    scale: Floats
    degrees: float
    count: float

    @classmethod
    def around(cls, mean: Floats, guess: Floats) -> Population:
        """Before any task: its mean, and the prior's mean of the covariance."""
        degrees = len(mean) + 1 + _BEYOND
        return cls(guess, mean, guess * degrees, degrees, 0.0)

    @property
    def covariance(self) -> Floats:
        """(d, d) the mean of Sigma."""
        return self.scale / (self.degrees - len(self.mean) - 1)

    def adapted(self, precisions: Floats, pulls: Floats) -> tuple[Floats, Floats]:
        """The closed form of each task's posterior: means (m, d) and covariances (m, d, d)."""
        prior = self.degrees * np.linalg.inv(self.scale)
        covariances = np.linalg.inv(precisions + prior)
        return np.einsum("mij,mj->mi", covariances, pulls + prior @ self.mean), covariances

    def gather(self, count: float, first: Floats, second: Floats) -> None:
        """Take so many tasks' expected parameters, and the expected outer products of these, both per task."""
        d = len(self.mean)
        start = d + 1 + _BEYOND
        scatter = second - np.outer(first, first)
        self.mean, self.count, self.degrees = first, count, start + count
        self.scale = self.guess * (start - d - 1) + count * (scatter + scatter.T) / 2


def _example(rng: np.random.Generator) -> Example:
    d = int(rng.integers(1, 4))

    def event(_prior: FewShotPrior, rng: np.random.Generator) -> Event:
        tasks = []
        for _ in range(int(rng.integers(1, 4))):
            rows = rng.integers(-2, 3, (int(rng.integers(1, 5)), d)).astype(np.float64)
            tasks.append(QuadraticEpisode.of_regression(rows, rows.sum(axis=1) + rng.normal(size=len(rows))))
        return Event("tell", (tasks,))

    wide = QuadraticEpisode(np.eye(d + 1), np.ones(d + 1))
    return Example(
        lambda _seed: FewShotPrior(d, mean=np.zeros(d), scale=np.ones(d)),
        event=event,
        events=6,
        refused=(
            (Event("tell", ([wide],)), f"tasks have {d + 1} parameters, this prior {d}"),
            (Event("tell", ([np.ones(d)],)), "member 0"),
        ),
    )


@stepper(
    "combine",
    paper=108,
    cost="O(d^3) a task; memory two matrices of (d, d), however many tasks there were",
    exact="each task's posterior given the prior is exact; the prior approaches that of all tasks together",
    events=("tell",),
    aliases=("few-shot meta-learning", "hierarchical bayes", "normal-inverse-wishart", "NIW-Meta"),
    draws=_example,
)
class FewShotPrior(Stepper[Blend]):
    """The prior of few-shot tasks, learnt from a stream of tasks each of which is looked at once.

    The population of tasks is theta ~ N(mu, Sigma), and (mu, Sigma) have a normal-inverse-Wishart distribution. A batch
    of tasks gets its posteriors in closed form from the prior as it stands (`adapt`); their expected parameters and
    outer products move running means, from which the prior follows. No task is kept, and nothing is differentiated
    through the tasks' own fits. `hierarchical_normal` fits all tasks together.

    Args:
        d: how many parameters a task has.
        mean: (d,) where the population is guessed to be; 0 by default. Parameters are counted from there: give it where
            they are large beside the differences between tasks.
        scale: (d,) the guess of its standard deviations, worth one task; 1 each by default.

    Attributes:
        tasks: tasks so far.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> prior = FewShotPrior(2)
        >>> for _ in range(300):
        ...     X, truth = rng.normal(size=(5, 2)), np.array([3.0, -1.0]) + 0.5 * rng.normal(size=2)
        ...     plan = prior.tell([QuadraticEpisode.of_regression(X, X @ truth + rng.normal(size=5))])
        >>> prior.tasks, plan.result["mean"].round(1), np.diag(plan.result["covariance"]).round(1)
        (300, array([ 3.1, -1. ]), array([0.3, 0.3]))
        >>> mean, covariance = prior.adapt(QuadraticEpisode.of_regression([[1.0, 0.0]], [4.0]))
        >>> mean.round(1)
        array([ 3.3, -1. ])

    References:
        Kim & Hospedales 2023, A hierarchical Bayesian model for deep few-shot meta learning (arXiv 2306.09702);
        Cappe & Moulines 2009, Online EM algorithm for latent data models (JRSS B 71), of the running means.
    """

    state: ClassVar = {
        "tasks": "",
        "batches": "",
        "first": "d",
        "second": "d d",
        "first_average": "d",
        "second_average": "d d",
    }
    states_no_value = True

    def __init__(self, d: int, *, mean: Any = None, scale: Any = None) -> None:
        self.d = checks.count(d, "d")
        middle = np.zeros(self.d) if mean is None else checks.vector(mean, "mean").astype(np.float64)
        sizes = np.ones(self.d) if scale is None else checks.vector(scale, "scale").astype(np.float64)
        for name, values in (("mean", middle), ("scale", sizes)):
            if values.shape != (self.d,):
                raise InputError(f"{name} has shape {values.shape}; give ({self.d},), one number a parameter")
        if (sizes <= 0).any():
            column = int(np.flatnonzero(sizes <= 0)[0])
            raise InputError(f"scale at {column} is {sizes[column]:.6g}; give positive standard deviations")
        super().__init__(d=self.d, mean=tuple(middle.tolist()), scale=tuple(sizes.tolist()))
        self._start, self._guess = middle, np.diag(sizes**2)
        self.tasks = self._batches = 0
        # Moments about `mean`: squares of large parameters would leave nothing of the differences between tasks.
        self._first, self._second = np.zeros(self.d), np.zeros((self.d, self.d))
        self._first_average, self._second_average = np.zeros(self.d), np.zeros((self.d, self.d))

    def tell(self, members: Sequence[Any]) -> Blend:
        """A batch of tasks: `QuadraticEpisode`s, `GaussianDensity`s or draws, as `hierarchical_normal` takes them.

        Returns:
            The plan with these tasks in it, also in `plan`.

        Raises:
            InputError: what `hierarchical_normal` refuses, tasks of another number of parameters; the state is then
                unchanged.
        """
        episodes = read_episodes(checks.members(members), self._start)
        if episodes.d != self.d:
            raise InputError(f"tasks have {episodes.d} parameters, this prior {self.d}; give tasks of the same")
        means, covariances = self._population().adapted(episodes.precisions, episodes.pulls)
        first = means.mean(axis=0)
        second = (covariances + means[:, :, None] * means[:, None, :]).mean(axis=0)
        rate = (self._batches + _LATE) ** -_RATE if self._batches else 1.0
        self._first = self._first + rate * (first - self._first)
        self._second = self._second + rate * (second - self._second)
        self._batches += 1
        late = 2 / (self._batches + 1)
        self._first_average = self._first_average + late * (self._first - self._first_average)
        self._second_average = self._second_average + late * (self._second - self._second_average)
        self.tasks += len(means)
        return self._plan()

    def adapt(self, member: Any) -> tuple[Floats, Floats]:
        """The posterior of a task under the prior as it stands, in closed form; nothing is learnt.

        Args:
            member: a `QuadraticEpisode`, a `GaussianDensity` or draws.

        Returns:
            Mean (d,) and covariance (d, d).

        Raises:
            InputError: another number of parameters, what `hierarchical_normal` refuses.
        """
        episodes = read_episodes([member], self._start)
        if episodes.d != self.d:
            raise InputError(f"the task has {episodes.d} parameters, this prior {self.d}; give a task of the same")
        means, covariances = self._population(averaged=True).adapted(episodes.precisions, episodes.pulls)
        return self._start + means[0], covariances[0]

    def _population(self, *, averaged: bool = False) -> Population:
        population = Population.around(np.zeros(self.d), self._guess)
        if self.tasks:
            first, second = (self._first_average, self._second_average) if averaged else (self._first, self._second)
            population.gather(float(self.tasks), first, second)
        return population

    def _plan(self) -> Blend:
        """The population as it is known: `result` has its "mean" and "covariance".

        Raises:
            InputError: no task has been told yet.
        """
        if not self.tasks:
            raise InputError("plan: no task yet; tell some first")
        population = self._population(averaged=True)
        return Blend(
            n=self.tasks,
            value=math.nan,
            status="heuristic",
            result={"mean": self._start + population.mean, "covariance": population.covariance},
            form="none",
            objective="population",
            info={
                "scale_matrix": population.scale,
                "degrees": population.degrees,
                "count": population.count,
            },
        )
