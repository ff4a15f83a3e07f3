"""Preview of a merge: the fate of every tensor, without reading or writing data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import HALF, REAL, Pool
from kofn.combination._sweep.merge import check_out
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.recipes._merge_recipe import bind_parts, member_weights, open_recipe
from kofn.combination.recipes._mergekit_several import names_of_recipes
from kofn.combination.recipes._recipe import Recipe, check_options
from kofn.combination.recipes._settings import rule_settings
from kofn.combination.rules import find_merge_rule
from kofn.core.helpers import helper
from kofn.io.outputs import refuse_read

__all__ = ["preview_merge"]


@helper
def preview_merge(
    members: Sequence[Any] | Recipe,
    *,
    method: str = "weighted_mean",
    base: Any = None,
    weights: Any = None,
    options: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    dtype: str | None = None,
    vocabulary: str | None = None,
) -> list[dict[str, Any]]:
    """Preview a merge: the fate of every tensor, from names, shapes and dtypes alone.

    Args:
        members: m checkpoints, mappings or arrays; or a recipe as `read_recipe` gives it, which names the base and the
            methods itself.
        method: the method to preview.
        base: the checkpoint that the members were fine-tuned from.
        weights: (m,) as the method takes them; a recipe has its own.
        options: the method's own options; a recipe has its own.
        out: where the blend would be written. Nothing is written.
        only: pattern, or several, of the names of the tensors to blend; the others are copied.
        skip: pattern, or several, of the names of tensors to copy.
        dtype: the float dtype of the blend; by default the first member's.
        vocabulary: "union", "base" or "first": whose tokens the rows of embeddings are matched to.

    Returns:
        A row for each tensor of the output: its `name`, `dtype`, `shape`, `bytes`, and its `fate`: the method that
        blends it (and "requantised" where members keep it quantised), or the source it is copied from. Of a recipe, and
        of a method that is a merge rule, also its `settings`: the method, the weights in use and every option; of
        several recipes in one file the rows of each, in the order in which they are run, with the `recipe`'s name and
        how many `models` it blends.

    Raises:
        InputError: members that do not match, patterns of no tensor; weights, options and an output that the method
            refuses.

    >>> import numpy as np
    >>> member = {"norm": np.ones(2), "head": np.ones(3)}
    >>> [(row["name"], row["fate"]) for row in preview_merge([member, member], skip="head")]
    [('norm', 'weighted_mean'), ('head', 'copied from member 0')]
    """
    if isinstance(members, Recipe) and members.preview is not None:
        with tempfile.TemporaryDirectory() as folder, names_of_recipes(Path(folder)) as named:

            def rows_of(recipe: Recipe, last: bool) -> list[dict[str, Any]]:
                if not last:
                    return preview_merge(recipe)
                return preview_merge(recipe, out=out, only=only, skip=skip, dtype=dtype, vocabulary=vocabulary)

            every: list[dict[str, Any]] = named(members.preview(Path(folder), rows_of))
            return every
    settings_of: dict[str, Any] = {}
    swept = SweepOptions(only=only, skip=skip, dtype=dtype, vocabulary=vocabulary)
    if isinstance(members, Recipe):
        if out is not None:
            refuse_read(out, members.read_paths())
        recipe, pool, part_of, _ = open_recipe(members, swept)
        for settings in bind_parts(recipe, pool, part_of)[1].values():
            settings_of |= dict.fromkeys(settings.pop("tensors"), settings)
        method_of = {name: recipe.parts[i].method for name, i in part_of.items()}
    else:
        pool = swept.open(members, base)
        if settings := _bind(method, pool, weights, options or {}):
            settings_of = dict.fromkeys(pool.first, settings)
        method_of = dict.fromkeys(pool.first, method)
    if out is not None:
        check_out(out, pool)
        if pool.vocabulary is not None:
            pool.vocabulary.refuse_single_file(out)
    weight_of = {scheme.scale: name for name, scheme in pool.schemes.items()}
    rows = []
    for name, spec in pool.written().items():
        if name in pool.skipped:
            fate = "copied from the base" if pool.base is not None and name in pool.base else "copied from member 0"
        elif name in weight_of:
            fate = f"scales of the blended {weight_of[name]}"
        elif name in pool.beside:
            fate = "the members' largest" if spec.dtype in REAL else "copied from member 0"
        elif pool.first[name].dtype in HALF or pool.first[name].dtype in REAL:
            fate = method_of[name] + (", requantised" if name in pool.schemes else "")
            if pool.vocabulary is not None and name in pool.vocabulary.figures["tensors"]:
                fate += ", by token"
        else:
            fate = "copied where all members agree, else refused"
        shape = list(spec.shape)
        row = {"name": name, "dtype": spec.dtype.name, "shape": shape, "bytes": spec.nbytes, "fate": fate}
        blended = name in settings_of and (isinstance(members, Recipe) or fate.startswith(method))
        rows.append(row | ({"settings": settings_of[name]} if blended else {}))
    return rows


def _bind(method: str, pool: Pool, weights: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a merge rule, none of another method; refuse weights and options that the method refuses, before
    a tensor is read."""
    counts, cls = member_weights(weights, len(pool.members)), find_merge_rule(method)
    if cls is not None:
        check_options(method, options)
        merge_rule = cls(**options)
        return rule_settings(method, merge_rule, merge_rule.bind(pool, counts))
    if counts is not None:
        relative_weights(counts, len(pool.members), options.get("normalize"))
    return {}
