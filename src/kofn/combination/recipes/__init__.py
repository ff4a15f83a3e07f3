"""Other rules for other tensors, read from a file."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "merge_recipe": "_merge_recipe",
    "read_recipe": "_merge_recipe",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
