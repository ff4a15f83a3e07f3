"""Naive value and optimum (by scalings) of entropic transport."""

from __future__ import annotations

import itertools
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
    largest = float(np.abs(table[table > -np.inf]).max(initial=0.0))
    size = largest * math.fsum(rows)
    # The bound is of plans that have these totals; a stopped one may be off them by so much.
    off = largest * plan.info["margin_error"] if plan.status == "stopped" else 0.0
    if math.fsum(transport) > plan.info["transport_bound"] + 1e-9 * size + off:
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
    if not len(listed):
        return
    # In units of the scores; a thousandth is as far as plain scalings can be followed.
    size = max(float(np.ptp(listed)), float(np.abs(listed).max())) or 1.0
    if draw(st.integers(0, 3)):
        options["reg"] = size * draw(st.sampled_from((10.0, 1.0, 0.1, 0.02, 1e-3)))


def _draw_penalty(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    table = np.asarray(given["scores"], np.float64)
    # In units of the scores: the mass grows with their exponential.
    size = float(np.abs(table[table > -np.inf]).max(initial=0.0)) or 1.0
    if draw(st.booleans()):
        share = draw(st.sampled_from((0.1, 1.0, 10.0)))
        options["reg_m"] = draw(st.sampled_from((size * share, (size, 0.0), (0.0, size * share))))


def _draw_density(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["density"] = draw(st.sampled_from((None, None, 0.3)))


def _masses(case: Case) -> tuple[Floats, Floats, Floats, Floats]:
    """The scores, the plan as a matrix, and the totals that each side may send or should."""
    table = np.asarray(case.words["scores"], np.float64)
    n, bins = table.shape
    P = np.zeros((n, bins))
    P[np.repeat(np.arange(n), np.diff(case.plan.indptr)), case.plan.bins] = case.plan.weights
    options = case.plan.options
    r, c = options.get("row_totals"), options.get("column_totals")
    rows = np.ones(n) if r is None else np.asarray(r, np.float64)
    return table, P, rows, np.full(bins, n / bins) if c is None else np.asarray(c, np.float64)


def _most_mass(table: Floats, r: Floats, c: Floats) -> float:
    """The most that the listed entries carry within the totals: by the least cut, over all sets of rows.

    What a set of rows cannot send stays with it; the rows outside send all that they have at the most.
    """
    listed = table > -np.inf
    rows = np.flatnonzero(listed.any(axis=1) & (r > 0))
    most = math.inf
    for chosen in itertools.product((False, True), repeat=len(rows)):
        inside = rows[np.array(chosen, bool)]
        outside = np.setdiff1d(rows, inside)
        most = min(most, float(r[outside].sum() + c[listed[inside].any(axis=0)].sum()))
    return most


def _partial(case: Case) -> None:
    """Sum of P scores; the mass and the totals."""
    table, P, r, c = _masses(case)
    terms = [mass * score for mass, score in zip(P.ravel().tolist(), table.ravel().tolist(), strict=True) if mass]
    counted = math.fsum(terms)
    if not near(case.plan.value, counted, case.rtol, math.fsum(map(abs, terms))):
        raise broken(case, "recount", f"value is {case.plan.value!r}, recounted {counted!r}")
    mass = case.plan.options.get("mass") or _most_mass(table, r, c)
    if not near(float(P.sum()), mass, 1e-6, mass):
        raise broken(case, "recount", f"a mass of {P.sum()!r} is sent, asked {mass!r}")
    if (P.sum(axis=1) > r * (1 + 1e-9)).any() or (P.sum(axis=0) > c * (1 + 1e-9)).any():
        raise broken(case, "recount", "a total is exceeded")


def _unbalanced(case: Case) -> None:
    """Sum of P scores - reg KL(P | rc') - reg_m KL of each side's sums."""
    counted, size = _unbalanced_value(case, _masses(case)[1])
    if not near(case.plan.value, counted, max(case.rtol, 1e-9), size):
        raise broken(case, "recount", f"value is {case.plan.value!r}, recounted {counted!r}")


def _unbalanced_value(case: Case, P: Floats) -> tuple[float, float]:
    """What a plan is worth, and the sum of its terms' sizes."""
    table, _, r, c = _masses(case)
    info = case.plan.info
    terms = [mass * score for mass, score in zip(P.ravel().tolist(), table.ravel().tolist(), strict=True) if mass]
    penalties = [(info["reg"], P, np.outer(r, c))]
    penalties += [(info["reg_m"][0], P.sum(axis=1), r), (info["reg_m"][1], P.sum(axis=0), c)]
    for weight, given, wanted in penalties:
        if 0 < weight < math.inf:
            for x, y in zip(given.ravel().tolist(), wanted.ravel().tolist(), strict=True):
                terms += [-weight * (x * math.log(x / y) if x > 0 else 0.0), weight * x, -weight * y]
    return math.fsum(terms), math.fsum(map(abs, terms))


def _best_partial(case: Case) -> float | None:
    """The largest total of any plan of the mass that was sent, by a linear program."""
    from scipy.optimize import linprog

    table, P, r, c = _masses(case)
    listed = np.argwhere(table > -np.inf)
    if not len(listed) or not P.any():
        return None
    scores = table[tuple(listed.T)]
    sides = [(listed[:, side] == np.arange(size)[:, None]).astype(float) for side, size in enumerate(table.shape)]
    solved = linprog(
        -scores / (np.abs(scores).max() or 1.0),
        A_ub=np.vstack(sides),
        b_ub=np.concatenate([r, c]),
        A_eq=np.ones((1, len(listed))),
        b_eq=[math.fsum(P.ravel().tolist())],
        method="highs-ds",
    )
    if solved.x is None or solved.status != 0:
        return None
    # What the solver's rounding sends is nothing.
    sent = np.where(solved.x > 1e-12 * solved.x.max(), solved.x, 0.0)
    return math.fsum((sent * scores).tolist())


def _best_unbalanced(case: Case) -> float | None:
    """The dual value of naive scalings, once a plan of theirs is worth as much; None where none is in time."""
    table, _, r, c = _masses(case)
    reg, penalties = case.plan.info["reg"], case.plan.info["reg_m"]
    f, g = np.zeros(len(r)), np.zeros(len(c))
    kernel_mass = reg * math.fsum(r.tolist()) * math.fsum(c.tolist())
    if not (r > 0).all() or not (c > 0).all() or not all((table > -np.inf).any(axis=axis).all() for axis in (0, 1)):
        return None
    for sweep in range(_MOST_SWEEPS):
        for side in (1, 0) if penalties[0] >= penalties[1] else (0, 1):
            share = 1.0 if penalties[side] == math.inf else penalties[side] / (penalties[side] + reg)
            if side:
                g = share * reg * _log_sums(((table - f[:, None]) / reg).T + np.log(r))
            else:
                f = share * reg * _log_sums((table - g) / reg + np.log(c))
        if sweep % 20:
            continue
        P = r[:, None] * c * np.exp((table - f[:, None] - g) / reg)
        terms = [reg * float(P.sum()), -kernel_mass]
        for potential, totals, penalty in ((f, r, penalties[0]), (g, c, penalties[1])):
            if penalty:
                moved = potential if penalty == math.inf else penalty * np.expm1(potential / penalty)
                terms.append(float(totals @ moved))
        best = math.fsum(terms)
        value, size = _unbalanced_value(case, P)
        if abs(best - value) <= 1e-13 * size:
            return best
    return None


RECOUNTS: dict[str, Recount] = {
    "entropic_transport": _entropic,
    "partial_transport": _partial,
    "unbalanced_transport": _unbalanced,
}
OPTIMA: dict[str, Optimum] = {
    "entropic_transport": _best_entropic,
    "partial_transport": _best_partial,
    "unbalanced_transport": _best_unbalanced,
}
OPTIONS: dict[str, Drawer] = {"reg": _draw_reg, "reg_m": _draw_penalty, "density": _draw_density}
