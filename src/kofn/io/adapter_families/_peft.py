"""PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`.

The scale is `alpha / r` or `alpha / sqrt(r)` (rsLoRA), with ranks and alphas by pattern; embeddings have factors of
names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError, is_number, shown
from kofn.io.adapter_families._family import CONFIG, DIFFUSERS, DORA, EXPERTS, Family, Parts, Saved, matching
from kofn.io.adapter_families._peft_products import read_products
from kofn.io.adapter_families._peft_settings import by_pattern, scale_of
from kofn.io.low_rank import Pair
from kofn.io.module_names import PREFIX, split

_NAME = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<linear>[AB])\.(?P<what>weight|bias)|lora_embedding_(?P<embedding>[AB])"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?)"
)
_FACTOR = re.compile(r"(?P<module>.+?)\.lora_([AB](\.[^.]+)?\.weight|embedding_[AB](\.[^.]+)?)")
# The name of an adapter, which a model's own state dict has and what PEFT saves has not.
_INSIDE = re.compile(
    r"(?P<lead>.+\.(lora_(embedding_)?[AB]|lora_magnitude_vector|(?P<saved>modules_to_save)))"
    r"\.(?P<adapter>(?!weight$|bias$)[^.]+)(?P<end>(\.(weight|bias))?|(?(saved)(\..+)?))"
)
_ROWS = re.compile(r"(?P<module>.+?)\.token_adapter\.trainable_tokens_(?P<what>delta|original)(\.\w+)?")
# Starts that leave the base model as it was; the others (PiSSA, OLoRA, CorDA, LoftQ, ...) take part of it away.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# Settings under which the adapter does more, or something else, than adding `scale * B @ A`.
_VARIANTS = {
    "use_qalora": "QA-LoRA pools its inputs",
    "alora_invocation_tokens": "activated LoRA acts only after its own tokens",
    "velora_config": "VeLoRA is not a plain pair of factors",
    "monteclora_config": "MonteCLoRA is not a plain pair of factors",
    "arrow_config": "an arrow router is not a sum of adapters",
    "target_parameters": EXPERTS,
}
# Settings that select the adapted modules; if members differ, the modules of the sum are listed.
_PLACEMENT = ("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules")
# Types of PEFT that LyCORIS has too, and those that change no weights: there is nothing to fold.
_PRODUCTS = ("LOHA", "LOKR")
_NO_WEIGHTS = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
    *("ADAPTION_PROMPT", "XLORA", "POLY"),
)
_DEFAULTS = {
    "peft_type": "LORA",
    "task_type": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "target_modules": None,
    "use_dora": False,
}


class Peft(Family):
    """Hugging Face PEFT."""

    name = "PEFT"
    weights = "adapter_model.safetensors"
    configured = True
    kinds = frozenset({"linear", "conv", "embedding", "grouped conv"})

    def owns(self, saved: Saved) -> bool:
        return any(map(_FACTOR.fullmatch, saved.tensors)) and not spelt_by_diffusers(saved)

    def read(self, saved: Saved) -> Parts:
        kind = saved.config.get("peft_type", "LORA")
        if kind in _PRODUCTS:
            products, others = read_products(saved)
            _, full = _halves(replace(saved, tensors=others))
            if not products:
                raise InputError(f"{saved.label} holds no factors of {kind}; save the adapter again")
            return Parts(products, full)
        if kind != "LORA":
            raise InputError(f"{saved.label} is of type {kind!r}; {_way_out(kind)}")
        saved = _without_name(saved)
        halves, full = _halves(saved)
        if not halves:
            raise InputError(f"{saved.label} holds no lora_A and lora_B; give LoRA adapters")
        pairs = {module: _pair(saved, module, parts) for module, parts in halves.items()}
        return Parts(pairs, full, rows=_rows(saved))

    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        pairs = list(parts.pairs.values())
        if any(pair.bias is not None for pair in pairs):
            # PEFT gives either every module such a bias or none.
            pairs = [
                pair if pair.bias is not None else replace(pair, bias=np.zeros(pair.out, pair.B.dtype))
                for pair in pairs
            ]
        tensors = {name: array for pair in pairs for name, array in named(pair).items()}
        for name, array in parts.full.items():
            module, _, leaf = name.rpartition(".")
            tensors[f"{module}.base_layer.{leaf}" if module in parts.pairs else name] = array
        # Settings of other families are not PEFT's.
        configs = [member.config if self.owns(member) else {} for member in members]
        return Saved(tensors, config_of(pairs, configs), label="the sum")

    def check_config(self, config: Mapping[str, Any], label: str) -> None:
        check_settings(config, label)

    def nonlinear(self, saved: Saved) -> list[str]:
        return variants(saved.config)


def _way_out(kind: Any) -> str:
    """What to do with an adapter of a type that is no pair of factors."""
    if kind in _NO_WEIGHTS:
        return (
            "it adds inputs or routes between modules and is no change of weights, so that there is nothing to blend "
            "or fold; use it with PEFT, beside its base"
        )
    return (
        "LORA, LOHA and LOKR are read as pairs of factors: merge this one into its base with PEFT "
        "(PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(out)), then give that model"
    )


def check_settings(config: Mapping[str, Any], label: str) -> None:
    """Refuse settings of PEFT that leave the scale open."""
    kind = config.get("peft_type", "LORA")
    if kind == "LORA" or kind in _PRODUCTS:
        for name in ("r", "lora_alpha" if kind == "LORA" else "alpha"):
            if not is_number(config.get(name)):
                raise InputError(f"{label}: {CONFIG} has {name}={shown(config.get(name))}; it must give a number")
    for name in ("modules_to_save", "target_parameters"):
        check_names(config, name, label)
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(name) or {}, dict):
            raise InputError(f"{label}: {CONFIG} has {name}={shown(config[name])}; it must map module names to numbers")
        for key in config.get(name) or {}:
            try:
                re.compile(key)
            except re.error as error:
                raise InputError(f"{label}: {CONFIG} has {name} key {key!r}, no regular expression ({error})") from None


def check_names(config: Mapping[str, Any], key: str, label: str) -> None:
    """Refuse a setting that lists no names of modules."""
    names = config.get(key) or ()
    if not isinstance(names, str | list | tuple | set) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{label}: {CONFIG} has {key}={shown(names)}; it must list names of modules")


def module_names(config: Mapping[str, Any], key: str) -> list[str]:
    """The names of modules that a checked setting lists; a single one may stand alone."""
    names = config.get(key) or []
    return [names] if isinstance(names, str) else list(names)


def variants(config: Mapping[str, Any]) -> list[str]:
    """Reasons in PEFT's settings why an adapter is not a sum of `scale * B @ A` over an unchanged base."""
    reasons = [why for name, why in _VARIANTS.items() if config.get(name)]
    if config.get("use_dora"):
        reasons.append(DORA)
    start = config.get("init_lora_weights")
    if not any(start is unchanged or start == unchanged for unchanged in _PLAIN_STARTS):
        reasons.append(
            f"init_lora_weights={start!r} changed the base that it was trained on: convert it to plain LoRA first, in "
            "PEFT by model.save_pretrained(OUT, path_initial_model_for_weight_conversion=INITIAL), INITIAL the adapter "
            "as saved before training"
        )
    return reasons


def spelt_by_diffusers(saved: Saved) -> bool:
    """Whether factors that are spelt as PEFT's are of a file that diffusers saved: each names its part of the model."""
    if saved.config:
        return False
    modules = [match["module"] for name in saved.tensors if (match := _FACTOR.fullmatch(name))]
    return bool(modules) and (
        DIFFUSERS in saved.metadata
        or all(split(module)[0] != "model" and not module.startswith(PREFIX) for module in modules)
    )


def named(pair: Pair) -> dict[str, Array]:
    """The tensors of a pair under the names that PEFT gives them."""
    module = pair.module
    if pair.kind == "embedding":
        return {f"{module}.lora_embedding_A": pair.A, f"{module}.lora_embedding_B": pair.B}
    out = {f"{module}.lora_A.weight": pair.A, f"{module}.lora_B.weight": pair.B}
    return out if pair.bias is None else {**out, f"{module}.lora_B.bias": pair.bias}


def _without_name(saved: Saved) -> Saved:
    """The tensors without an adapter's name inside theirs.

    Raises:
        InputError: several adapters in one.
    """
    inside = {name: match for name in saved.tensors if (match := _INSIDE.fullmatch(name))}
    factors = [match["adapter"] for match in inside.values() if not match["saved"]]
    adapters = sorted(set(factors))
    if len(adapters) > 1:
        raise InputError(
            f"{saved.label} holds the adapters {adapters[0]!r} and {adapters[1]!r} in one; save each apart "
            "(model.save_pretrained(folder, selected_adapters=[name]))"
        )
    plain = {}
    for name, array in saved.tensors.items():
        match = inside.get(name)
        known = match is not None and match["adapter"] in adapters
        plain[f"{match['lead']}{match['end']}" if match is not None and known else name] = array
    return replace(saved, tensors=plain)


def _halves(saved: Saved) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
    """Module -> part -> tensor, and the tensors that are trained in full."""
    halves: dict[str, dict[str, Array]] = {}
    full: dict[str, Array] = {}
    for name, array in saved.tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            if ".lora_" in name or name.startswith("lora_"):
                raise InputError(
                    f"{saved.label}: tensor {name!r} is of no known LoRA form; give the names that PEFT saves, "
                    "such as 'layer.lora_A.weight'"
                )
            if ".original_module." in name or ".token_adapter." in name:
                continue  # the base's own, beside what was trained
            # The bias of a module that is targeted is saved under another name than that of one that is not.
            trained = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            if ".modules_to_save." in name or trained not in full:
                full[trained] = array
            continue
        parts = halves.setdefault(match["module"], {})
        if match["magnitude"]:
            parts["magnitude"] = array
        elif match["embedding"]:
            parts[match["embedding"]] = array
            parts["embedding"] = array
        else:
            parts[match["linear"] if match["what"] == "weight" else f"{match['linear']} bias"] = array
    return halves, full


def _rows(saved: Saved) -> dict[str, tuple[NDArray[np.int64], Array]]:
    """Name of a table -> the numbers of its rows that are trained, as the configuration lists them, and their values.

    PEFT calls the values a delta, and puts them in the place of the rows.
    """
    out = {}
    for name, array in saved.tensors.items():
        match = _ROWS.fullmatch(name)
        if match is None or match["what"] == "original":
            continue
        listed: Any = saved.config.get("trainable_token_indices")
        if isinstance(listed, dict):
            own = match["module"].removeprefix(PREFIX)
            listed = next((value for key, value in listed.items() if own == key or own.endswith(f".{key}")), None)
        if not isinstance(listed, list) or not all(type(number) is int and 0 <= number < 2**31 for number in listed):
            raise InputError(
                f"{saved.label}: {CONFIG} has trainable_token_indices={shown(listed)} for {name!r}; it must list the "
                "numbers of its rows"
            )
        if len(set(listed)) < len(listed) or array.ndim != 2 or len(array) != len(listed):
            raise InputError(
                f"{saved.label}: {name!r} has shape {array.shape} for {len(set(listed))} rows of "
                "trainable_token_indices; configuration and tensors are of different adapters"
            )
        out[f"{match['module']}.weight"] = (np.array(listed, np.int64), array)
    return out


def _pair(saved: Saved, module: str, parts: dict[str, Array]) -> Pair:
    A, B, kind = matching(saved, module, parts.get("A"), parts.get("B"))
    parameters = _parameters_of(saved.config, module) if kind == "linear" else []
    if parameters:
        rank = _one_setting(saved, parameters, "rank_pattern", "r")
        _one_setting(saved, parameters, "alpha_pattern", "lora_alpha")
        if type(rank) is int and 0 < rank < len(A) and len(A) % rank == 0:
            scale = scale_of(saved.config, parameters[0], rank, saved.label)
            return replace(Pair.of(module, A, B, scale, "experts"), experts=len(A) // rank)
    scale = scale_of(saved.config, parameters[0] if parameters else module, A.shape[0], saved.label)
    kind = "embedding" if "embedding" in parts else kind
    return Pair.of(module, A, B, scale, kind, parts.get("B bias"), parts.get("magnitude"))


def _parameters_of(config: Mapping[str, Any], module: str) -> list[str]:
    """The bare parameters of a module that are targeted; where there are several, their wrappers lie in one another."""
    own = re.sub(r"(\.base_layer)+$", "", module.removeprefix(PREFIX))
    targets = [target.rpartition(".") for target in module_names(config, "target_parameters")]
    return [f"{own}.{leaf}" for stem, _, leaf in targets if f".{own}".endswith(f".{stem}")]


def _one_setting(saved: Saved, parameters: Sequence[str], pattern: str, key: str) -> Any:
    """A setting that all parameters of a module have: names do not say which of them a pair of factors is of."""
    values = [by_pattern(saved.config.get(pattern), name, saved.config.get(key)) for name in parameters]
    if any(value != values[0] for value in values):
        raise InputError(
            f"{saved.label}: {pattern} gives {parameters[0]!r} {shown(values[0])} and others of its module other "
            "values, and which factors are whose their names do not say; merge it with PEFT first"
        )
    return values[0]


def patterns(ranks: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """The default rank, and the `rank_pattern` of the modules that differ, from which each module gets its own back."""
    counts: dict[int, int] = {}
    for rank in ranks.values():
        counts[rank] = counts.get(rank, 0) + 1
    usual = max(counts, key=lambda rank: (counts[rank], rank))
    names = {module.removeprefix(PREFIX): rank for module, rank in ranks.items()}
    pattern = {name: rank for name, rank in sorted(names.items()) if rank != usual}
    # A key also matches the end of a longer name, and its dots match anything; the first key that matches counts, and
    # files are saved with their keys sorted. Where that goes wrong, keys are anchored and spelt out.
    if all(by_pattern(pattern, name, usual) == rank for name, rank in names.items()):
        return usual, pattern
    return usual, {"^" + re.escape(name): rank for name, rank in pattern.items()}


def config_of(pairs: Sequence[Pair], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration of a sum with these pairs, all of scale 1.

    Args:
        pairs: the pairs of the sum.
        configs: configurations of the members of non-zero weight; other settings are taken from the first.
    """
    usual, pattern = patterns({pair.module: pair.rank for pair in pairs})
    saved = sorted({name for config in configs for name in module_names(config, "modules_to_save")})
    return {
        **_DEFAULTS,
        **configs[0],
        **_placement(pairs, configs),
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "use_rslora": False,
        "init_lora_weights": True,
        "lora_bias": any(pair.bias is not None for pair in pairs),
        "bias": _biases(configs),
        "modules_to_save": saved or None,
    }


def _placement(pairs: Sequence[Pair], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings that select the adapted modules, where the first member's do not apply to all."""
    differ = any(config.get(key) != configs[0].get(key) for config in configs for key in _PLACEMENT)
    if not differ and configs[0].get("target_modules"):
        return {}
    names = sorted(pair.module.removeprefix(PREFIX) for pair in pairs)
    known = {*_DEFAULTS, *configs[0]}
    return {**{key: None for key in _PLACEMENT if key in known}, "target_modules": names}


def _biases(configs: Sequence[Mapping[str, Any]]) -> str:
    kinds = {config.get("bias") or "none" for config in configs} - {"none"}
    return "none" if not kinds else str(kinds.pop()) if len(kinds) == 1 else "all"
