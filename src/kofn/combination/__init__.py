"""Combine many into one: model merging, adapters, rank aggregation."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Votes": "rankings._votes",
    "blend_predictions": "ensembles._plan",
    "borda": "rankings._borda",
    "bradley_terry": "rankings._bradley_terry",
    "count_votes": "rankings._votes",
    "dare": "task_vectors._dare",
    "ensemble_selection": "ensembles._ensemble_selection",
    "evolved_mean": "soups._evolved_mean",
    "fisher_merging": "averaging._fisher_merging",
    "fold_adapter": "adapters._fold_adapter",
    "fold_adapters": "adapters._fold_adapter",
    "greedy_soup": "soups._greedy_soup",
    "kemeny": "rankings._kemeny",
    "layer_changes": "task_vectors._layer_swap",
    "layer_swap": "task_vectors._layer_swap",
    "layerwise_barriers": "alignment._layerwise_mean",
    "layerwise_mean": "alignment._layerwise_mean",
    "lora_pairs": "adapters._stack_adapters",
    "measures_by_layer": "task_vectors._layer_swap",
    "merge_means": "averaging._weighted_mean",
    "merge_points": "rankings._borda",
    "merge_recipe": "recipes._merge_recipe",
    "ot_fusion": "alignment._ot_fusion",
    "pcb_merging": "task_vectors._pcb_merging",
    "permute": "alignment._permute",
    "pleas": "partial._pleas",
    "preview_merge": "recipes._preview_merge",
    "read_recipe": "recipes._read_recipe",
    "reduce_adapters": "adapters._reduce_adapters",
    "singular_alignment": "alignment._singular_alignment",
    "slerp": "averaging._slerp",
    "stack_adapters": "adapters._stack_adapters",
    "stacking": "ensembles._stacking",
    "task_arithmetic": "task_vectors._task_arithmetic",
    "ties": "task_vectors._ties",
    "variance_corrected_mean": "averaging._variance_corrected_mean",
    "vote_ballots": "rankings._votes",
    "weight_matching": "alignment._weight_matching",
    "weighted_mean": "averaging._weighted_mean",
    "win_ballots": "rankings._votes",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
