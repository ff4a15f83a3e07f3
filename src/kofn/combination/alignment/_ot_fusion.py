"""OT fusion: average networks after aligning their units by optimal transport; widths may differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import Pool, open_members, tensor_label
from kofn.combination.alignment._aligned_mean import as_tensors, mean_of
from kofn.combination.alignment._architectures import Graph, configuration, graph_of
from kofn.combination.alignment._coupling import transport
from kofn.combination.alignment._matching import identity
from kofn.combination.alignment._units import Orders, floats, named, place_of, rearranged, shapes_of
from kofn.combination.partial._linear_chain import ACTIVATIONS, calibration, chain_features, linear_chain
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.words import Progress


@method(
    "combine",
    traits=("aligned",),
    draws=Draw(kinds={"members": "networks"}, options={"inputs": "inputs or none"}, states_no_value=True),
    cost="O(m sum of width x weights), one exact coupling a group; memory the members, in float64",
    exact="the cheapest coupling of each layer's units given the layers before it; a permuted copy bit for bit",
    paper=185,
)
def ot_fusion(
    members: Sequence[Any],
    *,
    weights: Any = None,
    inputs: Any = None,
    activations: Any = None,
    activation: str = "relu",
    architecture: Any = "auto",
    heads: Any = None,
    reference: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Blend:
    """OT fusion: average networks after aligning their units by optimal transport; widths may differ.

    Layer by layer, the units of each member are coupled with the reference's at the least squared distance between
    their incoming weights and biases (in terms of the already coupled previous layer) or their activations. All units
    have equal mass. Each member's layer is transported by its coupling, and the transported members are averaged.

    Args:
        members: m mappings name -> array, or paths, of one architecture; widths of the hidden layers may differ.
        weights: (m,) relative weights of the average, uniform by default.
        inputs: (n, d) inputs on which to compare pre-activations, for plain MLPs; None compares weights.
        activations: the same for any architecture: for each member a mapping group -> (n, width).
        activation: "relu", "gelu", "tanh" or "linear", between the layers, for `inputs`.
        architecture: the groups of units, as for `weight_matching`.
        heads: attention heads, as for `weight_matching`; they are moved whole, never split.
        reference: the member whose widths and order the result has.
        out: a `*.safetensors` file or a folder to write the result into.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        A Blend of the reference's shapes. `transforms` {group: [for each member an order (width,) where the widths
        agree, else the coupling (width of the reference, width) whose entries sum to 1]}; `weights`, `form` and
        `spread` as those of the mean of the transported members; no `value`. `info`: `costs` of the couplings by
        member, `assignments`.

    Raises:
        InputError: members whose names, dtypes or shapes beside the widths differ; an architecture that is not known.

    Cost: one matrix product and one exact coupling a group, by assignment where the widths agree, O(width^3) at worst,
    else by the network simplex of exact transport; the members are held whole. What reads a unit is shared
    among the units that it becomes part of, so that sums over units keep their size between unequal widths, where the
    authors' code scales them by the ratio of the widths.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = {"0.weight": rng.normal(size=(4, 3)), "2.weight": rng.normal(size=(2, 4))}
    >>> twice = {"0.weight": np.repeat(a["0.weight"], 2, axis=0), "2.weight": np.repeat(a["2.weight"], 2, axis=1) / 2}
    >>> blend = ot_fusion([a, twice])
    >>> all(np.allclose(blend.result[name], a[name]) for name in a), blend.transforms["0"][1].shape
    (True, (4, 8))

    References:
        Singh & Jaggi 2020, Model fusion via optimal transport (NeurIPS).
    """
    pool = named(_open_widths(members), "ot_fusion")
    first = place_of(reference, len(pool.members))
    graphs = [
        graph_of(shapes_of(member), architecture, heads, configuration(given))
        for member, given in zip(pool.members, members, strict=True)
    ]
    target = graphs[first]
    for label, member, graph in zip(pool.labels, pool.members, graphs, strict=True):
        _refuse_other_shapes(pool.members[first], target, member, graph, label)
    names = [name for name in pool.first if name in target.on or inputs is not None]
    states = [floats(member, names, label) for member, label in zip(pool.members, pool.labels, strict=True)]
    seen = _activations(states, graphs, inputs, activations, checks.choice(activation, "activation", ACTIVATIONS))

    plans: list[Orders] = []
    aligned: list[Mapping[str, Any]] = []
    costs: list[dict[str, float]] = []
    assignments = 0
    for position, member in enumerate(pool.members):
        if position == first:
            plans.append(dict(identity(target)))
            costs.append({})
            aligned.append(member)
            continue
        pair = None if seen is None else (seen[first], seen[position])
        fit = transport(states[first], states[position], target, graphs[position], pair)
        plans.append(fit.plans)
        costs.append(fit.costs)
        assignments += fit.assignments
        aligned.append(as_tensors(rearranged(member, graphs[position], fit.plans, target), pool.members[first]))
    return mean_of(
        pool,
        aligned,
        first,
        weights,
        SweepOptions(out=out, progress=progress),
        transforms={group.name: [plan[group.name] for plan in plans] for group in target.groups},
        value=float("nan"),
        bound=None,
        status="heuristic",
        info={
            "sum_of": "ordered_networks",
            "architecture": target.name,
            "costs": costs,
            "assignments": assignments,
            "left": list(target.left),
        },
    )


def _open_widths(members: Sequence[Any]) -> Pool:
    """Open members whose hidden widths may differ."""
    opened = [open_members([member]) for member in members]
    if len({pool.named for pool in opened}) > 1:
        raise InputError("members mix plain arrays with mappings; give mappings name -> array or checkpoints")
    labels = [pool.labels[0].replace("member 0", f"member {position}", 1) for position, pool in enumerate(opened)]
    first = opened[0].first
    for label, pool in zip(labels, opened, strict=True):
        if odd := sorted(set(pool.first) ^ set(first)):
            raise InputError(f"{label} and member 0 do not both hold tensor {odd[0]!r}; fuse one architecture")
        for name, tensor in pool.first.items():
            if tensor.dtype != first[name].dtype:
                raise InputError(f"{label}: {tensor_label(name)} is {tensor.dtype}, in member 0 {first[name].dtype}")
    return Pool(
        [pool.first for pool in opened],
        labels,
        all(pool.named for pool in opened),
        any(pool.on_disk for pool in opened),
        quantised=frozenset().union(*(pool.quantised for pool in opened)),
    )


def _refuse_other_shapes(
    ours: Mapping[str, Any], target: Graph, theirs: Mapping[str, Any], graph: Graph, label: str
) -> None:
    """Refuse shapes that differ other than along the axes of groups, by whole units."""
    for name, tensor in theirs.items():
        wanted = list(ours[name].shape)
        for (here, axis), (there, own) in zip(target.on.get(name, ()), graph.on.get(name, ()), strict=True):
            entries = axis.sections * (here.width if axis.fine else here.units)
            count = own.sections * (there.width if own.fine else there.units)
            wanted[axis.axis] = wanted[axis.axis] // entries * count
        if list(tensor.shape) != wanted:
            raise InputError(
                f"{label}: {tensor_label(name)} has shape {tuple(tensor.shape)}, which does not go with "
                f"{tuple(ours[name].shape)}: only the widths of hidden layers may differ"
            )


def _activations(
    states: Sequence[Mapping[str, Array]], graphs: Sequence[Graph], inputs: Any, activations: Any, activation: str
) -> list[dict[str, Array]] | None:
    if inputs is not None and activations is not None:
        raise InputError("inputs and activations are both given; units are compared by one of them")
    if inputs is not None:
        out = []
        for state, graph in zip(states, graphs, strict=True):
            chain = linear_chain(graph, "ot_fusion")
            X = calibration(inputs, state[chain[0].weight].shape[1])
            given = chain_features(state, chain, X, activation)[1]
            out.append({layer.group: each for layer, each in zip(chain, given, strict=True) if layer.group})
        return out
    if activations is None:
        return None
    if not isinstance(activations, Sequence) or len(activations) != len(graphs):
        raise InputError(f"activations: give one mapping group -> (n, width) for each of the {len(graphs)} members")
    return [
        _given_activations(mapping, graph, position)
        for position, (mapping, graph) in enumerate(zip(activations, graphs, strict=True))
    ]


def _given_activations(given: Any, graph: Graph, position: int) -> dict[str, Array]:
    out = {}
    for group in graph.groups:
        if not isinstance(given, Mapping) or group.name not in given:
            raise InputError(
                f"activations of member {position} lack group {group.name!r}; give (n, {group.width}) for it"
            )
        array = checks.matrix(given[group.name], f"activations of group {group.name!r}")
        if array.shape[1] != group.width:
            raise InputError(
                f"activations of group {group.name!r} of member {position} have {array.shape[1]} columns "
                f"for {group.width} units"
            )
        out[group.name] = np.asarray(array, np.float64)
    return out
