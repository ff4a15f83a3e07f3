"""Compiled loops over groups of weights: what rounding to 2..8 bits costs, and the rounded weights themselves.

A group of weights has one scale, kept in the dtype of the weights. Symmetric numbers run from -2^(b-1) to 2^(b-1) - 1
at a scale of max|w| / ((2^b - 1) / 2); affine ones from 0 to 2^b - 1 at (max - min) / (2^b - 1) about a whole zero
point, where the range always holds 0. That is what compressed-tensors computes, division included.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

# Sums over a group are added up in vectors; nothing else may be reordered.
_SUMS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz"}}
_INNER: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2


@nb.njit(**_INNER)
def _kept(scale, kind):
    """The scale as its dtype holds it."""
    if kind == BFLOAT16:
        word = np.empty(1, np.float32)
        word[0] = scale
        bits = word.view(np.uint32)
        bits[0] = (bits[0] + np.uint32(32767) + ((bits[0] >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return word[0]
    if kind == FLOAT16:
        if scale < np.float32(2.0**-14):
            return np.float32(np.rint(scale * np.float32(2.0**24)) * np.float32(2.0**-24))
        word = np.empty(1, np.float32)
        word[0] = scale
        bits = word.view(np.uint32)
        bits[0] = (bits[0] + np.uint32(4095) + ((bits[0] >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
        return min(word[0], np.float32(65504.0))
    return scale


@nb.njit(**_INNER)
def _grid(low, high, bits, symmetric, kind):
    """Scale, zero point, least and largest number of a group whose weights lie in [low, high], 0 among them."""
    count = np.float32((1 << bits) - 1)
    if symmetric:
        half = np.float32(1 << (bits - 1))
        scale = _kept(max(-low, high) / (count / np.float32(2)), kind)
        return scale, np.float32(0), -half, half - np.float32(1)
    scale = _kept((high - low) / count, kind)
    zero = np.float32(0)
    if scale > 0:
        zero = min(max(np.rint(-low / scale), np.float32(0)), count)
    return scale, zero, np.float32(0), count


@nb.njit(**_SUMS)
def _range(group):
    low, high = np.float32(0), np.float32(0)
    for j in range(len(group)):
        low = min(low, group[j])
        high = max(high, group[j])
    return low, high


@nb.njit(**_SUMS)
def _squares(group):
    total = np.float32(0)
    for j in range(len(group)):
        total += group[j] * group[j]
    return total


@nb.njit(**_SUMS)
def _weighted_squares(group, weights):
    total = np.float32(0)
    for j in range(len(group)):
        total += weights[j] * group[j] * group[j]
    return total


@nb.njit(**_SUMS)
def _error(group, scale, zero, least, most):
    total = np.float32(0)
    for j in range(len(group)):
        number = min(max(np.rint(group[j] / scale) + zero, least), most)
        gap = (number - zero) * scale - group[j]
        total += gap * gap
    return total


@nb.njit(**_SUMS)
def _weighted_error(group, weights, scale, zero, least, most):
    total = np.float32(0)
    for j in range(len(group)):
        number = min(max(np.rint(group[j] / scale) + zero, least), most)
        gap = (number - zero) * scale - group[j]
        total += weights[j] * gap * gap
    return total


_GROUPS = nb.types.Array(nb.float32, 2, "C")


@nb.njit([nb.void(_GROUPS, nb.int64[::1], nb.int64, nb.float64[:, ::1], nb.float64[::1])], cache=True, **_INNER)
def add_errors(groups, widths, kind, errors, squares):
    """Add to errors[s, i] the squared error of rounding to widths[i] bits, affine (s=0) and symmetric (s=1).

    squares[0] gains the weights' own sum of squares.
    """
    for g in range(len(groups)):
        group = groups[g]
        low, high = _range(group)
        own = _squares(group)
        squares[0] += own
        for symmetric in range(2):
            for i in range(len(widths)):
                scale, zero, least, most = _grid(low, high, widths[i], symmetric == 1, kind)
                errors[symmetric, i] += _error(group, scale, zero, least, most) if scale > 0 else own


@nb.njit(
    [nb.void(_GROUPS, _GROUPS, nb.int64, nb.int64[::1], nb.int64, nb.float64[:, ::1], nb.float64[::1])],
    cache=True,
    **_INNER,
)
def add_weighted_errors(groups, weights, first, widths, kind, errors, squares):
    """`add_errors`, each weight's square times its weight; group g has row first + g of `weights`, in turn."""
    for g in range(len(groups)):
        group, weight = groups[g], weights[(first + g) % len(weights)]
        low, high = _range(group)
        own = _weighted_squares(group, weight)
        squares[0] += own
        for symmetric in range(2):
            for i in range(len(widths)):
                scale, zero, least, most = _grid(low, high, widths[i], symmetric == 1, kind)
                errors[symmetric, i] += _weighted_error(group, weight, scale, zero, least, most) if scale > 0 else own


@nb.njit([nb.void(_GROUPS, nb.int64, nb.boolean, nb.int64, _GROUPS)], cache=True, **_INNER)
def round_groups(groups, bits, symmetric, kind, rounded):
    """Make `rounded` what the groups are after rounding to so many bits."""
    for g in range(len(groups)):
        group, out = groups[g], rounded[g]
        low, high = _range(group)
        scale, zero, least, most = _grid(low, high, bits, symmetric, kind)
        if scale > 0:
            for j in range(len(group)):
                out[j] = (min(max(np.rint(group[j] / scale) + zero, least), most) - zero) * scale
        else:
            out[:] = 0


@nb.njit([nb.void(nb.types.Array(nb.uint16, 1, "C"), nb.types.Array(nb.uint32, 1, "C"))], cache=True, **_INNER)
def widen(words, bits):
    """The bits of float32 that bfloat16 words stand for."""
    for i in range(len(words)):
        bits[i] = np.uint32(words[i]) << np.uint32(16)


@nb.njit(
    [nb.void(nb.types.Array(nb.float32, 1, "C"), nb.int64[::1], nb.float64[::1])],
    cache=True,
    **_INNER,
)
def count_scores(scores, counts, sums):
    """Add each score (>= 0) to the bin of the upper half of its bits: how many, and their sum."""
    words = scores.view(np.uint32)
    for i in range(len(scores)):
        key = words[i] >> np.uint32(16)
        counts[key] += 1
        sums[key] += scores[i]
