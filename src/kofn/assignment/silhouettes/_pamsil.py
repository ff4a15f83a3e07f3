"""k-medoids whose swaps raise the average silhouette width itself (PAMSIL): for small pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.assignment.medoids import _inits, _sources
from kofn.assignment.medoids._sources import Init
from kofn.assignment.silhouettes._widths import average_width, group_sums
from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Labels
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress

# A swap counts as an improvement beyond this change of the average width.
_TOLERANCE = 1e-12


@method(
    "assign",
    draws=Draw(distinct_rows=True),
    cost="O(k n^3) for each swap; O(n^2) memory",
    exact="no single swap of a medoid raises the average silhouette width",
    paper="vanderlaan2003",
    local="no single swap of a medoid improves it",
    aliases=("full silhouette", "average silhouette width", "silhouette"),
)
def pamsil(
    *,
    distances: Any,
    k: int,
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
    init: Init | None = None,
    max_iter: int | None = None,
) -> Assignment:
    """k-medoids whose swaps raise the average silhouette width itself (PAMSIL): for small pools.

    Every swap of a medoid for another item is evaluated by the silhouettes of all items, and the best is made, until
    none raises their average. `fastermsc` is the fast kin by the medoid silhouette, `pamk` chooses k by this width.

    Args:
        distances: dissimilarities (n, n), symmetric, >= 0, zero on the diagonal. `kofn.assign` computes them from X.
        k: number of medoids. With k = 1 the width is 0, and the medoid is that of `fasterpam`.
        weights: (n,) how much each item counts in the means and in the average, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        seed: for a random or LAB start.
        time_limit: seconds; the groups reached by then are returned, status "stopped".
        progress: True shows how far the work is; a callable is told each step.
        init: initialisation used without `start`: "build" (default), "lab" or "random", as in `fasterpam`.
        max_iter: most swaps; None continues until no swap improves.

    Returns:
        An `Assignment`: `labels` (the nearest medoid), `medoids`, `value` = the average silhouette width, -1 to 1, the
        larger the better. `status` is "local" where no swap improves, "optimal" where k is 1 or n, "stopped" at a
        limit.
        `info`: swaps, swap_evaluations.

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(k n^3) for each swap (n = 1,000, k = 10: some ten seconds); memory 16 n^2 bytes.

    Guarantee: with status "local" no swap of a medoid raises the average width by more than 1e-12.

    References:
        Van der Laan, Pollard & Bryan 2003, A new partitioning around medoids algorithm: PAMSIL.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import pamsil
        >>> X = np.array([0.0, 1.0, 2.0, 9.0, 10.0, 11.0])
        >>> plan = pamsil(distances=np.abs(X[:, None] - X), k=2)
        >>> plan.labels.tolist(), round(plan.value, 4), plan.status
        ([0, 0, 0, 1, 1, 1], 0.8505, 'local')
    """
    if max_iter is not None:
        checks.count(max_iter, "max_iter")
    n = len(distances)
    if k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to choose from; ask for k <= {n}")
    _, distances = _sources.pool(None, distances, 1, "euclidean")
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    table = np.ascontiguousarray(distances, np.float64)
    info: dict[str, Any] = {}
    medoids = _inits.begin(_sources.Matrix(table), k, counts, (start, init, "build", seed), info)
    if k == 1:
        totals = table @ counts
        # An equally good start is kept, so that running again from a plan returns it.
        if totals.min() < totals[medoids[0]] * (1 - 1e-10):
            medoids = np.array([int(totals.argmin())])
    swaps, evaluated, done = 0, 0, True
    if 1 < k < n:
        with Control(time_limit=time_limit, progress=progress, title="swaps") as control:
            done = False
            while max_iter is None or swaps < max_iter:
                swap, tried = _best_swap(table, medoids, counts, control.stopped)
                evaluated += tried
                if control.stopped():
                    break
                if swap is None:
                    done = True
                    break
                position, candidate = swap
                medoids = medoids.copy()
                medoids[position] = candidate
                swaps += 1
                control.step(swaps)
    labels = _nearest(table, medoids)
    value = 0.0 if k == 1 else average_width(*group_sums(table, labels, counts, k), labels, counts)
    status = "optimal" if k in (1, n) else "local" if done else "stopped"
    info |= {"swaps": swaps, "swap_evaluations": evaluated * n}
    return Assignment.around(
        labels, medoids, value=value, status=status, sense="max", objective="average_silhouette", info=info
    )


def _nearest(table: Floats, medoids: Ints) -> Labels:
    """The nearest medoid of each item, ties to the lowest position; a medoid is assigned to itself."""
    labels: Labels = table[medoids].argmin(axis=0).astype(np.int32)
    labels[medoids] = np.arange(len(medoids), dtype=np.int32)
    return labels


def _best_swap(
    table: Floats, medoids: Ints, weights: Floats, stopped: Callable[[], bool]
) -> tuple[tuple[int, int] | None, int]:
    """The swap (position, candidate) that raises the average width most, if any does, and how many were evaluated."""
    n, k = len(table), len(medoids)
    labels = _nearest(table, medoids)
    sums, mass = group_sums(table, labels, weights, k)
    most, best, evaluated = average_width(sums, mass, labels, weights) + _TOLERANCE, None, 0
    outside = np.setdiff1d(np.arange(n), medoids)
    for candidate in outside.tolist():
        for position in range(k):
            after = medoids.copy()
            after[position] = candidate
            regrouped = _nearest(table, after)
            moved = np.flatnonzero(regrouped != labels)
            # Only what the moved items leave and join changes the sums.
            change = np.zeros((len(moved), k))
            rows = np.arange(len(moved))
            change[rows, regrouped[moved]] += weights[moved]
            change[rows, labels[moved]] -= weights[moved]
            width = average_width(sums + table[:, moved] @ change, mass + change.sum(axis=0), regrouped, weights)
            evaluated += 1
            if width > most:
                most, best = width, (position, candidate)
        if stopped():
            break
    return best, evaluated
