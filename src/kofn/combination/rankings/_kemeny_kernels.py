"""The loops of Kemeny's rule: a dynamic programme over subsets, and moves of one alternative to its best position."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kofn.core.compiled import OUTER


@nb.njit("int64[:](float64[:,::1])", **OUTER)
def best_order(prefers: NDArray[np.float64]) -> NDArray[np.int64]:  # pragma: no cover
    """An order of n <= 24 alternatives that overturns the least weight of preferences, the first of the best ones.

    `lowest[S]` is the least that any order of the set S overturns; the last of S costs what prefers it to the others.
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
