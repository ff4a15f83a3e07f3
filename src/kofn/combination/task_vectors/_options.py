"""Options that several methods of task vectors have."""

from __future__ import annotations

from kofn.core import checks
from kofn.core.checks import InputError

VOTES = "a vote cannot count less than nothing"


def check_density(density: float) -> float:
    """A share of the entries, above 0."""
    value = checks.fraction(density, "density")
    if value == 0:
        raise InputError("density=0 keeps nothing of the members; give a share above 0")
    return value


def check_scope(scope: str) -> bool:
    """Whether entries are ranked over the whole model."""
    return checks.choice(scope, "scope", ("tensor", "model")) == "model"
