"""Initial medoids: given ones, or BUILD, LAB or random ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.assignment.medoids._sources import Source
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError

# Distances taken to float64 at a time.
_ENTRIES_AT_ONCE = 2**19
_INITS = ("lab", "build", "random")


def never() -> bool:
    """Without a limit nothing stops."""
    return False


def begin(
    source: Source,
    k: int,
    weights: Floats,
    how: tuple[Any, str | None, str, int | None],
    info: dict[str, Any],
    stopped: Callable[[], bool] = never,
) -> Ints:
    """Initial medoids: from `start`, else by `init` (or the default) with the seed; its cost is added to `info`.

    Once `stopped()`, those that are missing are drawn.
    """
    start, init, default, seed = how
    if start is not None:
        if init is not None:
            raise InputError(f"start and init={init!r} are both given; give one of them")
        return started(start, k)
    rng = np.random.default_rng(seed)
    kind = checks.choice(init or default, "init", _INITS)
    if kind == "random":
        return rng.choice(source.n, k, replace=False)
    if kind == "lab":
        return lab(source, k, weights, rng, stopped)
    medoids, info["build_evaluations"] = build(source, k, weights, stopped)
    return _filled(medoids, k, source.n, rng)


def _filled(medoids: Ints, k: int, n: int, rng: np.random.Generator) -> Ints:
    """The medoids and as many others as k are missing, drawn."""
    if len(medoids) == k:
        return medoids
    others = np.setdiff1d(np.arange(n), medoids)
    return np.concatenate([medoids, rng.choice(others, k - len(medoids), replace=False)])


def started(start: Any, k: int) -> Ints:
    """The medoids of `start`.

    Raises:
        InputError: not exactly k of them.
    """
    if len(start) != k:
        raise InputError(f"start has {len(start)} medoids, k={k}; give exactly k")
    return np.asarray(start, np.int64)


def lab(source: Source, k: int, weights: Floats, rng: np.random.Generator, stopped: Callable[[], bool] = never) -> Ints:
    """Linear approximative BUILD: each medoid is the best of a small random sample, given the medoids so far."""
    size = min(source.n, 10 + math.isqrt(source.n - 1) + 1)
    near = np.full(source.n, np.inf)
    medoids: list[int] = []
    free = np.ones(source.n, bool)
    while len(medoids) < k and not stopped():
        open_items = np.flatnonzero(free)
        items = rng.choice(open_items, min(size, len(open_items)), replace=False)
        among = np.minimum(source.among(items), near[items])
        pick = int(items[int((among @ weights[items]).argmin())])
        medoids.append(pick)
        free[pick] = False
        near = np.minimum(near, source.rows(np.array([pick]))[0])
    return _filled(np.array(medoids, np.int64), k, source.n, rng)


def build(source: Source, k: int, weights: Floats, stopped: Callable[[], bool] = never) -> tuple[Ints, int]:
    """BUILD: greedily add the medoid that lowers the loss most. Returns the medoids and the number of evaluations.

    Once `stopped()`, there may be fewer than k medoids.

    A candidate's gain only decreases as medoids are added, so candidates are kept in a heap by their last known gain
    and only the top is re-evaluated (lazy greedy); the picks are those of the full search.
    """
    totals = over_blocks(source, lambda rows: rows @ weights, stopped)
    medoids, evaluated = [int(totals.argmin())], source.n
    near = source.rows(np.array(medoids))[0].astype(np.float64)
    heap: list[tuple[float, int, int]] = []
    if k > 1:
        saved = over_blocks(source, lambda rows: np.maximum(near - rows, 0.0) @ weights, stopped)
        heap = [(-gain, 1, j) for j, gain in enumerate(saved.tolist()) if j != medoids[0]]
        heapq.heapify(heap)
        evaluated += source.n
    while len(medoids) < k and not stopped():
        _, seen, candidate = heap[0]
        row = source.rows(np.array([candidate]))[0].astype(np.float64)
        if seen == len(medoids):
            heapq.heappop(heap)
            medoids.append(candidate)
            near = np.minimum(near, row)
        else:
            heapq.heapreplace(heap, (-float(np.maximum(near - row, 0.0) @ weights), len(medoids), candidate))
            evaluated += 1
    return np.array(medoids, np.int64), evaluated


def over_blocks(source: Source, measure: Callable[[Floats], Floats], stopped: Callable[[], bool]) -> Floats:
    """What is measured of the distances of each item; of those not reached in time, nothing is known."""
    parts: list[Floats] = []
    step = max(1, _ENTRIES_AT_ONCE // source.n)
    for _, rows in source.blocks():
        parts += [measure(rows[low : low + step].astype(np.float64)) for low in range(0, len(rows), step)]
        if stopped():
            break
    return np.concatenate(parts)
