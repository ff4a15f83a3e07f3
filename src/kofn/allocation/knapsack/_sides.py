"""What an allocation over levels must keep beside its budget: shares of groups, other resources, how many, pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.knapsack._core_model import Pair, Row
from kofn.allocation.knapsack._curves import Problem
from kofn.core import checks
from kofn.core.arrays import Ints
from kofn.core.checks import InfeasibleError, InputError, nearest, shown

_LARGEST = 2**62


def budget_row(problem: Problem) -> Row:
    """The budget itself."""
    return Row("budget", _exact(problem.costs), -math.inf, float(problem.budget))


def group_rows(problem: Problem, groups: Any, quotas: Mapping[Any, Any] | None) -> list[Row]:
    """The least and the most that each group may cost; shares are of the budget."""
    if quotas is None:
        if groups is not None:
            raise InputError("groups says nothing without quotas; give quotas={group: (least, most)}")
        return []
    if groups is None:
        raise InputError("quotas need groups; give the group of each item")
    nested = isinstance(groups, Mapping)
    columns = [(f"{name}=", groups[name], quotas[name]) for name in quotas] if nested else [("", groups, quotas)]
    costs = _exact(problem.costs)
    rows = []
    for prefix, labels, ends in columns:
        for group, (low, high) in ends.items():
            mine = np.asarray(labels) == group
            least, most = (_of_budget(end, problem.budget) for end in (low, high))
            name = f"{prefix}{group}"
            _refuse_unreachable(problem, mine, least, most, name)
            rows.append(
                Row(name, np.where(mine[:, None], costs, 0), least or -math.inf, math.inf if most is None else most)
            )
    return rows


def _of_budget(end: Any, budget: float | int) -> Any:
    """A quota's end in units of cost; a share is of the budget."""
    return float(end * Fraction(budget)) if isinstance(end, Fraction) else end


def _refuse_unreachable(problem: Problem, mine: NDArray[np.bool_], least: Any, most: Any, name: str) -> None:
    """Refuse a group that costs less than its least at its dearest, or more than its most at its cheapest."""
    dearest = problem.costs[mine].max(axis=1).sum()
    cheapest = problem.costs[mine].min(axis=1).sum()
    if least and dearest < least:
        raise InfeasibleError(
            f"quotas: group {name!r} must cost at least {least:g}, and its dearest levels cost {dearest:g}; lower it "
            f"by {least - dearest:g}"
        )
    if most is not None and cheapest > most * (1 + 1e-12):
        raise InfeasibleError(
            f"quotas: group {name!r} may cost at most {most:g}, and its cheapest levels cost {cheapest:g}; raise it by "
            f"{cheapest - most:g}"
        )


def count_row(problem: Problem, k: int | None) -> list[Row]:
    """At most k items above zero."""
    if k is None:
        return []
    if k > len(problem.levels):
        raise InputError(f"k={k} of {len(problem.levels)} items: no more can be above zero; leave k out")
    above = above_zero(problem)
    always = int((above.all(axis=1)).sum())
    if always > k:
        raise InfeasibleError(
            f"k={k} items may be above zero, and {always} have no level of 0; raise k by {always - k}"
        )
    return [Row("k", above.astype(np.int64), -math.inf, float(k))]


def above_zero(problem: Problem) -> NDArray[np.bool_]:
    """(n, L) which levels are above zero."""
    above: NDArray[np.bool_] = problem.levels > 0
    return above


def resource_rows(problem: Problem, resources: Mapping[Any, Any] | None, limits: Mapping[Any, Any] | None) -> list[Row]:
    """What the items take of other resources, and how much there is of each."""
    resources, limits = resources or {}, limits or {}
    for name in limits:
        if name not in resources:
            raise InputError(
                f"limits names {shown(name)}, which resources lacks{nearest(str(name), map(str, resources))}"
            )
    for name in resources:
        if name not in limits:
            raise InputError(f"resources names {shown(name)}, which limits lacks; give limits={{{shown(name)}: ...}}")
    rows = []
    for name, given in resources.items():
        label, limit = f"resources[{name!r}]", checks.number(limits[name], f"limits[{name!r}]")
        if name == "budget":
            raise InputError("resources names 'budget', which is what sizes and levels cost; call it otherwise")
        table = _of_levels(problem, given, label)
        least = np.where(problem.forbidden, np.inf, table).min(axis=1).sum()
        if least > limit * (1 + 1e-12):
            raise InfeasibleError(
                f"limits[{name!r}]={limit:g} is below {least:g}, what the items take at least; raise it "
                f"by {least - limit:g}"
            )
        rows.append(Row(str(name), table, -math.inf, float(limit)))
    return rows


def _of_levels(problem: Problem, given: Any, label: str) -> NDArray[Any]:
    """(n, L) what each level takes: as given, or for a unit of amount."""
    array = checks.as_array(given, label)
    if array.ndim == 1:
        units = checks.costs(array, label)
        checks.same_length(len(problem.levels), "curves", label, len(units))
        return _exact(units[:, None] * problem.levels)
    if array.shape != problem.levels.shape:
        n, width = problem.levels.shape
        raise InputError(
            f"{label} has shape {array.shape}; give ({n},), for a unit of amount, or ({n}, {width}), a level"
        )
    table = array if array.dtype.kind in "iu" else checks.matrix(array, label)
    if table.min() < 0:
        i, j = np.unravel_index(int(table.argmin()), table.shape)
        raise InputError(f"{label} at row {i}, column {j} is {table[i, j]:g}; give what the level takes, >= 0")
    return _exact(table)


def _exact(table: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as such, so that they are added up without rounding."""
    if table.dtype.kind in "iu":
        return table.astype(np.int64)
    floats = table.astype(np.float64)
    top = float(np.abs(floats).max(initial=0.0))
    if top * len(floats) < _LARGEST and top <= 2.0**53 and (floats == np.floor(floats)).all():
        return floats.astype(np.int64)
    return floats


def pairs_of(problem: Problem, precedence: Any, exclusions: Any) -> list[Pair]:
    """The pairs of items that depend on each other being above zero."""
    n, out = len(problem.levels), []
    for name, given, together in (("precedence", precedence, True), ("exclusions", exclusions, False)):
        for first, second in [] if given is None else _rows_of(given, name, n).tolist():
            if first == second:
                raise InputError(f"{name} names row {first} twice in one pair; give two items")
            # Of precedence (a, b), b needs a.
            out.append(Pair(second, first, True) if together else Pair(first, second, False))
    return out


def _rows_of(given: Any, name: str, n: int) -> Ints:
    array = checks.as_array(given, name)
    if array.size == 0:
        return np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise InputError(f"{name} has shape {array.shape}; give pairs of row numbers, or of ids where ids are given")
    wrong = (array < 0) | (array >= n)
    if wrong.any():
        raise InputError(f"{name} names row {int(array[wrong][0])}; the rows are 0..{n - 1}")
    return array.astype(np.int64)


def tied_rows(labels: Any, n: int) -> Ints | None:
    """(n,) the number of each item's tied group; None where none are tied."""
    if labels is None:
        return None
    given = checks.labels(labels, "tied")
    checks.same_length(n, "curves", "tied", len(given))
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def summed(table: NDArray[Any], group: Ints | None) -> NDArray[Any]:
    """(m, L) the sums of a table over items that are tied, level by level."""
    if group is None:
        return table
    out = np.zeros((int(group.max()) + 1, table.shape[1]), table.dtype)
    np.add.at(out, group, table)
    return out


def joined(rows: Sequence[Row], group: Ints | None) -> list[Row]:
    """The rows of the tied groups in place of the items'."""
    return [Row(row.name, summed(row.table, group), row.low, row.high) for row in rows]
