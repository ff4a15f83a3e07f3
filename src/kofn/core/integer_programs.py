"""Units in which HiGHS reads programs: its tolerances are those of numbers from 1 to a million."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core.arrays import Floats
from kofn.core.checks import is_sparse

# Costs of programs that are scaled whole are brought to 2^10 or a little more: HiGHS stops within 1e-6 of the optimum.
_COSTS = 10
# Costs up to 2^20 need no scaling down.
_LARGE = 20
_SMALLEST = -1021
# What HiGHS says of a program that no point keeps, and of one that it refuses to read.
INFEASIBLE, REFUSED = 2, "Model error"


def unit_of(size: float, exponent: int = _COSTS) -> float:
    """The power of 2 that brings a size, divided by it, to 2^exponent or up to twice that; 1 for a size of 0."""
    return math.ldexp(1.0, max(math.frexp(size)[1] - 1 - exponent, _SMALLEST)) if size > 0 else 1.0


def enlarging_unit(size: float) -> float:
    """The power of 2 that is just not above a size below 1; 1 for others, and for 0."""
    return unit_of(size, 0) if 0 < size < 1 else 1.0


def cost_unit(size: float) -> float:
    """What costs of this size are divided by: the solver's tolerances are those of numbers from 1 to a million."""
    return unit_of(size, _LARGE) if size > math.ldexp(1.0, _LARGE) else enlarging_unit(size)


def row_units(A: Any, unit: Callable[[float], float] = enlarging_unit) -> Floats:
    """(rows,) what each row is divided by before it is solved: the unit of its largest entry."""
    largest = abs(A).max(axis=1)
    dense = largest.toarray() if is_sparse(largest) else np.asarray(largest)
    return np.array([unit(size) for size in dense.ravel().tolist()])


def divided(A: Any, row_unit: Floats) -> Any:
    """The sparse rows, each divided by its unit."""
    from scipy.sparse import csc_array

    rows = csc_array(A)
    return csc_array((rows.data / row_unit[rows.indices], rows.indices, rows.indptr), shape=rows.shape)


def is_infeasible(answer: Any) -> bool:
    """Whether HiGHS proved that there is no point; a program that it refuses to read has the same number."""
    return bool(answer.status == INFEASIBLE and REFUSED not in answer.message)
