"""Read mergekit recipes: what each tensor of the output is made of, by which rule and which settings.

A setting of a model counts before one of its slice, that before the recipe's own. Settings that a method does not have
are ignored, as mergekit ignores them, but for those that no method has and that are spelt nearly like one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kofn.combination._sweep.members import float_dtype
from kofn.combination.recipes._mergekit_methods import METHODS, known_settings, settings_asked, settings_of
from kofn.combination.recipes._mergekit_settings import SHARES, Input, Lookup, Settings, odd_share
from kofn.combination.recipes._mergekit_tokens import chat_template_of, read_tokens_of
from kofn.combination.recipes._recipe import Adapted, Part, Recipe, Relayered, folder_of, located, refuse_unknown
from kofn.combination.rules import Rule
from kofn.core.checks import InputError, names_a_file, nearest
from kofn.io.adapters import is_adapter

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
# What stands before the layers, and so belongs to the first slice; the rest without a layer belongs to the last.
_BEFORE = re.compile(r"embed|wte|wpe|shared\.")
_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "name",
    "chat_template",
    "tokenizer",
    "modules",
)
_REFUSED = {
    "modules": "write the parts of the model as recipes of their own",
}
_IGNORED = "mergekit ignores it; take it out"


@dataclass(frozen=True)
class _Source:
    """A model of a slice: where it lies, its settings, and the first of its layers, None for all as they are."""

    model: str
    parameters: Settings
    first: int | None = None


@dataclass(frozen=True)
class _Slice:
    """Layers of the output, made of as many layers of each source."""

    sources: tuple[_Source, ...]
    parameters: Settings
    base: str | None
    layers: int | None = None


def read_mergekit(content: Mapping[str, Any], folder: Path | None, made: Mapping[str, Path] | None = None) -> Recipe:
    """A mergekit recipe: its models, and what each tensor is made of.

    Args:
        content: the recipe.
        folder: what its paths are relative to.
        made: the folders of models that other recipes make, by their names.

    Raises:
        InputError: methods and features that are not done here, by name, saying what to write instead.
    """
    refuse_unknown(content, _KEYS, "a mergekit recipe", remedy=_IGNORED)
    for key, remedy in _REFUSED.items():
        if content.get(key) not in (None, "auto"):
            raise InputError(f"{key} is not read; {remedy}")
    method = content["merge_method"]
    if not isinstance(method, str) or method not in METHODS:
        near = nearest(str(method), METHODS)
        raise InputError(f"merge_method {method!r} is not read{near}; {', '.join(METHODS)} are")
    parameters = _parameters(content)
    base = None if content.get("base_model") is None else _model(content["base_model"], "base_model")
    slices = _slices(content, base)
    keeps_base = METHODS[method].base
    if keeps_base and base is None and any(piece.base is None for piece in slices):
        raise InputError(f"merge_method {method!r} needs base_model; name the model that the others were trained from")
    columns = _padded([_columns(piece, method) for piece in slices], method)
    reading = _Reading(method, parameters, tuple(slices), tuple(members for members, _ in columns))
    made = made or {}
    find = {model: _found(model, folder, made) for piece in slices for model in _models_of(piece)}
    stacked = slices[0].layers is not None
    members: list[Any] = []
    for column in zip(*(members for members, _ in columns), strict=True):
        members.append(_stack(column, slices, find) if stacked else find[column[0].model])
    origins = [origin for _, origin in columns if origin is not None]
    origin: Any = None
    if len(origins) == len(slices):
        origin = _stack(origins, slices, find) if stacked else find[origins[0].model]
    named = {model: folder_of(path) for model, path in find.items()}
    adapted = tuple(
        f"{path.adapter} is folded into {path.model}" for path in find.values() if isinstance(path, Adapted)
    )
    return Recipe(
        tuple(members),
        (),
        origin,
        (*reading.notes(), *adapted),
        reading.parts,
        donor=named.get(base or slices[0].sources[0].model),
        tokens=read_tokens_of(
            content,
            None if base is None else named.get(base) or folder_of(_found(base, folder, made)),
            named[slices[0].sources[0].model],
            lambda name: named[name] if name in named else folder_of(_found(name, folder, made)),
            _model,
        ),
        chat_template=chat_template_of(content.get("chat_template"), list(named.values())),
        dtype=_dtype(content, "out_dtype") or _dtype(content, "dtype"),
        cast=_dtype(content, "dtype"),
        widest=True,
    )


def _slices(content: Mapping[str, Any], base: str | None) -> list[_Slice]:
    given = [key for key in ("models", "slices") if content.get(key)]
    if len(given) != 1:
        raise InputError("give either models or slices, with at least one model")
    if given == ["models"]:
        sources = [_source(item, "a model of the recipe") for item in _listed(content["models"], "models")]
        _refuse_twice(sources)
        return [_Slice(tuple(sources), {}, base)]
    slices = []
    for item in _listed(content["slices"], "slices"):
        entry = _mapping(item, "a slice")
        refuse_unknown(entry, ("sources", "parameters", "base_model"), "a slice", remedy=_IGNORED)
        sources, counts = [], set()
        for source in _listed(entry.get("sources"), "sources"):
            ends = _mapping(source, "a source").get("layer_range")
            if not (isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(end, int) for end in ends)):
                raise InputError(f"layer_range {ends!r}: give the first layer and the one after the last, as [0, 16]")
            if not 0 <= ends[0] <= ends[1]:
                raise InputError(f"layer_range {list(ends)} holds no layer; the first comes before the end")
            sources.append(_source(source, "a source", ends[0]))
            counts.add(ends[1] - ends[0])
        if len(counts) > 1:
            raise InputError(f"the sources of a slice have {sorted(counts)} layers; give all as many")
        _refuse_twice(sources)
        own = _model(entry["base_model"], "base_model") if entry.get("base_model") else base
        slices.append(_Slice(tuple(sources), _parameters(entry), own, counts.pop()))
    # One without layers still says whose head or embedding is taken.
    if not any(each.layers for each in slices):
        raise InputError("the slices hold no layer; give one a layer_range such as [0, 16]")
    return slices


def _refuse_twice(sources: Sequence[_Source]) -> None:
    """Refuse a model that is listed twice, of which mergekit knows one set of settings."""
    models = [source.model for source in sources]
    twice = next((model for i, model in enumerate(models) if model in models[:i]), None)
    if twice is not None:
        raise InputError(f"model {twice!r} is listed twice; list it once, with the sum of its weights")


def _source(item: Any, owner: str, first: int | None = None) -> _Source:
    entry = _mapping(item, owner)
    refuse_unknown(entry, ("model", "parameters", "layer_range"), owner, remedy=_IGNORED)
    if "model" not in entry:
        raise InputError(f"{owner} names no model; give model: a path")
    return _Source(_model(entry["model"], "model"), _parameters(entry), first)


def _parameters(entry: Mapping[str, Any]) -> Settings:
    """The settings of a recipe, a slice or a model; one that no method has is refused where it is nearly another."""
    given = _mapping(entry.get("parameters"), "parameters")
    known = known_settings()
    for key in given:
        if key not in known and (near := nearest(str(key), known)):
            raise InputError(f"parameters: no method reads {key!r}{near}")
    return given


def _model(value: Any, key: str) -> str:
    """The path of a model, given as text or in mergekit's long form."""
    while isinstance(value, Mapping):
        if value.get("lora") is not None:
            return f"{_model(value.get('model'), key)}+{_model(value['lora'], key)}"
        inner = [value[name] for name in ("model", "path") if name in value]
        if not inner:
            raise InputError(f"{key}: {dict(value)!r} names no path")
        value = inner[0]
    if not isinstance(value, str) or not value:
        raise InputError(f"{key}: {value!r} is no path of a model")
    return value


def _columns(piece: _Slice, method: str) -> tuple[list[_Source], _Source | None]:
    """The sources that are blended, in the order of the method, and the base among them, or beside them."""
    form = METHODS[method]
    if form.base:
        mine = next((source for source in piece.sources if source.model == piece.base), None)
        if mine is None:
            if piece.layers is not None:
                raise InputError(f"base_model {piece.base!r} is not among the sources of a slice; list it there")
            mine = _Source(str(piece.base), {})
        return [source for source in piece.sources if source.model != piece.base], mine
    if form.optional_base and piece.base is not None:
        others = [source for source in piece.sources if source.model != piece.base]
        if len(others) == len(piece.sources) and piece.layers is not None:
            raise InputError(f"base_model {piece.base!r} is not among the sources of a slice; list it there")
        mine = next((source for source in piece.sources if source.model == piece.base), _Source(piece.base, {}))
        return others, mine
    sources = list(piece.sources)
    # mergekit blends the base of `models` among them; of `slices`, it copies the configuration and tokenizer only.
    if piece.base is not None and piece.layers is None and piece.base not in [source.model for source in sources]:
        sources.append(_Source(piece.base, {}))
    if method == "slerp":
        # From the base to the other model, whichever is listed first.
        if len(sources) != 2 or piece.base not in [source.model for source in sources]:
            raise InputError("slerp takes two models, of which base_model names the one at t: 0")
        sources.sort(key=lambda source: source.model != piece.base)
    return sources, None


def _padded(
    columns: Sequence[tuple[list[_Source], _Source | None]], method: str
) -> list[tuple[list[_Source], _Source | None]]:
    """The sources of all slices, as many in each: a model of weight zero stands where a slice has fewer.

    Where no slice has any, the base stands beside itself, from which it differs by nothing: mergekit gives it back.
    """
    counts = {len(members) for members, _ in columns}
    if counts == {0}:
        if not METHODS[method].pads:
            raise InputError("no model is listed beside the base, so nothing is merged; list one")
        own = [base for _, base in columns if base is not None]
        return [([dataclasses.replace(base, parameters={"weight": 1})], base) for base in own]
    if len(counts) > 1 and not METHODS[method].pads:
        raise InputError(f"slices have {sorted(counts)} models beside the base; {method} takes as many in every slice")
    padded = []
    for members, base in columns:
        fill = [*members, *([] if base is None else [base])][:1]
        more = [dataclasses.replace(source, parameters={"weight": 0}) for source in fill] * (max(counts) - len(members))
        padded.append((members + more, base))
    return padded


def _models_of(piece: _Slice) -> list[str]:
    return [source.model for source in piece.sources] + ([] if piece.base is None else [piece.base])


@dataclass(frozen=True)
class _Reading:
    """What decides the rule of a tensor."""

    method: str
    parameters: Settings
    slices: tuple[_Slice, ...]
    members: tuple[list[_Source], ...]

    def notes(self) -> tuple[str, ...]:
        """What is said of the recipe as a whole."""
        pairs = zip(self.slices, self.members, strict=True)
        if METHODS[self.method].pads and all(
            source.model == piece.base for piece, members in pairs for source in members
        ):
            return ("no model is listed beside the base, which is given back as it is",)
        scopes = [self.parameters, *(piece.parameters for piece in self.slices)]
        scopes += [source.parameters for members in self.members for source in members]
        shares = settings_asked(self.method).intersection(SHARES)
        given = [(key, scope[key]) for scope in scopes for key in sorted(shares.intersection(scope))]
        odd = dict.fromkeys(text for key, value in given if (text := odd_share(key, value)))
        return tuple(filter(None, (METHODS[self.method].note, *odd)))

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        """The tensors that are blended alike, together."""
        numbers = [int(match[1]) for name in names if (match := _LAYER.search(name))]
        depth = max(numbers, default=-1) + 1
        starts = [0]
        for piece in self.slices:
            starts.append(starts[-1] + (depth if piece.layers is None else piece.layers))
        groups: dict[str, tuple[Rule, list[float], Settings, list[str]]] = {}
        for name in names:
            try:
                setting = self._lookup(name, starts)
                merge_rule, weights = settings_of(self.method, setting)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            key = f"{merge_rule!r} {weights} {setting.used}"
            groups.setdefault(key, (merge_rule, weights, setting.used, []))[-1].append(name)
        return tuple(
            Part(self.method, weights, {}, (), frozenset(matched), merge_rule, used)
            for merge_rule, weights, used, matched in groups.values()
        )

    def _lookup(self, name: str, starts: Sequence[int]) -> Lookup:
        """The settings of a tensor, at its place among the layers of its slice."""
        match = _LAYER.search(name)
        if match is None:
            index, offset, t = (0 if _BEFORE.search(name) else len(self.slices) - 1), None, 0.0
        else:
            layer = int(match[1])
            index = next(i for i, end in enumerate(starts[1:]) if layer < end)
            offset = layer - starts[index]
            length = starts[index + 1] - starts[index]
            t = offset / (length - 1) if length > 1 else 1.0
        inputs = []
        for source in self.members[index]:
            own = name
            if match is not None and offset is not None and source.first is not None:
                own = f"{name[: match.start(1)]}{source.first + offset}{name[match.end(1) :]}"
            inputs.append(Input(source.model, source.parameters, own))
        return Lookup(name, t, (self.slices[index].parameters, self.parameters), inputs)


def _stack(column: Sequence[_Source], slices: Sequence[_Slice], find: Mapping[str, Any]) -> Relayered:
    """A model made of layers of others."""
    layers: list[tuple[Any, range]] = []
    for source, piece in zip(column, slices, strict=True):
        assert source.first is not None
        assert piece.layers is not None
        layers.append((find[source.model], range(source.first, source.first + piece.layers)))
    return Relayered(tuple(layers), find[column[0].model], find[column[-1].model], _LAYER, _BEFORE)


def _dtype(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return None if value is None else float_dtype(value).name


def _found(path: str, folder: Path | None, made: Mapping[str, Path]) -> Any:
    """The path of a model; mergekit's paths are relative to the working directory, or are hub names.

    `made` has the folders of models that other recipes of the file make, by their names.
    """
    known = made.get(path) or (path if names_a_file(path) else None)
    if known is None and folder is not None and names_a_file(folder / path):
        known = located(path, folder)
    if known is not None and is_adapter(known):
        raise InputError(f"model {path!r} is an adapter; write the model it was trained on before it: MODEL+{path}")
    if known is not None:
        return known
    if path.count("+") == 1:
        model, adapter = path.split("+")
        own = adapter if names_a_file(adapter) or folder is None else located(adapter, folder)
        if not names_a_file(own):
            raise InputError(f"adapter {adapter!r} is no folder here; download it first and give its path")
        return Adapted(_found(model, folder, made), own)
    raise InputError(f"model {path!r} is no folder here; download it first and give its path")


def _listed(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{key}: {value!r} is no list; give at least one entry")
    return value


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{key}: {value!r} is no table of keys and values")
    return value
