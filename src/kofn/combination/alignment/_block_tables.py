"""Tables of tensor names: the groups of units of Llama and GPT-style blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kofn.core import checks
from kofn.core.checks import InputError


@dataclass(frozen=True, slots=True)
class Row:
    pattern: str
    axis: int
    sections: int = 1
    fine: bool = False
    incoming: bool | None = None

    @property
    def computes(self) -> bool:
        return self.axis == 0 if self.incoming is None else self.incoming


def _both(stem: str, axis: int, **known: Any) -> list[Row]:
    """A layer's outputs: its weight's axis, and its bias."""
    return [Row(f"{stem}.weight", axis, incoming=True, **known), Row(f"{stem}.bias", 0, incoming=True, **known)]


_LLAMA: dict[str, list[Row]] = {
    "residual": [
        Row("*embed_tokens.weight", 1, incoming=True),
        Row("*layers.{*}.*layernorm.weight", 0),
        *(Row(f"*layers.{{*}}.self_attn.{part}_proj.weight", 1) for part in "qkv"),
        *_both("*layers.{*}.self_attn.o_proj", 0),
        *(Row(f"*layers.{{*}}.mlp.{part}_proj.weight", 1) for part in ("gate", "up")),
        *_both("*layers.{*}.mlp.down_proj", 0),
        Row("model.norm.weight", 0),
        Row("norm.weight", 0),
        Row("lm_head.weight", 1),
    ],
    "layers.{}.mlp": [
        *_both("*layers.{}.mlp.gate_proj", 0),
        *_both("*layers.{}.mlp.up_proj", 0),
        Row("*layers.{}.mlp.down_proj.weight", 1),
    ],
    "layers.{}.heads": [
        *_both("*layers.{}.self_attn.q_proj", 0, fine=True),
        *_both("*layers.{}.self_attn.k_proj", 0),
        *_both("*layers.{}.self_attn.v_proj", 0),
        Row("*layers.{}.self_attn.o_proj.weight", 1, fine=True),
    ],
}


def _gpt(out: int) -> dict[str, list[Row]]:
    """GPT-2's blocks; `out` is the axis of a weight's outputs: 1 as published, 0 where the layers are linear ones."""
    into = 1 - out
    return {
        "residual": [
            Row("*wte.weight", 1, incoming=True),
            Row("*wpe.weight", 1, incoming=True),
            *(row for norm in ("ln_1", "ln_2") for row in _both(f"*h.{{*}}.{norm}", 0)),
            Row("*h.{*}.attn.c_attn.weight", into, incoming=False),
            *_both("*h.{*}.attn.c_proj", out),
            Row("*h.{*}.mlp.c_fc.weight", into, incoming=False),
            *_both("*h.{*}.mlp.c_proj", out),
            *_both("*ln_f", 0),
            Row("lm_head.weight", 1),
        ],
        "h.{}.mlp": [*_both("*h.{}.mlp.c_fc", out), Row("*h.{}.mlp.c_proj.weight", into, incoming=False)],
        "h.{}.heads": [
            *_both("*h.{}.attn.c_attn", out, sections=3),
            Row("*h.{}.attn.c_proj.weight", into, incoming=False),
        ],
    }


TABLES: dict[str, dict[str, list[Row]]] = {"llama": _LLAMA, "gpt2": _gpt(1), "nanogpt": _gpt(0)}
# Tensors without permutable axes.
FIXED = {
    "llama": ("*rotary_emb.inv_freq", "*self_attn.q_norm.weight", "*self_attn.k_norm.weight", "lm_head.bias"),
    "gpt2": ("*attn.bias", "*attn.masked_bias"),
    "nanogpt": ("*attn.bias", "*attn.masked_bias"),
}


def heads_of(heads: Any, config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(query heads, key/value heads), as they are given or as the configuration has them; None where neither is."""
    if heads is None:
        query = config.get("num_attention_heads", config.get("n_head"))
        if not isinstance(query, int):
            return None
        heads = (query, config.get("num_key_value_heads") or query)
    pair = (heads, heads) if checks.is_number(heads) else tuple(heads) if isinstance(heads, Sequence) else ()
    if len(pair) != 2 or isinstance(heads, str):
        raise InputError(f"heads={checks.shown(heads)}: give the number of heads, or (query heads, key/value heads)")
    query, shared = (checks.count(number, "heads") for number in pair)
    if query % shared:
        raise InputError(f"heads={heads!r}: {query} query heads are not shared evenly by {shared} key/value heads")
    return query, shared
