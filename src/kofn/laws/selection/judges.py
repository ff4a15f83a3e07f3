"""Verdicts and committees, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Value,
)


def _verdicts(case: Case) -> Floats:
    """(judges, items)."""
    return np.asarray(case.words["rankings"], np.float64).T


def _alike(table: Floats, item: int) -> list[int]:
    """The candidates with the same verdicts, tests that were not run included."""
    return [j for j in range(table.shape[1]) if np.array_equal(table[:, j], table[:, item], equal_nan=True)]


def _added(score: Callable[[Case, int], float]) -> Callable[[Case], Value]:
    def make(case: Case) -> Value:
        return lambda picks: math.fsum(score(case, int(item)) for item in picks)

    return make


def _b4(case: Case, item: int) -> float:
    table = _verdicts(case)
    members = _alike(table, item)
    tests = [t for t in range(len(table)) if not math.isnan(table[t, item])]
    counts = {"prior_x": [len(members), table.shape[1]], "prior_y": [int(table[tests, item].sum()), len(tests)]}
    for name, verdict in (("prior_1", 1), ("prior_0", 0)):
        seen = [
            table[t, j]
            for t in tests
            if table[t, item] == verdict
            for j in range(table.shape[1])
            if j not in members and not math.isnan(table[t, j])
        ]
        counts[name] = [int(sum(seen)), len(seen)]
    default = {"prior_x": (1e3, 1.0), "prior_y": (1e3, 1.0), "prior_1": (1.0, 1.0), "prior_0": (1.0, 1e4)}
    total = 0.0
    for name, (hits, of) in counts.items():
        a, b = case.options.get(name, default[name])
        total += math.lgamma(hits + a) + math.lgamma(of - hits + b) - math.lgamma(of + a + b)
    return total


def _codet(case: Case, item: int) -> float:
    table = _verdicts(case)
    return float((table[:, item] == 1).sum()) * math.sqrt(len(_alike(table, item)))


def _mbr_exec(case: Case, item: int) -> float:
    return float(len(_alike(_verdicts(case), item)))


def _max_pass(case: Case, item: int) -> float:
    return float((_verdicts(case)[:, item] == 1).sum())


def _share(ballot: Floats, item: int, seats: int) -> float:
    """Points of one item on one ballot where the first `seats` places earn one: ties share, unrated come last."""
    values = np.where(np.isnan(ballot), -np.inf, ballot)
    above = int((values > values[item]).sum())
    level = int((values == values[item]).sum())
    return min(max(seats - above, 0), level) / level


def _committee(seats: Callable[[Case], int]) -> Callable[[Case], Value]:
    return _added(lambda case, item: math.fsum(_share(ballot, item, seats(case)) for ballot in _verdicts(case)))


def _beaten(ballot: Floats, item: int) -> float:
    values = np.where(np.isnan(ballot), -np.inf, ballot)
    return float((values < values[item]).sum()) + ((values == values[item]).sum() - 1) / 2


def _representatives(case: Case) -> Value:
    ballots = _verdicts(case)
    return lambda picks: math.fsum(
        max((_beaten(ballot, int(item)) for item in picks), default=0.0) for ballot in ballots
    )


def _draw_verdicts(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Ballots become verdicts of 0 and 1; what was not rated was not run."""
    ballots = np.asarray(given["rankings"], np.float64)
    verdicts = np.where(np.isnan(ballots), np.nan, ballots > draw(st.sampled_from((-1.0, 0.0))))
    given["rankings"] = verdicts  # type: ignore[index]
    if draw(st.booleans()):
        options["prior_0"] = draw(st.sampled_from(((1.0, 10.0), (2.0, 3.0))))
    if draw(st.booleans()):
        options["prior_x"] = draw(st.sampled_from(((1.0, 1.0), (10.0, 2.5))))


def _draw_rule(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["rule"] = draw(st.sampled_from(("borda", "sntv", "bloc", "chamberlin_courant")))


def _draw_heuristic(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["heuristic"] = draw(st.sampled_from((None, None, "codet", "mbr_exec", "max_pass")))


FUNCTIONS: dict[str, Callable[[Case], Value]] = {
    "b4": _added(_b4),
    "codet": _added(_codet),
    "mbr_exec": _added(_mbr_exec),
    "max_pass": _added(_max_pass),
    "committee_borda": _added(lambda case, item: math.fsum(_beaten(ballot, item) for ballot in _verdicts(case))),
    "committee_sntv": _committee(lambda _case: 1),
    "committee_bloc": _committee(lambda case: int(case.words["k"])),
    "chamberlin_courant": _representatives,
}
OPTIONS: dict[str, Drawer] = {"prior_0": _draw_verdicts, "rule": _draw_rule, "heuristic": _draw_heuristic}
