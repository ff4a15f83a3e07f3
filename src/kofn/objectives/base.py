"""Build named objectives from a call's arguments."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from kofn.core.checks import InputError, nearest, reading
from kofn.core.devices import resolve_device
from kofn.core.objective import Objective, as_objective
from kofn.objectives._table import GREEDY, OBJECTIVES, Known, load
from kofn.objectives._text import Term, named, parse
from kofn.objectives.mixtures import Mixture

__all__ = [
    "GREEDY",
    "OBJECTIVES",
    "Known",
    "Objective",
    "Term",
    "build",
    "named",
    "parameters_of",
    "parse",
    "with_parameters",
    "words_of",
]

_SOURCES = ("X", "similarity", "distances", "scores")
# Arguments that an objective may take beside its own parameters.
_WORDS = (*_SOURCES, "metric", "weights", "max_memory", "n_threads", "queries", "private", "reference", "device")
# These are refused if the objective does not use them.
_MEANT = ("X", "similarity", "scores", "weights", "queries", "private")


def build(objective: Any, given: Mapping[str, Any], *, known: tuple[str, ...] = GREEDY) -> Objective:
    """The objective that a call names, or the user's own, ready for its first pick.

    Args:
        objective: a name, `name(parameter=value)`, a sum of those with weights, or an object.
        given: the call's words (`X`, `similarity`, `metric`, ...); each part takes those that it is built from.
        known: the names that may be asked for.

    Raises:
        InputError: an unknown name or parameter (the nearest is offered), an object without the three
            methods of an objective, or an argument that the objective has no use for.
    """
    if not isinstance(objective, str):
        if resolve_device(given.get("device")) is not None:
            raise InputError(
                f"device={given['device']!r}: objective={type(objective).__name__} is an object, which runs where it "
                "was written to; leave device out, or name an objective"
            )
        return as_objective(objective)
    terms = parse(objective, known)
    makers = [_maker(term, given) for term in terms]
    used = {word for made in makers for word in inspect.signature(made).parameters}
    strange = [name for name in _MEANT if given.get(name) is not None and name not in used]
    if strange:
        words = ", ".join(word for word in _WORDS if word in used)
        others = [name for name in known if strange[0] in inspect.signature(load(OBJECTIVES[name].maker)).parameters]
        hint = f"; {strange[0]} is read by {', '.join(others)}" if strange[0] in ("queries", "private") else ""
        raise InputError(f"objective={objective!r} has no use for {', '.join(strange)}; it is built from {words}{hint}")
    if given.get("metric") == "rbf" and "metric" not in used:
        raise InputError(f"metric='rbf': objective={objective!r} has no metric; it is for facility_location")
    parts = [_make(term, made, given) for term, made in zip(terms, makers, strict=True)]
    if len(parts) == 1 and terms[0].weight == 1:
        return parts[0]
    return Mixture([(term.weight, part) for term, part in zip(terms, parts, strict=True)])


def _maker(term: Term, given: Mapping[str, Any]) -> Any:
    """The class of an objective, of its form for devices where the call names one that is there.

    Raises:
        InputError: it has no such form, or not for what it is built from.
    """
    known, device = OBJECTIVES[term.name], given.get("device")
    if resolve_device(device) is None:
        return load(known.maker)
    if not known.on_device or given.get("X") is None:
        able = ", ".join(name for name, row in OBJECTIVES.items() if row.on_device)
        raise InputError(
            f"device={device!r}: a device has no objective={term.name!r} of what is given; leave device out, or take "
            f"{able} of X"
        )
    module, _, name = known.on_device.partition(":")
    return getattr(importlib.import_module(f"kofn.objectives.{module}"), name)


def kind_of(objective: Any) -> type[Objective] | None:
    """The class of an objective that is named without parameters; None of any other."""
    known = OBJECTIVES.get(objective) if isinstance(objective, str) else None
    return None if known is None else load(known.maker)


def words_of(objective: str) -> set[str]:
    """The arguments of a call that a textual objective is built from."""
    makers = [load(OBJECTIVES[term.name].maker) for term in parse(objective, OBJECTIVES)]
    return {word for made in makers for word in inspect.signature(made).parameters if word in _WORDS}


def own_parameters(name: str) -> dict[str, str]:
    """The own parameters of a named objective, each with the text of its type."""
    parameters = inspect.signature(load(OBJECTIVES[name].maker)).parameters.values()
    return {p.name: str(p.annotation) for p in parameters if p.name not in _WORDS}


def parameters_of(objective: str) -> set[str]:
    """The own parameters of an objective written as text, over all its terms."""
    return {name for term in parse(objective, OBJECTIVES) for name in own_parameters(term.name)}


def with_parameters(objective: str, parameters: Mapping[str, Any]) -> str:
    """The text of an objective of one term with parameters added: `graph_cut` with lam=0.3 is `graph_cut(lam=0.3)`."""
    for name, value in parameters.items():
        with reading(name, value):
            repr(value)
    terms = parse(objective, OBJECTIVES)
    if len(terms) != 1:
        name = next(iter(parameters))
        raise InputError(
            f"{name} could belong to each part of objective={objective!r}; write it there, as 'name({name}=...)'"
        )
    return str(dataclasses.replace(terms[0], parameters={**terms[0].parameters, **parameters}))


def _make(term: Term, made: Any, given: Mapping[str, Any]) -> Objective:
    parameters = inspect.signature(made).parameters
    own = [word for word in parameters if word not in _WORDS]
    for key in term.parameters:
        if key not in own:
            raise InputError(
                f"objective {term.name!r} has no parameter {key!r}; "
                f"it has {', '.join(own) or 'none'}{nearest(key, own)}"
            )
    inputs = {word: given[word] for word in parameters if word in _WORDS and given.get(word) is not None}
    sources = [word for word in parameters if word in _SOURCES]
    if not inputs.keys() & set(sources):
        raise InputError(f"objective={term.name!r} needs {' or '.join(sources)}")
    # The leading input may be any of its sources, by name.
    lead = inputs.pop(next(iter(parameters)), None)
    result: Objective = made(lead, **inputs, **term.parameters)
    return result
