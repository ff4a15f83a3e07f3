"""Which of the rows that tie for the last place of a list are in it: the nearest by their lengths, then the lowest."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.runtime import Control
from kofn.objectives.similarity import Geometry


class Boundary:
    """Settles the last places of a row's list, which products that are rounded leave open.

    Args:
        space: the points.
        error: what a squared distance from products may be off by.
        compiled: whether lengths are those of the compiled loop, as the lengths of the lists are.
    """

    def __init__(self, space: Geometry, error: float, compiled: bool) -> None:
        self.space, self.doubt, self.compiled = space, 2 * error, compiled

    def nearest(self, products: Floats, first: int, count: int, control: Control) -> NDArray[np.int64]:
        """The `count` nearest of each row, in no order; ties go to the lowest row.

        Args:
            products: (rows, n) squared distances less what is the same for all of a row, infinite for the row itself.
            first: the number of the first of these rows.
            count: how many are listed.
            control: asked for each row that is settled.
        """
        near = np.argpartition(products, count - 1, axis=1)[:, :count]
        last = np.take_along_axis(products, near[:, -1:], axis=1)
        for row in np.flatnonzero((products <= last + self.doubt).sum(axis=1) > count).tolist():
            control.check()
            off = products[row] - last[row]
            sure, rivals = np.flatnonzero(off < -self.doubt), np.flatnonzero(np.abs(off) <= self.doubt)
            order = np.argsort(self._lengths_of_many(first + row, rivals), kind="stable")
            near[row] = np.concatenate([sure, rivals[order[: count - len(sure)]]])
        return near

    def _lengths_of_many(self, row: int, others: NDArray[np.int64]) -> Floats:
        """The lengths to others of which many may be equal: each is taken once."""
        alike = self._alike[others]
        wanted = np.zeros(self.space.n, bool)
        wanted[alike] = True
        kinds = np.flatnonzero(wanted)
        lengths = np.empty(self.space.n)
        lengths[kinds] = lengths_to(self.space, row, kinds, self.compiled)
        return lengths[alike]

    @functools.cached_property
    def _alike(self) -> NDArray[np.int64]:
        """(n,) the lowest row that is equal to each."""
        lowest: dict[bytes, int] = {}
        keys = (
            hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in self.space.rows
        )
        return np.array([lowest.setdefault(key, row) for row, key in enumerate(keys)])


def lengths_to(space: Geometry, row: int, others: NDArray[np.int64], compiled: bool = False) -> Floats:
    """The lengths (m,) from a row to others, from differences in float64: the same bits as those of the lists."""
    if compiled:
        from kofn.neighbors.graphs import _kernels

        out = np.empty(len(others))
        _kernels.lengths_to(row, space.rows, space.scale, others.astype(np.int32), out)
        return out
    gap = space.points(others) - space.points(slice(row, row + 1))
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", gap, gap))
    return lengths
