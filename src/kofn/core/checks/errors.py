"""The errors that kofn raises, and the nearest known name."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable


class KofnError(Exception):
    """The base of all errors that kofn raises on purpose."""


# Characters of a message; of a longer one, which shows a long value, the middle is left out.
_LONGEST = 2000


class InputError(KofnError, ValueError):
    """The caller's input cannot be used; the message names argument, value, place and remedy, in one line."""

    def __init__(self, message: str = "") -> None:
        if "\n" in message:
            message = " ".join(message.split())
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 3 :]}"
        super().__init__(message)


class InfeasibleError(InputError):
    """The constraints cannot be met together; the message says which clash and by how much."""


class FailureError(KofnError, RuntimeError):
    """The work could not be completed for a reason outside the input (disk, time, memory)."""


class DamagedFileError(InputError, FailureError):
    """A file's content is damaged or not what its name says; on the command line, wrong data as other input is."""


class BrokenPlanError(KofnError, RuntimeError):
    """A rule returned a plan that breaks its problem; the message names each constraint that does not hold."""


class KofnWarning(UserWarning):
    """Something was counted and reported rather than refused."""


def warn(message: str) -> None:
    """Issue a `KofnWarning`, at the line of the first caller outside kofn."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "kofn":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, KofnWarning, stacklevel=level + 1)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing."""
    spelled = {str(item).casefold(): str(item) for item in known}
    near = difflib.get_close_matches(str(name).casefold(), spelled, 1)
    return f"; did you mean {spelled[near[0]]!r}?" if near else ""
