"""Laws of plans: what every plan keeps, and what a method promises by declaring a trait.

    case = Case.of("select", "lazy_greedy", {"X": X, "k": 3})
    LAWS["sandwich"](case)        # raises LawBroken, or tells whether there was anything to check

Strategies that draw problems are in `kofn.laws.generators`, which needs Hypothesis and is imported by name.
"""

from __future__ import annotations

from kofn.laws import amounts, blends, tier0, traits
from kofn.laws.case import LAWS, REGISTRY, Case, LawBroken, law, laws_of

__all__ = ["LAWS", "REGISTRY", "Case", "LawBroken", "amounts", "blends", "law", "laws_of", "tier0", "traits"]
