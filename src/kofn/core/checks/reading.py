"""How a value of the caller's is looked at: what it raises by itself becomes a refusal by its word."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kofn.core.checks.errors import InputError, KofnError

# Characters that are told of what a value raised.
_TOLD = 160


def collected(value: Any) -> Any:
    """A polars LazyFrame made once; any other value as it is."""
    return value.collect() if type(value).__name__ == "LazyFrame" and hasattr(value, "collect") else value


# Packages whose code runs on our behalf; what is raised in any other is the caller's own.
_OURS = {"kofn", "numpy", "scipy", "sklearn", "polars", "narwhals", "numba", "llvmlite", "torch", "pandas", "joblib"}


def in_callers_code(error: BaseException) -> bool:
    """Whether an error that left a call of ours was raised in, or below, code that the caller brought along."""
    frames = []
    step = error.__traceback__
    while step is not None:
        frames.append(step.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        step = step.tb_next
    return any(name not in _OURS and name not in sys.stdlib_module_names for name in frames)


def statistics(values: Sequence[Mapping[str, Any]], entries: Sequence[str], method: str) -> None:
    """Refuse what is no `Blend.statistic` of a method: none at all, and one that lacks an entry.

    >>> statistics([{"sum": 3.0}], ("sum", "weight"), "weighted_mean")
    Traceback (most recent call last):
    ...
    kofn.core.checks.errors.InputError: statistics[0] has no 'weight'; give the statistic of a blend by weighted_mean
    """
    if not values:
        raise InputError("statistics are empty; give at least one")
    for index, statistic in enumerate(values):
        for entry in entries:
            if entry not in statistic:
                raise InputError(f"statistics[{index}] has no {entry!r}; give the statistic of a blend by {method}")


@contextmanager
def reading(name: str, value: Any, wanted: str = "") -> Iterator[None]:
    """Within it only the value is looked at: it is converted, compared, asked for its length or its items.

    No callable of the caller's and no algorithm of ours runs in it, so that neither's own errors are hidden.

    Args:
        name: the argument.
        value: what was given.
        wanted: what to give instead.

    Raises:
        InputError: whatever the value raised, in one line.

    Examples:
        >>> with reading("ids", object()):
        ...     len(object())
        Traceback (most recent call last):
        ...
        kofn.core.checks.errors.InputError: ids: ... (TypeError: object of type 'object' has no len())
    """
    try:
        yield
    except KofnError:
        raise
    except Exception as error:  # a stranger's object may raise anything when it is looked at
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_TOLD]
        meant = f"; give: {wanted}" if wanted else ""
        raise InputError(f"{name}: a {type(value).__name__} that cannot be read ({why}){meant}") from error
