"""Whose tokens a blend has where a mergekit recipe names them (`tokenizer_source`): rows as mergekit makes them.

A source without the row of a token gets the base's, or the plain mean of those of all that have it; then the method
blends all sources, the base too, as if each had it. Rows without a token are dropped. (`vocabulary` differs: there a
token is blended over the members that have it, by their weights.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.token_rows import Patched, TokenRow
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
    from kofn.combination._sweep.tensor import Tensor

    Tensors = Mapping[str, Tensor]


_READ = 1 << 20  # elements of a table that are read at a time


@dataclass(frozen=True)
class TokensOf:
    """The tokens that a recipe asks for.

    Attributes:
        union: whether all models' tokens are added to those of `folder`.
        folder: the model whose tokenizer the output gets.
        base: the recipe's base, whose rows come first where a model lacks some, None if there is none.
        decisions: tokens whose rows the recipe decides; the output gets those that it lacks.
        multiple: what the number of rows is a multiple of: rows without a token are the mean of the others.
    """

    union: bool
    folder: Path
    base: Path | None
    decisions: tuple[TokenRow, ...] = ()
    multiple: int = 1

    @property
    def word(self) -> str:
        """The setting, as an error names it."""
        return "tokenizer_source: " + ("union" if self.union else f"{self.folder}")


@dataclass(frozen=True, slots=True)
class AlignedVocabulary(Vocabulary):
    """A vocabulary in which every source has every row.

    `first` is the position of the source whose rows come first, `decided` what the recipe decides of rows.
    """

    first: int | None = None
    decided: str = ""

    def digest(self) -> bytes:
        """Digest of what decides which rows are read."""
        return Vocabulary.digest(self) + self.decided.encode()

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
    fresh = [decision.token for decision in wanted.decisions if decision.token not in whole.ids]
    whole = with_tokens(whole, [Tokens(first.folder, {token: i for i, token in enumerate(fresh)})])
    count = len(whole.ids)
    if whole.end != count:
        raise InputError(
            f"{wanted.word}: {count} tokens have ids up to {whole.end - 1}, and rows of the output are numbered "
            "without gaps; take tokenizer_source out and give --vocabulary (in Python vocabulary='union')"
        )
    names = tables_of(sources, labels, tokens, skipped)
    places = [folder_of(checkpoint).resolve() for checkpoint in checkpoints]
    absent: dict[str, NDArray[np.bool_]] = {}
    read: list[dict[str, Tensor]] = [{} for _ in sources]
    for name in names:
        tables: list[Tensor] = [source[name] for source in sources]
        extents = [table.shape[0] for table in tables]
        refuse_far(tokens, extents, name)
        rows = np.array([_rows(each, extent, whole) for each, extent in zip(tokens, extents, strict=True)])
        lacking = rows < 0
        given: list[dict[int, NDArray[Any]]] = [{} for _ in sources]
        for decision in wanted.decisions:
            number = whole.ids[decision.token]
            if decision.force or lacking[:, number].any():
                row = decision.row_of(tables, places, tokens)
                for i in range(len(sources)) if decision.force else np.flatnonzero(lacking[:, number]).tolist():
                    given[i][number] = row
                lacking[:, number] = False
        refuse_rowless(np.where(lacking, -1, 0), whole, name)
        for table, replaced, own, values in zip(tables, read, rows, given, strict=True):
            moved = len(own) != table.shape[0] or (own != np.arange(len(own))).any()
            ordered: Tensor = Gathered(table, own) if moved else table
            if moved or values:
                replaced[name] = Patched(ordered, values) if values else ordered
        if lacking.any():
            absent[name] = lacking
    base = None if wanted.base is None else wanted.base.resolve()
    extent = -(-count // wanted.multiple) * wanted.multiple
    figures = {
        "source": "union" if wanted.union else str(wanted.folder),
        "tokens": count,
        "rows": extent,
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
        extent,
        frozenset(source[names[0]].shape[0] for source in sources),
        figures,
        places.index(base) if base in places else None,
        repr((wanted.decisions, wanted.multiple)) if wanted.decisions or wanted.multiple > 1 else "",
    )
    for name in names if extent > count else ():
        tables = [replaced.get(name, source[name]) for source, replaced in zip(sources, read, strict=True)]
        for table, replaced, mean in zip(tables, read, _means(vocabulary, name, tables, count), strict=True):
            replaced[name] = Patched(table, dict.fromkeys(range(count, extent), mean))
        if name in absent:
            absent[name] = np.pad(absent[name], ((0, 0), (0, extent - count)))
    return [checkpoint.replaced(new, ()) for checkpoint, new in zip(checkpoints, read, strict=True)], vocabulary


def _means(vocabulary: Vocabulary, name: str, tables: Sequence[Tensor], count: int) -> list[NDArray[np.float64]]:
    """The mean of the rows of each source, in which those that it lacks are as they will be."""
    shape = (count, *tables[0].shape[1:])
    width = math.prod(shape[1:])
    totals, step = [np.zeros(width) for _ in tables], max(1, _READ // width)
    for start in range(0, count, step):
        ends = (start * width, min(start + step, count) * width)
        blocks = [table.read(*ends).astype(np.float64) for table in tables]
        vocabulary.fill(name, blocks, None, ends[0], shape, np.ones(len(tables)))
        for total, block in zip(totals, blocks, strict=True):
            total += block.reshape(-1, width).sum(axis=0)
    return [total / count for total in totals]


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
