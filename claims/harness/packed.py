"""Layers that are stored in groups: pruned by a mask, rounded to a few bits with a scale for each group, and packed.

Every way of storing gets the same calibration: columns are rounded in turn, and what a column is off is made up for by
the columns after it, as the inputs' products say (Frantar et al. 2023). What is stored is counted in bits, and packed
into bytes from which the weights come back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]

GROUP, SCALE_BITS, TAG_BITS, DAMPING = 16, 16, 3, 0.01


@dataclass(frozen=True)
class Stored:
    """A layer as it is stored.

    Attributes:
        weights: (outputs, inputs) what is read back.
        bits: what is stored takes so many.
        packed: the codes, indices, scales and zero points as bytes; empty where they were not asked for.
    """

    weights: Floats
    bits: int
    packed: bytes


def damped(inputs: Floats) -> Floats:
    """The inputs' mean products, with a hundredth of their mean square on the diagonal."""
    gram = inputs.T @ inputs / len(inputs)
    out: Floats = gram + DAMPING * np.trace(gram) / len(gram) * np.eye(len(gram))
    return out


def saliency(weights: Floats, gram: Floats) -> Floats:
    """(outputs, inputs) what leaving out a weight changes the output by at least: w^2 over the inverse's diagonal."""
    out: Floats = weights**2 / np.diag(np.linalg.inv(gram))
    return out


def grouped(weights: Floats, gram: Floats, count: int, rng: np.random.Generator | None = None) -> Mask:
    """True for the `count` groups of most saliency in the layer; drawn at random where `rng` is given."""
    worth = saliency(weights, gram).reshape(len(weights), -1, GROUP).sum(axis=2)
    order = np.argsort(-worth, axis=None, kind="stable") if rng is None else rng.permutation(worth.size)
    kept = np.zeros(worth.size, bool)
    kept[order[:count]] = True
    return np.repeat(kept.reshape(worth.shape), GROUP, axis=1)


def two_of_four(weights: Floats, gram: Floats) -> Mask:
    """True for the two of each four inputs in a row that have most saliency."""
    outputs, inputs = weights.shape
    worth = saliency(weights, gram).reshape(outputs, -1, 4)
    rank = np.argsort(np.argsort(-worth, axis=2, kind="stable"), axis=2, kind="stable")
    return np.asarray((rank < 2).reshape(outputs, inputs))


def compensated(weights: Floats, gram: Floats, mask: Mask, width: Ints) -> tuple[Floats, Ints, Floats, Floats]:
    """Weights read back, codes, and scale and zero point of each group; later columns make up for earlier ones.

    Args:
        weights: (outputs, inputs).
        gram: (inputs, inputs), damped.
        mask: True for what is kept.
        width: (outputs, groups) bits of each group.
    """
    work = weights.copy()
    upper = np.linalg.cholesky(np.linalg.inv(gram)).T
    out, codes = np.zeros_like(work), np.zeros(work.shape, np.int64)
    scales, zeros = np.ones(width.shape), np.zeros(width.shape)
    for column in range(work.shape[1]):
        group = column // GROUP
        most = 2.0 ** width[:, group] - 1
        if column % GROUP == 0:
            own = np.where(mask, work, np.nan)[:, column : column + GROUP]
            with np.errstate(all="ignore"):
                low, high = np.fmin(np.fmin.reduce(own, axis=1), 0), np.fmax(np.fmax.reduce(own, axis=1), 0)
            low, high = np.nan_to_num(low), np.nan_to_num(high)
            scale = np.maximum((high - low) / np.maximum(most, 1), 1e-8)
            scales[:, group] = scale.astype(np.float16).astype(np.float64).clip(6.2e-5)
            zeros[:, group] = np.round(-low / scales[:, group]).clip(0, most)
        scale, zero = scales[:, group], zeros[:, group]
        code = np.round(work[:, column] / scale + zero).clip(0, most)
        kept = mask[:, column]
        codes[:, column] = np.where(kept, code, 0)
        out[:, column] = np.where(kept, (code - zero) * scale, 0.0)
        off = (work[:, column] - out[:, column]) / upper[column, column]
        work[:, column + 1 :] -= off[:, None] * upper[column, column + 1 :]
    return out, codes, scales, zeros


def refitted(weights: Floats, gram: Floats, kept: Mask) -> Floats:
    """What is kept of each row, moved so that the row's outputs change the least: least squares, row by row."""
    if kept.all():
        return weights
    out, wanted = np.zeros_like(weights), weights @ gram
    for row, own in enumerate(kept):
        if own.any():
            out[row, own] = np.linalg.solve(gram[np.ix_(own, own)], wanted[row, own])
    return out


def stored(weights: Floats, gram: Floats, kept: Mask, bits: int | Ints, *, pattern: str, pack: bool = False) -> Stored:
    """Store a layer after `refitted`, in one of four forms; the bytes are made only with `pack`.

    Args:
        weights: (outputs, inputs).
        gram: (inputs, inputs), damped.
        kept: True for what is kept.
        bits: of all groups; of "mixed" (outputs, groups), 0 for a group that is left out.
        pattern: "dense" (all groups), "groups" (kept ones and their numbers), "2:4" (an index of 2 bits a weight), or
            "mixed" (the width of each group in 3 bits).
        pack: whether to make the bytes.
    """
    outputs, inputs = weights.shape
    groups = inputs // GROUP
    width: Ints = np.broadcast_to(np.asarray(bits, np.int64), (outputs, groups))
    out, codes, scales, zeros = compensated(refitted(weights, gram, kept), gram, kept, width)
    whole: Mask = np.asarray(kept.reshape(outputs, groups, GROUP).any(axis=2))
    packed = _packed(_fields(kept, whole, width, codes, scales, zeros, pattern)) if pack else b""
    return Stored(out, counted(kept, width, pattern), packed)


def counted(kept: Mask, width: Ints, pattern: str) -> int:
    """The bits that a layer takes: codes, and for each group that is kept a scale of 16 bits and a zero point."""
    outputs, inputs = kept.shape
    groups = inputs // GROUP
    whole: Mask = np.asarray(kept.reshape(outputs, groups, GROUP).any(axis=2))
    codes = int((kept.reshape(outputs, groups, GROUP).sum(axis=2) * width).sum())
    bits = codes + int((whole * (SCALE_BITS + width)).sum())
    if pattern == "groups":
        bits += outputs * _bits_of(groups) + int(whole.sum()) * _bits_of(groups - 1)
    if pattern == "2:4":
        bits += 2 * int(kept.sum())
    return bits + (TAG_BITS * whole.size if pattern == "mixed" else 0)


def _fields(
    kept: Mask, whole: Mask, width: Ints, codes: Ints, scales: Floats, zeros: Floats, pattern: str
) -> list[tuple[int, int]]:
    """All that is stored, one number after the other, and the bits of each."""
    outputs, groups = whole.shape
    fields: list[tuple[int, int]] = []
    if pattern == "mixed":
        fields += [(value, TAG_BITS) for value in np.where(whole, width, 0).ravel().tolist()]
    for row in range(outputs):
        own = np.flatnonzero(whole[row])
        if pattern == "groups":
            fields.append((len(own), _bits_of(groups)))
        for group in own.tolist():
            most = int(width[row, group])
            if pattern == "groups":
                fields.append((group, _bits_of(groups - 1)))
            fields.append((int(np.float16(scales[row, group]).view(np.uint16)), SCALE_BITS))
            fields.append((int(zeros[row, group]), most))
            inside = range(group * GROUP, (group + 1) * GROUP)
            if pattern == "2:4":
                fields += [(column % 4, 2) for column in inside if kept[row, column]]
            fields += [(int(codes[row, column]), most) for column in inside if kept[row, column]]
    return fields


def unpacked(packed: bytes, shape: tuple[int, int], bits: int, *, pattern: str) -> Floats:
    """The weights of a layer that was stored as "dense", "groups" or "2:4"."""
    outputs, inputs = shape
    groups, out = inputs // GROUP, np.zeros(shape)
    stream = np.unpackbits(np.frombuffer(packed, np.uint8))
    position = 0

    def take(length: int) -> int:
        nonlocal position
        value = int("".join(map(str, stream[position : position + length])) or "0", 2)
        position += length
        return value

    for row in range(outputs):
        count = take(_bits_of(groups)) if pattern == "groups" else groups
        for number in range(count):
            group = take(_bits_of(groups - 1)) if pattern == "groups" else number
            scale, zero = float(np.uint16(take(SCALE_BITS)).view(np.float16)), take(bits)
            first = group * GROUP
            columns = [first + i for i in range(GROUP)]
            if pattern == "2:4":
                columns = [first + i // 2 * 4 + take(2) for i in range(GROUP // 2)]
            for column in columns:
                out[row, column] = (take(bits) - zero) * scale
    return out


def _bits_of(most: int) -> int:
    """How many bits numbers from 0 to `most` take."""
    return max(1, most.bit_length())


def _packed(fields: list[tuple[int, int]]) -> bytes:
    text = "".join(format(value, f"0{length}b") for value, length in fields if length)
    return np.packbits(np.array(list(text), dtype="U1").astype(np.uint8)).tobytes() if text else b""
