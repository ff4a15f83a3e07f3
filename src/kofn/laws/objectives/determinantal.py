"""Log-determinants and query-targeted functions again, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.core.checks import is_sparse
from kofn.laws.case import Case
from kofn.laws.inputs import Draw, TextDrawer, objective_text
from kofn.laws.words import (
    SetFunction,
    Value,
    pairwise,
)


def _rows(case: Case, *sets: Any) -> Floats:
    """The pool's rows and those of further sets, one above the other, in float64."""
    parts = [np.asarray(part, np.float64) for part in (case.words["X"], *sets)]
    return np.concatenate(parts)


def _width(case: Case, scale: float | None) -> float:
    rows = np.asarray(case.words["X"], np.float64)
    gap = rows - rows.mean(axis=0)
    return scale or math.sqrt(2 * (gap * gap).sum(axis=1).mean()) or 1.0


def _kernel(case: Case, kernel: str, scale: float | None, *sets: Any) -> Floats:
    """(m, m) kernel of the pool followed by further points."""
    if "similarity" in case.words:
        given = case.words["similarity"]
        return np.asarray(given.toarray() if is_sparse(given) else given, np.float64)
    rows = _rows(case, *sets)
    if kernel == "cosine":
        return 1 - pairwise(rows, "cosine") / 2
    if kernel == "rbf":
        return np.exp(-pairwise(rows, "sqeuclidean") / (2 * _width(case, scale) ** 2))
    return rows @ rows.T


def _log_det(matrix: Floats) -> float:
    """By elimination with the largest pivot first, which is the plainest way that keeps its digits."""
    left, total = matrix.copy(), []
    while len(left):
        top = int(np.argmax(left.diagonal()))
        pivot = float(left[top, top])
        if pivot <= 0:
            return -math.inf
        total.append(math.log(pivot))
        left = left - np.outer(left[:, top], left[top]) / pivot
        left = np.delete(np.delete(left, top, 0), top, 1)
    return math.fsum(total)


def _steady(name: str, value: Value, matrix: Floats, shift: float, *, submodular: bool = True) -> Any:
    """A set function whose rounding is that of determinants: relative to the kernel over the shift."""
    most = float(matrix.diagonal().max(initial=0.0)) + shift
    size = len(matrix) * (abs(math.log(most)) + 64 * most / shift)
    return SetFunction(name, value, None, lambda _picks: size, submodular, True if shift >= 1 else None)


def _log_determinant(case: Case, kernel: str = "linear", scale: float | None = None, shift: float = 1.0) -> Any:
    matrix = _kernel(case, kernel, scale)

    def value(picks: Any) -> float:
        chosen = np.asarray(picks, np.int64)
        return _log_det(matrix[np.ix_(chosen, chosen)] + shift * np.eye(len(chosen)))

    return _steady("log_determinant", value, matrix, shift)


def _given_points(case: Case, name: str) -> Floats:
    return np.asarray(case.options[name], np.float64)


def _conditional(
    case: Case, points: Floats, strength: float, kernel: str, scale: float | None, shift: float
) -> tuple[Floats, Value]:
    n = case.n
    matrix = _kernel(case, kernel, scale, points)
    matrix = matrix + shift * np.eye(len(matrix))
    inverse = np.linalg.inv(matrix[n:, n:])

    def value(picks: Any) -> float:
        chosen = np.asarray(picks, np.int64)
        cross = strength * matrix[np.ix_(chosen, np.arange(n, len(matrix)))]
        return _log_det(matrix[np.ix_(chosen, chosen)] - cross @ inverse @ cross.T)

    return matrix, value


def _log_determinant_conditional_gain(
    case: Case, nu: float = 1.0, kernel: str = "linear", scale: float | None = None, shift: float = 1.0
) -> Any:
    matrix, value = _conditional(case, _given_points(case, "private"), nu, kernel, scale, shift)
    return _steady("log_determinant_conditional_gain", value, matrix, shift)


def _log_determinant_mutual_information(
    case: Case, eta: float = 1.0, kernel: str = "linear", scale: float | None = None, shift: float = 1.0
) -> Any:
    matrix, given = _conditional(case, _given_points(case, "queries"), eta, kernel, scale, shift)

    def value(picks: Any) -> float:
        chosen = np.asarray(picks, np.int64)
        return _log_det(matrix[np.ix_(chosen, chosen)]) - given(picks)

    return _steady("log_determinant_mutual_information", value, matrix, shift, submodular=False)


def _item_weights(case: Case) -> list[float]:
    return np.asarray(case.words.get("weights", np.ones(case.n)), np.float64).tolist()


def _clipped(case: Case, low: Floats, high: Floats, matrix: Floats) -> Value:
    weights = _item_weights(case)

    def value(picks: Any) -> float:
        chosen = list(map(int, picks))
        total = []
        for i, weight in enumerate(weights):
            served = max((float(matrix[i, j]) for j in chosen), default=0.0)
            total.append(weight * max(0.0, min(served, float(high[i])) - float(low[i])))
        return math.fsum(total)

    return value


def _facility_location_mutual_information(
    case: Case, eta: float = 1.0, nu: float = 1.0, kernel: str = "cosine", scale: float | None = None
) -> Value:
    n, queries, private = case.n, _given_points(case, "queries"), case.options.get("private")
    matrix = _kernel(case, kernel, scale, queries, *([] if private is None else [private]))
    low = np.zeros(n) if private is None else nu * matrix[:n, n + len(queries) :].max(axis=1)
    return _clipped(case, low, eta * matrix[:n, n : n + len(queries)].max(axis=1), matrix)


def _facility_location_conditional_gain(
    case: Case, nu: float = 1.0, kernel: str = "cosine", scale: float | None = None
) -> Value:
    n = case.n
    matrix = _kernel(case, kernel, scale, _given_points(case, "private"))
    return _clipped(case, nu * matrix[:n, n:].max(axis=1), np.full(n, np.inf), matrix)


def _graph_cut_mutual_information(
    case: Case, lam: float = 0.5, kernel: str = "cosine", scale: float | None = None
) -> Value:
    n = case.n
    matrix = _kernel(case, kernel, scale, _given_points(case, "queries"))
    return lambda picks: 2 * lam * math.fsum(float(s) for j in map(int, picks) for s in matrix[j, n:])


def _shape(draw: Draw, kernels: tuple[str, ...]) -> dict[str, Any]:
    kernel = draw(st.sampled_from(kernels))
    return {"kernel": kernel, "scale": draw(st.sampled_from((None, 0.5, 2.0))) if kernel == "rbf" else None}


def _points(draw: Draw, given: dict[str, Any]) -> list[list[float]]:
    """A few points among and beside the pool's rows."""
    rows = np.asarray(given["X"], np.float64)
    some = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3))
    off = draw(st.sampled_from((0.0, 0.0, 0.5)))
    return (rows[some] + off * np.abs(rows).max()).tolist()


def _draw_log_determinant(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    shift = draw(st.sampled_from((1.0, 1.0, 2.0, 0.25)))
    if "X" in given:
        return objective_text("log_determinant", shift=shift, **_shape(draw, ("linear", "rbf", "cosine")))
    # Any matrix of similarities makes a kernel: its Gram matrix.
    table = given["similarity"]
    table = np.asarray(table.toarray() if is_sparse(table) else table, np.float64)
    gram = table @ table.T
    given["similarity"] = gram / max(float(gram.max()), 1e-300)
    return objective_text("log_determinant", shift=shift)


def _drawer(name: str, words: tuple[str, ...], own: dict[str, tuple[Any, ...]], kernels: tuple[str, ...]) -> Any:
    def draw_text(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str | None:
        if "X" not in given:
            return None
        for word in words:
            options[word] = _points(draw, given)
        return objective_text(
            name, **{key: draw(st.sampled_from(values)) for key, values in own.items()}, **_shape(draw, kernels)
        )

    return draw_text


_ANY, _NEAR = ("linear", "rbf", "cosine"), ("rbf", "cosine")


_SHARE, _LEVEL = (None, 0.5, 1.0), (None, 0.5, 2.0)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log_determinant": _log_determinant,
    "log_determinant_conditional_gain": _log_determinant_conditional_gain,
    "log_determinant_mutual_information": _log_determinant_mutual_information,
    "facility_location_mutual_information": _facility_location_mutual_information,
    "facility_location_conditional_gain": _facility_location_conditional_gain,
    "graph_cut_mutual_information": _graph_cut_mutual_information,
}
OBJECTIVES: dict[str, TextDrawer] = {
    "log_determinant": _draw_log_determinant,
    "log_determinant_conditional_gain": _drawer(
        "log_determinant_conditional_gain", ("private",), {"nu": _SHARE, "shift": (None, 2.0)}, _ANY
    ),
    "log_determinant_mutual_information": _drawer(
        "log_determinant_mutual_information", ("queries",), {"eta": _SHARE, "shift": (None, 2.0)}, _ANY
    ),
    "facility_location_mutual_information": _drawer(
        "facility_location_mutual_information", ("queries",), {"eta": _LEVEL}, _NEAR
    ),
    "facility_location_conditional_gain": _drawer(
        "facility_location_conditional_gain", ("private",), {"nu": _LEVEL}, _NEAR
    ),
    "graph_cut_mutual_information": _drawer("graph_cut_mutual_information", ("queries",), {"lam": _LEVEL}, _NEAR),
}
