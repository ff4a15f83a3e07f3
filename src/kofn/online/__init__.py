"""Decisions as things arrive: steppers that are asked, told how it went, and hold a plan at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.online.matching import StochasticBalance as StochasticBalance
    from kofn.online.matching import matching_bound as matching_bound

_HOMES = {"StochasticBalance": "matching", "matching_bound": "matching"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
