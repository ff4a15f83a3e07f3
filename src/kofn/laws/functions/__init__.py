"""Naive float64 forms of what the families measure: one file a family, found without a line elsewhere.

A file may have any of these tables: `FUNCTIONS` (objective's name -> function of the case and the objective's own
parameters, which gives the value of a set), `RECOUNTS` (name in `objective` -> check of any other plan),
`OPTIMA` (name in `objective` -> the best value of any plan of the call, by looking at everything),
`BLENDS` (name in `info["sum_of"]` -> the law of blends whose members are summed as something else than arrays),
`OPTIONS` (option's name -> what draws it) and `OBJECTIVES` (objective's name -> what draws the text to ask for it).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def gather(table: str) -> dict[str, Any]:
    """All rows of one table, from every file here."""
    rows: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        own = getattr(importlib.import_module(f"{__name__}.{module.name}"), table, {})
        if clash := rows.keys() & own.keys():
            raise ValueError(f"{table} of {module.name} repeats {sorted(clash)}")
        rows |= own
    return rows
