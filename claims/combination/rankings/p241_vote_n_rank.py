"""Social choice for leaderboards: how far a ranking moves when a task is rescaled, or when scores are missing.

Every way to rank is held against itself: Kendall's tau between its ranking of the whole table and of the changed one.
One board is drawn: 20 systems, 10 tasks of unlike noise and scale. The other is real: 13 classifiers of scikit-learn,
ten tasks (accuracy in percent, and log loss, on five labelled sets).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy.stats import kendalltau

import kofn
from claims import Evidence, claim
from claims.harness.leaderboards import SETS, sheet
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import winning_weights

RULES = ("borda", "copeland", "minimax", "dowdall", "baldwin", "threshold_rule", "plurality")
JUDGED = RULES[:3]
SYSTEMS, TASKS, MISSING, RESCALED = 20, 10, 0.2, 100.0
MEANS = ("mean", "mean of standardised scores")


@claim(
    paper=241,
    says="Where a task is rescaled, the rankings of Borda, Copeland and minimax stay and the mean's does not; where a "
    "fifth of the scores is missing they move less than the mean's; weights under which a system wins are found",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """A drawn board and a real one; broken: scores are averaged, not turned into each task's ranking."""
    runs = 10 if scale == "small" else 40
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    boards = ("drawn", "real")
    taus = {
        board: {
            change: {way: np.array([row[board][change][way] for row in rows]) for way in (*MEANS, *RULES)}
            for change in ("rescaled", "missing")
        }
        for board in boards
    }
    criteria = {
        "rescaling moves no rule and moves the mean": all(
            (taus[board]["rescaled"][rule].round(12) == 1).all()
            and difference(taus[board]["rescaled"][rule], taus[board]["rescaled"]["mean"]).above(0.05)
            for board in boards
            for rule in JUDGED
        ),
        "found weights make a winner, and none are there where none are found": all(row["weights"] for row in rows),
    }
    gaps: dict[str, Any] = {}
    for board in boards:
        for rule in JUDGED:
            for mean in MEANS:
                name = f"{board}, a fifth missing: {rule} moves less than the {mean}"
                gap = difference(taus[board]["missing"][rule], taus[board]["missing"][mean])
                gaps[name] = gap.figures()
                criteria[name] = gap.above(0)
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "tau with itself": {
                f"{board}, {change}": {way: round(float(each.mean()), 3) for way, each in ways.items()}
                for board, changes in taus.items()
                for change, ways in changes.items()
            },
            "differences": gaps,
            "systems that some weights make first": round(float(np.mean([row["can win"] for row in rows])), 3),
        },
        expected="tau of 1 after rescaling and at least 0.05 more than the mean's; after deletion a lower 95% limit of "
        "the difference above 0",
        baseline="the mean of the scores that are there, as leaderboards take it, and the mean of scores standardised "
        "by task, which rescaling does not move either",
        kind="measured",
    )


def _drawn(rng: np.random.Generator) -> Any:
    """Systems of normal quality on tasks of unlike spread and level."""
    quality = rng.normal(size=SYSTEMS)
    noise = rng.uniform(0.3, 1.0, TASKS)
    scores = quality[:, None] + noise * rng.normal(size=(SYSTEMS, TASKS))
    return rng.uniform(0, 50, TASKS) + rng.uniform(1, 10, TASKS) * scores


def _real(seed: int) -> Any:
    sheets = [sheet(name, seed) for name in SETS]
    accuracies = np.array([100 * each.correct.mean(axis=1) for each in sheets])
    losses = np.array([-each.log_loss for each in sheets])
    return np.vstack([accuracies, losses]).T


def _points(table: Any, way: str, *, broken: bool) -> Any:
    if way in MEANS or broken:
        if way == MEANS[1]:
            table = (table - np.nanmean(table, axis=0)) / np.nanstd(table, axis=0)
        return np.nanmean(table, axis=1)
    method: Any = way
    return kofn.combine(rankings=table, method=method).info["points"]


def _moved(table: Any, changed: Any, *, broken: bool) -> dict[str, float]:
    out = {}
    for way in (*MEANS, *RULES):
        before, after = (_points(each, way, broken=broken).round(9) for each in (table, changed))
        out[way] = float(kendalltau(before, after).statistic)
    return out


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    out: dict[str, Any] = {}
    for board, table in (("drawn", _drawn(rng)), ("real", _real(seed))):
        rescaled = table.copy()
        rescaled[:, rng.integers(table.shape[1])] *= RESCALED
        gone = table.copy()
        gone[rng.random(table.shape) < MISSING] = np.nan
        empty = np.isnan(gone).all(axis=1)
        gone[empty] = table[empty]
        out[board] = {
            "rescaled": _moved(table, rescaled, broken=broken),
            "missing": _moved(table, gone, broken=broken),
        }
        if board == "real":
            out["weights"], out["can win"] = _weights(table, rng)
    return out


def _weights(table: Any, rng: np.random.Generator) -> tuple[bool, float]:
    """Whether weights that are found make each system first, and draws make first none for whom none were found."""
    won, right = set(), True
    for item in range(len(table)):
        weights = winning_weights(table, item)
        if weights is not None:
            points = kofn.combine(rankings=table, weights=weights).info["points"]
            right &= bool(points[item] >= points.max() - 1e-9)
            won.add(item)
    for weights in rng.dirichlet(np.full(table.shape[1], 0.3), 50):
        points = kofn.combine(rankings=table, weights=weights).info["points"]
        right &= set(np.flatnonzero(points >= points.max()).tolist()) <= won
    return right, len(won) / len(table)
