"""Assortments along descending price: the order is enumerated, and the threshold passes are held against the optimum.

Markets are the paper's own random ones, diamonds (prices as they are, utilities from a regression of the price on the
attributes), and traps: a staple that everybody wants, and decoys whose gains look better to greedy than those of dear
items, which earn little alone and much together. The optimum is found by looking at every set, and on larger markets
under a count by Dinkelbach's fixed point, which is exact there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.runs import derive, spread

EPS = 0.1
SHARES = {"k": 0.5 / (1 + EPS), "budget": 1 / 3 / (1 + EPS), "quotas": 0.25}
# Rounding of a revenue that is summed another way.
ROUNDING = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Market:
    """Items for sale: prices, attractions exp(utility), whole shelf space, and kinds."""

    prices: Floats
    pull: Floats
    space: Ints
    kinds: Ints

    @property
    def n(self) -> int:
        """How many items."""
        return len(self.prices)


@claim(
    paper=298,
    says="The best-part revenue of multinomial logit has descending price as its submodular order without exception, "
    "though plain submodularity fails on many markets, and threshold passes in that order never earn less than "
    "1/2 (under k), 1/3 (budget), 1/4 (quotas) of the optimum, where the dearest items may earn next to nothing and "
    "greedy, which has no guarantee, less than 2/3 of it",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """The order by enumeration, the guarantee by brute force; broken: the order of the passes is ascending price."""
    times = 1 if scale == "small" else 6
    measured: Figures = {}
    kinds = ("paper", "diamonds")
    orders = {
        kind: spread(functools.partial(_order, kind=kind, broken=broken), derive(seed, 40 * times, stream=1 + place))
        for place, kind in enumerate(kinds)
    }
    for kind, found in orders.items():
        measured[f"order, {kind}"] = {
            "markets of 6 items": len(found),
            "with a violation along the order": sum(row["along"] > 0 for row in found),
            "violations along the order": sum(row["along"] for row in found),
            "not submodular at all": sum(row["anywhere"] > 0 for row in found),
        }
    sound = all(row["along"] == 0 for found in orders.values() for row in found)
    plain = np.mean([row["anywhere"] > 0 for found in orders.values() for row in found])
    measured["share of markets that are not submodular"] = round(float(plain), 3)

    work = {"paper": 24 * times, "diamonds": 24 * times, "trap": 10 * times, "large diamonds": 4 * times}
    guaranteed, worst = True, {"greedy": math.inf, "dearest": math.inf}
    for place, (kind, count) in enumerate(work.items()):
        rows = spread(functools.partial(_trial, kind=kind, broken=broken), derive(seed, count, stream=11 + place))
        for constraint in rows[0]:
            mine = [row[constraint] for row in rows]
            rules = ("order", "greedy") if constraint == "quotas" else ("order", "greedy", "dearest")
            shares = {name: np.array([run[name] for run in mine]) for name in rules}
            bounds = [run["bound"] for run in mine]
            met = bool(shares["order"].min() >= SHARES[constraint] - ROUNDING)
            enclosed = all(bound is not None and bound >= 1 - ROUNDING for bound in bounds)
            guaranteed &= met and enclosed
            if constraint == "k":
                worst = {name: min(least, float(shares[name].min())) for name, least in worst.items()}
            measured[f"{kind}, {constraint}"] = {
                "markets": count,
                **{f"{name}, least": round(float(found.min()), 4) for name, found in shares.items()},
                **{f"{name}, mean": round(float(found.mean()), 4) for name, found in shares.items()},
                "bound over optimum, mean": None if None in bounds else round(float(np.mean(bounds)), 3),
                "gains evaluated, for each item": round(float(np.mean([run["looks"] for run in mine])), 1),
            }
    measured["least share of the optimum under k"] = {name: round(least, 4) for name, least in worst.items()}
    told = worst["dearest"] < SHARES["k"] and worst["greedy"] < 2 / 3
    return Evidence(
        holds=bool(sound and plain >= 0.2 and guaranteed and told),
        measured=measured,
        expected="no violation along descending price in any market, a violation of plain submodularity in at least a "
        "fifth of them; on every market the passes' share of the optimum at least 1/2 (k), 1/3 (budget), both over "
        "1.1, and 1/4 (quotas), and the plan's bound at least the optimum; under k, somewhere the k dearest items "
        "below 1/2 over 1.1 and greedy below 2/3",
        baseline="greedy on the same function, evaluating every candidate at every step (nothing to tune); the best "
        "prefix of the items by price that fits",
        kind="measured",
    )


def _order(seed: int, *, kind: str, broken: bool) -> dict[str, int]:
    """How often a gain rises: along the order, and anywhere. B inside A, then one element later than all of A.

    One later element at a time is enough, since a later set's gain is the sum of its elements', each after the earlier.
    """
    market = _market(kind, np.random.default_rng(seed), 6)
    value = _values(market)
    ranked = np.argsort(market.prices if broken else -market.prices, kind="stable")
    rank = np.argsort(ranked)
    along = anywhere = 0
    for a in range(2**6):
        held = [item for item in range(6) if a >> item & 1]
        for c in range(6):
            if a >> c & 1:
                continue
            later = all(rank[item] < rank[c] for item in held)
            gain, b = value[a | 1 << c] - value[a], a
            while b:
                b = (b - 1) & a
                rises = gain > value[b | 1 << c] - value[b] + ROUNDING
                anywhere += rises
                along += rises and later
    return {"along": int(along), "anywhere": int(anywhere)}


def _trial(seed: int, *, kind: str, broken: bool) -> dict[str, Figures]:
    """The passes, greedy and the dearest items on one market, as shares of the optimum, under each constraint."""
    rng = np.random.default_rng(seed)
    small = kind != "large diamonds"
    k = {"trap": 8, "large diamonds": 25}.get(kind, 4)
    market = _trap(rng, k) if kind == "trap" else _market(kind.split()[-1], rng, 12 if small else 3000)
    calls: dict[str, Figures] = {"k": {"k": k}}
    if kind in ("paper", "diamonds"):
        calls["budget"] = {"costs": market.space, "budget": int(market.space[rng.permutation(market.n)[:k]].sum())}
        calls["quotas"] = {"k": k, "groups": market.kinds, "quotas": _quotas(market, k, rng)}
    order = np.argsort(market.prices if broken else -market.prices, kind="stable")
    values = _values(market) if small else None
    rows = {}
    for name, call in calls.items():
        best = _best(market, values, call) if values is not None else dinkelbach(market, k)
        if values is not None and name == "k":
            assert math.isclose(best, dinkelbach(market, k), rel_tol=ROUNDING)
        words = {"scores": market.prices, "weights": market.pull, "objective": "mnl_revenue", **call}
        ours = kofn.select(method="order_threshold", order=order, eps=EPS, **words)
        greedy = kofn.select(method="naive_greedy", **words)
        rows[name] = {
            "order": ours.value / best,
            "greedy": greedy.value / best,
            # Under quotas the dearest items need not even be feasible.
            "dearest": math.nan if name == "quotas" else _dearest(market, call) / best,
            "bound": None if ours.bound is None else ours.bound / best,
            "looks": ours.info["oracle_calls"] / market.n,
        }
    return rows


def _market(kind: str, rng: np.random.Generator, n: int) -> Market:
    if kind == "paper":
        prices = rng.uniform(15, 25, n)
        pull = np.exp(rng.uniform(15, 25, n) - prices)
        return Market(prices, pull, rng.integers(1, 6, n), rng.integers(0, 3, n))
    rows, prices, surplus, cut = _diamonds()
    picked = rng.choice(rows, n, replace=False)
    # What a buyer finds a stone worth beyond its price, in thousands of dollars; the market's pull is the seed's.
    pull = np.exp(surplus[picked] + rng.uniform(-3, 1))
    return Market(prices[picked], pull, rng.integers(1, 6, n), cut[picked])


@functools.cache
def _diamonds() -> tuple[int, Floats, Floats, Ints]:
    """(rows, prices, surplus, cut): thousands of dollars; surplus is what the attributes are worth, less the price."""
    from kofn import datasets

    data = datasets.load("diamonds")
    assert data.X is not None
    assert data.y is not None
    assert data.frame is not None
    parts = [np.ones((data.n, 1)), np.log(data.X[:, :1]), np.log(data.X[:, :1]) ** 2]
    codes = {}
    for column in ("cut", "color", "clarity"):
        _, codes[column] = np.unique(data.frame[column].to_numpy().astype(str), return_inverse=True)
        parts.append(np.eye(codes[column].max() + 1)[codes[column]][:, 1:])
    A, prices = np.hstack(parts), data.y / 1000
    weights, *_ = np.linalg.lstsq(A, np.log(prices), rcond=None)
    return data.n, prices, np.exp(A @ weights) - prices, codes["cut"].astype(np.int64) % 3


def _trap(rng: np.random.Generator, k: int) -> Market:
    """A staple, k - 1 decoys and k dear items that are bought rarely; the last are the optimum.

    Each decoy alone earns less than the staple, and beside the staple it gains more than a dear item, since it is liked
    by as many. The k dear items together earn about half of k times what the staple does.
    """
    heavy, share = 10 * rng.uniform(0.8, 1.25), 0.45
    liked, wanted = [1.0 + 1.0 / heavy], [heavy]
    level, mass = 1.0, 1.0 + heavy
    for _ in range(k - 1):
        above = (level - 1) / (1 - share) + share / (1 - share) / mass * 1.1
        liked.append(1 + above)
        wanted.append(0.98 / above)
        level += wanted[-1] * (liked[-1] - level) / (mass + wanted[-1])
        mass += wanted[-1]
    dear = 1000 * rng.uniform(0.9, 1.1, k)
    shuffle = rng.permutation(2 * k)
    prices, pull = np.concatenate([liked, dear])[shuffle], np.concatenate([wanted, share / dear])[shuffle]
    return Market(prices, pull, np.ones(2 * k, np.int64), np.zeros(2 * k, np.int64))


def _masks(n: int) -> NDArray[np.bool_]:
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1


def _values(market: Market) -> Floats:
    """(2^n,) what the best part of each set earns: the revenues by definition, then the most over all subsets."""
    masks = _masks(market.n).astype(np.float64)
    best: Floats = (masks @ (market.prices * market.pull)) / (1 + masks @ market.pull)
    every = np.arange(len(best))
    for item in range(market.n):
        with_it = every[(every >> item) & 1 == 1]
        best[with_it] = np.maximum(best[with_it], best[with_it ^ (1 << item)])
    return best


def _best(market: Market, values: Floats, call: Figures) -> float:
    masks = _masks(market.n)
    keep = np.ones(len(masks), bool)
    if "k" in call:
        keep &= masks.sum(axis=1) == call["k"]
    if "budget" in call:
        keep &= masks @ call["costs"] <= call["budget"]
    for kind, (least, most) in call.get("quotas", {}).items():
        held = masks[:, market.kinds == kind].sum(axis=1)
        keep &= (held >= least) & (held <= most)
    return float(values[keep].max())


def dinkelbach(market: Market, k: int) -> float:
    """The optimum under a count, exactly: the rate R at which the k largest pulls times (price - R) are worth R."""
    rate = 0.0
    while True:
        worth = market.pull * np.maximum(market.prices - rate, 0.0)
        top = np.argsort(-worth)[:k]
        top = top[worth[top] > 0]
        better = float((market.prices[top] * market.pull[top]).sum() / (1 + market.pull[top].sum()))
        if better <= rate * (1 + 1e-14):
            return max(rate, better)
        rate = better


def _quotas(market: Market, k: int, rng: np.random.Generator) -> dict[int, tuple[int, int]]:
    held = np.bincount(market.kinds[rng.permutation(market.n)[:k]], minlength=3)
    quotas = {}
    for kind in np.unique(market.kinds).tolist():
        least = int(rng.integers(0, held[kind] + 1))
        quotas[kind] = (least, int(held[kind] + rng.integers(0, 2)))
    return quotas


def _dearest(market: Market, call: Figures) -> float:
    """The best prefix of the items by price, leaving out what no longer fits."""
    limit, spent, taken = call.get("k", market.n), 0, 0
    earned = mass = best = 0.0
    for item in np.argsort(-market.prices, kind="stable").tolist():
        cost = int(market.space[item])
        if taken == limit or ("budget" in call and spent + cost > call["budget"]):
            continue
        taken, spent = taken + 1, spent + cost
        earned += market.prices[item] * market.pull[item]
        mass += market.pull[item]
        best = max(best, earned / (1 + mass))
    return float(best)
