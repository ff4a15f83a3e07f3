"""Naive value and optimum (by scalings) of entropic transport."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
)

_MOST_SWEEPS = 4_000


def _margins(case: Case) -> tuple[list[float], list[float]]:
    """The requested totals; by default every item has total 1 and every bin the same total."""
    n, bins = np.shape(case.words["scores"])
    if "margins" in case.words:
        rows, columns = (side.tolist() for side in case.words["margins"])
        return rows, [total * math.fsum(rows) / math.fsum(columns) for total in columns]
    return [1.0] * n, [n / bins] * bins


def _entropic(case: Case) -> None:
    """Sum of P scores - reg P log P, the margins, and the unregularised bound."""
    plan, table = case.plan, np.asarray(case.words["scores"], np.float64)
    reg = plan.info["reg"]
    terms, transport = [], []
    rows, columns = _margins(case)
    sums = [[0.0] * len(rows), [0.0] * len(columns)]
    for i in range(case.n):
        for entry in range(int(plan.indptr[i]), int(plan.indptr[i + 1])):
            j, mass = int(plan.bins[entry]), float(plan.weights[entry])
            transport.append(mass * table[i, j])
            terms += [transport[-1], -reg * mass * math.log(mass)]
            sums[0][i] += mass
            sums[1][j] += mass
    counted = math.fsum(terms)
    if not near(plan.value, counted, case.rtol, math.fsum(map(abs, terms))):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    slack = 1e-9 if plan.info["margin_error"] <= 1e-9 * math.fsum(rows) else 2e-6
    for reported, asked in zip(sums, (rows, columns), strict=True):
        if plan.status != "stopped" and not np.allclose(reported, asked, rtol=0, atol=slack * math.fsum(rows)):
            raise broken(case, "recount", f"totals are {reported}, asked {asked}")
    size = float(np.abs(table[table > -np.inf]).max(initial=0.0)) * math.fsum(rows)
    if math.fsum(transport) > plan.info["transport_bound"] + 1e-9 * size:
        raise broken(case, "recount", f"{math.fsum(transport)!r} is beyond the transport bound")


def _best_entropic(case: Case) -> float | None:
    """The optimum as the dual value of scalings in the log domain; None where these do not converge."""
    table, reg = np.asarray(case.words["scores"], np.float64), case.plan.info["reg"]
    rows, columns = (np.array(side) for side in _margins(case))
    table = table[np.ix_(rows > 0, columns > 0)] / reg
    rows, columns = rows[rows > 0], columns[columns > 0]
    v = np.zeros(len(columns))
    for _ in range(_MOST_SWEEPS):
        u = _log_sums(table - v) - np.log(rows)
        v = _log_sums((table - u[:, None]).T) - np.log(columns)
        off = np.abs(np.exp(table - u[:, None] - v).sum(axis=1) - rows).sum()
        if off < 1e-12 * rows.sum():
            return reg * float(u @ rows + v @ columns)
    return None


def _log_sums(table: Floats) -> Floats:
    top = table.max(axis=1)
    out: Floats = top + np.log(np.exp(table - top[:, None]).sum(axis=1))
    return out


def _draw_reg(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    table = np.asarray(given["scores"], np.float64)
    listed = table[table > -np.inf]
    # In units of the scores; a thousandth is as far as plain scalings can be followed.
    size = max(float(np.ptp(listed)), float(np.abs(listed).max())) or 1.0
    if draw(st.integers(0, 3)):
        options["reg"] = size * draw(st.sampled_from((10.0, 1.0, 0.1, 0.02, 1e-3)))


def _draw_density(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["density"] = draw(st.sampled_from((None, None, 0.3)))


RECOUNTS: dict[str, Recount] = {"entropic_transport": _entropic}
OPTIMA: dict[str, Optimum] = {"entropic_transport": _best_entropic}
OPTIONS: dict[str, Drawer] = {"reg": _draw_reg, "density": _draw_density}
