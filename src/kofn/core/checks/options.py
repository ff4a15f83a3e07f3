"""The check of a method's own options, by the type that its signature gives them."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.checks.errors import InputError
from kofn.core.checks.numbers import choice, flag, is_number, shown


def option(name: str, value: Any, annotation: str) -> None:
    """Refuse a value whose kind is not the one that the annotation names.

    What the annotation leaves open passes, and ranges and lengths are the method's to check.

    Args:
        name: the option.
        value: what was given.
        annotation: the text of its type in the signature, such as `int | None`.
    """
    parts = _parts(annotation)
    if not parts or any(fits(value) for fits, _ in parts):
        return
    literals = [known for known in (_literals(text) for text in annotation.split(" | ")) if known]
    if literals and len([words for _, words in parts if words != "None"]) == 1:
        choice(value, name, [str(text) for text in literals[0]])
    if annotation == "bool":
        flag(value, name)
    wanted = " or ".join(dict.fromkeys(words for _, words in parts if words != "None"))
    raise InputError(f"{name}={shown(value)}: give {wanted}")


@functools.cache
def _parts(annotation: str) -> tuple[tuple[Callable[[Any], bool], str], ...]:
    """A test and the words for each alternative of the annotation; empty where one of them may be anything."""
    node = ast.parse(annotation, mode="eval").body
    nodes = []
    while isinstance(node, ast.BinOp):
        nodes.append(node.right)
        node = node.left
    found = []
    for alternative in [node, *reversed(nodes)]:
        text = ast.unparse(alternative)
        if text in _KINDS:
            found.append(_KINDS[text])
        elif known := _literals(text):
            found.append((_one_of(known), f"one of {', '.join(map(str, known))}"))
        elif text.startswith("Sequence["):
            found.append((_is_sequence, "a list"))
        elif text.startswith("Mapping["):
            found.append((lambda value: isinstance(value, Mapping), "a mapping"))
        else:
            return ()
    return tuple(found)


def _one_of(known: tuple[Any, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str | int) and value in known


def _literals(text: str) -> tuple[Any, ...]:
    if not text.startswith("Literal["):
        return ()
    value = ast.literal_eval(text.removeprefix("Literal[").removesuffix("]"))
    return value if isinstance(value, tuple) else (value,)


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int | np.integer) and not isinstance(value, bool)) or (
        isinstance(value, float | np.floating) and float(value).is_integer()
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "None": (lambda value: value is None, "None"),
    "bool": (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "int": (_is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "Path": (lambda value: isinstance(value, str | os.PathLike), "a path"),
    "Callable": (callable, "a callable"),
}
