"""Choose k by the average silhouette width of k-medoids, of a sample where there are many items (pamk)."""

from __future__ import annotations

import time
from typing import Any, Unpack

import numpy as np

from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.assignment.medoids._fastclara import fastclara
from kofn.assignment.medoids._fasterpam import fasterpam
from kofn.assignment.medoids._samples import Placed, finish
from kofn.assignment.medoids._sources import Pairs
from kofn.assignment.silhouettes._limits import limits_of_k
from kofn.assignment.silhouettes._widths import average_width, group_sums
from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Labels, Reals
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.objectives.similarity import pairwise_distances

# From so many items on, the medoids of all items are looked for on samples.
LARGE = 20_000
# Items whose silhouettes are compared unless told otherwise.
SAMPLE = 2_000
# How far apart groups lie whose average silhouette width is above each of these, in the book's words (its table 4).
_STRUCTURES = ((0.7, "strong"), (0.5, "reasonable"), (0.25, "weak"))
# Of silhouettes that differ by less than this, the one of fewer groups counts.
_TOLERANCE = 1e-9
# Runs of FasterPAM for each k, each from a start of its own.
RUNS = 2
# What the groups of all items take at the least, where the limit has nearly passed.
_LEAST_SECONDS = 0.05


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="FasterPAM on the sample, and O(s^2) for the silhouettes of its s items, for each k; then once on all items",
    exact="nothing for k; no single swap of a medoid lowers the loss where n < 20,000",
    paper="kaufman1990",
    aliases=("average silhouette width", "choose k", "silhouette"),
)
def pamk(
    X: Any = None,
    *,
    distances: Any = None,
    k_min: int = 2,
    k_max: int | None = None,
    sample_size: int = SAMPLE,
    **words: Unpack[Pairs],
) -> Assignment:
    """Choose k by the average silhouette width of k-medoids, of a sample where there are many items (pamk).

    For each k from `k_min` to `k_max` it groups a sample by FasterPAM and takes the k whose groups have the largest
    average silhouette width: (b - a) / max(a, b) of an item's mean distances a to its own group and b to the nearest
    other one. An item that is alone in its group counts 0, so a few far rows do not become groups of their own, as they
    may by the medoid silhouette of `dynmsc`. Then all items are grouped by that many medoids.

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k_min: fewest groups; with 1, one group is chosen where no silhouette is above 0.
        k_max: most groups; default 20, or the square root of n where that is less, and never more than there are
            distinct items.
        sample_size: items whose silhouettes are compared.

    Returns:
        An `Assignment` of the chosen k as from `fasterpam`, from 20,000 items on as from `fastclara`: `value` is the
        weighted sum of the distances to the nearest medoid, status "heuristic". `info` has `curve`: lists `k`,
        `silhouette` (the average width in the sample) and `loss` (the summed distances in the sample), for ascending k;
        `structure`, which the book calls an average width above 0.7 "strong", above 0.5 "reasonable", above 0.25 "weak"
        and below it "none": then k says little of the rows; and sample_size.

    Raises:
        InputError: k_min above k_max, k_max > n, or a diagonal that is not zero.

    Cost: for each k FasterPAM on s items and O(s^2); then FasterPAM on all, O(n^2) a round, or FastCLARA.

    Guarantee: none for k; it is the best of those compared. The silhouette prefers few groups that lie well apart, and
    need not find the classes of a table.

    References:
        Kaufman & Rousseeuw 1990, Finding Groups in Data: the average silhouette width. Hennig, R package fpc: pamk.

    Examples:
        >>> from kofn.assignment import pamk
        >>> plan = pamk([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0], [30.0], [31.0], [32.0]], k_max=4, seed=0)
        >>> plan.k, plan.info["curve"]["k"], sorted(plan.medoids.tolist())
        (3, [2, 3, 4], [1, 4, 7])
    """
    n = len(X if distances is None else distances)
    k_min, k_max = limits_of_k(n, k_min, k_max)
    size = min(n, checks.count(sample_size, "sample_size", least=2))
    metric, weights, limit = words["metric"], words["weights"], words["time_limit"]
    X, distances = _sources.pool(X, distances, 1, metric)
    counts = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    began = time.monotonic()
    rng = np.random.default_rng(words["seed"])
    items = np.arange(n) if size == n else np.sort(rng.choice(n, size, replace=False))
    if distances is not None:
        table = np.ascontiguousarray(distances[np.ix_(items, items)])
    else:
        table = pairwise_distances(X[items], metric, n_threads=words["n_threads"])
    k_max = _sources.differing(None if X is None else X[items], table if X is None else None, k_max)
    k_min = min(k_min, k_max)
    curve: dict[str, list[Any]] = {"k": [], "silhouette": [], "loss": []}
    # Of a sample all of whose items weigh nothing, each counts.
    weighed = counts[items] if counts[items].any() else np.ones(size)
    medoids, most = _of_one_group(table, weighed), 0.0 if k_min == 1 else -np.inf
    with Control(time_limit=limit, progress=words["progress"], total=k_max - k_min + 1, title="k") as control:
        for k in range(max(k_min, 2), k_max + 1):
            state = _grouped(table, k, weighed, rng, control)
            sums, mass = group_sums(table, state.labels, weighed, k)
            width = average_width(sums, mass, state.labels, weighed)
            for name, value in (("k", k), ("silhouette", width), ("loss", state.loss)):
                curve[name].append(value)
            if width > most + _TOLERANCE:
                medoids, most = state.medoids, width
            control.step(len(curve["k"]))
            if control.stopped():
                break
        stopped = control.stopped()
    medoids = items[medoids]
    labels: Labels | None = None
    evals = 0 if X is None else size**2
    if size < n and not stopped:
        if limit is not None:
            limit = max(limit - (time.monotonic() - began), _LEAST_SECONDS)
        search: dict[str, Any] = {**words, "time_limit": limit, "start": medoids, "seed": int(rng.integers(2**31))}
        plan = (fasterpam if n < LARGE else fastclara)(X, distances=distances, k=len(medoids), **search)
        medoids, labels, stopped = np.asarray(plan.medoids), plan.labels, plan.status == "stopped"
        evals += plan.info["distance_evals"]
    if labels is None:
        if size == n:
            source: _sources.Source = _sources.Matrix(table)
        else:
            memory = words["max_memory"]
            limit_on_memory = None if memory is None else checks.bytes_of(memory)
            source = _sources.source_of(X, distances, metric, 0, words["n_threads"], limit_on_memory)
        labels = Placed(source, medoids, counts).labels
        evals += 0 if size == n else source.evals
    structure = next((name for least, name in _STRUCTURES if most > least), "none")
    info = {"curve": curve, "structure": structure, "sample_size": size, "distance_evals": evals}
    return finish(X, distances, metric, medoids, labels, counts, "stopped" if stopped else "heuristic", info)


def _grouped(table: Reals, k: int, weights: Floats, rng: np.random.Generator, control: Control) -> _swaps.Swaps:
    """The best of a few runs of FasterPAM."""
    source, n = _sources.Matrix(table), len(table)
    runs: list[_swaps.Swaps] = []
    for _ in range(RUNS):
        medoids = _inits.lab(source, k, weights, rng)
        state = _swaps.Swaps(source, medoids, weights, compiled=_swaps.worth_compiling("eager", n, k))
        if k < n:
            state.eager(None, control.stopped, lambda _: None)
        runs.append(state)
        if control.stopped():
            break
    return min(runs, key=lambda state: state.loss)


def _of_one_group(table: Reals, weights: Floats) -> Ints:
    return np.array([int((table @ weights).argmin())])
