"""Alignment of the singular vectors of two networks' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.combination._sweep.members import open_members
from kofn.combination.alignment._aligned_mean import State, as_tensors
from kofn.combination.alignment._architectures import graph_of
from kofn.combination.alignment._units import named, rearranged, shapes_of, whole
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["singular_alignment"]


@helper
def singular_alignment(
    a: State, b: State, *, transforms: Mapping[str, Any] | None = None, top: float = 0.0, **structure: Any
) -> float:
    """Alignment of the singular vectors of two networks' weights: R, in -1..1.

    Permutations keep singular values and change singular vectors. R sums
    `(u_i . u'_j) (v_i . v'_j)` over all pairs of singular vectors of each weight, over all weights, and divides by how
    many there are: 1 for a permuted copy once it is matched, about 0 for unrelated networks.
    Weight matching raises it where the singular values are large, which preserves the function.

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
        other = as_tensors(rearranged(pool.members[1], graph, orders, graph), pool.first)
    if structure.keys() - {"architecture", "heads"}:
        raise InputError(f"singular_alignment has no option {sorted(structure)[0]!r}; it has architecture and heads")
    alike, count = 0.0, 0.0
    for name, tensor in pool.first.items():
        if len(tensor.shape) < 2 or min(tensor.shape) == 0:
            continue
        first, second = (_polar(np.asarray(whole(member, name), np.float64), top) for member in (pool.first, other))
        # The sum over all pairs is the inner product of the two U V'.
        alike += float((first[0] * second[0]).sum())
        count += math.sqrt(first[1] * second[1])
    return alike / count if count else 0.0


def _polar(weight: Array, top: float) -> tuple[Array, int]:
    u, values, v = np.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
    kept = values >= max(top, np.finfo(np.float64).eps * max(weight.shape)) * values[0]
    kept[0] = True
    return u[:, kept] @ v[kept], int(kept.sum())
