"""Online decisions: steppers with `ask`, `tell` and a plan at any time."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "CoordinatedPacing": "pacing._coordinated_pacing",
    "StochasticBalance": "matching._stochastic_balance",
    "UniversalMixture": "experts._universal_mixture",
    "matching_bound": "matching._stochastic_balance",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
