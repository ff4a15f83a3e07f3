"""Permute the units of a network's groups; the function is unchanged up to the order of sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.combination._sweep.members import open_members
from kofn.combination.alignment._aligned_mean import State
from kofn.combination.alignment._architectures import graph_of
from kofn.combination.alignment._matching import identity
from kofn.combination.alignment._units import named, rearranged, shapes_of
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["permute"]


@helper
def permute(
    state: State, transforms: Mapping[str, Any], *, architecture: Any = "auto", heads: Any = None
) -> dict[str, Any]:
    """Permute the units of a network's groups; the function is unchanged up to the order of sums.

    Args:
        state: name -> array.
        transforms: {group: permutation}; other groups stay unchanged.
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
    orders = dict(identity(graph))
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
