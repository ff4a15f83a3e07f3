"""The families' tables for the laws: one file per family, mirroring the family's path.

`laws/selection/streams.py` is about `kofn.selection.streams`, `laws/objectives/coverage.py` about the objectives there.
A file may have any of these tables: `FUNCTIONS` (objective's name -> function of the case and the objective's own
parameters, which gives the value of a set), `RECOUNTS` (name in `plan.objective` -> check of any other plan),
`OPTIMA` (name in `plan.objective` -> the best value of any plan of the call, by looking at everything),
`PROMISES` (name in `Draw.promise` -> the check of what is promised of a value that the plan withholds),
`BLENDS` (name in `info["sum_of"]` -> the law of blends whose members are summed as something else than arrays),
`OBJECTIVES` (objective's name -> what draws the text to ask for it) and `OPTIONS` (option's name -> what draws it, for
the methods of the family).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]


@functools.cache
def files() -> dict[str, ModuleType]:
    """Every family's file, by the family's path under `kofn`: "selection.streams" -> its module here."""
    here = importlib.import_module(_PACKAGE)
    modules = {}
    for folder in pkgutil.iter_modules(here.__path__):
        if folder.ispkg:
            package = importlib.import_module(f"{_PACKAGE}.{folder.name}")
            for file in pkgutil.iter_modules(package.__path__):
                path = f"{folder.name}.{file.name}"
                modules[path] = importlib.import_module(f"{_PACKAGE}.{path}")
    return dict(sorted(modules.items()))


@functools.cache
def gather(table: str) -> dict[str, Any]:
    """All rows of one table, from every family's file."""
    rows: dict[str, Any] = {}
    for path, module in files().items():
        own = getattr(module, table, {})
        if clash := rows.keys() & own.keys():
            raise ValueError(f"{table} of {path} repeats {sorted(clash)}")
        rows |= own
    return rows


def options_of(path: str) -> dict[str, Any]:
    """What draws the options of a family's methods; `path` is that of one of its functions, as in the index."""
    family = ".".join(path.partition(":")[0].split(".")[1:3])
    return getattr(files().get(family), "OPTIONS", {})
