"""The recipe: members, a base, and the method, weights and options of each part."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination._sweep.tokens_of import TokensOf
from kofn.combination.adapters._fold_adapter import Fold, open_fold
from kofn.combination.adapters._fold_rows import Scratch
from kofn.combination.rules import Rule, find_merge_rule, merge_rules
from kofn.core.arrays import Array
from kofn.core.checks import InputError, nearest
from kofn.io.tensors import Checkpoint, Layout, LazyTensor, Shard, TensorSpec

COPY = "copy"  # instead of a method: the tensor is taken from the base, or from the first member


@dataclass(frozen=True)
class Part:
    """How the tensors whose names match are blended; `settings` are all that decide it, in the recipe's words."""

    method: str
    weights: list[float] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    match: tuple[str, ...] = ("*",)
    names: frozenset[str] = frozenset()
    rule: Rule | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def decides(self, name: str) -> bool:
        """Whether the tensor is one of its own, by name or by pattern."""
        return name in self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.match)


@dataclass(frozen=True)
class Adapted:
    """A model and the adapter that is folded into it, by their paths."""

    model: Any
    adapter: Any

    def __str__(self) -> str:
        """As mergekit writes it."""
        return f"{self.model}+{self.adapter}"

    def open(self, notes: list[str] | None = None) -> Checkpoint:
        """The model as a checkpoint in which the tensors that the adapter changes are folded as they are read; what the
        fold warns of is appended to `notes`."""
        fold = open_fold(self.model, [self.adapter])
        if notes is not None:
            notes += fold.folding.notes
        assert isinstance(fold.source, Checkpoint)
        if fold.folding.rows is not None:
            before, after = fold.folding.rows
            raise InputError(
                f"{self}: the adapter gives the tables of tokens {after} rows for {before}, by which configuration and "
                f"tokenizer change too: fold it first (kofn combine {self.model} {self.adapter} -o folded/), and name "
                "that in the recipe"
            )
        changed = {name for name in fold.specs if name in fold.folding.changes or name in fold.folding.shapes}
        names = [*changed, *fold.folding.added]
        tensors = {name: FoldedTensor(fold, name, Path(self.model)) for name in names}
        layout = fold.source.layout.retyped(fold.specs).extended(fold.folding.added)
        adapter = Path(self.adapter)
        files = sorted(adapter.glob("adapter_*")) if adapter.is_dir() else [adapter]
        beside = fold.source.files | {path.resolve() for path in files}
        return Checkpoint(fold.source.path, layout, {**fold.source, **tensors}, beside)  # type: ignore[dict-item]


class FoldedTensor:
    """A tensor of a fold: blocks of it are computed as they are read."""

    __slots__ = ("_fold", "_local", "_whole", "dtype", "name", "path", "shape", "size")

    def __init__(self, fold: Fold, name: str, path: Path) -> None:
        spec = fold.specs.get(name)
        given: Any = fold.folding.added[name] if spec is None else spec
        self.name, self.path = name, path
        self.dtype: np.dtype[Any] = given.dtype
        self.shape: tuple[int, ...] = tuple(given.shape)
        self.size = math.prod(self.shape)
        self._fold, self._local = fold, threading.local()
        # DoRA's norms along the columns take the whole tensor, which is then computed once.
        self._whole = spec is None or any(change.whole for change in fold.folding.changes.get(name, ()))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> Array:
        """Elements `start:stop` of the flattened tensor, as `LazyTensor.read` gives them."""
        stop = self.size if stop is None else stop
        if self._whole:
            values = self._kept()[start:stop]
        else:
            scratch: Scratch = self._local.__dict__.setdefault("scratch", Scratch())
            columns = self._fold.row_length(self.name)
            first, last = start // columns, -(-stop // columns)
            block = self._fold.block(self.name, slice(first, last), scratch)
            values = block[start - first * columns : stop - first * columns]
        if out is None:
            return values.copy()
        target: Array = out[: values.nbytes].view(self.dtype)
        target[...] = values
        return target

    def array(self) -> Array:
        """The whole tensor, folded now."""
        return self._fold.tensor(self.name)

    def _kept(self) -> Array:
        kept: Array | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = self.array().reshape(-1)
        return kept


@dataclass(frozen=True)
class Relayered:
    """A model put together from layers of others, which are renumbered.

    `layers` are (model, its layers) in the order of the output. What has no layer comes from `first` where `before`
    finds it (embeddings), else from `last`; `pattern` finds the layer's number in a name.
    """

    layers: tuple[tuple[Any, range], ...]
    first: Any
    last: Any
    pattern: re.Pattern[str]
    before: re.Pattern[str]

    def __str__(self) -> str:
        """The models and how many of their layers, in the order of the output."""
        groups = itertools.groupby(self.layers, key=lambda part: part[0])
        runs = [(path, sum(_extent(layers) for _, layers in parts)) for path, parts in groups]
        return " then ".join(f"{count} layer{'s' * (count > 1)} of {path}" for path, count in runs)

    @property
    def paths(self) -> tuple[Any, ...]:
        """The models that its tensors are from."""
        return tuple(dict.fromkeys((*(path for path, _ in self.layers), self.first, self.last)))

    @property
    def depth(self) -> int:
        """How many layers it has."""
        return sum(_extent(layers) for _, layers in self.layers)

    def open(self, notes: list[str] | None = None) -> Checkpoint:
        """The model as a checkpoint whose tensors lie in the others' files; `notes` is as in `Adapted`."""
        opened = {path: path.open(notes) if isinstance(path, Adapted) else Checkpoint.open(path) for path in self.paths}
        tensors: dict[str, LazyTensor] = {}
        for path, side in ((self.first, True), (self.last, False)):
            for name, tensor in opened[path].items():
                if not self.pattern.search(name) and bool(self.before.search(name)) == side:
                    tensors[name] = tensor
        for number, (path, layer) in enumerate((path, layer) for path, layers in self.layers for layer in layers):
            has_layer = False
            for name, tensor in opened[path].items():
                match = self.pattern.search(name)
                if match and int(match[1]) == layer:
                    has_layer = True
                    tensors[name[: match.start(1)] + str(number) + name[match.end(1) :]] = tensor
            if not has_layer:
                raise InputError(f"{path} has no layer {layer}; correct layer_range")
        specs = tuple(TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
        layout = Layout((Shard("model.safetensors", specs, {"format": "pt"}),))
        return Checkpoint(Path(folder_of(self.first)), layout, tensors)


def folder_of(model: Any) -> Any:
    """The path of a model, without the adapter that is folded into it."""
    return model.model if isinstance(model, Adapted) else model


def _extent(layers: range) -> int:
    return layers.stop - layers.start  # len() refuses what a recipe may ask for


@dataclass(frozen=True)
class Recipe:
    """Members, a base, and parts; the first part that matches a tensor's name wins, and the last matches all.

    `settle` makes the parts of the tensors' names, where they depend on those. `donor` is the model whose configuration
    and tokenizer the output gets, by default the first member; `dtype` is the output's, by default the first member's,
    or the `widest` that a tensor has; models are rounded to `cast` as they are read, and the blend before `dtype`. The
    output's tokenizer gets the `chat_template`. Where the file holds several recipes, `prepare` writes what others of
    them make into a folder and gives the one that is asked for; the function it is given makes one of them: the recipe,
    the target, and the file that is there once it is done. `preview` gives the rows of all of them, and `job` is a
    digest of the file; nothing else is set then.
    """

    members: tuple[Any, ...]
    parts: tuple[Part, ...]
    base: Any = None
    notes: tuple[str, ...] = ()
    settle: Callable[[Sequence[str]], tuple[Part, ...]] | None = None
    donor: Any = None
    dtype: str | None = None
    cast: str | None = None
    widest: bool = False
    tokens: TokensOf | None = None
    chat_template: str | None = None
    prepare: Callable[[Path, Callable[[Recipe, Path, Path], None]], Recipe] | None = None
    preview: Callable[[Path, Callable[[Recipe, bool], list[dict[str, Any]]]], list[dict[str, Any]]] | None = None
    job: str = ""

    def read_paths(self) -> Iterator[tuple[str, Any]]:
        """Every model, adapter and tokenizer on disk that is read, by its name in errors and its path."""
        sources = [*self.members, self.base, self.donor, None if self.tokens is None else self.tokens.folder]
        for source in sources:
            for model in source.paths if isinstance(source, Relayered) else (source,):
                for path in (model.model, model.adapter) if isinstance(model, Adapted) else (model,):
                    if isinstance(path, str | os.PathLike):
                        yield os.fspath(path), path

    def settled(self, names: Sequence[str]) -> Recipe:
        """The recipe with the parts of these tensors."""
        return self if self.settle is None else dataclasses.replace(self, parts=self.settle(names), settle=None)

    def part_of(self, name: str) -> int:
        """The index of the first part that matches a tensor."""
        return next(i for i, part in enumerate(self.parts) if part.decides(name))


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


def refuse_unknown(
    given: Mapping[str, Any], known: Collection[str], owner: str, kind: str = "key", remedy: str | None = None
) -> None:
    """Refuse keys that `owner` does not have; the nearest is offered, or else the remedy."""
    for key in given:
        if key not in known:
            near = nearest(str(key), known)
            listed = f"there are: {', '.join(known) or 'none'}"
            raise InputError(f"{owner} has no {kind} {key!r}{near}; {listed if near or remedy is None else remedy}")


def located(path: Any, folder: Path | None) -> Any:
    """Resolve a path relative to the recipe file's folder; other values are returned unchanged."""
    return path if folder is None or not isinstance(path, str | os.PathLike) else folder / path
