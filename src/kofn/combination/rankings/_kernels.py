"""The compiled loops: Kemeny's rule by a dynamic programme and by moves, and choices one by one."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kofn.core.compiled import INNER, OUTER


@nb.njit(**INNER)
def _of_subsets(prefers: Any) -> tuple[Any, Any, Any]:  # pragma: no cover
    """The least that any order of each set of alternatives overturns, `lowest`.

    The last of a set costs what prefers it to the others: `near` of those in the lower half, `far` of those above.
    """
    n = len(prefers)
    half = n // 2
    rest = n - half
    near, far = np.zeros((n, 1 << half)), np.zeros((n, 1 << rest))
    for item in range(n):
        for mask in range(1, 1 << half):
            bit = mask & -mask
            j = 0
            while (bit >> j) != 1:
                j += 1
            near[item, mask] = near[item, mask ^ bit] + prefers[item, j]
        for mask in range(1, 1 << rest):
            bit = mask & -mask
            j = 0
            while (bit >> j) != 1:
                j += 1
            far[item, mask] = far[item, mask ^ bit] + prefers[item, half + j]
    low_bits = (1 << half) - 1
    lowest = np.zeros(1 << n)
    for chosen in range(1, 1 << n):
        best = np.inf
        for item in range(n):
            if (chosen >> item) & 1:
                others = chosen ^ (1 << item)
                cost = lowest[others] + near[item, others & low_bits] + far[item, others >> half]
                best = min(best, cost)
        lowest[chosen] = best
    return near, far, lowest


@nb.njit("int64[:](float64[:,::1])", **OUTER)
def best_order(prefers: NDArray[np.float64]) -> NDArray[np.int64]:  # pragma: no cover
    """An order of n <= 24 alternatives that overturns the least weight of preferences, the first of the best ones."""
    n = len(prefers)
    half = n // 2
    low_bits = (1 << half) - 1
    near, far, lowest = _of_subsets(prefers)
    order = np.empty(n, np.int64)
    chosen = (1 << n) - 1
    for position in range(n - 1, -1, -1):
        last = -1
        best = np.inf
        for item in range(n):
            if (chosen >> item) & 1:
                others = chosen ^ (1 << item)
                cost = lowest[others] + near[item, others & low_bits] + far[item, others >> half]
                if cost <= best:  # of equal ones the highest index goes last
                    best, last = cost, item
        order[position] = last
        chosen ^= 1 << last
    return order


@nb.njit("UniTuple(int64[::1], 2)(float64[:,::1], float64)", **OUTER)
def positions_in_best_orders(
    prefers: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover
    """(n,) the first and the last position of each of n <= 24 alternatives in all orders that overturn the least."""
    n = len(prefers)
    half = n // 2
    low_bits = (1 << half) - 1
    near, far, lowest = _of_subsets(prefers)
    first, last = np.full(n, n), np.full(n, -1)
    # The sets that a best order begins with: all of it, and what is left without the last one of such a set.
    begins = np.zeros(1 << n, np.bool_)
    begins[-1] = True
    for chosen in range((1 << n) - 1, 0, -1):
        if not begins[chosen]:
            continue
        size = 0
        for item in range(n):
            size += (chosen >> item) & 1
        for item in range(n):
            if (chosen >> item) & 1:
                others = chosen ^ (1 << item)
                cost = lowest[others] + near[item, others & low_bits] + far[item, others >> half]
                if cost <= lowest[chosen] + tolerance:
                    begins[others] = True
                    first[item] = min(first[item], size - 1)
                    last[item] = max(last[item], size - 1)
    return first, last


@nb.njit("UniTuple(int64[::1], 2)(float64[:,::1])", **OUTER)
def positions_by_ties(ahead: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover
    """(n,) the first and the last position of each of an order's alternatives where only even pairs are turned round.

    Args:
        ahead: (n, n) the weight that prefers the alternative at the row's position to the one at the column's.
    """
    n = len(ahead)
    before = np.zeros((n, n), np.bool_)  # whether the column's stands before the row's whatever even pairs are turned
    for later in range(n):
        for earlier in range(later - 1, -1, -1):
            if before[later, earlier] or ahead[earlier, later] == ahead[later, earlier]:
                continue
            before[later, earlier] = True
            for other in range(earlier):
                before[later, other] |= before[earlier, other]
    first, last = np.zeros(n, np.int64), np.full(n, n - 1)
    for later in range(n):
        for earlier in range(later):
            if before[later, earlier]:
                first[later] += 1
                last[earlier] -= 1
    return first, last


@nb.njit("int64(float64[:,::1], int64[::1], float64, int64)", **OUTER)
def settle(
    prefers: NDArray[np.float64], order: NDArray[np.int64], least: float, passes: int
) -> int:  # pragma: no cover
    """Move single alternatives of the order, in place, while that lowers what is overturned by more than `least`.

    Returns the number of moves, after at most `passes` passes over all alternatives.
    """
    n = len(order)
    moves = 0
    for _ in range(passes):
        moved = False
        for item in range(n):
            position = 0
            while order[position] != item:
                position += 1
            best, target = -least, position
            change = 0.0
            for ahead in range(position - 1, -1, -1):
                other = order[ahead]
                change += prefers[other, item] - prefers[item, other]
                if change < best:
                    best, target = change, ahead
            change = 0.0
            for behind in range(position + 1, n):
                other = order[behind]
                change += prefers[item, other] - prefers[other, item]
                if change < best:
                    best, target = change, behind
            if target == position:
                continue
            step = 1 if target > position else -1
            for rank in range(position, target, step):
                order[rank] = order[rank + step]
            order[target] = item
            moves += 1
            moved = True
        if not moved:
            break
    return moves


@nb.njit("boolean[:,::1](int64[::1], int64[::1], float64[::1], int64)", **OUTER)
def lock_in(first: Any, second: Any, weight: Any, n: int) -> Any:  # pragma: no cover
    """(n, n) whether a chain of locked majorities leads from the row's alternative to the column's.

    Args:
        first: (majorities,) the alternative that each puts ahead, from the strongest on.
        second: (majorities,) the other one.
        weight: (majorities,) how strong it is; those of one weight are locked in together.
        n: how many alternatives there are.
    """
    words = (n + 63) // 64
    chains = np.zeros((n, words), np.uint64)  # a bit for each alternative that is reached
    unit = np.uint64(1)
    admitted = np.zeros(len(first), np.bool_)
    low = 0
    while low < len(first):
        high = low
        while high < len(first) and weight[high] == weight[low]:
            back = chains[second[high], first[high] // 64] >> np.uint64(first[high] % 64)
            admitted[high] = back & unit == 0
            high += 1
        for majority in range(low, high):
            ahead, behind = first[majority], second[majority]
            bit = np.uint64(behind % 64)
            if not admitted[majority] or (chains[ahead, behind // 64] >> bit) & unit != 0:
                continue
            for item in range(n):
                if item == ahead or (chains[item, ahead // 64] >> np.uint64(ahead % 64)) & unit != 0:
                    for word in range(words):
                        chains[item, word] |= chains[behind, word]
                    chains[item, behind // 64] |= unit << bit
        low = high
    out = np.zeros((n, n), np.bool_)
    for item in range(n):
        for other in range(n):
            out[item, other] = item != other and (chains[item, other // 64] >> np.uint64(other % 64)) & unit != 0
    return out


@nb.njit("UniTuple(float64, 2)(float64, float64, float64)", **INNER)
def _plus(total: float, rest: float, term: float) -> tuple[float, float]:  # pragma: no cover
    """The sum of `total + rest` and `term`, rounded, and what the rounding left."""
    summed = total + term
    part = summed - total
    return summed, rest + ((total - (summed - part)) + (term - part))


@nb.njit("float64(float64[:,::1], int64[::1])", **OUTER)
def overturned_by(prefers: NDArray[np.float64], order: NDArray[np.int64]) -> float:  # pragma: no cover
    """What an order overturns: the weights of every later alternative against every earlier one."""
    total, rest = 0.0, 0.0
    for position in range(len(order)):
        later = prefers[order[position]]
        for before in range(position):
            total, rest = _plus(total, rest, later[order[before]])
    return total + rest


@nb.njit("float64(float64[:,::1], int64[::1])", **OUTER)
def least_overturned(prefers: NDArray[np.float64], part: NDArray[np.int64]) -> float:  # pragma: no cover
    """What no order of these alternatives gets below: of every pair the lesser weight."""
    total, rest = 0.0, 0.0
    for position in range(len(part)):
        for before in range(position):
            i, j = part[position], part[before]
            total, rest = _plus(total, rest, min(prefers[i, j], prefers[j, i]))
    return total + rest


@nb.njit("void(int64[::1], int64[::1], int64[::1], float64[::1], float64, float64[:,::1])", **OUTER)
def count_pairs(start: Any, items: Any, group: Any, weights: Any, ties: float, out: Any) -> None:  # pragma: no cover
    """Add to `out` the weight of the judges who rate the row's alternative above the column's, and a share of ties."""
    for judge in range(len(start) - 1):
        if weights[judge] == 0.0:
            continue
        low, high = start[judge], start[judge + 1]
        for first in range(low, high):
            for second in range(first + 1, high):
                if group[second] != group[first]:
                    out[items[first], items[second]] += weights[judge]
                elif ties != 0.0:
                    out[items[first], items[second]] += ties * weights[judge]
                    out[items[second], items[first]] += ties * weights[judge]


@nb.njit("float64[::1](int64[::1], int64[::1], int64[::1], int64[::1])", **OUTER)
def count_overturned(start: Any, items: Any, group: Any, position: Any) -> NDArray[np.float64]:  # pragma: no cover
    """(judges,) the share of the pairs each rates apart that stand the other way round in an order, 0 without any."""
    out = np.zeros(len(start) - 1)
    for judge in range(len(start) - 1):
        low, high = start[judge], start[judge + 1]
        pairs, turned = 0, 0
        for first in range(low, high):
            for second in range(first + 1, high):
                if group[second] != group[first]:
                    pairs += 1
                    turned += position[items[first]] > position[items[second]]
        if pairs:
            out[judge] = turned / pairs
    return out


@nb.njit(**INNER)
def _choose_one(
    items: Any, group: Any, low: int, high: int, weight: float, strength: Any, slope: Any, odds: Any, once: Any
) -> float:  # pragma: no cover
    """One ballot's log-likelihood, and the slope of each entry, which is added to `slope`.

    `odds` becomes exp(strength) of its entries over that of the best, and `once` the sum over the choices so far that
    an entry is among of the inverse square of all odds in them.
    """
    top = strength[items[low]]
    for entry in range(low + 1, high):
        top = max(top, strength[items[entry]])
    total = 0.0
    for entry in range(high - 1, low - 1, -1):
        odds[entry - low] = np.exp(strength[items[entry]] - top)
        total += odds[entry - low]
        once[entry - low] = total  # of this one and all below it
    value, inverse, square = 0.0, 0.0, 0.0
    begin = low
    while begin < high:
        end = begin
        while end < high and group[end] == group[begin]:
            end += 1
        count = end - begin
        share = 1.0 if end < high else (count - 1) / count
        choices = weight * share * count
        sum_left = once[begin - low]
        if choices > 0.0:
            inverse += choices / sum_left
            square += choices / (sum_left * sum_left)
            value -= choices * (np.log(sum_left) + top)
        for entry in range(begin, end):
            value += weight * share * strength[items[entry]]
            slope[entry - low] += weight * share - odds[entry - low] * inverse
            once[entry - low] = square
        begin = end
    return value


@nb.njit(
    "float64(int64[::1], int64[::1], int64[::1], float64[::1], float64[::1], float64[::1], float64[:,::1])", **OUTER
)
def choose(
    start: Any, items: Any, group: Any, weights: Any, strength: Any, slope: Any, bend: Any
) -> float:  # pragma: no cover
    """The log-likelihood of ballots as choices one by one, best first, added to `slope` and `bend`.

    Of `bend` the entries above the diagonal are those of both triangles together.
    """
    n = len(strength)
    odds, once, own = np.empty(n), np.empty(n), np.empty(n)
    value = 0.0
    for ballot in range(len(start) - 1):
        low, high = start[ballot], start[ballot + 1]
        if high - low < 2 or weights[ballot] == 0.0:
            continue
        own[: high - low] = 0.0
        value += _choose_one(items, group, low, high, weights[ballot], strength, own, odds, once)
        # The later of two is in fewer choices with the earlier than the earlier is in all.
        for first in range(high - low):
            item = items[low + first]
            slope[item] += own[first]
            share = odds[first] * once[first]
            for second in range(first + 1, high - low):
                other = items[low + second]
                bend[min(item, other), max(item, other)] += share * odds[second]
    return value


@nb.njit("void(int64[::1], int64[::1], int64[::1], float64[::1], float64[::1])", **OUTER)
def choose_by_judge(start: Any, items: Any, group: Any, strength: Any, slopes: Any) -> None:  # pragma: no cover
    """Add to `slopes`, an entry for each rating, the slope of its ballot's own log-likelihood."""
    n = len(strength)
    odds, once = np.empty(n), np.empty(n)
    for ballot in range(len(start) - 1):
        low, high = start[ballot], start[ballot + 1]
        if high - low >= 2:
            _choose_one(items, group, low, high, 1.0, strength, slopes[low:high], odds, once)


@nb.njit("void(int64[::1], int64[::1], int64[::1], float64[::1], float64[::1])", **OUTER)
def compare_by_judge(start: Any, items: Any, group: Any, strength: Any, slopes: Any) -> None:  # pragma: no cover
    """Add to `slopes`, an entry for each rating, the slope of its judge's log-likelihood of comparing every two."""
    for judge in range(len(start) - 1):
        for first in range(start[judge], start[judge + 1]):
            for second in range(first + 1, start[judge + 1]):
                likely = 1 / (1 + np.exp(strength[items[second]] - strength[items[first]]))
                off = (1.0 if group[second] != group[first] else 0.5) - likely
                slopes[first] += off
                slopes[second] -= off
