"""What dynamic ensemble selection chooses among: strategies that weigh members row by row, and blends of all rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kofn.combination.dynamic._regions import STRATEGIES, Neighbours, Scale, Validated
from kofn.combination.ensembles._greedy import Pool, grow
from kofn.combination.ensembles._losses import row_losses
from kofn.combination.ensembles._plan import blend_plan, distances, facts_of
from kofn.combination.ensembles._stackers import Freedom, Rows, applied, fill_gaps, fits_of, freedoms
from kofn.combination.ensembles._stacking import stacked_plan
from kofn.combination.ensembles._task import Task, are_chances
from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.runtime import Control

# How many neighbours are tried, and the additions of the greedy search.
NEIGHBORS, _ROUNDS = (5, 11, 23), 50
_BEST, _GREEDY = "best_single", "ensemble_selection"


@dataclass(frozen=True)
class Candidate:
    """A way to blend: a strategy with its neighbours, a way of stacking, or the name of another static blend."""

    name: str
    n_neighbors: int = 0
    way: Freedom | None = None

    def __str__(self) -> str:
        if self.way is not None:
            return f"{self.name}: {self.way}"
        return f"{self.name}, {self.n_neighbors} neighbors" if self.n_neighbors else self.name


def candidates_of(tried: Tried, strategy: str | None, n_neighbors: int | None) -> list[Candidate]:
    """The candidates, the simplest first, since of equal losses the first counts.

    Raises:
        InputError: META-DES of members that give no probabilities.
    """
    task = tried.task
    chances = all(are_chances(prediction) for prediction in task.predictions)
    if strategy == "meta_des" and not chances:
        raise InputError("strategy='meta_des' reads probabilities, members give scores; take their softmax")
    most = len(tried.counted(np.arange(task.n))) - 1
    counts = sorted({min(count, most) for count in ((n_neighbors,) if n_neighbors else NEIGHBORS)})
    names = [strategy] if strategy is not None else [*STRATEGIES, *(["meta_des"] if chances else [])]
    dynamic = [Candidate(name, count) for name in names for count in counts]
    if strategy is not None:
        return dynamic
    ways = freedoms(tried.rows, None) if chances else []
    return [Candidate(_BEST), *(Candidate("stacking", way=way) for way in ways), Candidate(_GREEDY), *dynamic]


@dataclass(frozen=True)
class Tried:
    """The validation rows that candidates are fitted on and judged by.

    Attributes:
        task: what was predicted.
        X: (n, d) the rows.
        chances: (n, m, c) the predictions, with the mean of the others in place of missing ones.
        standardize: whether columns are brought to one unit.
    """

    task: Task
    X: Floats
    chances: Floats
    standardize: bool

    @classmethod
    def of(cls, task: Task, X: Floats, *, standardize: bool) -> Tried:
        """Those of a task."""
        return cls(task, X, np.stack(fill_gaps(task.predictions, task.known), axis=1), standardize)

    def losses(self, blend: Floats, index: Ints) -> Floats:
        """(rows,) what a blend of some of the rows loses."""
        return row_losses(self.task.loss, blend, self.task.target[index], self.task.levels)

    def counted(self, index: Ints) -> Ints:
        """Those of some rows that weigh anything; all of them where fewer than two do."""
        weights = self.task.row_weights
        heavy = index if weights is None else index[weights[index] > 0]
        return heavy if len(heavy) > 1 else index

    def validated(self, index: Ints) -> tuple[Validated, Scale]:
        """Some of the rows as the validation rows of others, and their scale."""
        scale = Scale.of(self.X[index], standardize=self.standardize)
        truth = self.task.target[index, 0].astype(np.int64)
        return Validated(scale.applied(self.X[index]), self.chances[index], truth), scale

    def blends(self, candidates: Sequence[Candidate], others: Ints, inside: Ints, control: Control) -> Iterator[Floats]:
        """For each candidate, fitted on some rows, its blend (rows, c) of others."""
        ways = [candidate.way for candidate in candidates if candidate.way is not None]
        fits = dict(zip(ways, fits_of(self.rows, others, ways), strict=True)) if ways else {}
        validated, scale = self.validated(self.counted(others))
        most = max((candidate.n_neighbors for candidate in candidates), default=0)
        near = Neighbours(validated, scale.applied(self.X[inside]), self.chances[inside], max(most, 1))
        for candidate in candidates:
            if candidate.way is not None:
                zeros = np.zeros(len(inside), np.int64)
                yield applied(fits[candidate.way], self.rows.values[inside], zeros, by_column=False)
            elif candidate.n_neighbors:
                weights = near.row_weights(candidate.name, candidate.n_neighbors)
                part = self.task.part(inside)
                yield by_row(part.predictions, part.known, weights)
            else:
                yield self.task.blended(self.static_weights(candidate, others, control), inside)

    @cached_property
    def rows(self) -> Rows:
        """The rows as stackers are fitted on them: by the log loss where hits, which have no slopes, are counted."""
        loss = "log_loss" if self.task.loss == "accuracy" else self.task.loss
        task = dataclasses.replace(self.task, loss=loss)
        return Rows(task, np.zeros(task.n, np.int64), by_column=False)

    def static_weights(self, candidate: Candidate, index: Ints, control: Control) -> Floats:
        """(m,) those of the best member, or of the greedy search, on some of the rows."""
        task = self.task.part(index)
        if candidate.name == _BEST:
            alone = [float(task.mean(task.row_losses(task.single(member)))) for member in range(task.m)]
            return task.single(int(np.argmin(alone)))
        search = Pool(task, np.arange(task.n), [0, task.n]).search()
        added = grow(search, np.arange(task.m), _ROUNDS, task.m, control).best()
        return np.bincount(added, minlength=task.m) / len(added)


def by_row(predictions: Sequence[Array], known: Mask | None, weights: Floats) -> Floats:
    """(n, c) the members' mean under weights (n, m) of each row, over those that have a prediction of it; the plain one
    where none of these has a weight."""
    there = np.ones(weights.T.shape, bool) if known is None else known
    shares = np.where(there.T, weights, 0.0)
    silent = shares.sum(axis=1) == 0
    shares[silent] = there.T[silent]
    shares /= shares.sum(axis=1, keepdims=True)
    total = np.zeros(predictions[0].shape)
    for member, prediction in enumerate(predictions):
        total += shares[:, member, None] * np.where(there[member][:, None], prediction, 0.0)
    return total


def chosen_plan(tried: Tried, chosen: Candidate, status: str, info: Mapping[str, Any], control: Control) -> Blend:
    """The plan of a candidate fitted on all rows."""
    task, everything = tried.task, np.arange(tried.task.n)
    info = {"strategy": chosen.name, "n_neighbors": chosen.n_neighbors or None, **info}
    if chosen.way is not None:
        ways = freedoms(tried.rows, None)
        fit = fits_of(tried.rows, everything, ways[: ways.index(chosen.way) + 1], settle=True)[-1]
        return stacked_plan(task, tried.rows, fit, np.array(["all"]), status, info)
    if not chosen.n_neighbors:
        weights = tried.static_weights(chosen, everything, control)
        return blend_plan(task, weights, bound=None, status=status, info=info)
    counted = tried.counted(everything)
    validated, scale = tried.validated(counted)
    own = np.where(np.isin(everything, counted), np.searchsorted(counted, everything), -1)
    near = Neighbours(validated, scale.applied(tried.X), tried.chances, chosen.n_neighbors, own)
    weights = near.row_weights(chosen.name, chosen.n_neighbors)
    blend = by_row(task.predictions, task.known, weights)
    mean = weights.mean(axis=0)
    return Blend(
        n=task.m,
        value=task.loss_of(float(task.mean(tried.losses(blend, everything)))),
        sense="max" if task.loss == "accuracy" else "min",
        status=status,
        result=task.like_the_members(blend),
        form="simplex",
        weights=mean / mean.sum(),
        spread=distances(task, blend),
        objective=task.loss,
        info={
            **facts_of(task),
            "sum_of": "predictions, row by row",
            "row_weights": weights,
            "validated": {**dataclasses.asdict(validated), **dataclasses.asdict(scale)},
            **info,
        },
    )


def blended_by_region(plan: Blend, predictions: Sequence[Array], known: Mask | None, X: Floats) -> Floats:
    """The blend of other rows by the plan of a strategy."""
    kept = {name: np.asarray(array) for name, array in plan.info["validated"].items()}
    scale = Scale(kept["center"], kept["size"])
    validated = Validated(kept["X"], kept["chances"], kept["truth"].astype(np.int64))
    count = int(plan.info["n_neighbors"])
    chances = np.stack(fill_gaps(predictions, known), axis=1)
    near = Neighbours(validated, scale.applied(X), chances, count)
    return by_row(predictions, known, near.row_weights(str(plan.info["strategy"]), count))
