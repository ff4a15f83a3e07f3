"""Compiled loops of the merge rules: histograms of bit patterns, and the elected mean."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

_FLOATS = (nb.float32, nb.float64)
_SEGMENT = 1024
_INNER: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def _row(kind: Any) -> Any:
    return nb.types.Array(kind, 1, "C")


@nb.njit(nb.void(_row(nb.uint32), nb.int64[::1]), cache=True, **_INNER)
def count_upper(words, counts):
    """Add to counts[h] the number of words whose upper half is h."""
    for i in range(len(words)):
        counts[words[i] >> np.uint32(16)] += 1


@nb.njit(nb.void(_row(nb.uint32), nb.uint32, nb.int64[::1]), cache=True, **_INNER)
def count_lower(words, upper, counts):
    """Add to counts[l] the number of words with this upper half whose lower half is l."""
    for i in range(len(words)):
        word = words[i]
        if (word >> np.uint32(16)) == upper:
            counts[word & np.uint32(65535)] += 1


def _changes(of: Any) -> list[Any]:
    """Signatures for a row of a member, the base's, and what follows."""
    return [nb.void(_row(kind), _row(kind), *of) for kind in _FLOATS]


@nb.njit(**_INNER)
def _magnitudes(row, base, sizes):
    """The magnitudes of a segment's changes as float32."""
    for i in range(len(row)):
        sizes[i] = abs(np.float32(row[i] - base[i]))


@nb.njit(_changes([nb.int64[::1]]), cache=True, **_INNER)
def count_upper_of_changes(row, base, counts):
    """`count_upper` of the bits of the magnitudes of `row - base` as float32."""
    sizes = np.empty(_SEGMENT, np.float32)
    words = sizes.view(np.uint32)
    for start in range(0, len(row), _SEGMENT):
        stop = min(start + _SEGMENT, len(row))
        _magnitudes(row[start:stop], base[start:stop], sizes)
        for i in range(stop - start):
            counts[words[i] >> np.uint32(16)] += 1


@nb.njit(_changes([nb.uint32, nb.int64[::1]]), cache=True, **_INNER)
def count_lower_of_changes(row, base, upper, counts):
    """`count_lower` of the bits of the magnitudes of `row - base` as float32."""
    sizes = np.empty(_SEGMENT, np.float32)
    words = sizes.view(np.uint32)
    for start in range(0, len(row), _SEGMENT):
        stop = min(start + _SEGMENT, len(row))
        _magnitudes(row[start:stop], base[start:stop], sizes)
        for i in range(stop - start):
            word = words[i]
            if (word >> np.uint32(16)) == upper:
                counts[word & np.uint32(65535)] += 1


@nb.njit(_changes([nb.uint64, nb.uint64, nb.int64[::1]]), cache=True, **_INNER)
def count_digit_of_changes(row, base, prefix, shift, counts):
    """Add to counts[d] the number of magnitudes of `row - base` as float64 whose bits from `shift` on are `prefix`, a
    number of 16 bits less, and d."""
    sizes = np.empty(_SEGMENT, np.float64)
    words = sizes.view(np.uint64)
    for start in range(0, len(row), _SEGMENT):
        stop = min(start + _SEGMENT, len(row))
        for i in range(stop - start):
            sizes[i] = abs(np.float64(row[start + i] - base[start + i]))
        for i in range(stop - start):
            word = words[i] >> shift
            if (word >> np.uint64(16)) == prefix:
                counts[word & np.uint64(65535)] += 1


@nb.njit([nb.void(_row(kind), _row(kind), nb.float64, _row(kind)) for kind in _FLOATS], cache=True, **_INNER)
def trimmed_wide_changes(row, base, least, changes):
    """changes = row - base, times zero where its magnitude is below `least`."""
    unit = row.dtype.type(1)
    zero = row.dtype.type(0)
    for i in range(len(row)):
        change = row[i] - base[i]
        changes[i] = change * (unit if abs(np.float64(change)) >= least else zero)


@nb.njit(
    [nb.void(_row(kind), _row(kind), nb.float32, _row(kind)) for kind in _FLOATS],
    cache=True,
    **_INNER,
)
def trimmed_changes(row, base, least, changes):
    """changes = row - base, times zero where its magnitude as float32 is below `least`."""
    unit = row.dtype.type(1)
    zero = row.dtype.type(0)
    for i in range(len(row)):
        change = row[i] - base[i]
        changes[i] = change * (unit if abs(np.float32(change)) >= least else zero)


@nb.njit(**_INNER)
def _vote(delta, weight, sign, size):
    for i in range(len(delta)):
        vote = weight * delta[i]
        sign[i] += vote
        size[i] += abs(vote)


@nb.njit(**_INNER)
def _settle(deltas, weights, share, sign, size, parts):
    """Replace sums of votes that rounding may have turned round, or made of nothing, by what has their exact sign."""
    for i in range(len(sign)):
        if abs(sign[i]) <= share * size[i] and size[i] > 0:
            sign[i] = _leading(deltas[:, i], weights, parts)


@nb.njit(**_INNER)
def _leading(delta, weights, parts):
    """The largest part of the exact sum of the products, as parts that do not overlap (Shewchuk 1997)."""
    count = 0
    for member in range(len(delta)):
        high = weights[member] * delta[member]
        kept = 0
        for k in range(count):
            low = parts[k]
            if abs(high) < abs(low):
                high, low = low, high
            total = high + low
            rest = low - (total - high)
            if rest != 0:
                parts[kept] = rest
                kept += 1
            high = total
        parts[kept] = high
        count = kept + 1
    for k in range(count - 1, -1, -1):
        if parts[k] != 0:
            return parts[k]
    return parts[0]


@nb.njit(**_INNER)
def _hear(delta, weight, sign, total, heard):
    zero = delta.dtype.type(0)  # of the rows' type: a plain 0 would make float64 of all that it meets
    for i in range(len(delta)):
        own, up = delta[i], sign[i]
        agrees = ((up > zero) & (own > zero)) | ((up < zero) & (own < zero))
        share = weight if agrees else zero
        total[i] += share * own
        heard[i] += share


@nb.njit(**_INNER)
def _divide(total, heard):
    zero = total.dtype.type(0)
    unit = total.dtype.type(1)
    for i in range(len(total)):
        some = heard[i] > zero
        total[i] = (total[i] if some else zero) / (heard[i] if some else unit)


@nb.njit(
    [nb.void(nb.types.Array(kind, 2, "C"), _row(kind), _row(kind), _row(kind)) for kind in _FLOATS],
    cache=True,
    **_INNER,
)
def elect(deltas, weights, total, heard):
    """total = weighted mean of the deltas with the sign of the weighted sum, 0 without any."""
    members, count = deltas.shape
    signs, sizes, parts = (
        np.empty(_SEGMENT, weights.dtype),
        np.empty(_SEGMENT, weights.dtype),
        np.empty(members + 1, weights.dtype),
    )
    share = weights.dtype.type(members * (2.0**-23 if weights.itemsize == 4 else 2.0**-52))
    # Segments that stay in the fastest cache. Loops of one member each, without branches, become vectors.
    for start in range(0, count, _SEGMENT):
        stop = min(start + _SEGMENT, count)
        sign, size = signs[: stop - start], sizes[: stop - start]
        mean, weight_of = total[start:stop], heard[start:stop]
        sign[:], size[:], mean[:], weight_of[:] = 0, 0, 0, 0
        for member in range(members):
            _vote(deltas[member, start:stop], weights[member], sign, size)
        _settle(deltas[:, start:stop], weights, share, sign, size, parts)
        for member in range(members):
            _hear(deltas[member, start:stop], weights[member], sign, mean, weight_of)
        _divide(mean, weight_of)
