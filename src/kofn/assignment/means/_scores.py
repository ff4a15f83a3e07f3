"""What every unit gains in every group of a round of k-means, block by block: here, or in tasks of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Floats
from kofn.engines.base import Engine
from kofn.engines.opening import elsewhere, opened
from kofn.engines.threads import linear_algebra

# Rows of a block. Products are rounded as the shape of a block has it, so blocks are the same wherever they are made.
_BLOCK = 1 << 14


def scores_of(part: tuple[int, int], sums: Floats, mass: Floats, centers: Floats) -> Floats:
    """(rows, k) minus the squared distances to the centres, without the squares of the rows, which all groups share."""
    rows = slice(*part)
    scores: Floats = sums[rows] @ (2 * centers.T)
    scores -= np.outer(mass[rows], np.einsum("ij,ij->i", centers, centers))
    return scores


@dataclass(frozen=True)
class Scores:
    """The scores of all units for centres.

    Attributes:
        sums: (n, d) weighted sums of the units' rows.
        mass: (n,) their weights.
        engine: where blocks are made, None for here.
        shared: handles of both.
    """

    sums: Floats
    mass: Floats
    engine: Engine | None
    shared: tuple[Any, ...]

    @classmethod
    @contextmanager
    def opened(cls, engine: Any, sums: Floats, mass: Floats) -> Iterator[Scores]:
        """On the engine that a call names, while linear algebra takes one thread there and here."""
        if not elsewhere(engine):
            yield cls(sums, mass, None, ())
            return
        with opened(engine) as ran, linear_algebra(1):
            yield cls(sums, mass, ran, (ran.share(sums), ran.share(mass)))

    def __call__(self, centers: Floats) -> Floats:
        n = len(self.sums)
        parts = [(low, min(low + _BLOCK, n)) for low in range(0, n, _BLOCK)]
        if self.engine is None:
            blocks: Any = (scores_of(part, self.sums, self.mass, centers) for part in parts)
        else:
            blocks = self.engine.map(scores_of, parts, shared=(*self.shared, self.engine.share(centers)))
        if len(parts) == 1:
            (out,) = blocks
            whole: Floats = out
            # Results of other processes cannot be written to.
            return whole if whole.flags.writeable else whole.copy()
        out = np.empty((n, len(centers)))
        for (low, high), block in zip(parts, blocks, strict=True):
            out[low:high] = block
        return out

    @property
    def facts(self) -> dict[str, Any]:
        """Where they were made, for the plan's `info`."""
        return {} if self.engine is None else {"engine": self.engine.facts()}
