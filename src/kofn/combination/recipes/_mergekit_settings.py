"""Settings of mergekit recipes: which of the values that are given counts for a tensor, and how it is read.

A list of numbers changes along the layers, a list of conditions is decided by the first whose `filter` is part of the
tensor's name. Values are read as the setting's type: "false" and 0 are flags, "1e-5" (a text in YAML) is a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kofn.combination.recipes._recipe import refuse_unknown
from kofn.core import checks
from kofn.core.checks import InputError

Settings = Mapping[str, Any]
Read = Callable[[Any, str], Any]

SHARES = ("density", "select_topk")  # settings that tell which share of the entries is kept
REQUIRED = object()  # instead of a default
_YES, _NO = ("1", "on", "t", "true", "y", "yes"), ("0", "off", "f", "false", "n", "no")


@dataclass(frozen=True)
class Input:
    """A model that a tensor is made of: its own settings, and the tensor's name there."""

    model: str
    settings: Settings
    name: str


@dataclass
class Lookup:
    """The settings of a tensor; `used` keeps those that were asked for, in the recipe's words.

    `scopes` are the settings of the slice and of the recipe, those that count first first; a model's own count before.
    """

    name: str
    t: float
    scopes: Sequence[Settings]
    inputs: Sequence[Input]
    used: dict[str, Any] = field(default_factory=dict)

    def shared(self, key: str, read: Read, default: Any = REQUIRED) -> Any:
        """A setting of the whole merge."""
        value = self._found(key, read, self.scopes, self.name)
        if value is None and default is REQUIRED:
            raise InputError(f"parameters name no {key}; give it")
        self.used[key] = default if value is None else value
        return self.used[key]

    def each(self, key: str, read: Read, default: Any = REQUIRED) -> tuple[Any, ...]:
        """A setting that every model has. Filters look at the name that the tensor has in the model."""
        values = []
        for source in self.inputs:
            value = self._found(key, read, (source.settings, *self.scopes), source.name)
            if value is None and default is REQUIRED:
                raise InputError(f"model {source.model!r} has no {key}; give parameters: {key}")
            values.append(default if value is None else value)
        self.used[key] = values
        return tuple(values)

    def _found(self, key: str, read: Read, scopes: Sequence[Settings], name: str) -> Any:
        for settings in scopes:
            if key in settings:
                value = evaluate(settings[key], name, self.t, key, read)
                if value is not None:
                    return value
        return None


def evaluate(value: Any, name: str, t: float, key: str, read: Read) -> Any:
    """A setting for a tensor: a value, a list of values along the layers, or the first condition that applies.

    None where no condition applies, or the list is empty: then a setting of less precedence counts.
    """
    if value is None or value == []:
        return None
    conditions = [value] if isinstance(value, Mapping) else value
    if not isinstance(conditions, list):
        return read(value, key)
    if all(isinstance(item, Mapping) for item in conditions):
        for condition in conditions:
            refuse_unknown(condition, ("filter", "value"), f"a condition of {key}")
            wanted = condition.get("filter")
            if wanted in (None, "*") or str(wanted) in name:
                return evaluate(condition.get("value"), name, t, key, read)
        return None
    if not all(isinstance(item, bool | int | float | str) for item in conditions):
        raise InputError(f"{key}: {value!r} is no number, list of numbers along the layers, or list of conditions")
    return _along(conditions, t, key, read)


def _along(steps: Sequence[Any], t: float, key: str, read: Read) -> Any:
    """The value at the share t of the layers: between numbers, else the step that t has come to."""
    values = [read(step, key) for step in steps]
    position = t * (len(values) - 1)
    low = int(position)
    if not all(isinstance(step, int | float) and not isinstance(step, bool) for step in values):
        return values[low]
    high = min(len(values) - 1, low + 1)
    return read((1 - (position - low)) * values[low] + (position - low) * values[high], key)


def odd_share(key: str, value: Any) -> str | None:
    """What is said of a share that mergekit takes for all or for nothing: one above 1, one of 0 or below.

    In a list along the layers, 0 is a share like others.
    """
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, Mapping) for each in values):
        inner = (odd_share(key, each.get("value")) for each in values if isinstance(each, Mapping))
        return next((text for text in inner if text), None)
    numbers = [number(each, key) for each in values if each is not None]
    odd = next((each for each in numbers if not 0 <= each <= 1), 0.0 if numbers == [0] else None)
    if odd is None:
        return None
    return f"{key} {odd:g} keeps {'every entry' if odd > 1 else 'nothing'}, as in mergekit: it is a share from 0 to 1"


def number(value: Any, key: str) -> float:
    """A number, which may be written as a text (YAML reads 1e-5 as one) or as true and false."""
    if isinstance(value, str | bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    if not checks.is_finite(value):
        raise InputError(f"{key}: {checks.shown(value)} is no number")
    return float(value)


def share(value: Any, key: str) -> float:
    """A number from 0 to 1."""
    read = number(value, key)
    if not 0 <= read <= 1:
        raise InputError(f"{key}: {checks.shown(value)} is no share; give a number from 0 to 1")
    return read


def amount(value: Any, key: str) -> float:
    """A number that is not negative."""
    read = number(value, key)
    if read < 0:
        raise InputError(f"{key}: {checks.shown(value)} is negative; give 0 or more")
    return read


def whole(value: Any, key: str) -> int:
    """A count, which may be written as 10.0 or as a text."""
    read = number(value, key)
    if not read.is_integer():
        raise InputError(f"{key}: {checks.shown(value)} is no whole number")
    return checks.count(int(read), key)


def flag(value: Any, key: str) -> bool:
    """True or false, which may be written as a text or as 1 and 0."""
    word = f"{value:g}" if isinstance(value, float) else str(value).lower()
    if word not in _YES + _NO:
        raise InputError(f"{key}: {checks.shown(value)} is neither true nor false")
    return word in _YES
