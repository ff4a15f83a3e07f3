"""Which of a few stored weights each of many weights is: an even map with signs (RandomFold)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["SharedSlots", "shared_slots"]

# Weights that stand together in memory are kept together, so many where the budget divides so.
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class SharedSlots:
    """A map of n weights to m stored ones, chunk by chunk.

    Attributes:
        n: how many weights there are.
        budget: how many are stored, m.
        chunk: weights that are mapped together.
        order: (ceil(n / chunk),) which chunk of the store each chunk of the weights is.
        signs: (ceil(n / chunk),) 1 or -1, what the stored chunk is multiplied with.
    """

    n: int
    budget: int
    chunk: int
    order: Ints
    signs: NDArray[np.int8]

    @property
    def slots(self) -> Ints:
        """(n,) the stored weight of each weight."""
        return (self.order[:, None] * self.chunk + np.arange(self.chunk)).reshape(-1)[: self.n]

    @property
    def loads(self) -> Ints:
        """(m,) how many weights each stored one stands for."""
        return np.bincount(self.slots, minlength=self.budget).astype(np.int64)


@helper
def shared_slots(n: int, budget: int, *, chunk: int | None = None, seed: int = 0) -> SharedSlots:
    """Map n weights to fewer stored ones, evenly, with random signs.

    The weights are cut into partitions as long as the store. The first is stored as it is; each further one is laid
    over the store in another order of chunks, with signs of their own. So each stored weight stands for as many weights
    as any other, give or take one, and where as many are stored as there are, nothing is shared.

    Args:
        n: how many weights there are.
        budget: how many are stored.
        chunk: weights that are mapped together, which reading them in memory is faster for; it divides the budget.
            Default the largest common divisor of the budget and 64.
        seed: whole number.

    Returns:
        `SharedSlots`.

    Raises:
        InputError: a budget above n, a chunk that does not divide the budget.

    Cost: O(n / chunk).

    Guarantee: loads differ by at most one between any two stored weights.

    References:
        Desai & Shrivastava 2024, "In defense of parameter sharing for model-compression", ICLR, arXiv 2310.11611.
        `kofn.nn.SharedWeights` trains a torch model so.

    Examples:
        >>> from kofn.allocation import shared_slots
        >>> shared = shared_slots(10, 4, chunk=2)
        >>> shared.slots[:4].tolist(), sorted(shared.loads.tolist())
        ([0, 1, 2, 3], [2, 2, 3, 3])
    """
    many, few = checks.count(n, "n"), checks.count(budget, "budget")
    if few > many:
        raise InputError(f"budget={few} is above n={many}: nothing is shared; give at most {many}")
    size = math.gcd(few, _CHUNK) if chunk is None else checks.count(chunk, "chunk")
    if few % size:
        raise InputError(f"chunk={size} does not divide budget={few}; give {few - few % size or size} or another chunk")
    rng = np.random.default_rng(checks.entropy(seed))
    stored, wanted = few // size, -(-many // size)
    order: Ints = np.empty(0, np.int64)
    signs: NDArray[np.int8] = np.empty(0, np.int8)
    while len(order) < wanted:
        first = not len(order)
        order = np.concatenate([order, np.arange(stored) if first else rng.permutation(stored)])
        signs = np.concatenate([signs, np.ones(stored, np.int8) if first else rng.choice([-1, 1], stored)]).astype(
            np.int8
        )
    return SharedSlots(many, few, size, order[:wanted].astype(np.int64), signs[:wanted])
