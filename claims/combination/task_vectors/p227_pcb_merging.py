"""Competition balancing of task vectors against means, sums and sign consensus, each with as many settings tried.

Networks fine-tuned from one start to overlapping classes of diamonds and of scanned digits, and to digits turned by
several angles; every method's setting is chosen by accuracy on validation rows of all tasks, and as the papers fix them
where there are none.
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

SUITES = ("diamonds, classes", "digits, classes", "digits, turned")
SCALES = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0)
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "pcb_merging": [{"density": density, "scale": scale} for density in (0.05, 0.2, 0.5) for scale in SCALES],
    "ties": [{"density": d, "scale": scale, "scope": "model"} for d in (0.2, 0.5, 1.0) for scale in SCALES],
    "task_arithmetic": [{"scale": scale} for scale in np.linspace(0.2, 3.6, 18).tolist()],
}
# Without rows to choose on: the papers' own. Task vectors added at 0.4 each are 0.4 m of their mean.
FIXED: dict[str, dict[str, Any]] = {
    "pcb_merging": {"density": 0.1},
    "ties": {"density": 0.2, "scope": "model"},
    "task_arithmetic": {"scale": 1.2},
}

Figures = dict[str, float]


@claim(
    paper=227,
    says="Merging by competition balancing is more accurate over the tasks than the mean, than sign consensus and than "
    "task arithmetic, each tuned over as many settings",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Mean accuracy over tasks; broken: task vectors compete with their entries in another order."""
    runs = 6 if scale == "small" else 15
    measured: dict[str, Any] = {}
    met = []
    for suite in SUITES:
        rows = spread(functools.partial(_one, suite=suite, broken=broken), derive(seed, runs))
        leads = {
            name: difference([row["pcb_merging"] for row in rows], [row[name] for row in rows])
            for name in ("mean", "ties", "task_arithmetic")
        }
        fixed = {
            name: difference([row["pcb_merging, fixed"] for row in rows], [row[f"{name}, fixed"] for row in rows])
            for name in ("ties", "task_arithmetic")
        }
        measured[suite] = {
            **{f"less {name}": lead.figures() for name, lead in leads.items()},
            **{f"less {name}, both at the papers' settings": lead.figures() for name, lead in fixed.items()},
            "mean of every accuracy": {n: round(float(np.mean([row[n] for row in rows])), 4) for n in rows[0]},
        }
        met += [lead.above(0) for lead in leads.values()]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="lower 95% limits of the paired differences of test accuracy, the mean over tasks, above zero on each "
        "suite",
        baseline="the mean; task arithmetic, ties and competition balancing with one of 18 settings each, chosen on "
        "validation rows of the tasks",
        kind="reduced",
    )


def _tasks(suite: str, seed: int) -> tuple[Task, list[Task]]:
    """What the start learns, and what the members learn."""
    data = suite.split(",")[0]
    if suite.endswith("turned"):
        return networks.task(data, rows=400, seed=seed), [networks.task(data, rotate=a) for a in (-30, -10, 10, 30)]
    groups = ((0, 1, 2), (1, 2, 3), (2, 3, 4))
    if data == "digits":
        groups = ((0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9))  # type: ignore[assignment]
    return networks.task(data, rows=400, seed=seed), [networks.task(data, classes=group) for group in groups]


def _one(seed: int, *, suite: str, broken: bool) -> Figures:
    start, tasks = _tasks(suite, seed)
    base = networks.pretrain(start, hidden=(64, 64), seed=seed, steps=200)
    nets = [networks.finetune(base, task, seed=seed + place, steps=150, rate=1e-3) for place, task in enumerate(tasks)]

    def accuracy(state: State, part: str) -> float:
        held = [getattr(task, part) for task in tasks]
        return float(np.mean([networks.accuracy(state, rows.X, rows.y) for rows in held]))

    out = {
        "start": accuracy(base, "test"),
        "members, each on its own": float(
            np.mean([networks.accuracy(n, t.test.X, t.test.y) for n, t in zip(nets, tasks, strict=True)])
        ),
        "mean": accuracy(networks.average(nets), "test"),
    }
    for name, settings in SETTINGS.items():
        made = [_merged(name, nets, base, options, broken, seed) for options in settings]
        best = int(np.argmax([accuracy(state, "valid") for state in made]))
        out[name] = accuracy(made[best], "test")
        out[f"{name}, fixed"] = accuracy(_merged(name, nets, base, FIXED[name], broken, seed), "test")
    return out


def _merged(name: str, nets: list[State], base: State, options: dict[str, Any], broken: bool, seed: int) -> State:
    import kofn.combination as combination

    members = nets
    if broken and name == "pcb_merging":
        rng = np.random.default_rng(seed)
        members = [{n: base[n] + _shuffled(net[n] - base[n], rng) for n in net} for net in nets]
    return dict(getattr(combination, name)(members, base=base, **options).result)


def _shuffled(array: Any, rng: np.random.Generator) -> Any:
    return rng.permutation(array.ravel()).reshape(array.shape)
