"""Online bipartite matching."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "StochasticBalance": "_stochastic_balance",
    "matching_bound": "_stochastic_balance",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
