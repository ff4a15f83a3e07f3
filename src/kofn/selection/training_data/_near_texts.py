"""Near-duplicates among texts: the same after normalisation, or most of their letter triples in common."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError

_CHUNK = 1_000_000  # characters whose tokens are numbered at a time
# What a reader cannot see: soft hyphen, zero-width space, word joiner, byte order mark.
_INVISIBLE = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))


def normalised(text: str) -> str:
    """A text without what readers overlook: case, white space, compatibility forms, characters of no width.

    >>> normalised("  \\uff26ull\\u00a0 Width\\n") == normalised("full width")
    True
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE).casefold()
        text = unicodedata.normalize("NFKC", text)
    else:
        text = text.lower()
    return " ".join(text.split())


def near_texts(texts: Sequence[str], threshold: float, forced: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(earliest kept text that a text is near or -1, their similarity), where the first `forced` texts stay.

    Args:
        texts: in the order in which they are preferred.
        threshold: similarity from which two texts are near, above 0.
        forced: how many of the first stay whatever they are like.
    """
    n = len(texts)
    of, similarity = np.full(n, -1, np.int64), np.full(n, np.nan)
    forms: dict[str, int] = {}
    first = np.empty(n, np.int64)  # the first text of the same form, by its number among the different ones
    for row, text in enumerate(texts):
        first[row] = forms.setdefault(normalised(text), len(forms))
    rows = np.unique(first, return_index=True)[1]  # of each form, the row where it comes first
    stay = int(np.searchsorted(rows, forced))
    nearest, likeness = _near_forms(list(forms), threshold, stay)
    dropped = nearest >= 0
    of[rows[dropped]] = rows[nearest[dropped]]
    similarity[rows[dropped]] = likeness[dropped]
    copies = np.setdiff1d(np.arange(n), rows)
    copies = copies[copies >= forced]
    # A copy of a dropped text is near whatever that text was dropped for.
    of[copies] = np.where(dropped[first[copies]], of[rows[first[copies]]], rows[first[copies]])
    similarity[copies] = np.where(dropped[first[copies]], similarity[rows[first[copies]]], 1.0)
    return of, similarity


def _near_forms(forms: list[str], threshold: float, forced: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from kofn.selection.training_data import _kernels as kernels

    of, similarity = np.full(len(forms), -1, np.int64), np.full(len(forms), np.nan)
    tokens, starts, counts = _tokens(forms)
    rank = np.empty(len(counts), np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
    signatures = np.zeros((len(forms), 2), np.uint64)
    kernels.sort_tokens(tokens, starts, rank, signatures)
    by_size = np.argsort(np.diff(starts), kind="stable")
    index = kernels.lay_out(tokens, starts, by_size, len(counts), threshold)
    kernels.drop_near(tokens, starts, signatures, *index, forced, threshold, of, similarity)
    return of, similarity


def _tokens(forms: list[str]) -> tuple[Array, Array, Array]:
    """(token numbers of each text, where each text's begin, how many texts hold each token)."""
    from kofn.selection.training_data import _kernels as kernels

    lengths = np.fromiter(map(len, forms), np.int64, len(forms)) + 1
    sizes = np.maximum(0, lengths + 2 - kernels.WIDTH)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    tokens = np.empty(starts[-1], np.int32)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    keys, numbers, counts = np.zeros(1 << 16, np.uint64), np.zeros(1 << 16, np.int32), np.zeros(0, np.int64)
    known = low = 0
    while low < len(forms):
        high = max(low + 1, int(np.searchsorted(ends, ends[low] + _CHUNK, side="right")) - 1)
        spaced = " " + " ".join(forms[low:high]) + " "
        characters = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), np.uint32).copy()
        most = known + int(starts[high] - starts[low])
        if most > np.iinfo(np.int32).max:
            raise InputError(
                f"texts hold more than {np.iinfo(np.int32).max:,} different triples; compare fewer at once"
            )
        if 2 * most > len(keys):
            wider = 1 << (2 * most).bit_length()
            new_keys, new_numbers = np.zeros(wider, np.uint64), np.zeros(wider, np.int32)
            kernels.rehash(keys, numbers, new_keys, new_numbers)
            keys, numbers = new_keys, new_numbers
        counts = np.concatenate((counts[:known], np.zeros(most - known, np.int64)))
        known = kernels.number_tokens(
            characters,
            ends[low : high + 1] - ends[low],
            keys,
            numbers,
            counts,
            known,
            tokens[starts[low] : starts[high]],
        )
        low = high
    return tokens, starts, counts[:known]
