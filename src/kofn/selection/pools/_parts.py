"""What is done to one fragment of a pool: picks from each of its parts, and a look at it with picks at hand.

Both are pure functions of a fragment and of what all fragments share, so that any engine can run them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.pools import Fragment, Pool
from kofn.engines.base import stopping
from kofn.objectives.similarity import Geometry, geometry

# Rows that are looked at between two questions whether to stop.
_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Rows:
    """The rows of a pool in the order in which they are dealt, with what belongs to each.

    Attributes:
        pool: the rows.
        order: the row that stands at each place, None where each stands at its own.
        weights: (n,) of each row, None where all are 1.
        banned: (n,) rows that must not be picked.
    """

    pool: Pool
    order: Ints | None
    weights: Floats | None
    banned: Mask

    def numbers(self, fragment: Fragment) -> Ints:
        """The rows of a fragment by their numbers in the pool."""
        if self.order is None:
            return np.arange(fragment.first_row, fragment.stop)
        return self.order[fragment.first_row : fragment.stop]

    def read(self, fragment: Fragment) -> Array:
        """Their vectors."""
        return self.pool.read(fragment) if self.order is None else self.pool.take(self.numbers(fragment))

    def weights_of(self, numbers: Ints) -> Floats:
        """Their weights."""
        return np.ones(len(numbers)) if self.weights is None else self.weights[numbers]


@dataclass(frozen=True)
class Ask:
    """What round 1 is to do with every part.

    Attributes:
        rows: the pool.
        metric: of facility location.
        seed: draws which rows of a part judge it.
        part_rows: how many rows a part has, about.
        k: how many rows a part hands over.
        deep: the share of parts that do so; which, is drawn.
        shallow: how many rows the others hand over.
        n_reference: how many of its own rows judge a part, at the most.
        reference: vectors and weights of the rows that judge every part, where those are not its own.
        fixed: vectors that are picked already.
        groups: (columns, n) each row's group in each column of quotas, numbered through all columns.
        room: of each group how many more may be picked.
        needs: of each group how many more must be.
        wanted: rows whose vectors are to be brought along, rising.
    """

    rows: Rows
    metric: str
    seed: int
    part_rows: int
    k: int
    deep: float
    shallow: int
    n_reference: int
    reference: tuple[Array, Floats] | None
    fixed: Array
    groups: Ints
    room: Ints
    needs: Ints
    wanted: Ints


@dataclass(frozen=True)
class Handed:
    """What round 1 brings from one fragment.

    Attributes:
        picks: the rows picked, part by part in the order picked, by their numbers in the pool.
        vectors: theirs.
        ends: where each part's picks end.
        wanted: the rows that were wanted, of those in the fragment.
        brought: their vectors.
        mean: mean of all rows of the fragment.
        complete: False where it was stopped.
    """

    picks: Ints
    vectors: Array
    ends: Ints
    wanted: Ints
    brought: Array
    mean: Floats
    complete: bool = True


def hand_over(fragment: Fragment, ask: Ask) -> Handed:
    """Pick from every part of a fragment."""
    numbers, X = ask.rows.numbers(fragment), ask.rows.read(fragment)
    parts = -(-fragment.rows // ask.part_rows)
    edges = [fragment.rows * part // parts for part in range(parts + 1)]
    picked: list[Ints] = []
    for low, high in itertools.pairwise(edges):
        if stopping():
            break
        picked.append(low + _pick(ask, numbers[low:high], X[low:high], fragment.first_row + low))
    wanted = np.isin(numbers, ask.wanted)
    order = np.argsort(numbers[wanted], kind="stable")
    places = np.concatenate([np.empty(0, np.int64), *picked])
    return Handed(
        numbers[places],
        X[places],
        np.cumsum([len(part) for part in picked], dtype=np.int64),
        numbers[wanted][order],
        X[wanted][order],
        _mean(X),
        len(picked) == parts,
    )


def _mean(X: Array) -> Floats:
    """The mean row, whatever its scale."""
    size = _size(X)
    if size > 2.0**500:
        mean: Floats = (X / size).mean(axis=0, dtype=np.float64) * size
        return mean
    return X.mean(axis=0, dtype=np.float64)


def _size(X: Array) -> float:
    """A power of two above every entry."""
    return float(2.0 ** math.frexp(float(np.abs(X).max(initial=0.0)))[1])


def _pick(ask: Ask, numbers: Ints, X: Array, first_row: int) -> Ints:
    """The places, within a part, of the rows that it hands over."""
    from kofn.selection.pools import _kernels

    n, fixed = len(X), len(ask.fixed)
    if ask.reference is None:
        weights = ask.rows.weights_of(numbers)
        judges = np.flatnonzero(weights > 0)
        if len(judges) > ask.n_reference:
            rng = np.random.default_rng([ask.seed, 0, first_row])
            judges = np.sort(rng.choice(judges, ask.n_reference, replace=False))
        weights = weights[judges]
        stacked = np.vstack([ask.fixed, X]) if fixed else X
        judges = judges + fixed
    else:
        vectors, weights = ask.reference
        stacked = np.vstack([ask.fixed, X, vectors])
        judges = np.arange(fixed + n, len(stacked))
    space = geometry(stacked, ask.metric)
    kind = space.rows.dtype.type
    costs = costs_of(space, np.arange(fixed, fixed + n), judges)
    cost = np.full(len(judges), space.top, kind)
    if fixed:
        cost = np.minimum(cost, costs_of(space, np.arange(fixed), judges).min(axis=1))
    is_deep = ask.deep >= 1 or np.random.default_rng([ask.seed, 4, first_row]).random() < ask.deep
    k = ask.k if is_deep else min(ask.k, ask.shallow)
    groups = np.ascontiguousarray(ask.groups[:, numbers])
    # Every group's own need may be met by rows beyond the first k.
    picks = np.empty(min(n, k + int(np.maximum(ask.needs, 0).sum())), np.int64)
    taken = _kernels.greedy(
        costs,
        (weights / (weights.max(initial=0.0) or 1.0)).astype(kind),
        groups,
        k,
        cost,
        ask.rows.banned[numbers],
        ask.room.copy(),
        ask.needs.copy(),
        picks,
    )
    return picks[:taken]


def costs_of(space: Geometry, candidates: Ints, items: Ints) -> NDArray[Any]:
    """Rounded costs (items, candidates) between rows of a space, before its unit."""
    from kofn.core import distance_kernels as tiles
    from kofn.selection.pools import _kernels

    kind = space.rows.dtype.type
    lanes, tile = tiles.scratch(space.rows.shape[1], kind)
    out = np.empty((len(items), len(candidates)), kind)
    columns = np.empty((0, 0), kind)
    points = tiles.in_whole_tiles(space.rows[items], space.scale[items] if len(space.scale) else space.scale)
    mirrored = np.array_equal(candidates, items)
    _kernels.table(
        space.rows, columns, space.scale, candidates, points, len(items), mirrored, space.squared, lanes, tile, out
    )
    return out


@dataclass(frozen=True)
class Picked:
    """Picks that all rows are to be looked at with.

    Attributes:
        rows: the pool.
        metric: of facility location.
        sets: the vectors of each set of picks, in the order picked.
        centre: mean of all rows.
        sample: vectors of the rows that the bound rests on, none where there is no bound.
        cost: what each of them costs the first set of picks.
        weights: of each of them.
        top: of how many rows the largest residual gains are wanted.
    """

    rows: Rows
    metric: str
    sets: tuple[Array, ...]
    centre: Floats
    sample: Array
    cost: Floats
    weights: Floats
    top: int


@dataclass(frozen=True)
class Seen:
    """What a look at one fragment shows.

    Attributes:
        saved: (sets, k) what each pick saves the rows after those before it; the first, what it saves `offset`.
        offset: a cost that no row of the fragment has.
        weight: sum of the rows' weights.
        radius: the largest distance of a row to the centre.
        worst: the largest weighted cost of a row under the first set of picks.
        residual: the largest gains that further rows bring the sample, falling.
        complete: False where it was stopped.
    """

    saved: Floats
    offset: float
    weight: float
    radius: float
    worst: float
    residual: Floats = field(default_factory=lambda: np.empty(0))
    complete: bool = True


def look(fragment: Fragment, picked: Picked) -> Seen:
    """Look at every row of a fragment with the picks at hand: who serves it, and what else would help the sample."""
    from kofn.selection.covering import _kernels as cover_kernels
    from kofn.selection.covering._farthest_first import LazyCover

    numbers, X = picked.rows.numbers(fragment), picked.rows.read(fragment)
    weights = picked.rows.weights_of(numbers)
    rows, sets, unit, offset = _scaled(X, picked)
    saved, worst, complete = [], 0.0, True
    for which, points in enumerate(sets):
        cover = LazyCover(rows, picked.metric, 1)
        cover.place_points(points)
        blocks = -(-len(X) // cover_kernels.BLOCK)
        near, own = np.full(len(X), offset), np.full(len(X), -1, np.int32)
        sums = np.zeros((blocks, len(points)))
        step = max(1, _AT_ONCE // cover_kernels.BLOCK)
        for low in range(0, blocks, step):
            if stopping():
                complete = False
                break
            high = min(low + step, blocks)
            cover_kernels.serve(low, high, *cover.pool, unit, weights, near, own, sums)
        saved.append([math.fsum(column) for column in sums.T.tolist()])
        if which == 0:
            worst = float((weights * near).max(initial=0.0))
    residual, finished = _residual(picked, numbers, X)
    radius = _radius(X, picked.centre)
    return Seen(np.array(saved), offset, math.fsum(weights.tolist()), radius, worst, residual, complete and finished)


def _scaled(X: Array, picked: Picked) -> tuple[Array, list[Array], float, float]:
    """Rows and picks at a scale at which squares can be taken, what their distances cost, and a cost that none has."""
    space = geometry(np.vstack([X, *picked.sets]), picked.metric)
    n, ends = len(X), np.cumsum([len(X), *(len(points) for points in picked.sets)])
    if picked.metric == "cosine":
        return np.ascontiguousarray(X), list(picked.sets), 0.5, 1.0
    rows = space.rows * space.scale[0] if len(space.scale) else space.rows
    sets = [rows[low:high] for low, high in itertools.pairwise(ends)]
    return rows[:n], sets, space.unit, space.top * space.unit


def _radius(X: Array, centre: Floats) -> float:
    """The largest distance of a row to the centre."""
    size, most = _size(X), 0.0
    for low in range(0, len(X), _AT_ONCE):
        away = X[low : low + _AT_ONCE] / size - centre / size
        most = max(most, float(np.einsum("ij,ij->i", away, away).max(initial=0.0)))
    return math.sqrt(most) * size


def _residual(picked: Picked, numbers: Ints, X: Array) -> tuple[Floats, bool]:
    """The largest sums of what a row that may be picked saves the sample, falling; and whether all were looked at."""
    from kofn.core import distance_kernels as tiles
    from kofn.selection.pools import _kernels

    sample = len(picked.sample)
    if not sample or not picked.top:
        return np.empty(0), True
    X, best = X[~picked.rows.banned[numbers]], np.empty(0)
    for low in range(0, len(X), _AT_ONCE):
        if stopping():
            return best, False
        block = X[low : low + _AT_ONCE]
        space = geometry(np.vstack([picked.sample, block]), picked.metric)
        kind = space.rows.dtype.type
        lanes, tile = tiles.scratch(space.rows.shape[1], kind)
        points = tiles.in_whole_tiles(space.rows[:sample], space.scale[:sample])
        scale = picked.weights.max(initial=0.0) or 1.0
        cost, weights = np.zeros(len(points), kind), np.zeros(len(points), kind)
        cost[:sample], weights[:sample] = picked.cost / space.unit, picked.weights / scale
        sums = np.empty(len(block))
        candidates = np.arange(sample, sample + len(block))
        columns = np.empty((0, 0), kind)
        _kernels.saved(
            space.rows, columns, space.scale, candidates, points, cost, weights, space.squared, lanes, tile, sums
        )
        # Every sum is off by no more than its terms are.
        d, eps = space.rows.shape[1], float(np.finfo(kind).eps)
        slack = (d / 4 + 32) * eps * float(cost.astype(np.float64) @ weights)
        best = -np.sort(-np.concatenate([best, (sums + slack) * scale * space.unit]))[: picked.top]
    return best, True
