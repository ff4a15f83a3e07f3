"""Sums of scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kofn.laws.case import Case
from kofn.laws.words import (
    SetFunction,
    from_table,
)


def _modular(case: Case) -> SetFunction:
    return from_table("modular", np.asarray(case.words["scores"], np.float64).ravel(), np.ones(case.n), "sum")


FUNCTIONS: dict[str, Callable[[Case], SetFunction]] = {"modular": _modular}
