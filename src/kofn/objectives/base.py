"""What a greedy search asks of an objective, and how objectives are found by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kofn.checks import InputError, nearest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@runtime_checkable
class Objective(Protocol):
    """A set function that a greedy search maximises, one pick at a time.

    Three methods are all that a search needs; `submodular` and `monotone` say which guarantees hold. An objective whose
    fast `gains` are rounded also has `tolerance` (their largest absolute error) and `exact_gains`, and the search then
    settles near-ties exactly. `calls` counts the gains asked for. `eager = True` says that after a pick all gains are
    brought up to date for little more than a few, so that laziness has nothing to win.
    """

    submodular: bool
    monotone: bool

    def gains(self, candidates: Ints) -> Floats:
        """Marginal gain of each candidate given the picks so far."""
        ...

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain."""
        ...

    def value(self, indices: Ints) -> float:
        """The value of a set from scratch, in float64, sharing no state with the other two."""
        ...


# name -> where it lives, and the arguments that it is built from.
OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "facility_location": (
        "kofn.objectives.facility_location:FacilityLocation",
        ("X", "similarity", "metric", "weights", "max_memory", "n_threads"),
    ),
    "modular": ("kofn.objectives.modular:Modular", ("scores",)),
    "k_center": ("kofn.objectives.kcenter:KCenter", ("X", "distances", "metric")),
}
GREEDY = ("facility_location", "modular")


def build(objective: Any, given: Mapping[str, Any], *, known: tuple[str, ...] = GREEDY) -> Objective:
    """The objective that a call names, or the user's own, ready for its first pick.

    Raises:
        InputError: an unknown name (the nearest is offered), an object without the protocol's three methods, or an
            argument that the objective has no use for.
    """
    if not isinstance(objective, str):
        missing = [name for name in ("gains", "add", "value") if not callable(getattr(objective, name, None))]
        if missing:
            raise InputError(
                f"objective={type(objective).__name__} lacks {', '.join(missing)}; an objective has gains(candidates), "
                "add(item) and value(indices)"
            )
        own: Objective = objective
        return own
    if objective not in known:
        raise InputError(f"objective={objective!r}: one of {', '.join(known)}{nearest(objective, known)}")
    path, words = OBJECTIVES[objective]
    inputs = {name: given[name] for name in words if given.get(name) is not None}
    strange = [
        name for name in ("X", "similarity", "scores", "weights") if given.get(name) is not None and name not in words
    ]
    if strange:
        raise InputError(
            f"objective={objective!r} has no use for {', '.join(strange)}; it is built from {', '.join(words)}"
        )
    module, name = path.split(":")
    made = getattr(importlib.import_module(module), name)
    first = next(iter(inspect.signature(made).parameters))
    sources = [word for word in words if word in ("X", "similarity", "distances", "scores")]
    if not inputs.keys() & set(sources):
        raise InputError(f"objective={objective!r} needs {' or '.join(sources)}")
    lead = inputs.pop(first, None)
    result: Objective = made(lead, **inputs)
    return result
