"""Why matching the units of two networks by their weights makes the straight path between them easy.

Three networks a seed, from different starts, on scanned digits and on prices of diamonds. Matched to the first, the
other two are compared with it as they were: loss barriers, distances, and how far singular vectors align. Then all
three are averaged, matched by weights or by a search that follows the loss (the straight-through estimator).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State, Task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

HIDDEN = (128, 128)
DATA = ("digits", "diamonds")
LARGE = 0.5  # singular values of at least half of the largest
# The search by the loss begins at the matched orders; it is run for some of the seeds, at several rates.
SEARCHED, SEARCH_STEPS, RATES = 3, 15, (0.3, 2.0)

Figures = dict[str, float]


@claim(
    paper=109,
    says="Matching units by weights takes most of the loss barrier away and little of the distance; it aligns the "
    "singular vectors of large singular values more than the others; and three networks matched to one of them have an "
    "average that is far better than the plain one",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Weight matching of two and of three networks; broken: orders drawn at random."""
    runs = 6 if scale == "small" else 20
    measured: dict[str, Any] = {}
    met = []
    for data in DATA:
        seeds = derive(seed, runs)
        work = functools.partial(_one, data=data, broken=broken, search=SEARCHED if scale == "small" else runs)
        rows = spread(work, list(enumerate(seeds)))
        barrier = difference([row["barrier left"] for row in rows], np.zeros(runs))
        nearer = difference([row["distance taken away"] for row in rows], np.zeros(runs))
        rise = difference([row["R of the large, rise"] for row in rows], [row["R of all, rise"] for row in rows])
        three = difference(
            [row["accuracy, three matched"] for row in rows], [row["accuracy, three plain"] for row in rows]
        )
        measured[data] = {
            "barrier that is left, share": barrier.figures(),
            "L2 distance taken away, share": nearer.figures(),
            "rise of R among large singular values, less that among all": rise.figures(),
            "accuracy of three averaged, matched less plain": three.figures(),
            "mean of every figure": _means(rows),
            "mean where the search by the loss was run": _means([row for row in rows if "barrier, searched" in row]),
        }
        met += [barrier.high < 0.35, nearer.high < 0.25, rise.above(0.02), three.above(0.1)]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="95% limits: less than 35% of the barrier left; less than 25% of the L2 distance gone; R rises by "
        "0.02 more among singular values above half of the largest than among all; the average of three gains 10 "
        "points",
        baseline="plain averages; shown beside, the straight-through estimator by the authors of the matching, with "
        "its rate chosen for each pair by the training loss at the midpoint",
        kind="reduced",
    )


def _means(rows: list[Figures]) -> Figures:
    return {
        name: round(float(np.mean([row[name] for row in rows])), 4)
        for name in rows[0]
        if all(name in row for row in rows)
    }


def _one(turn: tuple[int, int], *, data: str, broken: bool, search: int) -> Figures:
    from kofn.combination import permute, singular_alignment, weight_matching

    number, seed = turn
    task = networks.task(data)
    X, y = task.test.X, task.test.y
    nets = [networks.pretrain(task, hidden=HIDDEN, seed=seed + place, steps=300) for place in range(3)]
    blend = weight_matching(nets)
    orders = [{name: rows[place] for name, rows in (blend.transforms or {}).items()} for place in range(3)]
    if broken:
        rng = np.random.default_rng(seed)
        orders[1:] = [{name: rng.permutation(len(order)) for name, order in one.items()} for one in orders[1:]]
    matched = [permute(net, order) for net, order in zip(nets, orders, strict=True)]
    before, after = (networks.barrier(nets[0], other, X, y) for other in (nets[1], matched[1]))
    far, near = (networks.distance(nets[0], other) for other in (nets[1], matched[1]))
    out: Figures = {"barrier": before, "barrier, matched": after, "barrier left": after / before}
    out["distance taken away"] = 1 - near / far
    for name, top in (("all", 0.0), ("the large", LARGE)):
        found = [singular_alignment(nets[0], other, top=top) for other in (nets[1], matched[1])]
        out[f"R of {name}"], out[f"R of {name}, rise"] = found[1], found[1] - found[0]
    averages = {"plain": nets, "matched": matched}
    if number < search:
        averages["searched"] = [nets[0], *(_by_the_loss(nets[0], net, task) for net in nets[1:])]
        out["barrier, searched"] = networks.barrier(nets[0], averages["searched"][1], X, y)
    for name, three in averages.items():
        out[f"accuracy, three {name}"] = networks.accuracy(networks.average(three), X, y)
        out[f"barrier among the others, {name}"] = networks.barrier(three[1], three[2], X, y)
    return out


def _by_the_loss(first: State, second: State, task: Task) -> State:
    """The straight-through estimator: orders of the second network at which the midpoint's training loss is least.

    Free weights are matched by the second network in some order, the gradient is taken at the midpoint with that, and
    the free weights follow it.
    """
    X, y = task.train.X, task.train.y
    best: tuple[float, State] | None = None
    for rate in RATES:
        free = {name: array.copy() for name, array in first.items()}
        for _ in range(SEARCH_STEPS):
            moved = _projected(free, second)
            middle = networks.average([first, moved])
            slopes = networks.gradients(middle, X, y)
            now = networks.loss(middle, X, y)
            if best is None or now < best[0]:
                best = (now, moved)
            for name, slope in slopes.items():
                free[name] = free[name] - np.float32(rate / 2) * slope
    assert best is not None
    return best[1]


def _projected(free: Mapping[str, Any], second: State) -> State:
    from kofn.combination import permute, weight_matching

    found = weight_matching([free, second]).transforms
    return permute(second, {name: rows[1] for name, rows in (found or {}).items()})
