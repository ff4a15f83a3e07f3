"""Posteriors of tasks that differ: blended by preference, or gathered into a prior for the next task."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "FewShotPrior": "_few_shot_prior",
    "QuadraticEpisode": "_episodes",
    "credal_mixture": "_credal_mixture",
    "hierarchical_normal": "_hierarchical_normal",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
