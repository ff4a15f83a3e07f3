"""Groups under constraints, written out plainly: sums of distances, sizes, links, prices, and the Laplacian form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near

if TYPE_CHECKING:
    from kofn.laws.inputs import Draw


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
    from kofn.laws.recount import distances

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


def _laplacian(case: Case) -> None:
    plan, options = case.plan, case.options
    rows = np.asarray(case.words["X"], np.float64)
    soft = np.zeros((case.n, plan.k))
    soft[np.repeat(np.arange(case.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    if not np.allclose(soft.sum(axis=1), 1.0, rtol=1e-12):
        raise broken(case, "recount", "a row's shares do not sum to one")
    missing = options.get("unlabelled", -1)
    for i, label in enumerate(np.asarray(case.words["y"]).tolist()):
        if str(label) != str(missing) and soft[i, plan.info["classes"].index(label)] != 1.0:
            raise broken(case, "recount", f"row {i} is labelled {label!r} and assigned {soft[i]}")
    graph = _graph(case, rows, min(int(options.get("n_neighbors", 5)), case.n - 1))
    told: list[float] = []
    for i, row in enumerate(soft.tolist()):
        squares = ((rows[i] - plan.centers) ** 2).sum(axis=1) / plan.info["temperature"]
        told += [s * float(cost) + (s * math.log(s) if s > 0 else 0.0) for s, cost in zip(row, squares, strict=True)]
        smooth = sum(graph[i, j] * float(soft[i] @ soft[j]) for j in range(case.n))
        told.append(-float(options.get("lam", 1.0)) / 2 * smooth)
    counted, scale = math.fsum(told), math.fsum(map(abs, told))
    if not near(plan.value, counted, max(case.rtol, 1e-10), scale):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    rise = np.diff(plan.info["trace"])
    if len(rise) and rise.max() > 1e-10 * scale:
        raise broken(case, "recount", f"the objective rises by {rise.max()!r} at step {int(rise.argmax())}")


def _graph(case: Case, rows: Floats, count: int) -> Floats:
    """(n, n) the joined lists of neighbours; which of equally near ones are listed is the index's to say."""
    graph = np.zeros((case.n, case.n))
    if count < 1:
        return graph
    from kofn.neighbors import knn_graph

    lists = knn_graph(case.words["X"], count).indices
    for i, listed in enumerate(lists.tolist()):
        squares = ((rows - rows[i]) ** 2).sum(axis=1)
        others = [j for j in range(case.n) if j != i and j not in listed]
        slack = 1e-9 * float((rows**2).sum(axis=1).max())
        if i in listed or (others and squares[listed].max() > squares[others].min() + slack):
            raise broken(case, "recount", f"row {i} lists {listed}, which are not the nearest")
        graph[i, listed] += 0.5
        graph[listed, i] += 0.5
    return graph


RECOUNTS: dict[str, Callable[[Case], None]] = {
    "constrained_inertia": _inertia,
    "constrained_medoids": _medoids,
    "laplacian_clustering": _laplacian,
}


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


def _draw_smooth(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Of both kinds of prototypes, and with neighbours that count for more than the entropy can hold."""
    options["update_prototypes"] = draw(st.booleans())
    options["lam"] = draw(st.sampled_from((0.0, 0.5, 1.0, 4.0, 30.0)))


OPTIONS: dict[str, Callable[[Draw, Mapping[str, Any], dict[str, Any]], None]] = {
    "min_size": _draw_least,
    "must_link": _draw_links,
    "update_prototypes": _draw_smooth,
}
