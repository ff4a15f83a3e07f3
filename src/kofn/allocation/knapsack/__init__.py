"""One level for each item under one budget, from measured curves."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "constrained_knapsack": "_constrained_knapsack",
    "hull_greedy": "_hull_greedy",
    "multiple_choice_knapsack": "_multiple_choice_knapsack",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
