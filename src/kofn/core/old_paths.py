"""Modules under the paths they had before 0.2: importable for one release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

# A family's own file is private; its names are importable from the family.
MOVED = {
    "kofn.checks": "kofn.core.checks",
    "kofn.plans": "kofn.core.plans",
    "kofn.problems": "kofn.core.problems",
    "kofn.constraints": "kofn.core.constraints",
    "kofn.registry": "kofn.core.registry",
    "kofn.dispatch": "kofn.core.dispatch",
    "kofn.engines.control": "kofn.core.runtime",
    "kofn.selection.active": "kofn.selection.labels",
    "kofn.selection.annotators": "kofn.selection.labels",
    "kofn.selection.attribution": "kofn.selection.networks",
    "kofn.selection.best_of": "kofn.selection.judges",
    "kofn.selection.coresets": "kofn.selection.training_data",
    "kofn.selection.dedupe": "kofn.selection.training_data",
    "kofn.selection.diversity": "kofn.selection.covering",
    "kofn.selection.dynamic": "kofn.selection.streams",
    "kofn.selection.filtering": "kofn.selection.training_data",
    "kofn.selection.kcenter": "kofn.selection.covering",
    "kofn.selection.masks": "kofn.selection.networks",
    "kofn.selection.order": "kofn.selection.greedy",
    "kofn.selection.private": "kofn.selection.streams",
    "kofn.selection.quotas": "kofn.selection.judges",
    "kofn.selection.sampling": "kofn.selection.basics",
    "kofn.selection.scores": "kofn.selection.basics",
    "kofn.selection.sources": "kofn.selection.training_data",
    "kofn.selection.sparse": "kofn.selection.greedy",
    "kofn.selection.streaming": "kofn.selection.streams",
    "kofn.selection.submodular": "kofn.selection.greedy",
    "kofn.assignment.balanced": "kofn.assignment.routing",
    "kofn.assignment.clara": "kofn.assignment.medoids",
    "kofn.assignment.clustering": "kofn.assignment.means",
    "kofn.assignment.constrained": "kofn.assignment.means",
    "kofn.assignment.kmedoids": "kofn.assignment.medoids",
    "kofn.assignment.laplacian": "kofn.assignment.graphs",
    "kofn.assignment.silhouette": "kofn.assignment.silhouettes",
    "kofn.allocation.curves": "kofn.allocation.knapsack",
    "kofn.combination.folding": "kofn.combination.adapters",
    "kofn.combination.interpolation": "kofn.combination.averaging",
    "kofn.combination.layers": "kofn.combination.task_vectors",
    "kofn.combination.layerwise": "kofn.combination.alignment",
    "kofn.combination.recipe": "kofn.combination.recipes",
    "kofn.combination.search": "kofn.combination.soups",
    "kofn.neighbors.graph": "kofn.neighbors.graphs",
    "kofn.optim.cma": "kofn.optim.evolution",
}


class _Finder:
    """A finder and loader of old paths, not derived from `importlib.abc`, whose import takes longer than kofn's own."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old path goes with the next release", DeprecationWarning, 2)
        loaded = importlib.import_module(new)
        alias = ModuleType(spec.name, loaded.__doc__)
        alias.__getattr__ = lambda name: getattr(loaded, name)  # type: ignore[method-assign]
        alias.__dir__ = lambda: dir(loaded)  # type: ignore[method-assign]
        return alias

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run: the alias asks the new module for each name."""


def install() -> None:
    """Find old paths after everything else was asked."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
