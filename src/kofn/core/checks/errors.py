"""The errors that kofn raises, and the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KofnError(Exception):
    """The base of all errors that kofn raises on purpose."""


class InputError(KofnError, ValueError):
    """The caller's input cannot be used; the message names argument, value, place and remedy."""


class InfeasibleError(InputError):
    """The constraints cannot be met together; the message says which clash and by how much."""


class FailureError(KofnError, RuntimeError):
    """The work could not be completed for a reason outside the input (disk, time, a broken file)."""


class BrokenPlanError(KofnError, RuntimeError):
    """A rule returned a plan that breaks its problem; the message names each constraint that does not hold."""


class KofnWarning(UserWarning):
    """Something was counted and reported rather than refused."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing."""
    spelled = {str(item).casefold(): str(item) for item in known}
    near = difflib.get_close_matches(str(name).casefold(), spelled, 1)
    return f"; did you mean {spelled[near[0]]!r}?" if near else ""
