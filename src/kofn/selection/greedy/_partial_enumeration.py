"""Greedy picks under a budget, begun from every pair of items: (1 - 1/e) of the optimum, for small pools."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InfeasibleError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.selection.greedy._run import Greedy, complete, greedy, pool_size
from kofn.selection.greedy._search import Search


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    draws=Draw(compiled=True),
    cost="n^2 / 2 searches of lazy_greedy: seconds for forty items; O(n d) memory",
    exact=">= (1 - 1/e) of the optimum under a budget alone; never less than lazy_greedy",
    paper="kulik2021",
    aliases=("submodular knapsack", "budgeted submodular maximization"),
)
def partial_enumeration(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    **words: Unpack[Greedy],
) -> Selection:
    """Greedy picks under a budget, begun from every pair of items: (1 - 1/e) of the optimum, for small pools.

    Where the budget holds a few items only, greedy picks can miss half of what is to be had; which two items to begin
    with is then tried out. Without a budget, and where it does not bind, the picks are those of `lazy_greedy`.

    Args:
        X: vectors (n, d); or `similarity` (n, n), dense or SciPy-sparse; or `scores` (n,) with objective "modular".

    Returns:
        Selection as of `lazy_greedy`; the pair that the best search began with comes first. `info["searches"]` counts
        the searches.

    Raises:
        InputError: bad input, or an objective that is not submodular.
        InfeasibleError: constraints that cannot be met together.

    Costs n^2 / 2 runs of `lazy_greedy`. The proven share holds under a budget alone; with k, quotas or rows to begin
    from the plan has that of `lazy_greedy`.

    References:
        Kulik, Schwartz, Shachnai, "A refined analysis of submodular Greedy", Operations Research Letters 2021.
        Sviridenko, "A note on maximizing a submodular set function subject to a knapsack constraint", 2004.

    Examples:
        >>> from kofn.selection import lazy_greedy, partial_enumeration
        >>> call = {"scores": [5.0, 9.0, 9.0, 8.0], "costs": [3, 7, 6, 4], "budget": 9}
        >>> lazy_greedy(**call).value, partial_enumeration(**call).value
        (13.0, 14.0)
    """
    given = complete({"X": X, "similarity": similarity, "scores": scores, **words})
    began = time.perf_counter()
    plain = greedy(given, Search)
    if given["budget"] is None or plain.status in ("optimal", "stopped") or plain.guarantee == 1 - 1 / math.e:
        return dataclasses.replace(plain, info={**plain.info, "searches": 1})
    costs, first = np.asarray(given["costs"]), _preselected(given)
    closed = first if given["exclude"] is None else np.union1d(first, given["exclude"])
    rest = np.setdiff1d(np.arange(pool_size(given)), closed)
    room = given["budget"] - costs[first].sum()
    pairs = [pair for pair in itertools.combinations(rest.tolist(), 2) if costs[list(pair)].sum() <= room]
    left = None if given["time_limit"] is None else max(0.0, given["time_limit"] - (time.perf_counter() - began))
    counted = {name: plain.info[name] for name in ("oracle_calls", "distance_evals")}
    best, searches, stopped = plain, 1, False
    with Control(time_limit=left, progress=given["progress"], total=len(pairs), title="searches") as control:
        for pair in pairs:
            if stopped := control.stopped():
                break
            try:
                plan = greedy(_begun(given, pair), Search, known_bound=plain.bound)
            except InfeasibleError:  # the pair leaves the quotas no completion
                continue
            searches += 1
            control.step(searches)
            counted = {name: count + plan.info[name] for name, count in counted.items()}
            if plan.value > best.value:
                best = plan
    promised = plain.guarantee is not None and given["k"] is None and given["quotas"] is None and not len(first)
    return dataclasses.replace(
        best,
        status="stopped" if stopped else best.status,
        guarantee=None if stopped else 1 - 1 / math.e if promised else plain.guarantee,
        info={**best.info, **counted, "searches": searches},
    )


def _preselected(given: Mapping[str, Any]) -> NDArray[np.int64]:
    rows = [given[name] for name in ("start", "include") if given[name] is not None]
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)


def _begun(given: Mapping[str, Any], pair: tuple[int, int]) -> dict[str, Any]:
    """The call with a pair of items included, without a bar and a limit of its own."""
    include = [] if given["include"] is None else given["include"].tolist()
    return {**given, "include": np.array([*include, *pair], np.int64), "time_limit": None, "progress": False}
