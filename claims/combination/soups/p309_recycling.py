"""Recycling checkpoints: weights over a pool of imperfect ones, tuned by an evolution strategy on a score of two tasks.

The tasks are the digits upright and turned by a quarter, which one network of this size is worse at together than at
each alone. Twelve checkpoints: six mixtures of the two from one start, each at two stages.
The score is minus the mean of both tasks' losses on held-out rows; everything is judged on others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness.data import Labelled
from claims.harness.networks import State, Task, accuracy, average, finetune, loss, pretrain, task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import evolved_mean, greedy_soup

SHARES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
STAGES, STEPS, ROWS, BUDGET = 2, 100, 800, 120
OTHERS = ("best checkpoint", "uniform", "greedy soup", "random shares", "random signed")


@claim(
    paper=309,
    says="Tuned weights lose less on two tasks together than the best checkpoint, the uniform mean, the greedy soup "
    "and random weights do after as many evaluations; hardly ever is a checkpoint better at both tasks; most "
    "weights are not zero",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Two tasks of digits; broken: the weights are not tuned, one evaluation is all there is."""
    runs = 16 if scale == "small" else 40
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    losses = {side: np.array([row["loss"][side] for row in rows]) for side in ("tuned", *OTHERS)}
    gaps = {side: difference(losses[side], losses["tuned"]) for side in OTHERS}
    beaten = sum(row["dominated"] for row in rows)
    heavy = float(np.mean([row["weights above 0.01"] for row in rows]))
    criteria = {
        **{f"less loss than {side}": gap.above(0) for side, gap in gaps.items()},
        "no checkpoint is better at both tasks, on any seed": beaten == 0,
        "most weights are not zero": heavy > 0.75,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "mean loss of both tasks": {side: round(float(values.mean()), 4) for side, values in losses.items()},
            "mean accuracy of both tasks": {
                side: round(float(np.mean([row["accuracy"][side] for row in rows])), 4) for side in losses
            },
            "loss less that of tuned weights": {side: gap.figures() for side, gap in gaps.items()},
            "accuracy of tuned weights less that of": {
                side: difference(
                    [row["accuracy"]["tuned"] for row in rows], [row["accuracy"][side] for row in rows]
                ).figures()
                for side in ("greedy soup", "best checkpoint")
            },
            "tuned shares >= 0 only": round(float(np.mean([row["loss"]["tuned shares"] for row in rows])), 4),
            "all checkpoints' mean loss": round(float(np.mean([row["loss"]["checkpoints"] for row in rows])), 4),
            "seeds on which a checkpoint is better at both": beaten,
            "share of weights above 0.01 in size": round(heavy, 3),
            "evaluations": {"tuned, random": BUDGET, "greedy soup": 2 * len(SHARES) * STAGES - 1},
        },
        expected="lower 95% limits over seeds of the others' losses less that of tuned weights above 0; no "
        "checkpoint with less loss on both tasks on any seed; more than three quarters of the weights above 0.01 "
        "in size",
        baseline="greedy soup; the best of as many random weights, shares drawn uniformly or signed ones about the "
        "uniform mean; the uniform mean; the best checkpoint by held-out score",
        kind="reduced",
    )


def _pool(seed: int) -> tuple[list[State], tuple[Task, Task]]:
    """The checkpoints and the tasks."""
    tasks = (task("digits"), task("digits", rotate=90))
    start = pretrain(_mixture(tasks, 0.5, 300, seed), seed=seed, steps=100)
    pool = []
    for place, share in enumerate(SHARES):
        state, mixed = start, _mixture(tasks, share, ROWS, seed + place + 1)
        for stage in range(STAGES):
            state = finetune(state, mixed, seed=seed + STAGES * place + stage, steps=STEPS, rate=5e-3)
            pool.append(state)
    return pool, tasks


def _mixture(tasks: tuple[Task, Task], share: float, rows: int, seed: int) -> Task:
    """Training rows of both tasks, `share` of them of the first."""
    rng = np.random.default_rng([seed, 3])
    counts = (round(share * rows), rows - round(share * rows))
    parts = [one.train.take(rng.permutation(len(one.train))[:count]) for one, count in zip(tasks, counts, strict=True)]
    both = Labelled(np.concatenate([p.X for p in parts]), np.concatenate([p.y for p in parts]), parts[0].classes)
    return Task(f"{tasks[0].key} {tasks[1].key} {share} {rows} {seed}", both, tasks[0].valid, tasks[0].test)


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    pool, tasks = _pool(seed)
    held = [one.valid for one in tasks]

    def score(state: Any) -> float:
        return -float(np.mean([loss(state, rows.X, rows.y) for rows in held]))

    tuned = evolved_mean(pool, score=score, budget=1 if broken else BUDGET, seed=seed % 2**31)
    shares = evolved_mean(pool, score=score, budget=BUDGET, negative=False, seed=seed % 2**31)
    rng, m = np.random.default_rng([seed, 4]), len(pool)

    def signed(spread_of: float) -> Any:
        drawn = spread_of * rng.normal(size=m)
        return (1 + drawn - drawn.mean()) / m

    found: dict[str, Any] = {
        "tuned": tuned.result,
        "tuned shares": shares.result,
        "best checkpoint": max(pool, key=score),
        "uniform": average(pool),
        "greedy soup": greedy_soup(pool, score=score).result,
        "random shares": _best(pool, lambda: rng.dirichlet(np.ones(m)), score),
        "random signed": _best(pool, functools.partial(signed, 0.5), score),
    }
    apart = {side: _losses(state, tasks) for side, state in found.items()}
    alone = np.array([_losses(state, tasks) for state in pool])
    return {
        "loss": {**{side: float(np.mean(both)) for side, both in apart.items()}, "checkpoints": float(alone.mean())},
        "accuracy": {
            side: float(np.mean([accuracy(state, one.test.X, one.test.y) for one in tasks]))
            for side, state in found.items()
        },
        "dominated": bool((alone <= apart["tuned"]).all(axis=1).any()),
        "weights above 0.01": float((np.abs(tuned.weights) > 0.01).mean()),
    }


def _best(pool: list[State], draw: Callable[[], Any], score: Callable[[Any], float]) -> State:
    return max((average(pool, draw()) for _ in range(BUDGET)), key=score)


def _losses(state: Any, tasks: tuple[Task, Task]) -> list[float]:
    return [loss(state, one.test.X, one.test.y) for one in tasks]
