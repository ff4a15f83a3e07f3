"""Units, what candidates contribute to them, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from kofn.core.arrays import Floats, Ints

Units = Any  # the units' numbers, or slice(None) for all of them
Worth = Callable[[Floats, Units], Floats]


class Amounts(Protocol):
    """Interface of the amounts that candidates contribute."""

    n: int
    units: int
    longest: int  # the most units that one candidate contributes to
    pairs: int  # amounts looked at so far
    poll: Callable[[], None] | None  # called between blocks of long work; may raise

    @property
    def rounding(self) -> float:
        """How far a total may be from the sum of what `own` has, for weights of 1 in all, beside its rounding."""
        ...

    def sums(self, candidates: Ints, worth: Worth) -> Floats: ...

    def own(self, candidate: int) -> tuple[Units, Floats]: ...

    def totals(self, weights: Floats | None = None) -> Floats: ...
