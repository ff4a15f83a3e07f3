"""k-medoids rigs: PAM's best swap by plain search, a search followed swap by swap, the work of one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Figures = dict[str, Any]


def cluster(method: Any, D: Floats, start: Ints, max_iter: int | None = None) -> Any:
    """The method from these medoids on."""
    options = {} if max_iter is None else {"max_iter": max_iter}
    return kofn.assign(distances=D, k=len(start), method=method, start=start, options=options)


def best_swap(D: Floats, medoids: Ints) -> Ints | None:
    """The medoids after the best of all k (n - k) swaps, each judged from scratch; None where none improves.

    Equal swaps, up to rounding, go to the lowest candidate and then the lowest place, as the library says of itself.
    """
    loss = float(D[:, medoids].min(axis=1).sum())
    losses = np.empty((len(D), len(medoids)))
    for gone in range(len(medoids)):
        others = D[:, np.delete(medoids, gone)].min(axis=1)
        losses[:, gone] = np.minimum(D, others[:, None]).sum(axis=0)
    losses[medoids] = math.inf
    candidate, place = divmod(int(np.argmax(losses <= losses.min() + 1e-12 * loss)), len(medoids))
    if losses[candidate, place] >= loss * (1 - 1e-10):
        return None
    after = medoids.copy()
    after[place] = candidate
    return after


def same_swaps(D: Floats, starts: Sequence[Ints], fast: str) -> dict[str, float]:
    """Follow the fast search swap by swap from each start, with a search over all swaps beside it."""
    swaps = differ = 0
    gap = 0.0
    for start in starts:
        medoids = start
        while True:
            expected = best_swap(D, medoids)
            found = cluster(fast, D, medoids, max_iter=1).medoids
            differ += int(not np.array_equal(found, medoids if expected is None else expected))
            if expected is None:
                break
            swaps += 1
            medoids = expected
        loss = float(D[:, medoids].min(axis=1).sum())
        gap = max([gap, *(abs(cluster(method, D, start).value - loss) / loss for method in (fast, "pam"))])
    return {"swaps": swaps, "differ": differ, "gap": gap}


def growth(D: Floats, starts: Sequence[Ints], fast: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Points looked at, and seconds, in one pass over all swaps from each start: of PAM and of FastPAM1."""
    work: dict[str, list[float]] = {"PAM": [], "FastPAM1": []}
    seconds: dict[str, list[float]] = {"PAM": [], "FastPAM1": []}
    # Once before the clock counts, so that compiled code is loaded.
    cluster("pam", D, starts[-1], max_iter=1)
    for start in starts:
        for name, method in (("PAM", "pam"), ("FastPAM1", fast)):
            plan = cluster(method, D, start, max_iter=1)
            work[name].append(plan.info["swap_evaluations"] / plan.info["rounds"])
            seconds[name].append(plan.info["seconds"])
    return work, seconds
