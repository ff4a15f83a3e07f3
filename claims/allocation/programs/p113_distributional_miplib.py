"""Programs by distribution and hardness: what their tags say of HiGHS and of `balans`, and a model learned over them.

Four families of programs are drawn by seed at three sizes. HiGHS's nodes tell whether the tags order them; `balans`
runs a few neighbourhoods on each, against the best value known. The paper learns where to branch, which HiGHS does not
let anybody decide; here a regression learns which whole variables are 1 in the best point, from what the relaxation
says of them, from as many programs of all families or of one, and is judged on larger programs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.programs import FAMILIES, TAGS, Program, drawn
from claims.harness.runs import derive, spread

Floats = NDArray[np.float64]
Figures = dict[str, Any]

NODES, ITERATIONS, SMALL = 400, 4, 20
# Programs that a model learns from: few.
LEARNED = 8


@claim(
    paper=113,
    says="Programs drawn by family and tag take HiGHS more nodes the harder their tag says they are, balans ends "
    "within 2% of the best known on each tag; and from few programs a model learned over all families predicts larger "
    "ones better than models learned over one",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Four programs a family and tag; broken: every tag draws the easy size, and the model learns over one family."""
    each = 4 if scale == "small" else 12
    tasks = [(family, tag, number) for family in FAMILIES for tag in TAGS for number in derive(seed, each)]
    trials = spread(functools.partial(_trial, broken=broken), tasks)
    nodes = {
        family: [
            float(
                np.median([t["nodes"] for t, (f, g, _) in zip(trials, tasks, strict=True) if (f, g) == (family, tag)])
            )
            for tag in TAGS
        ]
        for family in FAMILIES
    }
    gaps = {tag: [t["gap"] for t, (_, g, _) in zip(trials, tasks, strict=True) if g == tag] for tag in TAGS}
    learned = _learned(seed, each, broken)
    mixed = np.array([row["mixed"] for row in learned])
    others = np.array([row["others"] for row in learned])
    own = np.array([row["own"] for row in learned])
    measured: Figures = {
        "median nodes of HiGHS by tag": nodes,
        "mean gap of balans by tag": {tag: round(float(np.mean(values)), 5) for tag, values in gaps.items()},
        "log loss, one other family - mixed": difference(others, mixed).figures(),
        "log loss, the own family - mixed": difference(own, mixed).figures(),
    }
    same = [drawn(family, "hard", 3) for family in FAMILIES]
    again = [drawn(family, "hard", 3) for family in FAMILIES]
    criteria = {
        **{f"{family}: nodes rise with the tag": _rises(counts) for family, counts in nodes.items()},
        "balans within 2% on each tag": max(float(np.mean(values)) for values in gaps.values()) < 0.02,
        "the same seed draws the same program": all(
            np.array_equal(a.c, b.c) and (a.A != b.A).nnz == 0 for a, b in zip(same, again, strict=True)
        ),
        "mixed better than one other family": difference(others, mixed).above(0.0),
        "mixed better than the own family": difference(own, mixed).above(0.0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="medians of nodes that never fall with the tag and rise in all; mean gaps below 2%; lower 95% limits "
        "of the paired differences in log loss above 0",
        baseline="as many programs of one family, of another than is judged and of the same; the best value of HiGHS "
        f"in {NODES} nodes and of balans",
        kind="reduced",
    )


def _rises(counts: list[float]) -> bool:
    return bool((np.diff(counts) >= 0).all() and counts[-1] > counts[0])


def _solved(program: Program, nodes: int) -> tuple[float, int, Floats]:
    """Value, nodes and point of HiGHS within so many nodes."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    answer = milp(
        program.c,
        integrality=program.whole,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(program.A, program.low, program.high),
        options={"node_limit": nodes},
    )
    return float(answer.fun), int(answer.mip_node_count), np.asarray(answer.x)


def _trial(task: tuple[str, str, int], *, broken: bool) -> Figures:
    family, tag, seed = task
    program = drawn(family, "easy" if broken else tag, seed)
    best, nodes, _ = _solved(program, NODES)
    plan = kofn.allocation.balans(
        program.c,
        program.A,
        low=program.low,
        high=program.high,
        integrality=program.whole,
        iterations=ITERATIONS,
        nodes_each=SMALL,
        seconds_each=float("inf"),
        seed=seed,
    )
    least = min(best, float(plan.value))
    return {"nodes": nodes, "gap": (float(plan.value) - least) / abs(least)}


def _learned(seed: int, each: int, broken: bool) -> list[dict[str, float]]:
    """Log loss of each model on medium programs of each family: learned from easy ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    shelf = {family: [_known(drawn(family, "easy", s)) for s in derive(seed, LEARNED, stream=4)] for family in FAMILIES}
    share = LEARNED // len(FAMILIES)

    def model(parts: list[tuple[Floats, Floats]]) -> Any:
        X, y = (np.concatenate(side) for side in zip(*parts, strict=True))
        scaler = StandardScaler().fit(X)
        fitted = LogisticRegression(max_iter=400).fit(scaler.transform(X), y)
        return lambda rows: fitted.predict_proba(scaler.transform(rows))[:, 1]

    alone = {family: model(parts) for family, parts in shelf.items()}
    mixed = alone["cover"] if broken else model([part for parts in shelf.values() for part in parts[:share]])
    rows = []
    for family in FAMILIES:
        for number in derive(seed, each, stream=5):
            X, y = _known(drawn(family, "medium", number))
            losses = {name: float(log_loss(y, predict(X), labels=[0, 1])) for name, predict in alone.items()}
            rows.append(
                {
                    "mixed": float(log_loss(y, mixed(X), labels=[0, 1])),
                    "own": losses.pop(family),
                    "others": float(np.mean(list(losses.values()))),
                }
            )
    return rows


def _known(program: Program) -> tuple[Floats, Floats]:
    """What the relaxation says of each whole variable, and whether it is 1 in the best point."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    free = np.zeros(len(program.c), np.int64)
    constraints = LinearConstraint(program.A, program.low, program.high)
    relaxed = np.asarray(milp(program.c, integrality=free, bounds=Bounds(0, 1), constraints=constraints).x)
    _, _, point = _solved(program, NODES)
    whole = program.whole == 1
    cost = np.abs(program.c) / np.abs(program.c[whole]).max()
    degree = np.asarray((program.A != 0).sum(axis=0)).ravel()
    features = np.column_stack([relaxed, relaxed > 0.999, relaxed < 0.001, cost, cost * relaxed, degree / degree.max()])
    return features[whole], (point[whole] > 0.5).astype(np.float64)
