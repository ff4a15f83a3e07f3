"""CLAFusion: networks of unequal depth, their layers aligned in order, then fused unit by unit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.members import open_members, tensor_label
from kofn.combination._sweep.tensor import Tensor
from kofn.combination.alignment._architectures import graph_of
from kofn.combination.alignment._ot_fusion import ot_fusion
from kofn.combination.alignment._units import floats, named, place_of, shapes_of
from kofn.combination.partial._linear_chain import Linear, calibration, chain_features, linear_chain
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.words import Progress

__all__ = ["cross_layer_fusion", "match_layers"]

_KEEPS_IDENTITY = ("relu", "linear")

State = dict[str, Any]


@method(
    "combine",
    traits=("aligned",),
    draws=Draw(
        kinds={"members": "networks"},
        plain={"inputs": [[0.0, 1.0], [0.5, 1.0], [4.0, 2.0], [4.5, 2.5], [9.0, 0.0], [8.0, 0.5]]},
        states_no_value=True,
    ),
    cost="O(n width^2) for each pair of layers, O(layers^2) to align them, then as ot_fusion; memory all features",
    exact="the alignment of layers is the cheapest in order; the deepened members compute what they did",
    paper=332,
    aliases=("CLAFusion", "unequal depth", "heterogeneous networks", "cross-layer alignment"),
)
def cross_layer_fusion(
    members: Sequence[Any],
    *,
    inputs: Any,
    weights: Any = None,
    activation: str = "relu",
    compare: str = "activations",
    reference: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Blend:
    """CLAFusion: fuse plain MLPs of unequal depth (and width), by aligning their layers, then their units.

    The hidden layers of a shallower member are matched in order to layers of the deepest one, so that the summed
    dissimilarity of their features, 1 - CKA on the inputs, is least (`match_layers`). Where the deepest has a layer
    that no other is matched to, the member gets an identity layer, which changes nothing of what it computes. Members
    of one depth are then averaged after aligning their units by optimal transport, as `ot_fusion` does.

    Args:
        members: m mappings name -> array, or paths, each a plain chain of linear layers with the same inputs and
            outputs.
        inputs: (n, d) inputs on which layers are compared; no labels.
        weights: (m,) relative weights of the average, uniform by default.
        activation: "relu" or "linear", between the layers: through others an identity layer would change the member.
        compare: units by their "activations" on the inputs, before the nonlinearity, or by their "weights".
        reference: the member whose depth, widths, names and order of units the result has: one of the deepest; by
            default the first of them.
        out: a `*.safetensors` file or a folder to write the result into.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        A Blend as of `ot_fusion`, in the reference's shapes. `info["layers"]`: for each member the (depth,) number of
        the reference's hidden layer that each of its own is matched to; `info["dissimilarity"]` their summed 1 - CKA.
        Fused networks of independent starts mostly need a short fine-tune.

    Raises:
        InputError: no plain MLPs, unlike inputs or outputs, a reference that is not among the deepest, an activation
            through which identity layers do not pass, inputs of another width.

    Cost: a forward pass of every member over the inputs, a product of features for each pair of layers, then
    `ot_fusion`. The first hidden layers are always matched with each other: an identity layer before the first would
    cut off negative inputs. Merging layers of the deeper network, the paper's other way to balance depth, is not
    offered.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> shallow = {"0.weight": rng.normal(size=(4, 3)), "2.weight": rng.normal(size=(2, 4))}
    >>> deep = {"0.weight": shallow["0.weight"], "2.weight": np.eye(4), "4.weight": shallow["2.weight"]}
    >>> blend = cross_layer_fusion([shallow, deep], inputs=rng.normal(size=(50, 3)))
    >>> all(np.allclose(blend.result[name], deep[name]) for name in deep), blend.info["layers"][0].tolist()
    (True, [0])

    References:
        Nguyen et al. 2023, On cross-layer alignment for model fusion of heterogeneous neural networks (ICASSP).
    """
    checks.choice(activation, "activation", _KEEPS_IDENTITY)
    checks.choice(compare, "compare", ("activations", "weights"))
    pools = [named(open_members([member]), "cross_layer_fusion") for member in members]
    labels = [pool.labels[0].replace("member 0", f"member {i}", 1) for i, pool in enumerate(pools)]
    states = [floats(pool.first, pool.first, label) for pool, label in zip(pools, labels, strict=True)]
    chains = [_chain_of(state, label) for state, label in zip(states, labels, strict=True)]
    first = _deepest(chains, reference)
    X = calibration(inputs, states[first][chains[first][0].weight].shape[1])
    for state, chain, label in zip(states, chains, labels, strict=True):
        _refuse_other_ends(state, chain, states[first], chains[first], label)
    seen = [
        [np.maximum(part, 0) if activation == "relu" else part for part in chain_features(s, c, X, activation)[1][:-1]]
        for s, c in zip(states, chains, strict=True)
    ]
    orders, costs = [], []
    for features in seen:
        table = np.array([[1 - _cka(a, b) for b in seen[first]] for a in features])
        # Both first layers are matched, and the others among those that follow.
        order = np.concatenate([[0], 1 + match_layers(table[1:, 1:])]) if len(table) > 1 else np.zeros(1, np.int64)
        orders.append(order.astype(np.int64))
        costs.append(float(table[np.arange(len(order)), orders[-1]].sum()))
    deep = [
        _deepened(state, chain, pools[first].first, chains[first], order)
        for state, chain, order in zip(states, chains, orders, strict=True)
    ]
    blend = ot_fusion(
        deep,
        weights=weights,
        inputs=X if compare == "activations" else None,
        activation=activation,
        reference=first,
        out=out,
        progress=progress,
    )
    return dataclasses.replace(blend, info={**blend.info, "layers": orders, "dissimilarity": costs})


@helper
def match_layers(costs: Any) -> Ints:
    """Match each layer of a shallow network with one of a deeper one, in order, at the least summed cost.

    Args:
        costs: (l, L) what matching each of l layers with each of L costs, l at most L; inf where it may not be.

    Returns:
        (l,) the deeper network's layer for each, strictly increasing; ties go to the lowest layers.

    Raises:
        InputError: more rows than columns, a NaN, no match in order that is allowed.

    Cost: O(l L) time and memory.

    Exact: the least over all matches in order.

    References:
        Nguyen et al. 2023, On cross-layer alignment for model fusion of heterogeneous neural networks (ICASSP).

    Examples:
        >>> from kofn.combination import match_layers
        >>> match_layers([[0.1, 0.9, 0.8], [0.2, 0.7, 0.3]]).tolist()
        [0, 2]
    """
    table = checks.matrix(costs, "costs", finite=False).astype(np.float64)
    rows, columns = table.shape
    if rows > columns:
        raise InputError(
            f"costs has shape {table.shape}: {rows} layers do not fit into {columns} in order; transpose it"
        )
    if np.isnan(table).any() or (table == -np.inf).any():
        i, j = np.argwhere(np.isnan(table) | (table == -np.inf))[0].tolist()
        raise InputError(f"costs at row {i}, column {j} is {table[i, j]}; give numbers, or inf where no match may be")
    best = np.full((rows + 1, columns + 1), np.inf)
    best[0] = 0
    for j in range(1, columns + 1):
        # Row i is matched with layer j - 1, or with an earlier one.
        best[1:, j] = np.minimum(best[1:, j - 1], best[:-1, j - 1] + table[:, j - 1])
    if not np.isfinite(best[rows, columns]):
        raise InputError("costs allow no match of all rows in order; leave more of them finite")
    order = np.empty(rows, np.int64)
    j = columns
    for i in range(rows, 0, -1):
        while best[i, j - 1] == best[i, j]:
            j -= 1
        j -= 1
        order[i - 1] = j
    return order


def _chain_of(state: Mapping[str, Array], label: str) -> list[Linear]:
    """The layers of a member.

    Raises:
        InputError: no plain MLP, a bias of another width than its layer's.
    """
    try:
        chain = linear_chain(graph_of(shapes_of(state), "auto"), "cross_layer_fusion")
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    for layer in chain:
        width = len(state[layer.weight])
        if layer.bias is not None and state[layer.bias].shape != (width,):
            raise InputError(
                f"{label}: {tensor_label(layer.bias)} has shape {state[layer.bias].shape}, and {layer.weight!r} "
                f"{width} outputs; give one bias an output"
            )
    return chain


def _deepest(chains: Sequence[Sequence[Linear]], reference: int | None) -> int:
    depths = [len(chain) for chain in chains]
    if reference is None:
        return int(np.argmax(depths))
    first = place_of(reference, len(chains))
    if depths[first] < max(depths):
        raise InputError(
            f"reference={reference} has {depths[first]} layers and member {int(np.argmax(depths))} has {max(depths)}; "
            "give one of the deepest"
        )
    return first


def _refuse_other_ends(
    state: Mapping[str, Array], chain: Sequence[Linear], ours: Mapping[str, Array], target: Sequence[Linear], label: str
) -> None:
    for layer, other, axis, end in ((chain[0], target[0], 1, "inputs"), (chain[-1], target[-1], 0, "outputs")):
        width, wanted = state[layer.weight].shape[axis], ours[other.weight].shape[axis]
        if width != wanted:
            raise InputError(
                f"{label}: {tensor_label(layer.weight)} has {width} {end} and the reference {wanted}; "
                "fuse networks of one task"
            )


def _cka(a: Floats, b: Floats) -> float:
    """Linear centred kernel alignment of two layers' features; 0 where a layer never changes."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    return float(np.square(a.T @ b).sum()) / scale if scale > 0 else 0.0


def _deepened(
    state: Mapping[str, Array],
    chain: Sequence[Linear],
    ours: Mapping[str, Tensor],
    target: Sequence[Linear],
    order: Ints,
) -> State:
    """The same function in as many layers as the target's, under its names; new layers are identities."""
    own = dict(zip([*order.tolist(), len(target) - 1], chain, strict=True))
    biased = _unwanted_bias(own, target)
    if biased is not None:
        raise InputError(f"{tensor_label(biased)} is a bias where the reference has none; give both or neither")
    out: State = {}
    width = 0
    for position, layer in enumerate(target):
        dtype = ours[layer.weight].dtype
        if position in own:
            weight = state[own[position].weight]
            bias = own[position].bias
            width = len(weight)
        else:
            weight, bias = np.eye(width), None
        out[layer.weight] = np.asarray(weight, dtype)
        if layer.bias is not None:
            out[layer.bias] = np.asarray(np.zeros(width) if bias is None else state[bias], ours[layer.bias].dtype)
    return out


def _unwanted_bias(own: Mapping[int, Linear], target: Sequence[Linear]) -> str | None:
    """A bias of the member whose layer has none in the target."""
    return next((layer.bias for i, layer in own.items() if layer.bias and target[i].bias is None), None)
