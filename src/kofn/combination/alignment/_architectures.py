"""Groups of units: the axes that may be permuted together without changing a network's function.

A group is a set of hidden units (neurons, channels, attention heads, residual stream dimensions, recurrent states) with
all the axes that index them. Chains of linear, convolutional, recurrent and norm layers are read from the shapes; Llama
and GPT-style blocks are tables of tensor names; anything else is declared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kofn.combination.alignment._block_tables import FIXED, TABLES, Row, heads_of
from kofn.combination.alignment._chain_order import CELL, DECLARE, Shapes, by_stem, embedding_of, following
from kofn.core import checks
from kofn.core.checks import InputError, regular

CHAINS = ("mlp", "cnn", "rnn")
BUILT_IN = (*CHAINS, *TABLES)
# A group may index both sides of a tensor, as recurrent states do.
_SIDES = 2
# Names that indicate branches, which the shapes of a state dict do not show.
_BRANCHED = re.compile(r"shortcut|downsample|skip|resid|layer\d+\.\d+\.|block|attn|attention|lstm|gru|rnn|embed")
_STATISTICS = ("running_mean", "running_var")
_COUNTERS = ("num_batches_tracked",)
_CELL_PARTS = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")


@dataclass(frozen=True, slots=True)
class Axis:
    """One tensor axis that indexes a group's units, repeated over `sections` consecutive stretches.

    `fine` axes hold every unit `Group.inner` times, as grouped query heads do. `incoming` axes index the units' own
    weights rather than the weights that read them. Axes that are not `matched` are permuted but not compared.
    """

    tensor: str
    axis: int
    sections: int = 1
    fine: bool = False
    incoming: bool = True
    matched: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Interchangeable units; each contains `inner` units that are interchangeable among themselves."""

    name: str
    units: int
    axes: tuple[Axis, ...]
    inner: int = 1

    @property
    def width(self) -> int:
        """The length of the group's order."""
        return self.units * self.inner


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a plain chain."""

    kind: str  # "embedding", "linear", "conv", "recurrent" or "norm"
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Graph:
    """The groups of one network, and its layers in order if it is a plain chain."""

    name: str
    groups: tuple[Group, ...]
    chain: tuple[Layer, ...] = ()
    left: tuple[str, ...] = ()
    on: dict[str, list[tuple[Group, Axis]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.groups:
            for axis in group.axes:
                self.on.setdefault(axis.tensor, []).append((group, axis))

    def others(self, axis: Axis) -> list[tuple[Group, Axis]]:
        """The other groups on the tensor of one of a group's axes."""
        return [(other, other_axis) for other, other_axis in self.on[axis.tensor] if other_axis is not axis]

    @property
    def separable(self) -> bool:
        """Whether no tensor is indexed by two groups, so that each group can be matched independently."""
        return all(len(places) == 1 for places in self.on.values())

    @property
    def tied(self) -> frozenset[str]:
        """The groups that index a tensor on two axes, as a recurrent state does; their matching is quadratic."""
        named = ([group.name for group, _ in places] for places in self.on.values())
        return frozenset(name for names in named for name in names if names.count(name) > 1)


def graph_of(shapes: Shapes, architecture: Any, heads: Any = None, config: Mapping[str, Any] | None = None) -> Graph:
    """The groups of a network with these tensors.

    Args:
        shapes: tensor -> shape.
        architecture: "auto", one of `BUILT_IN`, or the declaration of the groups.
        heads: attention heads: (query heads, key/value heads), or one number for both.
        config: the model's configuration, read for the heads where they are not given.
    """
    counts = heads_of(heads, config or {})
    if isinstance(architecture, Mapping):
        return _declared(shapes, architecture)
    name = checks.choice(architecture, "architecture", ("auto", *BUILT_IN))
    if name == "auto":
        name = _guess(shapes)
    if name in CHAINS:
        return _chain(shapes, name)
    return _table(shapes, name, counts)


def configuration(member: Any) -> dict[str, Any]:
    """`config.json` beside a checkpoint, empty where there is none."""
    path = Path(str(member)) / "config.json"
    regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _guess(shapes: Shapes) -> str:
    names = list(shapes)
    if any(name.endswith("self_attn.q_proj.weight") for name in names):
        return "llama"
    if fused := [name for name in names if name.endswith("attn.c_attn.weight")]:
        rows, columns = shapes[fused[0]]
        return "nanogpt" if rows > columns else "gpt2"
    cells = {name for name in names if CELL.fullmatch(name.rpartition(".")[2])}
    embedding = embedding_of(by_stem(shapes), shapes)
    chained = cells if embedding is None else {*cells, embedding.tensor}
    odd = next((name for name in names if name not in chained and _BRANCHED.search(name)), None)
    if odd is not None:
        raise InputError(
            f"the architecture of the members is not known: tensor {odd!r} tells of branches, which names and shapes "
            f'do not show; {DECLARE}, or architecture="cnn" if the layers really follow one another'
        )
    if cells:
        return "rnn"
    return "cnn" if any(len(shape) > 2 for shape in shapes.values()) else "mlp"


# --- plain chains


def _chain(shapes: Shapes, name: str) -> Graph:
    """Layers that follow one another: linear, convolutional, recurrent, and norms between them."""
    layers = by_stem(shapes)
    stems = {re.sub(r"\d+", "#", stem) for stem in layers}
    order = list(layers)
    if len(stems) == 1:
        # A file lists 10.weight before 2.weight.
        order.sort(key=lambda stem: [int(number) for number in re.findall(r"\d+", stem)])
    chain: list[Layer] = []
    groups: list[Group] = []
    axes: list[Axis] = []
    width, spatial = 0, False
    embedding = embedding_of(layers, shapes)
    if embedding is not None:
        # Its rows are tokens, which stay in place.
        order.remove(embedding.stem)
        width, axes = embedding.width, [Axis(embedding.tensor, 1)] if embedding.certain else []
        chain.append(Layer("embedding", embedding.tensor, None))
    order = following(order, layers, shapes, width)
    for stem in order:
        parts = layers[stem]
        cell = "weight_hh" in parts
        weight = parts.get("weight_ih" if cell else "weight")
        known = _CELL_PARTS if cell else ("weight", "bias", *_STATISTICS, *_COUNTERS)
        if (odd := next((part for part in parts if part not in known), None)) is not None or weight is None:
            raise InputError(f"tensor {parts[odd or min(parts)]!r} is of no layer that {name!r} knows; {DECLARE}")
        shape = shapes[weight]
        if len(shape) == 1:
            if not chain or shape[0] != width:
                raise InputError(
                    f"the norm {weight!r} has {shape[0]} units, what comes before it {width}; "
                    f"the layers do not follow one another: {DECLARE}"
                )
            if axes:
                axes += [Axis(tensor, 0, matched=part not in _STATISTICS) for part, tensor in _of_units(parts)]
            chain.append(Layer("norm", weight, parts.get("bias")))
            continue
        depthwise = len(shape) > 2 and shape[1] == 1 and shape[0] == width and width > 1
        if depthwise:
            axes += [Axis(tensor, 0) for _, tensor in _of_units(parts)]
            chain.append(Layer("conv", weight, parts.get("bias")))
            continue
        if chain:
            # A linear layer after convolutions reads several places of each channel.
            if shape[1] % width or (shape[1] != width and not (spatial and len(shape) == 2)):
                raise InputError(
                    f"tensor {weight!r} takes {shape[1]} inputs, what comes before it gives {width}; "
                    f"the layers do not follow one another: {DECLARE}"
                )
            if axes:
                groups.append(Group(stem_of(axes), width, (*axes, Axis(weight, 1, incoming=False))))
        axes, width = (
            _cell_axes(parts, shapes) if cell else ([Axis(tensor, 0) for _, tensor in _of_units(parts)], shape[0])
        )
        spatial = len(shape) > 2
        kind = "recurrent" if cell else "conv" if spatial else "linear"
        chain.append(Layer(kind, weight, parts.get("bias")))
    if not groups:
        raise InputError(f"there is no hidden layer to align: the members are one layer, {order[0]!r}")
    return Graph(name, tuple(groups), tuple(chain))


def _cell_axes(parts: Mapping[str, str], shapes: Shapes) -> tuple[list[Axis], int]:
    """The axes of a recurrent layer's states, once for each gate, and their number.

    The recurrent weight reads the states that it computes, so that they index both of its sides.
    """
    rows, hidden = shapes[parts["weight_hh"]]
    if rows % hidden or shapes[parts["weight_ih"]][0] != rows:
        raise InputError(
            f"tensor {parts['weight_hh']!r} has shape {(rows, hidden)} and {parts['weight_ih']!r} "
            f"{shapes[parts['weight_ih']]}, which is no recurrent layer; {DECLARE}"
        )
    axes = [Axis(parts[part], 0, rows // hidden) for part in _CELL_PARTS if part in parts]
    return [*axes, Axis(parts["weight_hh"], 1, incoming=False)], hidden


def _of_units(parts: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(part, tensor) for part, tensor in parts.items() if part not in _COUNTERS]


def stem_of(axes: Sequence[Axis]) -> str:
    """The name of a group: that of the layer that computes it."""
    stem, _, part = axes[0].tensor.rpartition(".")
    cell = CELL.fullmatch(part)
    return f"{stem}.l{cell[2]}".removeprefix(".") if cell else stem


def _table(shapes: Shapes, name: str, heads: tuple[int, int] | None) -> Graph:
    groups: list[Group] = []
    covered: set[str] = set()
    left: list[str] = []
    for template, rows in TABLES[name].items():
        for label, axes in _instances(shapes, template, rows).items():
            covered |= {axis.tensor for axis in axes}
            if not template.endswith("heads"):
                groups.append(_group(shapes, label, axes, None, 1))
            elif heads is None:
                left.append(label)
            else:
                groups.append(_group(shapes, label, axes, heads[1], heads[0] // heads[1]))
    fixed = [_regex(pattern) for pattern in FIXED[name]]
    if heads is not None and name == "llama":
        _refuse_norm_over_heads(shapes, heads)
    odd = next(
        (t for t in shapes if t not in covered and not any(expression.fullmatch(t) for expression in fixed)), None
    )
    if odd is not None:
        raise InputError(f"tensor {odd!r} is none of architecture {name!r}; {DECLARE}")
    return Graph(name, tuple(groups), left=tuple(left))


def _refuse_norm_over_heads(shapes: Shapes, heads: tuple[int, int]) -> None:
    for tensor, shape in shapes.items():
        query = tensor.replace("q_norm.weight", "q_proj.weight")
        if query != tensor and query in shapes and shape[0] * heads[0] != shapes[query][0]:
            raise InputError(f"tensor {tensor!r} is a norm over all heads, none of architecture 'llama'; {DECLARE}")


def _regex(pattern: str) -> re.Pattern[str]:
    """Compile a name pattern: `*` is any text, `{}` one captured part of a name, `{*}` one uncaptured part."""
    text = re.escape(pattern).replace(re.escape("{*}"), r"[^.]+").replace(re.escape("{}"), r"([^.]+)")
    return re.compile(text.replace(re.escape("*"), ".*"))


def _instances(shapes: Shapes, template: str, rows: Sequence[Row]) -> dict[str, list[Axis]]:
    """The groups of a template by name: a single one, or one for each match of `{}`."""
    groups: dict[str, list[Axis]] = {}
    for row in rows:
        pattern = _regex(row.pattern)
        for tensor in shapes:
            match = pattern.fullmatch(tensor)
            if match is not None:
                label = template.replace("{}", match.group(1)) if pattern.groups else template
                matched = not tensor.endswith(_STATISTICS)
                axis = Axis(tensor, row.axis, row.sections, row.fine, row.computes, matched)
                groups.setdefault(label, []).append(axis)
    return groups


def _group(shapes: Shapes, name: str, axes: Sequence[Axis], units: int | None, inner: int) -> Group:
    """Build a group of `units` (default: length of its shortest axis); longer axes hold several entries per unit."""
    for axis in axes:
        if not -len(shapes[axis.tensor]) <= axis.axis < len(shapes[axis.tensor]):
            raise InputError(
                f"group {name!r}: tensor {axis.tensor!r} has shape {shapes[axis.tensor]}, no axis {axis.axis}"
            )
    lengths = [shapes[axis.tensor][axis.axis] for axis in axes]
    count = min(length // axis.sections for length, axis in zip(lengths, axes, strict=True)) if units is None else units
    for length, axis in zip(lengths, axes, strict=True):
        entries = axis.sections * count * (inner if axis.fine else 1)
        if count < 1 or length % entries:
            raise InputError(
                f"group {name!r}: axis {axis.axis} of tensor {axis.tensor!r} has {length} entries, "
                f"which {entries} units do not share evenly; check the declaration or heads="
            )
    plain = [replace(axis, axis=axis.axis % len(shapes[axis.tensor])) for axis in axes]
    return Group(name, count, tuple(plain), inner)


# --- declarations


def _declared(shapes: Shapes, architecture: Mapping[str, Any]) -> Graph:
    """Groups as the user declares them; tensors that no group names stay as they are."""
    if not architecture:
        raise InputError(f"architecture names no group; {DECLARE}")
    groups: list[Group] = []
    for template, body in architecture.items():
        units = body.get("units") if isinstance(body, Mapping) else None
        entries = body.get("axes") if isinstance(body, Mapping) else body
        rows = [_declared_row(template, entry) for entry in (entries if isinstance(entries, Sequence) else [entries])]
        for row in rows:
            if not any(_regex(row.pattern).fullmatch(tensor) for tensor in shapes):
                raise InputError(
                    f"group {template!r}: no tensor is named {row.pattern!r}; there is {next(iter(shapes))!r}"
                )
            if ("{}" in row.pattern) != ("{}" in str(template)):
                raise InputError(
                    f"group {template!r}: {{}} stands in the group's name or in {row.pattern!r}, not in both"
                )
        count = None if units is None else checks.count(units, f"units of group {template!r}")
        groups += [
            _group(shapes, label, axes, count, 1) for label, axes in _instances(shapes, str(template), rows).items()
        ]
    graph = Graph("declared", tuple(groups))
    for tensor, places in graph.on.items():
        where = [(axis.axis % len(shapes[tensor])) for _, axis in places]
        indexing = [group.name for group, _ in places]
        if max(map(indexing.count, indexing)) > _SIDES or len(set(where)) < len(where):
            raise InputError(
                f"tensor {tensor!r} has one group on three axes, or two groups on one axis; "
                "permutations of such a tensor cannot be matched one group at a time"
            )
    return graph


def _declared_row(template: Any, entry: Any) -> Row:
    row = tuple(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else ()
    right = len(row) in (2, 3) and isinstance(row[0], str) and all(isinstance(n, int) for n in row[1:])
    if not right or (len(row) == 3 and row[2] < 1):
        raise InputError(
            f"architecture: group {template!r} holds {entry!r}; give (tensor, axis), or (tensor, axis, sections)"
        )
    return Row(*row)
