"""How often to try, to label or to sample each item of a pool."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "annotation_split": "_annotation_split",
    "difficulty_aware_trials": "_difficulty_aware_trials",
    "equitable_collection": "_equitable_collection",
    "neyman": "_neyman",
    "rollout_knapsack": "_rollout_knapsack",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
