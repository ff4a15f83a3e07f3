"""Translate mergekit recipes: one method with scalar parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kofn.combination.recipes._recipe import Part, Recipe, located, refuse_unknown
from kofn.core import checks
from kofn.core.checks import InputError, nearest

# mergekit's names, ours, and the differences.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("weighted_mean", {}),
    "slerp": ("slerp", {}),
    "task_arithmetic": ("task_arithmetic", {"normalize": False}),
    "ties": ("ties", {}),
    "dare_linear": ("dare", {"normalize": False}),
    "dare_ties": ("dare", {"consensus": "ties"}),
}
# Parameters of a model; gamma and epsilon belong to methods that are not supported.
_OF_A_MODEL = ("weight", "density", "gamma", "epsilon")


@dataclass
class _Reading:
    """State of reading a recipe, key by key."""

    merge_method: str
    method: str
    options: dict[str, Any]
    base: Any = None
    members: list[Any] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    densities: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_mergekit(content: Mapping[str, Any], folder: Path | None) -> Recipe:
    """A mergekit recipe of one method with scalar parameters.

    Raises:
        InputError: mergekit features that are not supported, by name.
    """
    refuse_unknown(content, ("merge_method", *_KEYS), "a mergekit recipe read here")
    merge_method = content["merge_method"]
    if merge_method not in METHODS:
        near = nearest(str(merge_method), METHODS)
        raise InputError(f"merge_method {merge_method!r} is not read{near}; {', '.join(METHODS)} are")
    method, options = METHODS[merge_method]
    reading = _Reading(merge_method, method, dict(options), content.get("base_model"))
    for key, read in _KEYS.items():
        read(reading, key, content.get(key))
    if reading.densities:
        if len(set(reading.densities)) > 1:
            raise InputError(f"densities {reading.densities} differ between models; one density for all is done here")
        reading.options["density"] = reading.densities[0]
    base = None if method in ("slerp", "weighted_mean") else reading.base
    return Recipe(
        tuple(_found(member, folder) for member in reading.members),
        (Part(method, reading.weights, reading.options),),
        None if base is None else _found(base, folder),
        tuple(reading.notes),
    )


def _dtype(reading: _Reading, key: str, value: Any) -> None:
    if value:
        reading.notes.append(f"{key}: the output keeps the members' dtype")


def _tokenizer(_reading: _Reading, _key: str, value: Any) -> None:
    if value not in (None, "base"):
        raise InputError("tokenizer_source is not read: tokenizers are copied, not merged; take the line out")


def _base_model(reading: _Reading, _key: str, value: Any) -> None:
    reading.base = value


def _models(reading: _Reading, _key: str, value: Any) -> None:
    for model in value or ():
        refuse_unknown(model, ("model", "parameters"), "a model of the recipe")
        parameters = model.get("parameters") or {}
        if model.get("model") == reading.base and reading.method != "slerp" and not parameters:
            continue  # mergekit lists the base among the models
        refuse_unknown(parameters, _OF_A_MODEL, f"model {model.get('model')}", "parameter that is read")
        reading.members.append(model["model"])
        reading.weights.append(_scalar(parameters.get("weight", 1.0), "weight"))
        if "density" in parameters:
            reading.densities.append(_scalar(parameters["density"], "density"))
    if not reading.members:
        raise InputError("models is empty; list at least one")


def _parameters(reading: _Reading, _key: str, value: Any) -> None:
    for name, setting in (value or {}).items():
        if name not in _PARAMETERS or (name == "t" and reading.method != "slerp"):
            raise InputError(f"parameter {name!r} of {reading.merge_method} is not read; take it out")
        _PARAMETERS[name](reading, name, setting)


def _position(reading: _Reading, key: str, value: Any) -> None:
    t = _scalar(value, key)
    if reading.base == reading.members[-1]:
        reading.members.reverse()
    reading.weights = [1 - t, t]


def _scale(reading: _Reading, key: str, value: Any) -> None:
    reading.options["scale"] = _scalar(value, key)


def _density(reading: _Reading, key: str, value: Any) -> None:
    reading.densities.append(_scalar(value, key))


def _weight(reading: _Reading, key: str, value: Any) -> None:
    reading.weights = [_scalar(value, key)] * len(reading.members)


def _normalize(reading: _Reading, _key: str, value: Any) -> None:
    if reading.method in ("weighted_mean", "task_arithmetic", "dare") and "consensus" not in reading.options:
        reading.options["normalize"] = bool(value)
    elif not value:
        raise InputError(
            f"normalize: false is not done for {reading.merge_method}; the mean is over the members that agree"
        )


def _without_effect(_reading: _Reading, _key: str, _value: Any) -> None:
    """Ignore settings that control mergekit's execution and do not change the blend."""


_Handler = Callable[[_Reading, str, Any], None]
# In reading order: models and parameters depend on the keys before them.
_KEYS: dict[str, _Handler] = {
    "dtype": _dtype,
    "out_dtype": _dtype,
    "tokenizer_source": _tokenizer,
    "base_model": _base_model,
    "models": _models,
    "parameters": _parameters,
}
_PARAMETERS: dict[str, _Handler] = {
    "t": _position,
    "lambda": _scale,
    "density": _density,
    "weight": _weight,
    "normalize": _normalize,
    **dict.fromkeys(("int8_mask", "allow_crimes", "lazy_unpickle", "rescale"), _without_effect),
}


def _found(path: Any, folder: Path | None) -> Any:
    """The path of a model; mergekit's paths are relative to the working directory, or are hub names."""
    if Path(path).exists():
        return path
    if folder is not None and (folder / path).exists():
        return located(path, folder)
    raise InputError(f"model {path!r} is no folder here; download it first and give its path")


def _scalar(value: Any, name: str) -> float:
    if isinstance(value, list):
        raise InputError(
            f"{name}: {value!r} changes by layer or tensor, which is not read; write a recipe with tensors"
        )
    return float(checks.number(value, name))
