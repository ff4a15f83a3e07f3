"""The law of units: what is asked of numbers in millimetres is asked of the same ones in light years."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.core.checks import InfeasibleError, InputError, is_sparse
from kofn.laws.case import LAWS, Case, broken, declared, law, near
from kofn.laws.recount import set_function

# Powers of two next to 1e-100, 1e-30, 1e30 and 1e100 (float32: 1e-25 and 1e25), by which numbers are multiplied without
# being rounded, so that ties stay ties; and two by which nothing can be too large or too small.
_FACTORS = (2.0**-332, 2.0**-100, 2.0**100, 2.0**332)
_FACTORS_OF_FLOAT32 = (2.0**-83, 2.0**83)
_MILD = (2.0**-7, 2.0**7)
_SOURCES = ("X", "distances", "similarity", "scores")
# What must hold of a plan whose value does not follow the unit.
_SOUND = ("fields", "feasible", "recount", "certified")
_TIGHT, _LOOSE = 1e-9, 1e-5
# The power of the rows' unit in which distances are measured.
_DISTANCE_POWERS = {"euclidean": 1, "sqeuclidean": 2, "cosine": 0, "precomputed": 1}


@law("units", verbs=("select", "assign"))
def in_other_units(case: Case) -> bool:
    """The input in another unit is the same problem: the same answer, its value in that unit; or a refusal in words.

    Where the problem has a scale of its own (`scale_free=False` at the method, an option that it declares absolute, an
    objective with parameters, or one whose value does not follow mild factors), the plan must be sound at any scale.
    Costs and their budget have a unit of their own.
    """
    source = next((word for word in _SOURCES if word in case.given), None)
    if source is None:
        return False
    numbers = _numbers(case.given[source])
    small = numbers.dtype == np.float32
    choices = _FACTORS_OF_FLOAT32 if small else _FACTORS
    choice = int(case.plan.problem[:8], 16)
    factor = choices[choice % len(choices)]
    if _scale_free(case, source):
        _same_in(case, factor, _scaled(case, source, factor))
    else:
        _sound_in(case, factor, _scaled(case, source, factor))
    costs = case.given.get("costs")
    if "budget" in case.given and np.asarray(costs).dtype == np.float64:
        scaled = {"costs": np.asarray(costs) * factor, "budget": case.given["budget"] * factor}
        _same_in(case, factor, (scaled, case.options), power=0.0)
    return True


def _numbers(value: Any) -> Any:
    """Numbers in the machine's order, whole ones as float64."""
    array = value if is_sparse(value) else np.asarray(value)
    kind = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.dtype(np.float64)
    return array.astype(kind)


def _scaled(case: Case, source: str, factor: float) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The words and options with the source, and what the method measures by it, in another unit."""
    numbers = _numbers(case.given[source])
    options = dict(case.options)
    for name, unit in declared(case).units.items():
        if options.get(name) is not None and not isinstance(options[name], str):
            power = _DISTANCE_POWERS[case.given.get("metric", "euclidean")] if unit == "distance" else 1
            options[name] = (np.asarray(options[name], np.float64) * factor**power).tolist()
    return {source: numbers * numbers.dtype.type(factor)}, options


def _scale_free(case: Case, source: str) -> bool:
    """Whether the call's problem has no scale of its own, as declared; for objectives, as its value follows."""
    declaration = declared(case)
    if not declaration.scale_free or case.options.keys() & set(declaration.absolute):
        return False
    objective = case.given.get("objective")
    if objective is None and case.given.get("metric") != "rbf":
        return True
    # Parameters may be in any unit, and so may what an object holds.
    if objective is not None and (not isinstance(objective, str) or "(" in objective):
        return False
    plans = [case.again(options, **words) for words, options in (_scaled(case, source, mild) for mild in _MILD)]
    powers = {_power(case, plan, mild) for plan, mild in zip(plans, _MILD, strict=True)}
    same = all(_answer(case, plan) == _answer(case, case.plan) and plan.status == case.plan.status for plan in plans)
    return same and len(powers) == 1 and None not in powers


def _power(case: Case, plan: Any, factor: float) -> float | None:
    """The half power of the factor by which value (or, where that is 0, bound) grew, 0 where neither did; else None."""
    for before, after in ((case.plan.value, plan.value), (case.plan.bound, plan.bound)):
        if before and after and math.isfinite(before) and math.isfinite(after) and before != after:
            power = round(2 * math.log2(abs(after / before)) / math.log2(factor)) / 2
            return power if _follows(case, before, after, factor, power) else None
    return 0.0


def _follows(case: Case, before: float | None, after: float | None, factor: float, power: float) -> bool:
    """Whether a value is the other one in its unit, up to rounding: of the entries it was computed from, too."""
    if before is None or after is None:
        return before is after
    # Searches of set functions sum in float32 where that is enough for the picks.
    tolerance = _LOOSE if not case.precise or set_function(case) is not None else _TIGHT
    source = next(_numbers(case.given[word]) for word in _SOURCES if word in case.given)
    entries = np.abs(source.data if is_sparse(source) else source)
    largest = float(entries[np.isfinite(entries)].max(initial=0.0)) ** power
    return near(after / factor**power, before, tolerance, _TIGHT / tolerance * case.n * largest)


def _ask(case: Case, factor: float, call: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Any:
    """The plan in the other unit; None where it is refused in words."""
    words, options = call
    try:
        return case.again(options, **words)
    except InfeasibleError as error:
        raise broken(case, "units", f"times {factor:g} it became infeasible: {error}") from None
    except InputError:
        return None


def _same_in(
    case: Case, factor: float, call: tuple[Mapping[str, Any], Mapping[str, Any]], power: float | None = None
) -> None:
    plan = _ask(case, factor, call)
    if plan is None:
        return
    was, now = _answer(case, case.plan), _answer(case, plan)
    if was != now:
        raise broken(case, "units", f"times {factor:g} the answer {was} became {now}")
    if plan.status != case.plan.status:
        raise broken(case, "units", f"times {factor:g} status {case.plan.status!r} became {plan.status!r}")
    if declared(case).log_value and power is None:
        return
    power = _power(case, plan, factor) if power is None else power
    pairs = ((case.plan.value, plan.value), (case.plan.bound, plan.bound))
    if power is None or not all(_follows(case, before, after, factor, power) for before, after in pairs):
        was, now = f"{case.plan.value!r} (bound {case.plan.bound!r})", f"{plan.value!r} (bound {plan.bound!r})"
        raise broken(case, "units", f"times {factor:g} the value {was} became {now}")


def _sound_in(case: Case, factor: float, call: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    if _ask(case, factor, call) is None:
        return
    words, options = call
    other = Case.of(case.verb, case.method, {**case.given, **words}, options)
    objective = set_function(other)
    # The naive forms multiply out what the library does not, so that they end at smaller numbers.
    known = objective is None or math.isfinite(objective.value(other.plan.indices))
    for name in _SOUND if known else ("fields", "feasible"):
        LAWS[name](other)


def _answer(case: Case, plan: Any) -> Any:
    """What a plan chose, comparable with ==. Runs that end at one set may differ in its order, by rounding."""
    if hasattr(plan, "indices"):
        return plan.indices.tolist() if set_function(case) is None else sorted(plan.indices.tolist())
    medoids = None if plan.medoids is None else plan.medoids.tolist()
    return plan.indptr.tolist(), plan.bins.tolist(), medoids
