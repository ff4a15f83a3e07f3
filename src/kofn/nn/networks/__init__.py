"""Differentiable top-k masks and the auxiliary Zipf loss."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "TopKMask": "_topk_mask",
    "aux_zipf_loss": "_aux_zipf_loss",
    "topk_mask": "_topk_mask",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
