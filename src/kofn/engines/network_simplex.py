"""Exact transport of real masses over a dense table of costs, by the network simplex."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.engines import _simplex_kernels

# The whole mass in units of flow: sums of either side stay within int64, and a unit is below any rounding of the sums.
_UNITS = 2.0**61
# A step between costs of 0 and others, far above what underflows.
_LEAST = 2.0**-900
# Whether to stop is asked after so many pivots.
_PIVOTS = 1000


@dataclass(frozen=True)
class Vertex:
    """A basic plan: its entries and masses, and prices with u_i + v_j <= costs_ij.

    `optimal` is whether the search ended. `missed` is the share of the mass that the listed entries cannot carry; where
    it is not 0 there is no plan, and the prices are those of missing a unit (see `stuck`). `pivots` counts all pivots,
    `idle` those that moved nothing.
    """

    row: Ints
    column: Ints
    mass: Floats
    u: Floats
    v: Floats
    optimal: bool
    pivots: int
    idle: int
    missed: float = 0.0

    def stuck(self, supply: Floats, demand: Floats) -> NDArray[np.bool_]:
        """The rows whose columns have too little room, where some mass is missed."""
        short = [
            (supply[self.u >= level].sum() - demand[self.v <= -level].sum(), level)
            for level in np.unique(self.u[supply > 0])
        ]
        return np.asarray((self.u >= max(short)[1]) & (supply > 0))


class _Basis:
    """A spanning tree of the rows and columns of a table with whole masses, and the search from it."""

    def __init__(self, costs: Floats, supply: Ints, demand: Ints) -> None:
        n, m = costs.shape
        nodes = n + m
        self.n = n
        # A row is a block of the search where the table is square, several are where it is narrow.
        self.block = max(1, round(math.sqrt(n * m) / m))
        price = costs.min(axis=0)
        price[~np.isfinite(price)] = 0.0
        regret = np.empty(n)
        _simplex_kernels.regrets(costs, price, regret)
        order = np.argsort(-regret, kind="stable")
        row, column = np.empty(nodes - 1, np.int32), np.empty(nodes - 1, np.int32)
        mass = np.empty(nodes - 1, np.int64)
        _simplex_kernels.greedy(costs, price, order, supply, demand, row, column, mass)
        self.parent, self.child, self.after, self.before, self.size = np.empty((5, nodes), np.int32)
        self.flow = np.zeros(nodes, np.int64)
        _simplex_kernels.root_at_last(n, row, column, mass, *self._links(), self.flow)
        self.pivots = self.idle = 0

    def _links(self) -> tuple[Any, ...]:
        return self.parent, self.child, self.after, self.before, self.size

    def search(self, costs: Floats, stopped: Callable[[], bool] | None = None) -> tuple[Floats, bool]:
        """Pivot until no entry is cheaper than its prices; the prices, rows first, and whether it came to an end."""
        potential, counts = np.zeros(len(self.parent)), np.zeros(4, np.int64)
        tolerance, ended = np.array([_simplex_kernels.ROUNDING]), False
        while not ended and not (stopped is not None and stopped()):
            ended = bool(
                _simplex_kernels.pivots(
                    costs, potential, *self._links(), self.flow, self.block, _PIVOTS, tolerance, counts
                )
            )
        if not ended:
            _simplex_kernels.pivots(costs, potential, *self._links(), self.flow, self.block, 0, tolerance, counts)
        self.pivots += int(counts[0])
        self.idle += int(counts[1])
        return potential, ended

    def arcs(self) -> tuple[Ints, Ints]:
        """Row and column of each node's arc to its parent, without the root's."""
        node = np.arange(len(self.parent) - 1)
        parent = self.parent[:-1].astype(np.int64)
        return np.minimum(node, parent), np.maximum(node, parent) - self.n

    def masses(self, supply: Floats, demand: Floats) -> Floats:
        """The masses of `arcs()` with these totals."""
        sent = np.zeros(len(self.parent))
        mass = np.concatenate([supply, demand])
        _simplex_kernels.settle(len(sent) - 1, self.parent, self.child, self.after, self.flow, mass, sent)
        return sent[:-1]


def cheapest_plan(
    costs: Floats,
    supply: Floats,
    demand: Floats,
    stopped: Callable[[], bool] | None = None,
    *,
    slack: float = 1e-7,
) -> Vertex:
    """The cheapest plan with these totals, of one sum up to rounding; entries of infinite cost are not listed.

    Once `stopped()` is True, the plan reached by then, whose totals hold as well. Flows are whole numbers, in units of
    2^-61 of the mass, so that no pivot rounds, trees stay strongly feasible and the search ends (Cunningham 1976). The
    masses follow from the last tree, by sums from its leaves. Where the listed entries miss no more than `slack` of the
    mass, that is left out as rounding of the totals.
    """
    if costs.shape[1] > costs.shape[0]:
        turned = cheapest_plan(np.ascontiguousarray(costs.T), demand, supply, stopped, slack=slack)
        return replace(turned, row=turned.column, column=turned.row, u=turned.v, v=turned.u)
    largest = float(np.abs(costs, out=np.zeros_like(costs), where=np.isfinite(costs)).max(initial=0.0))
    # By a power of two: nothing is rounded, and sums along the tree stay finite.
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0
    costs = np.ascontiguousarray(costs / unit)
    whole = _whole(supply), _whole(demand)
    whole[1][whole[1].argmax()] += whole[0].sum() - whole[1].sum()
    rows, columns = np.flatnonzero(whole[0]), np.flatnonzero(whole[1])
    inner = costs if len(rows) + len(columns) == sum(costs.shape) else costs[np.ix_(rows, columns)]
    basis = _Basis(inner, whole[0][rows], whole[1][columns])
    bars, missed = _carry(basis, inner)
    if missed > slack:
        return _unmet(costs.shape, (rows, columns), bars, missed, basis)
    v, optimal = _cheapest(basis, inner, bars, stopped)
    if not optimal:
        v = _better(inner, supply[rows], demand[columns], v)
    mass = basis.masses(supply[rows], demand[columns])
    row, column = basis.arcs()
    sent = (mass > 0) & (inner[row, column] < np.inf)
    entries = rows[row[sent]], columns[column[sent]], mass[sent]
    entries, prices = _with_rest(costs, supply, demand, (rows, columns), entries, v)
    return Vertex(*entries, prices[0] * unit, prices[1] * unit, optimal, basis.pivots, basis.idle)


def _whole(totals: Floats) -> Ints:
    """The totals in units of flow; those below half a unit are 0."""
    shares = totals / totals.max()
    return np.rint(shares * (_UNITS / math.fsum(shares.tolist()))).astype(np.int64)


def _carry(basis: _Basis, costs: Floats) -> tuple[tuple[Floats, Floats] | None, float]:
    """Move the basis's mass to the listed entries: the prices of one that is not, and the share that stays on such.

    None for the prices where every entry is listed.
    """
    listed = costs < np.inf
    if listed.all():
        return None, 0.0
    price, _ = basis.search(np.where(listed, 0.0, 1.0))
    missed = float(basis.flow[:-1][~listed[basis.arcs()]].sum()) / _UNITS
    return (price[: basis.n], price[basis.n :]), missed


def _unmet(
    shape: tuple[int, int], kept: tuple[Ints, Ints], bars: tuple[Floats, Floats] | None, missed: float, basis: _Basis
) -> Vertex:
    u, v = np.zeros(shape[0]), np.zeros(shape[1])
    if bars is not None:
        u[kept[0]], v[kept[1]] = bars
    none = np.zeros(0, np.int64)
    return Vertex(none, none, np.zeros(0), u, v, True, basis.pivots, basis.idle, missed)


def _cheapest(
    basis: _Basis, costs: Floats, bars: tuple[Floats, Floats] | None, stopped: Callable[[], bool] | None
) -> tuple[Floats, bool]:
    """Search for the cheapest plan on the listed entries: the columns' prices, and whether the search ended."""
    table, slack = costs, None
    if bars is not None:
        # Every plan on listed entries uses only those whose bars cancel, so that no pivot leads back to the others.
        slack = -(bars[0][:, None] + bars[1])
        table = np.where((slack == 0) & (costs < np.inf), costs, np.inf)
    price, ended = basis.search(table, stopped)
    if ended:
        row, column = basis.arcs()
        used = table[row, column][basis.flow[:-1] > 0]
        dearest = float(used.max(initial=-np.inf, where=used < np.inf))
        cap = min((cap for cap in _caps(table, len(basis.parent)) if cap >= dearest), default=None)
        if cap is not None:
            price, ended = basis.search(np.where((table > cap) & (table < np.inf), cap, table), stopped)
    u, v = price[: basis.n], price[basis.n :]
    if bars is None or slack is None:
        return v, ended
    # Multiples of the bars make the other entries dear enough, at no price for the totals.
    other = (slack > 0) & (costs < np.inf)
    over = ((u[:, None] + v - costs)[other] / slack[other]).max(initial=0.0)
    return v + over * bars[1], ended


def _better(costs: Floats, supply: Floats, demand: Floats, v: Floats) -> Floats:
    """These prices of the columns or, where they prove more, those of each column's cheapest entry."""
    cheapest = costs.min(axis=0)
    proven = [float(supply @ (costs - price).min(axis=1) + demand @ price) for price in (v, cheapest)]
    return cheapest if proven[1] > proven[0] else v


def _caps(costs: Floats, nodes: int) -> list[float]:
    """Where costs stand out beyond any exchange of cheaper ones: to what they may be lowered where none is paid.

    Beside a cost that means "never", rounding hides the others in the potentials. A plan that is the cheapest at
    lowered costs, and pays none of these, is the cheapest.
    """
    low = float(costs.min())
    seen = np.zeros(2200, np.bool_)
    _simplex_kernels.magnitudes(costs, low, seen)
    orders = np.flatnonzero(seen)
    beyond = 3 + math.log2(nodes)
    apart = np.flatnonzero(np.diff(orders) > beyond)
    caps = [low + 4.0 * nodes * math.ldexp(1.0, int(orders[k]) - 1100) for k in apart]
    # All that is cheap may be of one cost.
    step = abs(low) or _LEAST
    if len(orders) and orders[0] - 1100 > math.log2(step) + beyond:
        caps.append(low + step)
    return caps


def _with_rest(
    costs: Floats,
    supply: Floats,
    demand: Floats,
    kept: tuple[Ints, Ints],
    entries: tuple[Ints, Ints, Floats],
    v: Floats,
) -> tuple[tuple[Ints, Ints, Floats], tuple[Floats, Floats]]:
    """The plan and prices with the rows and columns whose totals are below a unit: each by its cheapest entry."""
    n, m = costs.shape
    prices = np.zeros(n), np.zeros(m)
    prices[1][kept[1]] = v
    prices[0][kept[0]] = (costs[np.ix_(*kept)] - v).min(axis=1)
    parts = [entries]
    others = np.setdiff1d(np.arange(m), kept[1], assume_unique=True)
    if len(others):
        gaps = costs[np.ix_(kept[0], others)] - prices[0][kept[0]][:, None]
        prices[1][others] = np.where(np.isfinite(gaps.min(axis=0)), gaps.min(axis=0), 0.0)
        parts.append(
            (kept[0][gaps.argmin(axis=0)], others, np.where(np.isfinite(gaps.min(axis=0)), demand[others], 0.0))
        )
    others = np.setdiff1d(np.arange(n), kept[0], assume_unique=True)
    if len(others):
        gaps = costs[others] - prices[1]
        prices[0][others] = np.where(np.isfinite(gaps.min(axis=1)), gaps.min(axis=1), 0.0)
        parts.append((others, gaps.argmin(axis=1), np.where(np.isfinite(gaps.min(axis=1)), supply[others], 0.0)))
    row, column, mass = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((column, row))
    order = order[mass[order] > 0]
    return (row[order], column[order], mass[order]), prices
