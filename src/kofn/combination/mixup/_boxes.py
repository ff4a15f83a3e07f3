"""CutMix's boxes: the part of an image that comes from the second of a pair."""

from __future__ import annotations

import numpy as np

from kofn.core.arrays import Array, Floats, Ints


def draw_boxes(ratios: Floats, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Ints, Floats]:
    """A box for each pair, and the share of the image outside of it.

    A box has the image's proportions, 1 - ratio of its area and its centre anywhere; what lies beyond the image is cut
    off, so that the share kept is at least the ratio but for rounding to whole pixels.

    Returns:
        (m, 4) top, bottom, left, right, half open; (m,) shares, exact.
    """
    height, width = shape
    side = np.sqrt(1 - ratios)
    boxes = np.empty((len(ratios), 4), np.int64)
    for column, length in ((0, height), (2, width)):
        size = (side * length).astype(np.int64)
        begin = rng.integers(0, length, len(ratios)) - size // 2
        boxes[:, column] = np.clip(begin, 0, length)
        boxes[:, column + 1] = np.clip(begin + 2 * (size // 2), 0, length)
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    return boxes, 1 - area / (height * width)


def inside(boxes: Ints, shape: tuple[int, int]) -> Array:
    """(m, height, width) True within each box."""
    down, across = (np.arange(length)[None, :] for length in shape)
    rows = (down >= boxes[:, :1]) & (down < boxes[:, 1:2])
    columns = (across >= boxes[:, 2:3]) & (across < boxes[:, 3:])
    out: Array = rows[:, :, None] & columns[:, None, :]
    return out
