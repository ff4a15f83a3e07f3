"""Linear programs by HiGHS in any unit: scaled by powers of 2 for its tolerances, and recounted by their own terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Mask
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.core.highs import linprog
from kofn.core.integer_programs import cost_unit, divided, is_infeasible, row_units

# What SciPy says of a program without a least cost.
_UNBOUNDED = 3
# A row is kept to this share of its terms, but for what is this share of the largest limit.
_FEASIBLE, _NOTHING = 1e-6, 1e-12
# Entries up to here it reads as 0.
_SMALL_ENTRY = 1e-9
# Quantities are enlarged by so many powers of 2 where the solver's tolerance was too wide for the small ones.
_FINER = 20


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """The rows of a program in the solver's units; programs that differ in `c`, `b` and bounds alone may share them.

    Attributes:
        sizes: the entries of A without their signs.
        columns: (n,) what a unit of each variable is, in the solver's.
        rows: (rows,) what each row is divided by.
        upper: the scaled rows that are at most b.
        level: the scaled rows that equal b.
        entries: all scaled entries, with their places.
    """

    sizes: Any
    columns: Floats
    rows: Floats
    upper: Any
    level: Any
    entries: Any

    @classmethod
    def of(cls, A: Any, equal: Mask) -> ScaledRows:
        """The units that make the largest entry of each column and row near 1, by powers of 2."""
        columns = row_units(A.T, cost_unit)
        by_column = divided(A.T, columns).T
        rows = row_units(by_column, cost_unit)
        scaled = divided(by_column, rows).tocsr()
        return cls(abs(A), columns, rows, scaled[~equal], scaled[equal], scaled.tocoo())


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """Minimise c @ x subject to A @ x = b where `equal`, A @ x <= b elsewhere, and least <= x <= most.

    `scaled` are the rows of A as `ScaledRows.of` makes them, where an earlier program had the same.
    """

    c: Floats
    A: Any
    b: Floats
    equal: Mask
    least: Floats
    most: Floats
    scaled: ScaledRows | None = None

    def solved(self, infeasible: str, unbounded: str) -> tuple[Floats, Floats, int]:
        """The optimum, what one unit more of each entry of `b` adds to its cost, and how often HiGHS was called.

        Args:
            infeasible: what an error says where no point keeps the program.
            unbounded: likewise where it has no least cost.

        Raises:
            InfeasibleError: no point keeps it.
            InputError: it has no least cost, or entries that the solver reads as 0 and that may count.
            FailureError: the solver's answer does not keep it.
        """
        message = ""
        scaled = ScaledRows.of(self.A, self.equal) if self.scaled is None else self.scaled
        for call, finer in enumerate((0, _FINER), start=1):
            x, marginals, answer = self._solve(scaled, finer)
            if x is not None and self._kept(x, scaled.sizes):
                return x, marginals, call
            if is_infeasible(answer) and not finer:
                raise InfeasibleError(infeasible)
            if answer.status == _UNBOUNDED:
                raise InputError(unbounded)
            message = answer.message
        raise FailureError(f"the solver keeps rows to {_FEASIBLE:g} in no unit ({message}); scale quantities alike")

    def kept(self, x: Floats) -> bool:
        """Whether the point keeps all rows, each to a share of its terms."""
        return self._kept(x, abs(self.A))

    def _kept(self, x: Floats, sizes: Any) -> bool:
        over = self.A @ x - self.b
        terms = sizes @ np.abs(x) + np.abs(self.b)
        slack = _FEASIBLE * terms + _NOTHING * float(terms.max(initial=0.0))
        return bool((np.where(self.equal, np.abs(over), over) <= slack).all())

    def _solve(self, scaled: ScaledRows, finer: int) -> tuple[Floats | None, Floats, Any]:
        columns, rows = scaled.columns, scaled.rows
        b = self.b / rows
        # Every quantity is measured in this unit, and every cost in that one.
        quantity = math.ldexp(_quantity(b, self.least * columns, self.most * columns), -finer)
        self._refuse_unread(scaled.entries, np.maximum(np.abs(self.least), np.abs(self.most)) * columns / quantity)
        costs = self.c / columns
        price = cost_unit(float(np.abs(costs).max(initial=0.0)))
        answer = linprog(
            costs / price,
            A_ub=scaled.upper,
            b_ub=b[~self.equal] / quantity,
            A_eq=scaled.level,
            b_eq=b[self.equal] / quantity,
            bounds=np.stack([self.least * columns / quantity, self.most * columns / quantity], axis=1),
        )
        marginals = np.zeros(len(b))
        if answer.x is None:
            return None, marginals, answer
        marginals[~self.equal], marginals[self.equal] = answer.ineqlin.marginals, answer.eqlin.marginals
        x = np.clip(answer.x / columns * quantity, self.least, self.most)
        return x, marginals * price / rows, answer

    def _refuse_unread(self, entries: Any, reach: Floats) -> None:
        sizes = np.abs(entries.data)
        small = (sizes > 0) & (sizes <= _SMALL_ENTRY)
        lost = small & (np.where(small, sizes, 1.0) * reach[entries.col] > _FEASIBLE)
        if lost.any():
            row, column = int(entries.row[lost.argmax()]), int(entries.col[lost.argmax()])
            raise InputError(
                f"{self.A[row, column]:g} is read as 0 by the solver beside the other entries of its row and column; "
                "measure what it is about in units nearer to theirs, or give it bounds"
            )


def _quantity(b: Floats, least: Floats, most: Floats) -> float:
    """The unit of the limits, or of the bounds where there is no limit but 0."""
    largest = float(np.abs(b).max(initial=0.0))
    if not largest:
        ends = np.abs(np.concatenate([least, most]))
        largest = float(ends[np.isfinite(ends)].max(initial=0.0))
    return cost_unit(largest)
