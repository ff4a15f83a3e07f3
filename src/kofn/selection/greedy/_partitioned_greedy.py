"""Pick in two rounds: k from each random part of the pool, then k from all that were picked."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Mask
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Items, Resources
from kofn.objectives import base
from kofn.selection.greedy._run import Aims, complete, objective_of, pool_size, worth
from kofn.selection.greedy._search import PartSearch


class _Parts(Aims, Resources, total=False):
    """What each part's search takes; each is judged by its value on the whole pool."""


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    cost="a greedy run on each part and one on what they picked",
    exact=">= (1 - 1/e)/2 of the optimum in expectation",
    paper="barbosa2015",
)
def partitioned_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    k: int,
    include: Items | None = None,
    exclude: Items | None = None,
    start: Any = None,
    seed: int | None = None,
    parts: int | None = None,
    **words: Unpack[_Parts],
) -> Selection:
    """Pick in two rounds: k from each random part of the pool, then k from all that were picked.

    The parts know nothing of each other, so that each can be picked from elsewhere; the second round is small.

    Args:
        X: vectors (n, d); or `similarity` (n, n); or `scores` (n,) with objective "modular".
        k: how many.
        parts: how many parts, default sqrt(n / k), which makes both rounds the same size.

    Returns:
        Selection, the best of the second round and of the parts' own picks. `info["expected_guarantee"]` is the share
        of the optimum proven in expectation over the deal.

    Raises:
        InputError: bad input, an objective that is not submodular. InfeasibleError: k above what is not excluded.

    Costs `parts` greedy runs over n / parts candidates each, and one over parts k candidates.

    References:
        Barbosa, Ene, Nguyen, Ward, "The power of randomization: distributed submodular maximization on massive
        datasets", ICML 2015.
        Mirzasoleiman, Karbasi, Sarkar, Krause, "Distributed submodular maximization", NIPS 2013.

    Examples:
        >>> from kofn.selection import partitioned_greedy
        >>> s = partitioned_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, parts=2, seed=0)
        >>> s.indices.tolist(), s.info["parts"]
        ([3, 0], 2)
    """
    given = complete({"X": X, "similarity": similarity, "scores": scores, **words})
    n = pool_size(given)
    constraints = Constraints.of(n, k=k, include=include, exclude=exclude, start=start)
    count = max(1, math.isqrt(n // constraints.k)) if parts is None else checks.count(parts, "parts")
    if count > n:
        raise InputError(f"parts={count} of {n} items; ask for parts <= {n}")
    unused, requested = objective_of(given, lazy=True)
    part_of = np.random.default_rng(seed).permutation(np.arange(n) % count)
    runs: list[PartSearch] = []
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=count + 1, title="parts") as control:
        for part in range(count + 1):
            if part < count:
                candidates = part_of == part
            else:
                candidates = np.isin(np.arange(n), [item for run in runs for item in run.picks])
            own = not isinstance(requested, str)
            fresh = copy.deepcopy(unused) if own else objective_of(given, lazy=True)[0]
            runs.append(PartSearch(fresh, _only(constraints, candidates), control, True))
            runs[-1].run()
            control.step(part + 1)
            if runs[-1].stopped:
                break
    most = max(len(run.picks) for run in runs)
    best = max((run for run in runs if len(run.picks) == most), key=worth)
    best.stopped = runs[-1].stopped
    if not best.stopped:
        best.whole_bound(constraints)
    best.calls_before = sum(run.objective.calls for run in runs if run is not best)
    plan = best.plan(base.named(requested))
    return dataclasses.replace(plan, info={**plan.info, "parts": count})


def _only(constraints: Constraints, candidates: Mask) -> Constraints:
    """The same constraints for some of the pool, with as many picks as it has."""
    banned = constraints.banned | ~candidates
    banned[constraints.preselected] = False
    return dataclasses.replace(constraints, banned=banned, k=min(constraints.k, constraints.n - int(banned.sum())))
