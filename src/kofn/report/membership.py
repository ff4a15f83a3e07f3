"""Measures of groups for the report: centres, and distances of items to their own and the next centre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Assignment
from kofn.report import measures
from kofn.report.measures import BLOCK_CELLS, Space

# Kind of a group's representative, and the name of the matching silhouette.
KINDS = {
    "medoid": ("medoid", "medoid silhouette"),
    "centre": ("centre", "simplified silhouette, by the distances to the centres"),
    "mean": ("mean", "simplified silhouette, by the distances to the groups' means"),
}


@dataclass(frozen=True)
class Groups:
    """The groups of a plan, measured on all placed items or on a fixed sample of very many."""

    kind: str  # representative of a group: "medoid", "centre" (of the plan) or "mean" (of the members)
    sizes: Ints  # (k,) items whose group it is
    heart: Ints  # (k,) the medoid, or the measured member nearest to the centre; -1 where nobody is
    items: Ints  # the measured items, ascending
    labels: Ints  # and the group of each
    own: Floats  # distance to the own group's representative
    other: Floats  # distance to the nearest other one's, infinite where there is only one group
    next: Ints  # which group that is
    silhouette: Floats  # (other - own) / max(own, other), 0 where both are nothing or there is one group
    centres: Floats | None  # as rows of the space

    def members(self, group: int) -> Ints:
        """Places in `items` of a group's members, from the nearest to the farthest."""
        mine = np.flatnonzero(self.labels == group)
        return mine[np.argsort(self.own[mine], kind="stable")]

    def mean(self) -> float:
        """The average silhouette."""
        return float(self.silhouette.mean()) if len(self.items) else 0.0


def measure(plan: Assignment, space: Space | None, distances: NDArray[Any] | None) -> Groups:
    """Groups from vectors, or from the distances of all items to each other."""
    labels = plan.labels.astype(np.int64)
    sizes = np.bincount(labels[labels >= 0], minlength=plan.k)
    medoids = None if plan.medoids is None else np.asarray(plan.medoids, np.int64)
    centres: Floats | None = None
    far: Callable[[Ints], Floats]
    if space is not None:
        kind, centres = _centres(plan, space, labels, sizes)
        there = np.nan_to_num(centres)

        def far(part: Ints) -> Floats:
            return space.between(space.rows(part), there)

    else:
        assert distances is not None
        kind = "medoid"
        medoids = _middles(distances, labels, plan.k) if medoids is None else medoids
        columns = np.maximum(medoids, 0)

        def far(part: Ints) -> Floats:
            return distances[np.ix_(part, columns)].astype(np.float64)

    items = np.flatnonzero(labels >= 0)
    most = max(1, measures.MAX_DISTANCES // max(plan.k, 1))
    if len(items) > most:
        items = np.sort(np.random.default_rng(0).choice(items, most, replace=False))
    own, other, after = np.empty(len(items)), np.empty(len(items)), np.zeros(len(items), np.int64)
    step = max(1, BLOCK_CELLS // max(plan.k, 1 if space is None else space.width))
    for low in range(0, len(items), step):
        part = items[low : low + step]
        table, mine = far(part), labels[part]
        table[:, sizes == 0] = np.inf
        block = slice(low, low + step)
        own[block] = np.take_along_axis(table, mine[:, None], 1)[:, 0]
        np.put_along_axis(table, mine[:, None], np.inf, 1)
        after[block], other[block] = table.argmin(axis=1), table.min(axis=1)
    if medoids is not None:
        # Rounding can leave a medoid at a positive distance from itself.
        position = np.minimum(np.searchsorted(items, medoids), max(len(items) - 1, 0))
        itself = (
            np.flatnonzero((items[position] == medoids) & (labels[items[position]] == np.arange(plan.k)))
            if len(items)
            else position
        )
        own[position[itself]] = 0.0
    silhouette = _silhouettes(own, other)
    got = Groups(kind, sizes, np.full(plan.k, -1), items, labels[items], own, other, after, silhouette, centres)
    if medoids is not None:
        got.heart[:] = np.where(sizes > 0, medoids, -1)
        return got
    order = np.lexsort((own, got.labels))
    occupied, first = np.unique(got.labels[order], return_index=True)
    got.heart[occupied] = items[order[first]]
    return got


def _silhouettes(own: Floats, other: Floats) -> Floats:
    out = np.zeros(len(own))
    finite = np.isfinite(other)
    longer = np.maximum(own, np.where(finite, other, 0.0))
    # What rounding leaves between equal rows is no distance, and between equal distances no difference.
    reliable = finite & (longer > 1e-7 * longer.max(initial=0.0)) & (np.abs(other - own) > 1e-9 * longer)
    out[reliable] = (other[reliable] - own[reliable]) / longer[reliable]
    return out


def _centres(plan: Assignment, space: Space, labels: Ints, sizes: Ints) -> tuple[str, Floats]:
    """Representative of each group, as rows of the space: its medoid, the plan's own centre, or its members' mean."""
    if plan.medoids is not None:
        return "medoid", space.rows(np.asarray(plan.medoids, np.int64))
    if plan.centers is not None and np.shape(plan.centers) == (plan.k, space.width):
        return "centre", space.place(np.asarray(plan.centers))
    total = np.zeros((plan.k, space.width))
    order = np.argsort(labels, kind="stable")[int((labels < 0).sum()) :]
    step = max(1, BLOCK_CELLS // space.width)
    for low in range(0, len(order), step):
        part = order[low : low + step]
        groups, starts = np.unique(labels[part], return_index=True)
        total[groups] += np.add.reduceat(space.rows(part), starts, axis=0)
    means = total / np.maximum(sizes, 1)[:, None]
    if space.metric == "cosine":
        length = np.sqrt(np.einsum("ij,ij->i", means, means))
        means /= np.where(length > 0, length, 1.0)[:, None]
    return "mean", means


def _middles(distances: NDArray[Any], labels: Ints, k: int) -> Ints:
    """The member of each group with the least summed distance to the others, -1 for an empty group."""
    out = np.full(k, -1)
    for group in range(k):
        mine = np.flatnonzero(labels == group)
        step = max(1, BLOCK_CELLS // max(len(mine), 1))
        sums = [
            distances[np.ix_(mine[low : low + step], mine)].sum(axis=1, dtype=np.float64)
            for low in range(0, len(mine), step)
        ]
        if sums:
            out[group] = mine[int(np.concatenate(sums).argmin())]
    return out
