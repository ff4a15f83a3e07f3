"""Merging networks whose hidden units stand in different orders: matched by their weights, or transported."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.combination import _matching
from kofn.combination._architectures import Graph, configuration, graph_of
from kofn.combination._matching import Orders, floats, named, place_of, rearranged, shapes_of, to_front, whole
from kofn.combination._members import Held, Pool, open_members, what
from kofn.combination._merge import Files, check_out, merge, relative_weights
from kofn.combination._partial import ACTIVATIONS, calibration, chain_features, linear_chain
from kofn.combination.averaging import Mean
from kofn.plans import Blend
from kofn.registry import method

Floats = NDArray[Any]
State = Mapping[str, Any]


@method(
    "combine",
    traits=("aligned", "sandwich"),
    cost="O(m sum of width x weights) a sweep and one linear assignment a group; memory the members, in float32",
    exact="each group's best order given the others; of all where no tensor holds two; a permuted copy bit for bit",
    paper="Ainsworth, Hayase & Srinivasa 2023, Git Re-Basin: merging models modulo permutation symmetries (ICLR)",
)
def weight_matching(
    members: Sequence[Any],
    *,
    weights: Any = None,
    architecture: Any = "auto",
    heads: Any = None,
    reference: int = 0,
    initial: str = "layers",
    max_sweeps: int = 100,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Blend:
    """Average networks after putting their hidden units into the order of one of them.

    Permuting a layer's units, and what reads them, leaves a network's function as it is, so that two trained networks
    rarely list theirs in one order and their average is mostly useless. Each group of units is matched to the
    reference's by a linear assignment over all the weights it is on, given the orders of the other groups, in turns
    until none changes; then the members are averaged.

    Args:
        members: m mappings name -> array (NumPy or torch), or paths of `*.safetensors` files or folders, of one
            architecture.
        weights: (m,) relative weights of the average, uniform by default.
        architecture: how the units hang together. "auto" reads plain chains of linear, convolutional and norm layers
            ("mlp", "cnn") from the shapes, in the order of the mapping, and knows "llama", "gpt2" and "nanogpt" blocks
            by their names. Everything else is declared: `{group: [(tensor, axis), ...]}`, where `*` in a tensor's name
            is any text and `{}` the same text in the group's name and in the tensor's. An entry `(tensor, axis, s)`
            says that the axis holds the units s times over; `{"axes": [...], "units": u}` that a group has u units of
            several entries each. Tensors that no group names stay in place.
        heads: attention heads, or (query heads, key/value heads), which move whole, and query heads among those that
            share a key; read from `config.json` beside a checkpoint. Without, heads stay in place (`info["left"]`).
        reference: the member whose order the others take.
        initial: "layers" orders each group by what earlier groups settle, which does not depend on the order in which
            a member lists its units; "identity" starts from the order given, as the paper does.
        max_sweeps: sweeps over the groups at most.
        out: a `*.safetensors` file or a folder to write the result into.
        progress: show progress on a terminal.

    Returns:
        A Blend. `transforms` {group: (m, width)}: the order in which each member's units stand in the result, so that
        `weight[order]` is the aligned tensor; `weights`, `form` and `spread` as those of the mean of the aligned
        members; `value` is the summed squared distance of the aligned members to the reference, "optimal" where no
        tensor holds two groups, else a local optimum. `info`: `sweeps` and `converged` by member, `assignments`,
        `distance_before` and `distance_after` (L2 to the reference), `left` groups that were not moved.

    Raises:
        InputError: members that do not match, an architecture that is not known, plain arrays, NaN, integers among the
            tensors to match.

    Cost: a sweep takes a matrix product for each tensor and group on it and an assignment a group, O(width^3) at worst;
    groups whose neighbours have not moved are passed over. Ties between equal units go either way.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = {"0.weight": rng.normal(size=(5, 3)), "0.bias": rng.normal(size=5), "2.weight": rng.normal(size=(2, 5))}
    >>> turn = rng.permutation(5)
    >>> b = {"0.weight": a["0.weight"][turn], "0.bias": a["0.bias"][turn], "2.weight": a["2.weight"][:, turn]}
    >>> blend = weight_matching([a, b])
    >>> all(np.array_equal(blend.result[name], a[name]) for name in a)
    True
    >>> bool((turn[blend.transforms["0"][1]] == np.arange(5)).all())
    True

    References:
        Ainsworth, Hayase & Srinivasa 2023, Git Re-Basin: merging models modulo permutation symmetries (ICLR).
        Ito, Yamada & Kumagai 2025, Analysis of linear mode connectivity via permutation-based weight matching (ICLR).
    """
    initial = checks.choice(initial, "initial", ("layers", "identity"))
    most = checks.count(max_sweeps, "max_sweeps")
    pool = named(open_members(members), "weight_matching")
    first = place_of(reference, len(pool.members))
    graph = graph_of(shapes_of(pool.members[first]), architecture, heads, configuration(members[first]))
    names = [name for name in pool.first if name in graph.on]
    ours = floats(pool.members[first], names, pool.labels[first])
    fixed = [name for name, tensor in pool.first.items() if name not in graph.on and tensor.dtype.kind not in "iubc"]

    plans: list[Orders] = []
    aligned: list[Mapping[str, Any]] = []
    before, after, sweeps, converged = [], [], [], []
    assignments = 0
    for place, member in enumerate(pool.members):
        if place == first:
            found = _matching.Match(_matching.identity(graph))
            aligned.append(member)
            before.append(0.0)
            after.append(0.0)
        else:
            theirs = floats(member, names, pool.labels[place])
            found = _matching.match(ours, theirs, graph, initial, most)
            apart = _matching.squared_distance(
                floats(pool.members[first], fixed, pool.labels[first]), floats(member, fixed, pool.labels[place]), fixed
            )
            before.append(_matching.squared_distance(ours, theirs, names) + apart)
            theirs = rearranged(theirs, graph, found.orders, graph)
            after.append(_matching.squared_distance(ours, theirs, names) + apart)
            aligned.append(_held({n: theirs.get(n) if n in theirs else whole(member, n) for n in member}, pool.first))
        plans.append(found.orders)
        sweeps.append(found.sweeps)
        converged.append(found.converged)
        assignments += found.assignments
    value = math.fsum(after)
    exact = graph.separable
    return _mean_of(
        pool,
        aligned,
        first,
        weights,
        Files(out=out, progress=progress),
        transforms={group.name: np.array([plan[group.name] for plan in plans]) for group in graph.groups},
        value=value,
        bound=value if exact else None,
        status="optimal" if exact else "local" if all(converged) else "heuristic",
        info={
            "objective": "matched_distance",
            "sum_of": "ordered_networks",
            "architecture": graph.name,
            "sweeps": sweeps,
            "converged": converged,
            "assignments": assignments,
            "distance_before": [math.sqrt(one) for one in before],
            "distance_after": [math.sqrt(one) for one in after],
            "left": list(graph.left),
        },
    )


@method(
    "combine",
    traits=("aligned",),
    cost="O(m sum of width x weights), one exact coupling a group; memory the members, in float64",
    exact="the cheapest coupling of each layer's units given the layers before it; a permuted copy bit for bit",
    paper="Singh & Jaggi 2020, Model fusion via optimal transport (NeurIPS)",
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
    progress: bool | None = None,
) -> Blend:
    """Fuse networks layer by layer by optimal transport between their units; the widths may differ.

    From the first layer on, the units of each member are coupled with the reference's at the least squared distance
    between what they compute: their incoming weights and bias, in terms of the units before as coupled already, or
    their activations. Every unit has the same mass. The member's layer is carried over by the coupling, and the
    carried members are averaged.

    Args:
        members: m mappings name -> array, or paths, of one architecture; widths of the hidden layers may differ.
        weights: (m,) relative weights of the average, uniform by default.
        inputs: (n, d) inputs on which to compare what units compute before the nonlinearity, for plain MLPs; None
            compares weights.
        activations: the same for any architecture: for each member a mapping group -> (n, width).
        activation: "relu", "gelu", "tanh" or "linear", between the layers, for `inputs`.
        architecture: how the units hang together, as for `weight_matching`.
        heads: attention heads, as for `weight_matching`; they are moved whole, never split.
        reference: the member whose widths and order the result has.
        out: a `*.safetensors` file or a folder to write the result into.
        progress: show progress on a terminal.

    Returns:
        A Blend of the reference's shapes. `transforms` {group: [for each member an order (width,) where the widths
        agree, else the coupling (width of the reference, width) whose entries sum to 1]}; `weights`, `form` and
        `spread` as those of the mean of the carried members; no `value`. `info`: `costs` of the couplings by member,
        `assignments`.

    Raises:
        InputError: members whose names, dtypes or shapes beside the widths differ; an architecture that is not known.

    Cost: one matrix product and one exact coupling a group, by assignment where the widths agree or have a small common
    multiple, O(width^3) at worst, else by a linear program; the members are held whole. What reads a unit is shared
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
    for place, member in enumerate(pool.members):
        if place == first:
            plans.append(dict(_matching.identity(target)))
            costs.append({})
            aligned.append(member)
            continue
        pair = None if seen is None else (seen[first], seen[place])
        found = _matching.transport(states[first], states[place], target, graphs[place], pair)
        plans.append(found.plans)
        costs.append(found.costs)
        assignments += found.assignments
        aligned.append(_held(rearranged(member, graphs[place], found.plans, target), pool.members[first]))
    return _mean_of(
        pool,
        aligned,
        first,
        weights,
        Files(out=out, progress=progress),
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


def singular_alignment(
    a: State, b: State, *, transforms: Mapping[str, Any] | None = None, top: float = 0.0, **structure: Any
) -> float:
    """How far the singular vectors of two networks' weights point the same way: R, in -1..1.

    Permutations leave singular values as they are and turn singular vectors. R sums
    `(u_i . u'_j) (v_i . v'_j)` over all pairs of singular vectors of each weight, over all weights, and divides by how
    many there are: 1 for a permuted copy once it is matched, about 0 for networks that have nothing to do with one
    another. Weight matching raises it where the singular values are large, and that is what keeps the function.

    Args:
        a: name -> array.
        b: the same names and shapes.
        transforms: {group: order of b's units}, as `{g: t[1] for g, t in blend.transforms.items()}`; none by default.
        top: only singular values of at least this share of each weight's largest.
        structure: `architecture` and `heads`, as for `weight_matching`; needed with `transforms`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = {"0.weight": rng.normal(size=(9, 3)), "2.weight": rng.normal(size=(2, 9))}
    >>> order = rng.permutation(9)
    >>> b = {"0.weight": a["0.weight"][order], "2.weight": a["2.weight"][:, order]}
    >>> found = {"0": np.argsort(order)}
    >>> singular_alignment(a, b) < 0.9, round(singular_alignment(a, b, transforms=found), 9)
    (True, 1.0)

    References:
        Ito, Yamada & Kumagai 2025, Analysis of linear mode connectivity via permutation-based weight matching (ICLR).
    """
    top = checks.fraction(top, "top")
    pool = named(open_members([a, b]), "singular_alignment")
    other: Mapping[str, Any] = pool.members[1]
    if transforms is not None:
        graph = graph_of(shapes_of(pool.first), structure.pop("architecture", "auto"), structure.pop("heads", None))
        missing = next((group.name for group in graph.groups if group.name not in transforms), None)
        if missing is not None:
            raise InputError(f"transforms lacks group {missing!r}; give an order for each")
        orders = {name: np.asarray(order, np.int64) for name, order in transforms.items()}
        other = _held(rearranged(pool.members[1], graph, orders, graph), pool.first)
    if structure.keys() - {"architecture", "heads"}:
        raise InputError(f"singular_alignment has no option {sorted(structure)[0]!r}; it has architecture and heads")
    alike, count = 0.0, 0.0
    for name, tensor in pool.first.items():
        if len(tensor.shape) < 2 or min(tensor.shape) == 0:
            continue
        one, two = (_polar(np.asarray(whole(member, name), np.float64), top) for member in (pool.first, other))
        # The sum over all pairs is the inner product of U V' of the one with that of the other.
        alike += float((one[0] * two[0]).sum())
        count += math.sqrt(one[1] * two[1])
    return alike / count if count else 0.0


def _polar(weight: Floats, top: float) -> tuple[Floats, int]:
    u, values, v = np.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
    kept = values >= max(top, np.finfo(np.float64).eps * max(weight.shape)) * values[0]
    kept[0] = True
    return u[:, kept] @ v[kept], int(kept.sum())


def permute(
    state: State, transforms: Mapping[str, Any], *, architecture: Any = "auto", heads: Any = None
) -> dict[str, Any]:
    """A network with the units of its groups in other orders: the same function, bit for bit up to the order of sums.

    Args:
        state: name -> array.
        transforms: {group: order}; groups that it does not name stay as they are.
        architecture: as for `weight_matching`.
        heads: as for `weight_matching`.

    >>> import numpy as np
    >>> a = {"0.weight": np.array([[1.0], [2.0]]), "2.weight": np.array([[3.0, 4.0]])}
    >>> permute(a, {"0": [1, 0]})
    {'0.weight': array([[2.],
           [1.]]), '2.weight': array([[4., 3.]])}
    """
    pool = named(open_members([state]), "permute")
    graph = graph_of(shapes_of(pool.first), architecture, heads)
    orders = dict(_matching.identity(graph))
    for name, order in transforms.items():
        if name not in orders:
            raise InputError(
                f"transforms names group {name!r}{checks.nearest(str(name), orders)}; groups: {list(orders)}"
            )
        array = np.asarray(order)
        if array.dtype.kind not in "iu" or sorted(array.tolist()) != list(range(len(orders[name]))):
            raise InputError(f"transforms[{name!r}] is no order of {len(orders[name])} units")
        inner = next(group.inner for group in graph.groups if group.name == name)
        blocks = array.reshape(-1, inner) // inner
        if (blocks != blocks[:, :1]).any():
            raise InputError(f"transforms[{name!r}] parts heads that share a key; they move together")
        orders[name] = array.astype(np.int64)
    return rearranged(pool.first, graph, orders, graph)


# --- what the methods share


def _held(arrays: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Held]:
    """As tensors of the dtype that the members have."""
    return {name: Held(np.asarray(array).astype(like[name].dtype, copy=False)) for name, array in arrays.items()}


def _mean_of(
    pool: Pool,
    aligned: Sequence[Mapping[str, Any]],
    first: int,
    weights: Any,
    files: Files,
    *,
    transforms: dict[str, Any],
    value: float,
    bound: float | None,
    status: str,
    info: Mapping[str, Any],
) -> Blend:
    """The mean of aligned members, written in the layout of the reference."""
    if files.out is not None:
        check_out(files.out, pool)
    order = to_front(first, len(aligned))
    used, _, form = relative_weights(weights, len(aligned))
    lined = Pool([aligned[place] for place in order], [pool.labels[place] for place in order], True, pool.on_disk)
    blend = merge(lined, Mean(used[order], form), files, weights=used[order], form=form, info=info)
    assert blend.spread is not None
    return dataclasses.replace(
        blend,
        weights=used,
        spread=blend.spread[np.argsort(order)],
        transforms=transforms,
        value=value,
        bound=bound,
        status=status,
    )


def _open_widths(members: Sequence[Any]) -> Pool:
    """Members whose shapes may differ."""
    opened = [open_members([member]) for member in members]
    if len({pool.named for pool in opened}) > 1:
        raise InputError("members mix plain arrays with mappings; give mappings name -> array or checkpoints")
    labels = [pool.labels[0].replace("member 0", f"member {place}", 1) for place, pool in enumerate(opened)]
    first = opened[0].first
    for label, pool in zip(labels, opened, strict=True):
        if odd := sorted(set(pool.first) ^ set(first)):
            raise InputError(f"{label} and member 0 do not both hold tensor {odd[0]!r}; fuse one architecture")
        for name, tensor in pool.first.items():
            if tensor.dtype != first[name].dtype:
                raise InputError(f"{label}: {what(name)} is {tensor.dtype}, in member 0 {first[name].dtype}")
    return Pool(
        [pool.first for pool in opened],
        labels,
        all(pool.named for pool in opened),
        any(pool.on_disk for pool in opened),
    )


def _refuse_other_shapes(
    ours: Mapping[str, Any], target: Graph, theirs: Mapping[str, Any], graph: Graph, label: str
) -> None:
    """Shapes may differ along the axes of groups, by whole units."""
    for name, tensor in theirs.items():
        wanted = list(ours[name].shape)
        for (here, axis), (there, place) in zip(target.on.get(name, ()), graph.on.get(name, ()), strict=True):
            held = axis.sections * (here.width if axis.fine else here.units)
            count = place.sections * (there.width if place.fine else there.units)
            wanted[axis.axis] = wanted[axis.axis] // held * count
        if list(tensor.shape) != wanted:
            raise InputError(
                f"{label}: {what(name)} has shape {tuple(tensor.shape)}, which does not go with "
                f"{tuple(ours[name].shape)}: only the widths of hidden layers may differ"
            )


def _activations(
    states: Sequence[Mapping[str, Floats]], graphs: Sequence[Graph], inputs: Any, activations: Any, activation: str
) -> list[dict[str, Floats]] | None:
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
        _given_activations(one, graph, place)
        for place, (one, graph) in enumerate(zip(activations, graphs, strict=True))
    ]


def _given_activations(given: Any, graph: Graph, place: int) -> dict[str, Floats]:
    out = {}
    for group in graph.groups:
        if not isinstance(given, Mapping) or group.name not in given:
            raise InputError(f"activations of member {place} lack group {group.name!r}; give (n, {group.width}) for it")
        array = checks.matrix(given[group.name], f"activations of group {group.name!r}")
        if array.shape[1] != group.width:
            raise InputError(
                f"activations of group {group.name!r} of member {place} have {array.shape[1]} columns "
                f"for {group.width} units"
            )
        out[group.name] = np.asarray(array, np.float64)
    return out
