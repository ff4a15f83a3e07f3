"""kofn: which to keep, where each goes, how much each gets, how to blend them into one."""

from __future__ import annotations

import kofn._starting  # noqa: F401, isort: skip

from typing import TYPE_CHECKING, Any

from kofn._version import __version__
from kofn.core.drawing import drawn_by
from kofn.core.lazy import attach
from kofn.core.old_paths import install as _install_old_paths

if TYPE_CHECKING:
    from kofn import allocation as allocation
    from kofn import assignment as assignment
    from kofn import combination as combination
    from kofn import datasets as datasets
    from kofn import federated as federated
    from kofn import neighbors as neighbors
    from kofn import nn as nn
    from kofn import objectives as objectives
    from kofn import online as online
    from kofn import optim as optim
    from kofn import selection as selection
    from kofn.comparing import compare as compare
    from kofn.core.checks import BrokenPlanError as BrokenPlanError
    from kofn.core.checks import FailureError as FailureError
    from kofn.core.checks import InfeasibleError as InfeasibleError
    from kofn.core.checks import InputError as InputError
    from kofn.core.checks import KofnError as KofnError
    from kofn.core.plans import Allocation as Allocation
    from kofn.core.plans import Assignment as Assignment
    from kofn.core.plans import Blend as Blend
    from kofn.core.plans import Selection as Selection
    from kofn.ensemble_estimators import DynamicSelector as DynamicSelector
    from kofn.ensemble_estimators import EnsembleSelector as EnsembleSelector
    from kofn.ensemble_estimators import Stacker as Stacker
    from kofn.estimators import Assigner as Assigner
    from kofn.estimators import Selector as Selector
    from kofn.finding import find as find
    from kofn.io.pool import Pool as Pool
    from kofn.verbs import allocate as allocate
    from kofn.verbs import assign as assign
    from kofn.verbs import combine as combine
    from kofn.verbs import methods as methods
    from kofn.verbs import select as select

_HOMES = {
    **dict.fromkeys(("KofnError", "InputError", "InfeasibleError", "FailureError", "BrokenPlanError"), "core.checks"),
    **dict.fromkeys(("select", "assign", "allocate", "combine", "methods"), "verbs"),
    **dict.fromkeys(("Selection", "Assignment", "Allocation", "Blend"), "core.plans"),
    **dict.fromkeys(("Assigner", "Selector"), "estimators"),
    **dict.fromkeys(("DynamicSelector", "EnsembleSelector", "Stacker"), "ensemble_estimators"),
    "compare": "comparing",
    "find": "finding",
    "Pool": "io.pool",
}
_PACKAGES = (
    *("allocation", "assignment", "combination", "selection"),
    *("datasets", "federated", "neighbors", "nn", "objectives", "online", "optim"),
)
__getattr__, __dir__, __all__ = attach(__name__, _HOMES, packages=_PACKAGES)
__all__ += ["__version__"]
_install_old_paths()


def _report() -> Any:
    from kofn import report

    return report


drawn_by(_report)
