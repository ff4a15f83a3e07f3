"""Match the units of two networks by assignments, group by group, in alternation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kofn.combination.alignment._architectures import Axis, Graph, Group
from kofn.combination.alignment._units import by_pair, by_unit, ordered
from kofn.core.arrays import Array, Floats, Ints

# Most bytes of weight products cached between sweeps.
_KEPT = 1 << 30
# Most steps of the relaxed matching of a group that indexes both sides of a tensor, and the least gain of a step.
_STEPS, _GAIN = 30, 1e-6
# Largest entries from 2 to the minus this to 2 to this are left in their units.
_IN_RANGE = 16


@dataclass
class Match:
    """Permutations of a member's units that match the reference's, and the cost of finding them."""

    orders: dict[str, Ints]
    sweeps: int = 0
    assignments: int = 0
    converged: bool = True


def identity(graph: Graph) -> dict[str, Ints]:
    """The identity permutations."""
    return {group.name: np.arange(group.width) for group in graph.groups}


def match(ours: Mapping[str, Array], theirs: Mapping[str, Array], graph: Graph, initial: str, most: int) -> Match:
    """Coordinate descent: match each group given the others, until no permutation changes.

    Maximising the inner product of matched weights minimises the squared distance, since permutations keep norms. A
    group that indexes both sides of a tensor, as recurrent states do, has a quadratic problem, which is relaxed; its
    answer is taken where it is better.
    """
    work = _Products(_near_one(ours), _near_one(theirs), graph)
    result = Match(identity(graph))
    if initial == "layers":
        for group, axes in forward(graph, ours):
            result.orders[group.name] = solve(*work.of(group, axes, result.orders), group)[0]
            result.assignments += 1
            work.changed(group)
    fresh = {group.name for group in graph.groups}
    if initial == "layers" and graph.separable:
        return result
    result.converged = False
    for _ in range(most):
        result.sweeps += 1
        moved = False
        for group in graph.groups:
            if group.name not in fresh:
                continue
            fresh.discard(group.name)
            old = result.orders[group.name]
            if group.name in graph.tied:
                order, better, assignments = work.tied(group, result.orders)
                result.assignments += assignments
            else:
                coarse, fine = work.of(group, group.axes, result.orders)
                order, gain, slack = solve(coarse, fine, group)
                result.assignments += 1
                better = gain - worth(coarse, fine, group, old) > slack
            if better:
                result.orders[group.name] = order
                work.changed(group)
                moved = True
                fresh |= {other.name for axis in group.axes for other, _ in graph.others(axis)}
        if not moved:
            result.converged = True
            break
    return result


def _near_one(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    """A network's tensors in a power of two near their largest entry: permutations stay, products are in range."""
    largest = max((float(np.abs(tensor).max(initial=0.0)) for tensor in tensors.values()), default=0.0)
    exponent = math.frexp(largest)[1]
    # Exponents near 0 leave all products in range, and copies of the weights are saved.
    if abs(exponent) <= _IN_RANGE:
        return tensors
    return {name: np.ldexp(tensor, -exponent) for name, tensor in tensors.items()}


class _Products:
    """Cached inner products of units' weights, invalidated when a group they depend on is permuted."""

    def __init__(self, ours: Mapping[str, Array], theirs: Mapping[str, Array], graph: Graph) -> None:
        self.ours, self.theirs, self.graph = ours, theirs, graph
        size = sum(8 * _count(group, axis) ** 2 for group in graph.groups for axis in group.axes)
        self.keep = size <= _KEPT
        self.version = dict.fromkeys((group.name for group in graph.groups), 0)
        self.kept: dict[tuple[str, str], tuple[tuple[int, ...], Array]] = {}

    def changed(self, group: Group) -> None:
        self.version[group.name] += 1

    def of(self, group: Group, axes: Sequence[Axis], orders: Mapping[str, Ints]) -> tuple[Array, Array | None]:
        """Summed over the axes: between units, and between the inner units where there are such."""
        coarse: Array = np.zeros((group.units, group.units), np.float32)
        fine: Array | None = np.zeros((group.width, group.width), np.float32) if group.inner > 1 else None
        for axis in axes:
            if axis.matched:
                part = self._part(group, axis, orders)
                if fine is not None and axis.fine:
                    fine = fine + part
                else:
                    coarse = coarse + part
        return coarse, fine

    def tied(self, group: Group, orders: Mapping[str, Ints]) -> tuple[Ints, bool, int]:
        """A permutation of a group that indexes tensors on two axes, whether it is better, and assignments solved."""
        pairs: dict[str, list[Axis]] = {}
        for axis in group.axes:
            pairs.setdefault(axis.tensor, []).append(axis)
        single = [axes[0] for axes in pairs.values() if len(axes) == 1]
        linear = self.of(group, single, orders)[0].astype(np.float64)
        both = []
        for rows, columns in (axes for axes in pairs.values() if len(axes) > 1 and axes[0].matched):
            b = self.theirs[rows.tensor]
            for other, axis in self.graph.on[rows.tensor]:
                if other is not group:
                    b = ordered(b, other, axis, orders[other.name])
            cells = (by_pair(array, group, rows, columns) for array in (self.ours[rows.tensor], b))
            a, b = (np.ascontiguousarray(np.moveaxis(array.astype(np.float64), 2, 0)) for array in cells)
            both.append((a, b))
        return relaxed(linear, both, orders[group.name])

    def _part(self, group: Group, axis: Axis, orders: Mapping[str, Ints]) -> Array:
        others = self.graph.others(axis)
        version = tuple(self.version[other.name] for other, _ in others)
        key = (group.name, axis.tensor)
        if key in self.kept and self.kept[key][0] == version:
            return self.kept[key][1]
        b = self.theirs[axis.tensor]
        for other, other_axis in others:
            b = ordered(b, other, other_axis, orders[other.name])
        a, b = by_unit(self.ours[axis.tensor], group, axis), by_unit(b, group, axis)
        with np.errstate(over="ignore", invalid="ignore"):
            part = a @ b.T
        if not np.isfinite(part).all():  # beyond the range of float32
            part = a.astype(np.float64) @ b.T.astype(np.float64)
        if self.keep:
            self.kept[key] = (version, part)
        return part


def _count(group: Group, axis: Axis) -> int:
    return group.width if axis.fine else group.units


def forward(graph: Graph, tensors: Mapping[str, Array]) -> list[tuple[Group, list[Axis]]]:
    """A topological order of the groups, each with the axes whose tensors involve only earlier groups.

    Matching in this order and by these axes does not depend on the order in which a member lists its units.
    """
    done: set[str] = set()
    out: list[tuple[Group, list[Axis]]] = []
    while len(out) < len(graph.groups):
        best: tuple[float, Group, list[Axis]] | None = None
        for group in graph.groups:
            if group.name in done:
                continue
            known = [axis for axis in group.axes if all(other.name in done for other, _ in graph.others(axis))]
            size = sum(tensors[axis.tensor].size for axis in group.axes if axis.matched)
            share = sum(tensors[axis.tensor].size for axis in known if axis.matched) / max(size, 1)
            if best is None or share > best[0]:
                best = (share, group, known)
        assert best is not None
        out.append(best[1:])
        done.add(best[1].name)
    return out


def relaxed(linear: Floats, both: Sequence[tuple[Floats, Floats]], old: Ints) -> tuple[Ints, bool, int]:
    """Match units by products of single entries and of pairs, by Frank and Wolfe's steps over doubly stochastic tables.

    Args:
        linear: (n, n) what matching unit i with j brings by itself.
        both: tables (rest, n, n) of each network; units i and k matched with j and l bring sum a[:, i, k] b[:, j, l].
        old: the permutation to begin from, and to beat.

    Returns:
        The permutation nearest to where the steps end, or `old`; whether it is better; assignments solved.
    """
    from scipy.optimize import linear_sum_assignment

    n = len(linear)

    def products(table: Floats) -> Floats:
        """Slope of the pairs' part at a table: sum over rest of a D b' + a' D b."""
        total = np.zeros((n, n))
        for a, b in both:
            total += (a @ table @ b.swapaxes(1, 2) + a.swapaxes(1, 2) @ table @ b).sum(axis=0)
        return total

    def value(order: Ints) -> float:
        pairs = sum(float((a * b[:, order[:, None], order]).sum()) for a, b in both)
        return float(linear[np.arange(n), order].sum()) + pairs

    table, solved = np.eye(n)[old], 0
    pulled = products(table)
    for _ in range(_STEPS):
        slope = linear + pulled
        towards = np.eye(n)[linear_sum_assignment(slope, maximize=True)[1]]
        solved += 1
        gain = float((slope * (towards - table)).sum())
        if gain <= _GAIN * float(np.abs(slope).max()):
            break
        ahead = products(towards)
        # The objective is quadratic along the step; half the slopes' products are its pairs' part.
        bend = float(((ahead - pulled) * (towards - table)).sum()) / 2
        step = 1.0 if bend >= 0 else min(1.0, -gain / (2 * bend))
        table, pulled = table + step * (towards - table), pulled + step * (ahead - pulled)
    order = linear_sum_assignment(table, maximize=True)[1].astype(np.int64)
    now, before = value(order), value(old)
    slack = 8 * np.finfo(np.float64).eps * n * max(abs(now), abs(before))
    better = bool(now - before > slack)
    return (order if better else old), better, solved + 1


def solve(coarse: Array, fine: Array | None, group: Group) -> tuple[Ints, float, float]:
    """The permutation of largest summed products, the sum, and a bound on its rounding error."""
    from scipy.optimize import linear_sum_assignment

    table, inner = coarse, None
    if fine is not None:
        table, inner = _inner(coarse, fine, group)
    _, columns = linear_sum_assignment(table, maximize=True)
    order = columns.astype(np.int64)
    if inner is not None:
        rows = np.arange(group.units)
        order = (order[:, None] * group.inner + inner[rows, order]).reshape(-1)
    slack = 8 * float(np.finfo(coarse.dtype).eps) * math.sqrt(group.units) * float(np.abs(table).max(initial=0.0))
    return order, worth(coarse, fine, group, order), slack


def worth(coarse: Array, fine: Array | None, group: Group, order: Ints) -> float:
    """The summed products of a permutation."""
    units = order[:: group.inner] // group.inner
    total = float(coarse[np.arange(group.units), units].sum(dtype=np.float64))
    if fine is not None:
        total += float(fine[np.arange(group.width), order].sum(dtype=np.float64))
    return total


def _inner(coarse: Array, fine: Array, group: Group) -> tuple[Array, Ints]:
    """The value of each pair of units with its inner units matched optimally, and the inner permutation."""
    from scipy.optimize import linear_sum_assignment

    size = group.inner
    table = coarse.astype(np.float64)
    best = np.empty((group.units, group.units, size), np.int64)
    for i in range(group.units):
        for j in range(group.units):
            block = fine[i * size : (i + 1) * size, j * size : (j + 1) * size]
            rows, columns = linear_sum_assignment(block, maximize=True)
            best[i, j] = columns
            table[i, j] += block[rows, columns].sum(dtype=np.float64)
    return table, best
