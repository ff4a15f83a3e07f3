"""Vectors of a column of texts that is read in blocks: by words that a sample of the texts teaches, or by a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kofn._version import __version__
from kofn.core.arrays import Array, Ints
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.core.runtime import Control
from kofn.core.words import Progress
from kofn.io.atomic import atomic_path
from kofn.io.embedding import NO_MODEL, embedded
from kofn.io.stored_rows import write_rows
from kofn.io.tables import Table
from kofn.io.words import DIMS, Terms, directions, learnt, unit_rows

# Texts that the words are learnt from, fewer where they are long: these many characters in all, but no fewer texts.
SAMPLE, _SAMPLE_CHARACTERS, _LEAST_SAMPLE = 100_000, 50_000_000, 2_000
# Texts, and characters, of a block.
_BLOCK, _BLOCK_CHARACTERS, _LEAST_BLOCK = 1 << 14, 1 << 23, 1 << 8
# Texts whose lengths stand for all.
_LOOKED_AT = 2_000


class TextRows:
    """The vectors of a column of texts, block by block.

    By words, the vectors are those of `kofn.io.words.text_vectors`, whose words, weights and directions are learnt from
    a sample that a fixed seed draws. A word that no text of the sample has does not count. Where all texts are in the
    sample they are the same up to 512 texts or terms, and beyond as near as those of two sketches are.

    Args:
        table: the texts' table.
        column: its column.
        model: "tfidf" or None for words; else a model, as in `kofn.io.embedding.embed_texts`.
        cache: keep what the model gives, and use what it gave before.
        progress: show how far it is.
        seed: draws the sample, and the sketch of its directions.

    Attributes:
        sampled: how many texts the words are learnt from; 0 by a model.
        how: how the vectors are made, in one line; what the sample missed once all blocks are read.
    """

    def __init__(
        self,
        table: Table,
        column: str,
        model: str | None = None,
        *,
        cache: bool = True,
        progress: Progress = None,
        seed: int = 0,
    ) -> None:
        self.table, self.column, self.seed = table, column, seed
        self.model = None if model == NO_MODEL else model
        self.cache, self.progress = cache, progress
        if table.dtype(column) == "vector":
            raise InputError(f"{table.path} column {column!r} holds vectors; give it as vectors, or a column of text")
        first = next(table.text_blocks(column, _LOOKED_AT), pl.Series([], dtype=pl.String))
        characters = max(1.0, float(first.head(_LOOKED_AT).str.len_chars().mean() or 1))  # type: ignore[arg-type]
        self._rows = min(_BLOCK, max(_LEAST_BLOCK, int(_BLOCK_CHARACTERS / characters)))
        sample = min(SAMPLE, max(_LEAST_SAMPLE, int(_SAMPLE_CHARACTERS / characters)))
        self.sampled = 0 if self.model is not None else min(table.n, sample)
        self._words, self._unknown, self._width = 0, 0, 0
        self._shown = ""

    @property
    def key(self) -> str:
        """Of all that decides the vectors beside the texts themselves."""
        parts = (self.column, self.model, DIMS, self.sampled, self.seed)
        return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    @property
    def how(self) -> str:
        if self.model is not None:
            return f"{self._shown or self.model} of column {self.column!r}"
        learnt_from = f"{self.sampled:,} of its texts" if self.sampled < self.table.n else "all its texts"
        line = f"TF-IDF of column {self.column!r}, learnt on {learnt_from}"
        if not self._unknown:
            return line
        return f"{line}, in none of which {max(0.1, 100 * self._unknown / self._words):.1f}% of all words stand"

    def blocks(self) -> Iterator[Array]:
        """(rows, d) float32 vectors of unit length, or zero, in the order of the rows.

        Raises:
            InputError: no text of the sample has a word, or the table changed while it was read.
        """
        known = None if self.model is not None else self._learn()
        done = 0
        with Control(progress=self.progress, total=self.table.n, title=f"vectors of {self.column}") as control:
            for texts in self.table.text_blocks(self.column, self._rows):
                if control.interrupted:
                    raise KeyboardInterrupt
                for start in range(0, len(texts), self._rows):
                    yield self._vectors(texts[start : start + self._rows], known)
                done += len(texts)
                control.step(done)
        if done != self.table.n:
            raise InputError(f"{self.table.path} changed while it was read; run again")

    def _vectors(self, texts: pl.Series, known: tuple[Terms, Array] | None) -> Array:
        if known is None:
            assert self.model is not None
            answer = embedded(texts, self.model, cache=self.cache)
            self._shown = answer.shown
            return answer.X
        terms, projection = known
        matrix, words, unknown = terms.matrix(texts)
        self._words, self._unknown = self._words + words, self._unknown + unknown
        return unit_rows(matrix @ projection)

    def _learn(self) -> tuple[Terms, Array]:
        """The terms, and the directions of the sample."""
        n = self.table.n
        if self.sampled < n:
            drawn = np.sort(np.random.default_rng(self.seed).choice(n, self.sampled, replace=False))
        else:
            drawn = np.arange(n)
        sample = texts_at(self.table, self.column, drawn, self._rows)
        terms, matrix = learnt(sample)
        return terms, directions(matrix, DIMS, self.seed)


def kept_rows(rows: TextRows, folder: str | os.PathLike[str], digest: str) -> Any:
    """The vectors as a memory map of a file in a folder, which is written where no run has done so.

    Args:
        rows: makes the vectors.
        folder: made where it does not exist.
        digest: of the table that they are of.

    Raises:
        InputError: the folder cannot be made or written to. FailureError: no disk is left.
    """
    name = hashlib.blake2b(f"{digest} {rows.key} {__version__}".encode(), digest_size=8).hexdigest()
    path = Path(folder) / f"texts-{name}.npy"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"work={path.parent} cannot be made: {error.strerror}; give another folder") from None
        with atomic_path(path) as temporary:
            write_rows(temporary, rows.table.n, rows.blocks())
    return np.load(path, mmap_mode="r")


def texts_at(table: Table, column: str, rows: Ints, at_once: int = _BLOCK) -> pl.Series:
    """The texts of some rows, which rise, in one pass over the column.

    Raises:
        InputError: the table has fewer rows than when it was opened.
    """
    parts, done = [pl.Series(column, [], pl.String)], 0
    for texts in table.text_blocks(column, at_once):
        low, high = np.searchsorted(rows, (done, done + len(texts)))
        parts.append(texts.gather(rows[low:high] - done))
        done += len(texts)
    sample = pl.concat(parts)
    if len(sample) != len(rows):
        raise InputError(f"{table.path} changed while it was read; run again")
    return sample
