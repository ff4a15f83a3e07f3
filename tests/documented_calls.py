"""Valid calls of the public functions that no verb makes: those of their own examples."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import kofn

_INDEX = Path(kofn.__file__).parent / "_index" / "find.json"


@dataclass(frozen=True)
class Documented:
    """A public function, and the packages that it is imported from."""

    name: str
    function: Callable[..., Any]
    packages: tuple[Any, ...]


def documented() -> Iterator[Documented]:
    """Every public function that is no method of a verb, with an example."""
    for row in json.loads(_INDEX.read_text(encoding="utf-8")):
        if row["form"] != "helper":
            continue
        parts = row["file"].removeprefix("src/").split("/")[:-1]
        packages = tuple(importlib.import_module(".".join(parts[: n + 1])) for n in range(len(parts)))
        packages = tuple(package for package in packages if hasattr(package, row["name"]))
        function = getattr(packages[-1], row["name"])
        packages = (*packages, inspect.getmodule(inspect.unwrap(function)))
        if inspect.isfunction(function) and ">>>" in (function.__doc__ or ""):
            yield Documented(row["name"], function, packages)


def calls_of(helper: Documented) -> list[dict[str, Any]]:
    """The arguments of each call that the function's example makes, by name; an example that fails has none."""
    made: list[dict[str, Any]] = []
    signature = inspect.signature(helper.function)
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    @functools.wraps(helper.function)
    def recorded(*arguments: Any, **options: Any) -> Any:
        bound = dict(signature.bind(*arguments, **options).arguments)
        made.append({**bound, **bound.pop(rest, {})} if rest else bound)
        return helper.function(*arguments, **options)

    names = {**vars(inspect.getmodule(inspect.unwrap(helper.function))), helper.name: recorded}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(helper.function) or "", names, helper.name, None, None)
    with contextlib.ExitStack() as patched:
        for package in helper.packages:
            patched.enter_context(mock.patch.object(package, helper.name, recorded, create=True))
        doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None, clear_globs=False)
    return made


def called(helper: Documented, words: dict[str, Any]) -> Any:
    """Call the function with these words, those before the star and the rest by position."""
    positional: list[Any] = []
    words = dict(words)
    for name, parameter in inspect.signature(helper.function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += list(words.pop(name, ()))
        elif parameter.kind is parameter.POSITIONAL_ONLY and name in words:
            positional.append(words.pop(name))
    return helper.function(*positional, **words)
