"""Greedy soup: in order of individual score, keep each member that does not lower the score of the mean."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from kofn.combination._sweep.files import Files, SweepOptions
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.soups._trials import Trials
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend, Selection
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(plain={"scores": [1.0, 3.0, 2.0]}),
    cost="2m - 1 calls of score (m if scores are given); a blend of k members to rate is one pass over their numbers",
    exact="never rated below the best member alone; the blend returned is, bit for bit, the one that was rated",
    paper=("wortsman2022", 286),
)
def greedy_soup(
    members: Sequence[Any],
    *,
    score: Callable[[Any], float],
    scores: Any = None,
    budget: int | None = None,
    record: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    **files: Unpack[Files],
) -> Blend:
    """Greedy soup: in order of individual score, keep each member that does not lower the score of the mean.

    Args:
        members: m arrays, mappings name -> array, or checkpoints (paths), fine-tuned from one start.
        score: rates a blend: `score(blend) -> float` on held-out rows, higher is better; -inf for a blend that fails.
            It is given what `result` will be: an array for arrays, a dict of NumPy arrays for mappings, a lazy mapping
            name -> array for checkpoints, blended as it is read.
        scores: (m,) known score of each single member: they set the order, and only the best member is rated again.
        budget: most blends to rate, single members included; default 2m - 1 (m with `scores`), which suffices. With
            fewer, members that were not tried are left out.
        record: a file that stores every rating. The same search, run again, resumes from it, also with a larger budget.
            A file of another search (other members, scores, patterns) is refused; whether `score` is the same is not
            checked.
        time_limit: seconds; no rating starts after them. Ctrl-C ends the search the same way.

    Returns:
        Blend, which `weighted_mean` of the picked members gives bit for bit. `selection` has them in the order picked,
        with what each brought; `weights` (m,) are 1/k for the k picked; `value` is the blend's score. `info` has the
        "evaluations" ({"weights", "score"}, in order), how many members were "tried", and how many ratings came from
        the record ("resumed"). The status is "stopped" if time or Ctrl-C ended it.

    Raises:
        InputError: members that do not match, a score that is no number, a record of another search; with
            `skip_nonfinite`, a member alone that is not finite somewhere (leave it out or repair it).

    Cost: the calls of `score`; beside each, O(k d) to blend k members, and one blend in memory (none for checkpoints).
    At least one blend is rated whatever the limits. The score on the rows that chose the members is biased upwards;
    evaluate the blend on others.

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
    options = SweepOptions(**files)
    pool = options.open(members)
    m = len(pool.members)
    if scores is not None and np.shape(scores) != (m,):
        raise InputError(f"scores has shape {np.shape(scores)}; give one score an item: there are {m} members")
    known = None if scores is None else np.asarray(scores, np.float64)
    most = 2 * m - 1 if known is None else m
    limit = most if budget is None else checks.count(budget, "budget")
    settings = {"method": "greedy_soup", "scores": None if known is None else known.tolist()}
    with Trials(pool, options, score, limit, record, settings, WeightedMean.of_weights, time_limit) as trials:
        alone: list[float] = []
        first = range(m) if known is None else [int(np.argsort(-known, kind="stable")[0])]
        for i in first:
            rating = trials.rate(_mean_of([i], m))
            if rating is None:
                break
            alone.append(rating)
        order = np.argsort(-(np.array(alone) if known is None else known), kind="stable").tolist()
        picked, best = [order[0]], max(alone)
        gains, tried = [best], len(alone) if known is None else 1
        for i in order[1:]:
            rating = trials.rate(_mean_of([*picked, i], m))
            if rating is None:
                break
            tried += known is not None
            if rating >= best:
                picked.append(i)
                gains.append(0.0 if rating == best else rating - best)
                best = rating
    plan = trials.plan(_mean_of(picked, m), best, {"tried": tried})
    selection = Selection(n=m, indices=np.array(picked, np.int64), gains=np.array(gains), value=best)
    return dataclasses.replace(plan, selection=selection)


def _mean_of(picked: Sequence[int], m: int) -> Floats:
    """(m,) equal weights of the picked members."""
    weights = np.zeros(m)
    weights[list(picked)] = 1
    return relative_weights(weights, m)[0]
