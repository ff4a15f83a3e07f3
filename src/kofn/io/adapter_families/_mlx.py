"""Adapters of mlx-lm: `adapters.safetensors` with `<module>.lora_a` (in, r) and `.lora_b` (r, out), transposed factors.

The scale is `lora_parameters.scale` of `adapter_config.json`, not divided by the rank. DoRA's `m` is of the rows of the
weight, a table's too. With `fine_tune_type: full` the tensors are the model's own, trained in full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError, is_finite, is_number, shown
from kofn.io.adapter_families._family import CONFIG, DORA, Family, Parts, Saved, gather, matching, of_one_rank
from kofn.io.low_rank import Pair

_NAME = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")
_FACTOR = re.compile(r".+\.lora_[ab]")
_EMBEDDING = re.compile(r"(^|[._])(embed\w*|wte|wpe)$")  # tables, of which the factors are `(rows, r)` and `(r, width)`
_BLOCK = re.compile(r"(.*\.)?(layers|h|blocks)\.\d+\.")


class Mlx(Family):
    """ml-explore/mlx-lm."""

    name = "MLX"
    weights = "adapters.safetensors"
    configured = True
    kinds = frozenset({"linear", "embedding"})

    def owns(self, saved: Saved) -> bool:
        return _in_full(saved.config) or any(map(_FACTOR.fullmatch, saved.tensors))

    def read(self, saved: Saved) -> Parts:
        if _in_full(saved.config):
            return Parts({}, dict(saved.tensors))
        pairs = {}
        for module, parts in gather(saved, self.name, _NAME).items():
            a, b = parts.get("lora_a"), parts.get("lora_b")
            if a is not None and a.ndim == 3:
                raise InputError(
                    f"{saved.label}: module {module!r} holds factors of several experts in one; fold that adapter into "
                    "its base with its own trainer first"
                )
            A, B, kind = matching(saved, module, _turned(a), _turned(b), ("lora_a", "lora_b"))
            if _EMBEDDING.search(module):
                kind = "embedding"
            scale = _scale(saved.config, A.shape[0], saved.label)
            pair = Pair.of(module, A, B, scale, kind, magnitude=parts.get("m"))
            pairs[module] = replace(pair, on_inputs=kind == "embedding")
        return Parts(pairs)

    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        self.refuse_parts(parts)
        rank, factors = of_one_rank(parts.pairs.values())
        tensors: dict[str, Array] = {}
        for module, (A, B) in factors.items():
            tensors[f"{module}.lora_a"] = np.ascontiguousarray(A.T)
            tensors[f"{module}.lora_b"] = np.ascontiguousarray(B.T)
        layers = [member.config.get("num_layers") for member in members]
        counts = [count for count in layers if isinstance(count, int)]
        first = members[0].config
        known = first.get("lora_parameters")
        parameters = {key: value for key, value in (known or {}).items() if key != "alpha"}
        config = {
            "fine_tune_type": "lora",
            **first,
            # Less than one layer is all of them.
            "num_layers": max(counts) if counts and min(counts) > 0 else -1,
            "lora_parameters": {
                "dropout": 0.0,
                **parameters,
                "rank": rank,
                "scale": 1.0,
                "keys": sorted({_BLOCK.sub("", module, count=1) for module in parts.pairs}),
            },
        }
        return Saved(tensors, config, label="the sum")

    def check_config(self, config: Mapping[str, Any], label: str) -> None:
        if _in_full(config):
            return
        parameters = config.get("lora_parameters")
        if not isinstance(parameters, dict):
            raise InputError(f"{label}: {CONFIG} has lora_parameters={parameters!r}; it must hold rank and scale")
        if not any(is_number(parameters.get(name)) for name in ("scale", "alpha")):
            raise InputError(f"{label}: {CONFIG} has no scale in lora_parameters; it must give a number")

    def nonlinear(self, saved: Saved) -> list[str]:
        return [DORA] if saved.config.get("fine_tune_type") == "dora" else []


def _in_full(config: Mapping[str, Any]) -> bool:
    return config.get("fine_tune_type") == "full"


def _turned(factor: Array | None) -> Array | None:
    return None if factor is None else factor.T


def _scale(config: Mapping[str, Any], rank: int, label: str) -> float:
    parameters = config.get("lora_parameters") or {}
    for name in ("scale", "alpha"):
        number = parameters.get(name)
        if number is not None and not is_finite(number):
            raise InputError(f"{label}: {name} in lora_parameters is {shown(number)}; give a finite number")
    configured = parameters.get("rank")
    if configured is not None and configured != rank:
        raise InputError(
            f"{label}: {CONFIG} gives the rank {configured}, the factors have {rank}; configuration and tensors are of "
            "different adapters"
        )
    scale, alpha = parameters.get("scale"), parameters.get("alpha")
    if scale is None:
        return 1.0 if alpha is None else float(alpha) / rank
    if alpha is not None and alpha != rank:
        product = float(scale) * float(alpha) / rank
        raise InputError(
            f"{label}: lora_parameters has scale={shown(scale)} and alpha={shown(alpha)}: the first releases of "
            f"mlx-lm scaled by scale * alpha / rank = {product:g}, today's by scale; leave in only a scale"
        )
    return float(scale)
