"""Assignments that a graph of neighbours smooths, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.selection.labels import partly_labelled
from kofn.laws.words import (
    Recount,
)


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
    terms: list[float] = []
    for i, row in enumerate(soft.tolist()):
        squares = ((rows[i] - plan.centers) ** 2).sum(axis=1) / plan.info["temperature"]
        terms += [s * float(cost) + (s * math.log(s) if s > 0 else 0.0) for s, cost in zip(row, squares, strict=True)]
        smooth = sum(graph[i, j] * float(soft[i] @ soft[j]) for j in range(case.n))
        terms.append(-float(options.get("lam", 1.0)) / 2 * smooth)
    counted, scale = math.fsum(terms), math.fsum(map(abs, terms))
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


def _draw_smooth(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Of both kinds of prototypes, and with neighbours that count for more than the entropy can hold."""
    options["update_prototypes"] = draw(st.booleans())
    options["lam"] = draw(st.sampled_from((0.0, 0.5, 1.0, 4.0, 30.0)))


RECOUNTS: dict[str, Recount] = {"laplacian_clustering": _laplacian}
OPTIONS: dict[str, Drawer] = {"unlabelled": partly_labelled, "update_prototypes": _draw_smooth}
