"""What a selection is worth: set functions that a greedy search asks for gains, each importable from here."""

from __future__ import annotations

from kofn.core.lazy import attach
from kofn.objectives.base import OBJECTIVES

_HOMES = {"Mixture": "mixtures", **{made: home for home, made in (row.path.split(":") for row in OBJECTIVES.values())}}
__getattr__, __dir__, __all__ = attach(__name__, _HOMES)
