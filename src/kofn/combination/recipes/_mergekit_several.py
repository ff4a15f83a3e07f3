"""Several mergekit recipes in one file, of which later ones name what others make (mergekit's `mergekit-multi`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn._version import __version__
from kofn.combination.recipes._mergekit import read_mergekit
from kofn.combination.recipes._recipe import Recipe, Relayered, folder_of
from kofn.core import checks
from kofn.core.checks import InputError, KofnError
from kofn.io.tensors import CODES, INDEX_SUFFIX, Layout, Shard, TensorSpec, header_bytes

# What recipes make, and of which job each finished one is, in folders of these names.
_MODELS, _JOBS = "models", "jobs"
Rows = list[dict[str, Any]]


def read_several(documents: Sequence[Any], folder: Path) -> Recipe:
    """The recipe that no other of a file uses; what it uses is made when it is prepared.

    What a run that was killed had made is taken as it is, where the files that it was made of are the same still.

    Raises:
        InputError: recipes without a name or with one that another has, several that none uses, and such as use
            each other.
    """
    by_name: dict[str | None, Mapping[str, Any]] = {}
    for document in documents:
        if not isinstance(document, Mapping) or "merge_method" not in document:
            raise InputError(f"{len(documents)} recipes in one file: each names its merge_method")
        name = document.get("name")
        if name is not None and (not isinstance(name, str) or not name or Path(name).name != name):
            raise InputError(f"name: {checks.shown(name)} is no name of a folder")
        if name in by_name:
            named = "several recipes have no name" if name is None else f"several recipes are called {name!r}"
            raise InputError(f"{named}; give each but the last a name of its own")
        by_name[name] = document
    used = {name: set(_used(document, by_name)) for name, document in by_name.items()}
    own = next((name for name, names in used.items() if name in names), None)
    if own is not None:
        raise InputError(
            f"recipe {own!r} names {own!r} among its models, which is itself; give the recipe another name, or "
            f"write ./{own} where a folder is meant"
        )
    last = [name for name in by_name if not any(name in names for names in used.values())]
    if len(last) != 1:
        names = ", ".join(repr(name or "the one without a name") for name in last) or "all of them"
        fault = "none uses" if last else "use each other"
        raise InputError(f"recipes of one file make one model, and {fault}: {names}; write each to a file of its own")
    order = list(_order(last[0], used, ()))

    def prepare(workspace: Path, make: Callable[[Recipe, Path, Path], None]) -> Recipe:
        models, jobs = workspace / _MODELS, workspace / _JOBS
        for each in (models, jobs):
            each.mkdir(exist_ok=True)
        made: dict[str, Path] = {}
        for name in order[:-1]:
            assert name is not None
            recipe = read_mergekit(by_name[name], folder, made)
            make(recipe, models / name, jobs / name)
            made[name] = models / name
        return read_mergekit(by_name[order[-1]], folder, made)

    def preview(workspace: Path, rows_of: Callable[[Recipe, bool], Rows]) -> Rows:
        made: dict[str, Path] = {}
        every: Rows = []
        for name in order:
            recipe = read_mergekit(by_name[name], folder, made)
            rows = rows_of(recipe, name == order[-1])
            every += [{"recipe": name or "", "models": len(recipe.members), **row} for row in rows]
            if name != order[-1]:
                assert name is not None
                made[name] = workspace / _MODELS / name
                _stand_in(made[name], rows, recipe)
        return every

    written = json.dumps([__version__, os.path.abspath(folder), *documents], sort_keys=True, default=str)
    return Recipe(
        (), (), prepare=prepare, preview=preview, job=hashlib.blake2b(written.encode(), digest_size=12).hexdigest()
    )


def _stand_in(target: Path, rows: Rows, recipe: Recipe) -> None:
    """A checkpoint of the tensors that a recipe makes, without their values: a file that takes no room on the disk."""
    target.mkdir(parents=True)
    dtypes = {dtype.name: dtype for dtype in CODES}
    specs = tuple(TensorSpec(row["name"], dtypes[row["dtype"]], tuple(row["shape"])) for row in rows)
    shard = Shard("model.safetensors", specs, {"format": "pt"})
    header = header_bytes(shard)
    with open(target / shard.file_name, "wb") as file:
        file.write(header)
        file.truncate(len(header) + Layout((shard,)).nbytes)
    first = recipe.members[0] if recipe.donor is None else recipe.donor
    donor = Path(first.paths[0] if isinstance(first, Relayered) else folder_of(first))
    for path in donor.iterdir() if donor.is_dir() else ():
        if path.is_file() and not path.name.endswith((".safetensors", INDEX_SUFFIX)):
            (target / path.name).symlink_to(path.resolve())


@contextlib.contextmanager
def names_of_recipes(workspace: Path) -> Iterator[Callable[[Any], Any]]:
    """Within it, errors call what recipes made by the recipes' names, not by its paths, which are gone afterwards.

    Gives what puts the names into the texts of a value, however deep.
    """
    beginning = f"{workspace / _MODELS}{os.sep}"

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(beginning, "")
        if isinstance(value, dict):
            return {key: named(each) for key, each in value.items()}
        return type(value)(map(named, value)) if type(value) in (list, tuple) else value

    try:
        yield named
    except KofnError as error:
        message = named(str(error))
        if message == str(error):
            raise
        raise type(error)(message) from None


def _used(value: Any, known: Mapping[str | None, Any], key: str = "") -> Iterator[str]:
    """The names of other recipes among the models of one."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            if inner not in ("name", "parameters"):
                yield from _used(part, known, str(inner))
    elif isinstance(value, list):
        for part in value:
            yield from _used(part, known, key)
    elif isinstance(value, str) and key in ("model", "models", "path", "base_model", "tokenizer_source", "source"):
        name = value.split("+")[0]
        if name in known:
            yield name


def _order(
    name: str | None, used: Mapping[str | None, set[str]], above: tuple[str | None, ...]
) -> Iterator[str | None]:
    """The recipes that one needs, each after those that it needs, and itself at the end."""
    if name in above:
        between = ", ".join(map(repr, above[above.index(name) + 1 :]))
        raise InputError(
            f"recipe {name!r} uses itself by way of {between}; take one of these names out of the recipes that use it"
        )
    seen: list[str | None] = []
    for needed in sorted(used[name]):
        seen += [each for each in _order(needed, used, (*above, name)) if each not in seen]
    yield from [*seen, name]
