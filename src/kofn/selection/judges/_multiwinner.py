"""Committees from many rankings: multiwinner score functions under group quotas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.constraints import Constraints, Tracker
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Grouped
from kofn.selection.basics._top_k import top_k

# Judges whose ballots are ranked at once, so that scratch stays at a few dozen MB.
_ENTRIES_AT_ONCE = 1 << 21


@method(
    "select",
    traits=("sandwich",),
    draws=Draw(
        plain={"rankings": [[6.0, 1.0], [5.0, 3.0], [4.0, 5.0], [3.0, 2.0], [2.0, 4.0], [1.0, 6.0]]}, silent=("units",)
    ),
    cost="O(judges n log n), for chamberlin_courant O(k judges n) more; O(judges n) memory",
    exact="borda, sntv, bloc: optimal under k and quotas; chamberlin_courant: >= 1 - 1/e under k, 1/2 under quotas",
    paper=118,
)
def multiwinner(
    rankings: Any,
    *,
    k: int,
    rule: Literal["borda", "sntv", "bloc", "chamberlin_courant"] = "borda",
    lower: str | Sequence[int] | Sequence[str] | None = None,
    **where: Unpack[Grouped],
) -> Selection:
    """Pick a committee of k from many rankings, within group quotas.

    Where judges rank one group too low, a quota at least proportional to its size recovers much of the committee that
    unbiased rankings would give. A smooth rule such as "borda" needs few rankings for that; "sntv", which reads first
    places alone, may need very many.

    Args:
        rankings: (n, judges) scores, higher is better; only each judge's order counts. Items that a judge did not rate
            (NaN) stand below all rated ones. Tied items share the points of the places they take.
        k: size of the committee.
        rule: "borda" (n - 1 points for a first place, 0 for a last), "sntv" (1 for a first place), "bloc" (1 for each
            of the first k places): points of the committee add up. "chamberlin_courant": each judge counts only the
            best of the committee, by Borda points.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.

    Returns:
        Selection, most points first ("chamberlin_courant": in the order of the greedy), ties to the lowest row.
        `value` is the committee's points from all judges; `guarantee` the proven share of the optimum.

    Raises:
        InputError: bad rankings. InfeasibleError: constraints that cannot be met together.

    Costs O(judges n log n) time to rank, O(judges n) memory. Rules whose points add up are solved exactly, quotas being
    a matroid; "chamberlin_courant" is submodular, solved greedily, with a `bound` from the residual gains.

    References:
        Boehmer, Celis, Huang, Mehrotra, Vishnoi, "Subset Selection Based On Multiple Rankings in the Presence of Bias:
        Effectiveness of Fairness Constraints for Multiwinner Voting Score Functions", ICML 2023.
        Chamberlin, Courant, "Representative deliberations and representative decisions", 1983.

    Examples:
        >>> from kofn.selection import multiwinner
        >>> table = [[9, 8, 6], [5, 7, 9], [4, 3, 1], [1, 2, 4]]
        >>> multiwinner(table, k=2).indices.tolist()
        [0, 1]
        >>> multiwinner(table, k=2, groups=list("aabb"), quotas={"b": (1, None)}).indices.tolist()
        [0, 2]
    """
    ballots = np.array(rankings.T, order="C")
    m, n = ballots.shape
    if lower is not None:
        ballots[checks.positions(lower, "lower", m)] *= -1
    place_points = _place_points(n, k, rule)
    if rule == "chamberlin_courant":
        return _representatives(_points(ballots, place_points), Constraints.of(n, where, k=k))
    total = np.zeros(n)
    step = max(1, _ENTRIES_AT_ONCE // n)
    for low in range(0, len(ballots), step):
        total += _points(ballots[low : low + step], place_points).sum(axis=0)
    plan = top_k(total, k=k, **where)
    return Selection(
        n=n,
        indices=plan.indices,
        gains=plan.gains,
        value=plan.value,
        bound=plan.bound,
        status="optimal",
        used=plan.used,
        budget=plan.budget,
        objective=f"committee_{rule}",
        guarantee=1.0,
        info={"oracle_calls": n},
    )


def _proven(constraints: Constraints) -> float | None:
    """Greedy's share of the optimum under this kind of constraint."""
    if not constraints.columns:
        return 1 - 1 / math.e
    return 0.5 if len(constraints.columns) == 1 else None


def _place_points(n: int, k: int, rule: str) -> Floats:
    """(n,) the points of each place in a ballot, the first place first."""
    if rule in ("borda", "chamberlin_courant"):
        return np.arange(n - 1, -1, -1, dtype=np.float64)
    return (np.arange(n) < (1 if rule == "sntv" else k)).astype(np.float64)


def _points(ballots: Floats, place_points: Floats) -> Floats:
    """(judges, n) the points that each judge gives; tied items share the points of the places they take together."""
    judges, n = ballots.shape
    values = np.where(np.isnan(ballots), -np.inf, ballots)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    opens = np.ones((judges, n), bool)
    opens[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    # Each run of equal values, as a slice of the flattened table: no run crosses from one judge to the next.
    begins = np.flatnonzero(opens.ravel())
    lengths = np.diff(np.append(begins, judges * n))
    means = np.add.reduceat(np.tile(place_points, judges), begins) / lengths
    points = np.empty((judges, n))
    np.put_along_axis(points, order, np.repeat(means, lengths).reshape(judges, n), axis=1)
    return points


def _representatives(points: Floats, constraints: Constraints) -> Selection:
    """Greedy search, where a judge counts only the best of the committee; all gains are recomputed at each step."""
    best = np.zeros(len(points))
    tracker = Tracker(constraints)
    picks: list[int] = []
    gains: list[float] = []
    picked = np.zeros(constraints.n, bool)
    bound, calls = math.inf, 0

    def residual_gains() -> Floats:
        out = np.zeros(constraints.n)
        step = max(1, _ENTRIES_AT_ONCE // constraints.n)
        for low in range(0, len(points), step):
            out += np.maximum(points[low : low + step] - best[low : low + step, None], 0.0).sum(axis=0)
        return out

    def take(item: int) -> None:
        nonlocal best
        after = np.maximum(best, points[:, item])
        gains.append(math.fsum((after - best).tolist()))
        best = after
        picks.append(item)
        picked[item] = True

    for item in constraints.preselected.tolist():
        take(item)
    while True:
        residual = residual_gains()
        calls += int((~picked).sum())
        bound = min(bound, math.fsum(best.tolist()) + constraints.upper_bound(residual, picked))
        open_items = tracker.eligible()
        if not open_items.any():
            break
        item = int(np.argmax(np.where(open_items, residual, -np.inf)))
        tracker.add(item)
        take(item)
    used, limit = tracker.report()
    value = math.fsum(best.tolist())
    return Selection(
        n=constraints.n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains, np.float64),
        value=value,
        bound=max(bound, value),
        status="approximate",
        used=used,
        budget=limit,
        objective="chamberlin_courant",
        guarantee=_proven(constraints),
        info={"oracle_calls": calls},
    )
