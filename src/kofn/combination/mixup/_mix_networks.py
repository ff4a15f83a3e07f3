"""Mixup of networks: weights of pairs of networks blended after their units are matched, as data about networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.members import open_members
from kofn.combination.alignment._architectures import Graph, graph_of
from kofn.combination.alignment._matching import match
from kofn.combination.alignment._units import floats, named, rearranged, shapes_of, whole
from kofn.combination.mixup._mix_pairs import LABELS, Mixed, draw_mixing
from kofn.core import checks
from kofn.core.arrays import Array, Ints
from kofn.core.helpers import helper

__all__ = ["mix_networks"]

ALIGN = ("weights", "random", "none")
_MOST_SWEEPS = 100

State = dict[str, Any]


@helper
def mix_networks(
    members: Sequence[Any],
    y: Any,
    *,
    align: str = "weights",
    pairs: Any = "random",
    ratio: Any = ("beta", 1.0),
    labels: str = "mixed",
    groups: Any = None,
    classes: Any = None,
    architecture: Any = "auto",
    heads: Any = None,
    draws: int | None = None,
    seed: int | None = None,
) -> Mixed:
    """Mix networks in pairs, weights and labels: mixup for models that learn from the weights of others.

    Two networks that compute alike rarely list their units alike, and the mean of their weights as they are computes
    something else. The units of the second of a pair are first matched with those of the first, by weights.

    Args:
        members: n mappings name -> array, or paths, of one architecture and shape.
        y: (n,) class of each network.
        align: "weights" matches the units of the second of a pair with the first's, as `weight_matching` does; "random"
            then shuffles the units of the mixed network, which changes nothing of what it computes, for learners that
            are not indifferent to their order; "none" mixes weights as they are.
        pairs: as in `mix_pairs`.
        ratio: as in `mix_pairs`.
        labels: as in `mix_pairs`.
        groups: as in `mix_pairs`.
        classes: as in `mix_pairs`.
        architecture: the groups of units, as for `weight_matching`.
        heads: attention heads, as for `weight_matching`.
        draws: as in `mix_pairs`.
        seed: of all draws.

    Returns:
        A `Mixed` whose `X` is a list of states, name -> array, of the members' dtypes; `mix(values)` mixes other (n,
        ...) arrays, such as targets of a regression, by the same pairs. Tensors of whole numbers are the first's.

    Raises:
        InputError: as in `mix_pairs`; members of unlike names or shapes, an architecture that is not known, plain
            arrays.

    Cost: of each pair a matching, as `weight_matching`'s, and a pass over the weights; the members are held whole.

    Exact: a network mixed with a copy of itself whose units are permuted is that network, bit for bit.

    References:
        Shamsian, Zhang, Navon et al. 2023, Data augmentations in deep weight spaces (NeurReps).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import mix_networks
        >>> one = {"0.weight": np.array([[1.0], [2.0]]), "2.weight": np.array([[3.0, 4.0]])}
        >>> other = {"0.weight": np.array([[2.2], [1.2]]), "2.weight": np.array([[4.4, 3.4]])}
        >>> mixed = mix_networks([one, other], ["a", "b"], pairs="cross_class", ratio=0.5)
        >>> mixed.X[0]["0.weight"].round(2).tolist(), mixed.labels[0].tolist()
        ([[1.1], [2.1]], [0.5, 0.5])
    """
    checks.choice(align, "align", ALIGN)
    checks.choice(labels, "labels", LABELS)
    pool = named(open_members(members), "mix_networks")
    n = len(pool.members)
    checks.same_length(n, "members", "y", len(checks.labels(y, "y")))
    entropy = checks.entropy(seed)
    drawn = draw_mixing(
        y,
        n,
        None,
        pairs=pairs,
        ratio=ratio,
        inputs="blend",
        labels=labels,
        class_weights=None,
        groups=groups,
        classes=classes,
        draws=draws,
        seed=entropy,
    )
    graph = graph_of(shapes_of(pool.first), architecture, heads)
    names = [name for name, tensor in pool.first.items() if tensor.dtype.kind not in "iub"]
    states = [floats(member, names, label) for member, label in zip(pool.members, pool.labels, strict=True)]
    wholes = {name: [whole(member, name) for member in pool.members] for name in pool.first if name not in names}
    rng = np.random.default_rng([entropy, 1])
    made: list[State] = []
    for first, second, share in zip(drawn.first.tolist(), drawn.second.tolist(), drawn.ratios.tolist(), strict=True):
        ours, theirs = states[first], states[second]
        if align != "none" and first != second:
            orders = match(ours, theirs, graph, "layers", _MOST_SWEEPS).orders
            theirs = rearranged(theirs, graph, orders, graph)
        mixed: State = {name: _between(ours[name], theirs[name], share) for name in names}
        if align == "random":
            mixed = rearranged(mixed, graph, _shuffled(graph, rng), graph)
        mixed |= {name: values[first] for name, values in wholes.items()}
        made.append({name: np.asarray(mixed[name]).astype(pool.first[name].dtype, copy=False) for name in pool.first})
    return Mixed(**(vars(drawn) | {"X": made}))


def _between(a: Array, b: Array, share: float) -> Array:
    """The blend of two arrays, exact where they agree and at both ends."""
    out: Array = b + share * (a - b) if share < 0.5 else a - (1 - share) * (a - b)
    return out


def _shuffled(graph: Graph, rng: np.random.Generator) -> dict[str, Ints]:
    """Orders of all units, those within a unit with it."""
    orders = {}
    for group in graph.groups:
        units = rng.permutation(group.units)
        orders[group.name] = (units[:, None] * group.inner + np.arange(group.inner)).reshape(-1)
    return orders
