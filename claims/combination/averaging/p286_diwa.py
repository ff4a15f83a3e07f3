"""Diverse weight averaging: networks fine-tuned in independent runs from one start, averaged, on shifted inputs.

Ten runs from one pretrained network on the same rows, each with its own rate, decay, order and augmentation. Every run
leaves ten checkpoints. Averaging the ten runs' last ones is held against averaging the ten of one run: of each run in
turn, and of the one where that is best on held-out rows. Some labels are wrong, so that variance is what errors are
made of; the rows judged on are other digits with stronger noise and more pixels gone than augmentation ever made.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness.data import Labelled
from claims.harness.networks import State, Task, accuracy, average, ensemble_accuracy, finetune, pretrain, task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import greedy_soup, weighted_mean

RUNS, CHECKPOINTS, STEPS, COPIES, WRONG = 10, 10, 40, 2, 0.2
HIDDEN = (64, 64)
SIDES = ("uniform", "greedy", "members", "best member", "any one run", "chosen run", "ensemble")


@claim(
    paper=286,
    says="On shifted inputs the mean of independent runs is more accurate than its members and than the mean of one "
    "run's checkpoints, over the runs; it is as accurate as their ensemble to three points; greedy inclusion is never "
    "below the best member on the rows that chose it",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Digits with noise and with pixels gone; broken: what is averaged comes from one run, without its diversity."""
    runs = 10 if scale == "small" else 40
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    at = {side: np.array([row["shifted"][side] for row in rows]) for side in SIDES}
    gaps = {side: difference(at["uniform"], at[side]) for side in SIDES[2:]}
    never = min(row["greedy less best member, held out"] for row in rows)
    unlike = np.array([row["from unlike starts"] for row in rows])
    criteria = {
        "ahead of the members and of one run's mean; near the ensemble; greedy never below the best": all(
            gaps[side].above(0) for side in ("members", "any one run")
        )
        and gaps["ensemble"].above(-0.03)
        and never >= 0,
        **{f"ahead of the {side}": gaps[side].above(0) for side in ("best member", "chosen run")},
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "accuracy on shifted inputs": {side: round(float(values.mean()), 4) for side, values in at.items()},
            "on inputs like those trained on": {
                side: round(float(np.mean([row["same"][side] for row in rows])), 4) for side in SIDES
            },
            "uniform mean less": {side: gap.figures() for side, gap in gaps.items()},
            "naive mean of networks from unlike starts, shifted": round(float(unlike.mean()), 4),
            "greedy less best member on its own rows, least": round(never, 6),
            "members picked": round(float(np.mean([row["picked"] for row in rows])), 2),
        },
        expected="lower 95% limits over seeds: above 0 against the members' mean accuracy and against the mean over "
        "the runs of what one run's mean has; above -0.03 against the ensemble; greedy never below the best member on "
        "held-out rows",
        baseline="the mean of all or of the last five checkpoints of one run, whichever is better on held-out rows: of "
        "each of the same ten runs, and of the best of them on held-out rows; the ensemble of the ten",
        kind="reduced",
    )


def _shifted(rows: Labelled, seed: int) -> Labelled:
    """The same rows twice: with noise, and with a third of the pixels gone."""
    rng = np.random.default_rng([seed, 9])
    noisy = rows.X + 0.7 * rows.X.std() * rng.normal(size=rows.X.shape)
    gone = rows.X * (rng.random(rows.X.shape) > 0.3)
    X = np.concatenate([noisy, gone]).astype(np.float32)
    return Labelled(X, np.concatenate([rows.y, rows.y]), rows.classes)


def _augmented(rows: Labelled, rng: np.random.Generator) -> Labelled:
    """Copies with up to half a standard deviation of noise and up to 15% of the pixels gone."""
    X = np.concatenate([rows.X] * COPIES)
    X = X + 0.5 * X.std() * rng.random((len(X), 1)) * rng.normal(size=X.shape)
    X = X * (rng.random(X.shape) > 0.15 * rng.random((len(X), 1)))
    return Labelled(X.astype(np.float32), np.concatenate([rows.y] * COPIES), rows.classes)


def _trajectory(start: State, whole: Task, seed: int, run: int) -> list[State]:
    """The checkpoints of one run, with its own rate, decay and augmentation."""
    rng = np.random.default_rng([seed, run])
    rate, decay = 10 ** rng.uniform(-3, -2), 10 ** rng.uniform(-5, -3)
    out = [start]
    for part in range(CHECKPOINTS):
        own = Task(f"{whole.key} augmented {seed} {run} {part}", _augmented(whole.train, rng), whole.valid, whole.test)
        out.append(finetune(out[-1], own, seed=int(rng.integers(2**31)), steps=STEPS, rate=rate, decay=decay))
    return out[1:]


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    whole = task("digits", noise=WRONG, seed=seed)
    start = pretrain(task("digits"), hidden=HIDDEN, seed=seed, steps=60)
    paths = [_trajectory(start, whole, seed, run) for run in range(RUNS)]
    held = functools.partial(_accuracy, rows=whole.valid)
    tails = (0, CHECKPOINTS // 2)
    means = [[average(path[since:]) for since in tails] for path in paths]
    single = max((mean for both in means for mean in both), key=held)
    members = [path[-1] for path in paths]
    if broken:
        members = paths[0]
    soup = greedy_soup(members, score=held)
    assert soup.selection is not None
    networks = {
        "uniform": weighted_mean(members).result,
        "greedy": soup.result,
        "best member": max(members, key=held),
        "chosen run": single,
    }

    def judged(rows: Labelled) -> dict[str, float]:
        return {
            **{side: _accuracy(state, rows) for side, state in networks.items()},
            "members": float(np.mean([_accuracy(member, rows) for member in members])),
            "ensemble": ensemble_accuracy(members, rows.X, rows.y),
            "any one run": float(np.mean([_accuracy(max(both, key=held), rows) for both in means])),
        }

    shifted = _shifted(whole.test, seed)
    unlike = [pretrain(task("digits"), hidden=HIDDEN, seed=seed + other, steps=60) for other in range(RUNS)]
    return {
        "shifted": judged(shifted),
        "same": judged(whole.test),
        "greedy less best member, held out": soup.value - held(networks["best member"]),
        "from unlike starts": _accuracy(average(unlike), shifted),
        "picked": len(soup.selection),
    }


def _accuracy(state: Any, rows: Labelled) -> float:
    return accuracy(state, rows.X, rows.y)
