"""k-medoids with group sizes between `min_size` and `capacity`, and must-link and cannot-link pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.assignment._groups_in_parts import Groups
from kofn.assignment.means._constrained import TOLERANCE, binds_nothing, gains, plan, seating_of
from kofn.assignment.means._links import Seating
from kofn.assignment.medoids import _sources
from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Labels
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Metric, Progress

# Distances from X are kept as a matrix up to this size and computed row by row beyond.
_MATRIX_BYTES = 2**30
# Random starts that are tried where equal items are parted: their groups differ little, and so do bad and good ones.
_STARTS_OF_EQUAL = 20


@method(
    "assign",
    needs=(("X", "distances"),),
    draws=Draw(kinds={"capacity": "group"}, distinct_rows=True),
    cost="O(n k) and one transport a round, and the distances within the groups, about n^2 / k; memory n^2 from X up "
    "to 1 GiB, O(n k) beyond",
    exact="sizes and links held exactly; each assignment step optimal where must_link and cannot_link join nothing",
    paper="bradley2000",
    local="no better assignment to these medoids, and no better medoid of a group",
)
def constrained_kmedoids(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: Metric = "euclidean",
    capacity: Any = None,
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
    min_size: Any = 1,
    must_link: ArrayLike | None = None,
    cannot_link: ArrayLike | None = None,
    max_iter: int = 300,
    engine: Any = None,
) -> Assignment:
    """k-medoids with group sizes between `min_size` and `capacity`, and must-link and cannot-link pairs.

    Starts from the medoids of `fasterpam` and alternates two steps: the optimal assignment under the size bounds, then
    the best medoid of each group.

    Args:
        X: vectors (n, d).
        distances: dissimilarities (n, n), symmetric, >= 0.
        k: how many groups.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        capacity: the most items in a group: one number, or (k,) for groups in the order of `start`. It counts items,
            regardless of their weights.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        seed: for `fasterpam`, when no `start` is given.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.
        min_size: the least items in a group: one number, or (k,) as `capacity`. 0 asks for no more than 1 does: each
            group holds its medoid.
        must_link: (m, 2) pairs of row numbers, or of ids where ids are given, that share a group; chains of pairs
            join all their rows.
        cannot_link: (m, 2) pairs likewise that may not share a group.
        max_iter: most rounds.
        engine: where the distances within groups are summed each round: "local" (threads), "ray", "ray://HOST:PORT", or
            an engine; by default here. The answer is the same.

    Returns:
        An `Assignment`: `labels`, `medoids` (row numbers, medoid j in group j), `value` = the weighted sum of the
        distances to the own medoid, `v` = the dual price of each group, as in `constrained_kmeans`; `centers` are the
        medoids' rows of X. `place` assigns new items.

    Raises:
        InputError: k above the number of items, or of distinct ones without sizes that part equal items; a start that
            does not have k medoids, or a diagonal that is not zero.
        InfeasibleError, FailureError: as in `constrained_kmeans`.

    Cost: a round takes O(n k), a transport, and the distances within each group.

    Guarantee: sizes and links hold exactly, every medoid is in its own group, and no step makes the loss larger. With
    status "local" no other assignment that leaves the medoids in their groups, and no other medoid of a group, is
    better. Exchanges of a medoid for an item of another group are tried only by `fasterpam`, before there are sizes.

    References:
        Bradley, Bennett & Demiriz 2000. Schubert & Rousseeuw 2021 for the first medoids (`fasterpam`).

    Examples:
        >>> from kofn.assignment import constrained_kmedoids
        >>> plan = constrained_kmedoids([[0.0], [1.0], [2.0], [3.0], [9.0], [10.0]], k=2, capacity=3, seed=0)
        >>> sorted(np.bincount(plan.labels).tolist()), plan.value
        ([3, 3], 9.0)
    """
    from kofn.assignment.medoids._fasterpam import fasterpam

    checks.count(max_iter, "max_iter")
    asked = checks.capacity(min_size, "min_size")
    min_size = max(1, asked) if isinstance(asked, int) else np.maximum(1, asked)
    # Equal items belong together unless sizes keep them apart.
    n = len(X if distances is None else distances)
    different = k
    if (capacity is not None or np.max(min_size) > 1) and k <= n:
        different = _sources.differing(X, distances, k)
    X, distances = _sources.pool(X, distances, different, metric)
    seating = seating_of(n, k, capacity, min_size, must_link, cannot_link)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    best: tuple[float, _Groups] | None = None
    rounds = 0
    with Control(time_limit=time_limit, progress=progress, title="rounds") as control:
        if start is None:
            # Its own Ctrl-C is this one's too.
            first = fasterpam(
                X, distances=distances, k=different, metric=metric, weights=weights, seed=seed, time_limit=time_limit
            )
            starts = [_with_equal(np.asarray(first.medoids), first.labels, k)]
            if different < k:
                rng = np.random.default_rng(seed)
                starts += [rng.choice(n, k, replace=False) for _ in range(_STARTS_OF_EQUAL)]
        elif len(start) != k:
            raise InputError(f"start has {len(start)} medoids, k={k}; give exactly k")
        else:
            starts = [np.asarray(start, np.int64)]
        left = None if control.left() == math.inf else control.left()
        room = 0 if control.stopped() else _sources.room_within(X, _MATRIX_BYTES, left)
        source = _sources.source_of(X, distances, metric, room, None)
        with Groups.opened(engine, source, counts) as within:
            for medoids in starts:
                groups = _alternate(within, medoids, seating, max_iter, control)
                rounds += groups.rounds
                value = _sources.loss_of(X, distances, metric, groups.medoids, groups.labels[seating.units.of], counts)
                if best is None or value < best[0]:
                    best = value, groups
                if control.stopped():
                    break
            facts = within.facts
    assert best is not None
    value, groups = best
    return plan(
        groups.labels[seating.units.of],
        seating,
        capacity,
        value=value,
        medoids=groups.medoids,
        centers=None if X is None else np.asarray(X[groups.medoids], np.float64),
        v=groups.prices,
        status="stopped" if not groups.done else "local" if binds_nothing(seating) else "heuristic",
        objective="constrained_medoids",
        info={
            "rounds": rounds,
            "units": len(seating.units.sizes),
            "distance_evals": source.evals,
            **facts,
        },
    )


@dataclass(frozen=True)
class _Groups:
    """Where one start led: the group of each unit, medoids, prices, rounds, and whether no step improves."""

    labels: Labels
    medoids: Ints
    prices: Floats
    rounds: int
    done: bool


def _alternate(within: Groups, medoids: Ints, seating: Seating, max_iter: int, control: Control) -> _Groups:
    """Alternate the assignment under the size bounds and the choice of each group's medoid."""
    k, units = len(medoids), seating.units
    labels: Labels | None = None
    prices: Floats | None = None
    done, rounds = False, 0
    while rounds < max_iter:
        rounds += 1
        scores = -units.total(within.weights[:, None] * within.source.rows(medoids).T)
        # A medoid stays in its group. Initial medoids may be linked with each other; they then only set the
        # distances.
        own = units.of[medoids]
        if labels is not None or (len(np.unique(own)) == k and not len(units.apart) and seating.exact):
            free = np.full((k, k), -np.inf)
            np.fill_diagonal(free, scores[own, np.arange(k)])
            scores[own] = free
        after, prices = seating(scores, labels, prices)
        if labels is not None and not gains(scores, labels, after):
            done = True
            break
        labels = after
        medoids = _best_medoids(within, labels[units.of], medoids, control)
        control.step(rounds)
        if control.stopped():
            break
    assert labels is not None
    assert prices is not None
    return _Groups(labels, medoids, prices, rounds, done)


def _with_equal(medoids: Ints, labels: Labels, k: int) -> Ints:
    """As many medoids as groups: where items repeat, more of them from the groups with most items for each medoid."""
    sizes, medoid_counts = np.bincount(labels), np.ones(len(medoids), np.int64)
    others = [np.setdiff1d(np.flatnonzero(labels == group), [medoid]).tolist() for group, medoid in enumerate(medoids)]
    while len(medoids) < k:
        group = int(np.argmax(np.where(sizes > medoid_counts, sizes / medoid_counts, 0)))
        medoid_counts[group] += 1
        medoids = np.append(medoids, others[group].pop())
    return medoids


def _best_medoids(within: Groups, labels: Labels, medoids: Ints, control: Control) -> Ints:
    """The item of each group with the least summed distance to its members; ties keep the current medoid.

    What the time does not reach keeps its medoid, or where that has left the group takes the member nearest to it.
    """
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(medoids)))
    totals = within.totals(order, ends, control)
    out = medoids.copy()
    for j, group in enumerate(np.split(order, ends[:-1])):
        current = np.flatnonzero(group == medoids[j])
        total = next(totals, None)
        if total is None:
            if not len(current):
                out[j] = group[int(within.source.rows(medoids[j : j + 1])[0][group].argmin())]
            continue
        best = int(total.argmin())
        if not len(current) or total[current[0]] > total[best] * (1 + TOLERANCE):
            out[j] = group[best]
    return out
