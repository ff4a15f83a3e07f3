"""Seeds that nobody has tuned on, and how each claim came out at them: `fresh.json`.

A line of it is valid for the code of a claim as it was run: who changes the claim starts anew, but where the change
(of the control, of words) leaves what RESULTS.md says of the claim as it was, figure by figure.
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
    if failed:
        outcome = f"{'held but for' if held else 'missed'}: {'; '.join(failed)}"
    else:
        outcome = "held" if held else "missed: see the figures"
    row["seeds"][str(seed)] = outcome
    kept[str(source.paper)] = row
    return _text(kept)


def untried(path: Path, source: Source, seeds: Sequence[int]) -> list[int]:
    """As many of the seeds as are missing until the claim, as its code is now, was tried at so many, each a new one."""
    row = _current(path, source)
    return [seed for seed in seeds if str(seed) not in row][: max(0, len(seeds) - len(row))]


def taken_over(path: Path, source: Source) -> str:
    """The text of `fresh.json` where the claim's outcomes count for its code as it is now."""
    kept = _read(path)
    if str(source.paper) in kept:
        kept[str(source.paper)]["code"] = _code(source)
    return _text(kept)


def held_at(path: Path, source: Source) -> tuple[int, int]:
    """At how many fresh seeds the claim, as its code is now, was tried, and at how many it held."""
    seeds = _current(path, source)
    return len(seeds), sum(outcome.startswith("held") for outcome in seeds.values())


def _current(path: Path, source: Source) -> dict[str, str]:
    """Outcomes by seed, of the claim as its code is now."""
    row = _read(path).get(str(source.paper))
    return row["seeds"] if row is not None and row["code"] == _code(source) else {}


def _read(path: Path) -> Kept:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _text(kept: Kept) -> str:
    return json.dumps(dict(sorted(kept.items(), key=lambda item: int(item[0]))), indent=1) + "\n"


def _code(source: Source) -> str:
    return hashlib.sha256(source.path.read_bytes()).hexdigest()[:16]
