"""What a stranger writes to add a stepper: this file and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from kofn.core import checks
from kofn.core.plans import Selection
from kofn.core.stepper import Example, Stepper, new_keys, stepper


def _example(rng: np.random.Generator) -> Example:
    k = int(rng.integers(1, 4))
    return Example(lambda seed: ReservoirSample(k, seed=seed), rows=lambda rng, m: rng.normal(size=(m, 2)))


@stepper(
    "select",
    paper="Vitter 1985, Random Sampling with a Reservoir",
    cost="O(1) an item; memory O(items) for their ids",
    exact="every item seen is held with the same chance",
    events=("insert",),
    aliases=("reservoir sampling",),
    draws=_example,
)
class ReservoirSample(Stepper[Selection]):
    """Keep a uniform sample of k items of a stream.

    Args:
        k: how many to keep.
        seed: whole number.
    """

    state: ClassVar = {"ids": "items", "picks": "picks", "rng": ""}
    states_no_value = True

    def __init__(self, k: int, *, seed: int | None = None) -> None:
        self.k = checks.count(k)
        super().__init__(k=self.k, seed=checks.entropy(seed))
        self._ids: list[Any] = []
        self._picks: list[int] = []
        self._rng = np.random.default_rng(self.seed)

    def insert(self, ids: Any, X: Any) -> None:
        """Show the next items: ids that did not come before, and their rows (m, d), which are not looked at."""
        keys = new_keys(ids, self._ids)
        checks.same_length(len(checks.matrix(X)), "X", "ids", len(keys))
        for key in keys:
            place = len(self._picks) if len(self._ids) < self.k else int(self._rng.integers(len(self._ids) + 1))
            if place < self.k:
                self._picks[place : place + 1] = [len(self._ids)]
            self._ids.append(key)

    def _plan(self) -> Selection:
        picks = np.array(self._picks, np.int64)
        return Selection(n=len(self._ids), indices=picks, gains=np.full(len(picks), np.nan), ids=np.array(self._ids))
