"""Families of programs by hardness: what a predictor learns of several together, for programs of its size and larger.

Covers, independent sets, auctions and facility locations, drawn at three hardnesses. A predictor reads each variable's
cost, column and relaxation and gives the chance that the optimum has it; the least likely 60% of a program's variables
are fixed to zero, and HiGHS solves what is left. It is fitted to three easy programs of one family, or of each of four.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Floats = NDArray[np.float64]

KINDS = ("set_cover", "independent_set", "combinatorial_auction", "facility_location")
TAGS = ("easy", "medium", "hard")
FITTED, FIXED, ITERATIONS, NODES = 3, 0.6, 4, 10
# A program of which nothing is left is as far off as its optimum is large.
FAILED = 1.0


@claim(
    paper=113,
    says="A predictor fitted to a few programs of each of four families fixes variables with a smaller gap than one "
    "fitted to as few of the family itself, on larger programs too, and far smaller than one fitted to another family",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired on the same programs; broken: predictors are fitted to shuffled answers."""
    each = 4 if scale == "small" else 12
    fits, tests = derive(seed, FITTED, stream=1), derive(seed, each, stream=2)
    learnt = {kind: _joined([_rows(kind, "easy", one, broken) for one in fits]) for kind in KINDS}
    learnt["all"] = _joined([learnt[kind] for kind in KINDS])
    models = {name: _fitted(*rows) for name, rows in learnt.items()}
    work = functools.partial(_trial, models=models)
    trials = spread(work, [(kind, tag, one) for kind in KINDS for tag in TAGS for one in tests])
    measured: dict[str, Any] = {}
    criteria: dict[str, bool] = {}
    for kind in KINDS:
        own = {tag: [row for row in trials if (row["kind"], row["tag"]) == (kind, tag)] for tag in TAGS}
        seconds = [float(np.median([row["seconds"] for row in own[tag]])) for tag in TAGS]
        measured[kind] = {
            "median seconds by tag": np.round(seconds, 3).tolist(),
            "median nodes by tag": [float(np.median([row["nodes"] for row in own[tag]])) for tag in TAGS],
            "gap of neighbourhoods by tag": [
                round(float(np.mean([row["neighbourhoods"] for row in own[tag]])), 5) for tag in TAGS
            ],
            "gap fitted to all, to itself, to another, by tag": [
                [round(float(np.mean([row[who] for row in own[tag]])), 4) for who in ("all", "own", "other")]
                for tag in TAGS
            ],
        }
    for name, tags in (("sizes as fitted", TAGS[:1]), ("larger sizes", TAGS[1:])):
        gap = {who: np.array([row[who] for row in trials if row["tag"] in tags]) for who in ("all", "own", "other")}
        for who in ("own", "other"):
            less = difference(gap[who], gap["all"])
            label = "the family itself" if who == "own" else "another family"
            criteria[f"{name}: a smaller gap fitted to all than to {label}"] = less.above(0.0)
            measured[f"{name}: gap, fitted to {label} - to all"] = less.figures()
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences of the gap above 0, on programs of the size fitted to and on "
        "larger",
        baseline="the same predictor fitted to three programs of the family itself, and to three of the next family",
        kind="reduced",
    )


def _solved(program: Any, ends: Floats | None = None) -> Any:
    """HiGHS's answer, with bounds of some variables in place of the program's."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    low, high = (program.bounds if ends is None else ends).T
    return milp(
        program.c,
        integrality=program.integrality,
        bounds=Bounds(low, high),
        constraints=LinearConstraint(program.A, program.low, program.high),
        options={"time_limit": 60},
    )


def _features(program: Any) -> Floats:
    """(whole variables, 8) each variable's cost and column beside the others', and its value in the relaxation."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.stats import rankdata

    answer: Any = milp(
        program.c,
        bounds=Bounds(*program.bounds.T),
        constraints=LinearConstraint(program.A, program.low, program.high),
    )
    relaxed = answer.x
    whole = program.integrality == 1
    columns = abs(program.A).tocsc()
    degree = np.diff(columns.indptr)[whole].astype(np.float64)
    cost, value = program.c[whole], relaxed[whole]
    scaled, n = cost / np.abs(cost).max(), len(cost)
    rate = scaled / np.maximum(degree, 1)
    return np.stack(
        [
            scaled,
            rankdata(cost) / n,
            degree / max(degree.mean(), 1),
            rankdata(rate) / n,
            value,
            np.abs(value - 0.5),
            (value > 0.5).astype(float),
            np.full(n, value.mean()),
        ],
        axis=1,
    )


def _rows(kind: Any, tag: Any, seed: int, broken: bool) -> tuple[Floats, Floats]:
    program = kofn.allocation.drawn_program(kind, tag, seed=seed)
    best = _solved(program).x[program.integrality == 1] > 0.5
    return _features(program), np.random.default_rng(seed).permutation(best) if broken else best


def _joined(parts: list[Any]) -> tuple[Floats, Floats]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _fitted(x: Floats, y: Floats) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y)


def _trial(case: tuple[Any, Any, int], *, models: dict[str, Any]) -> dict[str, Any]:
    kind, tag, seed = case
    program = kofn.allocation.drawn_program(kind, tag, seed=seed)
    began = time.process_time()
    best = _solved(program)
    seconds, optimum = time.process_time() - began, float(best.fun)

    def gap(value: float) -> float:
        return min((value - optimum) / abs(optimum), FAILED)

    x = _features(program)
    out: dict[str, Any] = {"kind": kind, "tag": tag, "seconds": seconds, "nodes": best.mip_node_count}
    for who, name in (("all", "all"), ("own", kind), ("other", KINDS[(KINDS.index(kind) + 1) % len(KINDS)])):
        chance = models[name].predict_proba(x)[:, 1]
        ends = program.bounds.copy()
        ends[np.argsort(chance, kind="stable")[: round(FIXED * len(chance))]] = 0
        left = _solved(program, ends)
        out[who] = FAILED if left.x is None else gap(float(left.fun))
    plan = kofn.allocation.balans(
        **program.words, iterations=ITERATIONS, nodes_each=NODES, seconds_each=float("inf"), seed=seed
    )
    out["neighbourhoods"] = gap(float(plan.value))
    return out
