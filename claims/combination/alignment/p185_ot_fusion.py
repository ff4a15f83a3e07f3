"""Networks fused by optimal transport between their units: from independent starts, and of unequal widths.

On scanned digits and on prices of diamonds: two networks of one shape, fused in one shot and after a short training;
and a wide one fused into a narrow one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

DATA = ("digits", "diamonds")
HIDDEN, NARROW, WIDE = (64, 64), (48, 48), (96, 96)
TUNED = 60

Figures = dict[str, float]


@claim(
    paper=185,
    says="Fusing two networks by transport between their units, in one shot, is far better than averaging them as they "
    "are; a permuted copy is recovered; a wide network is fused into a narrow one far better than by cutting it off",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Transport by weights and by activations; broken: every unit is coupled with the one of its own number."""
    runs = 8 if scale == "small" else 20
    measured: dict[str, Any] = {}
    met = []
    for data in DATA:
        rows = spread(functools.partial(_one, data=data, broken=broken), derive(seed, runs))

        def lead(ours: str, theirs: str, rows: Sequence[Figures] = rows) -> Any:
            return difference([row[ours] for row in rows], [row[theirs] for row in rows])

        leads = {
            "by weights less plain": lead("by weights", "plain average"),
            "by activations less plain": lead("by activations", "plain average"),
            "unequal widths, by weights less cut off": lead("unequal, by weights", "unequal, cut off"),
            "unequal widths, by activations less cut off": lead("unequal, by activations", "unequal, cut off"),
        }
        tuned = lead("tuned, by activations", "tuned, plain average")
        measured[data] = {
            **{name: one.figures() for name, one in leads.items()},
            "after a short training, by activations less plain": tuned.figures(),
            "largest difference of a recovered copy": max(row["copy off by"] for row in rows),
            "mean of every accuracy": {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]},
        }
        met += [one.above(0.05) for one in leads.values()]
        met.append(all(row["copy off by"] == 0 for row in rows))
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="test accuracy of the fused networks above the plain average's by 5 points (lower 95% limit), for "
        "weights and for activations, and for unequal widths above the average with the wide network cut off; a "
        "permuted copy bit for bit",
        baseline="the plain average of the same networks; the average of the narrow network with the wide one's units "
        "of largest incoming weights; the ensemble and both members beside",
        kind="reduced",
    )


def _one(seed: int, *, data: str, broken: bool) -> Figures:
    from kofn.combination import ot_fusion, permute

    task = networks.task(data)
    X, y = task.test.X, task.test.y
    nets = [networks.pretrain(task, hidden=HIDDEN, seed=seed + place, steps=300) for place in range(2)]
    narrow = networks.pretrain(task, hidden=NARROW, seed=seed + 2, steps=300)
    wide = networks.pretrain(task, hidden=WIDE, seed=seed + 3, steps=300)

    def fused(members: Sequence[Mapping[str, Any]], **options: Any) -> State:
        if broken:
            return networks.average([members[0], _cut(members[1], members[0])])
        return dict(ot_fusion(members, **options).result)

    rng = np.random.default_rng(seed)
    turned = permute(nets[0], {"0": rng.permutation(HIDDEN[0]), "2": rng.permutation(HIDDEN[1])})
    copy = fused([nets[0], turned])
    seen = task.train.X[:400]
    made = {
        "first": nets[0],
        "second": nets[1],
        "plain average": networks.average(nets),
        "by weights": fused(nets),
        "by activations": fused(nets, inputs=seen),
        "narrow": narrow,
        "wide": wide,
        "unequal, cut off": networks.average([narrow, _cut(wide, narrow)]),
        "unequal, by weights": fused([narrow, wide]),
        "unequal, by activations": fused([narrow, wide], inputs=seen),
        "untrained": networks.fresh(task, NARROW, seed),
    }
    out = {name: networks.accuracy(state, X, y) for name, state in made.items()}
    for name in ("plain average", "by activations"):
        short = networks.finetune(made[name], task, seed=seed, steps=TUNED, rate=1e-3)
        out[f"tuned, {name}"] = networks.accuracy(short, X, y)
    out["ensemble"] = networks.ensemble_accuracy(nets, X, y)
    out["copy off by"] = max(float(np.abs(copy[name] - nets[0][name]).max()) for name in copy)
    return out


def _cut(wide: Mapping[str, Any], narrow: Mapping[str, Any]) -> State:
    """The wide network without its units of least incoming weights."""
    out = {name: np.asarray(array) for name, array in wide.items()}
    for here, after in (("0", "2"), ("2", "4")):
        width = len(narrow[f"{here}.bias"])
        kept = np.sort(np.argsort(-np.abs(out[f"{here}.weight"]).sum(axis=1), kind="stable")[:width])
        for part in ("weight", "bias"):
            out[f"{here}.{part}"] = out[f"{here}.{part}"][kept]
        out[f"{after}.weight"] = out[f"{after}.weight"][:, kept]
    return out
