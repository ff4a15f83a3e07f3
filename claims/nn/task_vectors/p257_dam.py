"""How much of each column of each network: learnt from what the networks say, against means and searched weights.

Three networks fine-tuned from one start to different classes of scanned digits and of diamonds, for many steps and for
a few; 256 unlabelled rows of each.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.learners import softmax
from claims.harness.networks import State
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

GROUPS = {"digits": ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)), "diamonds": ((0, 1), (2, 3), (3, 4))}
ROWS, BATCH, EPOCHS = 256, 64, 25
LONG, SHORT = 400, 3
# STILL: a rate at which nothing is learnt.
RATE, STILL = 3e-2, 1e-12
# A step of learning shows each row to a source and to the blend, and goes back through it at the cost of two passes.
RATINGS = EPOCHS * 4

Figures = dict[str, float]


@claim(
    paper=257,
    says="Coefficients of columns, learnt without labels, make a blend of networks of different classes that is more "
    "accurate than their mean and than the best weights that an evolution strategy finds by the same criterion in as "
    "many passes; the lead over the mean shrinks as the networks become alike",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Learnt merging after long and after short fine-tuning; broken: the coefficients stay where they start."""
    runs = 8 if scale == "small" else 15
    measured: dict[str, Any] = {}
    met = []
    for data in GROUPS:
        leads = {}
        for steps in (LONG, SHORT):
            rows = spread(functools.partial(_one, data=data, steps=steps, broken=broken), derive(seed, runs))
            leads[steps] = [row["learnt"] - row["mean"] for row in rows]
            lead = difference(leads[steps], np.zeros(runs))
            found = {"learnt less mean": lead.figures()}
            if steps == LONG:
                over = difference([row["learnt"] for row in rows], [row["searched"] for row in rows])
                found["learnt less searched"] = over.figures()
                met += [lead.above(0.01), over.above(0)]
            means = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
            measured[f"{data}, {steps} steps"] = {**found, "mean of every figure": means}
        shrinks = difference(leads[LONG], leads[SHORT])
        measured[f"{data}, lead over the mean, {LONG} steps less {SHORT}"] = shrinks.figures()
        met.append(shrinks.above(0))
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="test accuracy over all classes: after "
        f"{LONG} steps lower 95% limits of the paired differences above one point against the mean and above zero "
        f"against the search; the lead over the mean larger after {LONG} steps than after {SHORT}",
        baseline="CMA-ES over the weights of the mean and over the factors of the task vectors, by the same divergence "
        "on the same rows and each with as many passes, the better of the two by that divergence; the mean; ties, the "
        "ensemble and a search by labels of other rows are shown",
        kind="reduced",
    )


def _one(seed: int, *, data: str, steps: int, broken: bool) -> Figures:
    import torch

    from kofn.combination import evolved_mean, ties
    from kofn.nn import adaptive_merge

    torch.set_num_threads(1)
    whole = networks.task(data)
    base = networks.pretrain(networks.task(data, rows=200, seed=seed), hidden=(64, 64), seed=seed, steps=100)
    parts = [networks.task(data, classes=group) for group in GROUPS[data]]
    nets = [
        networks.finetune(base, part, seed=seed + place, steps=steps, rate=2e-3) for place, part in enumerate(parts)
    ]
    rng = np.random.default_rng(seed)
    seen = [part.train.X[rng.permutation(len(part.train))[:ROWS]] for part in parts]
    batches = [[torch.from_numpy(X[at : at + BATCH]) for at in range(0, len(X), BATCH)] for X in seen]
    rate = STILL if broken else RATE
    learnt = adaptive_merge([networks.module(net) for net in nets], batches, epochs=EPOCHS, rate=rate)
    told = [softmax(networks.logits(net, X).astype(np.float64)) for net, X in zip(nets, seen, strict=True)]

    def agreement(state: State) -> float:
        """Minus the divergence that is learnt from, at temperature 1."""
        total = 0.0
        for wanted, X in zip(told, seen, strict=True):
            ahead = softmax(networks.logits(state, X).astype(np.float64))
            total -= float((wanted * (np.log(wanted + 1e-30) - np.log(ahead + 1e-30))).sum(axis=1).mean())
        return total

    def accuracy(state: Any) -> float:
        return networks.accuracy(state, whole.test.X, whole.test.y)

    out = {"start": accuracy(base), "mean": accuracy(networks.average(nets)), "learnt": accuracy(learnt.result)}
    if steps == LONG:
        search = functools.partial(evolved_mean, nets, budget=RATINGS, seed=seed)
        found = [search(score=agreement), search(score=agreement, base=base)]
        out["searched"] = accuracy(max(found, key=lambda blend: float(blend.value)).result)
        by_labels = search(score=lambda state: networks.accuracy(state, whole.valid.X, whole.valid.y), base=base)
        out["searched by labels of other rows"] = accuracy(by_labels.result)
        out["agreement, searched"] = max(float(blend.value) for blend in found)
        out["ties"] = accuracy(ties(nets, base=base).result)
        out["ensemble"] = networks.ensemble_accuracy(nets, whole.test.X, whole.test.y)
    out["agreement, learnt"] = agreement(dict(learnt.result))
    out["agreement, mean"] = agreement(networks.average(nets))
    out["distance of the networks"] = float(np.mean([networks.distance(nets[0], net) for net in nets[1:]]))
    return out
