"""What the commands print: the answer in words, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from kofn.core.plans import Plan


def say(answer: Any, text: Callable[[], str], as_json: bool) -> None:
    """Print the answer, as JSON or in words."""
    click.echo(json.dumps(plain(answer)) if as_json else text())


def plain(value: Any) -> Any:
    """What JSON holds: arrays as lists, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def drawn_lines(plan: Plan, seed: int | None, repeated: str) -> list[str]:
    """The seed that a method drew for itself, and what giving it repeats; nothing where the user gave one.

    Args:
        plan: the answer.
        seed: the user's.
        repeated: what the seed repeats, as people call it.
    """
    if plan.seed is None or seed is not None:
        return []
    return [f"drawn with --seed {plan.seed}, which repeats {repeated}"]


def first_of(keys: list[Any], n: int = 10) -> str:
    """The first of a list of keys, in one line."""
    return ", ".join(str(key) for key in keys[:n]) + (" ..." if len(keys) > n else "")


def facts(rows: dict[str, Any]) -> str:
    """Names and values, one a line."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:{width}} {text}" for name, text in rows.items())
