"""Which rows to have labelled, and by whom: active learning and annotators."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "StreamQuery": "_stream_query",
    "anchored_subpool": "_anchored_subpool",
    "annotator_accuracy": "_annotator_pairs",
    "annotator_pairs": "_annotator_pairs",
    "stochastic_batch": "_stochastic_batch",
    "subpool_index": "_anchored_subpool",
    "uncertainty": "_uncertainty",
    "uncertainty_herding": "_uncertainty_herding",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
