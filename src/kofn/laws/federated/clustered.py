"""Naive bounds of coalitions and likelihoods of shared mixtures, client by client and row by row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.brute import partitions
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    distances,
    item_weights,
)

_MOST_CLIENTS = 8


def _clients(case: Case) -> tuple[Floats, list[float], float]:
    return distances(case), item_weights(case).tolist(), float(case.options.get("C", 5.0))


def _terms(apart: Floats, rows: list[float], C: float, members: list[int]) -> list[float]:
    """The bound of each member of one coalition."""
    total_rows = math.fsum(rows[j] for j in members)
    return [
        C / math.sqrt(total_rows) + math.fsum(rows[j] * float(apart[i, j]) for j in members) / total_rows
        for i in members
    ]


def _total(apart: Floats, rows: list[float], C: float, labels: list[int]) -> float:
    members = [[i for i, label in enumerate(labels) if label == name] for name in set(labels)]
    return math.fsum(term for coalition in members for term in _terms(apart, rows, C, coalition))


def _collaboration(case: Case) -> None:
    plan = case.plan
    apart, rows, C = _clients(case)
    labels = plan.labels.tolist()
    if sorted(set(labels)) != list(range(plan.k)):
        raise broken(case, "recount", f"the coalitions are {sorted(set(labels))}, told {plan.k}")
    counted = _total(apart, rows, C, labels)
    if not near(plan.value, counted, case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    for name, all_ in (("alone", list(range(case.n))), ("together", [0] * case.n)):
        if not near(plan.info[name], _total(apart, rows, C, all_), case.rtol):
            raise broken(case, "recount", f"{name} is {plan.info[name]!r}")
    slack = max(case.rtol, 1e-10) * (counted + float(apart.max()) * case.n)
    for client in range(case.n):
        for to in range(plan.k + 1):
            moved = [to if i == client else label for i, label in enumerate(labels)]
            if (after := _total(apart, rows, C, moved)) < counted - slack:
                raise broken(case, "recount", f"client {client} in coalition {to} lowers {counted!r} to {after!r}")
    for a, b in itertools.combinations(range(plan.k if case.options.get("unions", True) else 0), 2):
        united = [a if label == b else label for label in labels]
        if (after := _total(apart, rows, C, united)) < counted - slack:
            raise broken(case, "recount", f"coalitions {a} and {b} in one lower {counted!r} to {after!r}")


def _best_collaboration(case: Case) -> float | None:
    """The least summed bound of any partition."""
    if case.n > _MOST_CLIENTS:
        return None
    apart, rows, C = _clients(case)
    known: dict[tuple[int, ...], float] = {}
    best = math.inf
    for labels in partitions(case.n):
        total = 0.0
        for coalition in range(max(labels) + 1):
            members = tuple(i for i, label in enumerate(labels) if label == coalition)
            if members not in known:
                known[members] = math.fsum(_terms(apart, rows, C, list(members)))
            total += known[members]
        best = min(best, total)
    return best


def _density(gap: Floats, covariance: Floats) -> float:
    sign, size = np.linalg.slogdet(2 * math.pi * covariance)
    return float(-0.5 * (sign * size + gap @ np.linalg.inv(covariance) @ gap))


def _of_y(state: Mapping[str, Any], q: int, z: Floats, y: Any) -> float:
    """Log-probability of a label, or log-density of an amount in its own units, under one model of y."""
    outputs = state["coefficients"][q][0] + z @ state["coefficients"][q][1:]
    if state["task"] == "classes":
        top = float(outputs.max())
        position = state["classes"].tolist().index(y)
        return float(outputs[position]) - top - math.log(math.fsum(math.exp(float(output) - top) for output in outputs))
    noise = float(state["noise"][q])
    gap = (float(y) - state["y_origin"]) / state["y_scale"] - float(outputs[0])
    return -0.5 * (gap * gap / noise + math.log(2 * math.pi * noise)) - math.log(state["y_scale"])


def _penalties(state: Mapping[str, Any]) -> list[float]:
    shrink, ridge, out = state["shrink"], state["ridge"], []
    for covariance in state["covariances"]:
        _, size = np.linalg.slogdet(covariance)
        out.append(shrink / 2 * (float(size) + float(np.trace(np.linalg.inv(covariance)))))
    for slopes, noise in zip(state["coefficients"], state["noise"].tolist(), strict=True):
        squares = math.fsum((slopes[1:] ** 2).ravel().tolist())
        if state["task"] == "classes":
            out.append(ridge / 2 * squares)
        elif state["task"] == "amounts":
            out.append(((ridge * squares + shrink) / noise + shrink * math.log(noise)) / 2)
    if state["pull"]:
        out += [-state["pull"] * math.log(share) / len(mass) for mass in state["weights"] for share in mass.tolist()]
    return out


def _mixture(case: Case) -> None:
    plan, state = case.plan, {**case.plan.info["state"], **case.plan.info["state"]["settings"]}
    rows = np.asarray(case.words["X"], np.float64)
    y = None if "y" not in case.words else case.words["y"].tolist()
    own = case.words["groups"].tolist() if "groups" in case.words else [0] * case.n
    weights = dict(zip(state["clients"], state["weights"], strict=True))
    responsibilities, logs = np.zeros((case.n, plan.k)), []
    pairs = list(enumerate(zip(state["gaussian"].tolist(), state["predictor"].tolist(), strict=True)))
    for i, (row, client) in enumerate(zip(rows, own, strict=True)):
        z = (row - state["origin"]) / state["scale"]
        units = len(z) * math.log(state["scale"])
        terms = []
        for pair, (a, q) in pairs:
            log = math.log(weights[client][pair]) if weights[client][pair] > 0 else -math.inf
            log += _density(z - state["means"][a], state["covariances"][a]) - units
            terms.append(log + (0.0 if y is None else _of_y(state, q, z, y[i])))
        top = max(terms)
        total = math.fsum(math.exp(term - top) for term in terms)
        logs.append(top + math.log(total))
        for (_, (a, _q)), term in zip(pairs, terms, strict=True):
            responsibilities[i, a] += math.exp(term - top) / total
    lost = _penalties(state)
    counted, scale = math.fsum(logs) - math.fsum(lost), math.fsum(map(abs, logs + lost))
    if not near(plan.value, counted, 1e-7, scale):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    reported = np.zeros_like(responsibilities)
    reported[np.repeat(np.arange(case.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    if not np.allclose(reported, responsibilities, atol=1e-5):
        raise broken(case, "recount", f"the responsibilities are {reported}, recounted {responsibilities}")
    fall = -np.diff(plan.info["trace"]).min(initial=0.0)
    if fall > 1e-8 * scale:
        raise broken(case, "recount", f"the objective falls by {fall!r}")


def _draw_capacity(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Clients that all have rows, and what rows are worth at any scale of the distances."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    if "weights" in words:
        words["weights"] = np.where(np.asarray(words["weights"]) > 0, words["weights"], 1.0)
    options["C"] = draw(st.sampled_from((0.0, 0.01, 0.5, 1.0, 5.0, 5e3)))
    options["restarts"] = draw(st.integers(1, 4))
    options["unions"] = draw(st.booleans())


def _draw_models(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Clients, labels or amounts, and models of y for each Gaussian or for all."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    n = len(words["X"])
    if draw(st.booleans()):
        words["groups"] = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    kind = draw(st.sampled_from(("none", "classes", "amounts")))
    if kind == "classes":
        words["y"] = draw(st.lists(st.sampled_from("uvw"), min_size=n, max_size=n))
    elif kind == "amounts":
        words["y"] = [float(value) for value in draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))]
        options["task"] = "amounts"
    if kind != "none" and draw(st.booleans()):
        options["predictors"] = draw(st.integers(1, 3))
    options["shrink"] = draw(st.sampled_from((0.3, 1.0, 5.0)))
    options["max_iter"] = draw(st.sampled_from((1, 3, 30)))
    options["pull"] = draw(st.sampled_from((0.0, 0.5, 10.0)))


RECOUNTS: dict[str, Recount] = {"collaboration_bound": _collaboration, "penalised_log_likelihood": _mixture}
OPTIMA: dict[str, Optimum] = {"collaboration_bound": _best_collaboration}
OPTIONS: dict[str, Drawer] = {"C": _draw_capacity, "predictors": _draw_models}
