"""Couplings of the units of two networks by exact optimal transport, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kofn.combination.alignment._architectures import Axis, Graph, Group, by_unit
from kofn.combination.alignment._matching import forward, solve
from kofn.combination.alignment._units import Orders, moved
from kofn.core.arrays import Array
from kofn.core.checks import FailureError, InputError

# Up to this many copies of units, couplings are solved as an assignment; beyond, as a linear program.
_MOST_COPIES = 2048


@dataclass
class Transport:
    """The transform of a member's units into the reference's: a permutation for equal widths, else a coupling."""

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
    """Couple layer by layer at the least squared distance between units' incoming weights, given earlier layers."""
    transported = Transport({})
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
                for around, other_axis in other.others(places[axis.tensor]):
                    b = moved(b, around, other_axis, transported.plans[around.name], _named(graph, around.name))
                a = by_unit(ours[axis.tensor], group, axis)
                pairs.append((a, by_unit(b, source, places[axis.tensor]), axis.fine))
        for a, b, is_fine in pairs:
            gaps = _squared_gaps(a, b)
            if fine is not None and is_fine:
                fine = fine + gaps
            else:
                table = table + gaps
        transported.assignments += 1
        if group.width == source.width and group.units == source.units:
            order, gain, _ = solve(-table, None if fine is None else -fine, group)
            transported.plans[group.name], transported.costs[group.name] = order, -gain / group.units
        elif group.inner > 1 or source.inner > 1:
            raise InputError(f"group {group.name!r} differs in its heads; heads are moved whole, not split")
        else:
            plan = coupling(table)
            transported.plans[group.name], transported.costs[group.name] = plan, float((plan * table).sum())
    return transported


def forward_by_inputs(graph: Graph, tensors: Mapping[str, Array]) -> list[tuple[Group, list[Axis]]]:
    """As `forward`, comparing incoming weights only, or all weights where a unit has no incoming ones."""
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
    # With integer masses the vertices of the transportation polytope are integer, too.
    sums = vstack(
        [kron(eye_array(n), csr_array(np.ones((1, m)))), kron(csr_array(np.ones((1, n))), eye_array(m))], format="csr"
    )
    totals = np.concatenate([np.full(n, float(m)), np.full(m, float(n))])
    answer = linprog(costs.ravel(), A_eq=sums, b_eq=totals, method="highs-ds")  # type: ignore[call-overload]
    if answer.status != 0:
        raise FailureError(f"the coupling of {n} with {m} units was not transported: {answer.message}")
    plan: Array = np.round(answer.x.reshape(n, m)) / (n * m)
    return plan
