"""Entropic transport with hardly any entropy: solved around the plan without, whose prices take the scores' span away.

Potentials of the size of the scores are doubles that cannot say what a small `reg` asks for. Less the prices of the
exact plan, every score is minus what its entry falls short of paying: 0 where mass goes, and potentials are some `reg`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.assignment.transport import _entropic
from kofn.core.arrays import Floats
from kofn.engines.network_simplex import Vertex, cheapest_plan

# Rounding of the prices moves no logarithm of an entry by more than this; below, `reg` cannot be told from 0.
_NOISE = 1e-4
# How many times `reg` the regularisation is that an attempt descends from; None for that of the scores' span.
_STARTS = (1.0, 4.0**3, 4.0**7, None)


@dataclass(frozen=True)
class Reduced:
    """Scores less the prices of the exact plan, u_i + v_j, never above 0; and the least `reg` that they resolve."""

    scores: Floats
    u: Floats
    v: Floats
    start: Callable[[float], Floats]
    finest: float

    @classmethod
    def of(cls, scores: Floats, r: Floats, c: Floats, stopped: Callable[[], bool]) -> Reduced | None:
        """None where the totals cannot be carried, or no time was left."""
        vertex = cheapest_plan(-scores, r, c, stopped)
        if vertex.missed or not vertex.optimal:
            return None
        u, v = -vertex.u, -vertex.v
        short = scores - u[:, None]
        short -= v
        np.minimum(short, 0.0, out=short)
        short[vertex.row, vertex.column] = 0.0
        prices = np.abs(u[vertex.row]) + np.abs(v[vertex.column]) + np.abs(scores[vertex.row, vertex.column])
        finest = float(prices.max(initial=0.0)) * 2.0**-53 / _NOISE
        moves = _moves(vertex, *scores.shape)
        return cls(short, u, v, lambda reg: -reg * moves, finest)


def _moves(vertex: Vertex, n: int, m: int) -> Floats:
    """The columns' potentials, in units of -`reg`, at which the entries of the exact plan have its masses.

    Entries with mass are a forest, so that there are some. Of each tree, the largest entry's two sides move alike.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import spsolve

    arcs, nodes = len(vertex.mass), n + m
    ends = vertex.row, vertex.column + n
    logs = np.log(vertex.mass)
    joined = csc_array((np.ones(arcs), ends), shape=(nodes, nodes))
    parts, part = connected_components(joined, directed=False)
    # A node without an entry, and the row of each tree's largest entry, are given.
    order = np.argsort(logs, kind="stable")
    given, value = np.full(parts, -1), np.zeros(parts)
    given[part[ends[0][order]]] = ends[0][order]
    value[part[ends[0][order]]] = logs[order] / 2
    alone = np.flatnonzero(given < 0)
    if len(alone):
        first = np.zeros(parts, np.int64)
        first[part] = np.arange(nodes)
        given[alone] = first[alone]
    rows = np.concatenate([np.arange(arcs), np.arange(arcs), arcs + np.arange(parts)])
    columns = np.concatenate([*ends, given])
    system = csc_array((np.ones(len(rows)), (rows, columns)), shape=(nodes, nodes))
    return np.asarray(spsolve(system, np.concatenate([logs, value])))[n:]


def solve(
    reduced: Reduced, r: Floats, c: Floats, reg: float, *, tol: float, left: Callable[[], float], **how: Any
) -> tuple[Floats, Floats, Floats, float, _entropic.Counts]:
    """As `_entropic.solve`: from the exact plan, or where that is too far, from ever larger regularisations."""

    def attempt(times: float | None) -> tuple[Floats, Floats, Floats, float, _entropic.Counts]:
        first = None if times is None else times * reg
        start = reduced.start(first or reg)
        return _entropic.solve(reduced.scores, r, c, reg, first=first, start=start, tol=tol, left=left, **how)

    best = attempt(_STARTS[0])
    for times in _STARTS[1:]:
        if best[3] <= tol or left() <= 0:
            break
        best = min(best, attempt(times), key=lambda solution: solution[3])
    return best
