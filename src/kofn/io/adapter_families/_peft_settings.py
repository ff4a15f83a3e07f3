"""What PEFT's configuration says of a module: ranks, alphas and scales, by pattern or for all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from kofn.core.checks import InputError, is_finite, shown
from kofn.io.adapter_families._family import CONFIG
from kofn.io.module_names import PREFIX


def setting_of(config: Mapping[str, Any], pattern: str, module: str, key: str) -> Any:
    """A setting of a module: by the pattern, else the one of all."""
    return by_pattern(config.get(pattern), module.removeprefix(PREFIX), config.get(key))


def scale_of(config: Mapping[str, Any], module: str, rank: int, label: str) -> float:
    """What PEFT multiplies `B @ A` of a module by; 1 without a `lora_alpha`."""
    configured = setting_of(config, "rank_pattern", module, "r")
    if configured is not None and configured != rank:
        raise InputError(
            f"{label}: {CONFIG} gives {module!r} the rank {shown(configured)}, its factors have {rank}; "
            "configuration and tensors are of different adapters"
        )
    alpha = setting_of(config, "alpha_pattern", module, "lora_alpha")
    if alpha is None:
        return 1.0
    if not is_finite(alpha):
        raise InputError(f"{label}: lora_alpha of {module!r} is {shown(alpha)}; give a finite number")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def by_pattern(pattern: Any, name: str, default: Any) -> Any:
    """The value of the first key that matches the name or its end after a dot, as PEFT looks it up."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default
