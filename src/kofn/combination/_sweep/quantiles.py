"""Exact order statistics in bounded memory: histograms over the bits of float32 (two) or float64 (four), no sorting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 1 << 16
BYTES = 8 * _BINS  # of a histogram
_SIGN = np.uint32(1 << 31)
_WIDE_DIGITS = 4
_COMPILED = 1 << 14  # numbers from which a compiled loop pays


def keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Integer keys in the order of the values as float32; NaN last."""
    bits = values.astype(np.float32).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def magnitude_keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Integer keys in the order of the magnitudes as float32."""
    return np.abs(values.astype(np.float32, copy=False)).view(np.uint32)


def value_of(key: int, *, magnitudes: bool) -> np.float32:
    """The float32 with this key."""
    bits = np.uint32(key)
    if not magnitudes:
        bits = bits ^ _SIGN if bits & _SIGN else ~bits
    return np.array([bits], np.uint32).view(np.float32)[0]


def coarse(codes: NDArray[np.uint32], counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Histogram of the keys' upper halves, added to `counts` if given."""
    counts = np.zeros(_BINS, np.int64) if counts is None else counts
    if len(codes) < _COMPILED:
        counts += np.bincount(codes >> np.uint32(16), minlength=_BINS)
        return counts
    from kofn.combination._sweep.kernels import count_upper

    count_upper(codes, counts)
    return counts


def fine(codes: NDArray[np.uint32], upper: int, counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Histogram of the lower halves of the keys with this upper half, added to `counts` if given."""
    counts = np.zeros(_BINS, np.int64) if counts is None else counts
    if len(codes) < _COMPILED:
        counts += np.bincount(codes[codes >> np.uint32(16) == upper] & np.uint32(_BINS - 1), minlength=_BINS)
        return counts
    from kofn.combination._sweep.kernels import count_lower

    count_lower(codes, np.uint32(upper), counts)
    return counts


def count_changes(
    row: NDArray[Any], base: NDArray[Any], upper: int | None, counts: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """`coarse` of the magnitudes' keys of `row - base`, or with `upper` their `fine`."""
    if len(row) < _COMPILED:
        codes = magnitude_keys(row - base)
        return coarse(codes, counts) if upper is None else fine(codes, upper, counts)
    from kofn.combination._sweep import kernels

    counts = np.zeros(_BINS, np.int64) if counts is None else counts
    if upper is None:
        kernels.count_upper_of_changes(row, base, counts)
    else:
        kernels.count_lower_of_changes(row, base, np.uint32(upper), counts)
    return counts


def count_wide_changes(
    row: NDArray[Any], base: NDArray[Any], prefix: int, digit: int, counts: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Histogram of one of the four 16-bit digits, the uppermost first, of the magnitudes of `row - base` as float64,
    of those whose digits before it are `prefix`; added to `counts` if given."""
    counts = np.zeros(_BINS, np.int64) if counts is None else counts
    shift = 16 * (_WIDE_DIGITS - 1 - digit)
    if len(row) < _COMPILED:
        codes = np.abs((row - base).astype(np.float64)).view(np.uint64) >> np.uint64(shift)
        counts += np.bincount(codes[codes >> np.uint64(16) == prefix] & np.uint64(_BINS - 1), minlength=_BINS)
        return counts
    from kofn.combination._sweep import kernels

    kernels.count_digit_of_changes(row, base, np.uint64(prefix), np.uint64(shift), counts)
    return counts


def add_up(parts: Iterable[Sequence[NDArray[np.int64]]]) -> list[NDArray[np.int64]]:
    """Sum the counts of all parts per member, with one part in memory at a time."""
    total: list[NDArray[np.int64]] = []
    for counts in parts:
        if not total:
            total = [np.array(count) for count in counts]
            continue
        for own, count in zip(total, counts, strict=True):
            own += count
    return total


def locate(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin of the key of this rank (0 is the smallest), and its rank within the bin."""
    below = np.cumsum(counts)
    upper = int(np.searchsorted(below, rank, side="right"))
    return upper, rank - (int(below[upper - 1]) if upper else 0)
