"""How many become one: means of arrays and checkpoints, rankings of many judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.combination.averaging import merge_means as merge_means
    from kofn.combination.averaging import weighted_mean as weighted_mean
    from kofn.combination.rankings import borda as borda
    from kofn.combination.rankings import merge_points as merge_points

_HOMES = {
    **dict.fromkeys(("weighted_mean", "merge_means"), "averaging"),
    **dict.fromkeys(("borda", "merge_points"), "rankings"),
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
