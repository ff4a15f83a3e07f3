"""k-medoids by alternation, as k-means does it: items to their nearest medoid, then the best medoid of each group."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from kofn.assignment.medoids import _inits, _sources
from kofn.assignment.medoids._descent import DEFAULT_MEMORY
from kofn.assignment.medoids._samples import Placed, finish
from kofn.assignment.medoids._sources import Init, KMedoids
from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Labels
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control

# Another medoid of a group counts as better beyond this share of the group's loss.
_TOLERANCE = 1e-10


@method(
    "assign",
    needs=(("X", "distances"),),
    draws=Draw(distinct_rows=True),
    cost="O(n k) a round and the distances within the groups, about n^2 / k; memory n^2 within max_memory, else O(n k)",
    exact="items go to their nearest medoid; no other medoid of a group is better for the group",
    paper="park2009",
    local="no other medoid of a group and no other group for an item improves it",
    aliases=("k-medoids by alternation", "Voronoi iteration", "alternate", "park jun"),
)
def alternating(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    init: Init | None = None,
    max_iter: int | None = None,
    **words: Unpack[KMedoids],
) -> Assignment:
    """k-medoids by alternation, as k-means does it: items to their nearest medoid, then the best medoid of each group.

    What many libraries call k-medoids. A round is cheap, and it stops early: its loss is often some percent above that
    of `fasterpam`, which is no slower.

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        init: initialisation used without `start`: "random" (default), "lab" or "build".
        max_iter: most rounds; None continues until no medoid changes.

    Returns:
        An `Assignment` as from `fasterpam`; `status` is "local" where no medoid changes, "optimal" where k = n,
        "stopped" at a limit. `info`: rounds, distance_evals (from X).

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(n k) and the sum of the squared group sizes a round.

    Guarantee: with status "local" every item is with its nearest medoid, and no other member of a group has a smaller
    summed distance to it. The loss is never above that of the start.

    References:
        Park & Jun 2009, A simple and fast algorithm for K-medoids clustering.

    Examples:
        >>> from kofn.assignment import alternating
        >>> plan = alternating([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, start=[0, 5])
        >>> plan.medoids.tolist(), plan.value, plan.status
        ([1, 4], 4.0, 'local')
    """
    if max_iter is not None:
        checks.count(max_iter, "max_iter")
    pool = _sources.opened(X, distances, k, words, DEFAULT_MEMORY)
    n, counts, source = pool.n, pool.counts, pool.source
    info: dict[str, Any] = {}
    with Control(time_limit=words["time_limit"], progress=words["progress"], title="rounds") as control:
        medoids = _inits.begin(
            source, k, counts, (words["start"], init, "random", words["seed"]), info, control.stopped
        )
        groups, rounds, done = Placed(source, medoids, counts), 0, k == n
        while not done and not control.stopped() and (max_iter is None or rounds < max_iter):
            rounds += 1
            after = _best_medoids(source, groups.labels, counts, groups.medoids, control)
            moved = Placed(source, after, counts)
            falls = moved.loss < groups.loss * (1 - _TOLERANCE)
            done = not falls and not control.stopped()
            groups = moved if falls else groups
            control.step(rounds)
        stopped = not done
    info |= {"rounds": rounds, "distance_evals": source.evals}
    status = "optimal" if k == n else "stopped" if stopped else "local"
    return finish(pool.X, pool.distances, words["metric"], groups.medoids, groups.labels, counts, status, info)


def _best_medoids(source: _sources.Source, labels: Labels, weights: Floats, medoids: Ints, control: Control) -> Ints:
    """The item of each group with the least summed distance to its members; near ties keep the current medoid."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(medoids)))
    best = medoids.copy()
    for position, group in enumerate(np.split(order, ends[:-1])):
        parts = []
        for part in _parts(group):
            if control.stopped():
                return best
            parts.append(source.between(part, group) @ weights[group])
        totals = np.concatenate(parts)
        least, current = int(totals.argmin()), int(np.searchsorted(group, medoids[position]))
        if totals[least] < totals[current] * (1 - _TOLERANCE):
            best[position] = group[least]
    return best


def _parts(group: Ints) -> list[Ints]:
    """The members in parts, so that their distances to all of them stay within some 32 MB."""
    step = max(1, 2**22 // len(group))
    return [group[low : low + step] for low in range(0, len(group), step)]
