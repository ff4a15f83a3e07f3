"""How much for each: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.allocation.curves import hull_greedy as hull_greedy
    from kofn.allocation.curves import multiple_choice_knapsack as multiple_choice_knapsack
    from kofn.allocation.scaling_laws import fit_utility as fit_utility
    from kofn.allocation.scaling_laws import quality_quantity as quality_quantity

_HOMES = {
    "fit_utility": "scaling_laws",
    "hull_greedy": "curves",
    "multiple_choice_knapsack": "curves",
    "quality_quantity": "scaling_laws",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
