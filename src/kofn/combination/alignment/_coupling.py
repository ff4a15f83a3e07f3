"""Couplings of the units of two networks by exact optimal transport, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kofn.combination.alignment._architectures import Axis, Graph, Group
from kofn.combination.alignment._matching import forward, solve
from kofn.combination.alignment._units import Orders, by_unit, moved
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.engines.network_simplex import cheapest_plan


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
    n, m = costs.shape
    vertex = cheapest_plan(costs, np.full(n, float(m)), np.full(m, float(n)))
    plan = np.zeros((n, m))
    # The vertices of whole totals are whole.
    plan[vertex.row, vertex.column] = np.round(vertex.mass)
    return plan / (n * m)
