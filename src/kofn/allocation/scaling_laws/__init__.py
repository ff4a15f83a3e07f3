"""How much of each source, from fitted laws of returns."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DistillationLaw": "_distillation_law",
    "HyperparameterLaw": "_hyperparameter_law",
    "LearningCurves": "_learning_curves",
    "MoELaw": "_moe_law",
    "SupervisedLaw": "_distillation_law",
    "Utility": "_fit_utility",
    "fit_distillation_law": "_distillation_law",
    "fit_hyperparameter_law": "_hyperparameter_law",
    "fit_learning_curves": "_learning_curves",
    "fit_moe_law": "_moe_law",
    "fit_supervised_law": "_distillation_law",
    "fit_utility": "_fit_utility",
    "quality_quantity": "_quality_quantity",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
