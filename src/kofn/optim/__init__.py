"""Gradient-free optimisation, as steppers with `ask` and `tell`."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "CMAES": "evolution._cma",
    "PenaltyBilevel": "bilevel._penalty_bilevel",
    "bilevel_weights": "bilevel._bilevel_weights",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
