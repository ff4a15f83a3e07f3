"""Mixed-integer programs as neighbourhood searches see them: solved whole, relaxed, or with most variables fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.highs import milp
from kofn.core.integer_programs import REFUSED, cost_unit, divided, is_infeasible, row_units

# How far a row may be off, relative to the size of its terms, and a value from a whole number: those of HiGHS.
_FEASIBLE, _WHOLE = 1e-6, 1e-5
# What HiGHS says of a program that is solved, of one whose time ended, and of one that it cannot tell apart.
_OPTIMAL, _OUT_OF_TIME, _UNDECIDED = 0, 1, 4
# It reads no coefficient from here on, and takes limits from here on for none.
_LARGE_ENTRY, _LARGE_LIMIT = 1e15, 1e20
# Entries of a row up to here, beside its largest of 1 to 2, it reads as 0.
_SMALL_ENTRY = 1e-9
NO_WHOLE_POINT = "A: no whole point within bounds keeps all rows, though fractions do; widen bounds or rows"


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise c @ x subject to low <= A @ x <= high and least <= x <= most, x whole where `whole`.

    Attributes:
        c: (n,) costs.
        A: (rows, n) sparse.
        low, high: (rows,) limits of the rows, infinite where there is none.
        least, most: (n,) bounds of the variables.
        whole: (n,) which variables are integers.
        calls: how often HiGHS was called, in a list of one.
        nodes: of its trees of branch and bound, likewise.
        matrix, ends: what errors call A, low and high.
    """

    c: Floats
    A: Any
    low: Floats
    high: Floats
    least: Floats
    most: Floats
    whole: Mask
    calls: list[int] = field(default_factory=lambda: [0])
    nodes: list[int] = field(default_factory=lambda: [0])
    matrix: str = "A"
    ends: tuple[str, str] = ("low", "high")
    row_unit: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_unit", row_units(self.A))
        self._refuse_unread()

    @property
    def n(self) -> int:
        """How many variables."""
        return len(self.c)

    @property
    def binary(self) -> Mask:
        """(n,) which variables are 0 or 1."""
        return self.whole & (self.least == 0) & (self.most == 1)

    def value(self, x: Floats) -> float:
        """The cost of a point."""
        return math.fsum((self.c * x).tolist())

    def rounded(self, x: Floats) -> Floats | None:
        """The point with its integers whole, or None where it does not keep the program then."""
        point = np.where(self.whole, np.round(x), x)
        if np.abs(point - x).max(initial=0.0) > _WHOLE:
            return None
        point = np.clip(point, self.least, self.most)
        rows = self.A @ point
        slack = _FEASIBLE * (self.row_unit + abs(self.A) @ np.abs(point))
        return point if (rows >= self.low - slack).all() and (rows <= self.high + slack).all() else None

    def relaxed(self, seconds: float = math.inf, within: float = math.inf) -> tuple[Floats | None, float]:
        """The optimum of the linear relaxation, and its cost, which no point of the program is below: None and minus
        infinity where the time was too short for it.

        Args:
            seconds: limit of the search for any point, where the relaxation has no least cost.
            within: limit of the relaxation itself.

        Raises:
            InfeasibleError: no point keeps even the relaxation; or it has no least cost, and no whole point.
            InputError: the relaxation has no least cost, or HiGHS refuses the program.
        """
        fractions = np.zeros(self.n)
        limit = _within(within)
        answer = self._solve(self.c, fractions, options=limit)
        none = is_infeasible(answer)
        if answer.status == _UNDECIDED:
            none = is_infeasible(self._solve(fractions, fractions, options=limit))
        if answer.status == _OUT_OF_TIME:
            return None, -math.inf
        if none:
            raise InfeasibleError("A: no values within bounds keep all rows, not even fractions; widen bounds or rows")
        if REFUSED in answer.message:
            raise InputError(f"A: the solver refuses the program ({answer.message}); scale rows and limits nearer to 1")
        if answer.x is None:
            point, proven = self.solved(costs=fractions, seconds=seconds)
            if proven == math.inf:
                raise InfeasibleError(NO_WHOLE_POINT)
            known = "" if point is not None else ", if any point keeps it, which the solver did not decide"
            raise InputError(
                f"c: the program has no least cost{known} ({answer.message}); give bounds to what is unbounded"
            )
        return answer.x, float(answer.fun)

    def solved(
        self,
        *,
        free: Mask | None = None,
        around: Floats | None = None,
        costs: Floats | None = None,
        extra: tuple[Floats, float] | None = None,
        seconds: float = math.inf,
        nodes: int | None = None,
        gap: float | None = None,
    ) -> tuple[Floats | None, float]:
        """The best point that HiGHS finds within its limits, or None, and the bound it proves of this program: infinite
        where it proves that no point keeps it.

        Args:
            free: (n,) which variables may move; the others keep their value in `around`. Default all.
            around: (n,) the values that are kept.
            costs: (n,) what is minimised, default `c`.
            extra: a row (n,) and the most it may come to.
            seconds: limit of one call.
            nodes: limit of branch and bound.
            gap: relative gap at which it ends; default that of HiGHS.
        """
        minimised = self.c if costs is None else costs
        options: dict[str, Any] = _within(seconds) | ({} if nodes is None else {"node_limit": nodes})
        options |= {} if gap is None else {"mip_rel_gap": gap}
        rows = [(self.A, self.low, self.high, self.row_unit)]
        if extra is not None:
            row = extra[0][None]
            rows.append((row, np.array([-np.inf]), np.array([extra[1]]), row_units(row)))
        if free is None or around is None:
            answer = self._solve(minimised, self.whole, rows=rows, options=options)
            point = None if answer.x is None else self.rounded(answer.x)
            if answer.x is not None and point is None and not self.whole.all():
                # Whole to the solver's tolerance only, times large entries: the others follow the whole numbers.
                point, _ = self.solved(free=~self.whole, around=np.round(answer.x), costs=costs, seconds=seconds)
            return point, _bound(answer)
        if not free.any():
            return around, self.value(around)
        kept = np.where(free, 0.0, around)
        part = [(_columns(A, free), low - A @ kept, high - A @ kept, unit) for A, low, high, unit in rows]
        answer = self._solve(
            minimised[free], self.whole[free], rows=part, bounds=(self.least[free], self.most[free]), options=options
        )
        if answer.x is None:
            return None, _bound(answer)
        point = kept
        point[free] = answer.x
        return self.rounded(point), _bound(answer)

    def _solve(self, c: Floats, whole: Any, *, rows: Any = None, bounds: Any = None, options: Any = None) -> Any:
        from scipy.optimize import Bounds, LinearConstraint

        self.calls[0] += 1
        given: Any = options or {}
        least, most = (self.least, self.most) if bounds is None else bounds
        limits = [(self.A, self.low, self.high, self.row_unit)] if rows is None else rows
        # The solver's tolerances are those of numbers around 1: what is smaller or far larger is scaled by powers of 2.
        unit = cost_unit(float(np.abs(c).max(initial=0.0)))
        answer: Any = milp(
            c / unit,
            integrality=np.asarray(whole, np.int64),
            bounds=Bounds(least, most),
            constraints=[
                LinearConstraint(divided(A, row_unit), low / row_unit, high / row_unit)
                for A, low, high, row_unit in limits
                if A.shape[0]
            ],
            options=given,
            stoppable=True,
        )
        self.nodes[0] += int(answer.get("mip_node_count") or 0)
        for name in ("fun", "mip_dual_bound"):
            if answer.get(name) is not None:
                answer[name] *= unit
        return answer

    def _refuse_unread(self) -> None:
        """Refuse entries and limits that the solver would leave out beside the largest entry of their row.

        Raises:
            InputError: there is one.
        """
        shares = abs(divided(self.A, self.row_unit)).tocoo()
        reach = np.maximum(np.abs(self.least), np.abs(self.most))[shares.col]
        with np.errstate(invalid="ignore"):
            lost = (shares.data > 0) & (shares.data <= _SMALL_ENTRY) & (shares.data * reach > _FEASIBLE)
        if lost.any():
            row, column = int(shares.row[lost.argmax()]), int(shares.col[lost.argmax()])
            raise InputError(
                f"{self.matrix} at row {row}, column {column} is {self.A[row, column]:g}, which the solver reads as 0 "
                f"beside the row's largest entry; measure variable {column} in larger units, or bound it"
            )
        sides = zip(self.ends, (self.low, self.high), (-math.inf, math.inf), strict=True)
        for name, side, open_end in sides:
            far = (np.abs(side / self.row_unit) >= _LARGE_LIMIT) & (side != open_end)
            if far.any():
                row = int(far.argmax())
                raise InputError(
                    f"{name} at row {row} is {side[row]:g}, too far from the row's entries for the solver, of at most "
                    f"{2 * self.row_unit[row]:g}; give {open_end:g} for no limit, or enlarge the entries"
                )


def _columns(A: Any, free: Mask) -> Any:
    return A[:, free] if isinstance(A, np.ndarray) else A[:, np.flatnonzero(free)]


def _within(seconds: float) -> dict[str, Any]:
    """The solver's option for a limit of time."""
    return {"time_limit": max(seconds, 1e-3)} if math.isfinite(seconds) else {}


def _bound(answer: Any) -> float:
    if is_infeasible(answer):
        return math.inf
    bound = getattr(answer, "mip_dual_bound", None)
    # Where nothing is whole there is no tree, and the optimum is the bound.
    if bound is None and answer.status == _OPTIMAL:
        bound = answer.fun
    return -math.inf if bound is None or not math.isfinite(bound) else float(bound)


def program(c: Any, A: Any, low: Any, high: Any, bounds: Any, integrality: Any) -> Program:
    """The program of these words, checked; bounds of whole variables are whole.

    Raises:
        InputError: shapes that do not fit, NaN, numbers too large for HiGHS.
        InfeasibleError: limits the wrong way round, bounds of a whole variable without a whole number.
    """
    from scipy.sparse import csc_array

    costs = checks.vector(c, "c").astype(np.float64)
    n = len(costs)
    # One limit may come as its row alone.
    table = A if checks.is_sparse(A) else checks.as_array(A, "A")
    if table.ndim == 1:
        table = table.reshape(1, -1)
    if not checks.is_sparse(table):
        table = checks.matrix(table, "A")
    if table.shape[1] != n:
        raise InputError(f"A has {table.shape[1]} columns, c has {n} values; give one column for each variable")
    rows = csc_array(table, dtype=np.float64)
    if not np.isfinite(rows.data).all():
        raise InputError("A has an entry that is not finite; give numbers, and leave out a row that limits nothing")
    refuse_unreadable(rows)
    lowest, highest = (
        _limits(side, name, rows.shape[0], open_end)
        for side, name, open_end in ((low, "low", -np.inf), (high, "high", np.inf))
    )
    _ordered(lowest, highest, "low", "high")
    least, most = ends_of(bounds, n)
    whole = _which_whole(integrality, n)
    _hold_whole(least, most, whole)
    return Program(costs, rows, lowest, highest, least, most, whole)


def refuse_unreadable(rows: Any, matrix: str = "A") -> None:
    """Refuse entries of a size that HiGHS does not read, which it would answer as if no point kept the program.

    Raises:
        InputError: there is one.
    """
    large = np.flatnonzero(np.abs(rows.data) >= _LARGE_ENTRY)
    if len(large):
        row, column = int(rows.indices[large[0]]), int(np.searchsorted(rows.indptr, large[0], side="right") - 1)
        raise InputError(
            f"{matrix} at row {row}, column {column} is {rows.data[large[0]]:g}; the solver reads entries below "
            f"{_LARGE_ENTRY:g} in size: divide the row and its limits by a number"
        )


def _reachable(limits: Floats, name: str, side: str, open_end: float) -> None:
    """Refuse limits that HiGHS takes for none, and infinity where nothing can reach it."""
    large = (np.abs(limits) >= _LARGE_LIMIT) & (limits != open_end)
    if large.any():
        row = int(large.argmax())
        raise InputError(
            f"{name} at {side} {row} is {limits[row]:g}; the solver takes {_LARGE_LIMIT:g} and more for infinite: "
            f"give {open_end:g} for no limit, or divide by a number"
        )


def _hold_whole(least: Floats, most: Floats, whole: Mask) -> None:
    """Move the bounds of whole variables to whole numbers, in place."""
    lowest, highest = np.ceil(least[whole]) + 0.0, np.floor(most[whole]) + 0.0
    none = np.flatnonzero(lowest > highest)
    if len(none):
        row = int(np.flatnonzero(whole)[none[0]])
        raise InfeasibleError(
            f"bounds of variable {row} are {least[row]:g} to {most[row]:g}, which hold no whole number; widen them, or "
            "give integrality 0 there"
        )
    least[whole], most[whole] = lowest, highest


def _limits(side: ArrayLike | None, name: str, rows: int, open_end: float) -> Floats:
    if side is None:
        return np.full(rows, open_end)
    limits = checks.as_float(checks.as_array(side, name), name).astype(np.float64)
    if limits.ndim > 1 or limits.size not in (1, rows):
        raise InputError(f"{name} has shape {limits.shape}, A has {rows} rows; give one limit a row")
    if np.isnan(limits).any():
        raise InputError(
            f"{name} at row {int(np.isnan(limits).argmax())} is NaN; give a number, or infinity for no limit"
        )
    out = np.broadcast_to(limits, (rows,)).copy()
    _reachable(out, name, "row", open_end)
    return out


def ends_of(bounds: Any, n: int, name: str = "bounds") -> tuple[Floats, Floats]:
    """(n,) the least and the most of each variable.

    Raises:
        InputError: another shape, NaN, bounds too large for HiGHS.
        InfeasibleError: bounds the wrong way round.
    """
    ends = checks.as_float(checks.as_array(bounds, name), name).astype(np.float64)
    if ends.shape not in ((2,), (n, 2)):
        raise InputError(
            f"{name} has shape {ends.shape}; give (least, most), or one such pair for each of {n} variables"
        )
    if np.isnan(ends).any():
        raise InputError(f"{name} has a NaN; give numbers, or infinity where there is no bound")
    pairs = np.broadcast_to(ends, (n, 2))
    least, most = pairs[:, 0].copy(), pairs[:, 1].copy()
    _reachable(least, f"least of {name}", "variable", -math.inf)
    _reachable(most, f"most of {name}", "variable", math.inf)
    _ordered(least, most, f"least of {name}", "most")
    return least, most


def _ordered(low: Floats, high: Floats, name: str, other: str) -> None:
    if (low > high).any():
        row = int((low > high).argmax())
        raise InfeasibleError(f"{name} at row {row} is {low[row]:g}, {other} is {high[row]:g}; give {name} <= {other}")


def _which_whole(integrality: Any, n: int) -> Mask:
    whole = checks.as_array(integrality, "integrality")
    if whole.dtype.kind not in "biuf" or whole.ndim > 1 or whole.size not in (1, n) or not np.isin(whole, (0, 1)).all():
        raise InputError(f"integrality: give 1 for whole numbers and 0 for others, once or for each of {n} variables")
    return np.broadcast_to(whole.astype(bool), (n,)).copy()
