"""Members with vocabularies of their own: rows of embeddings and heads are matched by token, not by number."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError, choice
from kofn.io.tensors import Checkpoint
from kofn.io.vocabulary import Tokens, read_tokens, tokenizer_files, with_tokens

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor

    Tensors = Mapping[str, Tensor]

VOCABULARIES = ("union", "base", "first")
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|token_embeddings?|embeddings?|embed_in|shared)\.weight$"
)
HEAD = re.compile(
    r"(^|\.)((lm_head|lm_head\.decoder|embed_out|output|output_layer|vocab_projector|predictions\.decoder)\.(weight|bias)"
    r"|predictions\.bias)$"
)


class Gathered:
    """A tensor with the rows of another in a new order: `rows` (n,) are their numbers there, -1 for rows of zeros."""

    __slots__ = ("_rows", "_tensor", "_width", "dtype", "shape", "size")

    def __init__(self, tensor: Tensor, rows: NDArray[np.int64]) -> None:
        self._tensor, self._rows = tensor, rows
        self.dtype: np.dtype[Any] = tensor.dtype
        self.shape: tuple[int, ...] = (len(rows), *tensor.shape[1:])
        self._width = math.prod(self.shape[1:])
        self.size: int = len(rows) * self._width

    @property
    def path(self) -> Path:
        """The file that holds the rows."""
        path: Path = self._tensor.path  # type: ignore[attr-defined]
        return path

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Elements `start:stop` of the flattened tensor; rows that follow each other are read at once."""
        stop = self.size if stop is None else stop
        width = self._width
        first, last = start // width, -(-stop // width)
        rows = self._rows[first:last]
        block = np.zeros((last - first) * width, self.dtype)
        cuts = np.flatnonzero((np.diff(rows) != 1) | (rows[:-1] < 0)) + 1
        for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            if end > begin and rows[begin] >= 0:
                source = int(rows[begin]) * width
                block[begin * width : end * width] = self._tensor.read(source, source + (end - begin) * width)
        return block[start - first * width : stop - first * width]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The output's tokens: whose tokenizer it gets, and which sources lack the row of a token.

    `absent` has, for each tensor whose rows are matched, a mask (sources, rows), members first and the base last.
    """

    choice: str
    folder: Path
    files: Mapping[str, bytes]
    absent: Mapping[str, NDArray[np.bool_]]
    rows: int
    sizes: frozenset[int]
    figures: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> bytes:
        """Digest of what decides which rows are read."""
        state = hashlib.blake2b(self.choice.encode() + bytes(str(self.folder), "utf-8"), digest_size=12)
        for name, mask in self.absent.items():
            state.update(name.encode() + np.packbits(mask).tobytes())
        for name, content in self.files.items():
            state.update(name.encode() + content)
        return state.digest()

    def resized(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a configuration that name the number of rows, and those that hold such, with the new one."""
        return resized(config, self.sizes, self.rows)

    def refuse_single_file(self, out: Any) -> None:
        """Refuse an output without room for the tokenizer that was made for it."""
        if self.files and str(out).endswith(".safetensors"):
            raise InputError(
                f"out={str(out)!r} is a file, and vocabulary={self.choice!r} makes a tokenizer that belongs beside it; "
                "name a folder"
            )

    def names_rows(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration, or an entry of it, has the number of rows as it is."""
        inner = [value for value in config.values() if isinstance(value, dict)]
        return config.get("vocab_size") == self.rows or any(map(self.names_rows, inner))

    def entries(self, name: str, start: int, count: int, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
        """The row that each of `count` entries of a tensor lies in, None where every source has all of those rows."""
        absent, width = self.absent.get(name), math.prod(shape[1:])
        first, last = start // width, -(-(start + count) // width)
        if absent is None or not absent[:, first:last].any():
            return None
        return (start + np.arange(count)) // width

    def fill(
        self,
        name: str,
        rows: Sequence[NDArray[Any]],
        base: NDArray[Any] | None,
        start: int,
        shape: tuple[int, ...],
        weights: NDArray[np.float64],
    ) -> None:
        """Give each source the rows that it lacks in a block: the base's, or the weighted mean of those that have it.

        A weighted mean is then that of the members that have the token, and a task vector of what a member lacks is
        zero. What the base lacks is that mean, for all members alike: their task vectors are zero, where those of their
        own rows would cancel but for rounding, which no election of signs should decide.
        """
        count = len(rows[0])
        entries = self.entries(name, start, count, shape)
        if entries is None:
            return
        lacking = self.absent[name][:, entries]
        members = lacking[: len(rows)]
        heard = np.where(members, 0.0, weights[:, None])
        total = heard.sum(axis=0)
        silent = total <= 0  # only members of weight zero have the token
        heard[:, silent] = ~members[:, silent]
        total = np.maximum(heard.sum(axis=0), np.finfo(np.float64).tiny)
        mean = np.zeros(count)
        for row, weight in zip(rows, heard / total, strict=True):
            mean += np.where(weight > 0, row * weight, 0.0)
        if base is not None:
            np.copyto(base, mean, where=lacking[-1], casting="unsafe")
            mean = base.astype(np.float64)
            members = members | lacking[-1]
        for row, mask in zip(rows, members, strict=True):
            np.copyto(row, mean, where=mask, casting="unsafe")


def resized(config: Mapping[str, Any], sizes: Container[int], rows: int) -> dict[str, Any]:
    """The entries of a configuration that name one of these numbers of rows, and those that hold such, with another."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key == "vocab_size" and type(value) is int and value in sizes and value != rows:
            changed[key] = rows
        elif isinstance(value, dict) and (inner := resized(value, sizes, rows)):
            changed[key] = {**value, **inner}
    return changed


def matched(
    sources: Sequence[Tensors], labels: Sequence[str], members: int, wanted: Any, skipped: frozenset[str]
) -> tuple[list[Tensors], Vocabulary]:
    """Match the rows of embeddings and heads by token.

    Args:
        sources: the members, and the base last if there is one.
        labels: what each source is called in an error.
        members: how many of the sources are members.
        wanted: "union", "base" or "first": whose tokens the output has.
        skipped: names of the tensors that are copied.

    Returns:
        The sources with those tensors in the output's rows, and the vocabulary.

    Raises:
        InputError: members that are no checkpoints, no tokenizer, no embedding, a token without a row anywhere.
    """
    kind = choice(wanted, "vocabulary", VOCABULARIES)
    if kind == "base" and len(sources) == members:
        raise InputError("vocabulary='base' needs a base; give it, or take 'first' or 'union'")
    checkpoints = [source for source in sources if isinstance(source, Checkpoint)]
    if len(checkpoints) < len(sources):
        raise InputError("vocabulary needs the folders of checkpoints, with their tokenizers; leave it out for arrays")
    tokens = [read_tokens(folder_of(checkpoint)) for checkpoint in checkpoints]
    leader = 0 if kind == "first" or len(sources) == members else members
    first, others = tokens[leader], [each for i, each in enumerate(tokens) if i != leader]
    whole = with_tokens(first, others) if kind == "union" else first
    names = tables_of(sources, labels, tokens, skipped)
    absent: dict[str, NDArray[np.bool_]] = {}
    read: list[dict[str, Gathered]] = [{} for _ in sources]
    counts = {}
    for name in names:
        extents = [source[name].shape[0] for source in sources]
        refuse_far(tokens, extents, name)
        count = counts[name] = max(extents[leader], whole.end if whole.end > first.end else 0)
        rows = np.array([_rows(each, extent, whole, count) for each, extent in zip(tokens, extents, strict=True)])
        refuse_rowless(rows, whole, name)
        for source, replaced, own in zip(sources, read, rows, strict=True):
            if len(own) != source[name].shape[0] or (own != np.arange(len(own))).any():
                replaced[name] = Gathered(source[name], own)
        if (rows < 0).any():
            absent[name] = rows < 0
    fresh = whole.ids.keys() - first.ids.keys()
    lacking = [len(whole.ids.keys() - each.ids.keys()) for each in tokens]
    figures = {
        "source": kind,
        "tokens": len(whole.ids),
        "rows": counts[names[0]],
        "added": {token: whole.ids[token] for token in whole.ids if token in fresh},
        "pieces": sum(all(token not in each.added for each in others) for token in fresh),
        "lacking": lacking,
        "tensors": names,
        "left_out": len(set().union(*(each.ids for each in tokens)) - whole.ids.keys()),
    }
    sizes = frozenset(source[names[0]].shape[0] for source in sources)
    files = tokenizer_files(first, whole)
    vocabulary = Vocabulary(kind, first.folder, files, absent, counts[names[0]], sizes, figures)
    return [checkpoint.replaced(new, ()) for checkpoint, new in zip(checkpoints, read, strict=True)], vocabulary


def folder_of(checkpoint: Checkpoint) -> Path:
    """The folder that a checkpoint lies in."""
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent


def tables_of(
    sources: Sequence[Tensors], labels: Sequence[str], tokens: Sequence[Tokens], skipped: frozenset[str]
) -> list[str]:
    """The tensors that have a row for each token: the embeddings first, then the heads."""
    first = sources[0]
    embeddings = [name for name in first if EMBEDDING.search(name) and len(first[name].shape) == 2]
    embeddings = [
        name
        for name in embeddings
        if all(
            name in source and source[name].shape[0] >= each.own for source, each in zip(sources, tokens, strict=True)
        )
    ]
    if not embeddings:
        raise InputError(
            f"vocabulary: {labels[0]} has no embedding under a known name (embed_tokens.weight, wte.weight, "
            "word_embeddings.weight, ...) that all have; leave vocabulary out"
        )
    sizes = [{source[name].shape[0] for name in embeddings} for source in sources]
    heads = [
        name
        for name in first
        if HEAD.search(name)
        and all(
            name in source
            and source[name].shape
            and (source[name].shape[0] in size or source[name].shape[0] >= each.end)
            for source, size, each in zip(sources, sizes, tokens, strict=True)
        )
    ]
    copied = next((name for name in (*embeddings, *heads) if name in skipped), None)
    if copied is not None:
        raise InputError(
            f"vocabulary matches the rows of {copied!r} by token; do not leave it out of the blend as well"
        )
    return [*embeddings, *heads]


def _rows(tokens: Tokens, extent: int, whole: Tokens, count: int) -> NDArray[np.int64]:
    """(count,) the row of one source that each row of the output is: of the same token, or unused there and here."""
    rows = np.full(count, -1, np.int64)
    unused = np.ones(max(count, extent, tokens.end), bool)
    unused[list(tokens.ids.values())] = False
    here = np.flatnonzero(unused[: min(count, extent)])
    rows[here] = here
    used = np.array(list(whole.ids.values()), np.int64)
    own = np.array([tokens.ids.get(token, -1) for token in whole.ids], np.int64)
    own[own >= extent] = -1
    inside = used < count
    rows[used[inside]] = own[inside]
    return rows


def refuse_far(tokens: Sequence[Tokens], extents: Sequence[int], name: str) -> None:
    """Refuse ids that no numbering without gaps gives: memory is held for every id up to the last."""
    for each, extent in zip(tokens, extents, strict=True):
        if each.end > extent + len(each.ids):
            token = max(each.ids, key=lambda token: each.ids[token])
            raise InputError(
                f"{each.folder}: token {token!r} has id {each.end - 1}, far beyond the {extent} rows of {name!r}; "
                "correct the tokenizer"
            )


def refuse_rowless(rows: NDArray[np.int64], whole: Tokens, name: str) -> None:
    """Refuse a token that has a row in no source; `rows` (sources, tokens) are -1 where there is none."""
    nowhere = np.flatnonzero((rows < 0).all(axis=0))
    if len(nowhere):
        number = int(nowhere[0])
        token = next((token for token, each in whole.ids.items() if each == number), None)
        raise InputError(
            f"token {token!r} (id {number}) has no row of {name!r} in any member; resize the embedding of a member to "
            "its tokenizer, or remove the token"
        )
