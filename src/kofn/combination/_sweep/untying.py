"""Bases with one tensor for embedding and head: what adapters trained of the two apart gets tensors of its own.

PEFT trains a module of its own where it targets the embedding or the head of a tied model, and the other stays as the
base has it, unless `ensure_weight_tying` is set; `merge_and_unload` then changes both, which the trained model did not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.tied_layouts import HEADS, Tie, tie_of
from kofn.combination._sweep.vocabulary import EMBEDDING
from kofn.io.adapter_families import PEFT, module_names
from kofn.io.adapters import Adapter
from kofn.io.low_rank import Pair
from kofn.io.module_names import PREFIX, unwrapped

_ENSURED = ("embed_tokens", "lm_head")


def parted(
    base: Any, adapters: Sequence[Adapter], left_out: frozenset[str]
) -> tuple[Any, list[Adapter], Tie | None, frozenset[int]]:
    """The base with a head of its own where an adapter trained embedding and head apart.

    Returns:
        The base, the adapters, the tie (None where none has to be heeded), and which adapters trained both as one:
        these have their changes under the embedding's name.
    """
    tie = tie_of(base) if any(map(_tables, adapters)) else None
    if tie is None:
        return base, list(adapters), None, frozenset()
    kept = [_without(adapter, left_out) for adapter in adapters]
    joint = frozenset(i for i, adapter in enumerate(kept) if not _trained_apart(adapter))
    members = [_as_one(adapter, tie) if i in joint else adapter for i, adapter in enumerate(adapters)]
    if len(joint) < len(adapters):
        own = {} if tie.stored else {tie.head: base[tie.embedding]}
        base = base.extended({**own, **{name: base[source] for name, source in tie.copies.items() if name not in base}})
    return base, members, tie, joint


def without_unread(adapters: Sequence[Adapter], base: Any) -> tuple[list[Adapter], list[str]]:
    """The adapters without what stood in the place of a table that the model reads elsewhere, and notes that say so.

    Encoder and decoder of T5 or BART hold the shared table as modules of their own. PEFT puts its module in the place
    of `shared`, which nothing reads: the trained model computed as if there were none.
    """
    tie = tie_of(base) if any(map(_tables, adapters)) else None
    if tie is None or not tie.unread:
        return list(adapters), []
    out, notes = [], []
    for adapter in adapters:
        stem = tie.embedding.removesuffix(".weight")
        mine = [name for name in (*adapter.pairs, *adapter.full) if unwrapped(name).removesuffix(".weight") == stem]
        tables = [name for name in _tables(adapter).get("embedding", []) if name not in mine]
        trained = [name for name in mine if name in adapter.pairs or _listed(adapter, name)]
        if adapter.family is not PEFT or not trained or tables:
            out.append(adapter)
            continue
        out.append(_without(adapter, frozenset(mine)))
        notes.append(
            f"{adapter.label}: {tie.embedding!r} stays as it is, for the model that was trained did not read the "
            "module in its place (encoder and decoder read tables of their own, tied to it)"
        )
    return out, notes


def untying_text(tie: Tie, adapters: Sequence[Adapter], left_out: frozenset[str]) -> str:
    """That a head becomes a tensor of its own, and by whose training of which of the two."""
    by_tables: dict[str, list[str]] = {}
    for adapter in adapters:
        embeddings, heads = _trained(_without(adapter, left_out))
        tables = "embedding and head apart"
        if not (embeddings and heads):
            tables = "the embedding and not the head" if embeddings else "the head and not the embedding"
        by_tables.setdefault(tables, []).append(adapter.label)
    who = ", ".join(f"{' and '.join(labels)} trained {tables}" for tables, labels in by_tables.items())
    return (
        f"{who}, which are one tensor in the base: "
        f"{tie.embedding!r} and {tie.head!r} are both written, and tie_word_embeddings is false in config.json"
    )


def _tables(adapter: Adapter) -> dict[str, list[str]]:
    """What an adapter trained of embeddings ("embedding") and heads ("head"): modules with factors, and tensors."""
    out: dict[str, list[str]] = {}
    for name in (*adapter.pairs, *adapter.full, *adapter.rows, *adapter.differences):
        plain = unwrapped(f"{name}.weight" if name in adapter.pairs else name)
        kind = "embedding" if EMBEDDING.search(plain) else "head" if _is_head(plain) else None
        if kind is not None:
            out.setdefault(kind, []).append(name)
    return out


def _is_head(plain: str) -> bool:
    """Whether a tensor is a head, whose bias is trained apart from no embedding."""
    return bool(HEADS.search(plain)) and plain.endswith(".weight")


def _without(adapter: Adapter, left_out: frozenset[str]) -> Adapter:
    if not left_out:
        return adapter
    out = copy.copy(adapter)
    for word in ("pairs", "full", "rows", "differences"):
        own: Mapping[str, Any] = getattr(adapter, word)
        setattr(out, word, {name: value for name, value in own.items() if name not in left_out})
    return out


def _trained_apart(adapter: Adapter) -> bool:
    """Whether the model that was trained had a head other than its embedding."""
    embeddings, heads = _trained(adapter)
    trained = [*embeddings, *heads]
    tables = _tables(adapter)
    ensured = bool(adapter.config.get("ensure_weight_tying")) and adapter.family is PEFT
    # PEFT heeds the setting only where a module of one of these names is trained.
    ensured = ensured and any(_leaf(name) in _ENSURED for names in tables.values() for name in names)
    if not embeddings or not heads:
        if not trained or ensured or adapter.family is not PEFT:
            return False
        single = all(name in adapter.rows for name in trained)  # PEFT ties these by itself
        resized = all(name in adapter.full and not _listed(adapter, name) for name in trained)
        return bool(heads) or not (single or resized)
    return len(embeddings) > 1 or len(heads) > 1 or not _equal(adapter, embeddings[0], heads[0])


def _trained(adapter: Adapter) -> tuple[list[str], list[str]]:
    """The names of embeddings, and of heads, that an adapter trained."""
    tables = _tables(adapter)
    factors = [name for names in tables.values() for name in names if name in adapter.pairs]
    # Beside factors PEFT saves the tables as they were before.
    embeddings, heads = (
        [name for name in tables.get(kind, []) if not factors or name in adapter.pairs or _listed(adapter, name)]
        for kind in ("embedding", "head")
    )
    return embeddings, heads


def _listed(adapter: Adapter, name: str) -> bool:
    """Whether a tensor is of a module that was trained in full."""
    leaf = _leaf(name)
    return any(leaf == word.split(".")[-1] for word in module_names(adapter.config, "modules_to_save"))


def _leaf(name: str) -> str:
    """The last part of a module's name, or of that which a tensor belongs to."""
    return unwrapped(name).removesuffix(".weight").split(".")[-1]


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
