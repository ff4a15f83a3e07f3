"""Checks of single values: numbers, counts, shares, choices, bytes, seconds, seeds."""

from __future__ import annotations

import math
import numbers
import secrets
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeGuard

import numpy as np

from kofn.core.checks.errors import InputError, nearest

# Characters of a value that an error shows.
_SHOWN = 80


def is_number(value: object) -> TypeGuard[float]:
    """True for a real number of Python or NumPy; booleans are none."""
    # NumPy counts durations among its integers.
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.timedelta64)


def is_finite(value: object) -> TypeGuard[float]:
    """True for a real number that is finite, and not beyond what arithmetic on it holds."""
    if not is_number(value):
        return False
    return abs(value) < 2**1023 if isinstance(value, int) else math.isfinite(value)


def shown(value: Any) -> str:
    """The value as an error shows it: its repr in one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # a stranger's object may not even have a repr
        # Python writes out no whole number of more than 4,300 digits.
        long = isinstance(value, int) and isinstance(error, ValueError)
        return "a number of thousands of digits" if long else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def number(value: Any, name: str) -> float | int:
    """A finite, non-negative number; integers stay integers."""
    if not is_number(value):
        raise InputError(f"{name}={shown(value)}: give a number")
    if not is_finite(value):
        raise InputError(f"{name}={shown(value)}: give a finite number")
    if value < 0:
        raise InputError(f"{name}={shown(value)}: it must be >= 0")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def count(value: Any, name: str = "k", *, least: int = 1) -> int:
    """An integer >= `least`."""
    if not is_finite(value) or not float(value).is_integer():
        raise InputError(f"{name}={shown(value)}: give a whole number")
    if value >= 2**63:
        raise InputError(f"{name}={shown(value)}: give a whole number below 2**63")
    if value < least:
        raise InputError(f"{name}={shown(value)}: ask for at least {least}")
    return int(value)


def share_of_rows(text: str, name: str = "k") -> Fraction:
    """A share of the rows, such as 10%."""
    try:
        share = Fraction(text.removesuffix("%")) / 100 if text.endswith("%") else None
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None:
        raise InputError(f"{name}={shown(text)}: give a whole number, or a share of the rows such as '10%'")
    if not 0 < share <= 1:
        raise InputError(f"{name}={shown(text)}: give a share of the rows from above 0% to 100%")
    return share


def fraction(value: Any, name: str, *, low: float = 0.0, high: float = 1.0) -> float:
    """A number in [low, high]."""
    if not is_number(value) or not low <= value <= high:
        raise InputError(f"{name}={shown(value)}: give a number between {low:g} and {high:g}")
    return float(value)


def share(value: Any, name: str) -> float:
    """A number in [0, 1], or a text of percents, such as 90%."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            number = math.nan
    if not is_number(number) or not 0 <= number <= 1:
        raise InputError(f"{name}={shown(value)}: give a number between 0 and 1, for example 0.9 or 90%")
    return float(number)


def weights_of_text(text: str, name: str = "weights") -> list[float]:
    """Numbers with commas between, or percents."""
    parts = [part.strip() for part in text.split(",")]
    percents = [part.endswith("%") for part in parts]
    if any(percents) and not all(percents):
        raise InputError(f"{name}={text!r}: give all weights in percent or none, for example 70%,30% or .7,.3")
    try:
        return [float(part.removesuffix("%")) / (100 if percents[0] else 1) for part in parts]
    except ValueError:
        raise InputError(f"{name}={text!r}: give numbers with commas between, for example .5,.3,.2") from None


def choice(value: Any, name: str, known: Sequence[str]) -> str:
    """One of the known names."""
    if not isinstance(value, str) or value not in known:
        near = nearest(value, known) if isinstance(value, str) else ""
        raise InputError(f"{name}={shown(value)}: choose one of {', '.join(known)}{near}")
    return str(value)


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={shown(value)}: give True or False")
    return bool(value)


def progress(value: Any, name: str = "progress") -> Any:
    """True or False, or a callable that is told each step."""
    # Classes and networks can be called too, but not with a step.
    if callable(value) and not isinstance(value, type) and not hasattr(value, "load_state_dict"):
        return value
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={shown(value)}: give True or False, or a callable that takes each step")
    return bool(value)


def bytes_of(value: Any, name: str = "max_memory") -> int:
    """Bytes from a number or text such as '600MB' or '2GiB'."""
    if isinstance(value, str):
        units = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
        text = value.strip().lower().removesuffix("b")
        digits = text.rstrip("kmgti")
        try:
            value = float(digits) * units[text[len(digits) :]]
        except (ValueError, KeyError):
            raise InputError(f"{name}={shown(value)}: give bytes, or for example 600MB or 2GiB") from None
    if not is_number(value) or not np.isfinite(float(value)) or value <= 0:
        raise InputError(f"{name}={shown(value)}: give a positive number of bytes, or for example '600MB'")
    return int(value)


def seconds(value: Any, name: str = "time_limit") -> float:
    """A positive number of seconds."""
    if not is_number(value) or not value > 0:
        raise InputError(f"{name}={shown(value)}: give a positive number of seconds")
    return float(value)


# As many as the state of a generator; printing much longer numbers is refused by Python itself.
_SEED_BITS = 4096


def entropy(value: Any, name: str = "seed", *, secret: bool = False) -> int:
    """The integer that seeds a run; None draws a fresh one, so that every run can be repeated from its plan.

    A fresh one is short, to be copied by hand; one that must stay `secret` is of 128 bits, too many to try.
    """
    if value is None:
        return secrets.randbits(128 if secret else 32)
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**63))
    if isinstance(value, np.random.RandomState):
        return int(value.randint(2**31))
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise InputError(f"{name}={shown(value)}: give a whole number >= 0 or a numpy Generator")
    if int(value).bit_length() > _SEED_BITS:
        raise InputError(f"{name} has more than {_SEED_BITS} bits; give a smaller whole number")
    return int(value)
