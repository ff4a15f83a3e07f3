"""Rows of tasks: all of the budget, and gains that fall."""

from __future__ import annotations

import math

from kofn.laws.case import Case, broken
from kofn.laws.words import Recount, agree


def _task_gains(case: Case) -> None:
    plan, info = case.plan, case.plan.info
    agree(case, "value", plan.value, math.fsum(plan.values.tolist()))
    if int(plan.amounts.sum()) != case.words["budget"]:
        raise broken(case, "recount", f"{plan.amounts.sum()} rows of {case.words['budget']}")
    kept = info["order"].tolist()
    if len(set(kept)) != len(kept) or len(kept) != case.words.get("k", case.n):
        raise broken(case, "recount", f"tasks {kept} are kept")
    left_out = set(range(case.n)) - set(kept)
    if any(plan.amounts[task] for task in left_out):
        raise broken(case, "recount", "a task that is left out has rows")


RECOUNTS: dict[str, Recount] = {"task_gains": _task_gains}
