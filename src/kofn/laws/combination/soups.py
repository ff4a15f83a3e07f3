"""Searches over blends: the score recomputed and the ratings counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import (
    Recount,
)


def _rated(blend: Any) -> Any:
    if isinstance(blend, Mapping):
        return np.concatenate([np.asarray(blend[name], np.float64).ravel() for name in sorted(blend)])
    return np.asarray(blend, np.float64).ravel()


def _blend_score(case: Case) -> None:
    """The very blend that was rated comes back, no rating was better, and none was made beyond the budget."""
    plan, rows = case.plan, case.plan.info["evaluations"]
    again = float(case.words["score"](plan.result))
    if again != plan.value:
        raise broken(case, "recount", f"value is {plan.value!r}, the score of the result {again!r}")
    m, rated = len(case.words["members"]), [row["score"] for row in rows]
    most = case.words.get("budget", 2 * m - 1)
    if not 1 <= len(rows) <= most or plan.used != {"evaluations": len(rows)}:
        raise broken(case, "recount", f"{len(rows)} ratings, used {plan.used}, the budget is {most}")
    if "population" in plan.options:
        if plan.value != max(rated):
            raise broken(case, "recount", f"value is {plan.value!r}, the best rating {max(rated)!r}")
        if plan.status != "stopped" and len(rows) != most and (m > 1 or "base" in case.words):
            raise broken(case, "recount", f"{len(rows)} of {most} ratings")
        return
    alone = [row["score"] for row in rows if max(row["weights"]) == 1]
    if plan.value < max(alone):
        raise broken(case, "recount", f"value is {plan.value!r}, a member alone has {max(alone)!r}")
    picked = plan.selection.indices
    if plan.weights.tolist() != (np.isin(np.arange(m), picked) / len(picked)).tolist():
        raise broken(case, "recount", f"the picks are {picked}, the weights {plan.weights}")


def _draw_score(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """How near a blend is to somewhere, in steps or not; and how many may be rated."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    if "score" in words:
        return
    rows = [_rated(member) for member in words["members"]]
    rng, m = seeded(draw), len(rows)
    target = rng.dirichlet(np.ones(m)) @ np.array(rows) + rng.normal(size=len(rows[0])) * draw(
        st.sampled_from((0.0, 0.5))
    )
    step = draw(st.sampled_from((0.0, 0.5)))

    def score(blend: Any) -> float:
        off = float(np.abs(_rated(blend) - target).sum())
        return -off if step == 0 else -step * np.floor(off / step)

    words["score"] = score
    if "population" not in options and draw(st.booleans()):
        words["scores"] = rng.integers(0, 3, m).astype(np.float64)
    if draw(st.booleans()):
        words["budget"] = draw(st.integers(1, 2 * m + 1))


def _draw_search(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    words: dict[str, Any] = given  # type: ignore[assignment]
    options["population"] = draw(st.integers(2, 6))
    options["negative"] = draw(st.booleans())
    _draw_score(draw, given, options)
    words["budget"] = draw(st.integers(1, 20))
    if draw(st.integers(0, 2)) == 0:
        words["base"] = words["members"][draw(st.integers(0, len(words["members"]) - 1))]


RECOUNTS: dict[str, Recount] = {"blend_score": _blend_score}
OPTIONS: dict[str, Drawer] = {"population": _draw_search, "record": _draw_score}
