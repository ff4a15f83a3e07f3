"""Where language models keep an embedding and the head that is tied to it, and what else a head of its own needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kofn.combination._sweep.tied import BIASED, SHARED, is_copy
from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.io.companions import first_config, tying
from kofn.io.quantised import scale_of
from kofn.io.tensors import Checkpoint

HEADS = re.compile(HEAD.pattern + r"|^(generator_lm_head|proj_out|decoder)\.weight$")
# The embedding of a language model, and what lies before both it and the head.
_TABLE = re.compile(
    r"(?P<outer>language_model\.)??((model|transformer|gpt_neox)\.)?((language_model|decoder|text_model)\.)?"
    r"(embed_tokens|wte|embed_in|word_embeddings)\.weight"
)
_MASKED = re.compile(r"(\w+\.)?embeddings\.(word|tok)_embeddings\.weight")
_GENERATES = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|MTModel|ForMaskedLM|ForPreTraining)$")
# Models that scale what goes into a tied head by the root of their width, and not what goes into one of its own.
_SCALED = ("t5", "longt5", "umt5")


@dataclass(frozen=True)
class Tie:
    """The embedding and the head of a base that ties them.

    Attributes:
        embedding, head: names of the tensors.
        stored: whether the base holds the head too, as a copy.
        copies: further names that tensors of the base need in a model that ties nothing: name -> the tensor's.
        scale: factor of a head of its own.
        unread: whether the model reads the table under those names only, so that a module put in its place is unused.
        settings: entries of the configuration that belong to a head of its own.
    """

    embedding: str
    head: str
    stored: bool
    copies: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    unread: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def tie_of(base: Any) -> Tie | None:
    """The tie of a base whose head can be written apart; None where there is none."""
    if not isinstance(base, Checkpoint):
        return None
    config = first_config([base.path])
    flags = tying(config)
    classes = config.get("architectures") or []
    generates = any(isinstance(name, str) and _GENERATES.search(name) for name in classes)
    # Without a flag the class decides, and one that generates text needs a head.
    if not (any(flags) if flags else generates) or (classes and not generates):
        return None
    tables = [name for name in base if EMBEDDING.search(name) and _is_table(name) and len(base[name].shape) == 2]
    heads = [name for name in base if HEADS.search(name) and name.endswith(".weight")]
    if len(tables) != 1 or len(heads) > 1 or (heads and not is_copy(base, heads[0])):
        return None
    tie, scale = _layout(base, config, tables[0], heads[0] if heads else None), scale_of(base, tables[0])
    if tie is None or tie.stored or scale is None:
        return tie
    own = tie.head.removesuffix("weight") + scale.removeprefix(tie.embedding.removesuffix("weight"))
    return replace(tie, copies={**tie.copies, own: scale})


def _is_table(name: str) -> bool:
    return bool(_TABLE.fullmatch(name) or _MASKED.fullmatch(name)) or name in (SHARED, "model." + SHARED)


def _layout(base: Checkpoint, config: Mapping[str, Any], table: str, head: str | None) -> Tie | None:
    stored = head is not None
    if table.endswith(SHARED):
        return _shared(config, table, head)
    if config.get("model_type") == "whisper":
        return Tie(table, head or "proj_out.weight", stored)
    if _MASKED.fullmatch(table):
        biased = next((names for names in BIASED if names[0] in base and (head or names[1]) == names[1]), None)
        if biased is None:
            return None
        bias, head, again = biased
        return Tie(table, head, stored, {} if again is None or again in base else {again: bias})
    match = _TABLE.fullmatch(table)
    if match is None or (head is None and any(HEAD.search(name) for name in base)):
        return None
    leaf = "embed_out" if "embed_in." in table else "lm_head"
    return Tie(table, head or f"{match['outer'] or ''}{leaf}.weight", stored)


def _shared(config: Mapping[str, Any], table: str, head: str | None) -> Tie | None:
    """The tie of a model of encoder and decoder, each of which has the table as a module of its own."""
    stored, head = head is not None, head or "lm_head.weight"
    own = {f"{table.removesuffix(SHARED)}{part}.embed_tokens.weight": table for part in ("encoder", "decoder")}
    if table == SHARED and config.get("model_type") in _SCALED and isinstance(config.get("d_model"), int):
        return Tie(table, head, stored, own, config["d_model"] ** -0.5, True, {"scale_decoder_outputs": False})
    return Tie(table, head, stored, own, unread=True) if table != SHARED else None
