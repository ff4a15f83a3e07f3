"""What the greedy methods share: from a call's arguments to a finished search, restarted where a budget asks for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints
from kofn.core.objective import Objective
from kofn.core.plans import Selection
from kofn.core.runtime import Control
from kofn.objectives import base
from kofn.selection.greedy._search import Search

CONSTRAINTS = ("k", "budget", "costs", "groups", "quotas", "include", "exclude", "start")
_SOURCES = ("X", "similarity", "scores", "metric", "weights", "queries", "private", "max_memory", "n_threads")


def greedy(given: Mapping[str, Any], kind: type[Search], *, lazy: bool = True, **own: Any) -> Selection:
    """Run one kind of search on a call's arguments, and again from the best single item where that is worth more.

    Args:
        given: all arguments of the call.
        kind: the search.
        lazy: whether stale gains may stand for fresh ones, which takes a submodular objective.
        own: the search's own parameters.
    """
    tight_bound = checks.flag(given.get("tight_bound", False), "tight_bound")
    constraints = Constraints.of(pool_size(given), **{name: given[name] for name in CONSTRAINTS})
    objective, requested = objective_of(given, lazy)
    # A second run may be needed under a budget; the user's own objective cannot be built anew, so it is copied unused.
    own_objective = not isinstance(requested, str)
    unused = copy.deepcopy(objective) if constraints.budget is not None and own_objective else None
    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=total, what="picking") as control:
        search = kind(objective, constraints, control, lazy, **own)
        search.run()
        if (tight_bound or search.eager or kind is not Search) and not search.stopped:
            search.tighten()
        single = search.better_single()
        if single is not None:
            # The best single item beats the whole cost-benefit run: start from it and fill up.
            start = {"start": np.array([single], np.int64)}
            restarted = Constraints.of(constraints.n, **{**{name: given[name] for name in CONSTRAINTS}, **start})
            fresh = objective_of(given, lazy)[0] if unused is None else unused
            second = kind(fresh, restarted, control, lazy, requested=constraints, **own)
            second.run()
            second.calls_before, second.bound = objective.calls, search.bound
            search = second
    return search.plan(base.named(requested))


def objective_of(given: Mapping[str, Any], lazy: bool) -> tuple[Objective, Any]:
    """The objective, ready for its first pick, and the name or object that was given for it."""
    requested = given["objective"] or (
        "modular" if given["X"] is None and given["similarity"] is None else "facility_location"
    )
    objective = base.build(requested, {word: given[word] for word in _SOURCES})
    if lazy and not objective.submodular:
        raise InputError(
            f"objective={base.named(requested)} is not submodular, so stale gains are no upper bounds; "
            "use method='naive_greedy'"
        )
    return objective, requested


def pool_size(given: Mapping[str, Any]) -> int:
    """How many items the call's pool has."""
    sources = [given[name] for name in ("X", "similarity", "scores") if given[name] is not None]
    return int(sources[0].shape[0])


def share(eps: Any) -> float:
    """`eps` as a share of the optimum that may be given up.

    Raises:
        InputError: not between 0 and 1.
    """
    eps = checks.fraction(eps, "eps")
    if not 0 < eps < 1:
        raise InputError(f"eps={eps:g}: give a number between 0 and 1, neither of them")
    return eps
