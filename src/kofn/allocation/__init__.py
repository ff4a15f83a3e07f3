"""How much for each: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.allocation.curves import hull_greedy as hull_greedy
    from kofn.allocation.curves import multiple_choice_knapsack as multiple_choice_knapsack

_HOMES = {"hull_greedy": "curves", "multiple_choice_knapsack": "curves"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
