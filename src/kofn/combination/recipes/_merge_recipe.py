"""Recipes: which method, weights and options for which tensors, from a file of ours or of mergekit's."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination._sweep.blockwise import Rule
from kofn.combination._sweep.members import HALF, REAL, Pool, open_members
from kofn.combination._sweep.merge import Files, fates, merge, patterns
from kofn.combination.averaging._slerp import slerp_rule
from kofn.combination.averaging._variance_corrected_mean import variance_rule
from kofn.combination.averaging._weighted_mean import mean_rule
from kofn.combination.task_vectors._dare import dare_rule
from kofn.combination.task_vectors._pcb_merging import pcb_rule
from kofn.combination.task_vectors._task_arithmetic import arithmetic_rule
from kofn.combination.task_vectors._ties import ties_rule
from kofn.core import checks
from kofn.core.checks import InputError, nearest
from kofn.core.plans import Blend

__all__ = ["merge_recipe", "read_recipe"]

# What can be asked for tensor by tensor: name -> what makes the rule, its options, whether it needs a base.
RULES: dict[str, tuple[Callable[..., Rule], tuple[str, ...], bool]] = {
    "weighted_mean": (mean_rule, ("normalize",), False),
    "slerp": (slerp_rule, (), False),
    "variance_corrected_mean": (variance_rule, (), False),
    "task_arithmetic": (arithmetic_rule, ("normalize", "scale"), True),
    "ties": (ties_rule, ("density", "scale", "scope"), True),
    "dare": (dare_rule, ("density", "normalize", "scale", "consensus", "seed"), True),
    "pcb_merging": (pcb_rule, ("density", "scale", "scope"), True),
}
COPY = "copy"
_KEYS = ("members", "base", "method", "weights", "options", "tensors")
_PART_KEYS = ("match", "method", "weights", "options")


@dataclass(frozen=True)
class Part:
    """What is done with the tensors whose names match."""

    method: str
    weights: list[float] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    match: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class Recipe:
    """Members, a base, and parts of which the first that matches a tensor's name decides; the last matches all."""

    members: tuple[Any, ...]
    parts: tuple[Part, ...]
    base: Any = None
    said: tuple[str, ...] = ()

    def part_of(self, name: str) -> Part:
        """The part that decides on a tensor."""
        return next(part for part in self.parts if any(fnmatch.fnmatchcase(name, pattern) for pattern in part.match))


def merge_recipe(recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str], **files: Any) -> Blend:
    """Blends checkpoints as a recipe says: a method, weights and options of its own for each pattern of tensor names.

    Args:
        recipe: the path of a TOML or YAML file, its content as a mapping, or a `Recipe`. Keys: `members` (paths,
            mappings or arrays), `base`, `method`, `weights`, `options`, and `tensors`: a list of parts with `match` (a
            pattern or several), `method` ("copy" takes the tensor from the base, or from the first member), `weights`,
            `options`; what a part leaves out it has from the whole. The first part that matches decides. Paths in a
            file are relative to it. mergekit's recipes are read for linear, slerp, task_arithmetic, ties, dare_linear
            and dare_ties; what they ask for beyond is refused by name.
        **files: out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress, as `weighted_mean` has them.

    Returns:
        Blend; `weights` maps each blended tensor's name to its (m,) weights; `info` has "parts", how many tensors each
        part decided on, and "warnings".

    Raises:
        InputError: an unknown key, method or option, a part that matches nothing; as the methods.

    >>> import numpy as np
    >>> a, b = {"x": np.zeros(2), "y": np.zeros(2)}, {"x": np.ones(2), "y": np.ones(2)}
    >>> part = {"match": "y", "weights": [1, 3]}
    >>> blend = merge_recipe({"members": [a, b], "method": "weighted_mean", "tensors": [part]})
    >>> {name: float(value[0]) for name, value in blend.result.items()}
    {'x': 0.5, 'y': 0.75}
    """
    told = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    unknown = sorted(set(files) - set(Files.__dataclass_fields__))
    if unknown:
        raise InputError(
            f"merge_recipe has no argument {unknown[0]!r}{nearest(unknown[0], Files.__dataclass_fields__)}"
        )
    where = Files(**files)
    pool, decided, skip = _open(told, where)
    rules: dict[str, Rule] = {}
    made: dict[int, Rule] = {}
    weights: dict[str, Any] = {}
    for name, place in decided.items():
        if name in pool.skipped or not (pool.first[name].dtype in HALF or pool.first[name].dtype in REAL):
            continue
        part = told.parts[place]
        if place not in made:
            made[place] = _rule(part, pool)
        rules[name] = made[place]
        weights[name] = np.asarray(made[place].weights, np.float64)  # type: ignore[attr-defined]
    counts = [sum(at == place for at in decided.values()) for place in range(len(told.parts))]
    for part, count in zip(told.parts[:-1], counts, strict=False):
        if not count:
            raise InputError(f"tensors match={list(part.match)} decides on no tensor; give patterns of names there are")
    blend = merge(pool, rules, Files(**{**files, "skip": skip}), weights=None, form="none", info={"parts": counts})
    warnings = [*told.said, *blend.info.get("warnings", [])]
    return dataclasses.replace(
        blend, weights=weights, info={**blend.info, **({"warnings": warnings} if warnings else {})}
    )


def fates_of(told: Recipe, where: Files) -> list[dict[str, Any]]:
    """What would become of every tensor under a recipe."""
    pool, decided, _ = _open(told, where)
    return fates(pool, {name: told.parts[place].method for name, place in decided.items()})


def _open(told: Recipe, where: Files) -> tuple[Pool, dict[str, int], list[str] | None]:
    """The members, which part decides on which tensor, and the patterns of what is copied."""
    skip = list(patterns(where.skip, "skip") or ())
    copies = [pattern for part in told.parts if part.method == COPY for pattern in part.match]
    # What an earlier part blends is not copied by a later one, so names are told apart and not patterns.
    first = open_members([told.members[0]])
    names = list(first.first)
    place_of = {part: place for place, part in enumerate(map(id, told.parts))}
    decided = {name: place_of[id(told.part_of(name))] for name in names}
    if copies:
        skip += [_literal(name) for name, place in decided.items() if told.parts[place].method == COPY]
    pool = open_members(told.members, told.base, patterns(where.only, "only"), skip or None)
    return pool, decided, skip or None


def _literal(name: str) -> str:
    """A pattern that matches this name and no other."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _rule(part: Part, pool: Pool) -> Rule:
    make, _, needs_base = RULES[part.method]
    if needs_base and pool.base is None:
        raise InputError(f"method={part.method!r} needs base; the recipe names none")
    weights = None if part.weights is None else checks.signed_weights(part.weights)
    if weights is not None and len(weights) != len(pool.members):
        raise InputError(f"weights has {len(weights)} values for {len(pool.members)} members; give one a member")
    return make(pool, weights, **part.options)


def read_recipe(source: Mapping[str, Any] | str | os.PathLike[str]) -> Recipe:
    """A recipe from a TOML or YAML file (ours or mergekit's), or from its content.

    Raises:
        InputError: a file that is neither, unknown keys, methods or options, and what mergekit has and we do not.
    """
    if isinstance(source, Mapping):
        return _of_mapping(source, None)
    path = Path(source)
    content = _content(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: a recipe is a table of keys such as members and method")
    try:
        return (_of_mergekit if "merge_method" in content else _of_mapping)(content, path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _content(path: Path) -> Any:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: not TOML ({error})") from None
    if path.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    raise InputError(f"{path}: a recipe is a .toml or .yaml file")


def _of_mapping(content: Mapping[str, Any], folder: Path | None) -> Recipe:
    _known(content, _KEYS, "the recipe")
    if "members" not in content:
        raise InputError("the recipe has no members; list at least one")
    whole = _part({key: content[key] for key in ("method", "weights", "options") if key in content}, None)
    parts = [_part(part, whole) for part in content.get("tensors", ())]
    return Recipe(
        tuple(_placed(member, folder) for member in checks.members(content["members"])),
        (*parts, whole),
        None if content.get("base") is None else _placed(content["base"], folder),
    )


def _part(told: Any, whole: Part | None) -> Part:
    if not isinstance(told, Mapping):
        raise InputError(f"tensors has {told!r}; a part is a table with match, method, weights, options")
    _known(told, _PART_KEYS, "a part of the recipe")
    method = told.get("method", "weighted_mean" if whole is None else whole.method)
    known = (*RULES, COPY)
    if method not in known:
        near = nearest(str(method), known)
        raise InputError(f"method={method!r} does not go tensor by tensor{near}; these do: {', '.join(known)}")
    same = whole is not None and whole.method == method
    options = dict(told.get("options", whole.options if same and whole else {}))
    if method != COPY:
        _known(options, RULES[method][1], f"method {method!r}", "option")
    match = told.get("match", "*" if whole is None else None)
    if match is None:
        raise InputError("a part of tensors has no match; give a pattern of tensor names")
    patterns_of = (match,) if isinstance(match, str) else tuple(match)
    return Part(method, told.get("weights", whole.weights if whole else None), options, patterns_of)


def _known(told: Mapping[str, Any], known: tuple[str, ...], what: str, kind: str = "key") -> None:
    for key in told:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"{what} has no {kind} {key!r}{nearest(str(key), known)}; there are: {listed}")


def _placed(path: Any, folder: Path | None) -> Any:
    return path if folder is None or not isinstance(path, str | os.PathLike) else folder / path


# mergekit's names, ours, and what differs.
_MERGEKIT: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("weighted_mean", {}),
    "slerp": ("slerp", {}),
    "task_arithmetic": ("task_arithmetic", {"normalize": False}),
    "ties": ("ties", {}),
    "dare_linear": ("dare", {"normalize": False}),
    "dare_ties": ("dare", {"consensus": "ties"}),
}
_MERGEKIT_KEYS = ("merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source")
_SETTINGS = ("int8_mask", "allow_crimes", "lazy_unpickle", "rescale")


def _of_mergekit(content: Mapping[str, Any], folder: Path | None) -> Recipe:
    """A mergekit recipe of one method with scalar parameters, in our words; anything else is refused by name."""
    _known(
        content,
        ("merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source"),
        "a mergekit recipe read here",
    )
    asked = content["merge_method"]
    if asked not in _MERGEKIT:
        raise InputError(
            f"merge_method {asked!r} is not read{nearest(str(asked), _MERGEKIT)}; {', '.join(_MERGEKIT)} are"
        )
    method, options = _MERGEKIT[asked]
    options = dict(options)
    said = [f"{key}: the output keeps the members' dtype" for key in ("dtype", "out_dtype") if content.get(key)]
    if content.get("tokenizer_source") not in (None, "base"):
        raise InputError("tokenizer_source is not read: tokenizers are copied, not merged; take the line out")
    base, weights, members, densities = content.get("base_model"), [], [], []
    for model in content.get("models") or ():
        _known(model, ("model", "parameters"), "a model of the recipe")
        if model.get("model") == base and method != "slerp" and not model.get("parameters"):
            continue  # mergekit lists the base among the models
        own = model.get("parameters") or {}
        _known(own, ("weight", "density", "gamma", "epsilon"), f"model {model.get('model')}", "parameter that is read")
        members.append(model["model"])
        weights.append(_scalar(own.get("weight", 1.0), "weight"))
        if "density" in own:
            densities.append(_scalar(own["density"], "density"))
    if not members:
        raise InputError("models is empty; list at least one")
    for key, value in (content.get("parameters") or {}).items():
        if key == "t" and method == "slerp":
            t = _scalar(value, "t")
            if base == members[-1]:
                members.reverse()
            weights = [1 - t, t]
        elif key == "lambda":
            options["scale"] = _scalar(value, "lambda")
        elif key == "density":
            densities.append(_scalar(value, "density"))
        elif key == "weight":
            weights = [_scalar(value, "weight")] * len(members)
        elif (
            key == "normalize" and method in ("weighted_mean", "task_arithmetic", "dare") and "consensus" not in options
        ):
            options["normalize"] = bool(value)
        elif key == "normalize":
            if not value:
                raise InputError(f"normalize: false is not done for {asked}; the mean is over the members that agree")
        elif key not in _SETTINGS:
            raise InputError(f"parameter {key!r} of {asked} is not read; take it out")
    if densities:
        if len(set(densities)) > 1:
            raise InputError(f"densities {densities} differ between models; one density for all is done here")
        options["density"] = densities[0]
    return Recipe(
        tuple(_placed(member, _exists(member, folder)) for member in members),
        (Part(method, weights, options),),
        None if base is None or method in ("slerp", "weighted_mean") else _placed(base, _exists(base, folder)),
        tuple(said),
    )


def _exists(path: Any, folder: Path | None) -> Path | None:
    """mergekit's paths are relative to where it runs, or names on a hub."""
    if Path(path).exists():
        return None
    if folder is not None and (folder / path).exists():
        return folder
    raise InputError(f"model {path!r} is no folder here; download it first and give its path")


def _scalar(value: Any, name: str) -> float:
    if isinstance(value, list):
        raise InputError(
            f"{name}: {value!r} changes by layer or tensor, which is not read; write a recipe with tensors"
        )
    return float(checks.number(value, name))
