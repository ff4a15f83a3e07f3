"""Diffusion models blended: draws of products and powers of their densities."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DiffusedMixture": "_diffused",
    "DiffusedScore": "_diffused",
    "feynman_kac_corrector": "_feynman_kac_corrector",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
