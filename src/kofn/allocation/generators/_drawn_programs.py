"""Families of mixed-integer programs that are drawn by a seed, at three hardnesses, to try and to train solvers on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.helpers import helper

__all__ = ["DrawnProgram", "drawn_program"]

KINDS = ("set_cover", "independent_set", "combinatorial_auction", "facility_location")
HARDNESSES = ("easy", "medium", "hard")

# Rows and columns of covers, nodes of graphs, goods and bids, facilities and customers.
_SIZES = {
    "set_cover": ((40, 200), (110, 550), (150, 750)),
    "independent_set": ((80, 0), (100, 0), (150, 0)),
    "combinatorial_auction": ((20, 100), (40, 200), (60, 300)),
    "facility_location": ((5, 10), (10, 20), (20, 40)),
}
# Share of ones in a cover, neighbours of a node, and how far the facilities together are above what is demanded.
_DENSITY, _DEGREE, _SPARE = 0.05, 6.0, 3.0


@dataclass(frozen=True, eq=False)
class DrawnProgram:
    """Minimise c @ x over low <= A @ x <= high within bounds, whole where `integrality` is 1.

    Attributes:
        c: (n,) costs; what is to be large has negative ones.
        A: (rows, n) sparse.
        low: (rows,).
        high: (rows,).
        bounds: (n, 2).
        integrality: (n,) 1 for whole variables, 0 for others.
        kind: the family.
        hardness: "easy", "medium" or "hard".
    """

    c: Floats
    A: Any
    low: Floats
    high: Floats
    bounds: Floats
    integrality: Array
    kind: str
    hardness: str

    @property
    def words(self) -> dict[str, Any]:
        """What `kofn.allocation.balans` takes: `balans(**program.words)`."""
        names = ("c", "A", "low", "high", "bounds", "integrality")
        return {name: getattr(self, name) for name in names}


@helper
def drawn_program(
    kind: Literal["set_cover", "independent_set", "combinatorial_auction", "facility_location"],
    hardness: Literal["easy", "medium", "hard"] = "easy",
    *,
    seed: int = 0,
) -> DrawnProgram:
    """One program of a family, drawn by the published generators; the hardness is its size.

    Args:
        kind: "set_cover" (costs of 1 to 100), "independent_set" (of a random graph), "combinatorial_auction" (bundles
            of goods that complement one another), or "facility_location" (with capacities; flows are no whole numbers).
        hardness: which of three sizes.
        seed: whole number.

    Returns:
        A `DrawnProgram`, which always has a point that keeps it.

    Cost: O(entries) of the program.

    References:
        Huang et al. 2024, "Distributional MIPLIB", arXiv 2406.06954 (families by hardness; there other sizes); Balas &
        Ho 1980 (covers), Bergman et al. 2016 (independent sets), Leyton-Brown et al. 2000 (auctions), Cornuejols et al.
        1991 (facilities).

    Examples:
        >>> from kofn.allocation import balans, drawn_program
        >>> program = drawn_program("independent_set", seed=1)
        >>> program.A.shape[1], program.c.min().item()
        (80, -1.0)
        >>> balans(**program.words, iterations=2).value < -20
        True
    """
    checks.choice(kind, "kind", KINDS)
    size = _SIZES[kind][HARDNESSES.index(checks.choice(hardness, "hardness", HARDNESSES))]
    rng = np.random.default_rng([checks.count(seed, "seed", least=0), KINDS.index(kind), size[0]])
    c, A, low, high, flows = _MAKERS[kind](rng, *size)
    whole = np.ones(len(c), np.int64)
    whole[len(c) - flows :] = 0
    bounds = np.stack([np.zeros(len(c)), np.where(whole == 1, 1.0, np.inf)], axis=1)
    return DrawnProgram(c, A, low, high, bounds, whole, kind, hardness)


def _set_cover(rng: np.random.Generator, rows: int, columns: int) -> tuple[Any, ...]:
    from scipy.sparse import csr_array

    table = rng.random((rows, columns)) < _DENSITY
    for row in np.flatnonzero(table.sum(axis=1) < 2):
        table[row, rng.choice(columns, 2, replace=False)] = True
    costs = rng.integers(1, 101, columns).astype(np.float64)
    return costs, csr_array(table.astype(np.float64)), np.ones(rows), np.full(rows, np.inf), 0


def _independent_set(rng: np.random.Generator, nodes: int, _: int) -> tuple[Any, ...]:
    from scipy.sparse import csr_array

    first, second = np.triu_indices(nodes, 1)
    joined = rng.random(len(first)) < _DEGREE / (nodes - 1)
    edges = int(joined.sum())
    ends = np.concatenate([first[joined], second[joined]])
    table = csr_array((np.ones(2 * edges), (np.tile(np.arange(edges), 2), ends)), shape=(edges, nodes))
    return -np.ones(nodes), table, np.full(edges, -np.inf), np.ones(edges), 0


def _combinatorial_auction(rng: np.random.Generator, goods: int, bids: int) -> tuple[Any, ...]:
    from scipy.sparse import csr_array

    held, worth, price = np.zeros((goods, bids)), np.zeros(bids), rng.uniform(1, 100, goods)
    for bid in range(bids):
        # Goods are added while a coin of 0.8 shows heads; bundles are worth more than their parts.
        bundle = rng.permutation(goods)[: int(rng.geometric(0.2))]
        held[bundle, bid] = 1
        own = price[bundle] * rng.uniform(0.5, 1.5, len(bundle))
        worth[bid] = round(float(own.sum() + len(bundle) ** 1.2))
    return -worth, csr_array(held), np.full(goods, -np.inf), np.ones(goods), 0


def _facility_location(rng: np.random.Generator, facilities: int, customers: int) -> tuple[Any, ...]:
    from scipy.sparse import csr_array

    demand = rng.integers(5, 36, customers).astype(np.float64)
    capacity = rng.integers(10, 161, facilities).astype(np.float64)
    # Rounded up, so that all facilities together can always serve everybody.
    capacity = np.ceil(capacity * _SPARE * demand.sum() / capacity.sum())
    opening = rng.integers(100, 111, facilities) * np.sqrt(capacity) + rng.integers(0, 91, facilities)
    apart = rng.random((facilities, 2))[:, None] - rng.random((customers, 2))[None]
    carrying = 10 * np.sqrt((apart**2).sum(axis=2)) * demand
    # Columns: which facilities open, then what share of each customer each of them serves.
    flows = facilities * customers
    served = np.zeros((customers, facilities + flows))
    within = np.zeros((facilities, facilities + flows))
    linked = np.zeros((flows, facilities + flows))
    for facility in range(facilities):
        pairs = facility * customers + np.arange(customers)
        served[np.arange(customers), facilities + pairs] = 1
        within[facility, facilities + pairs], within[facility, facility] = demand, -capacity[facility]
        linked[pairs, facilities + pairs], linked[pairs, facility] = 1, -1
    low = np.r_[np.ones(customers), np.full(facilities + flows, -np.inf)]
    high = np.r_[np.ones(customers), np.zeros(facilities + flows)]
    return np.r_[opening, carrying.ravel()], csr_array(np.vstack([served, within, linked])), low, high, flows


_MAKERS = {
    "set_cover": _set_cover,
    "independent_set": _independent_set,
    "combinatorial_auction": _combinatorial_auction,
    "facility_location": _facility_location,
}
