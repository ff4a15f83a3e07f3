"""Read recipes of kofn or mergekit."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kofn.combination.recipes._mergekit import read_mergekit
from kofn.combination.recipes._mergekit_several import read_several
from kofn.combination.recipes._recipe import COPY, Part, Recipe, check_options, located, refuse_unknown
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["read_recipe"]

_KEYS = ("members", "base", "method", "weights", "options", "tensors")
# Keys of files for mergekit's other programs: what those make, by which program.
_OTHER_PROGRAMS = {
    "gate_mode": ("mixtures of experts", "mergekit-moe"),
    "experts": ("mixtures of experts", "mergekit-moe"),
    "genome": ("searches for settings", "mergekit-evolve"),
}
_PART_KEYS = ("match", "method", "weights", "options")


@helper
def read_recipe(source: Mapping[str, Any] | str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a TOML or YAML file (kofn's or mergekit's), or from its content.

    Raises:
        InputError: a file that is neither, unknown keys, methods or options, and unsupported mergekit features.
    """
    if isinstance(source, Mapping):
        return (read_mergekit if "merge_method" in source else _of_mapping)(source, None)
    path = Path(source)
    content, *others = _content(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: a recipe is a table of keys such as members and method")
    try:
        if others:
            for document in (content, *others):
                if isinstance(document, Mapping):
                    _refuse_other_programs(document)
            return read_several([content, *others], path.parent)
        return (read_mergekit if "merge_method" in content else _of_mapping)(content, path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _content(path: Path) -> list[Any]:
    """The recipes of a file: one, or in YAML several documents."""
    checks.regular(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    try:
        return _parsed(path, text)
    except RecursionError:
        raise InputError(f"{path}: lists or tables nested too deep; a recipe nests a few levels") from None


def _parsed(path: Path, text: str) -> list[Any]:
    if path.suffix.lower() == ".toml":
        try:
            return [tomllib.loads(text)]
        except ValueError as error:
            raise InputError(f"{path}: not TOML ({error})") from None
    if path.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            documents = [document for document in yaml.load_all(text, _loader(path)) if document is not None]
        except InputError:
            raise
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that there is not, a number too long
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        return documents or [None]
    raise InputError(f"{path}: a recipe is a .toml or .yaml file")


def _loader(path: Path) -> Any:
    """A safe loader of YAML that refuses a key that stands twice in one table, of which YAML keeps the last."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise InputError(
                        f"{path}: the key {key.value!r} stands twice in one table, in line {lines[key.tag, key.value]} "
                        f"and in line {line}; leave one of them out"
                    )
                lines[key.tag, key.value] = line
            return node

    return Loader


def _of_mapping(content: Mapping[str, Any], folder: Path | None) -> Recipe:
    _refuse_other_programs(content)
    refuse_unknown(content, _KEYS, "the recipe")
    if "members" not in content:
        raise InputError("the recipe has no members; list at least one")
    default = _part({key: content[key] for key in ("method", "weights", "options") if key in content}, None)
    listed = content.get("tensors", ())
    if not isinstance(listed, list | tuple):
        raise InputError(f"tensors={checks.shown(listed)} is no list; give a table with match and method for each part")
    parts = [_part(part, default) for part in listed]
    return Recipe(
        tuple(located(member, folder) for member in checks.members(content["members"])),
        (*parts, default),
        None if content.get("base") is None else located(content["base"], folder),
    )


def _refuse_other_programs(content: Mapping[str, Any]) -> None:
    key = next((key for key in _OTHER_PROGRAMS if key in content), None)
    if key is not None:
        product, program = _OTHER_PROGRAMS[key]
        raise InputError(
            f"{key} is of {product}, which are not made here: run {program} on this file; kofn blends models into "
            "one of their own shape (merge_method)"
        )


def _part(content: Any, default: Part | None) -> Part:
    """A part of the recipe, or (without a default) the one for all tensors that no part matches."""
    if not isinstance(content, Mapping):
        raise InputError(f"tensors has {content!r}; a part is a table with match, method, weights, options")
    refuse_unknown(content, _PART_KEYS, "a part of the recipe")
    method = content.get("method", "weighted_mean" if default is None else default.method)
    inherited = default.options if default is not None and default.method == method else {}
    given = content.get("options", inherited)
    if not isinstance(given, Mapping):
        raise InputError(f"options={checks.shown(given)} is no table; give names and values, such as density = 0.2")
    if not isinstance(method, str):
        raise InputError(f"method={checks.shown(method)} is no name of a merge rule; kofn methods combine lists them")
    options = dict(given)
    if method != COPY:
        check_options(method, options)
    match = content.get("match", "*" if default is None else None)
    if match is None:
        raise InputError("a part of tensors has no match; give a pattern of tensor names")
    weights = content.get("weights", default.weights if default else None)
    if any(isinstance(weight, bool) for weight in (weights if isinstance(weights, list | tuple) else [weights])):
        raise InputError(f"weights={checks.shown(weights)} holds true or false; give numbers, 1 or 0 if that is meant")
    names = (match,) if isinstance(match, str) else match
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f"match={checks.shown(match)}: give a pattern of tensor names, or a list of them")
    names = tuple(names)
    return Part(method, weights, options, names)
