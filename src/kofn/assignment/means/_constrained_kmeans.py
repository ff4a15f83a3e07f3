"""k-means with group sizes between `min_size` and `capacity`, and must-link and cannot-link pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.assignment.means import _links
from kofn.assignment.means._constrained import binds_nothing, gains, plan, seating_of
from kofn.assignment.means._scores import Scores
from kofn.core import checks
from kofn.core.arrays import Floats, Labels
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress
from kofn.objectives.similarity import geometry

# So few products are worked through in no time: then several starts are tried.
_SMALL, _SMALL_STARTS = 20_000, 10
_INITS = ("k-means++", "random")


@method(
    "assign",
    traits=("distributed",),
    draws=Draw(kinds={"capacity": "group", "start": "group"}, distinct_rows=True),
    cost="O(n k d) a round and one transport, O(n k) and a shortest path among k groups for each item that moves; "
    "memory 8 n k bytes",
    exact="sizes and links held exactly; each assignment step optimal where must_link and cannot_link join nothing",
    paper="bradley2000",
    local="no better assignment to these means, and no better means of these groups",
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
    progress: Progress = None,
    engine: Any = None,
    min_size: Any = 1,
    must_link: ArrayLike | None = None,
    cannot_link: ArrayLike | None = None,
    centers: ArrayLike | None = None,
    init: str = "k-means++",
    n_init: int | None = None,
    max_iter: int = 300,
) -> Assignment:
    """k-means with group sizes between `min_size` and `capacity`, and must-link and cannot-link pairs.

    Lloyd's algorithm whose assignment step is optimal under the size bounds: a transportation problem over k groups,
    solved exactly and warm-started from the prices of the previous step.

    Args:
        X: vectors (n, d).
        k: how many groups.
        capacity: the most items in a group: one number, or (k,) for groups in the order of `start` or `centers`.
            It counts items, regardless of their weights.
        weights: (n,) how much each item counts in the loss and in the means, >= 0, default 1.
        start: k rows (numbers or ids) to begin from.
        seed: for the first centres.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.
        engine: where the distances of blocks of rows are computed each round: "local" (threads), "ray",
            "ray://HOST:PORT", or an engine; by default here. The answer is the same.
        min_size: the least items in a group: one number, or (k,) as `capacity`. 0 allows empty groups, whose centre
            then stays unchanged.
        must_link: (m, 2) pairs of row numbers, or of ids where ids are given, that share a group; chains of pairs
            join all their rows.
        cannot_link: (m, 2) pairs likewise that may not share a group.
        centers: (k, d) centres to begin from, for example those of an earlier plan.
        init: how to choose the initial centres when neither `start` nor `centers` is given: "k-means++" (each from the
            best of a few rows drawn by their squared distance) or "random" rows.
        n_init: number of runs from different initial centres, of which the best is returned: by default 10 where
            n k d <= 20,000 and no start is given, else 1.
        max_iter: most rounds per run.

    Returns:
        An `Assignment`: `labels`, `centers` (k, d), `value` = the weighted sum of squared distances to the own centre,
        `v` = the dual price of each group: > 0 where the group is full, < 0 where it is at its minimum size.
        Each item is in the group of least `weight * squared distance + price`, so `place` assigns new items without
        solving again. `status` is "local" where neither step improves, "heuristic" with links that bind (prices are
        then those of the items that are not linked), "stopped" at a limit.

    Raises:
        InputError: k above the number of distinct rows; start, centers and init that clash.
        InfeasibleError: bounds that cannot hold all items, a group that would be empty, a must_link chain that
            contradicts a cannot_link pair (the rows are named), links that no assignment within the bounds keeps.
        FailureError: linked rows for which no feasible assignment, nor a proof of infeasibility, was found in a minute.

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
    checks.count(max_iter, "max_iter")
    least = checks.capacity(min_size, "min_size")
    if n_init is not None:
        checks.count(n_init, "n_init")
    given = sum(part is not None for part in (start, centers))
    if given and (given == 2 or init != "k-means++" or n_init not in (None, 1)):
        raise InputError("start or centers say where to begin: give one of them, without init and n_init")
    distinct = len(np.unique(checks.first_equal(X))) if k > 1 else n
    # Equal rows belong together unless sizes keep them apart.
    apart = capacity is not None or bool(np.max(least) > 1)
    if k > (n if apart else min(n, distinct)):
        raise InputError(
            f"k={k} groups of {n} rows, {distinct} of them distinct; ask for k <= {n if apart else distinct}"
        )
    if n_init is None:
        n_init = _SMALL_STARTS if not given and n * k * X.shape[1] <= _SMALL else 1
    seating = seating_of(n, k, capacity, least, must_link, cannot_link)
    if start is not None and len(start) != k:
        raise InputError(f"start names {len(start)} rows, k={k}; give exactly k")
    space = geometry(X, "sqeuclidean")
    points = space.points(slice(None))
    scale = float(space.scale[0]) if len(space.scale) else 1.0
    middle = points.mean(axis=0)
    points -= middle
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    if centers is not None:
        centers = checks.matrix(centers, "centers").astype(np.float64)
        if centers.shape != (k, X.shape[1]):
            raise InputError(f"centers has shape {centers.shape}; k={k} and X ask for ({k}, {X.shape[1]})")
        centers = centers * scale - middle
    units = seating.units
    sums, mass = units.total(counts[:, None] * points), units.total(counts)
    rng = np.random.default_rng(seed)
    best: tuple[float, Any] | None = None
    rounds = 0
    with (
        Control(time_limit=time_limit, progress=progress, title="rounds") as control,
        Scores.opened(engine, sums, mass) as scores,
    ):
        for _ in range(n_init):
            if centers is not None:
                first = np.asarray(centers)
            elif start is not None:
                first = points[start]
            else:
                first = _seeds(points, counts, k, init, rng)
            labels, middles, prices, took, done = _lloyd(scores, first, seating, max_iter, control)
            rounds += took
            gap = points - middles[labels[units.of]]
            loss = math.fsum((counts * np.einsum("ij,ij->i", gap, gap)).tolist())
            if best is None or loss < best[0]:
                best = loss, (labels, middles, prices, done)
            if control.stopped():
                break
    assert best is not None
    labels, middles, prices, done = best[1]
    return plan(
        labels[units.of],
        seating,
        capacity,
        value=best[0] * space.unit,
        centers=(middles + middle) / scale,
        v=prices * space.unit,
        status="stopped" if not done else "local" if binds_nothing(seating) else "heuristic",
        objective="constrained_inertia",
        info={"rounds": rounds, "units": len(units.sizes), "distance_evals": rounds * n * k, **scores.facts},
    )


def _lloyd(
    scores_of: Scores, centers: Floats, seating: _links.Seating, max_iter: int, control: Control
) -> tuple[Labels, Floats, Floats, int, bool]:
    """Alternate assignment and averaging. Returns unit labels, centres, prices, rounds, and whether it converged."""
    labels: Labels | None = None
    prices: Floats | None = None
    rounds = 0
    while rounds < max_iter:
        rounds += 1
        scores = scores_of(centers)
        after, prices = seating(scores, labels, prices)
        if labels is not None and not gains(scores, labels, after):
            return labels, centers, prices, rounds, True
        labels = after
        centers = _means(scores_of.sums, scores_of.mass, labels, centers)
        control.step(rounds)
        if control.stopped():
            break
    assert labels is not None
    assert prices is not None
    return labels, centers, prices, rounds, False


def _means(sums: Floats, mass: Floats, labels: Labels, centers: Floats) -> Floats:
    """Weighted means of the groups; a group of zero total weight keeps its centre."""
    from scipy.sparse import csr_array

    k, n = len(centers), len(labels)
    member = csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))
    weight = np.bincount(labels, mass, k)
    total = member.T @ sums
    out: Floats = np.where(weight[:, None] > 0, total / np.where(weight > 0, weight, 1.0)[:, None], centers)
    return out


def _seeds(points: Floats, weights: Floats, k: int, init: str, rng: np.random.Generator) -> Floats:
    """(k, d) initial centres; k-means++ takes the best of 2 + log k draws for each centre."""
    n = len(points)
    if init == "random":
        return points[rng.choice(n, k, replace=False)]
    picks = [int(rng.choice(n, p=weights / weights.sum()))]
    near = _from(points, picks[0])
    draws = 2 + int(math.log(k))
    while len(picks) < k:
        pull = weights * near
        if not pull.sum() > 0:
            # All remaining rows have weight zero.
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
