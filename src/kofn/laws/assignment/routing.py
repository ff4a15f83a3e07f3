"""Naive values and optima of routes over a table of scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    affinities,
    agree,
    sigmoid,
)

_MOST_STATES = 200_000


def _worth(case: Case, table: Floats, outside: float = 0.0, per_item: int = 1) -> None:
    plan = case.plan
    counts = np.diff(plan.indptr)
    rows = np.repeat(np.arange(case.n), counts)
    terms = [*table[rows, plan.bins].tolist(), *[outside] * int(np.maximum(per_item - counts, 0).sum())]
    counted, scale = math.fsum(terms), math.fsum(map(abs, terms))
    if not near(plan.value, counted, case.rtol, scale):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")


def _weights(case: Case, table: Floats) -> None:
    """What each route weighs: one, the affinity, or its share among the item's own."""
    plan, gates = case.plan, case.plan.options.get("gates", "ones")
    for i in range(case.n):
        routes = slice(int(plan.indptr[i]), int(plan.indptr[i + 1]))
        felt = table[i, plan.bins[routes]]
        if gates == "sigmoid":
            felt = np.array([sigmoid(score) for score in felt.tolist()])
        if gates == "share":
            # Shares of affinities that all underflow are those of their logarithms, which this form cannot see.
            if not felt.sum() > 1e-250:
                continue
            felt = felt / felt.sum()
        counted = np.ones(len(felt)) if gates == "ones" else felt
        if not np.allclose(plan.weights[routes], counted, rtol=1e-5, atol=1e-30):
            raise broken(case, "recount", f"item {i} has weights {plan.weights[routes]}, recounted {counted}")


def _routed_score(case: Case) -> None:
    plan = case.plan
    scores = np.asarray(case.words["scores"], np.float64)
    terms = scores[np.repeat(np.arange(case.n), np.diff(plan.indptr)), plan.bins]
    agree(case, "value", plan.value, math.fsum(terms.tolist()), math.fsum(np.abs(terms).tolist()))


def _routed(case: Case) -> None:
    table = affinities(case)
    _worth(case, table)
    _weights(case, table)
    if "unserved" in case.plan.info:
        alone = int((np.diff(case.plan.indptr) == 0).sum())
        if case.plan.info["unserved"] != alone:
            raise broken(case, "recount", f"unserved is {case.plan.info['unserved']}, {alone} items have no bin")


def _mixed(case: Case) -> None:
    """Sum of w scores - temperature w log w, and each bin's margin in each group."""
    plan, table = case.plan, np.asarray(case.words["scores"], np.float64)
    heat = float(plan.options.get("temperature", 1.0))
    groups = [str(label) for label in case.words["groups"]] if "groups" in case.words else ["all"] * case.n
    terms: list[float] = []
    masses: dict[tuple[str, int], float] = {}
    for i in range(case.n):
        for route in range(int(plan.indptr[i]), int(plan.indptr[i + 1])):
            j, weight = int(plan.bins[route]), float(plan.weights[route])
            terms += [weight * float(table[i, j]), -heat * weight * math.log(weight)]
            masses[groups[i], j] = masses.get((groups[i], j), 0.0) + weight
    counted = math.fsum(terms)
    if not near(plan.value, counted, case.rtol, math.fsum(map(abs, terms))):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    listing = {(groups[i], j) for i, j in np.argwhere(table > -np.inf).tolist()}
    if masses.keys() != listing or not np.allclose([*masses.values()], 1.0, rtol=0, atol=1e-12):
        raise broken(case, "recount", f"bins hold {masses}, each mixture should weigh 1")


def _best_mixed(case: Case) -> float:
    """The optimum in closed form: temperature x log sum exp of each bin's scores in each group."""
    table, heat = np.asarray(case.words["scores"], np.float64), float(case.plan.options.get("temperature", 1.0))
    groups = np.asarray(case.words.get("groups", np.zeros(case.n))).astype(str)
    total = []
    for label in np.unique(groups):
        for column in table[groups == label].T.tolist():
            listed = [score for score in column if score > -math.inf]
            if listed:
                top = max(listed)
                above = math.fsum(math.exp((score - top) / heat) for score in listed) if heat else 1.0
                total.append(top + heat * math.log(above))
    return math.fsum(total)


def _balanced(case: Case) -> None:
    plan = case.plan
    table, reserve = np.asarray(case.words["scores"], np.float64), case.options.get("reserve")
    per_item, counts = int(case.words.get("per_item", 1)), np.diff(plan.indptr)
    _worth(case, table, reserve or 0.0, per_item)
    _weights(case, table)
    if (counts > per_item).any():
        raise broken(case, "recount", f"an item is in {counts.max()} bins")
    if reserve is None and (counts < per_item).any():
        raise broken(case, "recount", f"item {int((counts < per_item).argmax())} is in {counts.min()} bins")
    loads, (low, high) = np.bincount(plan.bins, minlength=plan.k), _limits(case)
    if (loads < low).any() or (loads > high).any():
        raise broken(case, "recount", f"loads {loads} are not within {low} and {high}")


def _limits(case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the most that each bin may hold."""
    n, bins = np.shape(case.words["scores"])
    least = np.asarray(case.options.get("min_size", 0), np.int64)
    asked = np.broadcast_to(least, bins)
    if "capacity" in case.words or "min_size" in case.options:
        return asked, np.broadcast_to(np.asarray(case.words.get("capacity", n), np.int64), bins)
    slots = n * int(case.words.get("per_item", 1))
    fewest = 0 if case.options.get("reserve") is not None else slots // bins
    return np.full(bins, fewest), np.full(bins, -(-slots // bins))


def _placed(case: Case) -> None:
    """Sum of the scores and the reserve; what each bin holds of the sizes, and how many items."""
    plan, bins = case.plan, case.plan.k
    table, reserve = np.asarray(case.words["scores"], np.float64), case.options.get("reserve")
    _worth(case, table, reserve or 0.0)
    if (np.diff(plan.indptr) > 1).any() or (reserve is None and (np.diff(plan.indptr) == 0).any()):
        raise broken(case, "recount", "an item is in two bins, or in none")
    sizes, limits = _filled(case)
    rows = np.repeat(np.arange(case.n), np.diff(plan.indptr))
    for j, limit in enumerate(limits):
        load = sum((sizes[i][j] for i in rows[plan.bins == j].tolist()), Fraction(0))
        if load > limit:
            raise broken(
                case, "recount", f"bin {j} holds {float(load)!r}, its limit is {float(limit)!r} beyond rounding"
            )
        if not math.isclose(plan.used["limits"][j], float(load), rel_tol=1e-12):
            raise broken(case, "recount", f"bin {j} holds {float(load)!r}, the plan says {plan.used['limits'][j]!r}")
    loads, least = np.bincount(plan.bins, minlength=bins), case.options.get("min_size", 0)
    if (loads < least).any() or (loads > case.words.get("capacity", case.n)).any():
        raise broken(case, "recount", f"loads {loads} are not within min_size={least} and the capacity")


def _filled(case: Case) -> tuple[list[list[Fraction]], list[Fraction]]:
    """What each item fills of each bin, and the limits with the rounding of a sum."""
    bins = case.plan.k
    sizes = np.asarray(case.options["sizes"])
    rows = sizes.tolist() if sizes.ndim == 2 else [[size] * bins for size in sizes.tolist()]
    limits = np.broadcast_to(case.options["limits"], bins).tolist()
    slack = 1 + Fraction(case.n) * Fraction(float(np.finfo(np.float64).eps))
    return [[Fraction(size) for size in row] for row in rows], [Fraction(limit) * slack for limit in limits]


def _best_placed(case: Case) -> float | None:
    """The largest total: item by item, the best for each state of what the bins hold, in size and in items."""
    sizes, limits = _filled(case)
    bins, reserve = case.plan.k, case.options.get("reserve")
    room = np.broadcast_to(case.words.get("capacity", case.n), bins).tolist()
    least = np.broadcast_to(case.options.get("min_size", 0), bins).tolist()
    best: dict[tuple[tuple[Fraction, ...], tuple[int, ...]], float] = {((Fraction(0),) * bins, (0,) * bins): 0.0}
    for i, row in enumerate(np.asarray(case.words["scores"], np.float64).tolist()):
        after: dict[tuple[tuple[Fraction, ...], tuple[int, ...]], float] = {}
        for (loads, counts), value in best.items():
            choices = [] if reserve is None else [((loads, counts), value + reserve)]
            for j, score in enumerate(row):
                if score > -math.inf and loads[j] + sizes[i][j] <= limits[j] and counts[j] < room[j]:
                    filled = (*loads[:j], loads[j] + sizes[i][j], *loads[j + 1 :])
                    choices.append(((filled, (*counts[:j], counts[j] + 1, *counts[j + 1 :])), value + score))
            for state, total in choices:
                if total > after.get(state, -math.inf):
                    after[state] = total
        if len(after) * (bins + 1) > _MOST_STATES:
            return None
        best = after
    ends = [v for (_, counts), v in best.items() if all(c >= low for c, low in zip(counts, least, strict=True))]
    return max(ends, default=None)


def _best_chosen(case: Case) -> float | None:
    """The best total if bins choose freely, or if the items are limited, too."""
    room = case.plan.capacity.tolist()
    if "per_item" in case.words:
        return _best_routes(affinities(case), room, int(case.words["per_item"]))
    total = []
    for column, most in zip(affinities(case).T, room, strict=True):
        total += sorted((value for value in column.tolist() if value > 0), reverse=True)[:most]
    return math.fsum(total)


def _best_routed(case: Case) -> float | None:
    bins = np.shape(case.words["scores"])[1]
    room = np.broadcast_to(case.words.get("capacity", case.n), bins).tolist()
    return _best_routes(affinities(case), room, int(case.words.get("per_item", 1)))


def _best_balanced(case: Case) -> float | None:
    table, reserve = np.asarray(case.words["scores"], np.float64), case.options.get("reserve")
    low, high = _limits(case)
    most = int(case.words.get("per_item", 1))
    least = 0 if reserve is not None else most
    return _best_routes(table, high.tolist(), most, least, reserve or 0.0, low.tolist())


def _best_routes(
    table: Floats, room: list[int], most: int, least: int = 0, outside: float = 0.0, low: list[int] | None = None
) -> float | None:
    """The largest total: item by item, the best for each state of the room that is left."""
    n = len(table)
    full = tuple(min(n, int(free)) for free in room)
    best: dict[tuple[int, ...], float] = {full: 0.0}
    for row in table.tolist():
        listed = [j for j, score in enumerate(row) if score > -math.inf]
        choices = [pick for size in range(least, most + 1) for pick in itertools.combinations(listed, size)]
        after: dict[tuple[int, ...], float] = {}
        for state, value in best.items():
            for pick in choices:
                if all(state[j] > 0 for j in pick):
                    left = tuple(free - (j in pick) for j, free in enumerate(state))
                    total = value + math.fsum([*(row[j] for j in pick), *[outside] * (most - len(pick))])
                    if total > after.get(left, -math.inf):
                        after[left] = total
        if len(after) * len(choices) > _MOST_STATES:
            return None
        best = after
    ends = [
        value
        for state, value in best.items()
        if low is None or all(top - left >= floor for top, left, floor in zip(full, state, low, strict=True))
    ]
    return max(ends, default=None)


def _draw_affinity(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["affinity"] = draw(st.sampled_from(("none", "softmax", "sigmoid")))


def _draw_gates(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Scores as they are may be negative and weigh nothing; methods without affinities weigh by the sigmoid."""
    kinds = {"none": ("ones",), None: ("ones", "sigmoid")}
    options["gates"] = draw(st.sampled_from(kinds.get(options.get("affinity"), ("ones", "raw", "share"))))


def _draw_factor(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if "capacity" not in given:
        options["capacity_factor"] = draw(st.sampled_from((0.5, 1.0, 1.5, 2.0)))


def _draw_least(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """The least of each bin, which some placement holds; with bins that not all items list there is none."""
    scores = np.asarray(given["scores"])
    n, bins = scores.shape
    if not np.isfinite(scores).all() or draw(st.booleans()):
        return
    left, least = n, []
    for room in np.broadcast_to(given.get("capacity", n), bins).tolist():
        least.append(draw(st.integers(0, min(int(room), left))))
        left -= least[-1]
    options["min_size"] = least if any(least) or draw(st.booleans()) else 0


def _draw_sizes(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Sizes, and limits that some placement keeps: items in turn, each to a bin with room."""
    n, bins = np.shape(given["scores"])
    wide = draw(st.booleans())
    sizes = np.array(draw(st.lists(st.integers(0, 4), min_size=n * (bins if wide else 1), max_size=n * bins)))
    sizes = sizes[: n * bins].reshape(n, bins) if wide else sizes[:n]
    if draw(st.booleans()):
        sizes = sizes / 10
    table = np.broadcast_to(sizes if wide else sizes[:, None], (n, bins))
    room = np.broadcast_to(given.get("capacity", n), bins).tolist()
    seats = [
        j for j, count in enumerate(np.broadcast_to(options.get("min_size", 0), bins).tolist()) for _ in range(count)
    ]
    loads = np.zeros(bins)
    for j in seats:
        room[j] -= 1
    if options.get("reserve") is None:
        spare = [j for j in range(bins) for _ in range(min(int(room[j]), n))]
        seats += list(draw(st.permutations(spare)))[: n - len(seats)]
    for i, j in enumerate(draw(st.permutations(seats))):
        loads[j] += table[i, j]
    options["sizes"] = sizes
    options["limits"] = np.ceil(loads * 10) / 10 + draw(st.integers(0, 2))


def _draw_reserve(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """With a reserve anything goes; without one every item must find a bin."""
    scores = np.asarray(given["scores"])
    n, bins = scores.shape
    total = int(np.broadcast_to(given.get("capacity", n), bins).sum())
    slots = n * int(given.get("per_item", 1))
    if not np.isfinite(scores).all() or total < slots or draw(st.booleans()):
        options["reserve"] = draw(st.sampled_from((0.0, -1.0, 0.5)))


def _draw_temperature(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if "scores" in given:
        options["temperature"] = draw(st.sampled_from((0, 0.01, 0.5, 1.0, 30.0)))


def _overflow(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Routing that drops what does not fit is always feasible; "error" only where there is room for all."""
    scores = np.asarray(given["scores"])
    kinds = ["drop", "reroute"]
    if np.isfinite(scores).all() and np.min(given.get("capacity", len(scores))) >= len(scores):
        kinds.append("error")
    options["overflow"] = draw(st.sampled_from(kinds))


RECOUNTS: dict[str, Recount] = {
    "routed_score": _routed_score,
    "routed_affinity": _routed,
    "chosen_affinity": _routed,
    "balanced_score": _balanced,
    "mixed_score": _mixed,
    "placed_score": _placed,
}
# None where there are too many plans to look at.
OPTIMA: dict[str, Optimum] = {
    "routed_affinity": _best_routed,
    "chosen_affinity": _best_chosen,
    "balanced_score": _best_balanced,
    "mixed_score": _best_mixed,
    "placed_score": _best_placed,
}
OPTIONS: dict[str, Drawer] = {
    "affinity": _draw_affinity,
    "gates": _draw_gates,
    "capacity_factor": _draw_factor,
    "reserve": _draw_reserve,
    "temperature": _draw_temperature,
    "overflow": _overflow,
    "min_size": _draw_least,
    "sizes": _draw_sizes,
}
