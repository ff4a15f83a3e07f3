"""Bases with one tensor for embedding and head: what adapters trained of the two apart gets tensors of its own.

PEFT trains a module of its own where it targets the embedding or the head of a tied model, and the other stays as the
base has it, unless `ensure_weight_tying` is set; `merge_and_unload` then changes both, which the trained model did not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination._sweep.tied import is_copy
from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.io.adapter_families import PEFT, module_names
from kofn.io.adapters import Adapter
from kofn.io.companions import first_config, tying
from kofn.io.low_rank import Pair
from kofn.io.module_names import PREFIX, unwrapped
from kofn.io.quantised import scale_of
from kofn.io.tensors import Checkpoint

# The embedding of a language model, and what lies before both it and the head.
_TABLE = re.compile(
    r"(?P<outer>language_model\.)??((model|transformer|gpt_neox)\.)?((language_model|decoder|text_model)\.)?"
    r"(embed_tokens|wte|embed_in|word_embeddings)\.weight"
)
_GENERATES = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$")


@dataclass(frozen=True)
class Tie:
    """The embedding and the head of a base that ties them.

    Attributes:
        embedding, head: names of the tensors.
        stored: whether the base holds the head too, as a copy.
    """

    embedding: str
    head: str
    stored: bool


def tie_of(base: Any, adapters: Sequence[Adapter]) -> Tie | None:
    """The tie of a base whose head can be written apart; None where there is none, or no adapter trained either."""
    if not isinstance(base, Checkpoint) or not any(_tables(adapter) for adapter in adapters):
        return None
    config = first_config([base.path])
    flags = tying(config)
    classes = config.get("architectures") or []
    generates = any(isinstance(name, str) and _GENERATES.search(name) for name in classes)
    # Without a flag the class decides, and one that generates text needs a head.
    if not (any(flags) if flags else generates) or (classes and not generates):
        return None
    tables = {name: match for name in base if (match := _TABLE.fullmatch(name)) and len(base[name].shape) == 2}
    if len(tables) != 1:
        return None
    ((embedding, match),) = tables.items()
    heads = [name for name in base if HEAD.search(name) and name.endswith(".weight")]
    if heads:
        copies = len(heads) == 1 and is_copy(base, heads[0])
        return Tie(embedding, heads[0], True) if copies else None
    if scale_of(base, embedding) is not None or any(HEAD.search(name) for name in base):
        return None
    leaf = "embed_out" if "embed_in." in embedding else "lm_head"
    return Tie(embedding, f"{match['outer'] or ''}{leaf}.weight", False)


def parted(
    base: Any, adapters: Sequence[Adapter], left_out: frozenset[str]
) -> tuple[Any, list[Adapter], Tie | None, frozenset[int]]:
    """The base with a head of its own where an adapter trained embedding and head apart.

    Returns:
        The base, the adapters, the tie (None where none has to be heeded), and which adapters trained both as one:
        these have their changes under the embedding's name.
    """
    tie = tie_of(base, adapters)
    if tie is None:
        return base, list(adapters), None, frozenset()
    kept = [_without(adapter, left_out) for adapter in adapters]
    joint = frozenset(i for i, adapter in enumerate(kept) if not _trained_apart(adapter))
    members = [_as_one(adapter, tie) if i in joint else adapter for i, adapter in enumerate(adapters)]
    if not tie.stored and len(joint) < len(adapters):
        base = base.extended({tie.head: base[tie.embedding]})
    return base, members, tie, joint


def untying_text(tie: Tie, labels: Sequence[str]) -> str:
    """That a head becomes a tensor of its own, and by whose training."""
    return (
        f"{' and '.join(labels)} trained embedding and head apart, which are one tensor in the base: "
        f"{tie.embedding!r} and {tie.head!r} are both written, and tie_word_embeddings is false in config.json"
    )


def _tables(adapter: Adapter) -> dict[str, list[str]]:
    """What an adapter trained of embeddings ("embedding") and heads ("head"): modules with factors, and tensors."""
    out: dict[str, list[str]] = {}
    for name in (*adapter.pairs, *adapter.full, *adapter.rows):
        plain = unwrapped(f"{name}.weight" if name in adapter.pairs else name)
        kind = "embedding" if EMBEDDING.search(plain) else "head" if HEAD.search(plain) else None
        if kind is not None:
            out.setdefault(kind, []).append(name)
    return out


def _without(adapter: Adapter, left_out: frozenset[str]) -> Adapter:
    if not left_out:
        return adapter
    out = copy.copy(adapter)
    for word in ("pairs", "full", "rows"):
        own: Mapping[str, Any] = getattr(adapter, word)
        setattr(out, word, {name: value for name, value in own.items() if name not in left_out})
    return out


def _trained_apart(adapter: Adapter) -> bool:
    """Whether the model that was trained had a head other than its embedding."""
    tables = _tables(adapter)
    embeddings, heads = tables.get("embedding", []), tables.get("head", [])
    ensured = bool(adapter.config.get("ensure_weight_tying")) and adapter.family is PEFT
    factors = [name for name in (*embeddings, *heads) if name in adapter.pairs]
    # Beside factors PEFT saves the tables as they were before.
    trained = {name for name in (*embeddings, *heads) if not factors or name in adapter.pairs or _listed(adapter, name)}
    embeddings, heads = ([name for name in names if name in trained] for names in (embeddings, heads))
    if not embeddings or not heads:
        if not trained or ensured or adapter.family is not PEFT:
            return False
        single = all(name in adapter.rows for name in trained)  # PEFT ties these by itself
        resized = all(name in adapter.full and not _listed(adapter, name) for name in trained)
        return bool(heads) or not (single or resized)
    return len(embeddings) > 1 or len(heads) > 1 or not _equal(adapter, embeddings[0], heads[0])


def _listed(adapter: Adapter, name: str) -> bool:
    """Whether a tensor is of a module that was trained in full."""
    leaf = unwrapped(name).removesuffix(".weight").split(".")[-1]
    return any(leaf == word.split(".")[-1] for word in module_names(adapter.config, "modules_to_save"))


def _equal(adapter: Adapter, embedding: str, head: str) -> bool:
    """Whether what an adapter holds for an embedding and a head is the same."""
    if embedding in adapter.full and head in adapter.full:
        own, other = adapter.full[embedding], adapter.full[head]
        return own.dtype == other.dtype and np.array_equal(own, other)
    if embedding in adapter.rows and head in adapter.rows:
        return all(map(np.array_equal, adapter.rows[embedding], adapter.rows[head]))
    if embedding in adapter.pairs and head in adapter.pairs:
        table, layer = adapter.pairs[embedding], adapter.pairs[head]
        turned = table.kind == "embedding" and layer.bias is None and table.scale == layer.scale
        return turned and _transposed(table, layer) and table.magnitude is None and layer.magnitude is None
    return False


def _transposed(table: Pair, layer: Pair) -> bool:
    return np.array_equal(table.rows().T, layer.columns()) and np.array_equal(table.columns().T, layer.rows())


def _as_one(adapter: Adapter, tie: Tie) -> Adapter:
    """The adapter with what it trained under the embedding's name alone."""
    tables = _tables(adapter)
    heads = tables.get("head", [])
    if not heads:
        return adapter
    if "embedding" in tables:
        return _without(adapter, frozenset(heads))
    name = PREFIX + tie.embedding
    stem = name.removesuffix(".weight")
    out = _without(adapter, frozenset(heads))
    for head in heads:
        if head in adapter.pairs:
            out.pairs[stem] = adapter.pairs[head].named(stem)
        elif head in adapter.full:
            out.full[name] = adapter.full[head]
        else:
            out.rows[name] = adapter.rows[head]
    return out
