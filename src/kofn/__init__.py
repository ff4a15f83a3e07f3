"""kofn: which to keep, where each goes, how much each gets, how to blend them into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy
from kofn._version import __version__

if TYPE_CHECKING:
    from kofn.estimators import Assigner as Assigner
    from kofn.estimators import Selector as Selector
    from kofn.plans import Allocation as Allocation
    from kofn.plans import Assignment as Assignment
    from kofn.plans import Blend as Blend
    from kofn.plans import Selection as Selection
    from kofn.verbs import allocate as allocate
    from kofn.verbs import assign as assign
    from kofn.verbs import combine as combine
    from kofn.verbs import compare as compare
    from kofn.verbs import methods as methods
    from kofn.verbs import select as select

_HOMES = {
    **dict.fromkeys(("select", "assign", "allocate", "combine", "compare", "methods"), "verbs"),
    **dict.fromkeys(("Selection", "Assignment", "Allocation", "Blend"), "plans"),
    **dict.fromkeys(("Assigner", "Selector"), "estimators"),
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
