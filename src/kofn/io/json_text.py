"""JSON of somebody else's files, with the faults refused that would only be met later, while something is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_DEEPEST = 100  # files of models nest a few levels; Python's own limit is met at several hundred, in any walk over them
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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
    if _SURROGATE.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text in it has half of a surrogate pair") from None
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
