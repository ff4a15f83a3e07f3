"""Posteriors: draws of sub-posteriors, one set a shard of the data, into draws of their product."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "GaussianDensity": "_densities",
    "LogDensity": "_densities",
    "LogisticDensity": "_densities",
    "Population": "_population",
    "consensus_monte_carlo": "_consensus_monte_carlo",
    "divide_and_conquer_fusion": "_divide_and_conquer_fusion",
    "gaussian_product": "_gaussian_product",
    "kernel_product": "_kernel_product",
    "reduce_mixtures": "_reduce_mixtures",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
