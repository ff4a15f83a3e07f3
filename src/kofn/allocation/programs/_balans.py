"""Large neighbourhood search for mixed-integer programs whose neighbourhoods a bandit chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.programs._mixed_integer import NO_WHOLE_POINT, Program, program
from kofn.allocation.programs._neighborhoods import NEIGHBORHOODS, OF_BINARIES, Search
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation
from kofn.core.runtime import Control
from kofn.core.words import Limits

__all__ = ["balans"]

# Points that crossover may look back to.
_REMEMBERED = 10
# Seconds beyond which no call of the solver ends for want of time.
_LONGEST = 1e6
# Improvements below this share of the cost are rounding.
_ROUNDING = 1e-9


@helper
def balans(
    c: ArrayLike,
    A: Any,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    bounds: ArrayLike = (0, 1),
    integrality: ArrayLike = 1,
    start: ArrayLike | None = None,
    iterations: int = 100,
    neighborhoods: Sequence[str] | None = None,
    bandit: Literal["thompson", "softmax", "uniform"] = "thompson",
    acceptance: Literal["hill_climbing", "simulated_annealing"] = "hill_climbing",
    seconds_each: float = 1.0,
    nodes_each: int = 200,
    seed: int = 0,
    **limits: Unpack[Limits],
) -> Allocation:
    """Minimise c @ x over low <= A @ x <= high, whole x within bounds, by neighbourhoods that a bandit chooses.

    From a first point, a part of the variables is freed again and again and HiGHS solves the small program that is
    left. Which neighbourhood is used is learned on the instance at hand: each is an arm, its reward 1 where it improved
    the point. Nothing is trained beforehand.

    Args:
        c: (n,) costs; for a maximum their negatives.
        A: (rows, n) dense or SciPy-sparse; (n,) for one row.
        low: least of each row, a number or (rows,); default no limit.
        high: most of each row, a number or (rows,); default no limit.
        bounds: (least, most) of all variables, or (n, 2).
        integrality: 1 where a variable is whole, else 0; one number or (n,).
        start: (n,) a point that keeps the program; default the first that HiGHS finds.
        iterations: neighbourhoods that are tried.
        neighborhoods: which there are to choose from, by name: "mutation_10" (a random tenth of the integers is free),
            "rins_5" (those where the relaxation differs, and a twentieth), "rens_10", "crossover_5",
            "local_branching_10" (at most a tenth of zeros and ones change), "proximity_1" (the nearest point that costs
            a hundredth less), and larger ones; default all.
        bandit: how arms are drawn: "thompson" sampling of Beta(1 + successes, 1 + failures), "softmax" of the share
            of successes at temperature 0.1, or "uniform", which does not learn.
        acceptance: "hill_climbing" goes on from the best point; "simulated_annealing" also from worse ones, with a
            temperature that falls from 1% of the cost to nothing over the iterations.
        seconds_each: limit of each small program.
        nodes_each: limit of its branch and bound.
        seed: whole number.
        limits: `time_limit` in seconds and `progress`.

    Returns:
        An `Allocation`: `amounts` the best point, `values` what each variable costs there, `value` their sum, `bound`
        what no point is below. `info` has `path` (cost after each iteration), `uses` and `successes` of each
        neighbourhood, `start_value`, `oracle_calls` (programs solved by HiGHS).

    Raises:
        InfeasibleError: no point keeps the program, or none is found within the time limit.
        InputError: shapes that do not fit, a start that does not keep the program, a neighbourhood that is not there,
            entries of 1e15 and limits of 1e20 or more in size, no least cost.

    Cost: a call of HiGHS for each iteration, within `seconds_each` and `nodes_each`. Where the seconds end a call, the
    answer depends on the machine; give nodes alone (`seconds_each=float("inf")`) to repeat a run exactly.

    Guarantee: every point keeps the program, to the tolerances of HiGHS (1e-6 of a row, whole numbers exactly). Status
    "optimal" where the cost meets the bound, "stopped" by `time_limit`, else "heuristic".

    References:
        Cai, Kadioglu & Dilkina 2024, "Balans: Multi-Armed Bandits-based Adaptive Large Neighborhood Search for
        Mixed-Integer Programming Problem", arXiv 2412.14382. Neighbourhoods: Danna, Rothberg & Le Pape 2005 (RINS);
        Berthold 2014 (RENS); Rothberg 2007 (mutation, crossover); Fischetti & Lodi 2003 (local branching); Fischetti &
        Monaci 2014 (proximity).

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import balans
        >>> rng = np.random.default_rng(0)
        >>> worth, weight = rng.integers(10, 40, 30), rng.integers(10, 40, (2, 30))
        >>> plan = balans(-worth, weight, high=weight.sum(axis=1) // 2, iterations=10)
        >>> plan.value, plan.status, bool((weight @ plan.amounts <= weight.sum(axis=1) // 2).all())
        (-506.0, 'optimal', True)
    """
    model = program(c, A, low, high, bounds, integrality)
    checks.count(iterations, "iterations", least=0)
    names = _names(neighborhoods, model)
    chooser = _Bandit(names, checks.choice(bandit, "bandit", ("thompson", "softmax", "uniform")))
    annealed = checks.choice(acceptance, "acceptance", ("hill_climbing", "simulated_annealing")) != "hill_climbing"
    each = {"seconds": checks.seconds(seconds_each, "seconds_each"), "nodes": checks.count(nodes_each, "nodes_each")}
    rng = np.random.default_rng(checks.entropy(seed))
    with Control(**limits) as control:
        point = None if start is None else _kept(model, start)
        relaxed, bound = _relaxed(model, point, each, control)
        if point is None:
            point, bound = _first(model, each, bound, control)
        best, current = point, point
        best_value = value = begun = model.value(point)
        path, earlier = [value], [point]
        for step in range(iterations):
            if control.stopped() or _meets(model, best, bound):
                break
            arm = chooser.draw(rng)
            neighborhood, share = NEIGHBORHOODS[names[arm]]
            found_point = neighborhood(
                Search(model, current, current if relaxed is None else relaxed, earlier, rng, _in_time(each, control)),
                share,
            )
            reached = math.inf if found_point is None else model.value(found_point)
            chooser.learn(arm, reached < value - _ROUNDING * abs(value))
            if found_point is not None and _accepted(reached, value, annealed * (1 - step / iterations), rng):
                current, value = found_point, reached
                earlier = [*earlier, current][-_REMEMBERED:]
            if value < best_value:
                best, best_value = current, value
            path.append(best_value)
        stopped = len(path) <= iterations and not _meets(model, best, bound)
    status = "optimal" if _meets(model, best, bound) else "stopped" if stopped else "heuristic"
    return Allocation(
        n=model.n,
        amounts=best.astype(np.int64) if model.whole.all() else best,
        values=model.c * best,
        value=best_value,
        bound=best_value if status == "optimal" else bound,
        sense="min",
        status=status,
        objective="linear_cost",
        method="balans",
        bounds=np.stack([model.least, model.most], axis=1),
        info={
            "path": path,
            "start_value": begun,
            "uses": dict(zip(names, chooser.uses.tolist(), strict=True)),
            "successes": dict(zip(names, chooser.successes.tolist(), strict=True)),
            "oracle_calls": model.calls[0],
        },
    )


def _names(neighborhoods: Sequence[str] | None, model: Program) -> list[str]:
    if neighborhoods is None:
        return [name for name in NEIGHBORHOODS if model.binary.any() or name not in OF_BINARIES]
    names = [checks.choice(name, "neighborhoods", tuple(NEIGHBORHOODS)) for name in neighborhoods]
    if not names:
        raise InputError(f"neighborhoods is empty; give some of {', '.join(NEIGHBORHOODS)}")
    if not model.binary.any() and set(names) & set(OF_BINARIES):
        counted = sorted(set(names) & set(OF_BINARIES))[0]
        raise InputError(f"neighborhoods has {counted!r}, which counts zeros and ones; no variable is 0 or 1 here")
    return names


def _kept(model: Program, start: ArrayLike) -> Floats:
    """The point that is given, checked."""
    given = checks.vector(start, "start").astype(np.float64)
    checks.same_length(model.n, "c", "start", len(given))
    point = model.rounded(given)
    if point is None:
        raise InputError("start does not keep the program: a row, a bound or a whole number; give a point that does")
    return point


def _relaxed(
    model: Program, point: Floats | None, each: dict[str, Any], control: Control
) -> tuple[Floats | None, float]:
    """The optimum of the relaxation and its cost; where a point that is given keeps the program to tolerances only, and
    the solver knows of none, that point without a bound; None where the time ended before."""
    try:
        return model.relaxed(_in_time(each, control)["seconds"], control.left())
    except InfeasibleError:
        if point is None:
            raise
        return point, -math.inf


def _first(model: Program, each: dict[str, Any], bound: float, control: Control) -> tuple[Floats, float]:
    """A point of the program, and the best bound that is known."""
    seconds = each["seconds"]
    while True:
        point, proven = model.solved(seconds=min(seconds, control.left()))
        bound = max(bound, proven)
        if point is not None:
            return point, bound
        if proven == math.inf:
            raise InfeasibleError(NO_WHOLE_POINT)
        if control.stopped():
            raise InfeasibleError("A: no point was found within time_limit; give more time, or a start")
        if seconds > _LONGEST:
            raise InputError("A: the solver gives no point that keeps all rows to 1e-6; scale rows, or give a start")
        # A first point may take longer than a small program may.
        seconds *= 4


def _meets(model: Program, point: Floats, bound: float) -> bool:
    """Whether a point costs no more than the bound, but for the rounding of what its variables cost."""
    terms = model.c * point
    return math.fsum(terms.tolist()) <= bound + _ROUNDING * math.fsum(np.abs(terms).tolist())


def _in_time(each: dict[str, Any], control: Control) -> dict[str, Any]:
    """The limits of a call of the solver, which ends with the time of the whole."""
    return {**each, "seconds": min(each["seconds"], control.left())}


def _accepted(reached: float, value: float, warmth: float, rng: np.random.Generator) -> bool:
    """Whether the search goes on from there: from what costs no more, and from worse by chance while it is warm."""
    if reached <= value or not warmth or not math.isfinite(reached):
        return reached <= value
    return bool(rng.random() < math.exp(-(reached - value) / (0.01 * warmth * max(abs(value), 1.0))))


@dataclass
class _Bandit:
    """Which arm is drawn next, by how often each improved the point."""

    names: Sequence[str]
    policy: str
    uses: Ints = field(init=False)
    successes: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.uses, self.successes = np.zeros((2, len(self.names)), np.int64)

    def draw(self, rng: np.random.Generator) -> int:
        """An arm."""
        if self.policy == "uniform":
            return int(rng.integers(len(self.names)))
        if self.policy == "thompson":
            return int(rng.beta(1 + self.successes, 1 + self.uses - self.successes).argmax())
        # Each arm is taken for half a success until it is known.
        share = (self.successes + 0.5) / (self.uses + 1)
        weight = np.exp((share - share.max()) / 0.1)
        return int(rng.choice(len(weight), p=weight / weight.sum()))

    def learn(self, arm: int, improved: bool) -> None:
        """Count a use of an arm."""
        self.uses[arm] += 1
        self.successes[arm] += improved
