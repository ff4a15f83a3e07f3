"""Seeds that nobody has tuned on, and how each claim came out at them: `fresh.json`.

A line of it is valid for the code of a claim as it was run: who changes the claim starts anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from claims import Source

Kept = dict[str, dict[str, Any]]


def fresh_seeds(seed: int, count: int) -> list[int]:
    """`count` seeds that follow from `seed`, far from the small numbers that people try first."""
    drawn = np.random.default_rng([seed, 2_718_281]).choice(10**8, count, replace=False)
    return [int(number) + 10**8 for number in drawn]


def noted(path: Path, source: Source, seed: int, *, held: bool, failed: Sequence[str]) -> str:
    """The text of `fresh.json` with one more run."""
    kept = _read(path)
    code = _code(source)
    row = kept.get(str(source.paper))
    if row is None or row["code"] != code:
        row = {"code": code, "seeds": {}}
    row["seeds"][str(seed)] = "held" if held else "missed: " + ("; ".join(failed) or "see the figures")
    kept[str(source.paper)] = row
    return json.dumps(dict(sorted(kept.items(), key=lambda item: int(item[0]))), indent=1) + "\n"


def held_at(path: Path, source: Source) -> tuple[int, int]:
    """At how many fresh seeds the claim, as its code is now, was tried, and at how many it held."""
    row = _read(path).get(str(source.paper))
    if row is None or row["code"] != _code(source):
        return 0, 0
    return len(row["seeds"]), sum(outcome == "held" for outcome in row["seeds"].values())


def _read(path: Path) -> Kept:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _code(source: Source) -> str:
    return hashlib.sha256(source.path.read_bytes()).hexdigest()[:16]
