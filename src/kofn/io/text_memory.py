"""What it takes to compare texts by their words, known before the work."""

from __future__ import annotations

from kofn.core.checks import InputError, bytes_of
from kofn.core.lazy import polars as pl
from kofn.io.words import BIGRAM_WORDS, WORDS

# Bytes of a word in reading order while words are counted, with and without pairs of neighbours: measured on 1,600,000
# and 4,000,000 words.
_WORD_BYTES, _LONE_WORD_BYTES = 145, 70
# Texts whose words are counted; the others' follow from their bytes.
_SAMPLE = 2_000


def bytes_by_words(texts: pl.Series, times: float = 1.0) -> tuple[int, int]:
    """(about how many words texts have, and the bytes that comparing them by words takes beside the libraries).

    Args:
        texts: the texts, or the beginning of them.
        times: how many times as many texts the whole has.
    """
    sample = texts.gather_every(max(1, len(texts) // _SAMPLE))
    words = int(sample.str.count_matches(WORDS).sum() or 0)
    size, looked_at = int(texts.str.len_bytes().sum() or 0), int(sample.str.len_bytes().sum() or 0)
    count = words * size / max(looked_at, 1) * times
    each = _WORD_BYTES if count <= BIGRAM_WORDS else _LONE_WORD_BYTES
    return int(count), int(2 * size * times + each * count)


def refuse_texts_over(
    texts: pl.Series, column: str, max_memory: int | str | None, times: float = 1.0, in_parts: str | None = None
) -> None:
    """Refuse to compare texts by their words where that takes more than the memory allowed.

    Args:
        texts: the texts, or the beginning of them.
        column: where they stand.
        max_memory: the bytes allowed; None for any.
        times: how many times as many texts the whole has.
        in_parts: the method that reads texts in parts, where there is one.

    Raises:
        InputError: it takes more.
    """
    if max_memory is None:
        return
    count, needed = bytes_by_words(texts, times)
    if needed > bytes_of(max_memory):
        parts = f"say --method {in_parts}, which reads them in parts, " if in_parts else ""
        raise InputError(
            f"column {column!r} has about {count:,} words, and to compare texts by their words takes about "
            f"{needed / 1e9:,.2g} GB, over --max-memory {max_memory}; raise it, {parts}give fewer rows, or put vectors "
            "of the texts into the file and compare by them (--vectors)"
        )
