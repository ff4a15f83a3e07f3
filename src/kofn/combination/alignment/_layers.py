"""The layers of a state dict, by the names of its tensors, and the order in which they follow one another."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

# Most layers whose order is looked for where it is not the one that they are listed in.
_SEARCHED = 7
# The tensors of a recurrent layer as torch names them, the layer's number last.
CELL = re.compile(r"((?:weight|bias)_(?:ih|hh))_l(\d+)")
CELL_PARTS = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
# Names of tables of vectors.
_EMBEDDING = re.compile(r"emb|wte|lookup|vocab|token", re.IGNORECASE)


def by_stem(shapes: Shapes) -> dict[str, dict[str, str]]:
    """The tensors of each layer, by what stands after the last dot of their names; recurrent layers are told apart."""
    layers: dict[str, dict[str, str]] = {}
    for tensor in shapes:
        stem, _, part = tensor.rpartition(".")
        if cell := CELL.fullmatch(part):
            stem, part = f"{stem}.l{cell[2]}".removeprefix("."), cell[1]
        layers.setdefault(stem, {})[part] = tensor
    return layers


def following(order: list[str], layers: Mapping[str, Mapping[str, str]], shapes: Shapes) -> list[str]:
    """The layers as they are listed, or in the one order in which each takes what the one before it gives.

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
            and (not path or ends[path[-1]][1] == ends[stem][0])
            # Numbered layers of one name keep their order.
            and all(o in path for o, k in zip(order[: order.index(stem)], kinds, strict=False) if k == kind)
        ]
    return paths[0] if len(paths) == 1 and order not in paths else order


def leading_embedding(layers: Mapping[str, Mapping[str, str]], shapes: Shapes) -> str | None:
    """The table of vectors in front of a recurrent network, as `nn.Embedding` keeps it; None where none is sure.

    It has a weight (tokens, width) and nothing else, and as many columns as the first recurrent layer has inputs. A
    layer without bias may look alike: then the name decides, or that its rows are not what the recurrent layer reads
    while its columns are not what the last one gives.
    """
    cells = [parts for parts in layers.values() if "weight_hh" in parts and "weight_ih" in parts]
    if not cells:
        return None
    width, given = shapes[cells[0]["weight_ih"]][1], shapes[cells[-1]["weight_hh"]][1]
    bare = [
        (stem, shapes[parts["weight"]])
        for stem, parts in layers.items()
        if set(parts) == {"weight"} and len(shapes[parts["weight"]]) == 2
    ]
    tables = [stem for stem, shape in bare if shape[1] == width and _EMBEDDING.search(stem)]
    if not tables:
        tables = [stem for stem, (rows, columns) in bare if columns == width != rows and columns != given]
    return tables[0] if len(tables) == 1 else None
