"""Naive float64 recomputation of every objective from the checked arguments alone.

Nothing here shares code or state with the methods: distances are differences, set functions are maxima over
columns, sums are exact. `objective` names the function that a plan's `value` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core import dispatch
from kofn.core.checks import InputError
from kofn.laws.case import Case, broken
from kofn.laws.families import gather
from kofn.laws.words import SetFunction, agree
from kofn.objectives import base


def set_function(case: Case) -> SetFunction | None:
    """The set function named by the case's plan, None without a name or for a user-defined one."""
    name = case.plan.objective
    if not name:
        return None
    known = gather("FUNCTIONS")
    if name in known:
        return _part(case, base.Term(name))
    try:
        terms = base.parse(name, known)
    except InputError:
        return None
    parts = [(term.weight, _part(case, term)) for term in terms]
    if len(parts) == 1 and terms[0].weight == 1:
        return parts[0][1]
    return SetFunction(
        name,
        lambda picks: math.fsum(weight * part.value(picks) for weight, part in parts),
        lambda masks: np.sum([weight * part.values(masks) for weight, part in parts], axis=0),
        lambda picks: math.fsum(weight * part.scale(picks) for weight, part in parts),
        all(part.submodular for _, part in parts),
        True if all(part.monotone for _, part in parts) else None,
    )


def _part(case: Case, term: base.Term) -> SetFunction:
    made = gather("FUNCTIONS")[term.name](case, **term.parameters)
    if isinstance(made, SetFunction):
        return made
    known = base.OBJECTIVES.get(term.name)
    value: Callable[[Any], float] = made
    alone = max((abs(value(np.array([item], np.int64))) for item in range(case.n)), default=0.0)
    return SetFunction(
        term.name,
        value,
        scale=lambda _picks: alone * case.n,
        submodular=known is None or known.submodular,
        monotone=None if known is None else known.monotone,
    )


def hold(case: Case) -> bool:
    """Recompute the plan's value; return whether there was one."""
    name = case.plan.objective
    if math.isnan(case.plan.value) and case.plan.status == "stopped" and _is_pooled(case):
        # Not all rows of the pool were looked at.
        if case.plan.bound is not None or case.plan.guarantee is not None:
            raise broken(case, "recount", "a plan without a value has a bound or a guarantee")
        return False
    if not name:
        if math.isfinite(case.plan.value):
            raise broken(case, "recount", f"value {case.plan.value!r} has no objective that says what it is")
        return False
    if name in gather("RECOUNTS"):
        gather("RECOUNTS")[name](case)
        return True
    if set_function(case) is not None:
        _set_value(case)
        return True
    own = case.given.get("objective")
    if own is None or isinstance(own, str) or type(own).__name__ != name:
        raise broken(
            case,
            "recount",
            f"objective {name!r} has no recount; add one to RECOUNTS of its family in laws",
        )
    agree(case, "value", case.plan.value, float(own.value(case.plan.indices)))
    return True


def _is_pooled(case: Case) -> bool:
    entry = dispatch.methods_of(case.verb).get(case.method) if isinstance(case.method, str) else None
    return entry is not None and bool(entry.load().__kofn__.pooled)  # type: ignore[attr-defined]


def _set_value(case: Case) -> None:
    """Value of the set; where gains add up, every prefix of them as well."""
    plan, objective = case.plan, set_function(case)
    assert objective is not None
    scale = objective.scale(plan.indices)
    agree(case, "value", plan.value, objective.value(plan.indices), scale)
    if not plan.additive:
        return
    for t in range(len(plan.indices) + 1):
        total = math.fsum(plan.gains[:t].tolist())
        agree(case, f"the sum of {t} gains", total, objective.value(plan.indices[:t]), max(scale, abs(plan.value)))
