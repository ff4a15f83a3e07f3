"""Greedy maximisation of a set function under every constraint: exact, lazy, by samples, by thresholds, in parts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints
from kofn.core.plans import Selection
from kofn.core.runtime import Control
from kofn.objectives import base
from kofn.selection.greedy._search import Search, calls_of

RULES = ("k", "budget", "costs", "groups", "quotas", "include", "exclude", "start")
_SOURCES = ("X", "similarity", "scores", "metric", "weights", "queries", "private", "max_memory", "n_threads")


def greedy(given: Mapping[str, Any], kind: type[Search], *, lazy: bool = True, **own: Any) -> Selection:
    tight_bound = checks.flag(given.get("tight_bound", False), "tight_bound")
    rules = Constraints.of(pool_size(given), **{name: given[name] for name in RULES})
    rule, name = objective_of(given, lazy)
    # A second run may be needed under a budget; the user's own objective cannot be built anew, so it is copied unused.
    unused = copy.deepcopy(rule) if rules.budget is not None and not isinstance(name, str) else None
    total = rules.k if rules.exact_k else 0
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=total, what="picking") as control:
        search = kind(rule, rules, control, lazy, **own)
        search.run()
        if (tight_bound or search.eager or kind is not Search) and not search.stopped:
            search.tighten()
        single = search.better_single()
        if single is not None:
            first = np.array([single], np.int64)
            # The best single item beats the whole cost-benefit run: start from it and fill up.
            again = Constraints.of(rules.n, **{**{w: given[w] for w in RULES}, "start": first})
            other = objective_of(given, lazy)[0] if unused is None else unused
            second = kind(other, again, control, lazy, asked=rules, **own)
            second.run()
            second.calls_before, second.bound = calls_of(rule), search.bound
            search = second
    return search.plan(base.named(name))


def objective_of(given: Mapping[str, Any], lazy: bool) -> tuple[base.Objective, Any]:
    """The objective, ready for its first pick, and the name or object that asked for it."""
    asked = given["objective"] or (
        "modular" if given["X"] is None and given["similarity"] is None else "facility_location"
    )
    rule = base.build(asked, {word: given[word] for word in _SOURCES})
    if lazy and not rule.submodular:
        raise InputError(
            f"objective={base.named(asked)} is not submodular, so stale gains are no upper bounds; "
            "use method='naive_greedy'"
        )
    return rule, asked


def pool_size(given: Mapping[str, Any]) -> int:
    sources = [given[name] for name in ("X", "similarity", "scores") if given[name] is not None]
    return int(sources[0].shape[0])


def share(eps: Any) -> float:
    eps = checks.fraction(eps, "eps")
    if not 0 < eps < 1:
        raise InputError(f"eps={eps:g}: give a number between 0 and 1, neither of them")
    return eps
