"""The configuration of a sum of adapters, as PEFT reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kofn.io.adapters import PREFIX, Pair, patterns

# Settings that determine the meaning of the tensors, and so must agree.
MUST_AGREE = ("fan_in_fan_out", "layer_replication", "trainable_token_indices")
# Settings that select the adapted modules; if members differ, the modules of the sum are listed.
PLACEMENT_KEYS = ("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules")

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


def config_of(pairs: Sequence[Pair], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration of a sum with these pairs, all of scale 1.

    Args:
        pairs: the pairs of the sum.
        configs: configurations of the members of non-zero weight; other settings are taken from the first.
    """
    usual, pattern = patterns({pair.module: pair.rank for pair in pairs})
    saved = sorted({name for config in configs for name in config.get("modules_to_save") or ()})
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
    differ = any(config.get(key) != configs[0].get(key) for config in configs for key in PLACEMENT_KEYS)
    if not differ and configs[0].get("target_modules"):
        return {}
    names = sorted(pair.module.removeprefix(PREFIX) for pair in pairs)
    known = {*_DEFAULTS, *configs[0]}
    return {**{key: None for key in PLACEMENT_KEYS if key in known}, "target_modules": names}


def _biases(configs: Sequence[Mapping[str, Any]]) -> str:
    kinds = {config.get("bias") or "none" for config in configs} - {"none"}
    return "none" if not kinds else str(kinds.pop()) if len(kinds) == 1 else "all"
