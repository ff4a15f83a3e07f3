"""Amounts whose worth only the whole tells, by search."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "LearnedRecourse": "_learned_recourse",
    "MeasuredAdditivity": "_additivity",
    "StagedProgram": "_staged",
    "TargetPolicy": "_target_policy",
    "TwoStageProgram": "_two_stage",
    "additivity": "_additivity",
    "anneal_qubo": "_annealing",
    "balans": "_balans",
    "evopress": "_evopress",
    "fit_recourse": "_learned_recourse",
    "fit_target_policy": "_target_policy",
    "lagrangian_qubo": "_lagrangian_qubo",
    "two_stage_knapsack": "_two_stage",
    "two_stage_robust": "_two_stage_robust",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
