"""Seconds of methods whose work on a pool is known from its size: counts of distances and steps by their speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kofn.assignment._work import Work, work_of_fastclara, work_of_fasterpam, work_of_pamk
from kofn.core.plans import Plan
from kofn.engines.speed import features_of, pairs_a_second, steps_a_second
from kofn.engines.threads import cores
from kofn.objectives._estimates import pairs_of_search
from kofn.selection.pools._sizes import pairs_of_rounds

# Searches that take most of their time to look at pairs of rows, so many times each as on a sample with its share of k.
OF_PAIRS = ("lazy_greedy", "sampled_greedy")

# Seconds in which compiled code is loaded.
_LOADING = 0.1


def by_cost(method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str | None:
    """Seconds of the call on n rows, in words, where the method's work is known; None where it has to be measured.

    Args:
        method: its name.
        options: the method's own options of the whole call.
        call: its words.
        n: rows of the whole.
    """
    of_method = _BY_COST.get(method)
    return None if of_method is None else of_method(options, call, n)


def picks_of(k: Any, n: int) -> int:
    """How many picks a count or a share of the pool is."""
    return n if k is None else int(k if k >= 1 else k * n)


def by_pairs(plans: Sequence[Plan], options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str:
    """Seconds of a search over pairs of rows, by how many pairs a sample's searches looked at and what one costs."""
    speed, served = _pairs_a_second(call), min(n, options.get("reference", n))
    looks, seconds = [], []
    for plan in plans:
        reference = plan.info.get("reference", plan.n)
        looks.append(plan.info["distance_evals"] / (plan.n * reference))
        seconds.append(looks[-1] * n * served / speed)
    low, high, least, most = min(seconds), max(seconds), min(looks), max(looks)
    if high < 1.2 * low:
        return f"about {high:.2g} ({most:.1f} looks at each pair, as on {plans[0].n:,} rows)"
    return f"about {low:.2g} to {high:.2g} ({least:.1f} to {most:.1f} looks at each pair, as on {plans[0].n:,} rows)"


def _of_sampled_pairs(options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str | None:
    """Seconds of a search by a sample of dense rows, which looks at as many pairs of any pool of the size."""
    if "k" not in call or hasattr(call.get("X"), "nnz"):
        return None
    reference = min(options["reference"], n)
    pairs = pairs_of_search(n, call["X"].shape[1], reference, picks_of(call["k"], n))
    looks = pairs / (n * reference)
    return f"about {pairs / _pairs_a_second(call):.2g} ({looks:.1f} looks at each pair of a row and a sampled row)"


def _of_rounds(options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str | None:
    """Seconds of two rounds over parts, by the distances that they take on any pool of the size."""
    if "X" not in call:
        return None
    sizes = {name: options[name] for name in ("part_rows", "n_reference", "bound_rows") if name in options}
    pairs = pairs_of_rounds(n, picks_of(call["k"], n), **sizes)
    return f"about {pairs / _pairs_a_second(call):.2g} (by its cost: {pairs / n:,.0f} distances a row)"


def _of_medoids(work_of: Callable[..., Work]) -> Callable[[Mapping[str, Any], Mapping[str, Any], int], str]:
    """Seconds of a k-medoids method, by the distances and the steps of its swaps."""

    def seconds(options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str:
        work = work_of(n, options=options, call=call)
        distances = work.pairs / _pairs_a_second(call) if "X" in call else 0.0
        total = _LOADING + distances + work.steps / steps_a_second()
        return f"about {total:.2g} (by its cost: {work.pairs:,.0f} distances, {work.steps:,.0f} steps)"

    return seconds


def _pairs_a_second(call: Mapping[str, Any]) -> float:
    """Pairs of rows that the call's threads look at in a second."""
    return pairs_a_second(features_of(call["X"])) * cores(call.get("n_threads"))


_BY_COST: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], str | None]] = {
    "sampled_greedy": _of_sampled_pairs,
    "two_round_greedy": _of_rounds,
    "fasterpam": _of_medoids(work_of_fasterpam),
    "fastclara": _of_medoids(work_of_fastclara),
    "pamk": _of_medoids(work_of_pamk),
}
