"""Balls around the rows to label that hold as much of the data as possible, where few labels can be paid for.

Real: scanned digits and tumours, half of the rows as the pool, the others to judge on; one and three labels a class.
"""

from __future__ import annotations

import functools

import numpy as np

import kofn
from claims import Evidence, claim
from claims.harness import few_labels
from claims.harness.data import digits, shuffled
from claims.harness.few_labels import Ints, ahead, figures
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

SETTINGS = (("digits", 1), ("digits", 3), ("breast cancer", 1), ("breast cancer", 3))
RULES = {
    "probcover": few_labels.probability_cover,
    "typiclust": few_labels.typiclust,
    "farthest first": few_labels.farthest_first,
}
# A radius within which no two rows lie.
NOTHING = 1e-6
COVERED_BY = ("random", "typiclust", "farthest first")


@claim(
    paper=1003,
    says="With one to three labels a class ProbCover's balls hold more of the unseen rows than balls around random, "
    "farthest or TypiClust's rows, and its rows teach a classifier more than random rows by over two points on digits "
    "and on tumours, than farthest ones, and than TypiClust's, the best before it",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """ProbCover against others with few labels; broken: balls that hold no row but their own."""
    runs = 12 if scale == "small" else 60
    rules: dict[str, few_labels.Rule] = dict(RULES)
    if broken:
        rules["probcover"] = functools.partial(few_labels.probability_cover, radius=NOTHING)
    trials = spread(functools.partial(few_labels.trial, settings=SETTINGS, rules=rules), derive(seed, runs))
    covered = spread(functools.partial(_covered, broken=broken), derive(seed, runs, stream=1))
    shares = {rule: np.array([row[rule] for row in covered]) for rule in ("probcover", *COVERED_BY)}
    held = {rule: difference(shares["probcover"], shares[rule]) for rule in COVERED_BY}
    gaps = {where: ahead(trials, "probcover", "random", where) for where in ("digits", "breast cancer")}
    rivals = {rule: ahead(trials, "probcover", rule) for rule in ("farthest first", "typiclust")}
    criteria = {
        "covers more": all(gap.above(0.0) for gap in held.values()),
        **{f"{where}, above random": gap.above(0.02) for where, gap in gaps.items()},
        **{f"above {rule}": gap.above(0.0) for rule, gap in rivals.items()},
    }
    return Evidence(
        holds=all(criteria.values()),
        measured={
            "accuracy, set and rows a class": figures(trials),
            "share of unseen digits in the balls": {rule: round(float(v.mean()), 4) for rule, v in shares.items()},
            **{f"{where}, probcover - random": gap.figures() for where, gap in gaps.items()},
            **{f"probcover - {rule}": gap.figures() for rule, gap in rivals.items()},
        },
        expected="lower 95% limits of paired differences: in the share of unseen digits in the balls, three labels a "
        "class, probcover - random, - typiclust and - farthest first > 0; in accuracy, over rows a class, probcover - "
        "random > 0.02 on each set, and over both sets probcover - farthest first and - typiclust > 0",
        baseline="20 random draws a pool, farthest first (coreset), TypiClust with its paper's settings; the radius is "
        "the paper's: 95% of balls pure of as many k-means clusters as there are classes",
        kind="reduced",
        criteria=criteria,
    )


def _covered(seed: int, *, broken: bool) -> dict[str, float]:
    """The share of unseen digits nearer than the radius to a pick, for as many picks of each rule."""
    rng = np.random.default_rng(seed)
    data = shuffled(digits(), rng)
    half, k = len(data) // 2, 3 * data.classes
    pool, unseen = data.take(np.arange(half)), data.X[half:].astype(np.float64)
    plan = kofn.select(pool.X, k=k, method="probability_cover", clusters=pool.classes, seed=seed)
    picked: dict[str, Ints] = {
        "probcover": few_labels.probability_cover(pool, k, seed, NOTHING) if broken else plan.indices,
        "random": rng.permutation(half)[:k],
        "typiclust": few_labels.typiclust(pool, k, seed),
        "farthest first": few_labels.farthest_first(pool, k, seed),
    }
    out = {}
    for rule, rows in picked.items():
        chosen = pool.X[rows].astype(np.float64)
        squares = (unseen**2).sum(axis=1)[:, None] + (chosen**2).sum(axis=1) - 2 * unseen @ chosen.T
        out[rule] = float((np.sqrt(np.maximum(squares, 0)).min(axis=1) < plan.info["radius"]).mean())
    return out
