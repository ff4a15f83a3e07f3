"""Distributions of hard mixed-integer programs at three sizes, drawn by seed.

The same family, tag and seed give the same program. Families: set covers of Balas and Ho's costs, largest independent
sets of random graphs by their edges, combinatorial auctions after Leyton-Brown, Pearson and Shoham, and capacitated
facility location after Cornuejols, Sridharan and Thizy, whose flows are no whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAMILIES = ("cover", "independent set", "auction", "facility location")
TAGS = ("easy", "medium", "hard")
# Rows and columns, vertices, goods and bids, facilities and customers.
_SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "cover": ((40, 100), (80, 200), (110, 300)),
    "independent set": ((40, 0), (60, 0), (75, 0)),
    "auction": ((30, 100), (50, 200), (70, 300)),
    "facility location": ((4, 8), (7, 14), (10, 20)),
}


@dataclass(frozen=True)
class Program:
    """Minimise c @ x over low <= A @ x <= high and 0 <= x <= 1, x whole where `whole` is 1."""

    c: Floats
    A: Any
    low: Floats
    high: Floats
    whole: NDArray[np.int64]


def drawn(family: str, tag: str, seed: int) -> Program:
    """A program of a distribution."""
    rng = np.random.default_rng([seed, FAMILIES.index(family), TAGS.index(tag)])
    first, second = _SIZES[family][TAGS.index(tag)]
    if family == "cover":
        return _cover(rng, first, second)
    if family == "independent set":
        return _independent_set(rng, first)
    return _auction(rng, first, second) if family == "auction" else _facilities(rng, first, second)


def _cover(rng: np.random.Generator, rows: int, columns: int) -> Program:
    from scipy.sparse import csc_array

    table = rng.random((rows, columns)) < 0.05
    for row in np.flatnonzero(table.sum(axis=1) < 2):
        table[row, rng.choice(columns, 2, replace=False)] = True
    c = rng.integers(1, 101, columns).astype(np.float64)
    return Program(
        c, csc_array(table.astype(np.float64)), np.ones(rows), np.full(rows, np.inf), np.ones(columns, np.int64)
    )


def _independent_set(rng: np.random.Generator, vertices: int) -> Program:
    from scipy.sparse import csc_array

    edges = np.argwhere(np.triu(rng.random((vertices, vertices)) < 8 / vertices, 1))
    A = np.zeros((len(edges), vertices))
    A[np.arange(len(edges))[:, None], edges] = 1
    free = np.full(len(edges), -np.inf)
    return Program(-np.ones(vertices), csc_array(A), free, np.ones(len(edges)), np.ones(vertices, np.int64))


def _auction(rng: np.random.Generator, goods: int, bids: int) -> Program:
    from scipy.sparse import csc_array

    held, worth, price = np.zeros((goods, bids)), np.zeros(bids), rng.uniform(1, 100, goods)
    for bid in range(bids):
        bundle = rng.permutation(goods)[: min(goods, int(rng.geometric(0.2)))]
        held[bundle, bid] = 1
        own = price[bundle] * rng.uniform(0.5, 1.5, len(bundle))
        worth[bid] = round(float(own.sum() + len(bundle) ** 1.2))
    return Program(-worth, csc_array(held), np.full(goods, -np.inf), np.ones(goods), np.ones(bids, np.int64))


def _facilities(rng: np.random.Generator, facilities: int, customers: int) -> Program:
    """Shares of each customer's demand from each facility, after the facilities themselves."""
    from scipy.sparse import csc_array

    demand = rng.integers(5, 36, customers).astype(np.float64)
    room = rng.integers(10, 161, facilities).astype(np.float64)
    room = np.ceil(room * 2.0 * demand.sum() / room.sum())
    fixed = rng.integers(100, 111, facilities) * np.sqrt(room) + rng.integers(0, 91, facilities)
    places, homes = rng.random((facilities, 2)), rng.random((customers, 2))
    carried = 10 * np.linalg.norm(places[:, None] - homes[None], axis=2) * demand
    n = facilities + facilities * customers
    served = np.zeros((customers, n))
    within = np.zeros((facilities, n))
    opened = np.zeros((facilities * customers, n))
    for facility in range(facilities):
        first = facilities + facility * customers
        within[facility, facility] = -room[facility]
        within[facility, first : first + customers] = demand
        for customer in range(customers):
            served[customer, first + customer] = 1
            opened[facility * customers + customer, [facility, first + customer]] = -1, 1
    upper = facilities + facilities * customers
    return Program(
        c=np.concatenate([fixed, carried.ravel()]),
        A=csc_array(np.vstack([served, within, opened])),
        low=np.concatenate([np.ones(customers), np.full(upper, -np.inf)]),
        high=np.concatenate([np.ones(customers), np.zeros(upper)]),
        whole=np.concatenate([np.ones(facilities, np.int64), np.zeros(facilities * customers, np.int64)]),
    )
