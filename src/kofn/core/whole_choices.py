"""Choices of items of the least cost within limits on sums, to the last unit: HiGHS sees seven digits of the costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Ints
from kofn.core.highs import linprog
from kofn.core.quotas import exact_total, whole_numbers

# Each round leaves a gap of about so many digits fewer; costs have no more than these rounds tell apart.
_ROUNDS = 4


def cheapest_choice(costs: NDArray[Any], matrix: Any, low: Ints, high: Ints, chosen: Ints) -> Ints:
    """The cheapest choice (0 or 1 of each item) with matrix @ choice in [low, high], from one that is nearly so.

    Prices of the sums turn costs into what an item costs beyond them. Whatever costs more than the choice is from the
    bound that the prices prove is settled, and what is left open is solved again in units of that gap.

    Args:
        costs: (n,) of each item.
        matrix: (m, n) sparse, of zeros and ones.
        low: (m,) and high: the limits of each sum.
        chosen: (n,) a choice within the limits.
    """
    exact = costs.astype(np.int64) if costs.dtype.kind in "iub" else costs.astype(np.float64)
    prices = _prices(exact, matrix, low, high)
    if prices is None:
        return chosen
    prices = np.rint(prices).astype(np.int64) if exact.dtype.kind == "i" else prices
    beyond = exact - matrix.T.astype(exact.dtype) @ prices
    ends = np.where(prices > 0, low, high)
    # Python's numbers: a price times a count may be beyond 64 bits.
    at_ends = [price * end for price, end in zip(prices.tolist(), ends.tolist(), strict=True)]
    bound = exact_total([*at_ends, *np.minimum(beyond, 0).tolist()])
    for _ in range(_ROUNDS):
        gap = exact_total(exact[chosen > 0]) - bound
        if gap <= 0:
            break
        settled = np.abs(prices) > gap
        left = exact - matrix.T.astype(exact.dtype) @ np.where(settled, prices, 0)
        least, most = (beyond < -gap).astype(np.float64), (beyond <= gap).astype(np.float64)
        unit = float(np.abs(left[least < most]).max(initial=0)) or 1.0
        solution = whole_numbers(
            np.where(least < most, left, 0) / unit,
            matrix,
            np.where(settled, ends, low),
            np.where(settled, ends, high),
            least,
            most,
        )
        if solution is None or exact_total(exact[solution[0] > 0]) >= exact_total(exact[chosen > 0]):
            break
        chosen = solution[0]
    return chosen


def _prices(costs: NDArray[Any], matrix: Any, low: Ints, high: Ints) -> NDArray[np.float64] | None:
    """What one more of each sum costs where fractions may be chosen: above 0 where `low` binds, below where `high`."""
    from scipy.sparse import vstack

    unit = float(np.abs(costs).max(initial=0)) or 1.0
    solution = linprog(
        costs / unit,
        A_ub=vstack([matrix, -matrix], format="csc"),
        b_ub=np.concatenate([high, -low]),
        bounds=(0, 1),
    )
    if solution.x is None:
        return None
    upper, lower = solution.ineqlin.marginals.reshape(2, -1)
    return np.asarray((upper - lower) * unit)
