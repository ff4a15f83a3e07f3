"""Samples of a pool, of which the seconds of a call on the whole are told: their rows, and constraints that shrink."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.means._constrained import seating_of
from kofn.assignment.routing._balanced_assignment import margins
from kofn.assignment.routing._capped_routing import refuse_shortage
from kofn.assignment.routing._generalized_assignment import at_sight
from kofn.assignment.routing._scores import capacities, refuse_too_many
from kofn.cli.estimate_costs import OF_PAIRS
from kofn.core import dispatch
from kofn.core.checks import InfeasibleError, matrix, option
from kofn.core.constraints import Constraints
from kofn.core.plans import Plan
from kofn.core.pools import is_pool
from kofn.core.problems import build
from kofn.core.registry import Entry
from kofn.core.signatures import annotation_text
from kofn.core.vocabulary import SETTINGS, argument
from kofn.io.beginnings import About
from kofn.verbs import allocate, assign, select

# Rows of a sample to a pick: most of a pool is not picked, nor should be of its samples.
_ROWS_A_PICK = 4
# Words with one row an item; `SQUARE` have one column an item too.
ROWS = ("X", "scores", "curves", "y", "costs", "weights", "groups")
SQUARE = ("similarity", "distances")
# Words that hold the items.
INPUTS = ("X", "scores", "curves", *SQUARE, "rankings")
# Methods whose groups have a least and a most size.
_OF_SIZES = ("constrained_kmeans", "constrained_kmedoids")
# What limits a selection, each with the word without which it is the method's own affair.
_LIMITS = {"k": "k", "budget": "costs", "costs": "budget", "quotas": "groups", "groups": "quotas"}
_NAMED = ("include", "exclude", "start")
# Words that are numbers.
_COUNTS = ("k", "budget", "capacity", "per_item")


def refuse_misfit(verb: str, method: str, call: Mapping[str, Any], options: Mapping[str, Any]) -> Entry:
    """Refuse what the call itself refuses whatever its items are, in its words and order: settings, words that no
    method takes together, and counts out of range.

    Returns:
        The index's row of the method that would run on so many items.

    Raises:
        InputError: as the call does.
    """
    for name in sorted(SETTINGS & call.keys()):
        argument(name, call[name])
    entry, _takes = dispatch.fitting(verb, method, call, options)
    for name in _COUNTS:
        if name in call:
            argument(name, call[name])
    return entry


def refuse_infeasible(verb: str, call: Mapping[str, Any], rows: int | None) -> None:
    """Refuse what no rows of the whole can meet, in the words of the call itself, as far as the whole is known.

    Args:
        verb: the verb; of `select` and `assign`.
        call: its words.
        rows: of the whole, where `call` is of its beginning; `About` where they are estimated.

    Raises:
        InputError: k above the rows; where all were read also quotas, budgets and rows that clash.
    """
    source = next(word for word in INPUTS if word in call)
    shape = call[source].shape
    n = math.prod(shape) if verb == "select" and source == "scores" else shape[0]
    if isinstance(rows, About) or verb not in ("select", "assign") or is_pool(call[source]):
        return
    n = n if rows is None else max(n, rows)
    k = argument("k", call["k"]) if isinstance(call.get("k"), int) else 0
    if k > n:
        raise InfeasibleError(f"k={k} of {n} items: there are only {n} to choose from; ask for k <= {n}")
    if rows is not None or verb != "select":
        return
    words = {word: call[word] for word, other in _LIMITS.items() if word in call and other in call}
    if words.keys() & {"k", "budget"}:
        words |= {word: call[word] for word in _NAMED if word in call}
        items = {"scores": call["scores"] if source == "scores" else np.zeros(n)}
        problem = build(verb, {**items, **words}, call.get("ids"))
        Constraints.of(problem.n, {name: value for name, value in problem.given.items() if name != "scores"})


def refuse_unplaceable(method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> None:
    """Refuse sizes of groups and bins that no placement of n items holds, in the words of the method itself.

    Args:
        method: the assign method that will run.
        options: its own options.
        call: its words, with the rows that were read.
        n: rows of the whole, which may be more.

    Raises:
        InfeasibleError: counts, sizes or the bins that items list show it.
    """
    if "scores" in call:
        matrix(call["scores"], "scores", finite=False)
    capacity, asked = call.get("capacity"), options.get("min_size")
    least = 0 if asked is None else asked
    whole = n == next(call[word].shape[0] for word in INPUTS if word in call)
    if method in _OF_SIZES:
        links = [options.get(name) if whole else None for name in ("must_link", "cannot_link")]
        seating_of(n, call["k"], capacity, least, *links)
    elif "per_item" in call:
        refuse_too_many(call["per_item"], call["scores"].shape[1])
    if method == "balanced_assignment":
        margins(call["scores"], n, capacity, asked, call.get("per_item", 1), options.get("reserve"))
    elif method == "capped_routing" and options.get("overflow", "error") == "error":
        refuse_shortage(call["scores"], n, capacities(capacity, call["scores"].shape[1]), call.get("per_item", 1))
    elif method == "generalized_assignment" and whole:
        at_sight(call["scores"], options.get("sizes"), options.get("limits"), capacity, least, options.get("reserve"))


def fewer_of(k: Any, size: int) -> Any:
    """How many picks or groups a sample is asked for, where the pool is asked for k."""
    return min(k, max(1, size // _ROWS_A_PICK))


def times_fewer(verb: str, call: Mapping[str, Any], size: int) -> float:
    """How many times as many picks or groups the pool is asked for as a sample, each taken to last as long."""
    k = call.get("k")
    return 1.0 if verb not in ("select", "assign") or k is None else k / fewer_of(k, size)


def run_sample(
    verb: str,
    method: str,
    options: Mapping[str, Any],
    call: Mapping[str, Any],
    n: int,
    seen: int,
    size: int,
    *,
    every_pick: bool = False,
) -> Plan:
    """The plan of `size` of the rows seen, of a pool of n, under constraints that shrink with it.

    Of a search over pairs the picks shrink too, unless `every_pick` is asked for.
    """
    rows = np.sort(np.random.default_rng(0).choice(seen, size, replace=False))
    small = {word: value for word, value in call.items() if word not in ("include", "exclude", "start", "ids")}
    small["progress"] = False
    share = size / n
    if "quotas" in small and share < 1:
        # Minima that the pool can meet may be more than a sample holds; they do not change the time.
        del small["quotas"], small["groups"]
    for word in ROWS:
        if word in small and not isinstance(small[word], Mapping):
            small[word] = small[word][rows]
    for word in SQUARE:
        if word in small:
            small[word] = small[word][rows][:, rows]
    if "rankings" in small:
        small["rankings"] = small["rankings"][rows]
    if verb == "select" and "k" in small:
        fewer = method in OF_PAIRS and not every_pick
        small["k"] = max(1, math.ceil(small["k"] * share)) if fewer else fewer_of(small["k"], size)
    larger = times_fewer(verb, small, size) if verb == "assign" else 1.0
    if larger > 1:
        # Fewer groups, each with its share of what all of them hold.
        small["k"] = fewer_of(small["k"], size)
    if "capacity" in small:
        small["capacity"] = _shrunk(small["capacity"], share * larger, small.get("k") if larger > 1 else None)
    if verb == "allocate" and "budget" in small and share < 1:
        small["budget"] = small["budget"] * share
    options = _of_sample(options, rows, share * larger, small.get("k") if larger > 1 else None)
    entry = dispatch.methods_of(verb).get(method)
    if small.keys() >= {"scores", "capacity"} and verb == "assign" and (entry is None or "overflow" in entry.options):
        # A sample's own overflow tells nothing of the pool's.
        options.setdefault("overflow", "drop")
    verbs: dict[str, Callable[..., Any]] = {"select": select, "assign": assign, "allocate": allocate}
    plan: Plan = verbs[verb](method=method, options=options, **small)
    return plan


def checked_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The method's options as it reads them."""
    parameters = entry.load().__kofn__.signature.parameters  # type: ignore[attr-defined]
    return {
        name: option(name, value, annotation_text(parameters[name])) if name in parameters else value
        for name, value in options.items()
    }


def _shrunk(capacity: Any, share: float, bins: int | None) -> Any:
    """A share of a capacity, rounded up; of capacities by bin, where a sample has fewer bins, those of the first."""
    shrunk = np.ceil(np.asarray(capacity) * share).astype(np.int64)
    if not shrunk.ndim:
        return int(shrunk)
    if bins is None or bins >= len(shrunk):
        return shrunk
    # All of them hold what they would together.
    return np.maximum(shrunk[:bins], -(-int(shrunk.sum()) // len(shrunk)))


def _of_sample(
    options: Mapping[str, Any], rows: NDArray[np.int64], of_a_bin: float, bins: int | None
) -> dict[str, Any]:
    """The method's options for a sample: sizes of its rows, pairs within it, and smaller minima, also of a bin; of
    minima by bin, where a sample has fewer `bins`, those of the first."""
    small = dict(options)
    if "sizes" in small:
        sizes = np.asarray(small["sizes"])
        small["sizes"] = sizes[rows]
        if "limits" in small:
            # As full as the whole's bins, and with room for each item that those could hold.
            share = of_a_bin * small["sizes"].mean() / max(sizes.mean(), np.finfo(float).tiny)
            limits = np.asarray(small["limits"], float)
            small["limits"] = np.maximum(limits * share, np.minimum(limits, small["sizes"].max()))
    if "min_size" in small:
        least = np.minimum(
            small["min_size"], np.maximum(1, (np.asarray(small["min_size"]) * of_a_bin).astype(np.int64))
        )
        small["min_size"] = least[:bins] if least.ndim else int(least)
    if "reference" in small:
        small["reference"] = min(small["reference"], len(rows))
    for name in ("must_link", "cannot_link"):
        if name in small:
            pairs = small[name][np.isin(small[name], rows).all(axis=1)]
            small[name] = np.searchsorted(rows, pairs)
    return small
