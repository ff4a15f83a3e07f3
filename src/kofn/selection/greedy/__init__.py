"""Greedy searches over set functions: one item after another by its gain."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "lazy_greedy": "_lazy_greedy",
    "naive_greedy": "_naive_greedy",
    "order_threshold": "_order_threshold",
    "partial_enumeration": "_partial_enumeration",
    "partitioned_greedy": "_partitioned_greedy",
    "sampled_greedy": "_sampled_greedy",
    "sparse_greedy": "_sparse_greedy",
    "stochastic_greedy": "_stochastic_greedy",
    "threshold_greedy": "_threshold_greedy",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
