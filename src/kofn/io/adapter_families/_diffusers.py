"""Files of diffusers: `pytorch_lora_weights.safetensors`, in the three spellings it has had.

Modules begin with the part of the pipeline (`unet.`, `transformer.`, `text_encoder.`). The scale is 1, unless there are
alphas, or settings of PEFT by part in the file's metadata (`lora_adapter_metadata`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.arrays import Array
from kofn.core.checks import FailureError, InputError
from kofn.io.adapter_families._family import (
    DIFFUSERS,
    Family,
    Parts,
    Saved,
    alpha_of,
    differences_of,
    matching,
    refuse_stranger,
)
from kofn.io.adapter_families._peft import check_settings, patterns, spelt_by_diffusers, variants
from kofn.io.adapter_families._peft_settings import scale_of
from kofn.io.json_text import parsed
from kofn.io.low_rank import Pair

_NAME = re.compile(
    r"(?P<module>.+?)(?P<spelling>_lora|\.lora|\.lora_linear_layer)\.(?P<way>down|up)\.weight"
    r"|(?P<peft>.+?)\.(lora_(?P<half>[AB])\.weight|lora_B\.(?P<bias>bias)|"
    r"(?P<magnitude>lora_magnitude_vector)(\.weight)?)"
)
_OLD = re.compile(r".+?(_lora|\.lora|\.lora_linear_layer)\.(down|up)\.weight")
_ALPHA = re.compile(r"(?P<module>.+?)(_lora|\.lora|\.lora_linear_layer|\.lora_A)?(\.down)?(\.weight)?\.alpha")
# What the layers were called before each adapter was a module of its own.
_TEXT_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_NONE: dict[str, Any] = {"use_dora": False, "use_rslora": False, "lora_bias": False, "init_lora_weights": True}


class Diffusers(Family):
    """Hugging Face diffusers."""

    name = "diffusers"
    weights = "pytorch_lora_weights.safetensors"
    names = "part"

    def owns(self, saved: Saved) -> bool:
        return any(map(_OLD.fullmatch, saved.tensors)) or spelt_by_diffusers(saved)

    def read(self, saved: Saved) -> Parts:
        modules: dict[str, dict[str, Array]] = {}
        names: dict[str, dict[str, str]] = {}
        alphas: dict[str, Array] = {}
        differences, factors = differences_of(saved)
        for name, array in factors.tensors.items():
            if match := _ALPHA.fullmatch(name):
                alphas[_current(match["module"])] = array
            elif match := _NAME.fullmatch(name):
                module = match["peft"] or _current(match["module"], match["spelling"])
                part = match["half"] or match["bias"] or match["magnitude"] or {"down": "A", "up": "B"}[match["way"]]
                modules.setdefault(module, {})[part] = array
                names.setdefault(module, {})[part] = name
            else:
                refuse_stranger(saved, self.name, name)
        settings = _settings(saved)
        if alphas and settings:
            raise InputError(
                f"{saved.label} has alphas and {DIFFUSERS} too, which diffusers refuses; remove one of them"
            )
        if lone := alphas.keys() - modules.keys():
            raise InputError(f"{saved.label}: alpha of {min(lone)!r} belongs to no factors; save the adapter again")
        pairs = {}
        for module, parts in modules.items():
            A, B, kind = matching(saved, module, parts.get("A"), parts.get("B"))
            rank = A.shape[0]
            scale = alpha_of(saved, module, alphas.get(module), float(rank)) / rank
            part, own = _part_settings(module, settings)
            if own:
                check_settings(own, saved.label)
                scale = scale_of(own, module.removeprefix(part), rank, saved.label)
            extras = parts.get("bias"), parts.get("lora_magnitude_vector")
            pairs[module] = Pair.of(module, A, B, scale, kind, *extras)
        spellings = {module: (own["A"], own["B"]) for module, own in names.items()}
        return Parts(pairs, {}, spellings, differences=differences)

    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        self.refuse_parts(parts)
        tensors: dict[str, Array] = {}
        for module, pair in parts.pairs.items():
            names = parts.spellings.get(module, (f"{module}.lora_A.weight", f"{module}.lora_B.weight"))
            tensors |= dict(zip(names, (pair.A, pair.B), strict=True))
        kept = {key: value for key, value in members[0].metadata.items() if key not in (DIFFUSERS, "format")}
        return Saved(tensors, {}, kept | _written_settings(parts, members[0]), "the sum")

    def nonlinear(self, saved: Saved) -> list[str]:
        settings = _settings(saved)
        parts = dict.fromkeys(name.partition(".")[0] for name in saved.tensors) if settings else ()
        return [reason for part in parts for reason in variants(_part_settings(f"{part}.", settings)[1])]


def _current(module: str, spelling: str = "") -> str:
    """The module's name today, from `...attn1.processor.to_q_lora` and the like."""
    module = module.replace(".processor.", ".")
    stem, _, leaf = module.rpartition(".")
    if spelling == "_lora" and leaf in _TEXT_LAYERS:
        if module.startswith("text_encoder"):
            return f"{stem}.{_TEXT_LAYERS[leaf]}"
        return f"{module}.0" if leaf == "to_out" else module
    return module


def _settings(saved: Saved) -> dict[str, Any]:
    """PEFT's settings, with the part of the pipeline before each key."""
    text = saved.metadata.get(DIFFUSERS)
    if text is None:
        return {}
    try:
        settings = parsed(text)
    except ValueError as error:
        raise FailureError(f"{saved.label}: {DIFFUSERS} is not readable as JSON ({error}); save it again") from error
    if not isinstance(settings, dict):
        raise FailureError(f"{saved.label}: {DIFFUSERS} is not a JSON object; save it again")
    return settings


def _part_settings(module: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The prefix of the module's part of the pipeline, and the settings of that part."""
    part = module.partition(".")[0] + "."
    own = {key.removeprefix(part): value for key, value in settings.items() if key.startswith(part)}
    # A model that was saved alone has settings without a prefix.
    return (part, own) if own else ("", dict(settings))


def _written_settings(parts: Parts, first: Saved) -> dict[str, str]:
    """Settings under which diffusers scales by 1; needed where ranks differ, or where the first file had settings."""
    known = _settings(first)
    ranks: dict[str, dict[str, int]] = {}
    for module, pair in parts.pairs.items():
        part = _part_settings(module, known)[0] if known else module.partition(".")[0] + "."
        ranks.setdefault(part, {})[module.removeprefix(part)] = pair.rank
    if not known and all(len(set(own.values())) == 1 for own in ranks.values()):
        return {}
    out = dict(known)
    for part, own in ranks.items():
        usual, pattern = patterns(own)
        settings = {
            **_NONE,
            "r": usual,
            "lora_alpha": usual,
            "rank_pattern": pattern,
            "alpha_pattern": dict(pattern),
            "target_modules": sorted(own),
        }
        out |= {f"{part}{key}": value for key, value in settings.items()}
    return {DIFFUSERS: json.dumps(out, indent=2, sort_keys=True)}
