"""Two-stage programs whose second stage decides once costs are known: the parts that all ways of solving share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.programs._mixed_integer import Program, ends_of, program, refuse_unreadable
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.integer_programs import unit_of

__all__ = ["TwoStageProgram", "two_stage_knapsack"]

# A cut is worth adding where it lowers the adversary's bound by this share.
_ROUNDING = 1e-9


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
    unit: float = field(default=1.0, init=False, repr=False)
    _both: Program = field(init=False, repr=False)

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
        self.unit = unit_of(self.largest)
        self._both = self._both_stages()

    @property
    def largest(self) -> float:
        """The size of the largest cost, which tolerances are a share of."""
        return max(float(np.abs(part).max(initial=0.0)) for part in (self.c, self.d, self.deviations))

    @property
    def uncertain(self) -> int:
        """How many numbers u has, p."""
        return int(self.deviations.shape[1])

    @property
    def second_ends(self) -> tuple[Floats, Floats]:
        """(m,) least and most of y."""
        n = len(self.c)
        return self._both.least[n:], self._both.most[n:]

    def first_stage(self) -> Program:
        """The limits of x alone, with the costs c."""
        A = np.zeros((1, len(self.c))) if self.A is None else self.A
        return program(self.c, A, None, 0.0 if self.A is None else self.high, self.bounds, 1)

    def costs(self, u: Any) -> Floats:
        """(m,) costs of the second stage."""
        return np.asarray(self.d + self.deviations @ np.asarray(u, np.float64))

    def _both_stages(self) -> Program:
        """The limits that tie both stages together, of (x, y), without costs."""
        from scipy.sparse import csc_array

        n, m = len(self.c), len(self.d)
        first = self.first_stage()
        least, most = ends_of(self.bounds_y, m, "bounds_y")
        tied = csc_array(np.hstack([self.T, self.W]))
        refuse_unreadable(tied, "T, W")
        return Program(
            c=np.zeros(n + m),
            A=tied,
            low=np.full(len(self.h), -np.inf),
            high=self.h,
            least=np.r_[first.least, least],
            most=np.r_[first.most, most],
            whole=np.ones(n + m, bool),
            matrix="T, W",
            ends=("low", "h"),
        )

    def solved(self, model: Program, seconds: float = math.inf, **part: Any) -> tuple[Floats | None, float]:
        """What `Program.solved` answers without a gap, counted in `calls` and `nodes`."""
        calls, nodes = model.calls[0], model.nodes[0]
        answer = model.solved(seconds=seconds, gap=0.0, **part)
        self.calls += model.calls[0] - calls
        self.nodes += model.nodes[0] - nodes
        return answer

    def recourse(self, x: ArrayLike, u: ArrayLike) -> tuple[float, Floats]:
        """The least cost of the second stage, and the y that reaches it.

        Raises:
            InfeasibleError: no y keeps the limits with this x.
            InputError: an x out of bounds, a u that may not be.
        """
        return self._recourse(self._decided(x), self._possible(u))

    def _recourse(self, x: Floats, u: Floats) -> tuple[float, Floats]:
        n, costs = len(self.c), self.costs(u)
        later = np.arange(n + len(costs)) >= n
        point, proven = self.solved(
            self._both,
            free=later,
            around=np.where(later, 0.0, np.r_[x, costs]),
            costs=np.r_[np.zeros(n), costs / self.unit],
        )
        if proven == math.inf:
            raise InfeasibleError("x leaves no y that keeps T @ x + W @ y <= h; every x must leave one")
        if point is None:
            raise FailureError(
                "T, W: the solver gives no y of least cost that keeps all rows to 1e-6; give bounds_y, or scale rows"
            )
        y = point[n:]
        return math.fsum((costs * y).tolist()), y

    def _decided(self, x: ArrayLike) -> Floats:
        """x, checked."""
        n = len(self.c)
        decided = checks.vector(x, "x").astype(np.float64)
        if len(decided) != n:
            raise InputError(f"x has {len(decided)} values, c has {n}; give one for each")
        wrong = (decided < self._both.least[:n]) | (decided > self._both.most[:n]) | (decided != np.round(decided))
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"x at row {row} is {decided[row]:g}; give whole numbers from {self._both.least[row]:g} to "
                f"{self._both.most[row]:g}"
            )
        return decided

    def _possible(self, u: ArrayLike) -> Floats:
        """u, checked."""
        possible = checks.vector(u, "u").astype(np.float64)
        if len(possible) != self.uncertain:
            raise InputError(f"u has {len(possible)} values, deviations {self.uncertain} columns; give one for each")
        if self.scenarios is not None:
            if not (np.asarray(self.scenarios) == possible).all(axis=1).any():
                raise InputError("u is none of the scenarios; give one of their rows")
            return possible
        wrong = (possible < 0) | (possible > 1)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"u at row {row} is {possible[row]:g}; give numbers from 0 to 1")
        gamma = float(self.gamma or 0)
        if math.fsum(possible.tolist()) > gamma * (1 + _ROUNDING):
            raise InputError(f"u comes to {possible.sum():g}, gamma is {gamma:g}; give a u of at most that")
        return possible

    def worst(self, x: ArrayLike) -> tuple[float, Floats]:
        """The cost of the second stage at the worst u, exactly, and that u.

        Of scenarios each is solved. Within `gamma` the cost is the lowest of one plane for each y, and u is where it is
        highest by the planes that are known; the y that is best there is the next plane.

        Raises:
            InfeasibleError: no y keeps the limits with this x.
            InputError: an x out of bounds.
        """
        decided = self._decided(x)
        if self.scenarios is not None:
            options = np.asarray(self.scenarios)
            values = [self._recourse(decided, u)[0] for u in options]
            worst = int(np.argmax(values))
            return values[worst], options[worst]
        u = np.zeros(self.uncertain)
        planes: dict[bytes, tuple[float, Floats]] = {}
        best, best_u = -math.inf, u
        while True:
            value, y = self._recourse(decided, u)
            if value > best:
                best, best_u = value, u
            key = (y + 0.0).tobytes()
            if key in planes:
                return best, best_u
            planes[key] = (math.fsum((self.d * y).tolist()), self.deviations.T @ y)
            u, highest = self._highest(list(planes.values()))
            if highest <= best + _ROUNDING * max(self.largest, abs(best)):
                return best, best_u

    def _highest(self, planes: list[tuple[float, Floats]]) -> tuple[Floats, float]:
        """The u at which the lowest of the planes is highest, and what that comes to."""
        from scipy.sparse import csc_array

        p, gamma = self.uncertain, float(self.gamma or 0)
        # Maximise t with t <= constant + slope @ u.
        table = np.vstack([*(np.r_[1.0, -slope / self.unit] for _, slope in planes), np.r_[0.0, np.ones(p)]])
        model = Program(
            c=np.r_[-1.0, np.zeros(p)],
            A=csc_array(table),
            low=np.full(len(table), -np.inf),
            high=np.array([*(constant / self.unit for constant, _ in planes), gamma]),
            least=np.r_[-np.inf, np.zeros(p)],
            most=np.r_[np.inf, np.ones(p)],
            whole=np.zeros(p + 1, bool),
            matrix="deviations",
        )
        point, bound = self.solved(model)
        if point is None:
            raise FailureError("deviations: the solver gives no worst u; scale d and deviations nearer to each other")
        u = np.clip(point[1:], 0, 1)
        return u * min(1.0, gamma / max(math.fsum(u.tolist()), 1e-300)), -bound * self.unit


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
