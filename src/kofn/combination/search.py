"""Which members to average and how much of each, found by rating blends: every rating counted, kept and never repeated.

Averaging all members alike is `weighted_mean`. So is fusing fine-tuned models into a better start for further training
(Choshen, Venezian, Slonim & Katz 2022): their mean, used as the next base.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.combination._blockwise import Rule, Sweep
from kofn.combination._members import Pool
from kofn.combination._merge import Files, blend_in_memory, check_out, job_digest, merge, relative_weights
from kofn.combination._record import Record, rated
from kofn.combination.averaging import Mean
from kofn.combination.task_vectors import sum_of_task_vectors
from kofn.engines.control import Control
from kofn.io.tensors import LazyArrays
from kofn.optim import CMAES
from kofn.plans import Blend, Selection
from kofn.registry import method

Floats = NDArray[np.float64]


@method(
    "combine",
    cost="2m - 1 calls of score (m if scores are given); a blend of k members to rate is one pass over their numbers",
    exact="never rated below the best member alone; the blend returned is, bit for bit, the one that was rated",
    paper="Wortsman et al. 2022, Model soups (ICML); Ramé et al. 2022, Diverse weight averaging (NeurIPS)",
)
def greedy_soup(
    members: Sequence[Any],
    *,
    score: Callable[[Any], float],
    scores: Any = None,
    budget: int | None = None,
    record: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
) -> Blend:
    """Average the members that help: in the order of what each is worth alone, one is kept if the mean is no worse.

    Args:
        members: m arrays, mappings name -> array, or checkpoints (paths), fine-tuned from one start.
        score: rates a blend: `score(blend) -> float` on held-out rows, higher is better; -inf for a blend that fails.
            It is given what `result` will be: an array for arrays, a dict of NumPy arrays for mappings, a lazy mapping
            name -> array for checkpoints, blended as it is read.
        scores: (m,) what each member is worth alone, if that is known: they set the order, and only the best member is
            rated alone again.
        budget: how many blends may be rated, single members included; by default as many as it takes, 2m - 1 (m with
            `scores`). With fewer, the members that were not tried are left out.
        record: a file to keep every rating in. The same search started again goes on after the last one; with a larger
            budget, too. A file of another search (other members, scores, patterns) is refused. The record cannot know
            whether `score` is the same.
        time_limit: seconds; no rating starts after them. Ctrl-C ends the search the same way.
        out, only, skip, measure, skip_nonfinite, max_memory, progress: as `weighted_mean` has them.

    Returns:
        Blend, which `weighted_mean` of the picked members gives bit for bit. `selection` has them in the order picked,
        with what each brought; `weights` (m,) are 1/k for the k picked; `value` is the blend's score. `info` has the
        "evaluations" ({"weights", "score"}, in order), how many members were "tried", and how many ratings came from
        the record ("resumed"). The status is "stopped" if time or Ctrl-C ended it.

    Raises:
        InputError: members that do not match, a score that is no number, a record of another search; with
            `skip_nonfinite`, a member alone that is not finite somewhere (leave it out or repair it).

    Cost: the calls of `score`; beside each, O(k d) to blend k members, and one blend in memory (none for checkpoints).
    At least one blend is rated whatever the limits. A score measured on the rows that chose the members flatters them;
    judge the blend on others.

    >>> import numpy as np
    >>> target = np.array([1.0, 1.0])
    >>> blend = greedy_soup(
    ...     [np.array([0.0, 1.0]), np.array([2.0, 1.2]), np.array([9.0, 9.0])],
    ...     score=lambda mean: -float(np.abs(mean - target).sum()),
    ... )
    >>> blend.selection.indices, blend.result, len(blend.info["evaluations"])
    (array([0, 1]), array([1. , 1.1]), 5)

    References:
        Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models (ICML), recipe 1; Ramé et al.
        2022, Diverse Weight Averaging for Out-of-Distribution Generalization (NeurIPS), where this is the restricted
        selection beside the uniform one.
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, None, progress)
    pool = files.open(members)
    m = len(pool.members)
    if scores is not None and np.shape(scores) != (m,):
        raise InputError(f"scores has shape {np.shape(scores)}; give one score an item: there are {m} members")
    told = None if scores is None else np.asarray(scores, np.float64)
    most = 2 * m - 1 if told is None else m
    limit = most if budget is None else checks.count(budget, "budget")
    settings = {"method": "greedy_soup", "scores": None if told is None else told.tolist()}
    with _Trials(pool, files, score, limit, record, settings, _mean, time_limit) as trials:
        alone: list[float] = []
        first = range(m) if told is None else [int(np.argsort(-told, kind="stable")[0])]
        for place in first:
            rating = trials.rate(_mean_of([place], m))
            if rating is None:
                break
            alone.append(rating)
        order = np.argsort(-(np.array(alone) if told is None else told), kind="stable").tolist()
        picked, best = [order[0]], max(alone)
        gains, tried = [best], len(alone) if told is None else 1
        for place in order[1:]:
            rating = trials.rate(_mean_of([*picked, place], m))
            if rating is None:
                break
            tried += told is not None
            if rating >= best:
                picked.append(place)
                gains.append(0.0 if rating == best else rating - best)
                best = rating
    plan = trials.plan(_mean_of(picked, m), best, {"tried": tried})
    selection = Selection(n=m, indices=np.array(picked, np.int64), gains=np.array(gains), value=best)
    return dataclasses.replace(plan, selection=selection)


@method(
    "combine",
    cost="budget calls of score; a blend to rate is one pass over the members; O(m^3) a generation beside it",
    exact="never rated below the uniform mean; the blend returned is, bit for bit, the one that was rated best",
    paper="Khalifa et al. 2025, If you can't use them, recycle them: optimizing merging at scale (ICML)",
)
def evolved_mean(
    members: Sequence[Any],
    *,
    score: Callable[[Any], float],
    budget: int,
    base: Any = None,
    negative: bool = True,
    sigma: float = 1.0,
    population: int | None = None,
    record: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
    seed: int = 0,
) -> Blend:
    """Tune the weights of a mean of checkpoints, old and imperfect ones too, by an evolution strategy on a score.

    The weights start uniform and are searched by CMA-ES (`kofn.optim.CMAES`): unconstrained numbers, shifted so that
    they sum to one.

    Args:
        members: m arrays, mappings name -> array, or checkpoints (paths) of one family.
        score: rates a blend, higher is better, as `greedy_soup` has it; for several tasks, the mean of theirs.
        budget: how many blends are rated, exactly (unless time or Ctrl-C ends the search). The first is the uniform
            mean. A pool of m wants some 10 m ratings or more.
        base: what the members were fine-tuned from. Then each task vector gets a factor of its own, 1/m to start with,
            and they need not sum to one.
        negative: False holds all weights at >= 0: numbers below zero count as zero, and what is left is divided by its
            sum.
        sigma: standard deviation of the first generation, in shares of a uniform weight.
        population: blends in a generation, by default 4 + floor(3 ln m).
        record, time_limit: as `greedy_soup` has them.
        out, only, skip, measure, skip_nonfinite, max_memory, progress: as `weighted_mean` has them.
        seed: whole number, 0 by default, so that a search that is started again is the same search.

    Returns:
        Blend: of form "simplex" or "affine", what `weighted_mean` gives with `weights`; with a base of form "none",
        what `task_arithmetic` gives with `weights` and normalize=False. `value` is its score; `info` has the
        "evaluations" ({"weights", "score"}, in order), the finished "generations" and how many ratings came from the
        record ("resumed"). The status is "stopped" if time or Ctrl-C ended it.

    Raises:
        InputError: members that do not match, a score that is no number, a record of another search.

    Cost: `budget` calls of `score`; beside each, O(m d) to blend, and one blend in memory (none for checkpoints). The
    best of many ratings is a flattered one: judge the blend on rows that no rating saw.

    >>> import numpy as np
    >>> corners = [np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])]
    >>> target = np.array([0.7, 0.5, -0.2])
    >>> blend = evolved_mean(corners, score=lambda mean: -float(np.square(mean - target).sum()), budget=150)
    >>> blend.weights.round(2), len(blend.info["evaluations"])
    (array([ 0.7,  0.5, -0.2]), 150)

    References:
        Khalifa, Tan, Ahmadian, Hosking, Lee, Wang, Üstün, Sherborne & Gallé 2025, If You Can't Use Them, Recycle Them:
        Optimizing Merging at Scale Mitigates Performance Tradeoffs (ICML); Hansen 2016, The CMA evolution strategy: a
        tutorial (arXiv 1604.00772).
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, None, progress)
    pool = files.open(members, base)
    m = len(pool.members)
    limit = checks.count(budget, "budget")
    signed = checks.flag(negative, "negative")
    search = CMAES(np.zeros(m), sigma=sigma, population=population, seed=seed)
    settings = {
        "method": "evolved_mean",
        "negative": signed,
        "sigma": search.sigma,
        "population": search.population,
        "seed": seed,
    }

    def weights_of(point: Floats) -> Floats:
        shares = 1 + point if signed else np.maximum(1 + point, 0)
        if base is not None:
            return shares / m
        if signed:
            return _to_one((shares - shares.mean() + 1) / m)
        return _to_one(shares / shares.sum()) if shares.any() else np.full(m, 1 / m)

    make = _mean if base is None else sum_of_task_vectors
    with _Trials(pool, files, score, limit, record, settings, make, time_limit) as trials:
        trials.rate(weights_of(np.zeros(m)))
        # One member has but one mean.
        while m > 1 or base is not None:
            ratings = []
            for point in search.ask():
                rating = trials.rate(weights_of(point))
                if rating is None:
                    break
                ratings.append(rating)
            if len(ratings) < search.population:
                break
            search.tell(-np.array(ratings))
    best = max(trials.seen, key=lambda row: row["score"])
    return trials.plan(np.array(best["weights"]), best["score"], {"generations": search.generation})


def _mean_of(picked: Sequence[int], m: int) -> Floats:
    """(m,) equal weights of some."""
    chosen = np.zeros(m)
    chosen[list(picked)] = 1
    return relative_weights(chosen, m)[0]


def _to_one(weights: Floats) -> Floats:
    """The same weights but for a rounding that makes their sum one."""
    weights[np.argmax(weights)] += 1 - math.fsum(weights.tolist())
    return weights


def _mean(weights: Floats) -> tuple[Rule, str]:
    form = "simplex" if (weights >= 0).all() else "affine"
    return Mean(weights, form), form


class _Trials:
    """Blends that are rated: at most `limit`, each kept in the record before the next one starts."""

    def __init__(
        self,
        pool: Pool,
        files: Files,
        score: Any,
        limit: int,
        record: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        make: Callable[[Floats], tuple[Rule, str]],
        time_limit: float | None,
    ) -> None:
        if not callable(score):
            raise InputError(f"score={score!r}: give a callable, score(blend) -> number")
        checks.flag(files.measure, "measure")
        checks.flag(files.skip_nonfinite, "skip_nonfinite")
        if files.out is not None:
            check_out(files.out, pool)  # now, and not when all is rated
        self.pool, self.files, self.score, self.limit, self.make = pool, files, score, limit, make
        if record is not None:
            settings = {**settings, "members": job_digest(pool, {}, dataclasses.replace(files, measure=False))}
        self.record = Record(record, settings)
        self.control = Control(time_limit=time_limit, progress=files.progress, total=limit, what="rating blends")
        self.seen: list[dict[str, Any]] = []
        self.calls = 0
        self.stopped = False

    def __enter__(self) -> _Trials:
        self.control.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.control.__exit__(*raised)
        self.record.close()

    def rate(self, weights: Floats) -> float | None:
        """The score of the blend with these weights; None once the search has to end."""
        at, listed = len(self.seen), weights.tolist()
        if at >= self.limit or self.stopped:
            return None
        rating = self.record.again(at, listed)
        if rating is None:
            if at and self.control.stopped():
                self.stopped = True
                return None
            blend = self._blend(weights)
            if blend is None:
                return None
            rating = rated(self.score(blend), listed)
            self.calls += 1
            self.record.note(listed, rating)
        self.seen.append({"weights": listed, "score": rating})
        self.control.step(len(self.seen))
        return rating

    def _blend(self, weights: Floats) -> Any:
        """What `merge` would make of these weights, from the members that have one; None if Ctrl-C came before."""
        pool, (rule, form) = self.pool, self.make(weights)
        if pool.base is None:
            # The first member stays: what is not blended is copied from it.
            places = sorted({0, *np.flatnonzero(weights).tolist()})
            pool = dataclasses.replace(
                pool, members=[pool.members[place] for place in places], labels=[pool.labels[place] for place in places]
            )
            weights, double = weights[places], rule.double
            rule = Mean(weights, form)
            rule.double = double
        sweep = Sweep(
            pool,
            dict.fromkeys(pool.first, rule),
            max_memory=self.files.max_memory,
            skip_nonfinite=self.files.skip_nonfinite,
            fill=weights if (weights >= 0).all() else None,
        )
        if pool.on_disk:
            return LazyArrays(pool.first, sweep.tensor)
        try:
            _, blend = blend_in_memory(pool, sweep)
        except KeyboardInterrupt:
            if not self.seen:
                raise
            self.stopped = True
            return None
        self.stopped = bool(self.seen) and sweep.control.stopped()
        return None if self.stopped else blend

    def plan(self, weights: Floats, value: float, said: Mapping[str, Any]) -> Blend:
        """The blend that was found, written where it was asked for."""
        rule, form = self.make(weights)
        blend = merge(
            self.pool,
            rule,
            self.files,
            weights=weights,
            form=form,
            info={
                "objective": "blend_score",
                "evaluations": self.seen,
                "oracle_calls": self.calls,
                "resumed": len(self.seen) - self.calls,
                **said,
            },
        )
        return dataclasses.replace(
            blend,
            value=value,
            sense="max",
            # Factors of task vectors sum to one by chance only, and then that promises nothing.
            form=form if self.pool.base is None else "none",
            status="stopped" if self.stopped else "heuristic",
            used={"evaluations": len(self.seen)},
            budget={"evaluations": self.limit},
        )
