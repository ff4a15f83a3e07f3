"""Who goes where: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.assignment.kmedoids import fasterpam as fasterpam
    from kofn.assignment.kmedoids import fastpam1 as fastpam1
    from kofn.assignment.kmedoids import pam as pam
    from kofn.assignment.routing import capped_routing as capped_routing

_HOMES = {"capped_routing": "routing", "fasterpam": "kmedoids", "fastpam1": "kmedoids", "pam": "kmedoids"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
