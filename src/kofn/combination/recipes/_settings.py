"""What decides a part of a recipe, for dry runs, plans and reports: its method, weights and options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.recipes._recipe import Part
from kofn.combination.rules import Rule


def part_settings(part: Part, merge_rule: Rule, bound: Rule) -> dict[str, Any]:
    """The method, the weights and every option of a part: in mergekit's words for its recipes, else in ours."""
    if part.rule is not None:
        return {"method": part.method, **part.settings}
    return rule_settings(part.method, merge_rule, bound)


def rule_settings(method: str, merge_rule: Rule, bound: Rule) -> dict[str, Any]:
    """The method, the weights in use and every option of a merge rule."""
    fields = [entry.name for entry in dataclasses.fields(merge_rule) if entry.init]
    options = {name: getattr(merge_rule, name) for name in fields}
    weights = {"weights": bound.weights.tolist()} if bound.takes_weights else {}
    return {"method": method, **weights, **{name: _plain(value) for name, value in options.items()}}


def _plain(value: Any) -> Any:
    """A value that JSON holds; what is large is named by its type."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value if isinstance(value, bool | int | float | str | list | tuple | None) else type(value).__name__


def listed_settings(settings: Mapping[str, Any]) -> str:
    """The method, weights and options of a group of tensors, as text."""
    words = [f"{key} {_words(value)}" for key, value in settings.items() if key not in ("method", "tensors")]
    return f"{settings['method']}: {'; '.join(words) or 'no settings'}"


def _words(value: Any) -> str:
    """A setting as text: numbers short, one for each model apart by commas."""
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def setting_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each group of tensors that are blended alike, from the rows of a preview."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if settings := row.get("settings"):
            groups.setdefault(listed_settings(settings), []).append(row["name"])
    return [f"  {words}  ({counted(names)})" for words, names in groups.items()]


def counted(names: Sequence[str]) -> str:
    """How many tensors these are, and the first of them."""
    return names[0] if len(names) == 1 else f"{len(names)} tensors, such as {names[0]}"
