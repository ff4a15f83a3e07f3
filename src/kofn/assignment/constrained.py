"""Groups under constraints: sizes held exactly and links kept, around means or medoids; new items by the prices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment import _links, _swaps
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.objectives.similarity import geometry
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.int32]

_INITS = ("k-means++", "random")
# A step of k-means or k-medoids counts as an improvement beyond this share of what is summed.
_TOLERANCE = 1e-12
# Distances from X are kept as a matrix up to this size and computed row by row beyond.
_MATRIX_BYTES = 2**30
_ROWS_AT_ONCE = 1 << 14


@method(
    "assign",
    cost="O(n k d) a round and one transport, O(n k) and a shortest path among k groups for each item that moves; "
    "memory 8 n k bytes",
    exact="sizes and links held exactly; each assignment step optimal where must_link and cannot_link join nothing",
    paper="Bradley, Bennett & Demiriz 2000, Constrained K-Means Clustering (Microsoft Research MSR-TR-2000-65)",
)
def constrained_kmeans(
    X: Any,
    *,
    k: int,
    capacity: Any = None,
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
    min_size: int = 1,
    must_link: Any = None,
    cannot_link: Any = None,
    centers: Any = None,
    init: str = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
) -> Assignment:
    """Group items around k means, each group of at least `min_size` and at most `capacity` items, links kept.

    Lloyd's two steps, the assignment being the best one that keeps the sizes: a transport over k groups, solved exactly
    from the prices of the step before.

    Args:
        X: vectors (n, d).
        k: how many groups.
        capacity: the most items in a group: one number, or (k,) for groups in the order of `start` or `centers`.
            It counts items, whatever they weigh.
        weights: (n,) how much each item counts in the loss and in the means, >= 0, default 1.
        start: k rows (numbers or ids) to begin from.
        seed: for the first centres.
        time_limit: seconds.
        progress: show progress on a terminal.
        min_size: the least items in a group. 0 lets groups become empty; their centre then stays where it was.
        must_link: (m, 2) pairs of row numbers that share a group; chains of pairs join all their rows.
        cannot_link: (m, 2) pairs of row numbers that may not share a group.
        centers: (k, d) centres to begin from, for example those of an earlier plan.
        init: how to choose first centres where none are given: "k-means++" (each from the best of a few rows drawn by
            their squared distance) or "random" rows.
        n_init: runs from other first centres; the best one is returned.
        max_iter: rounds of a run.

    Returns:
        An `Assignment`: `labels`, `centers` (k, d), `value` = the weighted sum of squared distances to the own centre,
        `v` = the price of a place in each group: > 0 where a group is full, < 0 where it is held up to its least size.
        An item is where `weight * squared distance + price` is least, so `place` finds a group for new items without
        solving again. `status` is "local" where neither step improves, "heuristic" with links that bind (prices are
        then those of the items that are not linked), "stopped" at a limit.

    Raises:
        InputError: k above the number of distinct rows; start, centers and init that clash.
        InfeasibleError: sizes that cannot hold everyone, a group that would be empty, must_link against cannot_link
            (the chain of rows is named), links that no placement within the sizes keeps.
        FailureError: linked rows for which neither a placement nor a proof that there is none was found in a minute.

    Cost: O(n k d) a round for the distances; the transport adds O(n k) and, for each item that changes its group
    against its price, O(k^2) and a share of a group. Links that bind take up to some 80 transports a round. Memory
    8 n k bytes beside X in float64.

    Guarantee: sizes and links hold exactly. Without links each assignment step is optimal up to rounding, so with
    status "local" no other assignment to these centres and no other centres of these groups are better. Rows joined by
    must_link move together, and placing such parts in groups of bounded size is bin packing: a first placement is
    found, or proved impossible, by an integer program where the greedy one fails; after that no step makes the loss
    larger. Where everybody's nearest group has room the step is exact with must_link, too.

    References:
        Bradley, Bennett & Demiriz 2000, Constrained K-Means Clustering. Wagstaff, Cardie, Rogers & Schroedl 2001,
        Constrained K-means Clustering with Background Knowledge (ICML), for links. Arthur & Vassilvitskii 2007,
        k-means++ (SODA).

    Examples:
        >>> from kofn.assignment import constrained_kmeans
        >>> X = [[0.0], [1.0], [2.0], [3.0], [9.0], [10.0]]
        >>> plan = constrained_kmeans(X, k=2, capacity=3, start=[0, 5])
        >>> plan.labels.tolist(), plan.centers.ravel().round(3).tolist()
        ([0, 0, 0, 1, 1, 1], [1.0, 7.333])
        >>> constrained_kmeans(X, k=2, must_link=[[3, 4]], start=[0, 5]).labels.tolist()
        [0, 0, 0, 1, 1, 1]
    """
    n = len(X)
    checks.choice(init, "init", _INITS)
    for name, count in (("n_init", n_init), ("max_iter", max_iter)):
        checks.count(count, name)
    given = sum(part is not None for part in (start, centers))
    if given and (given == 2 or init != "k-means++" or n_init != 1):
        raise InputError("start or centers say where to begin: give one of them, without init and n_init")
    distinct = len(np.unique(checks.first_equal(X))) if k > 1 else n
    if k > min(n, distinct):
        raise InputError(f"k={k} groups of {n} rows, {distinct} of them distinct; ask for k <= {distinct}")
    seating = _seating(n, k, capacity, min_size, must_link, cannot_link)
    if start is not None and len(start) != k:
        raise InputError(f"start names {len(start)} rows, k={k}; give exactly k")
    space = geometry(X, "sqeuclidean")
    points = space.points(slice(None))
    scale = float(space.scale[0]) if len(space.scale) else 1.0
    middle = points.mean(axis=0)
    points -= middle
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    if centers is not None:
        centers = checks.matrix(centers, "centers").astype(np.float64) * scale - middle
        if centers.shape != (k, X.shape[1]):
            raise InputError(f"centers has shape {centers.shape}; k={k} and X ask for ({k}, {X.shape[1]})")
    units = seating.units
    sums, mass = units.total(counts[:, None] * points), units.total(counts)
    rng = np.random.default_rng(seed)
    best: tuple[float, Any] | None = None
    rounds = 0
    with Control(time_limit=time_limit, progress=progress, what="rounds") as control:
        for _ in range(n_init):
            if centers is not None:
                first = centers
            elif start is not None:
                first = points[start]
            else:
                first = _seeds(points, counts, k, init, rng)
            labels, middles, prices, took, done = _lloyd(sums, mass, first, seating, max_iter, control)
            rounds += took
            gap = points - middles[labels[units.of]]
            loss = math.fsum((counts * np.einsum("ij,ij->i", gap, gap)).tolist())
            if best is None or loss < best[0]:
                best = loss, (labels, middles, prices, done)
            if control.stopped():
                break
    assert best is not None
    labels, middles, prices, done = best[1]
    info = {"objective": "constrained_inertia", "rounds": rounds, "units": len(units.sizes)}
    return _plan(
        labels[units.of],
        seating,
        capacity,
        value=best[0] * space.unit,
        centers=(middles + middle) / scale,
        v=prices * space.unit,
        status="stopped" if not done else "local" if _binds_nothing(seating) else "heuristic",
        info={**info, "distance_evals": rounds * n * k},
    )


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="O(n k) and one transport a round, and the distances within the groups, about n^2 / k; memory n^2 from X up "
    "to 1 GiB, O(n k) beyond",
    exact="sizes and links held exactly; each assignment step optimal where must_link and cannot_link join nothing",
    paper="Bradley, Bennett & Demiriz 2000, Constrained K-Means Clustering, its assignment step around medoids",
)
def constrained_kmedoids(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    capacity: Any = None,
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
    min_size: int = 1,
    must_link: Any = None,
    cannot_link: Any = None,
    max_iter: int = 300,
) -> Assignment:
    """Group items around k of them, each group of at least `min_size` and at most `capacity` items, links kept.

    From the medoids of `fasterpam`, items and medoids are chosen in turn: the best assignment that keeps the sizes,
    then the best medoid of each group.

    Args:
        X: vectors (n, d).
        distances: dissimilarities (n, n), symmetric, >= 0.
        k: how many groups.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        capacity: the most items in a group: one number, or (k,) for groups in the order of `start`. It counts items,
            whatever they weigh.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        seed: for `fasterpam`, where there is no start.
        time_limit: seconds, for `fasterpam` and for the rest each.
        progress: show progress on a terminal.
        min_size: the least items in a group, at least 1.
        must_link: (m, 2) pairs of row numbers that share a group; chains of pairs join all their rows.
        cannot_link: (m, 2) pairs of row numbers that may not share a group.
        max_iter: rounds.

    Returns:
        An `Assignment`: `labels`, `medoids` (row numbers, medoid j in group j), `value` = the weighted sum of the
        distances to the own medoid, `v` = the price of a place in each group, as in `constrained_kmeans`; `centers` are
        the medoids' rows of X. `place` finds a group for new items.

    Raises:
        InputError: k above the number of distinct items, a start that does not have k medoids, or a diagonal that is
            not zero.
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
    from kofn.assignment.kmedoids import fasterpam

    X, distances = _swaps.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    checks.count(max_iter, "max_iter")
    checks.count(min_size, "min_size")
    seating = _seating(n, k, capacity, min_size, must_link, cannot_link)
    if start is None:
        first = fasterpam(X, distances=distances, k=k, metric=metric, weights=weights, seed=seed, time_limit=time_limit)
        medoids = np.asarray(first.medoids)
    elif len(start) != k:
        raise InputError(f"start has {len(start)} medoids, k={k}; give exactly k")
    else:
        medoids = np.asarray(start, np.int64)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, _MATRIX_BYTES, None)
    units, done, rounds = seating.units, False, 0
    labels: Labels | None = None
    prices: Floats | None = None
    with Control(time_limit=time_limit, progress=progress, what="rounds") as control:
        while rounds < max_iter:
            rounds += 1
            scores = -units.total(counts[:, None] * source.rows(medoids).T)
            # A medoid stays in its group. The first ones may be linked with each other: then they only say where.
            own = units.of[medoids]
            if labels is not None or (len(np.unique(own)) == k and not len(units.apart) and seating.exact):
                free = np.full((k, k), -np.inf)
                np.fill_diagonal(free, scores[own, np.arange(k)])
                scores[own] = free
            after, prices = seating(scores, labels, prices)
            if labels is not None and not _gains(scores, labels, after):
                done = True
                break
            labels = after
            medoids = _best_medoids(source, labels[units.of], counts, medoids, k)
            control.step(rounds)
            if control.stopped():
                break
    assert labels is not None
    items = labels[units.of]
    return _plan(
        items,
        seating,
        capacity,
        value=_swaps.loss_of(X, distances, metric, medoids, items, counts),
        medoids=medoids,
        centers=None if X is None else np.asarray(X[medoids], np.float64),
        v=prices,
        status="stopped" if not done else "local" if _binds_nothing(seating) else "heuristic",
        info={
            "objective": "constrained_medoids",
            "rounds": rounds,
            "units": len(units.sizes),
            "distance_evals": source.evals,
        },
    )


def place(plan: Assignment, X: Any = None, *, distances: Any = None, weights: Any = None) -> Labels:
    """Groups of new items by the centres and prices of a plan, without solving again.

    An item goes where `weight * distance + price` is least: to its nearest group, unless that one is full of items
    that lose more by going elsewhere. The groups' sizes are not held for the new items.

    Args:
        plan: from `constrained_kmeans` or `constrained_kmedoids`.
        X: (m, d) new vectors.
        distances: (m, k) how far they are from the medoids, where the plan was made from distances.
        weights: (m,) how much each counts, default 1.

    Returns:
        (m,) group of each.

    Raises:
        InputError: a plan without prices, or vectors of another width.

    Examples:
        >>> from kofn.assignment import constrained_kmeans, place
        >>> plan = constrained_kmeans([[0.0], [1.0], [2.0], [3.0], [9.0], [10.0]], k=2, capacity=3, start=[0, 5])
        >>> place(plan, [[2.0], [3.5], [8.0]]).tolist()
        [0, 1, 1]
    """
    if plan.v is None or (plan.centers is None and plan.medoids is None):
        raise InputError(f"plan of method {plan.method!r} has no centres with prices; give one of constrained_kmeans")
    if (X is None) == (distances is None):
        raise InputError("give X, new vectors, or distances to the medoids: one of them")
    if distances is not None:
        apart = checks.matrix(distances, "distances").astype(np.float64)
        if apart.shape[1] != plan.k:
            raise InputError(f"distances has {apart.shape[1]} columns, the plan has {plan.k} groups; give one for each")
    else:
        rows = checks.matrix(X)
        if plan.centers is None:
            raise InputError("X is given, the plan was made from distances; give distances to its medoids")
        if rows.shape[1] != plan.centers.shape[1]:
            raise InputError(f"X has {rows.shape[1]} columns, the plan's centers have {plan.centers.shape[1]}")
        metric = "sqeuclidean" if plan.medoids is None else str(plan.options.get("metric", "euclidean"))
        apart = _apart(rows.astype(np.float64), plan.centers, metric)
    if weights is not None:
        weights = checks.weights(weights)
        checks.same_length(len(apart), "X" if distances is None else "distances", "weights", len(weights))
        apart = weights[:, None] * apart
    labels: Labels = (apart + plan.v).argmin(axis=1).astype(np.int32)
    return labels


def _apart(rows: Floats, centers: Floats, metric: str) -> Floats:
    """(m, k) distances, as the methods count them."""
    from scipy.spatial.distance import cdist

    if metric == "cosine":
        sizes = [np.sqrt(np.einsum("ij,ij->i", part, part)) for part in (rows, centers)]
        # Rows of zeros share a direction of their own, at right angles to all others.
        rows, centers = (
            np.column_stack([part / np.where(size > 0, size, 1.0)[:, None], size == 0])
            for part, size in zip((rows, centers), sizes, strict=True)
        )
    out: Floats = cdist(rows, centers, "euclidean" if metric == "euclidean" else "sqeuclidean")
    return out / 2 if metric == "cosine" else out


def _seating(n: int, k: int, capacity: Any, min_size: Any, must_link: Any, cannot_link: Any) -> _links.Seating:
    least = checks.count(min_size, "min_size", least=0)
    units = _links.units_of(n, must_link, cannot_link)
    return _links.Seating(units, *_links.bounds_of(n, k, capacity, least, units))


def _binds_nothing(seating: _links.Seating) -> bool:
    """Whether every assignment step was exact: nothing is linked, or parts go where they like."""
    return seating.exact or seating.free


def _plan(labels: Labels, seating: _links.Seating, capacity: Any, **fields: Any) -> Assignment:
    k = seating.k
    load = np.bincount(labels, minlength=k).astype(np.float64)
    used: dict[str, Any] = {"k": k}
    budget: dict[str, Any] = {"k": k}
    if capacity is not None:
        fields["capacity"] = np.broadcast_to(np.asarray(capacity, np.int64), k).copy()
        used, budget = {**used, "capacity": load}, {**budget, "capacity": fields["capacity"].astype(np.float64)}
    return Assignment.from_labels(
        labels, k, sense="min", used=used, budget=budget, prices={"capacity": fields["v"]}, **fields
    )


def _gains(scores: Floats, before: Labels, after: Labels) -> bool:
    """Whether a new assignment is better than the old one, by more than rounding."""
    rows = np.arange(len(before))
    own = scores[rows, before]
    gain = math.fsum((scores[rows, after] - own).tolist())
    return gain > _TOLERANCE * float(np.abs(own).sum())


def _lloyd(
    sums: Floats, mass: Floats, centers: Floats, seating: _links.Seating, max_iter: int, control: Control
) -> tuple[Labels, Floats, Floats, int, bool]:
    """Assign and average in turn. Labels of the units, centres, prices, rounds, and whether neither step improves."""
    labels: Labels | None = None
    prices: Floats | None = None
    rounds = 0
    while rounds < max_iter:
        rounds += 1
        scores = sums @ (2 * centers.T)
        # What an item's own length adds is the same for all groups.
        scores -= np.outer(mass, np.einsum("ij,ij->i", centers, centers))
        after, prices = seating(scores, labels, prices)
        if labels is not None and not _gains(scores, labels, after):
            return labels, centers, prices, rounds, True
        labels = after
        centers = _means(sums, mass, labels, centers)
        control.step(rounds)
        if control.stopped():
            break
    assert labels is not None
    assert prices is not None
    return labels, centers, prices, rounds, False


def _means(sums: Floats, mass: Floats, labels: Labels, centers: Floats) -> Floats:
    """Weighted means of the groups; a group of no weight keeps its centre."""
    from scipy.sparse import csr_array

    k, n = len(centers), len(labels)
    member = csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))
    weight = np.bincount(labels, mass, k)
    total = member.T @ sums
    out: Floats = np.where(weight[:, None] > 0, total / np.where(weight > 0, weight, 1.0)[:, None], centers)
    return out


def _seeds(points: Floats, weights: Floats, k: int, init: str, rng: np.random.Generator) -> Floats:
    """(k, d) rows to begin from; k-means++ takes the best of 2 + log k draws each time."""
    n = len(points)
    if init == "random":
        return points[rng.choice(n, k, replace=False)]
    picks = [int(rng.choice(n, p=weights / weights.sum()))]
    near = _from(points, picks[0])
    draws = 2 + int(math.log(k))
    while len(picks) < k:
        pull = weights * near
        if not pull.sum() > 0:
            # Whatever is left weighs nothing.
            pull = near if near.sum() > 0 else np.ones(n)
        tries = np.searchsorted(np.cumsum(pull), rng.random(draws) * pull.sum())
        tries = np.minimum(tries, n - 1)
        after = [np.minimum(near, _from(points, int(row))) for row in tries]
        best = int(np.argmin([weights @ each for each in after]))
        picks.append(int(tries[best]))
        near = after[best]
    return points[picks]


def _from(points: Floats, row: int) -> Floats:
    gap = points - points[row]
    out: Floats = np.einsum("ij,ij->i", gap, gap)
    return out


def _best_medoids(source: _swaps.Source, labels: Labels, weights: Floats, medoids: Ints, k: int) -> Ints:
    """The item of each group with the least summed distance to it; the medoid that is there where it is as good."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=k))
    out = np.empty(k, np.int64)
    for j, group in enumerate(np.split(order, ends[:-1])):
        total = source.among(group).astype(np.float64) @ weights[group]
        at, now = int(total.argmin()), np.flatnonzero(group == medoids[j])
        stays = len(now) and total[now[0]] <= total[at] * (1 + _TOLERANCE)
        out[j] = medoids[j] if stays else group[at]
    return out
