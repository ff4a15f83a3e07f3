"""Blend checkpoints by a recipe: method, weights and options for each pattern of tensor names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from kofn.combination._sweep.files import FilesAndThreads, SweepOptions, patterns
from kofn.combination._sweep.members import FLOATS, HALF, REAL, Pool, open_members
from kofn.combination._sweep.merge import job_digest, merge
from kofn.combination._sweep.vocabulary import HEAD
from kofn.combination.recipes._mergekit_several import names_of_recipes
from kofn.combination.recipes._mergekit_tokens import tokens_asked
from kofn.combination.recipes._read_recipe import read_recipe
from kofn.combination.recipes._recipe import COPY, Adapted, Part, Recipe, Relayered, rule_class
from kofn.combination.recipes._settings import part_settings
from kofn.combination.rules import Rule
from kofn.core import checks
from kofn.core.checks import InputError, nearest
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.io.outputs import refuse_read
from kofn.io.quantised import FLOAT8
from kofn.io.tensor_writer import hidden_folder
from kofn.io.tensors import Checkpoint

__all__ = ["merge_recipe"]

_KEPT = ("max_memory", "n_threads", "progress", "engine")  # arguments that hold of every recipe of a file


@helper
def merge_recipe(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str], **files: Unpack[FilesAndThreads]
) -> Blend:
    """Blend checkpoints by a recipe: a method, weights and options for each pattern of tensor names.

    Args:
        recipe: the path of a TOML or YAML file, its content as a mapping, or a `Recipe`. Keys: `members` (paths,
            mappings or arrays), `base`, `method`, `weights`, `options`, and `tensors`: a list of parts with `match` (a
            pattern or several), `method` ("copy" takes the tensor from the base, or from the first member), `weights`,
            `options`; missing keys of a part are inherited from the top level. Methods are the merge rules,
            including those of plug-ins. The first matching part wins. Paths in a file are relative to it. mergekit's
            recipes (a YAML file with `merge_method`: linear, slerp, nuslerp, multislerp, karcher, model_stock (model
            stock), nearswap, sce, ram, arcee_fusion, passthrough, task_arithmetic, ties, dare_ties, dare_linear,
            della, della_linear, breadcrumbs, breadcrumbs_ties) give mergekit's figures, settings by layer, filters and
            slices included; what is not done is refused by name. Of half-precision models each step is rounded as
            there, to the last place but for sums that torch rounds by the processor (karcher and slerp: one place in up
            to a thousandth of the entries; arcee_fusion takes a few other entries). Of equal changes at the threshold
            of a density, of which mergekit keeps some by the order of its sort, as many are kept by a draw from a fixed
            seed.
        **files: out, only, skip, measure, skip_nonfinite, dtype, vocabulary, max_memory, n_threads, progress, engine,
            as `weighted_mean` has them.

    Returns:
        Blend; `weights` maps each blended tensor's name to its (m,) weights; `info` has "parts", the number of tensors
        per part, "settings", the method, weights and options of each group of "tensors", and "warnings".

    Raises:
        InputError: an unknown key, method or option, a part that matches nothing; as the methods.

    >>> import numpy as np
    >>> a, b = {"x": np.zeros(2), "y": np.zeros(2)}, {"x": np.ones(2), "y": np.ones(2)}
    >>> part = {"match": "y", "weights": [1, 3]}
    >>> blend = merge_recipe({"members": [a, b], "method": "weighted_mean", "tensors": [part]})
    >>> {name: float(value[0]) for name, value in blend.result.items()}
    {'x': 0.5, 'y': 0.75}
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    known = FilesAndThreads.__annotations__
    for name in files:
        if name not in known:
            raise InputError(f"merge_recipe has no argument {name!r}{nearest(name, known)}")
    options = SweepOptions(**files)
    if recipe.prepare is None:
        return _blend(recipe, options)
    if options.out is None:
        raise InputError("several recipes in one file need out: what they make for each other is written beside it")
    with hidden_folder(options.out, recipe.job) as workspace, names_of_recipes(workspace) as named:
        kept = {key: value for key, value in files.items() if key in _KEPT}
        last = recipe.prepare(workspace, lambda made, target, finished: _make(made, target, finished, kept))
        blend = _blend(last, options)
        return dataclasses.replace(blend, info=named(blend.info))


def _make(recipe: Recipe, target: Path, finished: Path, kept: Mapping[str, Any]) -> None:
    """Make what a later recipe of the file uses, unless the file `finished` says that it is there."""
    options = SweepOptions(**kept, out=target)
    job = _job_of(recipe, options)
    if not (finished.exists() and finished.read_text() == job):
        _blend(recipe, options)
        finished.write_text(job)


def _blend(recipe: Recipe, options: SweepOptions) -> Blend:
    """The blend of one recipe."""
    if options.out is not None:
        refuse_read(options.out, recipe.read_paths())
    recipe, pool, part_of, skip = open_recipe(recipe, options)
    merge_rules, settings = bind_parts(recipe, pool, part_of)
    counts = [sum(j == i for j in part_of.values()) for i in range(len(recipe.parts))]
    options = dataclasses.replace(options, skip=skip)
    layers = next((member.depth for member in recipe.members if isinstance(member, Relayered)), None)
    blend = merge(
        pool,
        merge_rules,
        options,
        weights=None,
        form="none",
        info={"parts": counts, "settings": list(settings.values())},
        donor=recipe.donor,
        settings={} if layers is None else {"num_hidden_layers": layers},
        tokenizer=None if recipe.tokens is None else recipe.tokens.folder,
        chat_template=recipe.chat_template,
    )
    warnings = [*recipe.notes, *blend.info.get("warnings", [])]
    return dataclasses.replace(
        blend,
        weights={name: merge_rule.weights for name, merge_rule in merge_rules.items()},
        info={**blend.info, **({"warnings": warnings} if warnings else {})},
    )


def _job_of(recipe: Recipe, options: SweepOptions) -> str:
    """The digest of all that determines what `_blend` writes, from the files' layout."""
    recipe, pool, part_of, skip = open_recipe(recipe, options)
    return job_digest(pool, bind_parts(recipe, pool, part_of)[0], dataclasses.replace(options, skip=skip))


def open_recipe(recipe: Recipe, options: SweepOptions) -> tuple[Recipe, Pool, dict[str, int], list[str] | None]:
    """The recipe with its parts, the members, the index of each tensor's part, the patterns of the copied tensors."""
    notes: list[str] = []
    members = [_opened(member, notes) for member in recipe.members]
    base = _opened(recipe.base, notes)
    # A model that is named twice is opened twice.
    recipe = dataclasses.replace(recipe, notes=tuple(dict.fromkeys([*recipe.notes, *notes])))
    skip = list(patterns(options.skip, "skip") or ())
    # The first matching part wins, so each tensor's part is found before the list of copies; patterns may overlap.
    names = list(open_members([members[0]]).first)
    # A head that the first member ties to its embedding is blended with those of others.
    sources = [member if isinstance(member, Mapping) else Checkpoint.open(member) for member in members[1:]]
    names += dict.fromkeys(name for source in sources for name in source if HEAD.search(name) and name not in names)
    recipe = recipe.settled(names)
    part_of = {name: recipe.part_of(name) for name in names}
    skip += [_literal(name) for name, i in part_of.items() if recipe.parts[i].method == COPY]
    dtype = options.dtype or recipe.dtype
    pool = open_members(
        members,
        base,
        patterns(options.only, "only"),
        skip or None,
        dtype=dtype,
        cast=_read_as(recipe, [*members, *([] if base is None else [base])], dtype),
        widest=recipe.widest,
        vocabulary=tokens_asked(recipe, options.vocabulary),
    )
    return recipe, pool, part_of, skip or None


def _read_as(recipe: Recipe, sources: list[Any], dtype: str | None) -> str | None:
    """What tensors are rounded to as they are read, and the blend before the output's dtype.

    mergekit blends models in the dtype that they are saved in where the recipe names none, and writes that as another.
    """
    if recipe.cast is not None or dtype is None or not recipe.widest:
        return recipe.cast
    opened = [source if isinstance(source, Checkpoint) else Checkpoint.open(source) for source in sources]
    dtypes = {tensor.dtype for source in opened for tensor in source.values() if tensor.dtype in FLOATS - FLOAT8}
    return dtypes.pop().name if len(dtypes) == 1 and dtype not in {each.name for each in dtypes} else None


def _opened(member: Any, notes: list[str]) -> Any:
    return member.open(notes) if isinstance(member, Relayered | Adapted) else member


def _literal(name: str) -> str:
    """A pattern that matches this name and no other."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def bind_parts(
    recipe: Recipe, pool: Pool, part_of: Mapping[str, int]
) -> tuple[dict[str, Rule], dict[int, dict[str, Any]]]:
    """The bound merge rule of every tensor that is blended, and the settings of each part with its "tensors"."""
    merge_rules: dict[str, Rule] = {}
    bound: dict[int, Rule] = {}
    settings: dict[int, dict[str, Any]] = {}
    for name, i in part_of.items():
        if (
            name not in pool.first
            or name in pool.skipped
            or not (pool.first[name].dtype in HALF or pool.first[name].dtype in REAL)
        ):
            continue
        if i not in bound:
            part = recipe.parts[i]
            merge_rule = _rule_of(part, pool)
            weights = (
                (part.weights or None) if part.rule is not None else member_weights(part.weights, len(pool.members))
            )
            bound[i] = merge_rule.bind(pool, weights)
            settings[i] = {**part_settings(part, merge_rule, bound[i]), "tensors": []}
        merge_rules[name] = bound[i]
        settings[i]["tensors"].append(name)
    used = set(part_of.values())
    for i, part in enumerate(recipe.parts[:-1]):
        if i not in used and not part.names:
            raise InputError(f"tensors match={list(part.match)} decides on no tensor; give patterns of names there are")
    return merge_rules, settings


def _rule_of(part: Part, pool: Pool) -> Rule:
    """The part's merge rule, not bound to the members yet."""
    if part.rule is not None:
        return part.rule
    cls = rule_class(part.method)
    if cls.needs_base and pool.base is None:
        raise InputError(f"method={part.method!r} needs base; the recipe names none")
    # A recipe that is run again must give the same blend.
    seeded = {"seed": 0} if any(entry.name == "seed" for entry in dataclasses.fields(cls)) else {}
    return cls(**{**seeded, **part.options})


def member_weights(given: Any, m: int) -> Any:
    """The weights, one a member; None where none are given."""
    weights = None if given is None else checks.signed_weights(given)
    if weights is not None and len(weights) != m:
        raise InputError(f"weights has {len(weights)} values for {m} members; give one a member")
    return weights
