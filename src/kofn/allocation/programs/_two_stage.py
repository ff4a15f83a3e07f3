"""Two-stage programs whose second stage decides once costs are known: the parts that all ways of solving share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.programs._mixed_integer import Program, program
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.integer_programs import milp

__all__ = ["TwoStageProgram", "two_stage_knapsack"]

# A cut is worth adding where it lowers the adversary's bound by this share.
_ROUNDING = 1e-7
# What SciPy says where the time ended.
_TIME = 1


@dataclass(eq=False, kw_only=True)
class TwoStageProgram:
    """Minimise c @ x + max over u of min over y of (d + D @ u) @ y, with T @ x + W @ y <= h.

    x is decided before the uncertain u is known, y after. Both are whole, within bounds.

    Args:
        c: (n,) costs of the first stage.
        d: (m,) costs of the second stage where u is 0.
        deviations: D, (m, p), what each unit of u adds to the costs of the second stage.
        T: (rows, n) of the limits that tie both stages together.
        W: (rows, m) likewise.
        h: (rows,) their most.
        gamma: u is between 0 and 1 and comes to at most so much in total.
        scenarios: (s, p) the only values of u, in place of `gamma`.
        A: (rows, n) limits of the first stage alone, default none.
        high: most of each of these rows.
        bounds: (least, most) of x.
        bounds_y: (least, most) of y.

    `calls` counts the programs that HiGHS solved, `nodes` their branches.

    Examples:
        >>> from kofn.allocation import TwoStageProgram
        >>> stages = TwoStageProgram(
        ...     c=[1.0], d=[-3.0], deviations=[[2.5]], T=[[-1.0]], W=[[1.0]], h=[0.0], gamma=1
        ... )
        >>> stages.recourse([1], [0.0])[0], stages.worst([1])[0]
        (-3.0, -0.5)
    """

    c: Any
    d: Any
    deviations: Any
    T: Any
    W: Any
    h: Any
    gamma: float | None = None
    scenarios: ArrayLike | None = None
    A: Any = None
    high: ArrayLike | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    bounds_y: tuple[float, float] = (0.0, 1.0)
    calls: int = field(default=0, init=False)
    nodes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.c, self.d = (checks.vector(getattr(self, name), name).astype(np.float64) for name in ("c", "d"))
        self.T, self.W = (checks.matrix(getattr(self, name), name).astype(np.float64) for name in ("T", "W"))
        self.h = checks.vector(self.h, "h").astype(np.float64)
        self.deviations = checks.matrix(self.deviations, "deviations").astype(np.float64)
        shapes = (
            ("T", self.T.shape, (len(self.h), len(self.c))),
            ("W", self.W.shape, (len(self.h), len(self.d))),
            ("deviations", self.deviations.shape, (len(self.d), self.deviations.shape[1])),
        )
        for name, shape, wanted in shapes:
            if shape != wanted:
                raise InputError(f"{name} has shape {shape}; c, d and h ask for {wanted}")
        if (self.gamma is None) == (self.scenarios is None):
            raise InputError("gamma, scenarios: give one of them, which says what u may be")
        if self.gamma is not None and checks.number(self.gamma, "gamma") < 0:
            raise InputError(f"gamma={self.gamma:g}: give a number of 0 or more")
        if self.scenarios is not None:
            self.scenarios = checks.matrix(self.scenarios, "scenarios").astype(np.float64)
            if self.scenarios.shape[1] != self.uncertain:
                raise InputError(f"scenarios has {self.scenarios.shape[1]} columns, deviations {self.uncertain}")
        if self.A is not None:
            self.A = checks.matrix(self.A, "A").astype(np.float64)
        self.first_stage()

    @property
    def uncertain(self) -> int:
        """How many numbers u has, p."""
        return int(self.deviations.shape[1])

    def first_stage(self) -> Program:
        """The limits of x alone, with the costs c."""
        A = np.zeros((1, len(self.c))) if self.A is None else self.A
        return program(self.c, A, None, 0.0 if self.A is None else self.high, self.bounds, 1)

    def costs(self, u: Any) -> Floats:
        """(m,) costs of the second stage."""
        return np.asarray(self.d + self.deviations @ np.asarray(u, np.float64))

    def solve(
        self, c: Any, A: Any, high: Any, bounds: Any, whole: Any, low: Any = None, seconds: float = math.inf
    ) -> tuple[Floats | None, float, float]:
        """The best point that HiGHS finds in so many seconds, its cost, and the bound that is proven.

        None and infinity where no point keeps the limits; None with a finite bound where the time ended before any.
        """
        from scipy.optimize import Bounds, LinearConstraint

        least = np.full(len(high), -np.inf) if low is None else low
        options: dict[str, Any] = {"time_limit": max(seconds, 1e-3)} if math.isfinite(seconds) else {}
        limits = LinearConstraint(A, least, high)
        answer = milp(c, integrality=whole, bounds=Bounds(*bounds), constraints=limits, options=options)
        self.calls += 1
        self.nodes += int(answer.mip_node_count or 0)
        if answer.x is None:
            return None, math.inf, -math.inf if answer.status == _TIME else math.inf
        bound = answer.fun if answer.mip_dual_bound is None else answer.mip_dual_bound
        return answer.x, float(answer.fun), float(bound)

    def recourse(self, x: Any, u: Any) -> tuple[float, Floats]:
        """The least cost of the second stage, and the y that reaches it.

        Raises:
            InfeasibleError: no y keeps the limits with this x.
        """
        first = np.asarray(x, np.float64)
        ones = np.ones(len(self.d))
        ends = (self.bounds_y[0] * ones, self.bounds_y[1] * ones)
        y, value, _ = self.solve(self.costs(u), self.W, self.h - self.T @ first, ends, ones)
        if y is None:
            raise InfeasibleError("x leaves no y that keeps T @ x + W @ y <= h; every x must leave one")
        return value, np.round(y)

    def worst(self, x: Any) -> tuple[float, Floats]:
        """The cost of the second stage at the worst u, exactly, and that u.

        Of scenarios each is solved. Within `gamma` the cost is the lowest of one plane for each y, and u is where it is
        highest by the planes that are known; the y that is best there is the next plane.
        """
        if self.scenarios is not None:
            options = np.asarray(self.scenarios)
            values = [self.recourse(x, u)[0] for u in options]
            worst = int(np.argmax(values))
            return values[worst], options[worst]
        p = self.uncertain
        u = np.zeros(p)
        planes: list[tuple[float, Floats]] = []
        best, best_u = -math.inf, u
        while True:
            value, y = self.recourse(x, u)
            if value > best:
                best, best_u = value, u
            planes.append((float(self.d @ y), self.deviations.T @ y))
            # Maximise t with t <= constant + slope @ u.
            table = np.vstack([np.r_[1.0, -slope] for _, slope in planes] + [np.r_[0.0, np.ones(p)]])
            high = np.array([constant for constant, _ in planes] + [self.gamma])
            ends = (np.r_[-np.inf, np.zeros(p)], np.r_[np.inf, np.ones(p)])
            point, value, _ = self.solve(np.r_[-1.0, np.zeros(p)], table, high, ends, np.zeros(p + 1))
            assert point is not None
            if -value <= best + _ROUNDING * max(1.0, abs(best)):
                return best, best_u
            u = np.clip(point[1:], 0, 1)


@helper
def two_stage_knapsack(
    values: ArrayLike,
    deviations: ArrayLike,
    weights: ArrayLike,
    *,
    outsourcing: ArrayLike,
    repair_weights: ArrayLike,
    capacity: float,
    gamma: float,
) -> TwoStageProgram:
    """A knapsack whose items lose worth after they were accepted, and can then be repaired or given to others.

    Accepted items bring `values`, some of them less by up to `deviations`. Each is then done as it is, done and
    repaired at `repair_weights` more, or outsourced at a cost; what is done fits the capacity.

    Args:
        values: (n,) worth of the items.
        deviations: (n,) the most that each may lose.
        weights: (n,) capacity that each takes.
        outsourcing: (n,) cost of giving an item to others.
        repair_weights: (n,) capacity that repairing takes on top.
        capacity: of all that is done.
        gamma: how many items may lose all of their deviation, or a sum of parts.

    Returns:
        A `TwoStageProgram` in costs: its value is minus the profit.

    Examples:
        >>> from kofn.allocation import two_stage_knapsack, two_stage_robust
        >>> stages = two_stage_knapsack(
        ...     [6, 5], [4, 1], [2, 3], outsourcing=[5, 5], repair_weights=[1, 1], capacity=5, gamma=1
        ... )
        >>> two_stage_robust(stages).value
        -7.0

    References:
        Arslan & Detienne 2022, "Decomposition-Based Approaches for a Class of Two-Stage Robust Binary Optimization
        Problems", INFORMS J. Computing 34.
    """
    given = {
        "values": values,
        "deviations": deviations,
        "weights": weights,
        "outsourcing": outsourcing,
        "repair_weights": repair_weights,
    }
    columns = {name: checks.costs(column, name).astype(np.float64) for name, column in given.items()}
    n = len(columns["values"])
    for name, column in columns.items():
        checks.same_length(n, "values", name, len(column))
    room = checks.number(capacity, "capacity")
    eye, none = np.eye(n), np.zeros((n, n))
    # Outsourced: c = outsourcing - values; done: minus the outsourcing, plus what is lost; repaired: minus the loss.
    losing = np.diag(columns["deviations"])
    return TwoStageProgram(
        c=columns["outsourcing"] - columns["values"],
        d=np.r_[-columns["outsourcing"], np.zeros(n)],
        deviations=np.vstack([losing, -losing]),
        T=np.vstack([np.zeros((1, n)), -eye, none]),
        W=np.vstack([np.r_[columns["weights"], columns["repair_weights"]][None], np.c_[eye, none], np.c_[-eye, eye]]),
        h=np.r_[room, np.zeros(2 * n)],
        gamma=gamma,
    )
