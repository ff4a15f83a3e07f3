"""Which k of n: one file a family, every method importable from here."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DynamicSelection": "streams._dynamic_selection",
    "PrivateStreaming": "streams._private_streaming",
    "SieveStreaming": "streams._sieve_streaming",
    "StreamQuery": "labels._stream_query",
    "anchored_subpool": "labels._anchored_subpool",
    "annotator_accuracy": "labels._annotator_pairs",
    "annotator_pairs": "labels._annotator_pairs",
    "attribution_score": "networks._lima",
    "b4": "judges._b4",
    "best_of_k": "judges._best_of_k",
    "ccs": "training_data._ccs",
    "farthest_first": "covering._farthest_first",
    "gist": "covering._gist",
    "lazy_greedy": "greedy._lazy_greedy",
    "lima": "networks._lima",
    "marginal_relevance": "training_data._marginal_relevance",
    "multiwinner": "judges._multiwinner",
    "naive_greedy": "greedy._naive_greedy",
    "near_duplicates": "training_data._near_duplicates",
    "order_threshold": "greedy._order_threshold",
    "partial_enumeration": "greedy._partial_enumeration",
    "partitioned_greedy": "greedy._partitioned_greedy",
    "position_weighted_mean": "training_data._rds_plus",
    "private_streaming": "streams._private_streaming",
    "probability_cover": "covering._probability_cover",
    "rad": "training_data._rad",
    "random_sample": "basics._random_sample",
    "rds_plus": "training_data._rds_plus",
    "sampled_greedy": "greedy._sampled_greedy",
    "shift_scores": "training_data._sources_by_shift",
    "sieve_streaming": "streams._sieve_streaming",
    "sources_by_shift": "training_data._sources_by_shift",
    "sparse_greedy": "greedy._sparse_greedy",
    "stochastic_batch": "labels._stochastic_batch",
    "stochastic_greedy": "greedy._stochastic_greedy",
    "stream_file": "streams._sieve_streaming",
    "subpool_index": "labels._anchored_subpool",
    "threshold_greedy": "greedy._threshold_greedy",
    "top_k": "basics._top_k",
    "topk_mask": "networks._topk_mask",
    "two_round_greedy": "pools._two_round_greedy",
    "typiclust": "covering._typiclust",
    "uncertainty": "labels._uncertainty",
    "uncertainty_herding": "labels._uncertainty_herding",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
