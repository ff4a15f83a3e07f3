"""Loss barriers between networks when one layer is averaged, and when all are.

On scanned digits and on prices of diamonds: two networks of four hidden layers from different starts; two from one
start, on halves of the rows drawn apart and at a high rate; and a deep linear network under squared loss, of which a
theorem speaks. Barriers are the midpoint's loss over the mean of the two networks' own, as in the paper's code.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State, Task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

DATA = ("digits", "diamonds")
HIDDEN = (96, 96, 96, 96)
SMALL = 0.1

Figures = dict[str, float]


@claim(
    paper=199,
    says="Between two deep networks whose full average is useless, no single layer has a loss barrier worth the name "
    "when it alone is averaged; deep linear networks have none at all",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Barriers of single layers against that of the full average; broken: every "layer" is all of them."""
    runs = 6 if scale == "small" else 20
    measured: dict[str, Any] = {}
    met = []
    for data in DATA:
        for start in ("two starts", "one start"):
            rows = spread(functools.partial(_one, data=data, start=start, broken=broken), derive(seed, runs))
            full = difference([row["all"] for row in rows], np.zeros(runs))
            worst = difference([row["largest of a layer"] for row in rows], [SMALL * row["all"] for row in rows])
            inner = difference([row["largest of an inner layer"] for row in rows], [SMALL * row["all"] for row in rows])
            bulge = difference([row["largest bulge"] for row in rows], [SMALL * row["all"] for row in rows])
            measured[f"{data}, {start}"] = {
                "barrier of the full average": full.figures(),
                "largest barrier of a layer, less a tenth of the full one": worst.figures(),
                "the same between the first and the last layer": inner.figures(),
                "largest rise above the straight line between a path's own ends, less a tenth": bulge.figures(),
                "mean of every figure": {n: round(float(np.mean([row[n] for row in rows])), 4) for n in rows[0]},
            }
            met += [full.above(0.1), worst.high < 0]
        linear = spread(functools.partial(_linear, data=data, broken=broken), derive(seed, 3, stream=1))
        measured[f"{data}, deep linear"] = {
            "largest rise above the line, of a layer": max(row["layer"] for row in linear),
            "of the full average, the least": min(row["all"] for row in linear),
        }
        met.append(all(row["layer"] <= 1e-6 for row in linear))
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="the full average's barrier above 0.1 nats and every single layer's below a tenth of it (95% limits "
        "of paired differences); squared loss convex in each layer of a deep linear network",
        baseline="the full average of the same networks",
        kind="reduced",
    )


def _pair(seed: int, data: str, start: str) -> tuple[Task, State, State]:
    task = networks.task(data)
    if start == "two starts":
        a, b = (networks.pretrain(task, hidden=HIDDEN, seed=seed + place, steps=300) for place in range(2))
        return task, a, b
    first = networks.fresh(task, HIDDEN, seed)
    half = len(task.train) // 2
    # Other rows and another order from the first step on, at a rate at which the two part ways.
    parts = [networks.task(data, rows=half, seed=seed + place) for place in range(2)]
    a, b = (
        networks.finetune(first, part, seed=seed + place, steps=300, rate=2e-2, batch=64)
        for place, part in enumerate(parts)
    )
    return task, a, b


def _one(seed: int, *, data: str, start: str, broken: bool) -> Figures:
    from kofn.combination import layerwise_barriers

    task, a, b = _pair(seed, data, start)
    layers = {name: "*" if broken else f"{name}.*" for name in networks.depth(a)}
    rows = layerwise_barriers(a, b, lambda state: networks.loss(state, task.test.X, task.test.y), layers=layers)
    single, full = rows[:-1], rows[-1]
    return {
        "all": full.barrier,
        "largest of a layer": max(row.barrier for row in single),
        "largest of an inner layer": max(row.barrier for row in single[1:-1]),
        "largest bulge": max(row.bulge for row in single),
        "layers below a tenth": float(np.mean([row.barrier < SMALL * full.barrier for row in single])),
        "loss of the two": float(np.mean(full.ends)),
        **{f"layer {place + 1}": row.barrier for place, row in enumerate(single)},
    }


def _linear(seed: int, *, data: str, broken: bool) -> Figures:
    from kofn.combination import layerwise_barriers

    task = networks.task(data)
    learned = {"activation": "linear", "loss": "squared", "steps": 150, "rate": 1e-3}
    a, b = (networks.pretrain(task, hidden=(32, 32, 32), seed=seed + place, **learned) for place in range(2))
    X, targets = task.test.X, np.eye(task.classes, dtype=np.float32)[task.test.y]

    def squared(state: State) -> float:
        return float(np.square(networks.logits(state, X, activation="linear") - targets).mean(dtype=np.float64))

    layers = {name: "*" if broken else f"{name}.*" for name in networks.depth(a)}
    *single, full = layerwise_barriers(a, b, squared, layers=layers, points=9)
    return {"layer": max(row.bulge for row in single), "all": full.bulge}
