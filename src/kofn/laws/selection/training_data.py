"""What data for training promises, written out plainly: worth under mistakes, likeness to queries, ratings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    Value,
)

# Sets of mistakes that are looked at.
_MOST_SETS = 1_000


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


def _best_worst_case(case: Case) -> float | None:
    """The most worth that any chances keep whichever rows are spoiled: a linear program over all sets of mistakes."""
    from scipy.optimize import linprog

    open_rows = np.setdiff1d(np.arange(case.n), case.words.get("exclude", []))
    scores = np.asarray(case.words["scores"], np.float64)[open_rows]
    unit, m = float(scores.max()) or 1.0, len(open_rows)
    kept = list(itertools.combinations(range(m), m - int(case.plan.info["mistakes"])))
    if len(kept) > _MOST_SETS:
        return None
    table = np.zeros((len(kept), m + 1))
    for row, places in zip(table, kept, strict=True):
        row[list(places)] = -scores[list(places)] / unit
    table[:, m] = 1.0
    spent = np.append(np.ones(m), 0.0)[None]
    solved = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=table,
        b_ub=np.zeros(len(kept)),
        A_eq=spent,
        b_eq=[float(case.words["k"])],
        bounds=[(0, 1)] * m + [(0, None)],
        method="highs",
    )
    if solved.x is None:
        return None
    chances = solved.x[:m] * scores
    return min(math.fsum(chances[list(places)].tolist()) for places in kept)


def _source_score(case: Case) -> None:
    """The rating of the picked rows, asked for again, and no source in part."""
    plan = case.plan
    score = float(case.words["score"](np.asarray(plan.indices)))
    if not near(plan.value, score, case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, the score of the picks {score!r}")
    groups = np.asarray(case.words["groups"]).astype(str)
    picked = groups[np.asarray(plan.indices)]
    for label in np.unique(picked):
        if (picked == label).sum() != (groups == label).sum():
            raise broken(case, "recount", f"source {label!r} is picked in part")


def _draw_tasks(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Queries, rows of the pool or others, of one task each or of two."""
    rows = np.asarray(given["X"], np.float64)
    count = draw(st.integers(1, 3))
    chosen = rows[draw(st.lists(st.integers(0, len(rows) - 1), min_size=count, max_size=count))]
    options["queries"] = chosen + draw(st.sampled_from((0.0, 1.0))) * np.arange(count)[:, None]
    if draw(st.booleans()):
        options["tasks"] = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))


def _draw_balance(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Queries near rows of the pool, and how relevance weighs against novelty."""
    rows = np.asarray(given["X"], np.float64)
    count = draw(st.integers(1, 3))
    options["queries"] = rows[draw(st.lists(st.integers(0, len(rows) - 1), min_size=count, max_size=count))] + 1.0
    options["balance"] = draw(st.sampled_from((0.0, 0.3, 0.7, 1.0)))
    options["relevance"] = draw(st.sampled_from(("cosine", "product")))


def _marginal_relevance(case: Case) -> None:
    """Each pick's score against the queries and the picks before it; where only k binds, no other row that repeats no
    pick had a higher one."""
    plan = case.plan
    rows = np.asarray(case.words["X"], np.float64)
    queries, balance = np.asarray(case.options["queries"], np.float64), float(case.options.get("balance", 0.8))
    picks = [int(item) for item in plan.indices]
    out = set(np.atleast_1d(np.asarray(case.words.get("exclude", []), np.int64)).tolist())
    products = case.options.get("relevance") == "product"
    rows_unit, queries_unit = np.abs(rows).max(initial=0.0) or 1.0, np.abs(queries).max() or 1.0

    def like(row: Any, query: Any) -> float:
        return float((row / rows_unit) @ (query / queries_unit)) if products else _cosine(row, query)

    best = [max((like(rows[row], query) for row in set(range(len(rows))) - out), default=0.0) for query in queries]
    if products:
        # Where no product is above 0 the unit is the size of the lowest one.
        open_ = sorted(set(range(len(rows))) - out)
        lowest = [min((like(rows[row], query) for row in open_), default=0.0) for query in queries]
        best = [value if value > 0 else -low for value, low in zip(best, lowest, strict=True)]
    scale = [(1.0 if products else max(0.0, *best)) / value if value > 0 else 1.0 for value in best]
    free = not {"quotas", "budget", "include", "start"} & case.words.keys()
    # After a time limit picks are filled in, which carry no score where no time was left to take it.
    in_time = plan.info["found_in_time"] if plan.status == "stopped" else len(picks)
    relevances = {
        row: max(like(rows[row], query) * by for query, by in zip(queries, scale, strict=True))
        for row in set(range(len(rows))) - out
    }
    if free:
        _filled_by_relevance(case, relevances, in_time, repeats_count=balance < 1)
    for position, pick in enumerate(picks):
        before = picks[:position]
        score, repeats = {}, {}
        for row in set(range(len(rows))) - set(before) - out:
            repeats[row] = max((_cosine(rows[row], rows[other]) for other in before), default=0.0)
            score[row] = balance * relevances[row] - (1 - balance) * repeats[row]
        unknown = position >= in_time and np.isnan(plan.gains[position:]).all()
        if not unknown and not near(float(plan.gains[position]), score[pick], 1e-8, 1.0):
            raise broken(
                case, "recount", f"pick {position} has the score {score[pick]!r}, not {plan.gains[position]!r}"
            )
        fresh = [score[row] for row in score if repeats[row] < 1 - 1e-8 or balance == 1]
        if free and position < in_time and fresh and max(fresh) > score[pick] + 1e-8:
            raise broken(
                case, "recount", f"pick {position} has the score {score[pick]!r}, the highest is {max(fresh)!r}"
            )


def _filled_by_relevance(case: Case, relevances: dict[int, float], in_time: int, *, repeats_count: bool) -> None:
    """Where only k binds, no row that is left out is more relevant than one that makes up the number, unless it repeats
    a pick that was made in time."""
    rows = np.asarray(case.words["X"], np.float64)
    picks = [int(item) for item in case.plan.indices]
    in_order, filled = picks[:in_time], picks[in_time:]
    for position, pick in enumerate(filled):
        for row in relevances.keys() - set(in_order) - set(filled[: position + 1]):
            fresh = not repeats_count or all(_cosine(rows[row], rows[other]) < 1 - 1e-8 for other in in_order)
            if fresh and relevances[row] > relevances[pick] + 1e-8:
                raise broken(
                    case, "recount", f"row {pick} makes up the number, less relevant than row {row}, which does not"
                )


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


def _cutoff(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    spare = (len(given["scores"]) - given["k"]) / len(given["scores"])
    options["cutoff"] = draw(st.sampled_from((0.0, min(0.1, spare), spare * 0.99)))


def _draw_smart(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """The task of each row, and whether all tasks are kept."""
    n = len(given["X"])
    words: dict[str, Any] = given  # type: ignore[assignment]
    words["groups"] = [f"task {code}" for code in draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))]
    if draw(st.booleans()):
        options["n_tasks"] = len(set(words["groups"]))


FUNCTIONS: dict[str, Callable[[Case], Value]] = {"query_similarity": _query_similarity}
OPTIMA: dict[str, Optimum] = {"worst_case_worth": _best_worst_case}
RECOUNTS: dict[str, Recount] = {
    "worst_case_worth": _worst_case_worth,
    "source_score": _source_score,
    "marginal_relevance": _marginal_relevance,
}
OPTIONS: dict[str, Drawer] = {
    "tasks": _draw_tasks,
    "n_tasks": _draw_smart,
    "balance": _draw_balance,
    "error": _draw_error,
    "target": _draw_target,
    "cutoff": _cutoff,
}
