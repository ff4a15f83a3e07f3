"""Whose tokens a blend has where a mergekit recipe names them (`tokenizer_source`): rows as mergekit makes them.

A source without the row of a token gets the base's, or the plain mean of those of all that have it; then the method
blends all sources, the base too, as if each had it. Rows without a token are dropped. (`vocabulary` differs: there a
token is blended over the members that have it, by their weights.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.vocabulary import (
    EMBEDDING,
    Gathered,
    Vocabulary,
    folder_of,
    refuse_far,
    refuse_rowless,
    tables_of,
)
from kofn.core.checks import InputError
from kofn.io.tensors import Checkpoint
from kofn.io.vocabulary import Tokens, read_tokens, tokenizer_files, with_tokens

if TYPE_CHECKING:
    from kofn.combination._sweep.members import Tensor

    Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class TokensOf:
    """The tokens that a recipe asks for.

    Attributes:
        union: whether all models' tokens are added to those of `folder`.
        folder: the model whose tokenizer the output gets.
        base: the recipe's base, whose rows come first where a model lacks some, None if there is none.
    """

    union: bool
    folder: Path
    base: Path | None

    @property
    def word(self) -> str:
        """The setting, as an error names it."""
        return "tokenizer_source: " + ("union" if self.union else f"{self.folder}")


@dataclass(frozen=True, slots=True)
class AlignedVocabulary(Vocabulary):
    """A vocabulary in which every source has every row; `first` is the position of the source whose rows come first."""

    first: int | None = None

    def fill(
        self,
        name: str,
        rows: Sequence[NDArray[Any]],
        base: NDArray[Any] | None,
        start: int,
        shape: tuple[int, ...],
        weights: NDArray[np.float64],
    ) -> None:
        """Give each source the rows that it lacks in a block: the first's, or the mean of those that have it."""
        entries = self.entries(name, start, len(rows[0]), shape)
        if entries is None:
            return
        sources = [*rows, *([] if base is None else [base])]
        lacking = self.absent[name][:, entries]
        total = np.zeros(len(entries))
        for row, mask in zip(sources, lacking, strict=True):
            total += np.where(mask, 0.0, row)
        default = total / np.maximum(1, (~lacking).sum(axis=0))
        if self.first is not None:
            default = np.where(lacking[self.first], default, sources[self.first])
        for row, mask in zip(sources, lacking, strict=True):
            np.copyto(row, default, where=mask, casting="unsafe")


def aligned(
    sources: Sequence[Tensors], labels: Sequence[str], wanted: TokensOf, skipped: frozenset[str]
) -> tuple[list[Tensors], Vocabulary | None]:
    """Put the rows of embeddings and heads in the order of the output's tokens.

    Args:
        sources: the members, and the base last if it is none of them.
        labels: what each source is called in an error.
        wanted: whose tokens.
        skipped: names of the tensors that are copied.

    Returns:
        The sources with those tensors in the output's rows, and the vocabulary; the sources and None where they have
        no embedding.

    Raises:
        InputError: no tokenizer, ids with gaps, a token without a row anywhere.
    """
    checkpoints = [source for source in sources if isinstance(source, Checkpoint)]
    if len(checkpoints) < len(sources) or not any(map(EMBEDDING.search, sources[0])):
        return list(sources), None
    first = _tokens_in(wanted.folder)
    if first is None:
        raise InputError(
            f"{wanted.word}: {wanted.folder} holds no tokenizer; save it there with save_pretrained, or take "
            "tokenizer_source out"
        )
    # A model without a tokenizer is taken to have the base's, as in mergekit.
    default = first if wanted.base is None else _tokens_in(wanted.base) or first
    tokens = [_tokens_in(folder_of(checkpoint)) or default for checkpoint in checkpoints]
    whole = with_tokens(first, tokens, added_last=True) if wanted.union else first
    count = len(whole.ids)
    if whole.end != count:
        raise InputError(
            f"{wanted.word}: {count} tokens have ids up to {whole.end - 1}, and rows of the output are numbered "
            "without gaps; take tokenizer_source out and give --vocabulary (in Python vocabulary='union')"
        )
    names = tables_of(sources, labels, tokens, skipped)
    absent: dict[str, NDArray[np.bool_]] = {}
    read: list[dict[str, Gathered]] = [{} for _ in sources]
    for name in names:
        extents = [source[name].shape[0] for source in sources]
        refuse_far(tokens, extents, name)
        rows = np.array([_rows(each, extent, whole) for each, extent in zip(tokens, extents, strict=True)])
        refuse_rowless(rows, whole, name)
        for source, replaced, own in zip(sources, read, rows, strict=True):
            if len(own) != source[name].shape[0] or (own != np.arange(len(own))).any():
                replaced[name] = Gathered(source[name], own)
        if (rows < 0).any():
            absent[name] = rows < 0
    places = [folder_of(checkpoint).resolve() for checkpoint in checkpoints]
    base = None if wanted.base is None else wanted.base.resolve()
    figures = {
        "source": "union" if wanted.union else str(wanted.folder),
        "tokens": count,
        "rows": count,
        "added": {token: number for token, number in whole.ids.items() if token not in first.ids},
        "pieces": sum(all(token not in each.added for each in tokens) for token in whole.ids if token not in first.ids),
        "lacking": [len(whole.ids.keys() - each.ids.keys()) for each in tokens],
        "tensors": names,
        "left_out": len(set().union(*(each.ids for each in tokens)) - whole.ids.keys()),
    }
    vocabulary = AlignedVocabulary(
        "union" if wanted.union else "first",
        first.folder,
        tokenizer_files(first, whole),
        absent,
        count,
        frozenset(source[names[0]].shape[0] for source in sources),
        figures,
        places.index(base) if base in places else None,
    )
    return [checkpoint.replaced(new, ()) for checkpoint, new in zip(checkpoints, read, strict=True)], vocabulary


def _tokens_in(folder: Path) -> Tokens | None:
    try:
        return read_tokens(folder if folder.is_dir() else folder.parent)
    except InputError:
        return None


def _rows(tokens: Tokens, extent: int, whole: Tokens) -> NDArray[np.int64]:
    """(tokens,) the row of one source that each row of the output is, -1 where it has none."""
    rows = np.full(len(whole.ids), -1, np.int64)
    own = np.array([tokens.ids.get(token, -1) for token in whole.ids], np.int64)
    own[own >= extent] = -1
    rows[np.array(list(whole.ids.values()), np.int64)] = own
    return rows
