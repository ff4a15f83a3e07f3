"""Which k of n: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.selection.active import stochastic_batch as stochastic_batch
    from kofn.selection.coresets import ccs as ccs
    from kofn.selection.dedupe import near_duplicates as near_duplicates
    from kofn.selection.kcenter import farthest_first as farthest_first
    from kofn.selection.sampling import random_sample as random_sample
    from kofn.selection.scores import top_k as top_k
    from kofn.selection.submodular import lazy_greedy as lazy_greedy
    from kofn.selection.submodular import naive_greedy as naive_greedy

_HOMES = {
    "ccs": "coresets",
    "farthest_first": "kcenter",
    "lazy_greedy": "submodular",
    "naive_greedy": "submodular",
    "near_duplicates": "dedupe",
    "random_sample": "sampling",
    "stochastic_batch": "active",
    "top_k": "scores",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
