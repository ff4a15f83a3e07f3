"""How many become one: means of arrays and checkpoints, rankings of many judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.combination.adapters import lora_pairs as lora_pairs
    from kofn.combination.adapters import reduce_adapters as reduce_adapters
    from kofn.combination.adapters import stack_adapters as stack_adapters
    from kofn.combination.alignment import ot_fusion as ot_fusion
    from kofn.combination.alignment import permute as permute
    from kofn.combination.alignment import singular_alignment as singular_alignment
    from kofn.combination.alignment import weight_matching as weight_matching
    from kofn.combination.averaging import merge_means as merge_means
    from kofn.combination.averaging import weighted_mean as weighted_mean
    from kofn.combination.folding import fold_adapter as fold_adapter
    from kofn.combination.interpolation import fisher_merging as fisher_merging
    from kofn.combination.interpolation import slerp as slerp
    from kofn.combination.interpolation import variance_corrected_mean as variance_corrected_mean
    from kofn.combination.layers import layer_changes as layer_changes
    from kofn.combination.layers import layer_swap as layer_swap
    from kofn.combination.layers import measures_by_layer as measures_by_layer
    from kofn.combination.layerwise import layerwise_barriers as layerwise_barriers
    from kofn.combination.layerwise import layerwise_mean as layerwise_mean
    from kofn.combination.partial import pleas as pleas
    from kofn.combination.rankings import borda as borda
    from kofn.combination.rankings import merge_points as merge_points
    from kofn.combination.recipe import merge_recipe as merge_recipe
    from kofn.combination.recipe import read_recipe as read_recipe
    from kofn.combination.search import evolved_mean as evolved_mean
    from kofn.combination.search import greedy_soup as greedy_soup
    from kofn.combination.task_vectors import dare as dare
    from kofn.combination.task_vectors import pcb_merging as pcb_merging
    from kofn.combination.task_vectors import task_arithmetic as task_arithmetic
    from kofn.combination.task_vectors import ties as ties

_HOMES = {
    **dict.fromkeys(("lora_pairs", "reduce_adapters", "stack_adapters"), "adapters"),
    **dict.fromkeys(("ot_fusion", "permute", "singular_alignment", "weight_matching"), "alignment"),
    "fold_adapter": "folding",
    **dict.fromkeys(("weighted_mean", "merge_means"), "averaging"),
    **dict.fromkeys(("fisher_merging", "slerp", "variance_corrected_mean"), "interpolation"),
    **dict.fromkeys(("layer_changes", "layer_swap", "measures_by_layer"), "layers"),
    **dict.fromkeys(("layerwise_barriers", "layerwise_mean"), "layerwise"),
    "pleas": "partial",
    **dict.fromkeys(("merge_recipe", "read_recipe"), "recipe"),
    **dict.fromkeys(("dare", "pcb_merging", "task_arithmetic", "ties"), "task_vectors"),
    **dict.fromkeys(("borda", "merge_points"), "rankings"),
    **dict.fromkeys(("evolved_mean", "greedy_soup"), "search"),
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
