"""PEFT's own LoHa and LoKr: LyCORIS's factors in PEFT's folders, scaled by `alpha / r` of the configuration.

PEFT scales LoKr so where both factors are whole, too, which LyCORIS takes as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from kofn.core.arrays import Array
from kofn.io.adapter_families._family import Saved
from kofn.io.adapter_families._kohya import product_pair
from kofn.io.adapter_families._peft_settings import scale_of, setting_of
from kofn.io.low_rank import Pair

_FACTOR = re.compile(r"(?P<module>.+)\.(?P<part>hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2))")


def read_products(saved: Saved) -> tuple[dict[str, Pair], dict[str, Array]]:
    """Module -> pair, and the tensors that are no factors."""
    modules: dict[str, dict[str, Array]] = {}
    others: dict[str, Array] = {}
    for name, array in saved.tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            others[name] = array
        else:
            modules.setdefault(match["module"], {})[match["part"]] = array
    return {module: _pair(saved, module, parts) for module, parts in modules.items()}, others


def _pair(saved: Saved, module: str, parts: Mapping[str, Array]) -> Pair:
    pair = product_pair(saved, module, dict(parts))
    config = {**saved.config, "lora_alpha": saved.config.get("alpha")}
    rank = next((len(array) for part, array in parts.items() if part.endswith("_b")), None)
    if rank is None:
        rank = setting_of(config, "rank_pattern", module, "r")
    return replace(pair, scale=scale_of(config, module, rank, saved.label))
