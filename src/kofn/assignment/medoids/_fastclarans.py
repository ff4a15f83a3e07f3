"""k-medoids by random candidates, each evaluated against all k medoids at once (FastCLARANS)."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.assignment.medoids._samples import DEFAULT_MEMORY, PAIRS_AT_ONCE, Placed, finish, only
from kofn.assignment.medoids._sources import KMedoids
from kofn.core import checks
from kofn.core.arrays import Ints
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control

# Least number of failed candidates before CLARANS stops (or all items, if fewer).
_LEAST_NEIGHBORS = 250


@method(
    "assign",
    needs=(("X", "distances"),),
    draws=Draw(distinct_rows=True),
    cost="O(n d) a candidate, of which at least max_neighbor n a descent; O(n (d + k)) memory",
    exact="items go to their nearest medoid; no single swap improves where max_neighbor is 1",
    paper=33,
    local="no single swap of a medoid improves it",
)
def fastclarans(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    n_local: int = 2,
    max_neighbor: float = 0.025,
    **words: Unpack[KMedoids],
) -> Assignment:
    """k-medoids by random candidates, each evaluated against all k medoids at once (FastCLARANS).

    Args:
        X: vectors (n, d), as in `fastclara`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        start: k medoids (row numbers, ids or a plan) of the first descent; random by default.
        seed: for the initial medoids and the order of the candidates.
        max_memory: bytes for distances computed from X, default 64 MiB.
        n_local: number of descents; the best is returned.
        max_neighbor: a descent ends after this share of the items (at least 250) in a row brought no swap.

    Returns:
        An `Assignment` as from `fastclara`. `status` is "local" where the last candidates were all items, so that no
        single swap improves, else "heuristic"; "optimal" where k = n. `info`: swaps, candidates, local_losses,
        swap_evaluations, distance_evals.

    Raises:
        InputError: as in `fastclara`.

    Cost: O(n d) a candidate from X, O(n) from distances, O(n k) for a swap; O(n k) memory.

    Guarantee: the loss is never above that of `start`.

    References:
        Schubert & Rousseeuw 2021, arXiv 2008.05171: FastCLARANS. Ng & Han 2002: CLARANS.

    Examples:
        >>> from kofn.assignment import fastclarans
        >>> plan = fastclarans([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), plan.value
        ([1, 4], 4.0)
    """
    pool = _sources.opened(X, distances, k, words, DEFAULT_MEMORY)
    X, distances, metric, start = pool.X, pool.distances, words["metric"], words["start"]
    n, counts, source = pool.n, pool.counts, pool.source
    checks.count(n_local, "n_local")
    share = checks.fraction(max_neighbor, "max_neighbor")
    patience = min(n, max(_LEAST_NEIGHBORS, math.ceil(share * n)))
    rng = np.random.default_rng(words["seed"])
    begin = None if start is None else _inits.started(start, k)
    best: _swaps.Swaps | None = None
    losses: list[float] = []
    swaps, evaluated, stopped = 0, 0, False
    with Control(time_limit=words["time_limit"], progress=words["progress"], title="swaps") as control:
        for turn in range(n_local if 1 < k < n else 0):
            medoids = begin if begin is not None and turn == 0 else rng.choice(n, k, replace=False)
            state = _swaps.Swaps(source, medoids, counts, compiled=_swaps.worth_compiling("eager", n, k))
            stopped = _descend(state, rng.permutation(n), patience, control)
            losses.append(state.loss)
            swaps, evaluated = swaps + state.swaps, evaluated + state.evaluated
            if best is None or state.loss < best.loss:
                best = state
            if stopped:
                break
    if best is not None:
        medoids, labels = best.medoids, best.labels
    else:
        begin = rng.choice(n, k, replace=False) if begin is None else begin
        if k == 1:
            begin, evaluated = only(source, begin, rng.permutation(n)[:patience], counts), patience
        placed = Placed(source, begin, counts)
        medoids, labels = placed.medoids, placed.labels
    info = {
        "swaps": swaps,
        "candidates": evaluated,
        "local_losses": losses,
        "swap_evaluations": evaluated * n,
        "distance_evals": source.evals,
    }
    status = "stopped" if stopped else "local" if patience == n else "heuristic"
    return finish(X, distances, metric, medoids, labels, counts, "optimal" if k == n else status, info)


def _descend(state: _swaps.Swaps, order: Ints, patience: int, control: Control) -> bool:
    """Try the items cyclically until `patience` in a row bring no swap; return whether a limit stopped it."""
    position, step = 0, max(8, PAIRS_AT_ONCE // state.n // 8 * 8)
    while state.unimproved < patience:
        candidates = order[position : position + min(step, patience - state.unimproved)]
        state.sweep(state.source.rows(candidates), candidates, patience)
        position = (position + len(candidates)) % state.n
        control.step(state.swaps)
        if control.stopped():
            return True
    return False
