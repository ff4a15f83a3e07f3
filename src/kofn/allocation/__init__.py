"""How much for each: one file a family, every method importable from here."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Additivity": "programs._additivity",
    "LearningCurves": "scaling_laws._learning_curves",
    "Utility": "scaling_laws._fit_utility",
    "additivity": "programs._additivity",
    "difficulty_aware_trials": "sampling._difficulty_aware_trials",
    "equitable_collection": "sampling._equitable_collection",
    "evopress": "programs._evopress",
    "expert_bits": "bits._expert_bits",
    "fit_learning_curves": "scaling_laws._learning_curves",
    "fit_utility": "scaling_laws._fit_utility",
    "hull_greedy": "knapsack._hull_greedy",
    "multiple_choice_knapsack": "knapsack._multiple_choice_knapsack",
    "quality_quantity": "scaling_laws._quality_quantity",
    "reverse_water_filling": "bits._reverse_water_filling",
    "rollout_knapsack": "sampling._rollout_knapsack",
    "submodular_mixture": "mixtures._submodular_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
