"""The common body of PAM, FastPAM1 and FasterPAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.assignment.medoids._samples import finish
from kofn.assignment.medoids._sources import Init
from kofn.core import checks
from kofn.core.devices import device_with_float64
from kofn.core.plans import Assignment
from kofn.core.runtime import Control

# Without max_memory, distances from X are kept as a matrix up to this size and computed row by row beyond.
DEFAULT_MEMORY = 2**30


def cluster(
    search: str,
    X: Any,
    distances: Any,
    k: int,
    words: Mapping[str, Any],
    default_init: Init,
    init: Init | None,
    max_iter: int | None,
    device: str | None = None,
) -> Assignment:
    """Run k-medoids with one of three swap searches: "eager" (FasterPAM), "best" (FastPAM1) or "naive" (PAM).

    Args:
        search: the swap search.
        X: vectors (n, d), or `distances` (n, n).
        distances: dissimilarities.
        k: how many medoids.
        words: all words of `KMedoids`.
        default_init: initialisation used when neither `start` nor `init` is given.
        init: the initialisation.
        max_iter: most rounds or swaps.
        device: what shows which candidates cannot improve; of the search "eager".
    """
    if max_iter is not None:
        checks.count(max_iter, "max_iter")
    there = device_with_float64(device)
    opened = _sources.opened(X, distances, k, words, DEFAULT_MEMORY, by_rows=there is not None)
    n, counts, source = opened.n, opened.counts, opened.source
    info: dict[str, Any] = {}
    with Control(time_limit=words["time_limit"], progress=words["progress"], title="swaps") as control:
        medoids = _inits.begin(
            source, k, counts, (words["start"], init, default_init, words["seed"]), info, control.stopped
        )
        if k == 1:
            labels = np.zeros(n, np.int32)
            totals = _inits.over_blocks(source, lambda rows: rows @ counts, control.stopped)
            status = "optimal" if len(totals) == n else "stopped"
            best = int(totals.argmin())
            # An equally good start is kept, so that running again from a plan returns it.
            moved = bool(medoids[0] < len(totals) and totals[best] < totals[medoids[0]] * (1 - 1e-10))
            medoids = np.array([best]) if moved else medoids
            info |= {"swaps": int(moved), "rounds": 1, "swap_evaluations": n * len(totals)}
        elif k == n:
            labels, status = np.empty(n, np.int32), "optimal"
            labels[medoids] = np.arange(n, dtype=np.int32)
            info |= {"swaps": 0, "rounds": 0, "swap_evaluations": 0}
        else:
            compiled = _swaps.worth_compiling(search, n, k)
            if there is None:
                state = _swaps.Swaps(source, medoids, counts, compiled=compiled)
            else:
                bounds = _sources.swap_bounds(source, counts, k, there, words["max_memory"])
                state = _swaps.BoundedSwaps(source, medoids, counts, compiled=compiled, bounds=bounds)
            if search == "eager":
                done, rounds = state.eager(max_iter, control.stopped, control.step)
            else:
                done, rounds = state.best(max_iter, control.stopped, control.step, naive=search == "naive")
            medoids, labels, status = state.medoids, state.labels, "local" if done else "stopped"
            looked = state.evaluated * n * (k if search == "naive" else 1)
            info |= {"swaps": state.swaps, "rounds": rounds, "swap_evaluations": looked}
    info |= {"distance_evals": source.evals}
    return finish(opened.X, opened.distances, words["metric"], medoids, labels, counts, status, info)
