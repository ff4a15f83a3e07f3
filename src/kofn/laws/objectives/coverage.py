"""Coverage, graph cut and the medoid loss again, item by item, and the parameters that they are drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.core.checks import is_sparse
from kofn.laws.case import Case
from kofn.laws.inputs import Draw, TextDrawer
from kofn.laws.words import (
    Value,
    pairwise,
)


def _apart(case: Case) -> Floats:
    """(n, n) distances of the rows, `cosine` as 1 - cos."""
    return pairwise(case.words["X"], case.words.get("metric", "euclidean"))


def _similarity(case: Case) -> Floats:
    """(n, n): as given, or the largest distance less the distance, or (1 + cos) / 2."""
    if "similarity" in case.words:
        given = case.words["similarity"]
        return np.asarray(given.toarray() if is_sparse(given) else given, np.float64)
    apart = _apart(case)
    return 1 - apart / 2 if case.words.get("metric") == "cosine" else apart.max() - apart


def _weights(case: Case) -> list[float]:
    return np.asarray(case.words.get("weights", np.ones(case.n)), np.float64).tolist()


def _saturated_coverage(case: Case, alpha: float = 0.1) -> Value:
    rows, weights = _similarity(case).tolist(), _weights(case)
    enough = [alpha * math.fsum(row) for row in rows]

    def value(picks: Any) -> float:
        served = [math.fsum(row[j] for j in map(int, picks)) for row in rows]
        return math.fsum(w * min(s, most) for w, s, most in zip(weights, served, enough, strict=True))

    return value


def _graph_cut(case: Case, lam: float = 0.5) -> Value:
    rows, weights = _similarity(case).tolist(), _weights(case)

    def value(picks: Any) -> float:
        chosen = list(map(int, picks))
        to_pool = [w * row[j] for w, row in zip(weights, rows, strict=True) for j in chosen]
        return math.fsum(to_pool + [-lam * rows[i][j] for i in chosen for j in chosen])

    return value


def _feature_based(case: Case, concave: str = "sqrt", feature_weights: Any = None, cap: Any = 1.0) -> Value:
    table = np.asarray(case.words["X"], np.float64)
    weights = np.broadcast_to(1.0 if feature_weights is None else feature_weights, table.shape[1]).tolist()
    caps = np.broadcast_to(cap, table.shape[1]).tolist()

    def worth(total: float, most: float) -> float:
        if concave == "capped":
            return min(total, most)
        return math.sqrt(total) if concave == "sqrt" else math.log1p(total)

    def value(picks: Any) -> float:
        totals = [math.fsum(table[list(picks), u].tolist()) for u in range(table.shape[1])]
        return math.fsum(w * worth(t, most) for w, t, most in zip(weights, totals, caps, strict=True))

    return value


def _weighted_coverage(case: Case, element_weights: Any = None) -> Value:
    table = np.asarray(case.words["X"])
    weights = np.broadcast_to(1.0 if element_weights is None else element_weights, table.shape[1]).tolist()
    sets = [set(np.flatnonzero(row > 0).tolist()) for row in table]

    def value(picks: Any) -> float:
        return math.fsum(weights[u] for u in set().union(*(sets[j] for j in map(int, picks))))

    return value


def _medoid_loss(case: Case, phantom: Any = None) -> Value:
    weights = _weights(case)
    if "distances" in case.words:
        apart = np.asarray(case.words["distances"], np.float64)
        first = np.full(case.n, apart.max() if phantom is None else float(phantom))
    elif isinstance(phantom, int | float):
        apart, first = _apart(case), np.full(case.n, float(phantom))
    else:
        rows = np.asarray(case.words["X"], np.float64)
        point = np.zeros((1, rows.shape[1])) if phantom is None else np.asarray(phantom, np.float64)[None]
        both = pairwise(np.concatenate([rows, point]), case.words.get("metric", "euclidean"))
        apart, first = both[:-1, :-1], both[:-1, -1]

    def value(picks: Any) -> float:
        nearest = [min([e0, *(float(apart[i, j]) for j in map(int, picks))]) for i, e0 in enumerate(first.tolist())]
        return math.fsum(w * (e0 - near) for w, e0, near in zip(weights, first.tolist(), nearest, strict=True))

    return value


def _draw_saturated(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    return f"saturated_coverage(alpha={draw(st.sampled_from((0.1, 0.25, 0.5, 1.0)))})"


def _draw_cut(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    return f"graph_cut(lam={draw(st.sampled_from((0.0, 0.25, 0.5, 0.75, 2.0)))})"


def _draw_features(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    given["X"] = np.abs(np.asarray(given["X"]))
    inside = draw(st.sampled_from(("", "concave='log'", "concave='capped'", "concave='capped', cap=2.5")))
    if draw(st.booleans()):
        weights = draw(_some_weights(given["X"].shape[1]))
        inside = ", ".join(filter(None, (inside, f"feature_weights={weights}")))
    return f"feature_based({inside})"


def _draw_elements(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    given["X"] = np.maximum(np.asarray(given["X"]), 0)
    if draw(st.booleans()):
        return "weighted_coverage"
    return f"weighted_coverage(element_weights={draw(_some_weights(given['X'].shape[1]))})"


def _draw_medoids(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    phantoms: list[Any] = ["None", "0.5", "3"]
    if "X" in given:
        width = np.asarray(given["X"]).shape[1]
        phantoms.append(str([float(draw(st.integers(-2, 2))) for _ in range(width)]))
    return f"medoid_loss(phantom={draw(st.sampled_from(phantoms))})"


def _some_weights(count: int) -> st.SearchStrategy[list[float]]:
    some = st.lists(st.sampled_from((0.0, 0.5, 1.0, 3.0)), min_size=count, max_size=count)
    return some.filter(any)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "saturated_coverage": _saturated_coverage,
    "graph_cut": _graph_cut,
    "feature_based": _feature_based,
    "weighted_coverage": _weighted_coverage,
    "medoid_loss": _medoid_loss,
}
OBJECTIVES: dict[str, TextDrawer] = {
    "saturated_coverage": _draw_saturated,
    "graph_cut": _draw_cut,
    "feature_based": _draw_features,
    "weighted_coverage": _draw_elements,
    "medoid_loss": _draw_medoids,
}
