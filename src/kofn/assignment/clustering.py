"""Groups of rows by other principles than a medoid's: a convex relaxation, agreement of two views, or plain chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment import _gaussian, _sdp
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DEFAULT_MEMORY = 2**30
# (n, n) arrays of float64 that a splitting holds at once, for each group and beside.
_COPIES = 8
_INITS = ("sdp", "kmeans", "random")
_RESTARTS = 10


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("sandwich",),
    cost="O(n^2) time (times d from X), O(n) memory beside the distances",
    exact="the groups at the scale, and the k groups of least total link length and widest spacing",
    paper="Carlsson & Memoli 2013, Classifying Clustering Schemes (arXiv 1011.5270); Prim 1957",
)
def single_linkage(
    X: Any = None, *, distances: Any = None, k: int | None = None, metric: str = "euclidean", threshold: Any = None
) -> Assignment:
    """Group items that chains of short steps connect: all steps up to a scale, or the shortest until k groups are left.

    Args:
        X: vectors (n, d); distances are computed row by row and never kept.
        distances: dissimilarities (n, n), symmetric, >= 0; the triangle inequality is not needed.
        k: how many groups. Without k and threshold all items are one, and `info` has the whole tree.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        threshold: instead of k, the longest step that still connects, in the units of the distances.

    Returns:
        An `Assignment`: `labels` (groups in the order of their first row), `k` = the groups found, `value` = the summed
        length of the steps that hold the groups together, the least of all partitions into that many. `info`:
        links (n - k, 2) the steps made, merge_lengths (n - 1,) of all steps, ascending, and spacing, the shortest
        distance between two groups (None for one group).

    Raises:
        InputError: k and threshold together, k > n, or a threshold that is no number >= 0.

    Cost: n passes over a row of distances; O(n) memory beside what is given.

    Guarantee: exact. At a fixed scale it is the only scheme, but for the trivial ones, that never takes items apart
    when distances shrink or items coincide (Carlsson & Memoli). With k it also has the widest spacing.

    References:
        Carlsson & Memoli 2013, Foundations of Computational Mathematics 13, arXiv 1011.5270.

    Examples:
        >>> from kofn.assignment import single_linkage
        >>> plan = single_linkage([[0.0], [1.0], [2.5], [9.0], [9.5]], threshold=2)
        >>> plan.labels.tolist(), plan.value, plan.info["spacing"]
        ([0, 0, 0, 1, 1], 3.0, 6.5)
        >>> single_linkage([[0.0], [1.0], [2.5], [9.0], [9.5]], k=3).labels.tolist()
        [0, 0, 1, 2, 2]
    """
    if k is not None and threshold is not None:
        raise InputError(f"k={k} and threshold={threshold!r} are both given; give how many groups or the longest step")
    if X is not None and distances is not None:
        raise InputError("X and distances are both given; give one of them")
    n = len(X if distances is None else distances)
    if k is not None and k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to group; ask for k <= {n}")
    scale = math.inf if threshold is None else checks.number(threshold, "threshold")
    if distances is None and metric == "precomputed":
        X, distances = None, checks.distances(X, "X")
    order, parents, lengths = _tree(_rows_of(X, distances, metric), n)
    ranked = np.argsort(lengths, kind="stable")
    made = ranked[: n - k] if k is not None else ranked[lengths[ranked] <= scale]
    kept = np.zeros(n, bool)
    kept[1:][made] = True
    found = np.empty(n, np.int64)
    # A tree's nodes come after their parents, so one pass hands the groups down.
    for place, item in enumerate(order.tolist()):
        found[item] = found[parents[place - 1]] if kept[place] else place
    labels = _gaussian.renamed(found)
    groups = n - len(made)
    value = math.fsum(lengths[made].tolist())
    links = np.sort(np.column_stack([parents[made], order[1:][made]]), axis=1)
    return Assignment.from_labels(
        labels,
        groups,
        value=value,
        sense="min",
        status="optimal",
        bound=value,
        info={
            "objective": "spanning_forest",
            "links": links,
            "merge_lengths": lengths[ranked],
            "spacing": float(lengths[ranked[len(made)]]) if groups > 1 else None,
            "distance_evals": n * (n - 1) if distances is None else 0,
        },
    )


def _rows_of(X: Any, distances: Any, metric: str) -> Callable[[int], Floats]:
    """The distances of all items to one."""
    if distances is not None:
        return lambda item: np.asarray(distances[item], np.float64)
    from kofn.objectives.similarity import geometry

    space = geometry(X, metric)
    unit = 0.5 if metric == "cosine" else space.unit
    points = space.points(slice(None))
    return lambda item: space.distances(points[item]) * unit


def _tree(row: Callable[[int], Floats], n: int) -> tuple[Ints, Ints, Floats]:
    """Prim's shortest tree: the items in the order reached, and from where and how far each but the first was."""
    order, parents, lengths = np.zeros(n, np.int64), np.zeros(n - 1, np.int64), np.zeros(n - 1)
    near, via, open_ = np.full(n, np.inf), np.zeros(n, np.int64), np.ones(n, bool)
    here = 0
    for step in range(n - 1):
        open_[here] = False
        away = row(here)
        closer = open_ & (away < near)
        near[closer], via[closer] = away[closer], here
        near[here] = np.inf
        here = int(near.argmin())
        order[step + 1], parents[step], lengths[step] = here, via[here], near[here]
    return order, parents, lengths


@method(
    "assign",
    traits=("sandwich",),
    cost="O(n^3) a step, up to max_iter steps; O(n^2) memory",
    exact="the bound is proven; where it meets the value the partition is the best of all",
    paper="Peng & Wei 2007, Approximating K-means-type Clustering via Semidefinite Programming",
)
def sdp_kmeans(
    X: Any,
    *,
    k: int,
    max_iter: int = 500,
    tol: float = 1e-6,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group rows at the least within-group squares by a semidefinite relaxation, with a proven bound and no start.

    Args:
        X: vectors (n, d); some hundred rows, or a sample.
        k: how many groups.
        max_iter: steps of the splitting, an eigendecomposition of n x n each.
        tol: relative difference of the two sides of the splitting at which it ends.
        max_memory: bytes for the n x n matrices, default 1 GiB.
        time_limit: seconds.
        progress: show progress on a terminal.

    Returns:
        An `Assignment`: `labels` (every group holds a row), `centers` (k, d), `value` = summed squared distances to the
        group's mean, `bound` = a value that no partition into k groups is below. `status` is "optimal" where they meet,
        "stopped" at the time limit, else "heuristic". `info`: steps, residual, rank (of the memberships).

    Raises:
        InputError: k > n, max_iter < 1, tol that is no number >= 0, or matrices beyond max_memory.

    Cost: O(n^3) time a step, O(n^2) memory.

    Guarantee: `bound` holds whenever the search ends, from the multipliers of Z >= 0 alone; rounding is taken off it.
    Gaussians that stand apart far enough are recovered exactly (Chen & Yang 2021), and the bound shows it.

    References:
        Peng & Wei 2007, SIAM Journal on Optimization 18. Chen & Yang 2021, arXiv 2001.06574.

    Examples:
        >>> from kofn.assignment import sdp_kmeans
        >>> plan = sdp_kmeans([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2)
        >>> plan.labels.tolist(), plan.value, plan.status
        ([0, 0, 0, 1, 1, 1], 4.0, 'optimal')
    """
    points = _prepared(X, k, 1, max_memory)
    checks.count(max_iter, "max_iter")
    tol = checks.number(tol, "tol")
    info: dict[str, Any] = {"objective": "within_group_squares", "steps": 0, "residual": 0.0, "rank": k}
    with Control(time_limit=time_limit, progress=progress, what="steps", total=max_iter) as control:
        labels, bound = _relaxed(points, k, max_iter, tol, control, info)
    cut = control.stopped() and not info.pop("done", True)
    info.pop("done", None)
    value = _gaussian.squares(points, labels)
    if bound is None or value <= bound * (1 + 1e-9):
        return _grouped(X, labels, k, value, "min", "optimal", value, info)
    return _grouped(X, labels, k, value, "min", "stopped" if cut else "heuristic", bound, info)


@method(
    "assign",
    cost="O(k n^3) a step, up to max_iter steps a round; O(k n^2) memory",
    exact="nothing; each round's relaxation is convex, the rounds are an alternation",
    paper="Zhuang, Chen & Yang 2023, Likelihood Adjusted Semidefinite Programs for Clustering Heterogeneous Data",
)
def ila_sdp(
    X: Any,
    *,
    k: int,
    init: Any = "sdp",
    max_rounds: int = 10,
    max_iter: int = 300,
    tol: float = 1e-3,
    ridge: float = 1e-3,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group rows whose groups differ in shape and size, by the likelihood of Gaussians without estimating their means.

    Round by round: given a covariance for each group, one semidefinite program finds membership matrices Z_k, one a
    group; given those, each group's covariance is the weighted scatter of its own pairs, where no mean occurs.

    Args:
        X: vectors (n, d); some hundred rows, or a sample.
        k: how many groups.
        init: the partition whose covariances begin: "sdp" (default; `sdp_kmeans`, draws nothing), "kmeans" (the best of
            10 from k-means++), "random" (around k rows), or labels (n,) in 0..k-1.
        max_rounds: updates of the covariances.
        max_iter: steps of each program's splitting.
        tol: relative difference of its two sides at which it ends.
        ridge: added to every covariance, in units of the mean variance of X's columns; a group of few rows has no
            likelihood without it.
        seed: for "kmeans" and "random".
        max_memory: bytes for the k matrices n x n, default 1 GiB.
        time_limit: seconds.
        progress: show progress on a terminal.

    Returns:
        An `Assignment`: `labels` (every group holds a row), `centers` (k, d) for information, `value` = the
        log-likelihood of the rows, each under its group's Gaussian (mean, covariance with the ridge), the highest of
        all rounds. `info`: rounds, steps, residual, sizes, and from_blocks, the distance of the last memberships from
        those of the partition (0 where the relaxation is exact).

    Raises:
        InputError: k > n, labels that are not 0..k-1, ridge not > 0, or matrices beyond max_memory.

    Cost: O(k n^3) time a step, O(k n^2) memory.

    Guarantee: none for the result. With the true covariances and centres far enough apart the program's solution is the
    true partition's, as the paper proves.

    References:
        Zhuang, Chen & Yang 2023, ICML, arXiv 2209.15097.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import ila_sdp
        >>> shapes = np.repeat([[3.0, 0.2], [0.2, 3.0]], 15, axis=0)
        >>> X = np.random.default_rng(0).normal(size=(30, 2)) * shapes + np.repeat([[0.0, 0.0], [7.0, 0.0]], 15, axis=0)
        >>> np.bincount(ila_sdp(X, k=2).labels).tolist()
        [15, 15]
    """
    points = _prepared(X, k, k, max_memory)
    for name, count in (("max_rounds", max_rounds), ("max_iter", max_iter)):
        checks.count(count, name)
    tol, ridge = checks.number(tol, "tol"), checks.number(ridge, "ridge")
    if not ridge > 0:
        raise InputError(f"ridge={ridge!r}: it must be > 0, or a group of few rows has an infinite likelihood")
    floor = ridge * _gaussian.unit_of(points)
    n = len(points)
    info: dict[str, Any] = {
        "objective": "group_log_likelihood",
        "rounds": 0,
        "steps": 0,
        "residual": 0.0,
        "from_blocks": 0.0,
    }
    with Control(time_limit=time_limit, progress=progress, what="rounds", total=max_rounds) as control:
        labels = _begin(points, k, init, seed, max_iter, control)
        value = _gaussian.log_likelihood(points, labels, floor)
        if 1 < k < n:
            covers = _covers(points, labels, k, floor)
            state, now, same = _sdp.Memberships.of(labels, k), labels, False
            while info["rounds"] < max_rounds and not same and not control.stopped():
                steps, residual = _sdp.memberships(
                    _gains(points, covers), state, most=max_iter, tol=tol, stopped=control.stopped
                )
                likelihood, found = _likeliest(points, state.positive, k, floor)
                if likelihood > value:
                    labels, value = found, likelihood
                same = np.array_equal(found, now) and info["rounds"] > 0
                now = found
                covers = _scatters(points, state.positive, covers, floor)
                info["rounds"] += 1
                info["steps"] += steps
                info["residual"] = residual
                info["from_blocks"] = _sdp.from_blocks(state.positive, found)
                control.step(info["rounds"])
    sole = k in (1, n)
    info["sizes"] = np.bincount(labels, minlength=k)
    status = "optimal" if sole else "stopped" if control.stopped() else "heuristic"
    return _grouped(X, labels, k, value, "max", status, value if sole else None, info)


def _prepared(X: Any, k: int, copies: int, max_memory: int | None) -> Floats:
    """Centred rows in float64, once k and the memory are known to fit."""
    n = len(X)
    if k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to group; ask for k <= {n}")
    needed, room = _COPIES * copies * 8 * n * n, max_memory or _DEFAULT_MEMORY
    if needed > room:
        raise InputError(
            f"X has {n} rows, whose membership matrices take {needed:,} bytes, max_memory is {room:,}; "
            "give a sample of the rows, or raise max_memory"
        )
    points = np.asarray(X, np.float64)
    return points - points.mean(axis=0)


def _relaxed(
    points: Floats, k: int, max_iter: int, tol: float, control: Control, info: dict[str, Any]
) -> tuple[Ints, float | None]:
    """The partition that the relaxation rounds to, and the bound; None where there is but one partition."""
    n = len(points)
    if k in (1, n):
        return np.arange(n) % k, None
    best: list[Any] = [math.inf, None]

    def rounded(Z: Floats) -> float:
        # Z's rows are the same for all of a group, and so are the means that they give.
        labels = _gaussian.lloyd(points, _gaussian.spread_out(Z @ points, k, None), k)
        cost = _gaussian.squares(points, labels)
        if cost < best[0]:
            best[:] = [cost, labels]
        return float(best[0])

    rounded(np.eye(n))
    if best[0] == 0:
        return best[1], 0.0
    gram = points @ points.T
    bound = max(0.0, _sdp.certified(gram, best[1], k))
    if best[0] <= bound * (1 + 1e-9):
        return best[1], bound
    solved = _sdp.kmeans(gram, k, most=max_iter, tol=tol, stopped=control.stopped, value=rounded)
    rank = int((np.linalg.eigvalsh(solved.Z) > 1e-3).sum())
    info |= {"steps": solved.steps, "residual": solved.residual, "rank": rank, "done": solved.done}
    return best[1], max(bound, solved.bound, _sdp.certified(gram, best[1], k))


def _begin(points: Floats, k: int, init: Any, seed: int | None, max_iter: int, control: Control) -> Ints:
    """The partition to begin from."""
    n = len(points)
    if not isinstance(init, str):
        labels = np.asarray(init)
        if labels.shape != (n,) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= k:
            raise InputError(f"init has shape {labels.shape}; give one label an item, whole numbers 0..{k - 1}")
        return _gaussian.filled(points, labels.astype(np.int64), k)
    kind = checks.choice(init, "init", _INITS)
    if kind == "sdp":
        return _relaxed(points, k, max_iter, 1e-4, control, {})[0]
    rng = np.random.default_rng(seed)
    if kind == "random":
        centers = points[rng.choice(n, k, replace=False)]
        return _gaussian.filled(points, _gaussian.nearest(points, centers)[0], k)
    runs = [_gaussian.lloyd(points, _gaussian.spread_out(points, k, rng), k) for _ in range(_RESTARTS)]
    return min(runs, key=lambda labels: _gaussian.squares(points, labels))


def _likeliest(points: Floats, Z: Floats, k: int, floor: float) -> tuple[float, Ints]:
    """The likelier of two partitions that memberships round to: by group, and by their sum.

    Groups of equal covariance may share a membership among them, and then only the sum tells them apart.
    """
    smooth = Z.sum(axis=0) @ points
    rounded = [
        _gaussian.filled(points, Z.sum(axis=2).argmax(axis=0), k),
        _gaussian.filled(points, _gaussian.lloyd(smooth, _gaussian.spread_out(smooth, k, None), k), k),
    ]
    rated = [(_gaussian.log_likelihood(points, labels, floor), labels) for labels in rounded]
    return max(rated, key=lambda one: one[0])


def _covers(points: Floats, labels: Ints, k: int, floor: float) -> Floats:
    """(k, d, d) covariance of each group."""
    d = points.shape[1]
    out = np.empty((k, d, d))
    for group in range(k):
        rows = points[labels == group]
        gap = rows - rows.mean(axis=0)
        out[group] = gap.T @ gap / len(rows) + floor * np.eye(d)
    return out


def _scatters(points: Floats, Z: Floats, before: Floats, floor: float) -> Floats:
    """(k, d, d) the covariances of highest likelihood given the memberships: half the mean scatter of the pairs."""
    out = before.copy()
    for group, table in enumerate(Z):
        table = (table + table.T) / 2
        held = table.sum(axis=0)
        if held.sum() > 0.5:
            # With entries >= 0 this is a sum over pairs, so that no rounding makes it indefinite.
            scatter = (points.T * held) @ points - points.T @ table @ points
            out[group] = (scatter + scatter.T) / (2 * held.sum()) + floor * np.eye(points.shape[1])
    return out


def _gains(points: Floats, covers: Floats) -> Floats:
    """(k, n, n) what a pair adds to the log-likelihood by sharing a group, times the group's size."""
    out = np.empty((len(covers), len(points), len(points)))
    for group, cover in enumerate(covers):
        factor = np.linalg.cholesky(cover)
        white = np.linalg.solve(factor, points.T).T
        norms = (white * white).sum(axis=1)
        logdet = 2 * float(np.log(np.diag(factor)).sum())
        out[group] = -0.5 * logdet - 0.25 * np.maximum(norms[:, None] + norms[None, :] - 2 * white @ white.T, 0.0)
    return out


def _grouped(
    X: Any, labels: Ints, k: int, value: float, sense: str, status: str, bound: float | None, info: dict[str, Any]
) -> Assignment:
    """The plan, its groups numbered in the order of their first row."""
    labels = _gaussian.renamed(labels)
    return Assignment.from_labels(
        labels,
        k,
        centers=_gaussian.means(np.asarray(X, np.float64), labels, k),
        value=value,
        sense=sense,
        status=status,
        bound=bound,
        info=info,
    )


@method(
    "assign",
    cost="O(n d k) a round of k-means and O(n d^2 k) a round of a mixture, for n_starts starts of each k",
    exact="nothing; which partitions were kept, and by how much, is told",
    paper="Sultan 2020, Probabilistic Partitive Partitioning (arXiv 2003.04372)",
)
def partitive_partitioning(
    X: Any,
    *,
    k_max: int = 10,
    n_starts: int = 10,
    agreement: float = 0.95,
    covariance: str = "full",
    seed: int | None = None,
) -> Assignment:
    """Group rows into as many groups as k-means and a Gaussian mixture agree on, whatever they began from.

    For every number of groups up to `k_max` k-means runs from several starts. A mixture fitted from each partition, on
    half of the rows, says how probable each row of the other half finds its own group; a partition is kept where the
    rows of every group do so by `agreement` on average. The finest kept partition is the answer.

    Args:
        X: vectors (n, d).
        k_max: the most groups that are tried.
        n_starts: starts of k-means (k-means++) for each number of groups; equal partitions are checked once.
        agreement: the least mean probability, less its standard error, of the rows' own component in every group.
        covariance: "full", or "diag" where there are few rows for many columns.
        seed: for the starts.

    Returns:
        An `Assignment`: `labels`, `k` = the groups found, `centers` (k, d), `value` = summed squared distances to the
        group's mean. `info`: separable (n,) the rows that all kept partitions of that k place alike and the mixture is
        sure of by `agreement`; tried and kept (k_max,) different partitions of 1, 2, ... groups; and
        agreements (k_max,) the best of each, NaN where groups were too small to tell.

    Raises:
        InputError: k_max or n_starts < 1, agreement outside [0, 1], or an unknown covariance.

    Cost: the checks cost most: a mixture of two halves for each different partition.

    Guarantee: none. A split of what is one Gaussian is refused since its halves run into each other: each row's own
    half is probable by 0.9 and less. Groups that overlap by more than that are told as one.

    References:
        Sultan 2020, arXiv 2003.04372.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import partitive_partitioning
        >>> X = np.random.default_rng(0).normal(size=(120, 2)) + np.repeat([[0, 0], [9, 0], [0, 9]], 40, axis=0)
        >>> plan = partitive_partitioning(X, seed=0)
        >>> plan.k, np.bincount(plan.labels).tolist()
        (3, [40, 40, 40])
    """
    checks.count(k_max, "k_max")
    checks.count(n_starts, "n_starts")
    least = checks.fraction(agreement, "agreement")
    full = checks.choice(covariance, "covariance", ("full", "diag")) == "full"
    points = np.asarray(X, np.float64)
    points = points - points.mean(axis=0)
    n, ridge = len(points), 1e-6 * _gaussian.unit_of(points)
    whole = np.zeros(n, np.int64)
    kept: list[tuple[Ints, Floats]] = [(whole, np.ones(n))]
    told: dict[str, list[Any]] = {"tried": [1], "kept": [1], "agreements": [1.0]}
    seeds = np.random.SeedSequence(seed).spawn(k_max)
    for k in range(2, min(k_max, n) + 1):
        rng = np.random.default_rng(seeds[k - 1])
        found = {}
        for _ in range(n_starts):
            labels = _gaussian.renamed(_gaussian.lloyd(points, _gaussian.spread_out(points, k, rng), k))
            found[labels.tobytes()] = labels
        sure = [(labels, _gaussian.agreement(points, labels, k, ridge, full)) for labels in found.values()]
        rated = [(labels, own, _weakest(labels, own)) for labels, own in sure if own is not None]
        passed = [(labels, own) for labels, own, low in rated if low >= least]
        told["tried"].append(len(found))
        told["kept"].append(len(passed))
        told["agreements"].append(max((low for *_, low in rated), default=math.nan))
        kept = passed or kept
    kept.sort(key=lambda one: _gaussian.squares(points, one[0]))
    labels = kept[0][0]
    k = int(labels.max()) + 1
    info = {
        "objective": "within_group_squares",
        "separable": _separable(kept, k, least),
        **{name: np.array(values) for name, values in told.items()},
    }
    return _grouped(X, labels, k, _gaussian.squares(points, labels), "min", "heuristic", None, info)


def _weakest(labels: Ints, own: Floats) -> float:
    """The least mean probability over the groups, each less its standard error, lest a few rows agree by chance."""
    counts = np.bincount(labels)
    mean = np.bincount(labels, own) / counts
    error = np.sqrt(np.maximum(np.bincount(labels, own * own) / counts - mean * mean, 0.0) / counts)
    return float((mean - error).min())


def _separable(kept: list[tuple[Ints, Floats]], k: int, least: float) -> NDArray[np.bool_]:
    """The rows that every kept partition places in the same group, each surely."""
    from scipy.optimize import linear_sum_assignment

    first = kept[0][0]
    alike = np.ones(len(first), bool)
    for labels, own in kept:
        shared = np.bincount(labels * k + first, minlength=k * k).reshape(k, k)
        _, names = linear_sum_assignment(-shared)
        alike &= (names[labels] == first) & (own >= least)
    return alike
