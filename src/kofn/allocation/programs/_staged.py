"""Linear programs over stages whose state is stored from one to the next: reservoirs, inventories, batteries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InputError
from kofn.core.linear_programs import LinearProgram, ScaledRows

__all__ = ["StagedProgram"]

# Tables of so many horizons are kept: those of a rule that plans to the end anew at each of 60 stages.
_REMEMBERED = 64


@dataclass(frozen=True, eq=False)
class Staged:
    """What a program over stages decides.

    Attributes:
        costs: (stages,) of the controls, without what targets that are missed are charged.
        terminal: what is charged for the last state.
        states: (stages, k) after each stage.
        controls: (stages, m).
        duals: (stages, k) what one unit more of each target adds to the optimum.
        missed: summed distance of states from targets.
    """

    costs: Floats
    terminal: float
    states: Floats
    controls: Floats
    duals: Floats
    missed: float

    @property
    def total(self) -> float:
        """The cost of all stages and the last state."""
        return float(self.costs.sum() + self.terminal)


@dataclass(eq=False, kw_only=True)
class StagedProgram:
    """Minimise the cost of controls over stages, where each state is the last one plus inflow plus effect @ controls.

    Args:
        cost: (m,) of a unit of each control, at every stage.
        effect: (k, m) what a unit of each control adds to each state.
        rows: (r, m) limits of the controls of a stage.
        low: (r,) their least; (stages, r) where stages differ.
        high: likewise their most.
        state_bounds: (k, 2) of each state.
        control_bounds: (m, 2) of each control; infinity where there is none.
        start: (k,) the state before the first stage.
        terminal: (k,) what a unit of the last state saves.
        penalty: charged for each unit by which a state is off its target.

    `calls` counts the linear programs that HiGHS solved. Limits are kept to 1e-6 of their terms, in any unit.

    Examples:
        >>> from kofn.allocation import StagedProgram
        >>> # One reservoir: turbined water meets a demand of 2, bought power costs 5 a unit, spilling nothing.
        >>> store = StagedProgram(
        ...     cost=[0, 5, 0], effect=[[-1, 0, -1]], rows=[[1, 1, 0]], low=[2], high=[2], state_bounds=[[0, 4]],
        ...     control_bounds=[[0, 9]] * 3, start=[1], terminal=[0], penalty=100,
        ... )
        >>> store.solve([[0.0], [2.0]]).total
        5.0
    """

    cost: Any
    effect: Any
    rows: Any
    low: Any
    high: Any
    state_bounds: Any
    control_bounds: Any
    start: Any
    terminal: Any
    penalty: float
    calls: int = field(default=0, init=False)
    _tables: dict[tuple[Any, ...], tuple[Any, Any, ScaledRows]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("cost", "start", "terminal"):
            setattr(self, name, checks.vector(getattr(self, name), name).astype(np.float64))
        for name in ("effect", "rows", "state_bounds"):
            setattr(self, name, checks.matrix(getattr(self, name), name).astype(np.float64))
        for name in ("low", "high", "control_bounds"):
            setattr(self, name, checks.as_float(checks.as_array(getattr(self, name), name), name).astype(np.float64))
        k, m = len(self.start), len(self.cost)
        for name, shape in (
            ("effect", (k, m)),
            ("rows", (len(self.rows), m)),
            ("state_bounds", (k, 2)),
            ("control_bounds", (m, 2)),
            ("terminal", (k,)),
        ):
            given = getattr(self, name)
            if given.shape != shape:
                raise InputError(f"{name} has shape {given.shape}; {k} states and {m} controls ask for {shape}")
        if checks.number(self.penalty, "penalty") <= 0:
            raise InputError(f"penalty={self.penalty:g}: targets would not bind; give a number above 0")

    def inflows(self, inflows: ArrayLike) -> Floats:
        """(stages, k), checked."""
        given = checks.matrix(inflows, "inflows").astype(np.float64)
        if given.shape[1] != len(self.start):
            raise InputError(f"inflows has {given.shape[1]} columns for {len(self.start)} states; give one for each")
        return given

    def solve(
        self,
        inflows: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        start: ArrayLike | None = None,
        first: int = 0,
        last: bool = True,
    ) -> Staged:
        """The best controls of all stages when all inflows are known, near the targets where there are any.

        Args:
            inflows: (stages, k).
            targets: (stages, k) what the states should be; missing them is charged.
            start: (k,) the state before; default that of the program.
            first: number of the first stage, for limits that differ between stages.
            last: whether the last state is charged `terminal`.

        Raises:
            InfeasibleError: no controls keep the limits.
            InputError: the controls have no least cost, shapes that do not fit.
        """
        flow = self.inflows(inflows)
        stages, k = flow.shape
        m = len(self.cost)
        before = self.start if start is None else checks.vector(start, "start").astype(np.float64)
        worth = np.zeros((stages, k))
        if last:
            worth[-1] = self.terminal
        # Columns: controls, states, and how far states are below and above their targets.
        known = [flow + np.vstack([before, np.zeros((stages - 1, k))])]
        costs, ends = [np.tile(self.cost, stages), -worth.ravel()], [self.control_bounds] * stages
        ends = [*ends, *[self.state_bounds] * stages]
        if targets is not None:
            wanted = checks.matrix(targets, "targets").astype(np.float64)
            if wanted.shape != (stages, k):
                raise InputError(f"targets has shape {wanted.shape}, inflows {(stages, k)}; give one for each")
            known.append(wanted)
            costs.append(np.full(2 * stages * k, float(self.penalty)))
            ends.append(np.tile([0.0, np.inf], (2 * stages * k, 1)))
        low, high = (self._limits(side, first, stages) for side in (self.low, self.high))
        most = np.r_[high.ravel(), -low.ravel()]
        finite = np.isfinite(most)
        table, equal, scaled = self._table(stages, targets is not None, finite)
        ends_of = np.vstack(ends)
        solution, marginals, calls = LinearProgram(
            c=np.concatenate(costs),
            A=table,
            b=np.concatenate([*(part.ravel() for part in known), most[finite]]),
            equal=equal,
            least=ends_of[:, 0],
            most=ends_of[:, 1],
            scaled=scaled,
        ).solved(
            f"no controls keep rows, low, high and bounds over {stages} stages from stage {first} on; give a "
            "control that buys or spills what is missing or too much",
            "cost: the controls have no least cost; give control_bounds to what saves costs",
        )
        self.calls += calls
        controls = solution[: stages * m].reshape(stages, m)
        states = solution[stages * m : stages * (m + k)].reshape(stages, k)
        duals = np.zeros((stages, k)) if targets is None else marginals[stages * k : 2 * stages * k].reshape(stages, k)
        missed = 0.0 if targets is None else float(np.abs(states - known[1]).sum())
        terminal = -float(self.terminal @ states[-1]) if last else 0.0
        return Staged(controls @ self.cost, terminal, states, controls, duals, missed)

    def _table(self, stages: int, targets: bool, finite: Mask) -> tuple[Any, Mask, ScaledRows]:
        """The rows of so many stages, which are equalities, and both scaled; training asks for the same."""
        # Whoever changes `effect` or `rows` gets new tables.
        key = (stages, targets, finite.tobytes(), self.effect.tobytes(), self.rows.tobytes())
        if key not in self._tables:
            table, equal = self._built(stages, targets, finite)
            while len(self._tables) >= _REMEMBERED:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = (table, equal, ScaledRows.of(table, equal))
        return self._tables[key]

    def _built(self, stages: int, targets: bool, finite: Mask) -> tuple[Any, Mask]:
        from scipy.sparse import block_array, csr_array, eye_array, kron, vstack

        k = len(self.effect)
        identity = eye_array(stages * k, format="csr")
        shift = csr_array(kron(eye_array(stages, k=-1), np.eye(k)))
        moves: list[Any] = [-csr_array(kron(eye_array(stages), self.effect)), identity - shift]
        equal = [[*moves, None, None], [None, identity, identity, -identity]] if targets else [moves]
        table = csr_array(kron(eye_array(stages), self.rows))
        rest = csr_array((table.shape[0], stages * k * (3 if targets else 1)))
        limited = block_array([[table, rest], [-table, -rest]], format="csr")
        table_of_equal = block_array(equal, format="csr")
        ties = table_of_equal.shape[0]
        return (
            vstack([table_of_equal, limited[finite]], format="csr"),
            np.arange(ties + int(finite.sum())) < ties,
        )

    def _limits(self, side: Floats, first: int, stages: int) -> Floats:
        if side.ndim == 2:
            if len(side) < first + stages:
                raise InputError(f"low, high: limits of {len(side)} stages, asked for {first + stages}; give as many")
            return side[first : first + stages]
        return np.broadcast_to(side, (stages, len(self.rows)))
