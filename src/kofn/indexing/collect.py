"""Every registered method, read from the families' own files: `make index`."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kofn._index import HERE as DATA
from kofn._index import encoded
from kofn.core.registry import HOMES, LOOPS, VERBS, Entry
from kofn.core.vocabulary import VOCABULARY
from kofn.indexing import packages

HERE = packages.HERE


def collect() -> dict[str, dict[str, Entry]]:
    """Import every family and read its registered methods, by verb and name."""
    found: dict[str, dict[str, Entry]] = {verb: {} for verb in VERBS}
    for home in (*HOMES.values(), *LOOPS):
        package = importlib.import_module(f"kofn.{home}")
        for module in sorted(pkgutil.walk_packages(package.__path__, f"kofn.{home}."), key=lambda m: m.name):
            loaded = importlib.import_module(module.name)
            for value in vars(loaded).values():
                spec = getattr(value, "__kofn__", None)
                if spec is None or spec.function.__module__ != loaded.__name__:
                    continue
                entry = spec.entry()
                if home not in (HOMES[entry.verb], *LOOPS):
                    raise ValueError(f"{entry.path} is a method of {entry.verb}, its home is {home}")
                found[entry.verb][entry.name] = entry
    return {verb: dict(sorted(rows.items())) for verb, rows in found.items()}


def undescribed(index: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    """The options that no line of their docstring's `Args:` describes."""
    return [
        f"{entry.path} {name}"
        for entries in index.values()
        for entry in entries.values()
        for name in entry.options
        if name not in entry.docs
    ]


def index_files(index: Mapping[str, Mapping[str, Entry]]) -> dict[Path, str]:
    """The data files of the index and their texts."""
    files = {DATA / f"{verb}.json": _json([encoded(entry) for entry in rows.values()]) for verb, rows in index.items()}
    files[DATA / "words.json"] = _json({verb: words_of(rows) for verb, rows in index.items()})
    return files


def words_of(entries: Mapping[str, Entry]) -> list[str]:
    """The words that the methods of one verb take, in the vocabulary's order."""
    taken = {word for entry in entries.values() for word in entry.accepted}
    taken |= {"ids", "progress", "engine"}
    return [word for word in VOCABULARY if word in taken]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def literal(shown: str) -> Any:
    """The value of a default as the index shows it, or None where it is no literal."""
    try:
        return ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        return None
