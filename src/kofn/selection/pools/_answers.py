"""The plan of two rounds over a pool: exact gains and value, the bound, and what was proven."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.core.constraints import Tracker
from kofn.core.plans import Selection
from kofn.engines.base import Engine
from kofn.objectives.similarity import ceiling_within
from kofn.selection.pools._kept import Kept
from kofn.selection.pools._parts import Seen
from kofn.selection.pools._rounds import Outcome, Run

# The bound may fail once in a million samples.
_DOUBT = 1e-6


def plan_of(
    run: Run, outcome: Outcome, sets: Sequence[Ints], looked: Sequence[Seen], engine: Engine, kept: Kept
) -> Selection:
    n, k = run.pool.n, len(outcome.picks)
    info: dict[str, Any] = {"offset": None, "distance": None, "distance_bound": None}
    gains, which, bound, confidence = np.full(k, math.nan), 0, None, None
    if looked:
        top = run.top
        if top is None:
            top = ceiling_within(max(part.radius for part in looked), run.metric)
        all_gains = [_gains(looked, which, top) for which in range(len(sets))]
        values = [math.fsum(part.tolist()) for part in all_gains]
        which = int(np.argmax(values))
        gains = all_gains[which]
        most = top * math.fsum(part.weight for part in looked)
        bound, confidence = _bound(run, looked, values[0], most)
        bound = None if bound is None or outcome.stopped else max(bound, values[which])
        unit = 2.0 if run.metric == "cosine" else 1.0
        least = None if bound is None else max(0.0, unit * (most - bound))
        info = {"offset": top, "distance": unit * (most - values[which]), "distance_bound": least}
    tracker = Tracker(run.constraints)
    for row in sets[which][len(run.fixed) :].tolist():
        tracker.add(row)
    used, budget = tracker.report()
    return Selection(
        n=n,
        indices=sets[which],
        gains=gains,
        value=math.fsum(gains.tolist()),
        bound=bound,
        status="stopped" if outcome.stopped else "heuristic",
        used=used,
        budget=budget,
        objective="facility_location",
        guarantee=None,
        info={
            **info,
            "oracle_calls": outcome.oracle_calls,
            "distance_evals": run.pairs,
            "parts": run.parts,
            "part_rows": run.part_rows,
            "n_reference": len(run.judges),
            "deal": run.deal,
            "candidates": outcome.candidates,
            "answer": "part" if which else "round 2",
            "expected_guarantee": _expected(run, outcome),
            "bound_rows": 0 if bound is None else len(run.bounding),
            "bound_confidence": None if bound is None else confidence,
            "reused": kept.reused,
            "engine": engine.facts(),
        },
    )


def _gains(looked: Sequence[Seen], which: int, top: float) -> Floats:
    """What each pick of a set gains on all rows, of a similarity that is `top` minus the cost."""
    gains = np.array(
        [math.fsum(column) for column in zip(*(part.saved[which].tolist() for part in looked), strict=True)]
    )
    if len(gains):
        gains[0] = math.fsum(
            [part.saved[which][0] for part in looked] + [part.weight * (top - part.offset) for part in looked]
        )
    return gains


def _bound(run: Run, looked: Sequence[Seen], value: float, most: float) -> tuple[float | None, float]:
    """At least the optimum's value, and with what confidence.

    What the optimum S* saves row i beyond these picks is g_i, at least 0 and at most what the picks leave it to
    pay. On a sample drawn anew the mean of g is at most the sum of the largest gains that further rows bring it,
    over r. Sums of terms >= 0 whose squares are g^2 <= worst * g fall short of their mean mu by more than
    sqrt(2 worst mu ln(1/delta) / r) with probability delta at the most, drawn without replacement too.
    """
    rows, counting = len(run.bounding), _counting(run)
    if not rows or not run.bounded:
        return None, 1.0
    slots = run.constraints.k - len(run.fixed)
    merged = -np.sort(-np.concatenate([part.residual for part in looked]))[:slots]
    total = math.fsum(merged.tolist())
    if rows >= counting:
        return min(most, value + total), 1.0
    worst = max(part.worst for part in looked)
    spread = math.sqrt(2 * worst * math.log(1 / _DOUBT) / rows)
    mean = ((spread + math.sqrt(spread * spread + 4 * total / rows)) / 2) ** 2
    return min(most, value + counting * mean * (1 + 1e-9)), 1 - _DOUBT


def _counting(run: Run) -> int:
    """How many rows there are whose weight is above 0."""
    return run.pool.n if run.weights is None else int((run.weights > 0).sum())


def _expected(run: Run, outcome: Outcome) -> float | None:
    """The share of the optimum that is proven in expectation: only under the theorem's conditions."""
    earned = run.deal == "random" and run.all_judge and run.handed == run.constraints.k
    free = run.constraints.cardinality_only and not len(run.fixed)
    return (1 - 1 / math.e) / 2 if earned and free and not outcome.stopped else None
