"""Two networks from different starts merged in part: permutations, then least squares layer by layer.

Three pairs: upright digits and digits turned by 45 degrees; digits of two halves of the classes, with one head;
diamonds of two drawn halves of the rows. Merging sees inputs without labels. All are judged on the test rows of both.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State, Task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

PAIRS = ("turned digits", "halves of the classes", "diamonds")
HIDDEN = (64, 64)
SIZES = (1.0, 1.25, 1.5, 2.0)
# No correction is small enough to be worth this.
NO_LEAST_SQUARES = 1e12

Figures = dict[str, float]


@claim(
    paper=274,
    says="Permuting units and then solving each layer's weights by least squares merges two networks better than the "
    "permuted average, which is better than the plain one; merged in part they get better with size, and at twice the "
    "size both networks' features are whole",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Accuracy on both tasks by size; broken: no least squares."""
    runs = 10 if scale == "small" else 20
    measured: dict[str, Any] = {}
    met = []
    grown: list[float] = []
    ahead: list[float] = []
    for pair in PAIRS:
        rows = spread(functools.partial(_one, pair=pair, broken=broken), derive(seed, runs))

        def lead(ours: str, theirs: str, rows: list[Figures] = rows) -> Any:
            return difference([row[ours] for row in rows], [row[theirs] for row in rows])

        by_size = {f"PLeaS, size {size:g}": [row[f"PLeaS, size {size:g}"] for row in rows] for size in SIZES}
        means = [float(np.mean(figures)) for figures in by_size.values()]
        over_permuted = [lead("PLeaS, size 1", other) for other in ("permuted by activations", "permuted by weights")]
        permuted = lead("permuted by weights", "plain average")
        unmatched = lead("PLeaS, size 1", "least squares alone")
        measured[pair] = {
            "PLeaS at size 1 less permuted by activations": over_permuted[0].figures(),
            "PLeaS at size 1 less permuted by weights": over_permuted[1].figures(),
            "PLeaS at size 1 less least squares without permutation": unmatched.figures(),
            "permuted by weights less plain": permuted.figures(),
            "size 2 off from both networks' mean output": max(row["off at size 2"] for row in rows),
            "mean of every figure": {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]},
        }
        met += [one.above(0) for one in over_permuted]
        ahead += [
            row["PLeaS, size 1"] - max(row["permuted by weights"], row["permuted by activations"]) for row in rows
        ]
        met.append(permuted.above(0))
        grown += [row["PLeaS, size 2"] - row["PLeaS, size 1"] for row in rows]
        met.append(all(b > a - 0.005 for a, b in itertools.pairwise(means)))
        met.append(all(row["off at size 2"] < 1e-4 for row in rows))
    growth = difference(grown, np.zeros(len(grown)))
    measured["size 2 less size 1, all pairs"] = growth.figures()
    gain = difference(ahead, np.zeros(len(ahead)))
    measured["size 1 less the better permuted average, all pairs"] = gain.figures()
    met += [growth.above(0.01), gain.above(0.05)]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="test accuracy on both tasks at size 1 above both permuted averages, and that by weights above the "
        "plain one (lower 95% limits), over all pairs by 5 points above the better permuted average; no fall by more "
        "than half a point from one size to the next, size 2 above size 1 by a point over all pairs; at size 2 the two "
        "outputs averaged, to float32",
        baseline="averages permuted by activations and by weights; least squares without permutation, the ensemble and "
        "both members beside; nothing is tuned on either side",
        kind="reduced",
    )


def _tasks(pair: str, seed: int) -> tuple[Task, Task]:
    if pair == "turned digits":
        return networks.task(), networks.task(rotate=45)
    if pair == "halves of the classes":
        return networks.task(classes=range(5)), networks.task(classes=range(5, 10))
    half = len(networks.task("diamonds").train) // 2
    return networks.task("diamonds", rows=half, seed=seed), networks.task("diamonds", rows=half, seed=seed + 1)


def _one(seed: int, *, pair: str, broken: bool) -> Figures:
    from kofn.combination import permute, pleas, weight_matching

    tasks = _tasks(pair, seed)
    a, b = (networks.pretrain(task, hidden=HIDDEN, seed=seed + place, steps=300) for place, task in enumerate(tasks))
    inputs = np.vstack([task.train.X[:500] for task in tasks])
    ridge = NO_LEAST_SQUARES if broken else 1e-3
    orders = {name: rows[1] for name, rows in (weight_matching([a, b]).transforms or {}).items()}
    made: dict[str, State] = {
        "plain average": networks.average([a, b]),
        "permuted by weights": networks.average([a, permute(b, orders)]),
        "PLeaS, size 1, fitted to the merged layers before": pleas([a, b], inputs=inputs, features="merged").result,
        "permuted by activations": pleas([a, b], inputs=inputs, ridge=NO_LEAST_SQUARES).result,
        "least squares alone": _unmatched(a, b, inputs),
        "first": a,
        "second": b,
    }
    for size in SIZES:
        made[f"PLeaS, size {size:g}"] = pleas([a, b], inputs=inputs, size=size, ridge=ridge).result
    out = {name: _both(state, tasks) for name, state in made.items()}
    out["ensemble of outputs"] = float(
        np.mean(
            [
                ((networks.logits(a, t.test.X) + networks.logits(b, t.test.X)).argmax(axis=1) == t.test.y).mean()
                for t in tasks
            ]
        )
    )
    probes = np.vstack([task.test.X for task in tasks])
    mean = (networks.logits(a, probes) + networks.logits(b, probes)) / 2
    out["off at size 2"] = float(np.abs(networks.logits(made["PLeaS, size 2"], probes) - mean).max())
    return out


def _both(state: State, tasks: tuple[Task, Task]) -> float:
    return float(np.mean([networks.accuracy(state, task.test.X, task.test.y) for task in tasks]))


def _unmatched(a: State, b: State, inputs: Any) -> State:
    """Least squares for the average of units that have the same number, as one would without permutations."""
    seen = [networks.features(state, inputs) for state in (a, b)]
    out: State = {}
    for place, layer in enumerate(networks.depth(a)):
        each = [np.vstack([state[f"{layer}.weight"].T, state[f"{layer}.bias"]]).astype(np.float64) for state in (a, b)]
        reads = [np.hstack([one[place], np.ones((len(inputs), 1))]) for one in seen]
        Z, start = (reads[0] + reads[1]) / 2, (each[0] + each[1]) / 2
        gives = (reads[0] @ each[0] + reads[1] @ each[1]) / 2
        gram = Z.T @ Z
        gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
        solved = start + np.linalg.solve(gram, Z.T @ (gives - Z @ start))
        out[f"{layer}.weight"], out[f"{layer}.bias"] = solved[:-1].T.astype(np.float32), solved[-1].astype(np.float32)
    return out
