"""Merge recipes: a method for each pattern of tensor names, read from a file."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "merge_recipe": "_merge_recipe",
    "preview_merge": "_preview_merge",
    "read_recipe": "_read_recipe",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
