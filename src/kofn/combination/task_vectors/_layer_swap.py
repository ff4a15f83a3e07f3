"""Layer swapping between two experts, and per-layer measures."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.files import FilesAndThreads, SweepOptions
from kofn.combination._sweep.measures import joint_cosine, joint_kept, relative_length, roots
from kofn.combination._sweep.members import Pool, open_members
from kofn.combination._sweep.merge import merge
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["layer_changes", "layer_swap", "measures_by_layer"]

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|encoder|decoder)\.(\d+)\.|^(\d+)\.")
_CHUNK = 1 << 20


@method(
    "combine",
    draws=Draw(kinds={"members": "layers", "base": "layers"}, plain={"bottom": 1}, members=2, states_no_value=True),
    cost="O(d) time, each member read once (twice where the cut is looked for); memory a few blocks",
    exact="every layer is one expert's, bit for bit, but for the layers of the transitions, which are means",
    paper=326,
)
def layer_swap(
    members: Sequence[Any],
    *,
    base: Any = None,
    bottom: int | None = None,
    top: int | None = None,
    transition: int = 0,
    **files: Unpack[FilesAndThreads],
) -> Blend:
    """Layer swapping: the middle layers of one expert between the bottom and top layers of another.

    Args:
        members: two fine-tunes of one base: first the task expert, whose middle layers are kept, then the expert of the
            input and output (the language), whose bottom and top layers are taken.
        base: the checkpoint they were fine-tuned from; needed to choose the cut.
        bottom: layers taken from the second member at the input, its embeddings included. None, with `top` None: the
            cut at which the layers taken hold the largest shares of their own expert's change (`layer_changes`).
        top: layers taken from the second member at the output, with the final norm and the head. With 0 at an end, the
            tensors beyond it (embeddings, or norm and head) are the first member's.
        transition: number of middle layers next to each cut that are the mean of both members.

    Returns:
        Blend; `weights` maps each tensor's name to the (2,) weights of the members; `form` is "simplex";
        `info` has "bottom", "top", "layers".

    Raises:
        InputError: not two members, names without layer numbers, more layers asked for than there are, no base to find
            the cut with.

    Time O(d), memory a few blocks.

    >>> import numpy as np
    >>> a = {f"layers.{i}.weight": np.full(2, 1.0) for i in range(4)}
    >>> b = {f"layers.{i}.weight": np.full(2, 2.0) for i in range(4)}
    >>> [float(x[0]) for x in layer_swap([a, b], bottom=1, top=1).result.values()]
    [2.0, 1.0, 1.0, 2.0]

    References:
        Bandarkar et al. 2025, Layer swapping for zero-shot cross-lingual transfer in large language models (ICLR).
    """
    options = SweepOptions(**files)
    pool = options.open(members, base)
    if len(pool.members) != 2:
        raise InputError(f"layer_swap takes two members, the task expert and the other; {len(pool.members)} were given")
    numbers, depth = layers_of(list(pool.first))
    if bottom is None and top is None:
        bottom, top = _cut(pool, numbers, depth)
    bottom, top = checks.count(bottom or 0, "bottom", least=0), checks.count(top or 0, "top", least=0)
    if bottom + top > depth:
        raise InputError(f"bottom={bottom} and top={top} are more than the {depth} layers there are")
    zone = checks.count(transition, "transition", least=0)
    weights, merge_rules = {}, {}
    for name, number in numbers.items():
        # If no layer is taken at an end, the tensors beyond it stay as well.
        inner = (number >= bottom or not bottom) and (number < depth - top or not top)
        mixed = inner and ((bottom and number < bottom + zone) or (top and number >= depth - top - zone))
        share = np.array([0.5, 0.5] if mixed else [1.0, 0.0] if inner else [0.0, 1.0])
        weights[name], merge_rules[name] = share, WeightedMean.of_weights(share)
    info = {"bottom": bottom, "top": top, "layers": depth}
    blend = merge(pool, merge_rules, options, weights=None, form="simplex", info=info)
    return dataclasses.replace(blend, weights=weights)


def layers_of(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """The number of each tensor's layer, and how many there are: -1 before the first layer, their number after it."""
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None or not names:
        raise InputError(
            f"members: {checks.shown(odd)} is no name of a tensor; give tensors by name, as layers.3.weight"
        )
    matches = {name: _LAYER.search(name) for name in names}
    given = {name: int(match[1] or match[2]) for name, match in matches.items() if match}
    if not given:
        raise InputError(
            f"members: no tensor's name has a layer number (layers.3. or 3.); names are such as {names[0]!r}"
        )
    position = {number: i for i, number in enumerate(sorted(set(given.values())))}
    depth = len(position)
    early = re.compile(r"emb|wte|wpe|patch|conv1|stem")
    numbers = {
        name: position[given[name]] if name in given else (-1 if early.search(name) else depth) for name in names
    }
    return numbers, depth


@helper
def layer_changes(members: Sequence[Any], base: Any) -> NDArray[np.float64]:
    """(m, layers) each fine-tune's share of change per layer, by the mean absolute change of its entries.

    Each row sums to one. Means, because sums would be dominated by the widest layers; absolute values, because squares
    would be dominated by the few entries that changed most.

    >>> import numpy as np
    >>> base = {"layers.0.w": np.zeros(4), "layers.1.w": np.zeros(2)}
    >>> layer_changes([{"layers.0.w": np.ones(4), "layers.1.w": np.full(2, 3.0)}], base).tolist()
    [[0.25, 0.75]]
    """
    pool = open_members(members, base)
    return _changes(pool, *layers_of(list(pool.first)))


@helper
def measures_by_layer(measures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate the figures that `measure=True` stores in `info["measures"]` by layer.

    Returns:
        A row for each layer in order: `layer` (its number, or "before" and "after"; with its stack, such as
        "decoder.block.3", where there are several; the module's name where names have no numbers), `tensors`,
        `elements`, `distance` (m,), `relative` (m,) the distance over the norm of the member's task vector, `length` of
        the blend's task vector over the members', `agreement` of signs, `kept` variance, `cosine` (m, m) of the task
        vectors.

    >>> import numpy as np, kofn
    >>> a, b = {"layers.0.w": np.array([1.0, 2.0])}, {"layers.0.w": np.array([1.0, -2.0])}
    >>> [row] = measures_by_layer(kofn.combine([a, b], options={"measure": True}).info["measures"])
    >>> row["layer"], row["agreement"], row["distance"].tolist()
    (0, 0.75, [2.0, 2.0])
    """
    groups: dict[int | str, list[Mapping[str, Any]]] = {}
    for name, layer in _layer_names(list(measures)).items():
        groups.setdefault(layer, []).append(measures[name])
    return [{"layer": layer, **together(measured)} for layer, measured in groups.items()]


def together(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of several tensors as those of one, as `measures_by_layer` gives them."""
    norms = np.array([row["norms"] for row in measured])
    whole = roots(norms)
    distance = roots(np.array([row["distance"] for row in measured]))
    elements, signed = (np.array([row[key] for row in measured], np.float64) for key in ("elements", "signed"))
    kept = joint_kept(measured)
    agreement = float(signed @ [row["agreement"] for row in measured] / signed.sum()) if signed.sum() else 1.0
    return {
        "tensors": len(measured),
        "elements": int(elements.sum()),
        "distance": distance,
        "relative": np.divide(distance, whole[:-1], out=np.zeros_like(distance), where=whole[:-1] > 0),
        "length": relative_length(whole),
        "agreement": agreement,
        "kept": 1.0 if kept is None else kept,
        "cosine": joint_cosine(measured),
    }


def _layer_names(names: Sequence[str]) -> dict[str, int | str]:
    """The layer of each tensor, in the order of the layers."""
    try:
        positions, _ = layers_of(names)
    except InputError:
        return {name: name.rpartition(".")[0] or name for name in names}
    stacks: dict[str, int] = {}
    layers: dict[str, int | str] = {}
    order: dict[str, tuple[int, int, int]] = {}
    for name in names:
        match = _LAYER.search(name)
        if match is None:
            layers[name], order[name] = ("before", (-1, 0, 0)) if positions[name] < 0 else ("after", (1, 0, 0))
            continue
        group = 1 if match[1] else 2
        number, stack = int(match[group]), name[: match.start(group)].rstrip(".")
        layers[name], order[name] = number, (0, stacks.setdefault(stack, len(stacks)), number)
    if len(stacks) > 1:
        known = list(stacks)
        layers = {
            name: f"{known[order[name][1]]}.{layer}" if isinstance(layer, int) else layer
            for name, layer in layers.items()
        }
    return {name: layers[name] for name in sorted(names, key=order.__getitem__)}


def _changes(pool: Pool, numbers: dict[str, int], depth: int) -> NDArray[np.float64]:
    assert pool.base is not None
    sums, sizes = np.zeros((len(pool.members), depth)), np.zeros(depth)
    for name, number in numbers.items():
        if not 0 <= number < depth or pool.first[name].dtype.kind in "iub":
            continue
        tensor = pool.base[name]
        sizes[number] += tensor.size
        for start in range(0, tensor.size, _CHUNK):
            stop = min(start + _CHUNK, tensor.size)
            origin = tensor.read(start, stop).astype(np.float64)
            for i, member in enumerate(pool.members):
                sums[i, number] += float(np.abs(member[name].read(start, stop) - origin).sum())
    means = sums / np.maximum(sizes, 1)
    total = means.sum(axis=1, keepdims=True)
    return np.divide(means, total, out=np.full_like(means, 1 / depth), where=total > 0)


def _cut(pool: Pool, numbers: dict[str, int], depth: int) -> tuple[int, int]:
    """The `bottom` and `top` for which the kept layers hold the largest share of their experts' change."""
    if pool.base is None:
        raise InputError("layer_swap needs base to find the cut; give it, or bottom and top")
    if depth < 2:
        raise InputError(f"there is {depth} layer, nothing to swap")
    task, other = np.concatenate([np.zeros((2, 1)), np.cumsum(_changes(pool, numbers, depth), axis=1)], axis=1)
    cuts = [(b, t) for b in range(depth) for t in range(depth - b) if b + t > 0]
    shares = [task[depth - t] - task[b] + other[b] + other[depth] - other[depth - t] for b, t in cuts]
    return cuts[int(np.argmax(shares))]
