"""Medoid silhouettes: how much nearer items are to their own medoid than to the next; groups and k by that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment import _swaps
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.floating[Any]]

# A change counts as an improvement beyond this share of the loss.
_TOLERANCE = 1e-12
_DEFAULT_MEMORY = 2**30
_PAIRS_AT_ONCE = 2**22
# `dynmsc` looks at no more groups than this unless told.
_MOST_GROUPS = 20
_PAPER = (
    "Lenssen & Schubert 2024, Medoid silhouette clustering with automatic cluster number selection "
    "(Information Systems 120, arXiv 2309.03751)"
)


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    cost="O(n^2) a round, whatever k is, and O(n k) a swap; from X O(n d) more a candidate or O(n^2) memory",
    exact="no single swap of a medoid raises the average medoid silhouette",
    paper=_PAPER,
)
def fastermsc(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    init: str | None = None,
    max_iter: int | None = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group items around k of them so that the average medoid silhouette is high: no single swap does better.

    An item's medoid silhouette is 1 - a/b for its distances a to the nearest and b to the second nearest medoid, and 0
    where both are nothing. As in FasterPAM, one pass over the points judges a candidate for all k medoids.

    Args:
        X: vectors (n, d). Distances are kept as an (n, n) matrix where that fits into `max_memory`, else computed row
            by row.
        distances: dissimilarities (n, n), symmetric, >= 0, zero on the diagonal; read in place.
        k: how many medoids. One medoid has no second: the silhouette is 0 then, and the medoid that of `fasterpam`.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the average, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        init: where to begin without `start`: "lab" (default), "build" or "random", as in `fasterpam`.
        max_iter: rounds over all items; None goes on until no swap is left.
        seed: for "lab" and "random".
        max_memory: bytes that distances from X may take, default 1 GiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.

    Returns:
        An `Assignment`: `labels`, `medoids`, `value` = the average medoid silhouette, 0 to 1, to be maximised. `status`
        is "local" where no swap improves, "optimal" where k is 1 or n, "stopped" at a limit. `info`: swaps, rounds,
        swap_evaluations, distance_evals (from X), zero_below (distances up to this count as nothing).

    Raises:
        InputError: k above the number of distinct items, a start that does not have k medoids, start and init
            together, or a diagonal that is not zero.

    Cost: O(n^2) time a round, O(n k) for a swap; O(n k) memory beside the distances.

    Guarantee: with status "local" no swap raises the average by more than 1e-12 of what it lacks to 1.

    References:
        Lenssen & Schubert 2024, Information Systems 120, arXiv 2309.03751: FasterMSC.

    Examples:
        >>> from kofn.assignment import fastermsc
        >>> plan = fastermsc([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), round(plan.value, 4), plan.status
        ([1, 4], 0.925, 'local')
    """
    if max_iter is not None:
        checks.count(max_iter, "max_iter")
    X, distances = _swaps.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, max_memory or _DEFAULT_MEMORY, n_threads)
    info: dict[str, Any] = {}
    medoids = _swaps.begin(source, k, counts, (start, init, "lab", seed), info)
    if k == 1:
        return _one_group(source, medoids, counts, info)
    state = _State(source, medoids, counts, compiled=_worth_compiling(n, 1))
    done, rounds = True, 0
    if k < n:
        with Control(time_limit=time_limit, progress=progress, what="swaps") as control:
            done, rounds = state.eager(max_iter, control.stopped, control.step)
    info |= {"swaps": state.swaps, "rounds": rounds, "swap_evaluations": state.evaluated * n}
    return _finish(state, "optimal" if k == n else "local" if done else "stopped", info)


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="a FasterMSC for each k from k_max down to k_min, each begun where the last one ended; memory as there",
    exact="for each k it stops at, no single swap raises the average medoid silhouette; k is the best of those",
    paper=_PAPER,
)
def dynmsc(
    X: Any = None,
    *,
    distances: Any = None,
    metric: str = "euclidean",
    weights: Any = None,
    init: str | None = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    k_min: int = 2,
    k_max: int | None = None,
) -> Assignment:
    """Find k and the groups together: the highest average medoid silhouette on the way from many medoids to few.

    FasterMSC with k_max medoids; then the medoid that costs least to give up goes, FasterMSC goes on with the others,
    and so on down to k_min. The curve of the silhouette over k comes with the plan.

    Args:
        X: vectors (n, d), as in `fastermsc`.
        distances: dissimilarities (n, n), as in `fastermsc`.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the average, >= 0, default 1.
        init: where to begin with k_max medoids: "lab" (default), "build" or "random".
        seed: for "lab" and "random".
        max_memory: bytes that distances from X may take, default 1 GiB.
        time_limit: seconds; the best k so far is returned.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.
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

    Guarantee: `value` is the largest of the curve, each point of which no single swap raises.

    References:
        Lenssen & Schubert 2024, Information Systems 120, arXiv 2309.03751: DynMSC.

    Examples:
        >>> from kofn.assignment import dynmsc
        >>> plan = dynmsc([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0], [30.0], [31.0], [32.0]], k_max=4, seed=0)
        >>> plan.k, plan.info["curve"]["k"], sorted(plan.medoids.tolist())
        (3, [2, 3, 4], [1, 4, 7])
    """
    n = len(X if distances is None else distances)
    checks.count(k_min, "k_min")
    if k_max is None:
        k_max = max(min(k_min, n), min(_MOST_GROUPS, int(np.sqrt(n))))
    checks.count(k_max, "k_max")
    if k_max > n:
        raise InputError(f"k_max={k_max} of {n} items: there are only {n} to choose from; ask for k_max <= {n}")
    k_min = min(k_min, n)
    if k_min > k_max:
        raise InputError(f"k_min={k_min} is above k_max={k_max}; swap them")
    X, distances = _swaps.pool(X, distances, 1, metric)
    k_max = _swaps.differing(X, distances, k_max)
    k_min = min(k_min, k_max)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, max_memory or _DEFAULT_MEMORY, n_threads)
    info: dict[str, Any] = {}
    medoids = _swaps.begin(source, k_max, counts, (None, init, "lab", seed), info)
    curve: dict[str, list[float]] = {"k": [], "silhouette": [], "loss": []}
    info |= {"swaps": 0, "rounds": 0, "swap_evaluations": 0}
    best: _State | None = None
    stopped = False
    with Control(time_limit=time_limit, progress=progress, total=k_max - k_min + 1, what="k") as control:
        state = None if k_max == 1 else _State(source, medoids, counts, compiled=_worth_compiling(n, k_max - k_min + 1))
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
            # On the way down, so that of equal values the least k stays.
            if best is None or state.value >= best.value - _TOLERANCE:
                best = state
            state = state.without(int(state.removal.argmin())) if state.k > max(k_min, 2) else None
            control.step(len(curve["k"]))
    if best is None or (k_min == 1 and not stopped and best.value <= 0):
        plan_medoids = medoids[:1] if best is None else best.medoids[:1]
        return _one_group(source, plan_medoids, counts, info | {"curve": _ascending(curve)})
    status = "stopped" if stopped else "heuristic"
    return _finish(best, status, info | {"curve": _ascending(curve)})


def medoid_silhouette(
    groups: Any,
    X: Any = None,
    *,
    distances: Any = None,
    metric: str = "euclidean",
    max_memory: int | str = _DEFAULT_MEMORY,
    n_threads: int | None = None,
) -> Floats:
    """How well items sit in their groups: (b - a) / max(a, b) for distances a to their own and b to the next medoid.

    Args:
        groups: an `Assignment`, or a label for each item (-1 for none). Groups without medoids get the member with the
            least summed distance to the others.
        X: vectors (n, d).
        distances: dissimilarities (n, n) instead.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        max_memory: bytes that distances from X may take.
        n_threads: threads that compute distances from X; default all cores.

    Returns:
        (n,) from -1 (in the wrong group) to 1; 0 where there is only one group or both distances are nothing, NaN for
        items in no group. The mean is the average medoid silhouette.

    Raises:
        InputError: not one label for each item, or neither or both of X and distances.

    Cost: O(n d k) time from X; where medoids must be found, O(sum of the squared group sizes) more.

    References:
        Van der Laan, Pollard & Bryan 2003, A new partitioning around medoids algorithm.

    Examples:
        >>> from kofn.assignment import medoid_silhouette
        >>> medoid_silhouette([0, 0, 0, 1, 1], [[0.0], [1.0], [2.0], [9.0], [9.0]]).round(3).tolist()
        [0.889, 1.0, 0.857, 1.0, 1.0]
    """
    if (X is None) == (distances is None):
        raise InputError("give X or distances, one of them")
    X = None if X is None else checks.matrix(X)
    distances = None if distances is None else checks.distances(distances)
    n = len(X if distances is None else distances)
    source = _swaps.source_of(X, distances, metric, checks.bytes_of(max_memory), n_threads)
    medoids = None
    if isinstance(groups, Assignment):
        labels, medoids = groups.labels.astype(np.int64), groups.medoids
    else:
        given = np.asarray(groups)
        if given.shape != (n,) or given.dtype.kind not in "iu":
            raise InputError(
                f"groups has shape {given.shape} and dtype {given.dtype}; give a whole number for each item"
            )
        labels = np.full(n, -1)
        held = given >= 0
        labels[held] = np.unique(given[held], return_inverse=True)[1]
    checks.same_length(n, "X" if distances is None else "distances", "groups", len(labels))
    if medoids is None:
        medoids = np.array([_middle(source, np.flatnonzero(labels == j)) for j in range(labels.max(initial=-1) + 1)])
    out = np.full(n, np.nan)
    placed = np.flatnonzero(labels >= 0)
    out[placed] = 0.0
    if len(medoids) < 2:
        return out
    table = source.rows(np.asarray(medoids, np.int64)).T.astype(np.float64)[placed]
    own = np.take_along_axis(table, labels[placed, None], 1)[:, 0]
    np.put_along_axis(table, labels[placed, None], np.inf, 1)
    other = table.min(axis=1)
    longer = np.maximum(own, other)
    told = longer > _nothing(source)
    out[placed[told]] = (other[told] - own[told]) / longer[told]
    return out


def _middle(source: _swaps.Source, members: Ints) -> int:
    """The member with the least summed distance to the others."""
    step = max(1, _PAIRS_AT_ONCE // len(members))
    parts = [
        source.between(members[low : low + step], members).sum(axis=1, dtype=np.float64)
        for low in range(0, len(members), step)
    ]
    return int(members[int(np.concatenate(parts).argmin())])


def _nothing(source: _swaps.Source) -> float:
    """Distances up to this are rounding: the last digit of the largest distance of the first item."""
    row = source.rows(np.array([0]))[0]
    return float(np.finfo(row.dtype).eps * row.max())


def _worth_compiling(n: int, steps: int) -> bool:
    """Whether NumPy would still be busy when compiled code is loaded; both paths make the same swaps."""
    loaded = "kofn.assignment._silhouette_kernels" in sys.modules
    return loaded or 3 * steps * n * (6e-5 + 2e-8 * n) > 0.5


class _State:
    """Medoids and every item's distances to them; its two nearest, and the distance of the third."""

    def __init__(
        self, source: _swaps.Source, medoids: Ints, weights: Floats, *, compiled: bool, to_medoid: Rows | None = None
    ) -> None:
        self.source, self.weights, self.compiled = source, weights, compiled
        self.medoids = medoids.astype(np.int64)
        self.n, self.k = source.n, len(medoids)
        self.is_medoid = np.zeros(self.n, np.uint8)
        self.is_medoid[self.medoids] = 1
        self.to_medoid = np.ascontiguousarray(source.rows(self.medoids).T if to_medoid is None else to_medoid)
        self.nothing = _nothing(source)
        self.who, self.dist = np.zeros((self.n, 2), np.int32), np.empty((self.n, 3))
        self.removal = np.empty(self.k)
        self.loss = self._settle()
        self.swaps = self.evaluated = self.unimproved = 0

    @property
    def value(self) -> float:
        """The average medoid silhouette."""
        return 1.0 - self.loss / float(self.weights.sum())

    @property
    def labels(self) -> NDArray[np.int32]:
        """The nearest medoid of each point, ties to the lowest place; a medoid stands for itself."""
        labels = self.who[:, 0].copy()
        labels[self.medoids] = np.arange(self.k, dtype=np.int32)
        return labels

    def without(self, place: int) -> _State:
        """The same with one medoid less."""
        medoids, kept = np.delete(self.medoids, place), np.delete(self.to_medoid, place, axis=1)
        return _State(self.source, medoids, self.weights, compiled=self.compiled, to_medoid=kept)

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """Take every candidate in turn and swap at once. Returns whether no swap is left, and the rounds."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            for start, rows in self.source.blocks():
                (self._sweep_compiled if self.compiled else self._sweep)(rows, start)
                if self.unimproved >= self.n:
                    return True, rounds
                if stopped():
                    return False, rounds
            step(self.swaps)
        return False, rounds

    def _sweep_compiled(self, rows: Rows, start: int) -> None:
        from kofn.assignment import _silhouette_kernels as kernels

        counts = np.array([self.unimproved, self.swaps, self.evaluated])
        loss = np.array([self.loss])
        known = self.to_medoid, self.weights, self.nothing, self.who, self.dist, self.removal
        kernels.sweep(rows, start, self.medoids, self.is_medoid, *known, loss, _TOLERANCE, counts)
        self.unimproved, self.swaps, self.evaluated = counts.tolist()
        self.loss = float(loss[0])

    def _sweep(self, rows: Rows, start: int) -> None:
        for candidate, row in enumerate(rows, start):
            if self.unimproved >= self.n:
                return
            self.unimproved += 1
            if self.is_medoid[candidate]:
                continue
            self.evaluated += 1
            shared, change = self._change(row)
            place = int(change.argmin())
            if not shared + change[place] < -_TOLERANCE * self.loss:
                continue
            column = self.to_medoid[:, place].copy()
            self.to_medoid[:, place] = row
            after = self._settle()
            if not after < self.loss * (1 - _TOLERANCE / 2):
                # The change was mere rounding.
                self.to_medoid[:, place] = column
                self._settle()
                continue
            self.is_medoid[self.medoids[place]] = 0
            self.is_medoid[candidate] = 1
            self.medoids[place] = candidate
            self.loss = after
            self.swaps += 1
            self.unimproved = 1

    def _ratio(self, a: Floats, b: Floats) -> Floats:
        out: Floats = np.divide(a, b, out=np.ones(len(a)), where=b > self.nothing)
        return out

    def _settle(self) -> float:
        """Nearest medoids and removal losses; returns the loss. The compiled loop adds the same terms in order."""
        if self.compiled:
            from kofn.assignment import _silhouette_kernels as kernels

            known = self.to_medoid, self.weights, self.nothing, self.who, self.dist, self.removal
            return float(kernels.settle(*known))
        order = np.argsort(self.to_medoid, axis=1, kind="stable")[:, :3]
        self.dist[:] = np.inf
        self.dist[:, : order.shape[1]] = np.take_along_axis(self.to_medoid, order, 1)
        self.who[:] = order[:, :2]
        one, two, three = self.dist.T
        base = self._ratio(one, two)
        costs = np.stack([self._ratio(two, three) - base, self._ratio(one, three) - base], axis=1)
        self.removal[:] = 0.0
        np.add.at(self.removal, self.who.ravel(), (self.weights[:, None] * costs).ravel())
        return float((self.weights * base).cumsum()[-1])

    def _change(self, row: Rows) -> tuple[float, Floats]:
        """How the loss changes if this candidate replaces each medoid: the shared part, and (k,) the rest.

        An item loses the share of its nearest distance in its second nearest. A candidate nearer than the third matters
        to it, differently where the first or the second goes than where any other does.
        """
        at = np.flatnonzero(row < self.dist[:, 2])
        d, weights = row[at].astype(np.float64), self.weights[at]
        one, two, three = self.dist[at].T
        base = self._ratio(one, two)
        stays = np.where(d < one, self._ratio(d, one), np.where(d < two, self._ratio(one, d), base))
        gone = [self._ratio(np.minimum(d, other), np.maximum(d, other)) - stays for other in (two, one)]
        known = [self._ratio(two, three) - base, self._ratio(one, three) - base]
        change = self.removal.copy()
        parts = np.stack([weights * (new - old) for new, old in zip(gone, known, strict=True)], axis=1)
        np.add.at(change, self.who[at].ravel(), parts.ravel())
        return float((weights * (stays - base)).cumsum()[-1]) if len(at) else 0.0, change


def _ascending(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values[::-1] for name, values in curve.items()}


def _one_group(source: _swaps.Source, medoids: Ints, weights: Floats, info: dict[str, Any]) -> Assignment:
    """The item with the least summed distance; the silhouette of a single group is 0 by convention."""
    totals = np.concatenate([rows.astype(np.float64) @ weights for _, rows in source.blocks()])
    best = int(totals.argmin())
    # An equally good start is kept, so that running again from a plan returns it.
    if not totals[best] < totals[medoids[0]] * (1 - 1e-10):
        best = int(medoids[0])
    info = {"swaps": 0, "rounds": 0, "swap_evaluations": 0, **info, "zero_below": _nothing(source)}
    labels = np.zeros(source.n, np.int32)
    return _plan(labels, np.array([best]), 0.0, "optimal", info | {"distance_evals": source.evals})


def _finish(state: _State, status: str, info: dict[str, Any]) -> Assignment:
    info = {**info, "zero_below": state.nothing, "distance_evals": state.source.evals}
    return _plan(state.labels, state.medoids, state.value, status, info)


def _plan(labels: NDArray[np.int32], medoids: Ints, value: float, status: str, info: dict[str, Any]) -> Assignment:
    k = len(medoids)
    return Assignment.from_labels(
        labels,
        k,
        medoids=medoids,
        value=value,
        sense="max",
        status=status,
        bound=value if status == "optimal" else None,
        used={"k": k},
        budget={"k": k},
        info={"objective": "medoid_silhouette", **info},
    )
