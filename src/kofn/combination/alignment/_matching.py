"""Which unit of one network stands for which of another: assignments and couplings group by group, and their use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import REAL, Pool, Tensor, tensor_label
from kofn.combination.alignment._architectures import Axis, Graph, Group, by_unit, positions
from kofn.core import checks
from kofn.core.arrays import Array, Ints
from kofn.core.checks import FailureError, InputError

Orders = dict[str, Any]  # group -> an order of the member's units, or their coupling with the reference's

# Products of weights are kept between sweeps up to so many bytes.
_KEPT = 1 << 30
# Two uniform measures are coupled as copies of their units up to so many; beyond, by a linear program.
_MOST_COPIES = 2048


def whole(member: Mapping[str, Tensor], name: str) -> NDArray[Any]:
    """One tensor, in its shape."""
    tensor = member[name]
    return np.asarray(tensor.read(0, tensor.size)).reshape(tensor.shape)


def floats(member: Mapping[str, Tensor], names: Iterable[str], label: str) -> dict[str, Array]:
    """The tensors to compare, in float32 or wider, all finite."""
    out = {}
    for name in names:
        array = whole(member, name)
        if array.dtype.kind in "iubc":
            raise InputError(
                f"{label}: {tensor_label(name)} is {array.dtype}; units of floating tensors are matched, no others"
            )
        if array.dtype not in REAL:
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            at = tuple(int(one) for one in np.argwhere(~np.isfinite(array))[0])
            kind = "NaN" if np.isnan(array[at]) else "infinite"
            raise InputError(f"{label}: {tensor_label(name)} at {at} is {kind}; leave that member out or repair it")
        out[name] = array
    return out


@dataclass
class Match:
    """Orders of a member's units that match the reference's, and what finding them took."""

    orders: dict[str, Ints]
    sweeps: int = 0
    assignments: int = 0
    converged: bool = True


def identity(graph: Graph) -> dict[str, Ints]:
    """Everything in place."""
    return {group.name: np.arange(group.width) for group in graph.groups}


def match(ours: Mapping[str, Array], theirs: Mapping[str, Array], graph: Graph, initial: str, most: int) -> Match:
    """Alternating assignments: each group is matched given the others, until none changes.

    The largest summed product of matched weights is the least squared distance, since orders keep every norm.
    """
    work = _Products(ours, theirs, graph)
    found = Match(identity(graph))
    if initial == "layers":
        for group, axes in forward(graph, ours):
            found.orders[group.name] = solve(*work.of(group, axes, found.orders), group)[0]
            found.assignments += 1
            work.changed(group)
    fresh = {group.name for group in graph.groups}
    if initial == "layers" and graph.separable:
        return found
    found.converged = False
    for _ in range(most):
        found.sweeps += 1
        moved = False
        for group in graph.groups:
            if group.name not in fresh:
                continue
            fresh.discard(group.name)
            coarse, fine = work.of(group, group.axes, found.orders)
            order, gain, slack = solve(coarse, fine, group)
            found.assignments += 1
            old = found.orders[group.name]
            if gain - worth(coarse, fine, group, old) > slack:
                found.orders[group.name] = order
                work.changed(group)
                moved = True
                fresh |= {other.name for axis in group.axes for other, _ in graph.others(axis)}
        if not moved:
            found.converged = True
            break
    return found


class _Products:
    """Inner products of units' weights, kept until a group that they were computed under is ordered anew."""

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

    def _part(self, group: Group, axis: Axis, orders: Mapping[str, Ints]) -> Array:
        others = self.graph.others(axis)
        version = tuple(self.version[other.name] for other, _ in others)
        key = (group.name, axis.tensor)
        if key in self.kept and self.kept[key][0] == version:
            return self.kept[key][1]
        b = self.theirs[axis.tensor]
        for other, place in others:
            b = _ordered(b, other, place, orders[other.name])
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
    """An order of the groups in which each has what it needs: the axes whose tensors hold no group still to come.

    Matched in this order, by these axes, units do not depend on the order in which a member lists them.
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


def solve(coarse: Array, fine: Array | None, group: Group) -> tuple[Ints, float, float]:
    """The order of largest summed products, that sum, and by how much rounding may have it wrong."""
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
    """The summed products of an order."""
    units = order[:: group.inner] // group.inner
    total = float(coarse[np.arange(group.units), units].sum(dtype=np.float64))
    if fine is not None:
        total += float(fine[np.arange(group.width), order].sum(dtype=np.float64))
    return total


def _inner(coarse: Array, fine: Array, group: Group) -> tuple[Array, Ints]:
    """What every pair of units is worth with its inner units at their best, and that best order."""
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


# --- couplings


@dataclass
class Transport:
    """How a member's units make up the reference's: an order where the widths agree, else a coupling."""

    plans: Orders
    costs: dict[str, float] = field(default_factory=dict)
    assignments: int = 0


def transport(
    ours: Mapping[str, Array],
    theirs: Mapping[str, Array],
    graph: Graph,
    other: Graph,
    activations: tuple[Mapping[str, Array], Mapping[str, Array]] | None,
) -> Transport:
    """Layer by layer: the least squared distance between what units compute, given the layers before."""
    found = Transport({})
    theirs_of = {group.name: group for group in other.groups}
    for group, axes in forward_by_inputs(graph, ours):
        source = theirs_of[group.name]
        table: Array = np.zeros((group.units, source.units))
        fine: Array | None = np.zeros((group.width, source.width)) if group.inner > 1 else None
        pairs: list[tuple[Array, Array, bool]] = []
        if activations is not None and group.name in activations[0]:
            pairs.append((activations[0][group.name].T, activations[1][group.name].T, group.inner > 1))
        else:
            places = {axis.tensor: axis for axis in source.axes}
            for axis in axes:
                b = theirs[axis.tensor]
                for around, place in other.others(places[axis.tensor]):
                    b = moved(b, around, place, found.plans[around.name], _named(graph, around.name))
                a = by_unit(ours[axis.tensor], group, axis)
                pairs.append((a, by_unit(b, source, places[axis.tensor]), axis.fine))
        for a, b, is_fine in pairs:
            gaps = _squared_gaps(a, b)
            if fine is not None and is_fine:
                fine = fine + gaps
            else:
                table = table + gaps
        found.assignments += 1
        if group.width == source.width and group.units == source.units:
            order, gain, _ = solve(-table, None if fine is None else -fine, group)
            found.plans[group.name], found.costs[group.name] = order, -gain / group.units
        elif group.inner > 1 or source.inner > 1:
            raise InputError(f"group {group.name!r} differs in its heads; heads are moved whole, not split")
        else:
            plan = coupling(table)
            found.plans[group.name], found.costs[group.name] = plan, float((plan * table).sum())
    return found


def forward_by_inputs(graph: Graph, tensors: Mapping[str, Array]) -> list[tuple[Group, list[Axis]]]:
    """As `forward`, by what the units compute alone; by all that is known where that says nothing."""
    out = []
    for group, known in forward(graph, tensors):
        inputs = [axis for axis in known if axis.incoming and axis.matched]
        out.append((group, inputs or [axis for axis in known if axis.matched]))
    return out


def _named(graph: Graph, name: str) -> Group:
    return next(group for group in graph.groups if group.name == name)


def _squared_gaps(a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    gaps = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.maximum(gaps, 0)


def coupling(costs: Array) -> Array:
    """The cheapest coupling of two uniform measures, exactly: (n, m), rows summing to 1/n and columns to 1/m."""
    from scipy.optimize import linear_sum_assignment

    n, m = costs.shape
    copies = math.lcm(n, m)
    if copies <= max(_MOST_COPIES, n, m):
        # A unit of mass 1/n is as many units of mass 1/copies; a cheapest plan between those is an assignment.
        rows, columns = np.repeat(np.arange(n), copies // n), np.repeat(np.arange(m), copies // m)
        left, right = linear_sum_assignment(costs[rows][:, columns])
        plan = np.zeros((n, m))
        np.add.at(plan, (rows[left], columns[right]), 1.0)
        return plan / copies
    return _program(costs)


def _program(costs: Array) -> Array:
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, kron, vstack

    n, m = costs.shape
    # Masses that are whole numbers: the vertices of such a polytope are, too.
    held = vstack(
        [kron(eye_array(n), csr_array(np.ones((1, m)))), kron(csr_array(np.ones((1, n))), eye_array(m))], format="csr"
    )
    totals = np.concatenate([np.full(n, float(m)), np.full(m, float(n))])
    answer = linprog(costs.ravel(), A_eq=held, b_eq=totals, method="highs-ds")  # type: ignore[call-overload]
    if answer.status != 0:
        raise FailureError(f"the coupling of {n} with {m} units was not found: {answer.message}")
    plan: Array = np.round(answer.x.reshape(n, m)) / (n * m)
    return plan


# --- moving


def _ordered(array: NDArray[Any], group: Group, axis: Axis, order: Ints) -> NDArray[Any]:
    return np.take(array, positions(array.shape[axis.axis], group, axis, order), axis=axis.axis)


def moved(array: NDArray[Any], group: Group, axis: Axis, plan: NDArray[Any], target: Group) -> NDArray[Any]:
    """A tensor with one group's units in another order, or made into the `target`'s units by a coupling.

    What a unit computes becomes the average of its parts; what reads it is shared among what it becomes part of, so
    that the sum over units stays what it was, whatever the widths.
    """
    if plan.ndim == 1:
        return _ordered(array, group, axis, plan)
    share = plan / plan.sum(axis=1 if axis.incoming else 0, keepdims=True)
    first = np.moveaxis(array, axis.axis, 0)
    apart = first.reshape(axis.sections, group.units, first.shape[0] // (axis.sections * group.units), -1)
    made = np.tensordot(share, apart.astype(np.float64), ([1], [1])).swapaxes(0, 1)
    length = axis.sections * target.units * apart.shape[2]
    return np.moveaxis(made.reshape(length, *first.shape[1:]), 0, axis.axis)


def rearranged(
    member: Mapping[str, Any], graph: Graph, plans: Orders, target: Graph, names: Iterable[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The member with every group moved, each tensor in its own dtype; tensors that hold no group are as they were."""
    targets = {group.name: group for group in target.groups}
    out = {}
    for name in member if names is None else names:
        value = member[name]
        array = value if isinstance(value, np.ndarray) else whole(member, name)
        dtype = array.dtype
        for group, axis in graph.on.get(name, ()):
            array = moved(array, group, axis, plans[group.name], targets[group.name])
        out[name] = np.asarray(array.astype(dtype, copy=False), order="C")
    return out


def squared_distance(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str]) -> float:
    """Over the tensors named, in float64."""
    total = []
    for name in names:
        gaps = np.subtract(a[name], b[name], dtype=np.float64).ravel()
        total.append(float(gaps @ gaps))
    return math.fsum(total)


# --- what the methods share


def named(pool: Pool, who: str) -> Pool:
    if not pool.named:
        raise InputError(f"{who} needs networks: members are mappings name -> array or checkpoints, not plain arrays")
    return pool


def shapes_of(member: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in member.items()}


def place_of(value: Any, m: int, name: str = "reference") -> int:
    place = checks.count(value, name, least=0)
    if place >= m:
        raise InputError(f"{name}={value!r}: the members are 0..{m - 1}")
    return place


def to_front(first: int, m: int) -> NDArray[np.int64]:
    return np.array([first, *(place for place in range(m) if place != first)])
