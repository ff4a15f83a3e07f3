"""How much for each: one file a family, every method importable from here."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DistillationLaw": "scaling_laws._distillation_law",
    "HyperparameterLaw": "scaling_laws._hyperparameter_law",
    "InfluenceMixture": "mixtures._influence_mixture",
    "LearningCurves": "scaling_laws._learning_curves",
    "MeasuredAdditivity": "programs._additivity",
    "MoELaw": "scaling_laws._moe_law",
    "OnlineDataMixing": "mixtures._online_data_mixing",
    "SupervisedLaw": "scaling_laws._distillation_law",
    "Utility": "scaling_laws._fit_utility",
    "adams": "apportionment._adams",
    "additivity": "programs._additivity",
    "allocate_checkpoint": "checkpoints._allocate_checkpoint",
    "annotation_split": "sampling._annotation_split",
    "apply_plan": "checkpoints._apply_plan",
    "balans": "programs._balans",
    "constrained_knapsack": "knapsack._constrained_knapsack",
    "dean": "apportionment._dean",
    "dhondt": "apportionment._dhondt",
    "difficulty_aware_trials": "sampling._difficulty_aware_trials",
    "equitable_collection": "sampling._equitable_collection",
    "evopress": "programs._evopress",
    "expert_bits": "bits._expert_bits",
    "export_plan": "checkpoints._export_plan",
    "fit_distillation_law": "scaling_laws._distillation_law",
    "fit_hyperparameter_law": "scaling_laws._hyperparameter_law",
    "fit_learning_curves": "scaling_laws._learning_curves",
    "fit_moe_law": "scaling_laws._moe_law",
    "fit_supervised_law": "scaling_laws._distillation_law",
    "fit_utility": "scaling_laws._fit_utility",
    "group_influence": "mixtures._influence_mixture",
    "hull_greedy": "knapsack._hull_greedy",
    "huntington_hill": "apportionment._huntington_hill",
    "largest_remainder": "apportionment._largest_remainder",
    "multiple_choice_knapsack": "knapsack._multiple_choice_knapsack",
    "quality_quantity": "scaling_laws._quality_quantity",
    "read_plan": "checkpoints._apply_plan",
    "reverse_water_filling": "bits._reverse_water_filling",
    "rollout_knapsack": "sampling._rollout_knapsack",
    "sainte_lague": "apportionment._sainte_lague",
    "submodular_mixture": "mixtures._submodular_mixture",
    "water_filling": "continuous._water_filling",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
