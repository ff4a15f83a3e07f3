"""Networks merged in part: units that match are merged, the others stay."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "pleas": "_pleas",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
