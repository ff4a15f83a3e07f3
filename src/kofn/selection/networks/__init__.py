"""Which parts of a network or an input count: masks and attributions."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "attribution_score": "_lima",
    "lima": "_lima",
    "topk_mask": "_topk_mask",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
