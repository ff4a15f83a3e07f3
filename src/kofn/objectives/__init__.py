"""What a selection is worth: set functions that a greedy search asks for gains, each importable from here."""

from __future__ import annotations

from typing import Any

from kofn._lazy import lazy
from kofn.objectives.base import OBJECTIVES

_HOMES = {"Mixture": "mixtures", **{made: home for home, made in (row.path.split(":") for row in OBJECTIVES.values())}}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
