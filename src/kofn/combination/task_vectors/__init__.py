"""Task vectors: sums of the members' changes of a common base."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "arcee_fusion": "_arcee_fusion",
    "dare": "_dare",
    "layer_changes": "_layer_swap",
    "layer_swap": "_layer_swap",
    "measures_by_layer": "_layer_swap",
    "pcb_merging": "_pcb_merging",
    "task_arithmetic": "_task_arithmetic",
    "ties": "_ties",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
