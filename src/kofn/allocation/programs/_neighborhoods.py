"""Neighbourhoods of a point of a mixed-integer program: each is a smaller program whose optimum may be better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.allocation.programs._mixed_integer import Program
from kofn.core.arrays import Floats, Mask

# Values nearer than this are the same.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Search:
    """What a neighbourhood may look at.

    Attributes:
        program: the whole program.
        point: (n,) the point that is to be improved.
        relaxed: (n,) the optimum of the linear relaxation.
        others: points that were accepted before, the newest last.
        rng: draws which variables are free.
        limits: seconds and nodes that the smaller program may take.
    """

    program: Program
    point: Floats
    relaxed: Floats
    others: Sequence[Floats]
    rng: np.random.Generator
    limits: dict[str, Any]

    def of_free(self, whole_free: Mask) -> Floats | None:
        """The best point where only these integers and all other variables move."""
        return self.program.solved(free=whole_free | ~self.program.whole, around=self.point, **self.limits)[0]

    def some_of(self, mask: Mask, share: float) -> Mask:
        """A random share of the masked variables, at least one of them."""
        rows = np.flatnonzero(mask)
        out = np.zeros(len(mask), bool)
        out[self.rng.permutation(rows)[: max(1, math.ceil(share * len(rows)))]] = True
        return out


Neighborhood = Callable[[Search, float], Floats | None]


def mutation(search: Search, share: float) -> Floats | None:
    """A random share of the integers is free."""
    return search.of_free(search.some_of(search.program.whole, share))


def rins(search: Search, share: float) -> Floats | None:
    """Relaxation-induced: integers where the point differs from the relaxation are free, and a share of the others."""
    differs = search.program.whole & (np.abs(search.point - search.relaxed) > _SAME)
    others = search.program.whole & ~differs
    return search.of_free(differs | search.some_of(others, share) if others.any() else differs)


def rens(search: Search, share: float) -> Floats | None:
    """Relaxation-enforced: integers that the relaxation leaves fractional are free, and a share of the others; all
    others are at their value in the relaxation, wherever the point is."""
    program = search.program
    fractional = program.whole & (np.abs(search.relaxed - np.round(search.relaxed)) > _SAME)
    others = program.whole & ~fractional
    free = fractional | ~program.whole | (search.some_of(others, share) if others.any() else False)
    around = np.where(program.whole, np.round(search.relaxed), search.relaxed)
    return program.solved(free=free, around=around, **search.limits)[0]


def crossover(search: Search, share: float) -> Floats | None:
    """Integers on which the point and an earlier one differ are free, and a share of the others."""
    earlier = [other for other in search.others if not np.array_equal(other, search.point)]
    if not earlier:
        return mutation(search, share)
    other = earlier[int(search.rng.integers(len(earlier)))]
    differs = search.program.whole & (np.abs(search.point - other) > _SAME)
    same = search.program.whole & ~differs
    return search.of_free(differs | search.some_of(same, share) if same.any() else differs)


def local_branching(search: Search, share: float) -> Floats | None:
    """At most a share of the zeros and ones change."""
    row, at_zero = _distance(search)
    most = max(1, math.floor(share * int(search.program.binary.sum())))
    return search.program.solved(extra=(row, most - at_zero), **search.limits)[0]


def proximity(search: Search, share: float) -> Floats | None:
    """The nearest point, by zeros and ones that change, whose cost is lower by a share of the cost."""
    value = search.program.value(search.point)
    drop = share * max(abs(value), 1.0)
    row, _ = _distance(search)
    return search.program.solved(costs=row, extra=(search.program.c, value - drop), **search.limits)[0]


def _distance(search: Search) -> tuple[Floats, float]:
    """The row that, with its constant, counts the zeros and ones that change."""
    binary, ones = search.program.binary, search.point > 0.5
    row = np.where(binary, np.where(ones, -1.0, 1.0), 0.0)
    return row, float((binary & ones).sum())


# What the bandit chooses from: a name, the neighbourhood and how large it is.
NEIGHBORHOODS: dict[str, tuple[Neighborhood, float]] = {
    "mutation_10": (mutation, 0.1),
    "mutation_25": (mutation, 0.25),
    "mutation_50": (mutation, 0.5),
    "rins_5": (rins, 0.05),
    "rins_25": (rins, 0.25),
    "rens_10": (rens, 0.1),
    "crossover_5": (crossover, 0.05),
    "crossover_25": (crossover, 0.25),
    "local_branching_10": (local_branching, 0.1),
    "local_branching_25": (local_branching, 0.25),
    "proximity_1": (proximity, 0.01),
    "proximity_5": (proximity, 0.05),
}
# Those that count zeros and ones.
OF_BINARIES = ("local_branching_10", "local_branching_25", "proximity_1", "proximity_5")
