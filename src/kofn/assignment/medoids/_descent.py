"""k-medoids: groups around k of the items themselves, on any dissimilarity. PAM, FastPAM1 and FasterPAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.core import checks
from kofn.core.plans import Assignment
from kofn.core.runtime import Control

# Without max_memory, distances from X are kept as a matrix up to this size and computed row by row beyond.
_DEFAULT_MEMORY = 2**30


@dataclass(frozen=True)
class Limits:
    max_iter: int | None
    max_memory: int | None
    time_limit: float | None
    n_threads: int | None
    progress: bool | None


def cluster(
    search: str,
    X: Any,
    distances: Any,
    k: int,
    metric: str,
    weights: Any,
    begin: tuple[Any, str | None, str, int | None],
    limits: Limits,
) -> Assignment:
    if limits.max_iter is not None:
        checks.count(limits.max_iter, "max_iter")
    X, distances = _sources.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _sources.source_of(X, distances, metric, limits.max_memory or _DEFAULT_MEMORY, limits.n_threads)
    info: dict[str, Any] = {}
    medoids = _inits.begin(source, k, counts, begin, info)
    if k == 1:
        labels, status = np.zeros(n, np.int32), "optimal"
        totals = np.concatenate([rows.astype(np.float64) @ counts for _, rows in source.blocks()])
        best = int(totals.argmin())
        # An equally good start is kept, so that running again from a plan returns it.
        moved = bool(totals[best] < totals[medoids[0]] * (1 - 1e-10))
        medoids = np.array([best]) if moved else medoids
        info |= {"swaps": int(moved), "rounds": 1, "swap_evaluations": n * n}
    elif k == n:
        labels, status = np.empty(n, np.int32), "optimal"
        labels[medoids] = np.arange(n, dtype=np.int32)
        info |= {"swaps": 0, "rounds": 0, "swap_evaluations": 0}
    else:
        state = _swaps.Swaps(source, medoids, counts, compiled=_swaps.worth_compiling(search, n, k))
        with Control(time_limit=limits.time_limit, progress=limits.progress, title="swaps") as control:
            if search == "eager":
                done, rounds = state.eager(limits.max_iter, control.stopped, control.step)
            else:
                done, rounds = state.best(limits.max_iter, control.stopped, control.step, naive=search == "naive")
        medoids, labels, status = state.medoids, state.labels, "local" if done else "stopped"
        looked = state.evaluated * n * (k if search == "naive" else 1)
        info |= {"swaps": state.swaps, "rounds": rounds, "swap_evaluations": looked}
    value = _sources.loss_of(X, distances, metric, medoids, labels, counts)
    if value == 0 and k > 1:
        info["distinct_medoids"] = _sources.distinct(X, distances, medoids)
    return Assignment.from_labels(
        labels,
        k,
        medoids=medoids,
        value=value,
        sense="min",
        status=status,
        bound=value if status == "optimal" else None,
        used={"k": k},
        budget={"k": k},
        objective="k_medoids",
        info={**info, "distance_evals": source.evals},
    )
