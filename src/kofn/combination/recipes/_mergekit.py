"""Read mergekit recipes: what each tensor of the output is made of, by which rule and which settings.

A setting of a model counts before one of its slice, that before the recipe's own; a list of numbers changes along the
layers, a list of conditions is decided by the first whose `filter` is part of the tensor's name. Settings that a method
does not have are ignored, as mergekit ignores them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kofn.combination._sweep.members import float_dtype
from kofn.combination.recipes import _mergekit_rules
from kofn.combination.recipes._mergekit_tokens import read_tokens_of
from kofn.combination.recipes._recipe import Part, Recipe, Relayered, located, refuse_unknown
from kofn.combination.rules import Rule
from kofn.core import checks
from kofn.core.checks import InputError, nearest

Settings = Mapping[str, Any]
Lookup = Callable[..., Any]

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
    "chat_template": "write it into the output's tokenizer_config.json",
    "modules": "write the parts of the model as recipes of their own",
}
_FOLD = "fold it first: kofn combine {model} {adapter} -o folded/"
_DRAWN = "which entries are dropped is drawn with a seed of our own: the figures are mergekit's in the mean"
_NOT_DONE = {
    "della": "dare_ties keeps entries by chance too, without regard to their size",
    "della_linear": "dare_linear keeps entries by chance too, without regard to their size",
    "arcee_fusion": "ties with a density below 1 keeps the largest changes",
}


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


def read_mergekit(content: Mapping[str, Any], folder: Path | None) -> Recipe:
    """A mergekit recipe: its models, and what each tensor is made of.

    Raises:
        InputError: methods and features that are not done here, by name, saying what to write instead.
    """
    refuse_unknown(content, _KEYS, "a mergekit recipe read here")
    for key, remedy in _REFUSED.items():
        if content.get(key) not in (None, "auto"):
            raise InputError(f"{key} is not read; {remedy}")
    method = content["merge_method"]
    if not isinstance(method, str) or method not in _METHODS:
        if isinstance(method, str) and method in _NOT_DONE:
            raise InputError(f"merge_method {method!r} is not done here; {_NOT_DONE[method]}")
        near = nearest(str(method), _METHODS)
        raise InputError(f"merge_method {method!r} is not read{near}; {', '.join(_METHODS)} are")
    parameters = _mapping(content.get("parameters"), "parameters")
    base = None if content.get("base_model") is None else _model(content["base_model"], "base_model")
    slices = _slices(content, base)
    keeps_base = _METHODS[method].base
    if keeps_base and base is None and any(piece.base is None for piece in slices):
        raise InputError(f"merge_method {method!r} needs base_model; name the model that the others were trained from")
    columns = [_columns(piece, method) for piece in slices]
    counts = {len(members) for members, _ in columns}
    if len(counts) > 1:
        raise InputError(f"slices have {sorted(counts)} models beside the base; give every slice as many")
    reading = _Reading(method, parameters, tuple(slices), tuple(members for members, _ in columns))
    find = {model: _found(model, folder) for piece in slices for model in _models_of(piece)}
    stacked = slices[0].layers is not None
    members: list[Any] = []
    for column in zip(*(members for members, _ in columns), strict=True):
        members.append(_stack(column, slices, find) if stacked else find[column[0].model])
    origins = [origin for _, origin in columns if origin is not None]
    origin: Any = None
    if len(origins) == len(slices):
        origin = _stack(origins, slices, find) if stacked else find[origins[0].model]
    return Recipe(
        tuple(members),
        (),
        origin,
        reading.notes(),
        reading.parts,
        donor=find.get(base or slices[0].sources[0].model),
        tokens=read_tokens_of(
            content,
            None if base is None else find.get(base) or _found(base, folder),
            find[slices[0].sources[0].model],
            lambda name: find[name] if name in find else _found(name, folder),
            _model,
        ),
        dtype=_dtype(content, "out_dtype") or _dtype(content, "dtype"),
        cast=_dtype(content, "dtype"),
    )


def _slices(content: Mapping[str, Any], base: str | None) -> list[_Slice]:
    given = [key for key in ("models", "slices") if content.get(key)]
    if len(given) != 1:
        raise InputError("give either models or slices, with at least one model")
    if given == ["models"]:
        sources = [_source(item, "a model of the recipe") for item in _listed(content["models"], "models")]
        return [_Slice(tuple(sources), {}, base)]
    slices = []
    for item in _listed(content["slices"], "slices"):
        entry = _mapping(item, "a slice")
        refuse_unknown(entry, ("sources", "parameters", "base_model"), "a slice")
        sources, counts = [], set()
        for source in _listed(entry.get("sources"), "sources"):
            ends = _mapping(source, "a source").get("layer_range")
            if not (isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(end, int) for end in ends)):
                raise InputError(f"layer_range {ends!r}: give the first layer and the one after the last, as [0, 16]")
            if not 0 <= ends[0] < ends[1]:
                raise InputError(f"layer_range {list(ends)} holds no layer; the first comes before the end")
            sources.append(_source(source, "a source", ends[0]))
            counts.add(ends[1] - ends[0])
        if len(counts) > 1:
            raise InputError(f"the sources of a slice have {sorted(counts)} layers; give all as many")
        own = _model(entry["base_model"], "base_model") if entry.get("base_model") else base
        slices.append(_Slice(tuple(sources), _mapping(entry.get("parameters"), "parameters"), own, counts.pop()))
    return slices


def _source(item: Any, owner: str, first: int | None = None) -> _Source:
    entry = _mapping(item, owner)
    refuse_unknown(entry, ("model", "parameters", "layer_range"), owner)
    if "model" not in entry:
        raise InputError(f"{owner} names no model; give model: a path")
    return _Source(_model(entry["model"], "model"), _mapping(entry.get("parameters"), "parameters"), first)


def _model(value: Any, key: str) -> str:
    """The path of a model, given as text or in mergekit's long form."""
    while isinstance(value, Mapping):
        if value.get("lora") is not None:
            parts = {"model": value.get("model"), "adapter": value["lora"]}
            raise InputError(f"{key}: {value.get('model')!r} with an adapter; {_FOLD.format(**parts)}")
        inner = [value[name] for name in ("model", "path") if name in value]
        if not inner:
            raise InputError(f"{key}: {dict(value)!r} names no path")
        value = inner[0]
    if not isinstance(value, str) or not value:
        raise InputError(f"{key}: {value!r} is no path of a model")
    if "+" in value and not Path(value).exists():
        model, _, adapter = value.partition("+")
        raise InputError(f"{key}: {value!r} is a model with an adapter; {_FOLD.format(model=model, adapter=adapter)}")
    return value


def _columns(piece: _Slice, method: str) -> tuple[list[_Source], _Source | None]:
    """The sources that are blended, in the order of the method, and the base among them, or beside them."""
    form = _METHODS[method]
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
    if piece.base is not None and piece.base not in [source.model for source in sources]:
        sources.append(_Source(piece.base, {}))
    if method == "slerp":
        # From the base to the other model, whichever is listed first.
        if len(sources) != 2 or piece.base is None:
            raise InputError("slerp takes two models, of which base_model names the one at t: 0")
        sources.sort(key=lambda source: source.model != piece.base)
    return sources, None


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
        return (_DRAWN,) if self.method in ("dare_linear", "dare_ties") else ()

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        """The tensors that are blended alike, together."""
        numbers = [int(match[1]) for name in names if (match := _LAYER.search(name))]
        depth = max(numbers, default=-1) + 1
        starts = [0]
        for piece in self.slices:
            starts.append(starts[-1] + (depth if piece.layers is None else piece.layers))
        groups: dict[str, tuple[Rule, list[float], list[str]]] = {}
        for name in names:
            match = _LAYER.search(name)
            if match:
                layer = int(match[1])
                slice_index = next(i for i, end in enumerate(starts[1:]) if layer < end)
                length = starts[slice_index + 1] - starts[slice_index]
                t = (layer - starts[slice_index]) / (length - 1) if length > 1 else 1.0
            else:
                slice_index, t = (0 if _BEFORE.search(name) else len(self.slices) - 1), 0.0
            try:
                merge_rule, weights = self._rule(name, t, self.slices[slice_index], self.members[slice_index])
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            group = groups.setdefault(f"{merge_rule!r} {weights}", (merge_rule, weights, []))
            group[2].append(name)
        return tuple(
            Part(self.method, weights, {}, (), frozenset(matched), merge_rule)
            for merge_rule, weights, matched in groups.values()
        )

    def _rule(self, name: str, t: float, piece: _Slice, members: Sequence[_Source]) -> tuple[Rule, list[float]]:
        def setting(key: str, default: Any = None, source: _Source | None = None) -> Any:
            for settings in (source.parameters if source else {}, piece.parameters, self.parameters):
                if key in settings:
                    value = evaluate(settings[key], name, t, key)
                    if value is not None:
                        return value
            return default

        weights = []
        if _METHODS[self.method].weighs:
            for source in members:
                value = setting("weight", None, source)
                if value is None:
                    raise InputError(f"model {source.model!r} has no weight; give parameters: weight")
                weights.append(_number(value, "weight"))
        return _METHODS[self.method].make(setting, members), weights


def evaluate(value: Any, name: str, t: float, key: str) -> Any:
    """A setting for a tensor: a value, a list of numbers along the layers, or the first condition that applies."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        value = [value]
    if value == []:
        return None
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        value = [_read(item) for item in value]
    if isinstance(value, list) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        position = t * (len(value) - 1)
        low = int(position)
        high = min(len(value) - 1, low + 1)
        return (1 - (position - low)) * value[low] + (position - low) * value[high]
    if isinstance(value, list) and all(isinstance(item, bool | int | float | str) for item in value):
        return value[int(t * (len(value) - 1))]
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        for condition in value:
            refuse_unknown(condition, ("filter", "value"), f"a condition of {key}")
            wanted = condition.get("filter")
            if wanted in (None, "*") or str(wanted) in name:
                return evaluate(condition.get("value"), name, t, key)
        return None
    raise InputError(f"{key}: {value!r} is no number, list of numbers along the layers, or list of conditions")


def _read(item: Any) -> Any:
    """A number that is written as a text; other texts as they are."""
    try:
        return float(item) if isinstance(item, str) else item
    except ValueError:
        return item


@dataclass(frozen=True)
class _Method:
    """How a method reads its settings."""

    make: Callable[[Lookup, Sequence[_Source]], Rule]
    base: bool = False  # the base is no member
    optional_base: bool = False  # it is no member where one is named
    weighs: bool = True


def _task_vectors(
    sparsify: str | None = None, *, by_sign: bool = False, divide: bool = False, rescale: bool = False
) -> _Method:
    def make(setting: Lookup, members: Sequence[_Source]) -> Rule:
        def each(key: str, default: float) -> tuple[float, ...]:
            return tuple(_number(setting(key, default, source), key) for source in members)

        densities = each("density", 1.0) if sparsify else ()
        return _mergekit_rules.TaskVectors(
            densities=densities,
            sparsify=sparsify,
            by_sign=by_sign,
            divide=bool(setting("normalize", divide)),
            rescale=bool(setting("rescale", rescale)),
            scale=_number(setting("lambda", 1.0), "lambda"),
            gammas=each("gamma", 0.01) if sparsify == "outliers" else (),
        )

    return _Method(make, base=True)


_METHODS: dict[str, _Method] = {
    "linear": _Method(lambda setting, _: _mergekit_rules.Linear(divide=bool(setting("normalize", True)))),
    "slerp": _Method(lambda setting, _: _mergekit_rules.SphericalLinear(t=_required(setting, "t")), weighs=False),
    "nuslerp": _Method(lambda setting, _: _nuslerp(setting), optional_base=True),
    "multislerp": _Method(lambda setting, _: _multislerp(setting), optional_base=True),
    "karcher": _Method(lambda setting, _: _karcher(setting), weighs=False),
    "model_stock": _Method(lambda setting, _: _model_stock(setting), base=True, weighs=False),
    "nearswap": _Method(
        lambda setting, _: _mergekit_rules.NearSwap(t=_required(setting, "t")), base=True, weighs=False
    ),
    "sce": _Method(
        lambda setting, _: _mergekit_rules.Sce(select_topk=_number(setting("select_topk", 1.0), "select_topk")),
        base=True,
        weighs=False,
    ),
    "passthrough": _Method(lambda setting, members: _passthrough(setting, members), weighs=False),
    "task_arithmetic": _task_vectors(),
    "ties": _task_vectors("magnitude", by_sign=True, divide=True),
    "dare_ties": _task_vectors("random", by_sign=True, rescale=True),
    "dare_linear": _task_vectors("random", rescale=True),
    "breadcrumbs": _task_vectors("outliers"),
    "breadcrumbs_ties": _task_vectors("outliers", by_sign=True),
}


def _nuslerp(setting: Lookup) -> Rule:
    if setting("nuslerp_row_wise", False) or not setting("nuslerp_flatten", True):
        raise InputError("nuslerp by rows is not done here; leave nuslerp_row_wise and nuslerp_flatten out")
    return _mergekit_rules.NuSlerp()


def _multislerp(setting: Lookup) -> Rule:
    divide, eps = bool(setting("normalize_weights", True)), _number(setting("eps", 1e-8), "eps")
    return _mergekit_rules.MultiSlerp(divide=divide, eps=eps)


def _karcher(setting: Lookup) -> Rule:
    rounds, tol = checks.count(setting("max_iter", 10), "max_iter"), _number(setting("tol", 1e-5), "tol")
    return _mergekit_rules.KarcherMean(max_iter=rounds, tol=tol)


def _model_stock(setting: Lookup) -> Rule:
    if setting("filter_wise", False):
        raise InputError("filter_wise model_stock is not done here; leave filter_wise out")
    return _mergekit_rules.ModelStock()


def _passthrough(setting: Lookup, members: Sequence[_Source]) -> Rule:
    scale = setting("scale", None, members[0])
    return _mergekit_rules.Passthrough(scale=None if scale is None else _number(scale, "scale"))


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


def _found(path: str, folder: Path | None) -> Any:
    """The path of a model; mergekit's paths are relative to the working directory, or are hub names."""
    if Path(path).exists():
        return path
    if folder is not None and (folder / path).exists():
        return located(path, folder)
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


def _required(setting: Lookup, key: str) -> float:
    value = setting(key)
    if value is None:
        raise InputError(f"parameters name no {key}; give it")
    return _number(value, key)


def _number(value: Any, key: str) -> float:
    value = _read(value)  # YAML reads 1e-5 as a text
    if not checks.is_finite(value):
        raise InputError(f"{key}: {checks.shown(value)} is no number")
    return float(value)
