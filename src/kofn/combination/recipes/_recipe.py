"""The recipe: members, a base, and the method, weights and options of each part."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kofn.combination.rules import Rule, find_merge_rule, merge_rules
from kofn.core.checks import InputError, nearest

COPY = "copy"  # instead of a method: the tensor is taken from the base, or from the first member


@dataclass(frozen=True)
class Part:
    """How the tensors whose names match are blended."""

    method: str
    weights: list[float] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    match: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class Recipe:
    """Members, a base, and parts; the first part that matches a tensor's name wins, and the last matches all."""

    members: tuple[Any, ...]
    parts: tuple[Part, ...]
    base: Any = None
    notes: tuple[str, ...] = ()

    def part_of(self, name: str) -> int:
        """The index of the first part that matches a tensor."""
        return next(
            i for i, part in enumerate(self.parts) if any(fnmatch.fnmatchcase(name, pattern) for pattern in part.match)
        )


def rule_class(method: str) -> type[Rule]:
    """The merge rule of a method.

    Raises:
        InputError: a method that blends whole models and not tensor by tensor, or none at all.
    """
    merge_rule = find_merge_rule(method) if isinstance(method, str) else None
    if merge_rule is None:
        known = (*merge_rules(), COPY)
        near = nearest(str(method), known)
        raise InputError(f"method={method!r} does not go tensor by tensor{near}; these do: {', '.join(known)}")
    return merge_rule


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse unknown options, and missing ones that the method requires."""
    fields = [entry for entry in dataclasses.fields(rule_class(method)) if entry.init]
    refuse_unknown(options, [entry.name for entry in fields], f"method {method!r}", "option")
    for entry in fields:
        if entry.default is dataclasses.MISSING and entry.name not in options:
            raise InputError(f"method {method!r} needs the option {entry.name!r}; give it under options")


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], owner: str, kind: str = "key") -> None:
    """Refuse keys that `owner` does not have; the nearest is offered."""
    for key in given:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"{owner} has no {kind} {key!r}{nearest(str(key), known)}; there are: {listed}")


def located(path: Any, folder: Path | None) -> Any:
    """Resolve a path relative to the recipe file's folder; other values are returned unchanged."""
    return path if folder is None or not isinstance(path, str | os.PathLike) else folder / path
