"""Share whole units in proportion to scores by Dean's divisors, harmonic means: every item gets one."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kofn.allocation.apportionment._apportion import apportion
from kofn.allocation.apportionment._claims import Harmonic
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method


@method(
    "allocate",
    traits=("sandwich",),
    cost="O(n log(budget)) time, O(n) memory; ties among many items are sorted exactly",
    exact="whole numbers that add up to the budget exactly; exact ties are told and go to the first rows",
    paper="balinski1982",
    draws=Draw(silent=("duality",), plain={"budget": 6}),
    aliases=("harmonic_mean",),
)
def dean(
    scores: ArrayLike,
    *,
    budget: float,
    bounds: ArrayLike | None = None,
) -> Allocation:
    """Share whole units in proportion to scores by Dean's divisors, harmonic means: every item gets one.

    Each unit goes to the largest score / (units (units + 1) / (units + 1/2)), the first before all.

    Args:
        scores: (n,) votes, sizes or weights, >= 0, not all 0.
        budget: how many units there are, a whole number; all are given out.
        bounds: (least, most) units for all items, or one such pair for each; None leaves an end open.

    Returns:
        An `Allocation`: `amounts` are whole numbers that add up to `budget`, `marginal_up` the claim of an item to one
        more and `marginal_down` that to its last unit (NaN where it may have no more or no fewer), `price` the largest
        claim left. `value` is the sum of the quotients that got a unit, without every item's first.
        `info` has `quotas` (exact shares), `uniform` (the same units whatever the scores) and, where the last units
        were tied, `tied` (the rows) and `tied_units`.

    Raises:
        InfeasibleError: the budget is below the sum of the least or above that of the most; fewer units than items.
        InputError: scores that are negative, NaN or all 0; a budget that is no whole number.

    Cost: O(n log(budget)) time, O(n) memory.

    Guarantee: no transfer of a unit makes two items' scores per unit closer (without bounds). Claims near the last unit
    are compared as fractions, so that ties are ties; of equal claims the lowest row comes first.

    References:
        Balinski & Young 1982, Fair Representation, Yale University Press.

    Examples:
        >>> from kofn.allocation import dean
        >>> dean([900, 90, 10], budget=10).amounts.tolist()
        [8, 1, 1]
    """
    return apportion(scores, budget, bounds, "dean", Harmonic)
