"""How many bits, or which share of its weights, each tensor of a model on disk keeps."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "allocate_checkpoint": "_allocate_checkpoint",
    "apply_plan": "_apply_plan",
    "export_plan": "_export_plan",
    "read_plan": "_apply_plan",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
