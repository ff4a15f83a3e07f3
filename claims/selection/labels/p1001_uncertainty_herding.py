"""Covering what a classifier is unsure of: as good as covering where labels are few, and as doubt where they are many.

Real: scanned digits and tumours, half of the rows as the pool, the others to judge on; labels come in rounds.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import few_labels
from claims.harness.data import Labelled
from claims.harness.few_labels import Ints, ahead, figures, select
from claims.harness.runs import derive, spread

FEW = (("digits", 3), ("breast cancer", 4))
MANY = (("digits", 15), ("breast cancer", 30))
ROUNDS = 4
# A kernel's width at which a row is like itself alone.
NOTHING = 1e-6


def _in_rounds(
    pool: Labelled, k: int, seed: int, *, model: str = "logistic_regression", bandwidth: float | None = None
) -> Ints:
    """Four rounds; each is told the labels of the rows picked before."""
    words: dict[str, Any] = {"model": model, "seed": seed}
    if bandwidth is not None:
        words["bandwidth"] = bandwidth
    picks: Ints = np.empty(0, np.int64)
    for number in range(1, ROUNDS + 1):
        known = np.full(len(pool), -1)
        known[picks] = pool.y[picks]
        batch = k * number // ROUNDS - len(picks)
        plan = select(pool.X, y=known, k=batch, method="uncertainty_herding", **words)
        picks = np.concatenate([picks, plan.indices])
    return picks


def _most_unsure(pool: Labelled, k: int, seed: int) -> Ints:
    """The same first round and the same classifier; then the rows with the smallest margins, whatever they share."""
    picks: Ints = np.empty(0, np.int64)
    for number in range(1, ROUNDS + 1):
        known = np.full(len(pool), -1)
        known[picks] = pool.y[picks]
        batch = k * number // ROUNDS - len(picks)
        plan = select(pool.X, y=known, k=batch, method="uncertainty_herding", seed=seed)
        doubt = np.where(known < 0, plan.info["uncertainty"], -1.0)
        more = plan.indices if number == 1 else np.argsort(-doubt, kind="stable")[:batch]
        picks = np.concatenate([picks, more])
    return picks


RULES: dict[str, few_labels.Rule] = {
    "uncertainty herding": _in_rounds,
    "max herding": functools.partial(_in_rounds, model="none"),
    "most unsure": _most_unsure,
    "typiclust": few_labels.typiclust,
}


@claim(
    paper=1001,
    says="In rounds with three or four labels a class uncertainty herding's rows teach a classifier over five points "
    "more than random rows, more than the most unsure rows, and not a point less than max herding's; with fifteen to "
    "thirty a class more than random and max herding's rows, and not a point less than the most unsure rows",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Uncertainty herding against its two parts; broken: no row is like another."""
    runs = 12 if scale == "small" else 60
    rules = dict(RULES)
    if broken:
        rules["uncertainty herding"] = functools.partial(_in_rounds, bandwidth=NOTHING)
    few = spread(functools.partial(few_labels.trial, settings=FEW, rules=rules), derive(seed, runs))
    many = spread(functools.partial(few_labels.trial, settings=MANY, rules=rules), derive(seed, runs, stream=1))
    ours = "uncertainty herding"
    gaps = {
        f"{name}, {rule}": ahead(trials, ours, rule)
        for name, trials in (("few", few), ("many", many))
        for rule in ("random", "max herding", "most unsure", "typiclust")
    }
    least = {
        "few, random": 0.05,
        "few, most unsure": 0.0,
        "few, max herding": -0.01,
        "many, random": 0.0,
        "many, max herding": 0.0,
        "many, most unsure": -0.01,
    }
    criteria = {f"{name} > {effect}": gaps[name].above(effect) for name, effect in least.items()}
    return Evidence(
        holds=all(criteria.values()),
        measured={
            "accuracy, set and rows a class": figures(few) | figures(many),
            **{f"{name}: ours - theirs": gap.figures() for name, gap in gaps.items()},
        },
        expected="lower 95% limits of paired differences in accuracy, over sets and rows a class: "
        + ", ".join(f"{name} > {effect}" for name, effect in least.items()),
        baseline="20 random draws a pool; the same method without a classifier (max herding) and the same classifier's "
        "smallest margins, both in the same rounds from the same first batch; TypiClust with the paper's settings, "
        "told only. Calibration is the paper's temperature; the kernel's width is the median distance to the 20th "
        "neighbour",
        kind="reduced",
        criteria=criteria,
    )
