"""Model ratatouille: fine-tunes on auxiliary tasks, each the start of a fine-tune on the target, averaged.

A network learns digits turned by 60 degrees. Five others go on from it, each on an auxiliary task of upright digits:
odd or even, above four, halves, turned a little, with noise. Their heads are replaced by one that is fitted on the
target with the body held; each is fine-tuned on the target, upright digits of which a fifth have a wrong label, and
all are averaged. Held against it: as many fine-tunes from the first network, from one auxiliary task, and from the
average of them all. All are judged on other digits, with noise or with pixels gone.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness.data import Labelled
from claims.harness.networks import State, Task, accuracy, average, ensemble_accuracy, finetune, logits, pretrain, task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import weighted_mean

MEMBERS, STEPS, WRONG = 5, 150, 0.2
# Auxiliary fine-tunes stay near the first network, so that what starts from them can be averaged.
NEAR = 1e-3
HIDDEN, HEAD = (64, 64), ("4.weight", "4.bias")
RATES = (1e-3, 3e-3)
ARMS = ("ratatouille", "one start", "one auxiliary task", "averaged auxiliary tasks")


@claim(
    paper=186,
    says="Fine-tunes on the target that start from fine-tunes on unlike auxiliary tasks differ more than those of one "
    "start, their average is more accurate on shifted rows than the average of these, of fine-tunes from one auxiliary "
    "task and from the auxiliary ones' average, and than its own members",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Averages of five fine-tunes by where they start; broken: every auxiliary task is the first network's own."""
    runs = 12 if scale == "small" else 40
    rows = spread(functools.partial(_trial, broken=broken), derive(seed, runs))
    at = {arm: np.array([row[arm]["shifted"] for row in rows]) for arm in ARMS}
    unlike = {arm: np.array([row[arm]["disagreement"] for row in rows]) for arm in ARMS}
    gaps = {arm: difference(at["ratatouille"], at[arm]) for arm in ARMS[1:]}
    members = difference(at["ratatouille"], [row["ratatouille"]["members"] for row in rows])
    more = difference(unlike["ratatouille"], unlike["one start"])
    criteria = {
        "its members differ more than those of one start": more.above(0),
        "ahead of its members": members.above(0),
        **{f"ahead of {arm}": gap.above(0) for arm, gap in gaps.items()},
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            part: {arm: round(float(np.mean([row[arm][part] for row in rows])), 4) for arm in ARMS}
            for part in ("shifted", "same", "members", "ensemble", "disagreement")
        }
        | {
            "ratatouille less": {arm: gap.figures() for arm, gap in gaps.items()},
            "ratatouille less its members": members.figures(),
            "disagreement less that of one start": more.figures(),
        },
        expected="lower 95% limits of paired differences on shifted rows above 0: in accuracy over each other arm and "
        "over its own members' mean, and in the share of rows on which two members disagree",
        baseline="as many fine-tunes of as many steps from one start, which had as many steps more as the auxiliary "
        "tasks took; from one auxiliary task; from the average of the auxiliary ones; each arm with the rate of two "
        "whose average is best on held-out rows, the same orders of rows in all",
        kind="reduced",
    )


def _trial(seed: int, *, broken: bool) -> dict[str, dict[str, float]]:
    source, target = task("digits", rotate=60), task("digits", noise=WRONG, seed=seed)
    first = pretrain(source, hidden=HIDDEN, seed=seed, steps=200)
    aids = _auxiliary(seed)
    if broken:
        aids = [source] * MEMBERS
    others = [finetune(first, aid, seed=seed + i, steps=STEPS, rate=NEAR) for i, aid in enumerate(aids)]
    longer = finetune(first, source, seed=seed, steps=STEPS, rate=NEAR)
    probe = finetune(longer, target, seed=seed, steps=STEPS, only="4.*")
    shared = [{**other, **{name: probe[name] for name in HEAD}} for other in others]
    starts = {
        "ratatouille": shared,
        "one start": [probe] * MEMBERS,
        "one auxiliary task": [shared[0]] * MEMBERS,
        "averaged auxiliary tasks": [average(shared)] * MEMBERS,
    }
    shifted = _shifted(target.test, seed)
    return {arm: _judged(begin, target, shifted, seed) for arm, begin in starts.items()}


def _judged(starts: list[State], target: Task, shifted: Labelled, seed: int) -> dict[str, float]:
    """The average of the fine-tunes, with the rate whose average is best on held-out rows."""
    pools = [
        [finetune(start, target, seed=seed + i, steps=STEPS, rate=rate) for i, start in enumerate(starts)]
        for rate in RATES
    ]
    pool = max(pools, key=lambda states: _accuracy(average(states), target.valid))
    mean = dict(weighted_mean(pool).result)
    guesses = [logits(state, shifted.X).argmax(axis=1) for state in pool]
    return {
        "shifted": _accuracy(mean, shifted),
        "same": _accuracy(mean, target.test),
        "members": float(np.mean([_accuracy(state, shifted) for state in pool])),
        "ensemble": ensemble_accuracy(pool, shifted.X, shifted.y),
        "disagreement": float(np.mean([(a != b).mean() for a, b in itertools.combinations(guesses, 2)])),
    }


def _auxiliary(seed: int) -> list[Task]:
    """Other questions about the same digits, in the first columns of the same head."""
    plain, turned = task("digits"), task("digits", rotate=25)
    noisy = _with(plain, plain.train.y, f"noise {seed}", _noisy(plain.train.X, seed))
    y = plain.train.y
    named = (("odd", y % 2), ("above four", y > 4), ("halves", y // 2))
    return [*(_with(plain, labels.astype(np.int64), name) for name, labels in named), turned, noisy]


def _with(whole: Task, y: Any, name: str, X: Any = None) -> Task:
    train = Labelled(whole.train.X if X is None else X, y, whole.train.classes)
    return Task(f"{whole.key} {name}", train, whole.valid, whole.test)


def _noisy(X: Any, seed: int) -> Any:
    return (X + 0.5 * X.std() * np.random.default_rng([seed, 5]).normal(size=X.shape)).astype(np.float32)


def _shifted(rows: Labelled, seed: int) -> Labelled:
    """The same rows twice: with noise, and with a third of the pixels gone."""
    rng = np.random.default_rng([seed, 9])
    gone = rows.X * (rng.random(rows.X.shape) > 0.3)
    noisy = rows.X + 0.7 * rows.X.std() * rng.normal(size=rows.X.shape)
    X = np.concatenate([noisy, gone]).astype(np.float32)
    return Labelled(X, np.concatenate([rows.y, rows.y]), rows.classes)


def _accuracy(state: State, rows: Labelled) -> float:
    return accuracy(state, rows.X, rows.y)
