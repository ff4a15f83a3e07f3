"""Read, check and permute the hidden units of members."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import REAL, Pool, tensor_label
from kofn.combination._sweep.tensor import Tensor
from kofn.combination.alignment._architectures import Axis, Graph, Group
from kofn.core import checks
from kofn.core.arrays import Array, Ints, near_one
from kofn.core.checks import InputError

Orders = dict[str, Any]  # group -> an order of the member's units, or their coupling with the reference's


def named(pool: Pool, method: str) -> Pool:
    """The pool; members that are plain arrays or quantised are refused."""
    if not pool.named:
        raise InputError(
            f"{method} needs networks: members are mappings name -> array or checkpoints, not plain arrays"
        )
    if pool.quantised:
        raise InputError(
            f"{method} does not take quantised members ({min(pool.quantised)!r}); dequantise each first: "
            "weighted_mean([member], dtype='bfloat16', out=...)"
        )
    return pool


def shapes_of(member: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in member.items()}


def place_of(value: Any, m: int, name: str = "reference") -> int:
    """The position of a member that an option names."""
    position = checks.count(value, name, least=0)
    if position >= m:
        raise InputError(f"{name}={value!r}: the members are 0..{m - 1}")
    return position


def to_front(first: int, m: int) -> NDArray[np.int64]:
    """(m,) positions of the members, this one first."""
    return np.array([first, *(i for i in range(m) if i != first)])


def whole(member: Mapping[str, Tensor], name: str) -> NDArray[Any]:
    """One whole tensor, in its shape."""
    tensor = member[name]
    return np.asarray(tensor.read(0, tensor.size)).reshape(tensor.shape)


def floats(member: Mapping[str, Tensor], names: Iterable[str], label: str) -> dict[str, Array]:
    """The tensors to compare, in float32 or wider, all finite."""
    out = {}
    for name in names:
        array = whole(member, name)
        if array.dtype.kind in "iubc":
            raise InputError(
                f"{label}: {tensor_label(name)} is {array.dtype}; units of floating tensors are matched, no others"
            )
        if array.dtype not in REAL:
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            position = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            kind = "NaN" if np.isnan(array[position]) else "infinite"
            raise InputError(
                f"{label}: {tensor_label(name)} at {position} is {kind}; leave that member out or repair it"
            )
        out[name] = array
    return out


def positions(length: int, group: Group, axis: Axis, order: Ints) -> Ints:
    """The entries of an axis, in the order that the group's units take."""
    if group.inner > 1 and not axis.fine:
        order = order[:: group.inner] // group.inner
    out: Ints = np.arange(length).reshape(axis.sections, len(order), -1)[:, order].reshape(-1)
    return out


def by_unit(array: NDArray[Any], group: Group, axis: Axis) -> NDArray[Any]:
    """(units, rest): the tensor's entries grouped by unit."""
    count = group.width if axis.fine else group.units
    first = np.moveaxis(array, axis.axis, 0)
    apart = first.reshape(axis.sections, count, first.shape[0] // (axis.sections * count), -1)
    return apart.swapaxes(0, 1).reshape(count, -1)


def by_pair(array: NDArray[Any], group: Group, rows: Axis, columns: Axis) -> NDArray[Any]:
    """(units, units, rest): the entries of a tensor that the group indexes on two axes, by the pair of units."""
    front = np.moveaxis(array, (rows.axis, columns.axis), (0, 1))
    n = group.units
    cells = front.reshape(
        rows.sections, n, -1, columns.sections, n, front.shape[1] // (columns.sections * n), *front.shape[2:]
    )
    return np.moveaxis(cells, (1, 4), (0, 1)).reshape(n, n, -1)


def ordered(array: NDArray[Any], group: Group, axis: Axis, order: Ints) -> NDArray[Any]:
    return np.take(array, positions(array.shape[axis.axis], group, axis, order), axis=axis.axis)


def moved(array: NDArray[Any], group: Group, axis: Axis, plan: NDArray[Any], target: Group) -> NDArray[Any]:
    """Permute one group's units of a tensor, or transport them into the `target`'s units by a coupling.

    Incoming weights become the average of a unit's parts; outgoing weights are divided among the units it becomes part
    of, so sums over units are preserved for any widths.
    """
    if plan.ndim == 1:
        return ordered(array, group, axis, plan)
    share = plan / plan.sum(axis=1 if axis.incoming else 0, keepdims=True)
    first = np.moveaxis(array, axis.axis, 0)
    apart = first.reshape(axis.sections, group.units, first.shape[0] // (axis.sections * group.units), -1)
    made = np.tensordot(share, apart.astype(np.float64), ([1], [1])).swapaxes(0, 1)
    length = axis.sections * target.units * apart.shape[2]
    return np.moveaxis(made.reshape(length, *first.shape[1:]), 0, axis.axis)


def rearranged(
    member: Mapping[str, Any], graph: Graph, plans: Orders, target: Graph, names: Iterable[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The member with all groups transformed, each tensor in its own dtype; other tensors are unchanged."""
    targets = {group.name: group for group in target.groups}
    out = {}
    for name in member if names is None else names:
        value = member[name]
        array = value if isinstance(value, np.ndarray) else whole(member, name)
        dtype = array.dtype
        for group, axis in graph.on.get(name, ()):
            array = moved(array, group, axis, plans[group.name], targets[group.name])
        out[name] = np.asarray(array.astype(dtype, copy=False), order="C")
    return out


def distance(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str]) -> float:
    """L2 distance over the named tensors, in float64, of entries of any size."""
    parts = []
    for name in names:
        gaps = np.subtract(a[name], b[name], dtype=np.float64).ravel()
        if gaps.size:
            gaps, factor = near_one(gaps, axis=0)
            parts.append(math.sqrt(float(gaps @ gaps)) / float(factor[0]))
    return math.hypot(*parts)
