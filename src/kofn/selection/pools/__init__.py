"""Pools that are read in parts: larger than memory, or spread over machines."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "near_duplicates_by_cells": "_near_duplicates_by_cells",
    "two_round_farthest_first": "_two_round_farthest_first",
    "two_round_greedy": "_two_round_greedy",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
