"""Kemeny's rule: the ranking that overturns the least of what judges say of every two alternatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._electorate import MOST, comparisons
from kofn.combination.rankings._pairs import Listed, ballots_of, overturned, preferences
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.highs import milp
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

# Alternatives of a component up to which the dynamic programme looks at every subset: 2^20 of them, 8 MB.
_SUBSETS = 20
# Alternatives up to which linear programmes give the bound: beyond, their 3-cycles are too many.
_PROGRAMMES = 100
# Violated inequalities that are added to a linear programme at once, and how far apart two values are.
_CUTS, _TOLERANCE = 4000, 1e-7
# Rows that are compared with their columns at once.
_ROWS_AT_ONCE = 256
_ROUNDING = 1e-12  # of all weight, by which sums of weights that are not whole differ
_WHOLE = 1e6  # weights up to which sums of whole ones are told apart by a linear programme


@method(
    "combine",
    draws=Draw(),
    cost="O(m n^2) for the pairs; 2^c for a component of c <= 20 that no majority splits, integer programmes up to "
    "100, beyond moves of single alternatives; 24 n^2 bytes",
    exact="the least weight of overturned preferences where no majority ties more than 20 alternatives into cycles, "
    "and mostly up to 100; else an order that no move of one alternative betters, and a bound",
    paper="kemeny1959",
    local="no move of a single alternative improves it",
    aliases=("kemeny-young", "median ranking", "rank aggregation"),
)
def kemeny(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    **limits: Unpack[Limits],
) -> Blend:
    """Rank n alternatives so that the fewest preferences of m judges between two of them are overturned.

    A judge prefers the one of two alternatives that it scores higher; where it scores them alike or did not rate both
    it says nothing of the pair. The majorities split the alternatives into components that stand one above the other in
    some best ranking; each is solved by itself.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default; whole numbers are added up exactly.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        A Blend of form "order". `result` (n,) holds the alternatives, best first. `value` is the weight of the
        overturned preferences, `bound` what no ranking gets below, `spread` (m,) the share of its own preferences that
        each judge sees overturned, `info["rated"]` (n,) by how many judges each was rated, `weights` the judges'
        weights divided by their sum, `info["components"]` the sizes of the components, best first,
        `info["exchangeable"]` the runs of neighbours in the order between whom no majority decides, which may stand in
        any order among themselves at the same value; `info["best_rank"]` and `info["worst_rank"]` (n,) the ranks
        between which each stands in the rankings of this value. `info["never_compared"]` has the alternatives that no
        judge of any weight rated beside another, which come last and have such ranks of 0, and `info["parts"]` the
        others, in parts that no judge compares with one another: how such parts stand to each other is arbitrary.

    Raises:
        InputError: an infinite score, a judge who rated nothing, a negative weight, weights that are all zero, a judge
            in `lower` who is none, more than 5,000 alternatives.

    Cost: O(m n^2) time for the pairs. A component of up to 20 alternatives is solved by a dynamic programme over its
    subsets (0.1 s for 20), of up to 100 by linear programmes with inequalities for its 3-cycles, then an integer one if
    need be: seconds for 30, exponential where judges agree on little, which a time limit cuts short. Memory 24 n^2
    bytes.

    Exact: with status "optimal" no ranking overturns less (by more than 1e-7 of the whole, where weights are not whole
    and a component has more than 20 alternatives). Beyond 100 alternatives in one component the order is one that no
    move of a single alternative improves, with status "local", and the bound that of each pair by itself. The problem
    is NP-hard. Of equally good rankings one is returned. `best_rank` and `worst_rank` are those of all best rankings
    where majorities form no cycle, and where those that do are among at most 20 alternatives that hang together by
    majorities and draws. Elsewhere they are those of the rankings that turn pairs without a majority round, which are
    as good; who is first in some best ranking is exact then too if no component has more than 20 alternatives.

    References:
        Kemeny 1959, Mathematics without numbers (Daedalus 88).
        Conitzer, Davenport & Kalagnanam 2006, Improved bounds for computing Kemeny rankings.
        Betzler, Bredereck & Niedermeier 2014, Theoretical and empirical evaluation of data reduction for exact Kemeny
        rank aggregation.

    Examples:
        >>> from kofn.combination import kemeny
        >>> plan = kemeny([[3, 3, 1], [2, 1, 3], [1, 2, 2]])
        >>> plan.result.tolist(), plan.value, plan.status
        ([0, 1, 2], 3.0, 'optimal')
    """
    from kofn.combination.rankings import _kernels as kernels

    ballots = ballots_of(rankings, lower)
    m, n = ballots.shape
    if n > MOST:
        raise InputError(f"rankings has {n:,} alternatives; kemeny compares every two of at most {MOST:,}: use borda")
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    listed = Listed.of(ballots)
    prefers = preferences(listed, given, n)
    with Control(title="kemeny", **limits) as control:
        silent = _silent(ballots[given > 0])
        heard = np.flatnonzero(~silent)
        among = prefers[np.ix_(heard, heard)] if silent.any() else prefers
        parts = [_solved(among, part, control) for part in components(among)] if len(heard) else []
        parts = [(heard[part], least, bound, exact) for part, least, bound, exact in parts]
        stopped = control.stopped()
    ranked = np.concatenate([np.zeros(0, np.int64), *(part for part, *_ in parts)])
    order = np.append(ranked, np.flatnonzero(silent))
    # Of the alternatives in the order: what is read row by row, and often.
    ahead = _levelled(prefers, given)[ranked[:, None], ranked]
    best, worst = _ranks_as_good(ahead, ranked, [part for part, *_ in parts], n, quick=stopped)
    value = kernels.overturned_by(prefers, order)
    # What stands between two components costs the weight of those against the majority, in every ranking.
    inside = math.fsum(least for _, least, _, _ in parts)
    between = 0.0 if len(parts) == 1 and len(ranked) == n else kernels.least_overturned(prefers, np.arange(n)) - inside
    proven = all(exact for *_, exact in parts)
    bound = value if proven else min(value, between + math.fsum(bound for _, _, bound, _ in parts))
    return Blend(
        n=n,
        value=value,
        sense="min",
        bound=bound,
        status="optimal" if proven else "stopped" if stopped else "local",
        result=order,
        form="order",
        weights=given / given.sum(),
        spread=overturned(listed, order),
        objective="overturned_preferences",
        info={
            **comparisons(listed, given, n),
            "components": [len(part) for part, *_ in parts],
            "exchangeable": exchangeable(ahead, ranked),
            "best_rank": best,
            "worst_rank": worst,
            "never_compared": np.flatnonzero(silent).tolist(),
        },
    )


def _silent(ballots: Floats) -> NDArray[np.bool_]:
    """(n,) the alternatives that no judge rated beside another."""
    rated = ~np.isnan(ballots)
    return ~(rated & (rated.sum(axis=1) > 1)[:, None]).any(axis=0)


def _levelled(prefers: Floats, weights: Floats) -> Floats:
    """The preferences, those of a pair made equal where they differ by the rounding of sums of weights alone."""
    if (weights == np.rint(weights)).all():
        return prefers
    even = np.abs(prefers - prefers.T) <= _ROUNDING * weights.sum()
    return np.where(even, (prefers + prefers.T) / 2, prefers)


def _ranks_as_good(ahead: Floats, order: Ints, parts: Sequence[Ints], n: int, *, quick: bool) -> tuple[Ints, Ints]:
    """(n,) the best and the worst rank of each alternative in the orders that overturn as little, 0 if not in `order`.

    Args:
        ahead: the preferences among the alternatives of the order, in its order, equal where no majority decides.
        order: the alternatives that are ranked, in the order of `parts`.
        parts: the components.
        n: how many alternatives there are.
        quick: whether no subsets are looked at.
    """
    from kofn.combination.rankings import _kernels as kernels

    best, worst = np.zeros(n, np.int64), np.zeros(n, np.int64)
    cyclic = np.zeros(n, bool)
    for part in parts:
        cyclic[part] = len(part) > 1
    for begin, end in _blocks(ahead):
        items = order[begin:end]
        inner = np.ascontiguousarray(ahead[begin:end, begin:end])
        if len(items) <= _SUBSETS and cyclic[items].any() and not quick:
            first, last = kernels.positions_in_best_orders(inner, _ROUNDING * inner.sum())
        else:
            first, last = kernels.positions_by_ties(inner)
        best[items], worst[items] = begin + 1 + first, begin + 1 + last
        if len(items) <= _SUBSETS or quick:
            continue
        # What no other component puts behind it can be first if it is first in a best order of its own.
        beats = inner > inner.T
        position = np.full(n, -1)
        position[items] = np.arange(len(items))
        for part in parts:
            rows = position[part]
            if rows[0] < 0 or not 1 < len(part) <= _SUBSETS:
                continue
            own = np.ascontiguousarray(inner[np.ix_(rows, rows)])
            first, last = kernels.positions_in_best_orders(own, _ROUNDING * own.sum())
            others = np.delete(np.arange(len(items)), rows)
            best[part[(first == 0) & ~beats[np.ix_(others, rows)].any(axis=0)]] = begin + 1
            worst[part[(last == len(part) - 1) & ~beats[np.ix_(rows, others)].any(axis=1)]] = end
    return best, worst


def _blocks(ahead: Floats) -> list[tuple[int, int]]:
    """Where the shortest stretches of the order begin and end of which all are preferred to all that follow."""
    if not len(ahead):
        return []
    # The last position that each does not beat, itself at least.
    reach = np.empty(len(ahead), np.int64)
    for low in range(0, len(ahead), _ROWS_AT_ONCE):
        rows = slice(low, low + _ROWS_AT_ONCE)
        beats = ahead[rows] > np.ascontiguousarray(ahead[:, rows].T)
        reach[rows] = len(ahead) - 1 - np.argmin(beats[:, ::-1], axis=1)
    ends = np.flatnonzero(np.maximum.accumulate(reach) == np.arange(len(ahead))) + 1
    return list(itertools.pairwise([0, *ends.tolist()]))


def exchangeable(ahead: Floats, order: Ints) -> list[list[int]]:
    """The longest runs of the order of whom any two are preferred to each other by the same weight.

    Args:
        ahead: the preferences among the alternatives of the order, in its order.
        order: the alternatives.

    Examples:
        >>> exchangeable(np.array([[0.0, 2, 2], [0, 0, 1], [0, 1, 0]]), np.array([0, 1, 2]))
        [[1, 2]]
    """

    def even(end: int, begin: int) -> bool:
        """Whether the one at `end` is so with all from `begin` on that stand before it."""
        return bool((ahead[end, begin:end] == ahead[begin:end, end]).all())

    runs: list[list[int]] = []
    begin = 0
    for end in range(1, len(order) + 1):
        # The run grows to `end` where the newcomer is even with all of it; else it is complete, and a later one begins.
        if end < len(order) and even(end, begin):
            continue
        if end - begin > 1:
            runs.append(order[begin:end].tolist())
        while end < len(order) and begin < end and not even(end, begin):
            begin += 1
    return runs


def components(prefers: Floats) -> list[Ints]:
    """The alternatives in parts, best first, so that no majority prefers one of a later part to one of an earlier."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    wins = prefers > prefers.T
    # Of an array that is not sparse SciPy would make one by way of a masked array.
    edges: Any = csr_array(wins)
    count, label = connected_components(edges, connection="strong")
    size = np.bincount(label, minlength=count)
    if count == 1:
        return [np.arange(len(prefers))]
    member = np.zeros((count, len(prefers)))
    member[label, np.arange(len(prefers))] = 1
    beats = (member @ wins @ member.T) > 0
    np.fill_diagonal(beats, False)
    # Of the parts that none of the others left beats, the one that is preferred most stands first, then the lowest row.
    worth = np.bincount(label, weights=prefers.sum(axis=1) - prefers.sum(axis=0), minlength=count) / size
    left, losses, out = np.ones(count, bool), beats.sum(axis=0), []
    lowest = np.full(count, len(prefers))
    np.minimum.at(lowest, label, np.arange(len(prefers)))
    for _ in range(count):
        free = np.flatnonzero(left & (losses == 0))
        chosen = int(free[np.lexsort((lowest[free], -worth[free]))[0]])
        left[chosen] = False
        losses = losses - beats[chosen]
        out.append(np.flatnonzero(label == chosen))
    return out


def _solved(prefers: Floats, part: Ints, control: Control) -> tuple[Ints, float, float, bool]:
    """The order of one part, what its pairs by themselves overturn at least, what none of its orders gets below, and
    whether the order is proven to be a best one."""
    from kofn.combination.rankings import _kernels as kernels

    inner = np.ascontiguousarray(prefers[np.ix_(part, part)])
    least = kernels.least_overturned(inner, np.arange(len(part)))
    if len(part) <= 2:
        first = np.array([1, 0]) if len(part) == 2 and inner[1, 0] > inner[0, 1] else np.arange(len(part))
        return part[first], least, least, True
    if len(part) <= _SUBSETS and not control.stopped():
        return part[kernels.best_order(inner)], least, least, True
    order = np.argsort(inner.sum(axis=0) - inner.sum(axis=1), kind="stable")
    _settle(inner, order, control)
    bound = least
    if len(part) <= _PROGRAMMES:
        order, bound = _by_programmes(inner, order, least, control)
    return part[order], least, bound, _cost(inner, order) <= bound


def _settle(inner: Floats, order: Ints, control: Control) -> None:
    """Move single alternatives of the order, in place, until no move betters it."""
    from kofn.combination.rankings import _kernels as kernels

    while not control.stopped() and kernels.settle(inner, order, 1e-12 * float(inner.max()), 1):
        pass


def _cost(inner: Floats, order: Ints) -> float:
    from kofn.combination.rankings import _kernels as kernels

    return kernels.overturned_by(inner, np.ascontiguousarray(order, np.int64))


class _LinearOrdering:
    """x of the pairs i < j, 1 where i stands before j, and the inequalities that forbid 3-cycles."""

    def __init__(self, inner: Floats) -> None:
        self.n = len(inner)
        self.first, self.second = np.triu_indices(self.n, 1)
        self.number = np.zeros((self.n, self.n), np.int64)
        self.number[self.first, self.second] = np.arange(len(self.first))
        self.cost = inner[self.second, self.first] - inner[self.first, self.second]
        self.constant = math.fsum(inner[self.first, self.second].tolist())
        triples = np.array(list(itertools.combinations(range(self.n), 3)))
        i, j, k = triples.T
        # 0 <= x_ij + x_jk - x_ik <= 1
        self.columns = np.stack([self.number[i, j], self.number[j, k], self.number[i, k]], axis=1)
        self.used = np.zeros(len(triples), bool)

    def sums(self, x: Floats) -> Floats:
        return x[self.columns] @ np.array([1.0, 1.0, -1.0])

    def rows(self) -> Any:
        from scipy.sparse import csr_array

        columns = self.columns[self.used]
        row = np.repeat(np.arange(len(columns)), 3)
        signs = np.tile([1.0, 1.0, -1.0], len(columns))
        return csr_array((signs, (row, columns.ravel())), shape=(len(columns), len(self.cost)))

    def order(self, x: Floats) -> Ints:
        """The alternatives by how many stand behind them."""
        ahead = np.zeros(self.n)
        np.add.at(ahead, self.first, x)
        np.add.at(ahead, self.second, 1 - x)
        return np.argsort(-ahead, kind="stable")


def _by_programmes(inner: Floats, order: Ints, least: float, control: Control) -> tuple[Ints, float]:
    """The best order found, and a bound, by linear programmes whose violated inequalities are added in turn."""
    from scipy.optimize import Bounds, LinearConstraint

    whole = bool((inner == np.rint(inner)).all()) and float(inner.max()) <= _WHOLE
    unit = 1.0 if whole else float(inner.max())
    programme = _LinearOrdering(inner / unit)
    best, cost, bound = order, _cost(inner, order), least
    integral = False
    while cost > bound and not control.stopped():
        solution = milp(
            programme.cost,
            integrality=np.full(len(programme.cost), int(integral)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(programme.rows(), 0, 1) if programme.used.any() else (),
            options={"mip_rel_gap": 0.0, "time_limit": max(0.05, control.left())},
            stoppable=True,
        )
        lowest = solution.mip_dual_bound if integral else solution.fun if solution.status == 0 else None
        if lowest is not None and math.isfinite(lowest):
            # HiGHS's optimum is one up to its tolerance; whole weights overturn whole sums.
            lowest = (lowest + programme.constant) * (1 - _TOLERANCE) * unit
            bound = max(bound, float(math.ceil(lowest)) if whole else lowest)
        if solution.x is None:
            break
        candidate = programme.order(solution.x)
        sums = programme.sums(solution.x)
        violation = np.maximum(sums - 1, -sums)
        violated = np.flatnonzero((violation > _TOLERANCE) & ~programme.used)
        finished = solution.status == 0 and not len(violated)
        settled = np.abs(solution.x - np.rint(solution.x)).max() <= _TOLERANCE
        _settle(inner, candidate, control)
        if _cost(inner, candidate) < cost:
            best, cost = candidate, _cost(inner, candidate)
        if finished and settled:
            # All inequalities hold, so this is the best order of all.
            return best, cost
        if len(violated):
            programme.used[violated[np.argsort(-violation[violated], kind="stable")[:_CUTS]]] = True
        elif integral or solution.status != 0:
            break
        else:
            integral = True
    return best, min(bound, cost)
