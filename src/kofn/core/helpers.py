"""`@helper`: public functions that no verb calls, whose arguments are read as those of methods are."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kofn.core import checks, vocabulary
from kofn.core.checks import InputError
from kofn.core.signatures import annotation_text, expand
from kofn.engines.threads import limited

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Z]\w*")


def helper(function: F) -> F:
    """Read each argument by the type that the signature gives it, settings by the vocabulary's checks.

    Numbers that overflow or vanish, and more than fits into memory, are said in words, and `n_threads` holds for linear
    algebra too, as for methods. Ranges, and what `Any` leaves open, are the function's to check.

    Examples:
        >>> from kofn.core.helpers import helper
        >>> @helper
        ... def doubled(count: int, *, seed: int = 0) -> int:
        ...     return 2 * count
        >>> doubled(3.0)
        6
        >>> doubled("three")
        Traceback (most recent call last):
        ...
        kofn.core.checks.errors.InputError: count='three': give a whole number
    """

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        signature = _signature(function)
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            annotation, classes = annotation_text(parameter), _classes(function)
            if parameter.kind is parameter.VAR_POSITIONAL:
                each = (_read(f"{name}[{index}]", item, annotation, classes) for index, item in enumerate(value))
                bound.arguments[name] = tuple(each)
            elif parameter.kind is not parameter.VAR_KEYWORD and value is not parameter.default:
                bound.arguments[name] = _read(name, value, annotation, classes)
        known = dict(bound.arguments)
        with limited(known.get("n_threads")), checks.explained(function.__name__, known):
            return function(*bound.args, **bound.kwargs)

    run.__kofn_helper__ = True  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    bundled = any("Unpack[" in annotation_text(parameter) for parameter in signature.parameters.values())
    return expand(function)[0] if bundled else signature


@functools.cache
def _classes(function: Callable[..., Any]) -> Mapping[str, type]:
    """The classes that its module knows by name, but those that are only protocols."""
    names = getattr(function, "__globals__", {})
    return {
        name: value
        for name, value in names.items()
        if isinstance(value, type)
        and value is not Any
        and _NAME.fullmatch(name)
        and not getattr(value, "_is_protocol", False)
    }


def _read(name: str, value: Any, annotation: str, classes: Mapping[str, type]) -> Any:
    """The value as the function takes it.

    Raises:
        InputError: it is of none of the kinds that the annotation names.
    """
    if value is None and annotation.endswith(" | None"):
        return None
    if name in vocabulary.SETTINGS:
        return vocabulary.argument(name, value)
    kinds = annotation.split(" | ")
    wanted = [kind for kind in kinds if kind in classes]
    if any(isinstance(value, classes[kind]) for kind in wanted):
        return value
    others = " | ".join(kind for kind in kinds if kind not in classes)
    if wanted and others in ("", "None"):
        raise InputError(f"{name}={checks.shown(value)}: give a {' or a '.join(wanted)}")
    return checks.option(name, value, others)
