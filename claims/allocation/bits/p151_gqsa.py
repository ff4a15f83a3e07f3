"""Groups of weights pruned and rounded as one, against two bits for all and against two of four, on trained networks.

Networks on digits and on diamonds. Their layers of 128 inputs are stored with half of the groups of 16 at 4 bits, with
2 bits for all weights, and with two of each four weights at 4 bits. All three are fitted and rounded alike, by the same
calibration rows; the groups of 2 bits are as large as it takes to store no less than the largest that ours takes.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import kofn
from claims import Evidence, claim
from claims.harness.data import diamonds, digits, shuffled
from claims.harness.learners import Network, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

WIDTH, GROUP, BITS, KEEP, WORKERS = 128, 16, 4, 0.5, 8
# Groups of weights at 2 bits: smaller ones store more scales and err less.
TWO_BIT_GROUPS = (16, 32, 64, 128)
CALIBRATION, TEST = 600, 600
RIVALS = ("2 bits", "2:4")


@claim(
    paper=151,
    says="Half of the groups of 16 weights at 4 bits, chosen by the layer's second moments, leave a trained network "
    "less output error and less test loss than 2 bits for all weights and than two of four at 4 bits, in fewer "
    "stored bits; equal shares of stored groups keep workers level where equal shares of rows do not",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired on the same networks and rows; broken: the groups that are kept are drawn."""
    runs = 8 if scale == "small" else 24
    measured: dict[str, Any] = {}
    criteria: dict[str, bool] = {}
    for data in ("digits", "diamonds"):
        rows = spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs, stream=len(data)))
        got = {who: np.array([row[who] for row in rows]) for who in rows[0]}
        for rival in RIVALS:
            error = difference(np.log(got[rival][:, 0]), np.log(got["ours"][:, 0]))
            loss = difference(got[rival][:, 1], got["ours"][:, 1])
            criteria[f"{data}: less output error than {rival}"] = error.above(0.0)
            criteria[f"{data}: less test loss than {rival}"] = loss.above(0.0)
            measured[f"{data}, log output error, {rival} - ours"] = error.figures()
            measured[f"{data}, test loss, {rival} - ours"] = loss.figures()
        bits = {who: round(float(values[:, 3].mean()), 3) for who, values in got.items() if who != "loads"}
        criteria[f"{data}: fewer bits than either"] = all(bits["ours"] <= bits[rival] for rival in RIVALS)
        loads = got["loads"].max(axis=0)
        criteria[f"{data}: level to a tenth by stored groups"] = bool(loads[0] <= 1.1)
        measured[data] = {
            "bits a weight": bits,
            "accuracy": {who: round(float(got[who][:, 2].mean()), 4) for who in bits},
            "largest load over the mean, by stored groups and by rows": np.round(loads, 3).tolist(),
        }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences above 0, of log output error on fresh rows and of test loss, "
        "against both rivals on each data set, at no more stored bits a weight; the largest load of eight workers at "
        "most 1.1 times the mean",
        baseline="2 bits for all weights, in the largest groups that store no fewer bits than ours; two of each four "
        "weights by the same saliency at 4 bits; both fitted and rounded as ours",
        kind="reduced",
    )


def _trial(seed: int, *, data: str, broken: bool) -> dict[str, list[float]]:
    """Output error, test loss, accuracy and bits a weight of each; and how unlike the loads of workers are."""
    rng = np.random.default_rng(seed)
    rows = shuffled(digits() if data == "digits" else diamonds(5), rng)
    train = rows.take(np.arange(min(1197, len(rows) - TEST)))
    test = rows.take(np.arange(len(rows) - TEST, len(rows)))
    network = Network(hidden=(WIDTH, WIDTH), steps=400).fit(train.X, train.y, rows.classes, seed)
    hidden = np.maximum(train.X[:CALIBRATION] @ network.weights[0] + network.biases[0], 0)
    after = np.maximum(hidden @ network.weights[1] + network.biases[1], 0)
    grams = [part.T.astype(np.float64) @ part / len(part) for part in (hidden, after)]
    layers = [weight.T for weight in network.weights[1:]]

    def coded(**how: Any) -> list[Any]:
        return [kofn.allocation.group_sparse(layer, gram, **how) for layer, gram in zip(layers, grams, strict=True)]

    def drawn(layer: Any) -> Any:
        groups = layer.shape[0] * layer.shape[1] // GROUP
        return (rng.permutation(groups) < round(KEEP * groups)).reshape(len(layer), -1)

    if broken:
        ours = [
            kofn.allocation.group_sparse(layer, gram, bits=BITS, group=GROUP, kept=drawn(layer))
            for layer, gram in zip(layers, grams, strict=True)
        ]
    else:
        ours = coded(bits=BITS, group=GROUP, keep=KEEP)
    stored = sum(layer.stored_bits for layer in ours)
    # From large groups to small ones, the first that store as much.
    tried = (coded(bits=2, group=group, pattern="dense") for group in TWO_BIT_GROUPS[::-1])
    two = next(found for found in tried if sum(layer.stored_bits for layer in found) >= stored)
    exact = network.logits(test.X)
    weights = sum(layer.size for layer in layers)

    def judged(found: list[Any]) -> list[float]:
        replaced = [network.weights[0], *(layer.weight.T.astype(np.float32) for layer in found)]
        logits = network.logits(test.X, replaced)
        loss = -np.log(np.maximum(softmax(logits)[np.arange(TEST), test.y], 1e-12)).mean()
        bits = sum(layer.stored_bits for layer in found) / weights
        off = float(((logits - exact) ** 2).mean()) + 1e-12
        return [off, float(loss), network.accuracy(test.X, test.y, replaced), bits]

    loads = [ours[0].loads(WORKERS, by=by) for by in ("tasks", "rows")]
    return {
        "ours": judged(ours),
        "2 bits": judged(two),
        "2:4": judged(coded(bits=BITS, group=GROUP, pattern="2:4")),
        "loads": [float(load.max() / load.mean()) for load in loads],
    }
