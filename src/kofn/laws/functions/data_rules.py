"""What the rules for data promise, written out plainly: worth under mistakes, likeness to queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw

Value = Callable[[Any], float]


def _cosine(a: Floats, b: Floats) -> float:
    size = math.sqrt(math.fsum((a * a).tolist())) * math.sqrt(math.fsum((b * b).tolist()))
    return math.fsum((a * b).tolist()) / size if size > 0 else 0.0


def _query_similarity(case: Case) -> Value:
    rows = np.asarray(case.words["X"], np.float64)
    queries = np.asarray(case.options["queries"], np.float64)
    best = [max(_cosine(row, query) for query in queries) for row in rows]
    return lambda picks: math.fsum(best[int(item)] for item in picks)


def _worst_case_worth(case: Case) -> None:
    """The adversary spoils the rows that the draw counts on most."""
    plan = case.plan
    scores = np.asarray(case.words["scores"], np.float64)
    chances = np.asarray(plan.probabilities, np.float64)
    if not near(math.fsum(chances.tolist()), float(case.words["k"]), 1e-9):
        raise broken(case, "recount", f"chances sum to {math.fsum(chances.tolist())!r}, k is {case.words['k']}")
    worth = sorted((scores * chances).tolist(), reverse=True)
    kept = math.fsum(worth[int(plan.info["mistakes"]) :])
    if not near(plan.value, kept, case.rtol, math.fsum(worth)):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {kept!r}")


def _source_score(case: Case) -> None:
    """The rating of the picked rows, asked for again, and no source in part."""
    plan = case.plan
    told = float(case.words["score"](np.asarray(plan.indices)))
    if not near(plan.value, told, case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, the score of the picks {told!r}")
    groups = np.asarray(case.words["groups"]).astype(str)
    held = groups[np.asarray(plan.indices)]
    for label in np.unique(held):
        if (held == label).sum() != (groups == label).sum():
            raise broken(case, "recount", f"source {label!r} is picked in part")


def _predicted_loss(case: Case) -> None:
    """The law of the fitted numbers, pass by pass; the union that is best under it; and equal passes over its pools."""
    plan, info = case.plan, case.plan.info
    sizes = np.asarray(case.options.get("sizes", np.ones(case.n)), np.float64)
    budget = float(case.words["budget"])
    rate, half_life = np.asarray(info["utility"]), np.asarray(info["half_life"])

    def loss(pools: list[int]) -> float:
        rows = float(sizes[pools].sum())
        excess, seen, turn = float(info["scale"]), float(info["unit"]), 0
        while turn == 0 or seen < budget * (1 - 1e-12):
            end = min(rows * (turn + 1), budget)
            power = sum(sizes[i] / rows * rate[i] * 0.5 ** (turn / (half_life[i] * rows / sizes[i])) for i in pools)
            excess, seen, turn = excess * (end / seen) ** -power, end, turn + 1
        return float(info["loss_floor"]) + excess

    told = loss(list(info["pools"]))
    # What the law predicts is a product over the passes, and then a sum.
    if not near(plan.value, told, 1e-9, abs(float(info["loss_floor"]))):
        raise broken(case, "recount", f"value is {plan.value!r}, the law gives {told!r}")
    for pools, said in info["tried"]:
        if said < plan.value:
            raise broken(case, "recount", f"pools {pools} are better: {said!r}")
    for item in range(case.n):
        passes = budget / sizes[list(info["pools"])].sum() if item in info["pools"] else 0.0
        if not near(float(plan.amounts[item]), passes, 1e-12):
            raise broken(case, "recount", f"pool {item} is passed {plan.amounts[item]!r} times, not {passes!r}")


FUNCTIONS: dict[str, Callable[[Case], Value]] = {"query_similarity": _query_similarity}
RECOUNTS: dict[str, Callable[[Case], None]] = {
    "worst_case_worth": _worst_case_worth,
    "source_score": _source_score,
    "predicted_loss": _predicted_loss,
}


def _draw_tasks(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Queries, rows of the pool or others, of one task each or of two."""
    rows = np.asarray(given["X"], np.float64)
    count = draw(st.integers(1, 3))
    chosen = rows[draw(st.lists(st.integers(0, len(rows) - 1), min_size=count, max_size=count))]
    options["queries"] = chosen + draw(st.sampled_from((0.0, 1.0))) * np.arange(count)[:, None]
    if draw(st.booleans()):
        options["tasks"] = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))


def _draw_error(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Labels are worth nothing or more."""
    given["scores"] = np.abs(given["scores"])  # type: ignore[index]
    options["error"] = draw(st.sampled_from((0.0, 0.1, 0.25, 0.5, 1.0)))


def _draw_target(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Sources, one of them the target, that fit the budget; and a score that any rows have."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    words.pop("k", None)
    n = len(words["X"])
    groups = np.array(draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)))
    words["groups"], options["target"] = groups, str(groups[0])
    if "costs" in words:
        own = np.asarray(words["costs"])[groups == groups[0]].tolist()
        words["budget"] = max(words["budget"], sum(own) if isinstance(own[0], int) else math.fsum(own))
    if draw(st.booleans()):
        worth = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
        words["score"] = lambda rows: float(np.asarray(worth)[rows].sum())
        options["patience"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        options["most"] = draw(st.integers(0, 3))


def _draw_unions(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Pools that have rows and were measured, and samples to see."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    n, width = np.asarray(words["curves"]).shape
    for name in ("sizes", "levels"):
        options.pop(name, None)
    if draw(st.booleans()):
        options["sizes"] = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)), np.float64)
    # By default the first level is none, so that one level alone would measure nothing.
    if width == 1 or draw(st.booleans()):
        options["levels"] = np.arange(1, width + 1) * draw(st.sampled_from((0.5, 1.0, 3.0)))
    words["budget"] = draw(st.sampled_from((0.5, 1, 3, 40.5)))
    options["unions"] = draw(st.sampled_from(("prefix", "all")))


OPTIONS: dict[str, Callable[[Draw, Mapping[str, Any], dict[str, Any]], None]] = {
    "tasks": _draw_tasks,
    "error": _draw_error,
    "target": _draw_target,
    "unions": _draw_unions,
}
