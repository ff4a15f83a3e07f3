"""What the greedy methods share: from a call's arguments to the best of the searches that its constraints ask for."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints
from kofn.core.objective import Objective
from kofn.core.plans import Selection
from kofn.core.runtime import Control
from kofn.core.signatures import defaults_of
from kofn.core.words import Metric, Resources, Where
from kofn.objectives import base
from kofn.selection.greedy._search import BY_COST, BY_LOAD, Search

_SOURCES = ("X", "similarity", "scores", "metric", "weights", "queries", "private", "max_memory", "n_threads", "device")


class Aims(TypedDict, total=False):
    """What a greedy search maximises, and how its objective reads the pool."""

    objective: Annotated[
        Any,
        """"facility_location" (default; with `scores` alone "modular"); any name of `kofn.objectives`, with its
        parameters as "graph_cut(lam=0.3)", or a sum as "0.7*facility_location + 0.3*feature_based"; or an object with
        `gains`, `add` and `value` (`kofn.core.objective.Objective`).""",
    ]
    weights: Annotated[ArrayLike | None, "How much each item of the pool counts, (n,), default 1."]
    metric: Annotated[
        Metric,
        """"euclidean" (c - distance), "sqeuclidean", "cosine" ((1 + cos) / 2), or for facility location "rbf"
        (exp(-distance^2 / (2 bandwidth^2)); "facility_location(bandwidth=0.5)" sets the bandwidth).""",
        "euclidean",
    ]
    queries: Annotated[
        ArrayLike | None, "Vectors (q, d) that the picks should be about, for the objectives that are built from them."
    ]
    private: Annotated[ArrayLike | None, "Vectors (p, d) that are owned already or must not be revealed, likewise."]


class Greedy(Where, Aims, Resources, total=False):
    """What every greedy search takes beside its pool and its own options."""


def greedy(
    given: Mapping[str, Any],
    kind: type[Search],
    *,
    lazy: bool = True,
    tight_bound: bool = False,
    known_bound: float | None = None,
    **own: Any,
) -> Selection:
    """Run one kind of search on a call's arguments; where a budget binds, also by the gain per cost.

    The picks are those of the best run: by gain alone, as without a budget; by gain per cost; and, with a count too, by
    gain per share of the slots and of the budget.

    Args:
        given: the pool (X, similarity or scores) and words of `Greedy`; those left out have their default.
        kind: the search.
        lazy: whether stale gains may stand for fresh ones, which takes a submodular objective.
        tight_bound: one more pass over all items at the end for a smaller bound.
        known_bound: of the optimum, where another search has shown it; what this one shows is of no account then.
        own: the search's own parameters.
    """
    given = complete(given)
    constraints = Constraints.of(pool_size(given), given)
    objective, requested = objective_of(given, lazy)
    # The user's own objective cannot be built anew for a further run, so it is copied unused.
    own_objective = not isinstance(requested, str)
    unused = copy.deepcopy(objective) if constraints.budget is not None and own_objective else None
    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=given["time_limit"], progress=given["progress"], total=total, title="picking") as control:
        best = kind(objective, constraints, control, lazy, **own)
        best.run()
        runs = [best]
        if best.budget_binds:
            for ranks_by in (BY_COST, BY_LOAD) if constraints.k < constraints.n else (BY_COST,):
                if runs[-1].stopped:
                    break
                fresh = objective_of(given, lazy)[0] if unused is None else copy.deepcopy(unused)
                runs.append(kind(fresh, constraints, control, lazy, ranks_by=ranks_by, **own))
                runs[-1].run()
            best = max(runs, key=worth)
        best.stopped = runs[-1].stopped
        best.budget_binds = len(runs) > 1
        best.bound = min(run.bound for run in runs)
        best.calls_before = sum(run.objective.calls for run in runs if run is not best)
        if known_bound is not None:
            best.bound = known_bound
        elif (tight_bound or best.eager or kind is not Search) and not best.stopped:
            best.tighten()
    return best.plan(base.named(requested))


def worth(run: Search) -> tuple[int, float]:
    """What a run is worth; one whose value no time was left to take is worth less than any other."""
    value = math.fsum(run.gains)
    return (0, 0.0) if math.isnan(value) else (1, value)


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """The pool and every word of `Greedy`: those that are given, and the defaults of the others."""
    return {"X": None, "similarity": None, "scores": None, "device": None, **defaults_of(Greedy), **given}


def objective_of(given: Mapping[str, Any], lazy: bool) -> tuple[Objective, Any]:
    """The objective, ready for its first pick, and the name or object that was given for it."""
    requested = default_objective(given)
    objective = base.build(requested, sources_of(given))
    if lazy and not objective.submodular:
        raise InputError(
            f"objective={base.named(requested)} is not submodular, so stale gains are no upper bounds; "
            "use method='naive_greedy'" + ("" if isinstance(requested, str) else ", or declare submodular = True on it")
        )
    return objective, requested


def default_objective(given: Mapping[str, Any]) -> Any:
    """The objective that is given, else facility location where items are compared and the sum of scores where not."""
    if given["objective"] is not None:
        return given["objective"]
    return "modular" if given["X"] is None and given["similarity"] is None else "facility_location"


def sources_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a call that an objective may be built from."""
    return {name: given[name] for name in _SOURCES}


def pool_size(given: Mapping[str, Any]) -> int:
    """How many items the call's pool has."""
    name = next(name for name in ("X", "similarity", "scores") if given[name] is not None)
    shape = given[name].shape
    if name == "scores" and len(shape) != 1:
        raise InputError(f"scores has shape {shape}; give one score an item, shape (n,)")
    return int(shape[0])


def share(eps: Any) -> float:
    """`eps` as a share of the optimum that may be given up.

    Raises:
        InputError: not between 0 and 1.
    """
    eps = checks.fraction(eps, "eps")
    if not 0 < eps < 1 or 1 - eps == 1:
        raise InputError(f"eps={eps:g}: give a number between 0 and 1, neither of them nor next to 0")
    return eps
