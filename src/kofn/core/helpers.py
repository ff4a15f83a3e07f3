"""`@helper`: public functions that no verb calls, whose arguments are read as those of methods are."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_origin

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
        >>> doubled(3, seed=-1)
        Traceback (most recent call last):
        ...
        kofn.core.checks.errors.InputError: seed=-1: give a whole number >= 0 or a numpy Generator
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
        except TypeError:
            # Too few arguments, or a word that it does not know: the function says so itself.
            return function(*arguments, **options)
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
    rest = [parameter for parameter in signature.parameters.values() if parameter.kind is parameter.VAR_KEYWORD]
    if all("Unpack[" in annotation_text(parameter) for parameter in rest):
        signature = expand(function)[0]
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    called = {name for name in names if get_origin(names[name]) is Callable}
    return signature.replace(
        parameters=[
            parameter.replace(annotation="Callable") if annotation_text(parameter) in called else parameter
            for parameter in signature.parameters.values()
        ]
    )


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


@functools.cache
def _alternatives(annotation: str) -> tuple[str, ...]:
    """The alternatives of an annotation, as they are written; those within brackets stay together."""
    node: ast.expr = ast.parse(annotation, mode="eval").body
    kinds = []
    while isinstance(node, ast.BinOp):
        kinds.append(ast.unparse(node.right))
        node = node.left
    return (ast.unparse(node), *reversed(kinds))


def _read(name: str, value: Any, annotation: str, classes: Mapping[str, type]) -> Any:
    """The value as the function takes it.

    Raises:
        InputError: it is of none of the kinds that the annotation names.
    """
    if value is None and annotation.endswith(" | None"):
        return None
    if name in vocabulary.SETTINGS and "Literal[" not in annotation:
        checked = vocabulary.argument(name, value)
        # A text, such as "2GB", stays as it was typed, for what the function says of it.
        return value if isinstance(value, str) else checked
    kinds = _alternatives(annotation)
    wanted = [kind for kind in kinds if kind in classes]
    if any(isinstance(value, classes[kind]) for kind in wanted):
        return value
    others = " | ".join(kind for kind in kinds if kind not in classes)
    if wanted and others in ("", "None"):
        raise InputError(f"{name}={checks.shown(value)}: give a {' or a '.join(wanted)}")
    return checks.option(name, value, others)
