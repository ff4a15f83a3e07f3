"""The layers of a plain chain by the names and shapes of their tensors: which there are, and in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kofn.core.checks import InputError

Shapes = Mapping[str, tuple[int, ...]]

DECLARE = (
    "declare its groups of units: architecture={group: [(tensor, axis), ...]}, with * for any text and {} for "
    "the same text in group and tensors (command line: "
    """--architecture '{"group": [["tensor", 0]]}')"""
)
# Most layers whose order is looked for where it is not the one that they are listed in.
_SEARCHED = 7
# The tensors of a recurrent layer as torch names them, the layer's number last.
CELL = re.compile(r"((?:weight|bias)_(?:ih|hh))_l(\d+)")
# Names of tables of tokens, and one that tells a table from a head before recurrent layers only.
_TABLE, _BEFORE_STATES = re.compile(r"emb|wte|tok"), re.compile(r"emb|wte|tok|encoder$")


@dataclass(frozen=True, slots=True)
class Embedding:
    """A table of tokens, a row each, before the other layers, which read its `width` columns.

    Not `certain` is a square one: it may be a layer, so that both of its sides stay in place.
    """

    stem: str
    tensor: str
    width: int
    certain: bool


def by_stem(shapes: Shapes) -> dict[str, dict[str, str]]:
    """The tensors of each layer, by what stands after the last dot of their names; recurrent layers are told apart."""
    layers: dict[str, dict[str, str]] = {}
    for tensor in shapes:
        stem, _, part = tensor.rpartition(".")
        if cell := CELL.fullmatch(part):
            stem, part = f"{stem}.l{cell[2]}".removeprefix("."), cell[1]
        layers.setdefault(stem, {})[part] = tensor
    return layers


def following(order: list[str], layers: Mapping[str, Mapping[str, str]], shapes: Shapes, width: int) -> list[str]:
    """The layers as they are listed, or in the one order in which each takes what the one before it gives.

    The first takes `width` inputs, where that is not 0.

    A file lists its tensors by name, and so a head before the layers that it reads.
    """
    ends = {}
    for stem, parts in layers.items():
        tensor = parts.get("weight_ih", parts.get("weight", ""))
        if len(shapes.get(tensor, ())) != 2 or len(order) > _SEARCHED:
            return order
        ends[stem] = (shapes[tensor][1], shapes[parts.get("weight_hh", tensor)]["weight_hh" in parts])
    kinds = [re.sub(r"\d+", "#", stem) for stem in order]
    paths: list[list[str]] = [[]]
    for _ in order:
        paths = [
            [*path, stem]
            for path in paths
            for stem, kind in zip(order, kinds, strict=True)
            if stem not in path
            and ends[stem][0] == (ends[path[-1]][1] if path else width or ends[stem][0])
            # Numbered layers of one name keep their order.
            and all(o in path for o, k in zip(order[: order.index(stem)], kinds, strict=False) if k == kind)
        ]
    return paths[0] if len(paths) == 1 and order not in paths else order


def embedding_of(layers: Mapping[str, Mapping[str, str]], shapes: Shapes) -> Embedding | None:
    """The table of tokens at the beginning of a chain, None if there is none.

    A recurrent layer reads the columns of a table, and the rows of a matrix of weights. A matrix that the recurrent
    layers may also give their states to is a table where another layer takes these, or where its name is a table's.

    Raises:
        InputError: several may be the table, or another matrix may be tied to it.
    """
    sides = {tensor for tensor, shape in shapes.items() if len(shape) == 2}
    cells = [
        parts
        for parts in layers.values()
        if {"weight_ih", "weight_hh"} <= parts.keys() and {parts["weight_ih"], parts["weight_hh"]} <= sides
    ]
    inputs = {shapes[parts["weight_ih"]][1] for parts in cells}
    states = {shapes[parts["weight_hh"]][1] for parts in cells}
    plain = {stem: parts["weight"] for stem, parts in layers.items() if parts.keys() == {"weight"}}
    matrices = {stem: tensor for stem, tensor in plain.items() if tensor in sides}
    read = inputs or {shapes[parts["weight"]][1] for parts in layers.values() if _is_biased(parts, shapes)}
    able = [stem for stem, tensor in matrices.items() if shapes[tensor][1] in read]
    names = _BEFORE_STATES if cells else _TABLE
    named = [stem for stem in able if names.search(stem.rpartition(".")[2])]
    heads = [parts for parts in layers.values() if _is_biased(parts, shapes) and shapes[parts["weight"]][1] in states]
    placed = [stem for stem in able if cells and (heads or shapes[matrices[stem]][1] not in states)]
    tables = named or placed
    if len(tables) > 1:
        raise InputError(
            f"tensors {matrices[tables[0]]!r} and {matrices[tables[1]]!r} may both be the table of tokens that the "
            f"first layer reads; {DECLARE}"
        )
    if not tables:
        return None
    tensor = matrices[tables[0]]
    rows, width = shapes[tensor]
    weights = [parts["weight"] for parts in layers.values() if "weight" in parts]
    twin = next((other for other in weights if other != tensor and shapes[other] == (rows, width)), None)
    if twin is not None:
        raise InputError(f"tensor {twin!r} has the shape of the table {tensor!r}, and may be tied to it; {DECLARE}")
    return Embedding(tables[0], tensor, width, certain=rows != width)


def _is_biased(parts: Mapping[str, str], shapes: Shapes) -> bool:
    """Whether these are the weight and the bias of a linear layer."""
    return parts.keys() >= {"weight", "bias"} and len(shapes[parts["weight"]]) == 2
