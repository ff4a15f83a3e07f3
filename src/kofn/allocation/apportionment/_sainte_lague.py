"""Share whole units in proportion to scores by Sainte-Lague's divisors 1, 3, 5, ..: favours no size."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike, NDArray

from kofn.allocation.apportionment._apportion import apportion
from kofn.allocation.apportionment._claims import Shifted
from kofn.core import checks
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
        "webster",
        "schepers",
        "major_fractions",
    ),
)
def sainte_lague(
    scores: ArrayLike,
    *,
    budget: float,
    bounds: ArrayLike | None = None,
    first: float | None = None,
) -> Allocation:
    """Share whole units in proportion to scores by Sainte-Lague's divisors 1, 3, 5, ..: favours no size.

    Each unit goes to the largest score / (units + 1/2) (Webster, Schepers): quotas over a common divisor, rounded.

    Args:
        scores: (n,) votes, sizes or weights, >= 0, not all 0.
        budget: how many units there are, a whole number; all are given out.
        bounds: (least, most) units for all items, or one such pair for each; None leaves an end open.
        first: the divisor of an item's first unit where it is not 0.5; 0.7 (1.4 to 3) is the modified method.

    Returns:
        An `Allocation`: `amounts` are whole numbers that add up to `budget`, `marginal_up` the claim of an item to one
        more and `marginal_down` that to its last unit (NaN where it may have no more or no fewer), `price` the largest
        claim left. `value` is the sum of the quotients that got a unit, the most that this many units can have.
        `info` has `quotas` (exact shares), `uniform` (the same units whatever the scores) and, where the last units
        were tied, `tied` (the rows) and `tied_units`.

    Raises:
        InfeasibleError: the budget is below the sum of the least or above that of the most.
        InputError: scores that are negative, NaN or all 0; a budget that is no whole number.

    Cost: O(n log(budget)) time, O(n) memory.

    Guarantee: the least sum of (amount - quota)^2 / score. Claims near the last unit are compared as fractions, so that
    ties are ties; of equal claims the lowest row comes first.

    References:
        Balinski & Young 1982, Fair Representation, Yale University Press.

    Examples:
        >>> from kofn.allocation import sainte_lague
        >>> sainte_lague([340_000, 280_000, 160_000, 60_000], budget=7).amounts.tolist()
        [3, 2, 1, 1]
        >>> sainte_lague([5, 5, 5], budget=6, bounds=[(0, 1), (0, 9), (3, 9)]).amounts.tolist()
        [1, 2, 3]
    """
    start = None if first is None else Fraction(repr(checks.fraction(first, "first", low=0.0, high=1.5)))

    def claims(votes: NDArray[Any], units: int) -> Shifted:
        return Shifted(votes, units, Fraction(1, 2), start)

    return apportion(scores, budget, bounds, "sainte_lague", claims)
