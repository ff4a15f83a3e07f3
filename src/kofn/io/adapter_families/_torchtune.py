"""Adapters of torchtune: `<module>.lora_a.weight` (r, in), `.lora_b.weight` (out, r), `.magnitude`; scale alpha / r."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.arrays import Array
from kofn.core.checks import InputError, is_number, shown
from kofn.io.adapter_families._family import CONFIG, Family, Parts, Saved, gather, matching, of_one_rank
from kofn.io.adapter_families._peft import check_names, module_names
from kofn.io.adapter_families._peft_settings import scale_of
from kofn.io.low_rank import Pair

_NAME = re.compile(r"(?P<module>.+)\.(?P<part>lora_a\.weight|lora_b\.weight|magnitude)")
_FACTOR = re.compile(r".+\.lora_[ab]\.weight")


class Torchtune(Family):
    """pytorch/torchtune, under the names that its own models have."""

    name = "torchtune"
    weights = "adapter_model.safetensors"
    configured = True
    kinds = frozenset({"linear"})

    def owns(self, saved: Saved) -> bool:
        return any(map(_FACTOR.fullmatch, saved.tensors))

    def read(self, saved: Saved) -> Parts:
        pairs = {}
        for module, parts in gather(saved, self.name, _NAME).items():
            factors = parts.get("lora_a.weight"), parts.get("lora_b.weight")
            A, B, kind = matching(saved, module, *factors, ("lora_a", "lora_b"))
            scale = scale_of(saved.config, module, A.shape[0], saved.label)
            pairs[module] = Pair.of(module, A, B, scale, kind, magnitude=parts.get("magnitude"))
        return Parts(pairs)

    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        self.refuse_parts(parts)
        rank, factors = of_one_rank(parts.pairs.values())
        tensors: dict[str, Array] = {}
        for module, (A, B) in factors.items():
            tensors |= {f"{module}.lora_a.weight": A, f"{module}.lora_b.weight": B}
        targets = sorted({leaf for member in members for leaf in module_names(member.config, "target_modules")})
        config = {**members[0].config, "r": rank, "lora_alpha": rank}
        return Saved(tensors, {**config, "target_modules": targets} if targets else config, label="the sum")

    def check_config(self, config: Mapping[str, Any], label: str) -> None:
        check_names(config, "target_modules", label)
        for name in ("r", "lora_alpha"):
            if not is_number(config.get(name)):
                raise InputError(f"{label}: {CONFIG} has {name}={shown(config.get(name))}; it must give a number")
