"""Every registered method, read from the families' own files: `make index`."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kofn._index import HERE as DATA
from kofn._index import encoded
from kofn.core import torch_module
from kofn.core.bibliography import cite, keys_of
from kofn.core.registry import HOMES, LOOPS, VERBS, Entry
from kofn.core.vocabulary import VOCABULARY
from kofn.indexing import faults, packages

HERE = packages.HERE


def collect() -> dict[str, dict[str, Entry]]:
    """Import every family and read its methods, by verb and name."""
    rows = collect_all()
    return {verb: {name: entry for name, entry in rows[verb].items() if entry.callable_by_verb} for verb in VERBS}


@functools.cache
def collect_all() -> dict[str, dict[str, Entry]]:
    """Import every family and read its methods and steppers, by verb and name; torch modules under "nn"."""
    entries: dict[str, dict[str, Entry]] = {verb: {} for verb in VERBS}
    for home in dict.fromkeys((*HOMES.values(), *LOOPS)):
        package = importlib.import_module(f"kofn.{home}")
        for module in sorted(pkgutil.walk_packages(package.__path__, f"kofn.{home}."), key=lambda m: m.name):
            for entry in _registered(module.name):
                if entry.name in entries[entry.verb]:
                    raise ValueError(f"{entry.path}: {entries[entry.verb][entry.name].path} has that name already")
                entries[entry.verb][entry.name] = entry
    entries["nn"] = {spec.name: _of_module(spec) for spec in torch_module.declared()}
    return {verb: dict(sorted(rows.items())) for verb, rows in entries.items()}


def _registered(name: str) -> list[Entry]:
    """What the module of this name registers.

    Raises:
        ValueError: the module cannot be imported, or a registration is wrong; it says in which file.
    """
    try:
        return list(entries_of(importlib.import_module(name)))
    except ValueError as error:
        raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from error
    except Exception as error:  # a file that cannot be read is named, whatever is wrong with it
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from error


def _exported() -> set[str]:
    """Every name that a family exports."""
    return {name for package in packages.packages() for name in packages.homes(package)}


def entries_of(module: ModuleType) -> Iterator[Entry]:
    """What one file registers.

    Raises:
        ValueError: a registration that says too little or something wrong of itself.
    """
    for value in vars(module).values():
        stepper = vars(value).get("__kofn_stepper__") if isinstance(value, type) else None
        spec: Any = stepper or (None if isinstance(value, type) else getattr(value, "__kofn__", None))
        defined = getattr(spec, "cls", None) or getattr(spec, "function", None)
        if spec is None or defined is None or defined.__module__ != module.__name__:
            continue
        entry = spec.entry()
        home = module.__name__.removeprefix("kofn.").split(".")[0]
        if module.__name__.startswith("kofn.") and home not in (HOMES[entry.verb], *LOOPS):
            raise ValueError(f"{entry.path} is a method of {entry.verb}, its home is {home}")
        refuse(entry.path, faults.of_stepper(defined, entry) if stepper else faults.of_method(spec, entry))
        yield entry


def refuse(path: str, messages: Iterable[str]) -> None:
    """Raise what is wrong with the registration at `path`, all of it."""
    lines = [f"{path.replace(':', ': ', 1)} {fault}" for fault in messages]
    if lines:
        raise ValueError("\n".join(lines))


def _of_module(spec: torch_module.ModuleSpec) -> Entry:
    return Entry(
        name=spec.name,
        verb="nn",
        path=f"kofn.{spec.file.removesuffix('.py').replace('/', '.')}:{spec.name}",
        summary=spec.summary,
        form="module",
        exact=f"the answers of {spec.form_of}" if spec.form_of else "",
        paper="; ".join(cite(key) for key in keys_of(spec.paper)),
        papers=tuple(map(str, keys_of(spec.paper))),
        extra="torch",
        aliases=spec.aliases,
    )


def index_files(index: Mapping[str, Mapping[str, Entry]]) -> dict[Path, str]:
    """The data files of the index and their texts, from what `collect_all` gives."""
    files = {DATA / f"{verb}.json": _json([encoded(entry) for entry in rows.values()]) for verb, rows in index.items()}
    files[DATA / "words.json"] = _json({verb: words_of(index[verb]) for verb in VERBS})
    return files


def words_of(entries: Mapping[str, Entry]) -> list[str]:
    """The words that the methods of one verb take, in the vocabulary's order."""
    taken = {word for entry in entries.values() for word in entry.accepted}
    taken |= {"ids", "progress", "engine", "device"}
    return [word for word in VOCABULARY if word in taken]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def literal(shown: str) -> Any:
    """The value of a default as the index shows it, or None where it is no literal."""
    try:
        return ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        return None
