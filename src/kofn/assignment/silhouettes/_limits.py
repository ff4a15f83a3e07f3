"""Between which numbers of groups a method looks for k."""

from __future__ import annotations

from kofn.core import checks
from kofn.core.checks import InputError

# Default limit of `k_max`.
_MOST_GROUPS = 20


def limits_of_k(n: int, k_min: int, k_max: int | None) -> tuple[int, int]:
    """(k_min, k_max), by default up to 20 groups or the square root of n.

    Raises:
        InputError: k_min above k_max, or k_max > n.
    """
    checks.count(k_min, "k_min")
    if k_max is None:
        k_max = max(min(k_min, n), min(_MOST_GROUPS, int(n**0.5)))
    checks.count(k_max, "k_max")
    if k_max > n:
        raise InputError(f"k_max={k_max} of {n} items: there are only {n} to choose from; ask for k_max <= {n}")
    k_min = min(k_min, n)
    if k_min > k_max:
        raise InputError(f"k_min={k_min} is above k_max={k_max}; swap them")
    return k_min, k_max
