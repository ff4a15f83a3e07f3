"""What adapters change in a base; what belongs to their tokens: rows, the tokenizer, chat template and end of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.combination.adapters._fold_rows import Change, Trained
from kofn.core.arrays import Array
from kofn.core.checks import InputError, KofnError
from kofn.io.adapters import Adapter
from kofn.io.companions import CONFIG, first_config, read_chat_template, read_eos_token, with_chat_template
from kofn.io.low_rank import Pair
from kofn.io.module_names import unwrapped
from kofn.io.quantised import SCALE_WORD, scale_like, scale_of
from kofn.io.tensors import Checkpoint
from kofn.io.torch_arrays import from_torch, is_torch
from kofn.io.unread_formats import unread_codes, unread_format
from kofn.io.vocabulary import Tokens, read_tokens

Files = Mapping[str, Path | bytes]
# Entries of a configuration in which two copies of a model may differ.
_OF_A_COPY = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache")
# Entries of a tensor that are compared.
_COMPARED = 1 << 14


@dataclass
class Folding:
    """What adapters change in a base.

    Attributes:
        changes: name of a tensor -> what is done to it, in order.
        shapes: the shapes of tensors that get another number of rows.
        tall: tensors of experts (experts, height, width), whose rows are those of all experts.
        added: tensors that the base lacks, which adapters trained in full.
        rows: how many rows the tables of tokens had and get, None where they keep theirs.
        tokenizer: the adapter whose tokens the tables then have, None for the base's.
        modules: (m,) the modules of each adapter that are folded.
        notes: warnings.
        altered: tensors of which an entry was found to differ from the base's; known of what was computed.
        untied: whether the head, tied in the base, becomes a tensor of its own.
        settings: further entries of the configuration that this takes.
    """

    changes: dict[str, list[Change]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tall: set[str] = field(default_factory=set)
    added: dict[str, Array] = field(default_factory=dict)
    rows: tuple[int, int] | None = None
    tokenizer: Adapter | None = None
    modules: list[frozenset[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    altered: set[str] = field(default_factory=set)
    untied: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def other_base_text(base: Path, adapters: Sequence[Adapter]) -> list[str]:
    """A warning for every adapter whose configuration names another base than the one it is folded into."""
    out = []
    for adapter in adapters:
        named = adapter.family.trained_on(adapter.saved) if adapter.family.configured else None
        if named is None:
            continue
        here = _beside(named, adapter)
        name = Path(named).name.lower()
        # Caches of hubs keep a model as models--owner--name/snapshots/revision.
        known = {part.lower().rpartition("--")[2] for part in base.resolve().parts}
        alike = name in known or name == base.stem.lower()
        if not alike if here is None else not here.samefile(base) and not (alike and _may_be_copies(here, base)):
            out.append(
                f"{adapter.path or adapter.label} was trained on {named!r} by its configuration, and is folded into "
                f"{base}"
            )
    return out


def _beside(named: str, adapter: Adapter) -> Path | None:
    """The folder that a configuration names, where it is on this machine."""
    roots = [Path(), *([Path(adapter.path).parent] if adapter.path is not None else [])]
    return next((root / named for root in roots if (root / named / CONFIG).is_file()), None)


def _may_be_copies(first: Path, second: Path) -> bool:
    """Whether nothing that is cheap to read tells two models apart: their configurations, but for dtypes, and the
    beginnings of two of their tensors."""
    configs = [
        {key: value for key, value in first_config([path]).items() if key not in _OF_A_COPY} for path in (first, second)
    ]
    if configs[0] != configs[1]:
        return False
    try:
        tables = [Checkpoint.open(path) for path in (first, second)]
    except KofnError:  # what the adapter was trained on may be of a format that is not read
        return True
    shared = sorted(set(tables[0]) & set(tables[1]))
    for name in {*shared[:1], *shared[-1:]}:
        tensors = [table[name] for table in tables]
        end = min(_COMPARED, *(tensor.size for tensor in tensors))
        values = [tensor.read(0, end) for tensor in tensors]
        if values[0].dtype == values[1].dtype and values[0].tobytes() != values[1].tobytes():
            return False
    return True


def zero_text(adapters: Sequence[Adapter]) -> list[str]:
    """A warning for every adapter whose factors are those of an adapter that was never trained: B (or A) is zero."""
    return [
        f"{adapter.label} changes nothing: B, A or the scale of every module is zero, as before it was trained"
        for adapter in adapters
        if adapter.pairs
        and not (adapter.full or adapter.rows or adapter.differences)
        and all(_is_zero(pair) for pair in adapter.pairs.values())
    ]


def _is_zero(pair: Pair) -> bool:
    if pair.magnitude is not None or pair.bias is not None:
        return False
    return pair.scale == 0 or not (pair.derived or (pair.A.any() and pair.B.any()))


def unchanged_text(folding: Folding, dtypes: Mapping[str, np.dtype[Any]]) -> list[str]:
    """A warning where tensors that adapters target are as they were in the base."""
    targeted = [name for name, changes in folding.changes.items() if changes and name in dtypes]
    same = [name for name in targeted if name not in folding.altered]
    if not same:
        return []
    small = f"zero, or too small for {' and '.join(sorted({dtypes[name].name for name in same}))}"
    if len(same) == len(targeted):
        return [f"no tensor differs from the base's: every update is {small}"]
    return [
        f"{len(same)} of {len(targeted)} targeted tensors do not differ from the base's, {same[0]!r} first: their "
        f"updates are {small}"
    ]


def tied_heads(base: Mapping[str, Any], whole: Mapping[str, Array]) -> list[str]:
    """Heads that are saved beside an equal embedding, where the base has one tensor for both."""
    if not _is_tied(base):
        return []
    tables = [array for name, array in whole.items() if EMBEDDING.search(unwrapped(name))]
    return (
        [
            name
            for name, array in whole.items()
            if HEAD.search(unwrapped(name))
            and any(array.dtype == table.dtype and np.array_equal(array, table) for table in tables)
        ]
        if tables
        else []
    )


def _is_tied(base: Mapping[str, Any]) -> bool:
    """Whether a base has one tensor for its embedding and its head."""
    config = first_config([base.path]) if isinstance(base, Checkpoint) else {}
    inner = config.get("text_config")
    tied = config.get("tie_word_embeddings", inner.get("tie_word_embeddings") if isinstance(inner, dict) else None)
    return bool(tied) and not any(map(HEAD.search, base))


def refuse_tied(base: Mapping[str, Any], adapter: Adapter, names: Sequence[str]) -> None:
    """Refuse what was trained of an embedding or a head apart, where the base has one tensor for both."""
    if not _is_tied(base):
        return
    full = {unwrapped(name) for name in adapter.full}
    both = any(EMBEDDING.search(name) for name in full) and any(HEAD.search(name) for name in full)
    apart = next((name for name in names if HEAD.search(name) or (EMBEDDING.search(name) and not both)), None)
    if apart is not None:
        raise InputError(
            f"{adapter.label} trained {apart!r} apart, and the base has one tensor for its embedding and its head "
            "(tie_word_embeddings); save the base with both (the head a copy of the embedding, tie_word_embeddings "
            "false) and fold into that, or merge it with the adapter's own trainer"
        )


def may_resize(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a table of tokens may have another number of rows."""
    table = EMBEDDING.search(name) or HEAD.search(name)
    return bool(table) and len(shape) == len(wanted) >= 1 and shape[1:] == wanted[1:] and 0 not in wanted


def resize(out: Folding, base: Mapping[str, Any], trained: Mapping[str, list[tuple[Adapter, Trained]]]) -> None:
    """The rows that tables of tokens get, where adapters trained them with other rows than the base's."""
    owners: dict[str, Adapter] = {}
    counts: dict[int, str] = {}
    for name, parts in trained.items():
        for adapter, part in parts:
            before = base[name].shape[0] if base[name].shape else 1
            grows = part.height > before or (part.rows is None and part.height < before)
            if grows:
                owners.setdefault(adapter.label, adapter)
                out.shapes[name] = (part.height, *base[name].shape[1:])
            if (grows or part.rows is None) and (EMBEDDING.search(name) or HEAD.search(name)):
                counts.setdefault(part.height, f"{name!r} of {adapter.label}")
            if part.rows is not None and out.tokenizer is None and _tokens_of(adapter) is not None:
                out.tokenizer = adapter
    if not owners:
        return
    if len(counts) > 1:
        (first, owner), (second, other), *_ = counts.items()
        raise InputError(
            f"{owner} has {first} rows, {other} has {second}: tables of tokens get one number of rows; fold each "
            "apart, then blend those with vocabulary='union' (--vocabulary)"
        )
    _refuse_other_tokens([adapter for parts in trained.values() for adapter, _ in parts])
    name = next(iter(out.shapes))
    before, after = base[name].shape[0], out.shapes[name][0]
    tables = [
        other
        for other in base
        if (EMBEDDING.search(other) or HEAD.search(other)) and base[other].shape[:1] == (before,) and len(other) > 0
    ]
    for other in tables:
        if other in out.shapes:
            continue
        if after > before:
            raise InputError(
                f"base: {other!r} keeps {before} rows where {name!r} of {next(iter(owners))} has {after}: the adapter "
                "holds no values for the new ones; save it with both (save_embedding_layers=True)"
            )
        out.shapes[other] = (after, *base[other].shape[1:])
        out.changes.setdefault(other, [])
    out.rows = (before, after)
    if after < before:
        out.notes.append(
            f"{next(iter(owners))} has {after} rows of tokens, the base {before}: the last {before - after} are left "
            "out"
        )
    out.tokenizer = next((adapter for adapter in owners.values() if _tokens_of(adapter) is not None), None)
    if out.tokenizer is None:
        out.notes.append(
            f"{next(iter(owners))} has {after} rows of tokens, the base {before}, and holds no tokenizer: copy the one "
            "it was trained with beside the output"
        )


def _tokens_of(adapter: Adapter) -> Tokens | None:
    """The tokens of the tokenizer beside an adapter, None if it has none."""
    if adapter.path is None or not adapter.path.is_dir():
        return None
    try:
        return read_tokens(adapter.path)
    except InputError:
        return None


def _refuse_other_tokens(adapters: Sequence[Adapter]) -> None:
    """Refuse adapters whose rows of one number may be of different tokens."""
    distinct = list({id(adapter): adapter for adapter in adapters}.values())
    if len(distinct) < 2:
        return
    known = [_tokens_of(adapter) for adapter in distinct]
    for adapter, tokens in zip(distinct[1:], known[1:], strict=True):
        if tokens is None or known[0] is None or dict(tokens.ids) != dict(known[0].ids):
            raise InputError(
                f"{distinct[0].label} and {adapter.label} trained tables of tokens with other rows than the base's, "
                "and rows of one number may be of different tokens; fold each apart, then blend those with "
                "vocabulary='union' (--vocabulary)"
            )


def array_of(value: Any) -> Array:
    """A tensor of the base in memory."""
    if is_torch(value):
        return from_torch(value)
    if hasattr(value, "read"):
        whole: Array = value.read().reshape(value.shape)
        return whole
    return np.asarray(value)


def with_templates_of(
    files: Files, base: Path, adapters: Sequence[Adapter], weights: Sequence[float]
) -> tuple[Files, list[str]]:
    """The files beside the result with the chat template that its adapters were trained with, and warnings.

    Args:
        files: those copied from the base.
        base: its folder.
        adapters: m adapters; those without a folder, or with a weight of 0 or less, have no say.
        weights: (m,) their weights.
    """
    heard = [
        (adapter, adapter.path)
        for adapter, weight in zip(adapters, weights, strict=True)
        if weight > 0 and adapter.path is not None and adapter.path.is_dir()
    ]
    notes: list[str] = []
    templates = [(each, template) for each, path in heard if (template := read_chat_template(path)) is not None]
    own = read_chat_template(base)
    if len({template for _, template in templates}) > 1:
        kept = "the base's is kept" if own is not None else "none is written"
        labels = ", ".join(each.label for each, _ in templates)
        notes.append(f"{labels} were trained with unlike chat templates, and {kept}: copy the one that is meant")
    elif templates and templates[0][1] != own:
        adapter, template = templates[0]
        files = with_chat_template(files, template)
        there = "differs from the base's" if own is not None else "the base has not"
        notes.append(f"chat_template.jinja is of {adapter.label}, which was trained with it, and {there}")
    end = read_eos_token(base)
    for adapter, path in heard:
        other = read_eos_token(path)
        if other is not None and other != end:
            notes.append(
                f"{adapter.label} ends its texts with {other!r} (eos_token), the base, whose tokenizer is copied, "
                f"{'names no end' if end is None else f'with {end!r}'}: set eos_token, and eos_token_id of "
                "generation_config.json, to the adapter's where it was trained to stop there"
            )
    return files, notes


def refuse_packed(base: Mapping[str, Any]) -> None:
    """Refuse weights in a form of another library, whose shapes are not theirs."""
    stored = base if isinstance(base, Checkpoint) else {}
    unread = unread_format(list(base)) or unread_codes(stored, getattr(base, "path", None))
    if unread is not None:
        raise InputError(
            f"base is quantised in a form that is not read ({unread[0]!r}: {unread[1]}); write its weights dequantised "
            "with the library that made it, and fold into that"
        )


def refuse_quantised(base: Mapping[str, Any], changes: Iterable[str]) -> None:
    """Refuse weights that stand for others: an update would be added to their codes."""
    changes = list(changes)
    near = {*changes, *filter(SCALE_WORD.search, base)} & base.keys()
    stored: Any = {name: base[name] if hasattr(base[name], "read") else array_of(base[name]) for name in near}
    scales = {weight: scale for scale, weight in scale_like(stored).items()}
    for name in changes:
        scale = scale_of(base, name) or scales.get(name)
        if scale is not None:
            raise InputError(
                f"base is quantised ({name!r} beside {scale!r}), and an adapter adds to what its numbers stand for; "
                "give dtype='bfloat16' (--dtype) to write the result without scales"
            )


def refuse_whole_numbers(tensors: Mapping[str, Any], changes: Iterable[str]) -> None:
    """Refuse codes and counters, to which no update can be added."""
    for name in changes:
        tensor = tensors[name]
        dtype = tensor.dtype if hasattr(tensor, "read") else array_of(tensor).dtype
        if dtype.kind in "iub":
            raise InputError(f"base: {name!r} holds {dtype}, to which no update can be added; give a base of floats")
