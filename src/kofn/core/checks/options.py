"""The one reader of a method's own options, by the type that its signature gives them."""

from __future__ import annotations

import ast
import functools
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from kofn.core.checks.arrays import as_array, is_sparse
from kofn.core.checks.errors import InputError
from kofn.core.checks.numbers import choice, flag, is_number, shown
from kofn.core.checks.reading import collected, reading

# A test of a value, and the words for what passes it.
Kind = tuple[Callable[[Any], bool], str]


def option(name: str, value: Any, annotation: str) -> Any:
    """The value as the method takes it; what the annotation names in vain is refused.

    Arrays are made here, so that a method never meets what only claims to be one. What the annotation leaves open
    (`Any`) passes as it is, and ranges and lengths are the method's to check.

    Args:
        name: the option.
        value: what was given.
        annotation: the text of its type in the signature, such as `int | None`.
    """
    with reading(name, value):
        value = collected(value)
        if isinstance(value, dict):  # one of a kind of its own may not hold what it says
            value = dict(value.items())
        if annotation.partition(" | ")[0] == "ArrayLike":
            return value if value is None or _is_other(value, annotation) else _array(value, name)
        parts = _parts(annotation)
        kinds = {words for fits, words in parts if fits(value)}
        if not parts or kinds:
            # 2.0 and NumPy's small integers count as a whole number, and become one.
            return int(value) if _KINDS["int"][1] in kinds and _KINDS["float"][1] not in kinds else value
        literals = [known for known in (_literals(text) for text in annotation.split(" | ")) if known]
        if literals and len([words for _, words in parts if words != "None"]) == 1:
            choice(value, name, [str(text) for text in literals[0]])
        if annotation == "bool":
            flag(value, name)
        _refuse_item(name, value, annotation)
        wanted = " or ".join(dict.fromkeys(words for _, words in parts if words != "None"))
        raise InputError(f"{name}={shown(value)}: give {wanted}")


def _refuse_item(name: str, value: Any, annotation: str) -> None:
    """Refuse the first item that is none of what the list may hold; a list may hold one kind only in our signatures."""
    node = ast.parse(annotation.removesuffix(" | None"), mode="eval").body
    if not (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Sequence" and _is_sequence(value)):
        return
    kinds = _parts(ast.unparse(node.slice))
    for index, item in enumerate(value):
        if not _fits(item, kinds):
            raise InputError(f"{name}[{index}]={shown(item)}: give {_words(kinds)}")


def _is_other(value: Any, annotation: str) -> bool:
    """Whether what may be an array is one of the alternatives to arrays, of which numbers are none."""
    return isinstance(value, Mapping | str) and _fits(value, _parts(annotation.partition(" | ")[2] or "None"))


def _array(value: Any, name: str) -> Any:
    """An array; sparse rows stay what they are, for the methods that take them."""
    if is_sparse(value):
        return value
    array = as_array(value, name)
    if array.ndim == 0 and array.dtype.kind not in "biuf":
        raise InputError(f"{name}={shown(value)}: give an array")
    return array


@functools.cache
def _parts(annotation: str) -> tuple[Kind, ...]:
    """A test and the words for each alternative of the annotation; empty where one of them may be anything."""
    if "Path" in annotation:  # a text that names a file is a path
        annotation = annotation.removeprefix("str | ")
    node = ast.parse(annotation, mode="eval").body
    nodes = []
    while isinstance(node, ast.BinOp):
        nodes.append(node.right)
        node = node.left
    kinds = []
    for alternative in [node, *reversed(nodes)]:
        kind = _kind(alternative)
        if kind is None:
            return ()
        kinds.append(kind)
    return tuple(kinds)


def _kind(node: ast.expr) -> Kind | None:
    """The test and the words of one alternative; None where nothing is known of it."""
    text = ast.unparse(node)
    if text in _KINDS:
        return _KINDS[text]
    if text.startswith("Callable["):
        return _KINDS["Callable"]
    if known := _literals(text):
        return _one_of(known), f"one of {', '.join(map(str, known))}"
    if not isinstance(node, ast.Subscript):
        return None
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    kinds = [_parts(ast.unparse(part)) for part in inner]
    if text.startswith("Sequence["):
        return (lambda value: _is_sequence(value) and all(_fits(item, kinds[0]) for item in value)), _listed(kinds[0])
    if text.startswith("tuple["):
        return (lambda value: _is_row(value, kinds)), f"{len(kinds)} values, {' and '.join(map(_words, kinds))}"
    if text.startswith("Iterable["):
        return _is_iterable, _listed(kinds[0])
    if text.startswith("Mapping["):
        keys, values = kinds
        named = "a mapping" if not keys else f"a mapping of which each key is {_words(keys)}"
        return (lambda value: _is_mapping(value, keys, values)), named + (
            f" and each value {_words(values)}" if values else ""
        )
    return None


def _fits(value: Any, kinds: Sequence[Kind]) -> bool:
    return not kinds or any(fits(value) for fits, _ in kinds)


def _words(kinds: Sequence[Kind]) -> str:
    return " or ".join(words for _, words in kinds) or "anything"


def _listed(kinds: Sequence[Kind]) -> str:
    return f"a list, of which each is {_words(kinds)}" if kinds else "a list"


def _is_row(value: Any, kinds: Sequence[Sequence[Kind]]) -> bool:
    return (
        _is_sequence(value)
        and len(value) == len(kinds)
        and all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))
    )


def _is_iterable(value: Any) -> bool:
    """Whether it has items; a text is one value here, not its characters."""
    if isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) == 0:
        return False
    return isinstance(value, Iterable)


def _is_mapping(value: Any, keys: Sequence[Kind], values: Sequence[Kind]) -> bool:
    """Whether it is a mapping of such keys; the values of one that reads them from a file are left alone."""
    if not isinstance(value, Mapping) or not all(_fits(key, keys) for key in value):
        return False
    return not isinstance(value, dict) or all(_fits(item, values) for item in value.values())


def _one_of(known: tuple[Any, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str | int) and value in known


def _literals(text: str) -> tuple[Any, ...]:
    if not text.startswith("Literal["):
        return ()
    value = ast.literal_eval(text.removeprefix("Literal[").removesuffix("]"))
    return value if isinstance(value, tuple) else (value,)


def _is_whole(value: Any) -> bool:
    return is_number(value) and abs(value) < 2**63 and float(value).is_integer()


def _is_float(value: Any) -> bool:
    """A number, NaN and infinity too; whole numbers only as far as floats reach."""
    return is_number(value) and (not isinstance(value, int) or abs(value) < 2**1023)


def _is_sequence(value: Any) -> bool:
    """Whether it is a list of values: a range of a billion is none that anybody means."""
    return (
        isinstance(value, list | tuple)
        or (isinstance(value, np.ndarray) and value.ndim > 0)
        or _is_column(value)
        or (isinstance(value, Sequence) and not isinstance(value, str | bytes | memoryview) and len(value) < _LONG)
    )


def _is_column(value: Any) -> bool:
    """Whether it is a column of a polars or pandas frame."""
    kind = type(value)
    return kind.__name__ == "Series" and kind.__module__.partition(".")[0] in ("polars", "pandas")


def _is_label(value: Any) -> bool:
    return isinstance(value, str | bytes | date | np.generic | None) or (
        isinstance(value, numbers.Real) and (not isinstance(value, int) or abs(value) < 2**1023)
    )


def _is_path(value: Any) -> bool:
    if not isinstance(value, str | os.PathLike):
        return False
    name = os.fsencode(value)
    return bool(name) and b"\0" not in name and all(len(part) < 256 for part in name.split(os.fsencode(os.sep)))


# More items than this are no list that somebody wrote, and reading them all would fill the memory.
_LONG = 10**7
_KINDS: dict[str, Kind] = {
    "None": (lambda value: value is None, "None"),
    "bool": (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "int": (_is_whole, "a whole number"),
    "float": (_is_float, "a number"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "Path": (_is_path, "a path"),
    "os.PathLike[str]": (_is_path, "a path"),
    "PathLike[str]": (_is_path, "a path"),
    "Callable": (callable, "a callable"),
    "Hashable": (_is_label, "a label: a text, a number or a date"),
}
