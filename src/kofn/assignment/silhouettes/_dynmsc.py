"""Choose k and the groups by the average medoid silhouette, from `k_max` medoids down to `k_min` (DynMSC)."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.assignment.medoids import _inits, _sources
from kofn.assignment.medoids._sources import Init, Pairs
from kofn.assignment.silhouettes import _silhouette
from kofn.assignment.silhouettes._limits import limits_of_k
from kofn.assignment.silhouettes._silhouette import (
    DEFAULT_MEMORY,
    TOLERANCE,
    State,
    finish,
    one_group,
)
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="a FasterMSC for each k from k_max down to k_min, each begun where the last one ended; memory as there",
    exact="for each k it stops at, no single swap raises the average medoid silhouette; k is the best of those",
    paper="lenssen2024",
)
def dynmsc(
    X: Any = None,
    *,
    distances: Any = None,
    init: Init | None = None,
    k_min: int = 2,
    k_max: int | None = None,
    **words: Unpack[Pairs],
) -> Assignment:
    """Choose k and the groups by the average medoid silhouette, from `k_max` medoids down to `k_min` (DynMSC).

    Runs FasterMSC with k_max medoids, removes the medoid whose removal costs least, continues FasterMSC with the rest,
    and so on down to k_min. The silhouette for each k is returned with the plan.

    Args:
        X: vectors (n, d), as in `fastermsc`.
        distances: dissimilarities (n, n), as in `fastermsc`.
        init: initialisation of the k_max medoids: "lab" (default), "build" or "random".
        k_min: fewest groups.
        k_max: most groups; default 20, or the square root of n where that is less, and never more than there are
            distinct items. With nearly n groups any pool has a silhouette of nearly 1, so keep it well below n.

    Returns:
        An `Assignment` for the best k (of equal ones the least) as from `fastermsc`, with status "heuristic". `info`
        also has `curve`: lists `k`, `silhouette` (the value for each k) and `loss` (the summed distances to the nearest
        medoid), for ascending k.

    Raises:
        InputError: k_min above k_max, k_max > n, or a diagonal that is not zero.

    Cost: O(n^2) time a round, a few rounds for each k.

    Guarantee: `value` is the maximum of the curve, each point of which is a local optimum of single swaps.

    References:
        Lenssen & Schubert 2024, Information Systems 120, arXiv 2309.03751: DynMSC.

    Examples:
        >>> from kofn.assignment import dynmsc
        >>> plan = dynmsc([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0], [30.0], [31.0], [32.0]], k_max=4, seed=0)
        >>> plan.k, plan.info["curve"]["k"], sorted(plan.medoids.tolist())
        (3, [2, 3, 4], [1, 4, 7])
    """
    n = len(X if distances is None else distances)
    k_min, k_max = limits_of_k(n, k_min, k_max)
    pool = _sources.opened(X, distances, 1, words, DEFAULT_MEMORY)
    counts, source = pool.counts, pool.source
    k_max = _sources.differing(pool.X, pool.distances, k_max)
    k_min = min(k_min, k_max)
    info: dict[str, Any] = {}
    curve: dict[str, list[float]] = {"k": [], "silhouette": [], "loss": []}
    best: State | None = None
    stopped = False
    with Control(
        time_limit=words["time_limit"], progress=words["progress"], total=k_max - k_min + 1, title="k"
    ) as control:
        medoids = _inits.begin(source, k_max, counts, (None, init, "lab", words["seed"]), info, control.stopped)
        info |= {"swaps": 0, "rounds": 0, "swap_evaluations": 0}
        state = (
            None
            if k_max == 1
            else State(source, medoids, counts, compiled=_silhouette.worth_compiling(n, k_max - k_min + 1))
        )
        while state is not None and not stopped:
            rounds = 0
            if state.k < n:
                done, rounds = state.eager(None, control.stopped, lambda _: None)
                stopped = not done
            curve["k"].append(state.k)
            curve["silhouette"].append(state.value)
            curve["loss"].append(float((counts * state.dist[:, 0]).sum()))
            info["rounds"] += rounds
            info["swaps"] += state.swaps
            info["swap_evaluations"] += state.evaluated * n
            # k decreases, so the smallest k wins among equal values.
            if best is None or state.value >= best.value - TOLERANCE:
                best = state
            state = state.without(int(state.removal.argmin())) if state.k > max(k_min, 2) else None
            control.step(len(curve["k"]))
    if best is None or (k_min == 1 and not stopped and best.value <= 0):
        plan_medoids = medoids[:1] if best is None else best.medoids[:1]
        return one_group(source, plan_medoids, counts, info | {"curve": _ascending(curve)}, control)
    status = "stopped" if stopped else "heuristic"
    return finish(best, status, info | {"curve": _ascending(curve)})


def _ascending(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values[::-1] for name, values in curve.items()}
