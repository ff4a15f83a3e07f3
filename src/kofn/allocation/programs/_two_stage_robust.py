"""The first-stage decision of a two-stage robust program: column and constraint generation, exact or with a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from kofn.allocation.programs._learned_recourse import LearnedRecourse
from kofn.allocation.programs._mixed_integer import Program
from kofn.allocation.programs._two_stage import TwoStageProgram
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation
from kofn.core.runtime import Control
from kofn.core.words import Limits

__all__ = ["two_stage_robust"]

# Value meets bound to this share of the larger of the value and the largest cost.
_ROUNDING = 1e-9


@helper
def two_stage_robust(
    stages: TwoStageProgram,
    *,
    learned: LearnedRecourse | None = None,
    iterations: int = 200,
    **limits: Unpack[Limits],
) -> Allocation:
    """Decide the first stage of a two-stage robust program by column and constraint generation.

    A main program knows some values of u and a second stage for each; its x is shown to an adversary, whose worst u
    joins the others, until none is worse than those known. With `learned` a network stands for the second stage in
    both: its units are limits of the main program, and the adversary maximises the network.

    Args:
        stages: the program.
        learned: what `fit_recourse` returned for it; default the exact second stage.
        iterations: rounds, at most.
        limits: `time_limit` in seconds and `progress`.

    Returns:
        An `Allocation`: `amounts` is x, `value` the cost of both stages at the worst u, recounted exactly, `bound` what
        no x is below (None with `learned`). `info` has "worst" (that u), "rounds", "scenarios" (those of the main
        program), "oracle_calls" (programs solved by HiGHS), "nodes" (their branches) and "predicted" (the
        network's value).

    Raises:
        InfeasibleError: no x keeps the limits, or one of them leaves no second stage.
        FailureError: `time_limit` ended before any x.
        InputError: a network of another shape.

    Cost: each round adds a second stage's variables to the main program, or as many binaries as the network has hidden
    units of negative weight.

    Guarantee: status "optimal" where value meets bound, to 1e-9 of the larger of the value and the largest cost;
    "stopped" by a limit; limits are kept to 1e-6 of their terms, in any unit of costs and rows. With `learned`
    "heuristic": the value is true, the choice as good as the network.

    References:
        Zeng & Zhao 2013, "Solving Two-Stage Robust Optimization Problems Using a Column-and-Constraint Generation
        Method", Operations Research Letters 41. Dumouchelle, Julien, Kurtz & Khalil 2024, "Neur2RO: Neural Two-Stage
        Robust Optimization", ICLR, arXiv 2310.04345 (`learned`).

    Examples:
        >>> from kofn.allocation import two_stage_knapsack, two_stage_robust
        >>> stages = two_stage_knapsack(
        ...     [9, 8, 7], [6, 2, 5], [4, 3, 3], outsourcing=[8, 7, 6], repair_weights=[2, 1, 2], capacity=8, gamma=1
        ... )
        >>> plan = two_stage_robust(stages)
        >>> plan.amounts.tolist(), round(plan.value, 4), plan.status
        ([1, 1, 1], -15.2308, 'optimal')
    """
    if learned is not None and learned.shape != (len(stages.c), stages.uncertain):
        raise InputError(f"learned is of {learned.shape} values of x and u; fit it to this program")
    rounds = checks.count(iterations, "iterations")
    calls, nodes = stages.calls, stages.nodes
    with Control(**limits) as control:
        run = _exact(stages, rounds, control) if learned is None else _by_network(stages, learned, rounds, control)
    return Allocation(
        n=len(stages.c),
        amounts=run.x.astype(np.int64),
        values=stages.c * run.x,
        value=run.value,
        bound=run.value if run.status == "optimal" else run.bound,
        sense="min",
        additive=False,
        status=run.status,
        method="two_stage_robust",
        info={
            "worst": run.worst,
            "rounds": run.rounds,
            "scenarios": run.scenarios,
            "predicted": run.predicted,
            "oracle_calls": stages.calls - calls,
            "nodes": stages.nodes - nodes,
        },
    )


@dataclass(frozen=True)
class _Run:
    x: Floats
    value: float
    bound: float | None
    worst: Floats
    scenarios: int
    rounds: int
    status: Any
    predicted: float | None = None


def _exact(stages: TwoStageProgram, rounds: int, control: Control) -> _Run:
    known: list[Floats] = [np.zeros(stages.uncertain) if stages.scenarios is None else np.asarray(stages.scenarios)[0]]
    best: _Run | None = None
    bound = -math.inf
    count = 0
    while count < rounds and not control.stopped():
        count += 1
        x, proven = _main(stages, known, control.left())
        if x is None:
            break
        bound = max(bound, proven)
        second, u = stages.worst(x)
        value = math.fsum((stages.c * x).tolist()) + second
        if best is None or value < best.value:
            best = _Run(x, value, bound, u, len(known), count, "stopped")
        if best.value <= bound + _ROUNDING * max(stages.largest, abs(best.value)):
            return _Run(best.x, best.value, best.value, best.worst, len(known), count, "optimal")
        if any(np.array_equal(u, other) for other in known):
            break
        known.append(u)
    if best is None:
        raise FailureError("time_limit: no x was found in it; give more time")
    return _Run(best.x, best.value, bound, best.worst, len(known), count, "stopped")


def _main(stages: TwoStageProgram, known: list[Floats], seconds: float) -> tuple[Floats | None, float]:
    """The best x against the values of u that are known, and the bound that this proves; None where time ended."""
    from scipy.sparse import block_array, csc_array, csr_array

    first, unit = stages.first_stage(), stages.unit
    n, m, s = len(stages.c), len(stages.d), len(known)
    # Columns: x, the cost of the second stage in units, then a second stage for each u.
    tie = csr_array(stages.T)
    below = csr_array(np.full((1, 1), -1.0))
    rows: list[list[Any]] = [[first.A, csr_array((first.A.shape[0], 1)), *[None] * s]]
    high = [first.high]
    for index, u in enumerate(known):
        own: list[Any] = [None] * s
        own[index] = csr_array(stages.W)
        rows.append([tie, None, *own])
        costs: list[Any] = [None] * s
        costs[index] = csr_array(stages.costs(u)[None] / unit)
        rows.append([None, below, *costs])
        high += [stages.h, np.zeros(1)]
    least, most = stages.second_ends
    limits = np.concatenate(high)
    point, bound = stages.solved(
        Program(
            c=np.r_[stages.c / unit, 1.0, np.zeros(m * s)],
            A=csc_array(block_array(rows, format="csc")),
            low=np.full(len(limits), -np.inf),
            high=limits,
            least=np.r_[first.least, -np.inf, np.tile(least, s)],
            most=np.r_[first.most, np.inf, np.tile(most, s)],
            whole=np.r_[np.ones(n, bool), False, np.ones(m * s, bool)],
            matrix="A, T, W and d",
            ends=("low", "high, h"),
        ),
        seconds,
    )
    if bound == math.inf:
        raise InfeasibleError("A, T: no x keeps its limits and leaves a second stage for every u; widen h or high")
    if point is None and seconds == math.inf:
        raise FailureError(
            "A, T, W: the solver gives no x of least cost that keeps all rows to 1e-6; give bounds_y, or scale rows"
        )
    return (None if point is None else point[:n]), bound * unit


def _by_network(stages: TwoStageProgram, learned: LearnedRecourse, rounds: int, control: Control) -> _Run:
    known: list[Floats] = [np.zeros(stages.uncertain)]
    count, x, predicted = 0, None, None
    while count < rounds and not control.stopped():
        count += 1
        x, predicted = learned.main(stages, known)
        u, highest = learned.adversary(stages, x)
        reached = max(learned.predict(x, other) for other in known)
        if highest <= reached + _ROUNDING * max(stages.largest, abs(reached)):
            break
        known.append(u)
    if x is None:
        raise FailureError("time_limit: no x was found in it; give more time")
    second, worst = stages.worst(x)
    value = math.fsum((stages.c * x).tolist()) + second
    return _Run(x, value, None, worst, len(known), count, "heuristic", predicted)
