"""Trials of rejection sampling by difficulty: what is accepted, and what a student learns from it.

Queries are scanned digits. A weak teacher, a softmax regression trained on few rows and heated, answers a query by a
drawn class; right answers are accepted and train the student. Four trials of each query are spent first to count its
rate, by every rule alike; the other trials are shared out.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import Labelled, digits, mixture, shuffled
from claims.harness.learners import Network, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PILOT, MEAN, MOST = 4, 16, 128
QUERIES, AIDE = 500, 40
RULES = ("vanilla", "uniform", "prop2diff")


@claim(
    paper=111,
    says="At as many trials, shares by difficulty answer more queries, give the hardest fifth at least twice its share "
    "of the accepted answers, and train a student that is better on hard rows and no worse on all",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Trials for all alike against trials by difficulty; broken: all queries count as equally hard."""
    runs = 10 if scale == "small" else 30
    measured: dict[str, Any] = {}
    criteria = {}
    for data in ("digits", "mixture"):
        trials = spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs, stream=len(data)))
        table = {rule: np.array([trial[rule] for trial in trials]) for rule in RULES}
        ours, plain = table["prop2diff"], table["vanilla"]
        covered = difference(ours[:, 0], plain[:, 0])
        share = difference(ours[:, 1], 2 * plain[:, 1])
        hard = difference(ours[:, 2], plain[:, 2])
        whole = difference(ours[:, 3], plain[:, 3])
        criteria[f"{data}: more queries answered"] = covered.above(0.0)
        criteria[f"{data}: twice the share of the hardest fifth"] = share.above(0.0)
        criteria[f"{data}: student better on hard rows"] = hard.above(0.0)
        criteria[f"{data}: student no worse on all rows"] = whole.above(-0.01)
        measured[data] = {
            "answered, share of hardest fifth, accuracy on hard rows, on all": {
                rule: table[rule].mean(axis=0).round(4).tolist() for rule in RULES
            },
            "answered, by difficulty - vanilla": covered.figures(),
            "share of the hardest fifth, by difficulty - twice vanilla": share.figures(),
            "accuracy on hard rows, by difficulty - vanilla": hard.figures(),
            "accuracy on all rows, by difficulty - vanilla": whole.figures(),
        }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences over the runs: queries answered above 0, share of the hardest "
        "fifth above twice that of vanilla, accuracy on the hardest fifth of the test rows above 0, on all above -0.01",
        baseline="vanilla rejection sampling: as many trials of each query, the four of the pilot among them, and the "
        "same student",
        kind="reduced",
    )


def _trial(seed: int, *, data: str, broken: bool) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    rows = shuffled(digits(), rng) if data == "digits" else mixture(rng, 1700, modes=4, spread=0.6)
    aide, queries = rows.take(np.arange(AIDE)), rows.take(np.arange(AIDE, AIDE + QUERIES))
    test = rows.take(np.arange(AIDE + QUERIES, len(rows)))
    teacher = Network(hidden=(), steps=150, rate=1e-2).fit(aide.X, aide.y, rows.classes, seed)

    def rates(part: Labelled) -> Floats:
        chance = softmax(0.5 * teacher.logits(part.X))
        return chance[np.arange(len(part)), part.y].astype(np.float64)

    true, hardness = rates(queries), rates(test)
    pilot = rng.binomial(PILOT, true)
    hard = np.argsort(true)[: QUERIES // 5]
    hard_test = np.argsort(hardness)[: len(test) // 5]
    budget = QUERIES * (MEAN - PILOT)
    counted = pilot / PILOT
    out = {}
    for rule in RULES:
        if rule == "vanilla":
            more = np.full(QUERIES, MEAN - PILOT)
        else:
            known = np.full(QUERIES, counted.mean()) if broken else counted
            options: dict[str, Any] = {"target": rule, "trials": np.full(QUERIES, PILOT), "bounds": (0, MOST)}
            more = kofn.allocate(scores=known, budget=budget, method="difficulty_aware_trials", **options).amounts
        accepted = pilot + np.random.default_rng(seed + 1).binomial(more, true)
        share = accepted[hard].sum() / accepted.sum()
        drawn = np.repeat(np.arange(QUERIES), accepted)
        student = Network(hidden=(32,), steps=300).fit(queries.X[drawn], queries.y[drawn], rows.classes, seed)
        out[rule] = [
            float((accepted > 0).mean()),
            float(share),
            student.accuracy(test.X[hard_test], test.y[hard_test]),
            student.accuracy(test.X, test.y),
        ]
    return out
