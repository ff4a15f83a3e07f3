"""Layer-wise averaging of networks, and loss barriers layer by layer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.files import SweepOptions, patterns
from kofn.combination._sweep.members import open_members
from kofn.combination._sweep.merge import merge
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.alignment._units import named, place_of, to_front, whole
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.words import Progress

__all__ = ["layerwise_barriers", "layerwise_mean"]

State = Mapping[str, Any]


@method(
    "combine",
    cost="O(m d) time, each member read once; memory a few blocks, whatever m models weigh on disk",
    exact="the weighted mean of the layers named, one member's own tensors elsewhere, bit for bit",
    paper=199,
)
def layerwise_mean(
    members: Sequence[Any],
    *,
    weights: Any = None,
    layers: Any = "*",
    keep: int = 0,
    out: str | os.PathLike[str] | None = None,
    max_memory: int | None = None,
    progress: Progress = None,
) -> Blend:
    """Average selected layers, and keep one member's other layers.

    Even if the full average of two networks is useless, averaging any single layer often raises the loss little, and
    networks trained on very different data can share some layers (`layerwise_barriers` measures which).

    Args:
        members: m arrays, mappings name -> array, or paths; they need to match only in the tensors averaged.
        weights: (m,) relative weights, uniform by default.
        layers: pattern of tensor names (`fnmatch`, such as "layers.3.*"), or several.
        keep: the member whose other tensors are kept.
        out: a `*.safetensors` file or a folder to write the result into.
        max_memory: bytes for the blocks of all threads together.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        A Blend as that of `weighted_mean`; its form is "elementwise" where some tensors are kept. `info["copied"]` are
        those.

    Raises:
        InputError: no tensor of these names; members that do not match there.

    Cost: that of `weighted_mean`: O(m d) time, memory a few blocks.

    >>> import numpy as np
    >>> a, b = {"0.weight": np.zeros(2), "2.weight": np.zeros(2)}, {"0.weight": np.ones(2), "2.weight": np.ones(2)}
    >>> layerwise_mean([a, b], layers="2.*").result
    {'0.weight': array([0., 0.]), '2.weight': array([0.5, 0.5])}

    References:
        Adilova, Andriushchenko, Kamp, Fischer & Jaggi 2024, Layer-wise linear mode connectivity (ICLR).
    """
    wanted = patterns(layers, "layers") or ["*"]
    m = len(members)
    order = to_front(place_of(keep, m, "keep"), m)
    names = list(open_members([members[order[0]]]).first)
    if not any(fnmatchcase(name, pattern) for name in names for pattern in wanted):
        raise InputError(f"layers={checks.shown(layers)} names no tensor; there is {names[0]!r}")
    everything = all(any(fnmatchcase(name, pattern) for pattern in wanted) for name in names)
    options = SweepOptions(out=out, only=None if everything else wanted, max_memory=max_memory, progress=progress)
    pool = options.open([members[i] for i in order])
    used, _, form = relative_weights(weights, m)
    blend = merge(
        pool,
        WeightedMean.of_weights(used[order], form),
        options,
        weights=used[order],
        form=form,
        objective=not pool.skipped,
    )
    assert blend.spread is not None
    return dataclasses.replace(
        blend,
        weights=used,
        spread=blend.spread[np.argsort(order)],
        form="elementwise" if pool.skipped else form,
    )


@dataclass(frozen=True)
class Barrier:
    """The loss along the interpolation of some layers between two networks.

    Attributes:
        name: the layer or group.
        tensors: what is interpolated.
        losses: (2, points): within the first network, and within the second; the same for all layers together.
        ends: losses of the two networks.
        barrier: the largest loss on the paths' midpoints between, less the ends' losses interpolated.
        bulge: the same against the straight line between each path's own ends: <= 0 where the loss is convex there.
    """

    name: str
    tensors: tuple[str, ...]
    losses: NDArray[np.float64]
    ends: tuple[float, float]
    barrier: float
    bulge: float


@helper
def layerwise_barriers(
    a: State,
    b: State,
    loss: Callable[[dict[str, Any]], float],
    *,
    layers: Mapping[str, Any] | None = None,
    points: int = 3,
    cumulative: bool = False,
) -> list[Barrier]:
    """Loss barriers between two networks when one layer, a group, or everything is interpolated.

    Args:
        a: name -> array.
        b: the same names and shapes.
        loss: of a state, such as the mean loss over some rows.
        layers: {name: pattern or patterns of tensors}; by default each layer, which is what stands before the last dot
            of a tensor's name, in order.
        points: places on each path, its ends among them; the default is the midpoint alone, as in the paper.
        cumulative: groups of the first 1, 2, ... of the layers as well, named "first 2" and so on.

    Returns:
        One `Barrier` for each layer, then the groups, last "all". For a layer, the rest is kept from either network in
        turn, and the larger of both counts. `barrier` compares with the networks' own losses.

    >>> import numpy as np
    >>> a, b = {"0.w": np.array(1.0), "1.w": np.array(2.0)}, {"0.w": np.array(-1.0), "1.w": np.array(-2.0)}
    >>> rows = layerwise_barriers(a, b, lambda state: float((state["0.w"] * state["1.w"] - 2) ** 2))
    >>> [(row.name, row.barrier, row.bulge) for row in rows]
    [('0', 4.0, -4.0), ('1', 4.0, -4.0), ('all', 4.0, 4.0)]

    References:
        Adilova, Andriushchenko, Kamp, Fischer & Jaggi 2024, Layer-wise linear mode connectivity (ICLR).
    """
    pool = named(open_members([a, b]), "layerwise_barriers")
    points = checks.count(points, "points", least=3)
    if layers is None:
        groups: dict[str, list[str]] = {}
        for name in pool.first:
            groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    else:
        asked = {
            name: checks.option(f"layers[{name!r}]", [given] if isinstance(given, str) else given, "Sequence[str]")
            for name, given in layers.items()
        }
        groups = {
            n: [t for t in pool.first if any(fnmatchcase(t, r) for r in patterns)] for n, patterns in asked.items()
        }
        empty = next((name for name, tensors in groups.items() if not tensors), None)
        if empty is not None:
            raise InputError(f"layers: {empty!r} names no tensor; there is {next(iter(pool.first))!r}")
    names = list(groups)
    if cumulative:
        for count in range(2, len(names)):
            groups[f"first {count}"] = [tensor for name in names[:count] for tensor in groups[name]]
    groups["all"] = list(pool.first)
    states = [{name: whole(member, name) for name in pool.first} for member in pool.members]
    ends = (float(loss(dict(states[0]))), float(loss(dict(states[1]))))
    return [_barrier(name, tensors, states, loss, ends, points) for name, tensors in groups.items()]


def _barrier(
    name: str,
    tensors: Sequence[str],
    states: Sequence[dict[str, Any]],
    loss: Callable[[dict[str, Any]], float],
    ends: tuple[float, float],
    points: int,
) -> Barrier:
    steps = np.linspace(0, 1, points)
    losses = np.empty((2, points))
    for row, rest in enumerate(states):
        if row and len(tensors) == len(rest):
            losses[1] = losses[0]
            continue
        for column, step in enumerate(steps.tolist()):
            mixed = {t: ((1 - step) * states[0][t] + step * states[1][t]).astype(states[0][t].dtype) for t in tensors}
            losses[row, column] = loss({**rest, **mixed})
    between = slice(1, -1)
    line = (1 - steps) * ends[0] + steps * ends[1]
    own = losses[:, :1] * (1 - steps) + losses[:, -1:] * steps
    return Barrier(
        name,
        tuple(tensors),
        losses,
        ends,
        float((losses - line)[:, between].max()),
        float((losses - own)[:, between].max()),
    )
