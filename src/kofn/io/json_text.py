"""JSON of somebody else's files, with the faults refused that would only be met later, while something is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_DEEPEST = 100  # files of models nest a few levels; Python's own limit is met at several hundred, in any walk over them
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
HALF_A_PAIR = "half of a surrogate pair, which UTF-8 cannot write"


def is_text(value: Any) -> bool:
    """Whether every text in a value can be written as UTF-8: none has half of a surrogate pair.

    >>> is_text("a"), is_text({"a": ["b\\ud800"]})
    (True, False)
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    if isinstance(value, dict):
        return all(is_text(key) and is_text(inner) for key, inner in value.items())
    if hasattr(value, "tolist"):
        value = value.tolist()
    return all(map(is_text, value)) if isinstance(value, list | tuple) else True


def has_half_a_pair(text: str, content: Any) -> bool:
    """Whether a text in the content of a JSON text has half of a surrogate pair."""
    return _SURROGATE.search(text) is not None and not is_text(content)


def parsed(text: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of a JSON text.

    Args:
        text: a whole file, or an entry of one.
        object_pairs_hook: what makes an object of its pairs, as `json.loads` takes it.

    Raises:
        ValueError: no JSON, one nested more than 100 deep, or one with half of a surrogate pair, which is no text.

    >>> parsed('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    try:
        content = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > _DEEPEST:
        _refuse_deep(content)
    if has_half_a_pair(text, content):
        raise ValueError("a text in it has half of a surrogate pair")
    return content


def _refuse_deep(content: Any) -> None:
    level, depth = [content], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > _DEEPEST:
            raise _too_deep()
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {_DEEPEST} deep")
