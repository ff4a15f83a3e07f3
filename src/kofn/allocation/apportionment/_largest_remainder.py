"""Share whole units in proportion to scores by largest remainders: amounts nearest to the quotas."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from kofn.allocation.apportionment._apportion import apportion
from kofn.allocation.apportionment._claims import Remainders
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method


@method(
    "allocate",
    traits=("sandwich",),
    cost="O(n log(budget)) time, O(n) memory; ties among many items are sorted exactly",
    exact="whole numbers that add up to the budget exactly; exact ties are told and go to the first rows",
    paper="balinski1982",
    draws=Draw(silent=("duality",)),
    aliases=(
        "hamilton",
        "hare_niemeyer",
    ),
)
def largest_remainder(
    scores: ArrayLike,
    *,
    budget: float,
    bounds: ArrayLike | None = None,
    quota: Literal["hare", "droop"] = "hare",
) -> Allocation:
    """Share whole units in proportion to scores by largest remainders: amounts nearest to the quotas.

    Every item gets the whole part of its quota, and the units left go to the largest remainders (Hamilton, Hare-
    Niemeyer).

    Args:
        scores: (n,) votes, sizes or weights, >= 0, not all 0.
        budget: how many units there are, a whole number; all are given out.
        bounds: (least, most) units for all items, or one such pair for each; None leaves an end open.
        quota: what a unit costs: "hare", the scores over the units (the plain proportion), or "droop", which favours
            large items.

    Returns:
        An `Allocation`: `amounts` are whole numbers that add up to `budget`, `marginal_up` the claim of an item to one
        more and `marginal_down` that to its last unit (NaN where it may have no more or no fewer), `price` the largest
        claim left. `value` is the sum of (amount - quota)^2, the least that whole numbers with this total have.
        `info` has `quotas` (exact shares), `uniform` (the same units whatever the scores) and, where the last units
        were tied, `tied` (the rows) and `tied_units`.

    Raises:
        InfeasibleError: the budget is below the sum of the least or above that of the most.
        InputError: scores that are negative, NaN or all 0; a budget that is no whole number.

    Cost: O(n log(budget)) time, O(n) memory.

    Guarantee: within each item's quota rounded down and up (without bounds, with the Hare quota). Claims near the last
    unit are compared as fractions, so that ties are ties; of equal claims the lowest row comes first.

    References:
        Balinski & Young 1982, Fair Representation, Yale University Press.

    Examples:
        >>> from kofn.allocation import largest_remainder
        >>> plan = largest_remainder([47000, 16000, 15900, 12000, 6000, 3100], budget=10)
        >>> plan.amounts.tolist(), plan.info["quotas"].tolist()
        ([5, 2, 1, 1, 1, 0], [4.7, 1.6, 1.59, 1.2, 0.6, 0.31])
    """
    return apportion(scores, budget, bounds, "largest_remainder", lambda votes, units: Remainders(votes, units, quota))
