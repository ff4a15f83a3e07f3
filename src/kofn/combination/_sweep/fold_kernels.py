"""Compiled loop of a fold: an update added to bfloat16 weights, rounded once and looked through for infinities."""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.extending import intrinsic

_SEGMENT = 2048  # entries that are looked through again where one of them is half-way
_INNER = {"nogil": True, "error_model": "numpy"}


def _same_bits(target):
    """A compiled function that reads the bits of a number as another type, which NumPy does by a view."""

    @intrinsic
    def cast(typing, value):  # noqa: ARG001, Numba gives both
        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return target(value), generate

    return cast


_float_of, _bits_of = _same_bits(nb.float32), _same_bits(nb.uint32)


@nb.njit(**_INNER)
def _wide(word):
    """A bfloat16, given by its bits, in float64."""
    return np.float64(_float_of(np.uint32(np.uint32(word) << np.uint32(16))))


@nb.njit(**_INNER)
def _settle(words, update, out):
    """Round by their float64 sums the entries whose float32 sums are half-way between two bfloat16."""
    for j in range(len(words)):
        total = _wide(words[j]) + update[j]
        single = np.float32(total)
        bits = _bits_of(single)
        if bits & np.uint32(0xFFFF) != np.uint32(0x8000):
            continue
        exact, through = abs(total), abs(np.float64(single))
        below = bits >> np.uint32(16)  # the neighbour nearer to zero
        up = exact > through or (exact == through and below % np.uint32(2) == np.uint32(1))
        out[j] = np.uint16(below + np.uint32(up))


@nb.njit(**_INNER)
def _round(words, update, out):
    """The sums, rounded from float32; whether one of these is half-way."""
    halfway = np.uint32(0)
    for j in range(len(words)):
        bits = _bits_of(np.float32(_wide(words[j]) + update[j]))
        halfway |= np.uint32((bits & np.uint32(0xFFFF)) == np.uint32(0x8000))
        up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        out[j] = np.uint16((bits + up) >> np.uint32(16))
    return halfway != 0


@nb.njit(**_INNER)
def _sum(words, update, out):
    """The rounded sums; False where one is not finite."""
    if _round(words, update, out):
        _settle(words, update, out)
    infinite = np.uint16(0)
    for j in range(len(out)):
        infinite |= np.uint16((out[j] & np.uint16(0x7F80)) == np.uint16(0x7F80))
    return infinite == 0


@nb.njit("b1(u2[::1],f8[::1],u2[::1])", cache=True, **_INNER)
def add_rounded(words, update, out):
    """Make `out` the bits of `words + update`, where words are the bits of bfloat16; False where one is not finite.

    Each sum is in float64 and becomes the nearest bfloat16, ties to even. It is rounded by way of float32. Where that
    float32 lies half-way between two bfloat16, in one entry of 65,536, the float64 sum decides.
    """
    finite = True
    for start in range(0, len(words), _SEGMENT):
        stop = min(start + _SEGMENT, len(words))
        finite &= _sum(words[start:stop], update[start:stop], out[start:stop])
    return finite
