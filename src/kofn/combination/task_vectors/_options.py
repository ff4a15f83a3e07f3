"""Checks of options shared by the task-vector methods."""

from __future__ import annotations

from kofn.core import checks
from kofn.core.checks import InputError

VOTES = "a vote cannot count less than nothing"


def check_density(density: float) -> float:
    """Check that `density` is in (0, 1]."""
    value = checks.fraction(density, "density")
    if value == 0:
        raise InputError("density=0 keeps nothing of the members; give a share above 0")
    return value


def check_scope(scope: str) -> bool:
    """Check `scope`; True if entries are ranked over the whole model."""
    return checks.choice(scope, "scope", ("tensor", "model")) == "model"
