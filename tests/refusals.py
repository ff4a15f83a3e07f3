"""Which `raise` statements of a module a table of bad calls reaches, so that no refusal goes untested."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest

from kofn.core.checks import InputError


def refusals(module: ModuleType) -> dict[int, str]:
    """Line and text of every `raise` of an InputError in the module."""
    tree = ast.parse(inspect.getsource(module))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = getattr(node.exc.func, "id", "")
            if name in ("InputError", "InfeasibleError"):
                found[node.lineno] = ast.unparse(node.exc)
    return found


def refused(call: Callable[[], Any], says: str, kind: type[InputError] = InputError) -> tuple[str, int]:
    """Check that the call is refused in one line that says so; returns the file and line that refused it."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert says in message, f"{message!r} does not say {says!r}"
    assert "\n" not in message
    assert type(caught.value) is kind, f"{type(caught.value).__name__}, not {kind.__name__}: {message}"
    last = caught.traceback[-1]
    return str(last.path), last.lineno + 1


def untested(module: ModuleType | Sequence[ModuleType], reached: set[tuple[str, int]]) -> list[str]:
    """The refusals of the module (or modules) that no call reached."""
    modules = [module] if isinstance(module, ModuleType) else module
    return [
        text
        for one in modules
        for line, text in refusals(one).items()
        if (str(inspect.getsourcefile(one)), line) not in reached
    ]
