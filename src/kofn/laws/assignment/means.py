"""Squares within groups, likelihoods of groups, sizes and links, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.brute import least_partition
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    distances,
    group_members,
)


def _squares(X: Floats) -> float:
    gap = X - X[0]
    gap = gap - gap.mean(axis=0)
    return math.fsum((gap * gap).ravel().tolist())


def _rows(case: Case) -> Floats:
    return np.asarray(case.words["X"], np.float64)


def _within_group_squares(case: Case) -> None:
    plan, X = case.plan, _rows(case)
    members = group_members(case)
    counted = math.fsum(_squares(X[group]) for group in members)
    # Squares of what rounding does to the rows are nothing.
    nothing = float((np.finfo(np.float64).eps * np.abs(X).max()) ** 2) * X.size
    if not near(plan.value, counted, case.rtol, nothing / case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    middle = np.array([X[group].mean(axis=0) for group in members])
    if not np.allclose(plan.centers, middle, rtol=1e-9, atol=1e-12 * np.abs(X).max()):
        raise broken(case, "recount", f"centers are {plan.centers}, recounted {middle}")


def _group_log_likelihood(case: Case) -> None:
    plan, X = case.plan, _rows(case)
    spread = float(X.var(axis=0).mean())
    ridge = float(case.plan.options["ridge"]) * (spread or 1.0)
    # Of rows that are all alike only rounding differs.
    if spread < (1e3 * np.finfo(np.float64).eps * np.abs(X).max()) ** 2:
        return
    terms = []
    for group in group_members(case):
        gap = X[group] - X[group].mean(axis=0)
        values, vectors = np.linalg.eigh(gap.T @ gap / len(group))
        variance = np.maximum(values, 0.0) + ridge
        along = gap @ vectors
        terms += (-0.5 * along * along / variance).ravel().tolist()
        terms += [-0.5 * len(group) * math.log(2 * math.pi * eigenvalue) for eigenvalue in variance.tolist()]
    counted, scale = math.fsum(terms), math.fsum(map(abs, terms))
    # The ridge is what the smallest variances rest on: their rounding is that of the largest over the ridge.
    if not near(plan.value, counted, max(case.rtol, 1e-9), scale):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")


def _best_squares(case: Case) -> float | None:
    X = _rows(case)
    return least_partition(case, lambda group: _squares(X[group]))


def _weights(case: Case) -> Floats:
    return np.asarray(case.words.get("weights", np.ones(case.n)), np.float64)


def _sizes(case: Case) -> NDArray[np.int64]:
    """Loads, after a look at sizes and links."""
    plan, options = case.plan, case.options
    if (np.diff(plan.indptr) != 1).any():
        raise broken(case, "recount", "an item is not in exactly one group")
    loads = np.bincount(plan.bins, minlength=plan.k)
    if loads.min() < options.get("min_size", 1):
        raise broken(case, "recount", f"loads are {loads}, min_size={options.get('min_size', 1)}")
    for a, b in options.get("must_link", ()):
        if plan.bins[a] != plan.bins[b]:
            raise broken(case, "recount", f"rows {a} and {b} must share a group")
    for a, b in options.get("cannot_link", ()):
        if plan.bins[a] == plan.bins[b]:
            raise broken(case, "recount", f"rows {a} and {b} share a group")
    return np.asarray(loads, np.int64)


def _priced(case: Case, apart: Floats, free: NDArray[np.bool_], loads: NDArray[np.int64]) -> None:
    """Without links, no free item is better off elsewhere at the prices, which only full and least groups have."""
    plan = case.plan
    if plan.status != "local" or case.options.get("must_link") or case.options.get("cannot_link"):
        return
    slack = (1e-9 if case.precise else 1e-5) * (float(apart.max()) + float(np.abs(plan.v).max()))
    cost = apart + plan.v
    worse = np.where(free, cost[np.arange(case.n), plan.bins] - cost.min(axis=1), 0.0)
    if worse.max() > slack:
        item = int(worse.argmax())
        raise broken(case, "recount", f"item {item} would rather be elsewhere, by {worse[item]!r} at the prices")
    room = np.broadcast_to(case.words.get("capacity", case.n), plan.k)
    for j in range(plan.k):
        if plan.v[j] > slack and loads[j] < room[j]:
            raise broken(case, "recount", f"group {j} has room and a price of {plan.v[j]!r}")
        if plan.v[j] < -slack and loads[j] > case.options.get("min_size", 1):
            raise broken(case, "recount", f"group {j} holds more than its least and has a price of {plan.v[j]!r}")


def _inertia(case: Case) -> None:
    plan, weights, loads = case.plan, _weights(case), _sizes(case)
    rows = np.asarray(case.words["X"], np.float64)
    apart = np.array([[weights[i] * ((rows[i] - c) ** 2).sum() for c in plan.centers] for i in range(case.n)])
    counted = math.fsum(apart[np.arange(case.n), plan.bins].tolist())
    # Below the rounding of the longest row, squared distances are nothing.
    longest = float(np.abs(rows).max())
    if not near(plan.value, counted, case.rtol, 1e-6 * float(weights.sum()) * longest**2):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    for j in range(plan.k):
        mine = plan.bins == j
        if weights[mine].sum() > 0:
            mean = (weights[mine, None] * rows[mine]).sum(axis=0) / weights[mine].sum()
            if not np.allclose(plan.centers[j], mean, rtol=1e-9, atol=1e-9 * longest):
                raise broken(case, "recount", f"centre {j} is {plan.centers[j]}, the mean is {mean}")
    _priced(case, apart, np.ones(case.n, bool), loads)


def _medoids(case: Case) -> None:
    plan, weights, loads = case.plan, _weights(case), _sizes(case)
    table = distances(case)
    apart = weights[:, None] * table[:, plan.medoids]
    counted = math.fsum(apart[np.arange(case.n), plan.bins].tolist())
    nothing = float(np.finfo(np.float64).eps * table.max() * weights.sum()) * 1e3
    if not near(plan.value, counted, case.rtol, nothing):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    for j, medoid in enumerate(plan.medoids.tolist()):
        mine = np.flatnonzero(plan.bins == j)
        totals = (weights[mine, None] * table[np.ix_(mine, mine)]).sum(axis=0)
        own = float(totals[mine == medoid][0])
        if own > totals.min() + (1e-9 if case.precise else 1e-5) * own + nothing:
            raise broken(case, "recount", f"medoid {medoid} has {own!r}, another of its group {totals.min()!r}")
    free = np.ones(case.n, bool)
    free[plan.medoids] = False
    _priced(case, apart, free, loads)


def _draw_least(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if "k" in given and draw(st.booleans()):
        n = len(given["X"] if "X" in given else given["distances"])
        room = int(np.min(given.get("capacity", n)))
        options["min_size"] = draw(st.integers(1, min(n // given["k"], room)))


def _draw_links(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Pairs that some placement within the sizes keeps."""
    if "k" not in given or not draw(st.booleans()):
        return
    n, k = len(given["X"] if "X" in given else given["distances"]), given["k"]
    room = np.broadcast_to(given.get("capacity", n), k)
    seats = [j for j in range(k) for _ in range(options.get("min_size", 1))]
    spare = [j for j in range(k) for _ in range(min(int(room[j]), n) - options.get("min_size", 1))]
    seats += list(draw(st.permutations(spare)))[: n - len(seats)]
    witness = list(draw(st.permutations(seats)))
    pairs = [(a, b) for a in range(n) for b in range(a)]
    for name, alike in (("must_link", True), ("cannot_link", False)):
        able = [list(pair) for pair in pairs if (witness[pair[0]] == witness[pair[1]]) == alike]
        if able and draw(st.booleans()):
            options[name] = draw(st.lists(st.sampled_from(able), min_size=1, max_size=4))


RECOUNTS: dict[str, Recount] = {
    "within_group_squares": _within_group_squares,
    "group_log_likelihood": _group_log_likelihood,
    "constrained_inertia": _inertia,
    "constrained_medoids": _medoids,
}
OPTIMA: dict[str, Optimum] = {"within_group_squares": _best_squares}
OPTIONS: dict[str, Drawer] = {"min_size": _draw_least, "must_link": _draw_links}
