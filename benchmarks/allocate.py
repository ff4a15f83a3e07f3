"""One level an item under a budget, alone and with other limits, against HiGHS on the same program; closed forms."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import scipy.optimize as opt
import scipy.sparse as sp

import kofn

SEED = 0


def layers(n: int, seed: int = SEED) -> tuple[Any, Any, Any, int]:
    """Losses, sizes, levels and the budget of n layers of unlike sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, n)
    loss = np.sort(rng.random((n, 8)), axis=1)[:, ::-1] * rng.lognormal(0, 1, (n, 1)) * sizes[:, None]
    return loss, sizes, np.arange(2, 10), 4 * int(sizes.sum())


def by_highs(loss: Any, rows: list[tuple[Any, float, float]], seconds: float = 120) -> tuple[float, float]:
    """The loss of the whole program by HiGHS, gap 0, and the seconds of processor time."""
    n, width = loss.shape
    one_each = sp.kron(sp.eye_array(n), np.ones((1, width)))
    sums = sp.csr_array(np.stack([np.ravel(table) for table, _, _ in rows]).astype(float))
    ends = [np.concatenate([np.ones(n), [row[side] for row in rows]]) for side in (1, 2)]
    limits = opt.LinearConstraint(sp.vstack([one_each, sums], format="csc"), *ends)
    began = time.process_time()
    done = opt.milp(
        loss.ravel(),
        integrality=np.ones(loss.size),
        bounds=opt.Bounds(0, 1),
        constraints=limits,
        options={"mip_rel_gap": 0, "time_limit": seconds},
    )
    assert done.fun is not None
    return float(done.fun), time.process_time() - began


def questions(n: int, seed: int = SEED) -> dict[str, tuple[Any, dict[str, Any], list[tuple[Any, float, float]], Any]]:
    """What is asked of kofn, and the same rows for HiGHS: losses, words, rows, losses of HiGHS' items."""
    loss, sizes, levels, budget = layers(n, seed)
    rng = np.random.default_rng(seed + 1)
    costs = sizes[:, None] * levels
    words: dict[str, Any] = {"budget": budget, "sizes": sizes, "levels": levels}
    plain = (costs, -np.inf, budget)
    table = rng.integers(1, 50, n)[:, None] * levels
    chosen = kofn.allocate(loss, **words)
    limit = int(table[np.arange(n), chosen.info["level"]].sum() * 0.97)
    groups = rng.integers(0, 3, n)
    share = [costs[np.arange(n), chosen.info["level"]][groups == g].sum() / budget for g in range(2)]
    most, least = round(0.95 * share[0], 3), round(1.05 * share[1], 3)
    mine = [np.where((groups == g)[:, None], costs, 0) for g in range(2)]
    tied = np.arange(n) // 2
    pairs = np.add.reduceat(loss, np.arange(0, n, 2)), np.add.reduceat(costs, np.arange(0, n, 2))
    shares = {"groups": groups, "quotas": {0: (None, most), 1: (least, None)}}
    rows = [plain, (mine[0], -np.inf, int(most * budget)), (mine[1], int(-(-least * budget // 1)), np.inf)]
    return {
        "one budget": (loss, words, [plain], loss),
        "tied in pairs": (loss, words | {"tied": tied}, [(pairs[1], -np.inf, budget)], pairs[0]),
        "two resources": (
            loss,
            words | {"resources": {"ms": table}, "limits": {"ms": limit}},
            [plain, (table, -np.inf, limit)],
            loss,
        ),
        "groups' shares": (loss, words | shares, rows, loss),
        "at most n/3 above 2": (
            loss,
            words | {"levels": levels - 2, "budget": budget - 2 * int(sizes.sum()), "k": n // 3},
            [
                (sizes[:, None] * (levels - 2), -np.inf, budget - 2 * int(sizes.sum())),
                (np.broadcast_to(levels > 2, loss.shape), -np.inf, n // 3),
            ],
            loss,
        ),
    }


def run(*, quick: bool = False, rounds: int = 3) -> dict[str, Any]:
    """Processor seconds of kofn and of HiGHS on the same programs, in turn."""
    n = 200 if quick else 2_000
    out: dict[str, Any] = {"n": n, "levels": 8}
    print(f"\none level an item, n={n:,}, 8 levels, processor seconds, median of {rounds}; HiGHS once, gap 0")
    print(f"{'':>20} {'kofn':>8} {'HiGHS':>8} {'x kofn':>7} {'value':>14} {'apart':>9}")
    for name, (loss, words, rows, theirs) in questions(n).items():
        seconds = []
        for _ in range(rounds):
            began = time.process_time()
            plan = kofn.allocate(loss, **words)
            seconds.append(time.process_time() - began)
        best, slow = by_highs(theirs, rows)
        fast = median(seconds)
        apart = (plan.value - best) / best
        out[name] = {"kofn": fast, "highs": slow, "value": plan.value, "apart": apart, "status": plan.status}
        print(f"{name:>20} {fast:8.3f} {slow:8.2f} {slow / fast:7.1f} {plan.value:14.6f} {apart:9.1e}")
    out |= _frontier(n * 5, rounds) | _closed_forms(10**5 if quick else 10**7, rounds)
    return out


def _frontier(n: int, rounds: int) -> dict[str, Any]:
    loss, sizes, levels, budget = layers(n)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds + 1):
        for whole, seconds in times.items():
            began = time.process_time()
            plan = kofn.allocate(loss, budget=budget, sizes=sizes, levels=levels, frontier=whole)
            seconds.append(time.process_time() - began)
    one, both = (median(seconds[1:]) for seconds in times.values())
    points = len(plan.info["frontier"]["budget"])
    print(f"whole trade-off, n={n:,}, {points:,} points: {both:.3f} s, the plan alone {one:.3f} s, {both / one:.2f} x")
    return {"frontier": {"n": n, "points": points, "plan": one, "with_frontier": both}}


def _closed_forms(n: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    curves = np.stack([rng.random(n) + 0.1, rng.random(n) + 0.1], axis=1)
    out = {}
    for family in ("power", "log", "saturating"):
        table = np.column_stack([curves[:, 0], np.full(n, 0.5)]) if family == "power" else curves
        seconds = []
        for _ in range(rounds):
            began = time.process_time()
            kofn.allocate(table, budget=0.3 * n, method="water_filling", family=family)
            seconds.append(time.process_time() - began)
        out[family] = median(seconds)
        print(f"water filling of {n:,} items, {family}: {out[family]:.2f} s of processor time")
    return {"water_filling": {"n": n, **out}}
