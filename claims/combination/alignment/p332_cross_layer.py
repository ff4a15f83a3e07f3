"""Networks of three and of five hidden layers fused: layers aligned in order by what they represent, then units.

On scanned digits and on prices of diamonds, from independent starts. The fused network and both members are fine-tuned
in as many steps; held against the alignment are a random one in order, and identity layers at the end. The alignment is
held against all alignments in order, for up to four layers and nine.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State, Task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import cross_layer_fusion, match_layers, ot_fusion

DATA = ("digits", "diamonds")
SHALLOW, DEEP = (48, 48, 48), (48, 48, 48, 48, 48)
TUNED, RATES = 80, (1e-3, 3e-3)
ARMS = ("aligned", "random order", "identities last", "shallow", "deep")
ROUNDING = 1e-9


@claim(
    paper=332,
    says="The alignment of layers is the cheapest of all in order; a network of three hidden layers fused with one of "
    "five by it and fine-tuned is more accurate than fused by a random alignment, and than either fine-tuned alone",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Fusion by aligned layers; broken: the alignment is a random one in order."""
    runs = 10 if scale == "small" else 30
    excess = _excess(seed)
    measured: dict[str, Any] = {"largest excess over the least cost of all alignments": excess}
    criteria = {"the cheapest of all alignments": abs(excess) < ROUNDING}
    for data in DATA:
        rows = spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs))
        after = {arm: np.array([row[arm] for row in rows]) for arm in ARMS}
        leads = {arm: difference(after["aligned"], after[arm]) for arm in ARMS[1:]}
        measured[data] = {
            "accuracy, fine-tuned": {arm: round(float(values.mean()), 4) for arm, values in after.items()},
            "accuracy in one shot": {
                arm: round(float(np.mean([row[f"{arm}, one shot"] for row in rows])), 4) for arm in ARMS
            },
            "ensemble of both": round(float(np.mean([row["ensemble"] for row in rows])), 4),
            "largest change of a deepened member": max(row["changed by"] for row in rows),
            **{f"aligned less {arm}": lead.figures() for arm, lead in leads.items()},
        }
        criteria |= {f"{data}: ahead of {arm}": lead.above(0) for arm, lead in leads.items()}
        criteria[f"{data}: deepened members compute what they did"] = (
            measured[data]["largest change of a deepened member"] < 1e-4
        )
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="the cost of the alignment equal to the least over all, to 1e-9; lower 95% limits of paired "
        "differences in test accuracy after the fine-tune above 0; logits of deepened members as before to 1e-4",
        baseline="a random alignment in order, identity layers at the end, and either network alone, all fine-tuned in "
        "as many steps with the better of two rates by held-out accuracy",
        kind="reduced",
    )


def _excess(seed: int) -> float:
    rng = np.random.default_rng([seed, 1])
    worst = 0.0
    for rows, columns in itertools.product(range(1, 5), range(1, 10)):
        if rows > columns:
            continue
        costs = rng.random((rows, columns))
        least = min(sum(costs[i, j] for i, j in enumerate(way)) for way in itertools.combinations(range(columns), rows))
        worst = max(worst, float(costs[np.arange(rows), match_layers(costs)].sum()) - least, key=abs)
    return worst


def _trial(seed: int, *, data: str, broken: bool) -> dict[str, float]:
    task = networks.task(data)
    shallow = networks.pretrain(task, hidden=SHALLOW, seed=seed, steps=300)
    deep = networks.pretrain(task, hidden=DEEP, seed=seed + 1, steps=300)
    rng = np.random.default_rng(seed)
    seen = task.train.X[:400]
    orders = [[0, *way] for way in itertools.combinations(range(1, len(DEEP)), len(SHALLOW) - 1)]
    drawn = orders[int(rng.integers(len(orders)))]
    last = list(range(len(SHALLOW)))

    def padded(order: Sequence[int]) -> State:
        return dict(ot_fusion([_deepened(shallow, order), deep], reference=1, inputs=seen).result)

    made = {
        "aligned": padded(drawn) if broken else dict(cross_layer_fusion([shallow, deep], inputs=seen).result),
        "random order": padded(drawn),
        "identities last": padded(last),
        "shallow": shallow,
        "deep": deep,
    }
    X, y = task.test.X, task.test.y
    out = {arm: _tuned(state, task, seed) for arm, state in made.items()}
    out |= {f"{arm}, one shot": networks.accuracy(state, X, y) for arm, state in made.items()}
    out["ensemble"] = _together([shallow, deep], X, y)
    changes = [networks.logits(_deepened(shallow, order), X) - networks.logits(shallow, X) for order in orders]
    out["changed by"] = float(np.abs(changes).max())
    return out


def _tuned(state: Mapping[str, Any], task: Task, seed: int) -> float:
    found = [networks.finetune(state, task, seed=seed, steps=TUNED, rate=rate) for rate in RATES]
    best = max(found, key=lambda one: networks.accuracy(one, task.valid.X, task.valid.y))
    return networks.accuracy(best, task.test.X, task.test.y)


def _together(states: Sequence[State], X: Any, y: Any) -> float:
    chances = np.mean([networks.softmax(networks.logits(state, X)) for state in states], axis=0)
    return float((chances.argmax(axis=1) == y).mean())


def _deepened(shallow: State, order: Sequence[int]) -> State:
    """The shallow network with identity layers where no layer of it is matched, by hand."""
    layers, out, width = networks.depth(shallow), {}, 0
    own = dict(zip([*order, len(DEEP)], layers, strict=True))
    for position in range(len(DEEP) + 1):
        if position in own:
            weight, bias = (shallow[f"{own[position]}.{part}"] for part in ("weight", "bias"))
            width = len(weight)
        else:
            weight, bias = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
        out[f"{2 * position}.weight"], out[f"{2 * position}.bias"] = weight, bias
    return out
