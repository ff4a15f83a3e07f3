"""Which k of n: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.selection._stream_query import StreamQuery as StreamQuery
    from kofn.selection.active import anchored_subpool as anchored_subpool
    from kofn.selection.active import stochastic_batch as stochastic_batch
    from kofn.selection.active import subpool_index as subpool_index
    from kofn.selection.active import uncertainty as uncertainty
    from kofn.selection.annotators import annotator_accuracy as annotator_accuracy
    from kofn.selection.annotators import annotator_pairs as annotator_pairs
    from kofn.selection.attribution import attribution_score as attribution_score
    from kofn.selection.attribution import lima as lima
    from kofn.selection.best_of import b4 as b4
    from kofn.selection.best_of import best_of_k as best_of_k
    from kofn.selection.coresets import ccs as ccs
    from kofn.selection.coresets import rad as rad
    from kofn.selection.dedupe import near_duplicates as near_duplicates
    from kofn.selection.diversity import gist as gist
    from kofn.selection.dynamic import DynamicSelection as DynamicSelection
    from kofn.selection.filtering import position_weighted_mean as position_weighted_mean
    from kofn.selection.filtering import rds_plus as rds_plus
    from kofn.selection.kcenter import farthest_first as farthest_first
    from kofn.selection.masks import topk_mask as topk_mask
    from kofn.selection.order import order_threshold as order_threshold
    from kofn.selection.private import PrivateStreaming as PrivateStreaming
    from kofn.selection.private import private_streaming as private_streaming
    from kofn.selection.quotas import multiwinner as multiwinner
    from kofn.selection.sampling import random_sample as random_sample
    from kofn.selection.scores import top_k as top_k
    from kofn.selection.sources import shift_scores as shift_scores
    from kofn.selection.sources import sources_by_shift as sources_by_shift
    from kofn.selection.sparse import sparse_greedy as sparse_greedy
    from kofn.selection.streaming import SieveStreaming as SieveStreaming
    from kofn.selection.streaming import sieve_streaming as sieve_streaming
    from kofn.selection.streaming import stream_file as stream_file
    from kofn.selection.submodular import lazy_greedy as lazy_greedy
    from kofn.selection.submodular import naive_greedy as naive_greedy
    from kofn.selection.submodular import partitioned_greedy as partitioned_greedy
    from kofn.selection.submodular import stochastic_greedy as stochastic_greedy
    from kofn.selection.submodular import threshold_greedy as threshold_greedy

_HOMES = {
    "DynamicSelection": "dynamic",
    "PrivateStreaming": "private",
    "SieveStreaming": "streaming",
    "StreamQuery": "_stream_query",
    "anchored_subpool": "active",
    "annotator_accuracy": "annotators",
    "annotator_pairs": "annotators",
    "attribution_score": "attribution",
    "b4": "best_of",
    "best_of_k": "best_of",
    "ccs": "coresets",
    "farthest_first": "kcenter",
    "gist": "diversity",
    "lazy_greedy": "submodular",
    "lima": "attribution",
    "multiwinner": "quotas",
    "naive_greedy": "submodular",
    "near_duplicates": "dedupe",
    "order_threshold": "order",
    "partitioned_greedy": "submodular",
    "position_weighted_mean": "filtering",
    "private_streaming": "private",
    "rad": "coresets",
    "random_sample": "sampling",
    "rds_plus": "filtering",
    "shift_scores": "sources",
    "sieve_streaming": "streaming",
    "sources_by_shift": "sources",
    "sparse_greedy": "sparse",
    "stochastic_batch": "active",
    "stochastic_greedy": "submodular",
    "stream_file": "streaming",
    "subpool_index": "active",
    "threshold_greedy": "submodular",
    "top_k": "scores",
    "topk_mask": "masks",
    "uncertainty": "active",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
