"""The best of all sets of deviations from the levels that prices choose, by enumeration under a rising gap.

At the rows' prices each item has a best level, and whoever takes another loses its excess. A plan is a set of such
deviations, and its gap to the Lagrangian bound is the sum of their excesses and of what the unused rest of each priced
row is worth: no term is negative. So all plans of a gap below g are among the sets whose excesses add up to less than
g, which are few where g is small: g rises until one of them keeps all rows, and then the best of them is optimal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba as nb
import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.core.compiled import INNER, OUTER

# Deviations of the first round, and how much more there are in each later one.
_FIRST, _GROWTH = 20, 1.25
# Sets of deviations that are looked at in all; HiGHS takes what needs more.
_MOST_SETS = 2_000_000
# What stands for no limit: a difference of it and of any sum is still no limit.
OPEN = 1e300
_FULL, _NONE = -2, -1


@dataclass(frozen=True)
class Deviations:
    """Levels beside the best ones in order of excess: (c,) excess and item, (c, rows) what each changes of the rows.

    `above` and `below` (rows,) are what the best levels leave to each row's ends, `OPEN` where there is none.
    """

    excess: Floats
    item: Ints
    change: Floats
    prices: Floats
    above: Floats
    below: Floats


def least_gap(core: Deviations, stopped: Callable[[], bool]) -> tuple[Ints | None, int]:
    """The deviations of least gap, None where that is not settled within the sets that are looked at, and the sets."""
    count, sets = _FIRST, 0
    while count < len(core.excess) and not stopped():
        chosen = np.zeros(count, np.int64)
        _, item = np.unique(core.item[:count], return_inverse=True)
        size, visited = _enumerate(
            core.excess[: count + 1],
            np.asarray(item, np.int64),
            core.change[:count],
            core.prices,
            core.above,
            core.below,
            _MOST_SETS - sets,
            chosen,
        )
        sets += visited
        if size == _FULL:
            break
        if size != _NONE:
            return chosen[:size], sets
        count = int(count * _GROWTH) + 1
    return None, sets


@nb.njit(**INNER)
def _reach(excess, change):  # type: ignore[no-untyped-def]
    """(c + 1, rows, 2, 2) of the deviations from each on: the largest rise and fall of a row, and a unit of excess."""
    count, rows = change.shape
    reach = np.zeros((count + 1, rows, 2, 2))
    for j in range(count - 1, -1, -1):
        unit = max(excess[j], 1e-300)
        for row in range(rows):
            for way in range(2):
                moved = change[j, row] if way == 0 else -change[j, row]
                reach[j, row, way, 0] = max(reach[j + 1, row, way, 0], moved)
                reach[j, row, way, 1] = max(reach[j + 1, row, way, 1], moved / unit)
    return reach


@nb.njit(**INNER)
def _gap(moved, excess, prices, above, below):  # type: ignore[no-untyped-def]
    """The gap of a set that moves the rows by so much, infinite where it keeps not all of them."""
    gap = excess
    for row in range(len(prices)):
        over, under = above[row] - moved[row], below[row] + moved[row]
        if over < 0 or under < 0:
            return np.inf
        if prices[row] > 0:
            gap += prices[row] * over
        elif prices[row] < 0:
            gap -= prices[row] * under
    return gap


@nb.njit(**INNER)
def _hopeless(moved, spare, steps, reach, prices, above, below):  # type: ignore[no-untyped-def]
    """Whether no more deviations, at most `steps` and of `spare` excess, bring all rows to where the gap is less."""
    for row in range(len(prices)):
        rise = min(reach[row, 0, 1] * spare, steps * reach[row, 0, 0])
        fall = min(reach[row, 1, 1] * spare, steps * reach[row, 1, 0])
        over, under, price = above[row] - moved[row], below[row] + moved[row], prices[row]
        if over + fall < 0 or under + rise < 0:
            return True
        if (price > 0 and price * (over - rise) > spare) or (price < 0 and price * (fall - under) > spare):
            return True
    return False


@nb.njit("UniTuple(i8,2)(f8[::1],i8[::1],f8[:,::1],f8[::1],f8[::1],f8[::1],i8,i8[::1])", **OUTER)
def _enumerate(excess, item, change, prices, above, below, most, chosen):  # type: ignore[no-untyped-def]
    """The set of least gap below the last excess, in `chosen`: its size, or why there is none, and the sets visited."""
    count, rows = change.shape
    reach = _reach(excess, change)
    depth, sets, size = 0, 0, _NONE
    stack, following = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    spent, moved = np.zeros(count + 1), np.zeros((count + 1, rows))
    taken = np.zeros(item.max() + 1, np.bool_)
    best = excess[count]
    alone = _gap(moved[0], 0.0, prices, above, below)
    if alone < best:
        best, size = alone, 0
    while depth >= 0:
        j = following[depth]
        if j >= count or spent[depth] + excess[j] >= best:
            depth -= 1
            if depth >= 0:
                taken[item[stack[depth]]] = False
            continue
        following[depth] = j + 1
        if taken[item[j]]:
            continue
        sets += 1
        if sets > most:
            return _FULL, sets
        stack[depth] = j
        total = spent[depth] + excess[j]
        for row in range(rows):
            moved[depth + 1, row] = moved[depth, row] + change[j, row]
        gap = _gap(moved[depth + 1], total, prices, above, below)
        if gap < best:
            best, size = gap, depth + 1
            chosen[:size] = stack[:size]
        spare = best - total
        if j + 1 == count or excess[j + 1] >= spare:
            continue
        steps = np.floor(spare / max(excess[j + 1], 1e-300))
        if _hopeless(moved[depth + 1], spare, steps, reach[j + 1], prices, above, below):
            continue
        taken[item[j]] = True
        spent[depth + 1], following[depth + 1] = total, j + 1
        depth += 1
    return size, sets
