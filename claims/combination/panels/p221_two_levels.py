"""Systems ranked by the rankings of tasks and of their instances, against the mean of raw scores.

Simulated: twenty systems whose quality is Gumbel's, ten tasks on scales of their own, forty instances each. Real:
thirteen classifiers on five labelled sets, of which some are scored by hits and others by another unit of them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.leaderboards import SETS, sheet
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn import combine
from kofn.combination import long_ballots

Floats = NDArray[np.float64]
SYSTEMS, TASKS, ITEMS, RESAMPLES = 20, 10, 40, 30
FACTOR = 5.0  # Borda's order overturns at most so many times the pairs that the best one does


@claim(
    paper=221,
    says="The order by the rankings of tasks (and of their instances) is nearer to the truth than the mean of scores "
    "on unlike scales, keeps to it where a task is corrupted, changes its first less, and differs from the mean's",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Simulated and real scores; broken: the tasks' raw means are averaged in place of rankings."""
    runs = 16 if scale == "small" else 40
    rows = spread(functools.partial(_simulated, broken=broken), derive(seed, runs))
    real = spread(functools.partial(_classifiers, broken=broken), derive(seed, runs, stream=1))
    gaps = {
        "tau to the truth": difference(_of(rows, "tau"), _of(rows, "tau of the mean")),
        "tau, one task corrupted": difference(_of(rows, "corrupted"), _of(rows, "corrupted of the mean")),
        "tau, less the standardised mean's": difference(_of(rows, "tau"), _of(rows, "tau of the standardised mean")),
        "tau, one task corrupted, less the standardised mean's": difference(
            _of(rows, "corrupted"), _of(rows, "corrupted of the standardised mean")
        ),
        "real: tau between halves, less the standardised mean's": difference(
            _of(real, "halves"), _of(real, "halves of the standardised mean")
        ),
        "changes of the first over resampled tasks": difference(
            _of(rows, "turnover of the mean"), _of(rows, "turnover")
        ),
        "real: tau between halves of the instances": difference(_of(real, "halves"), _of(real, "halves of the mean")),
    }
    criteria = {
        "nearer to the truth than the mean": gaps["tau to the truth"].above(0),
        "nearer to it where one task is corrupted": gaps["tau, one task corrupted"].above(0),
        "nearer to the truth than the mean of standardised scores": gaps["tau, less the standardised mean's"].above(0),
        "nearer than that where one task is corrupted": gaps[
            "tau, one task corrupted, less the standardised mean's"
        ].above(0),
        "exactly unchanged by monotone rescaling of every task": all(row["unchanged"] == 1 for row in rows),
        "Borda's cost within its factor of Kemeny's": max(_of(rows, "cost over the least")) <= FACTOR,
        "the first changes less over resampled tasks": gaps["changes of the first over resampled tasks"].above(0),
        "real: another order than the mean's in most runs": float(np.mean(_of(real, "differs"))) > 0.5,
        "real: halves of the instances agree more than by the mean": gaps[
            "real: tau between halves of the instances"
        ].above(0),
        "real: halves agree more than by the mean of standardised scores": gaps[
            "real: tau between halves, less the standardised mean's"
        ].above(0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            **{name: gap.figures() for name, gap in gaps.items()},
            "simulated, means": {name: round(float(np.mean(_of(rows, name))), 4) for name in rows[0]},
            "real, means": {name: round(float(np.mean(_of(real, name))), 4) for name in real[0]},
            "largest cost over Kemeny's": round(max(_of(rows, "cost over the least")), 4),
        },
        expected="paired lower 95% limits above 0 of Kendall's tau to the truth less the mean's and less the "
        "standardised mean's, with and without a corrupted task, of the mean's share of resampled panels of tasks with "
        "another first less ours, and of tau between rankings by halves of the instances less those of both means; no "
        f"change at all under monotone rescaling; cost at most {FACTOR:g} times Kemeny's; another order than the "
        "mean's in over half of the real runs",
        baseline="the mean over tasks of mean scores, as in the paper, and that of scores standardised in each task",
        kind="measured",
    )


def _of(rows: list[dict[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows]


def _ballots(scores: Floats) -> Floats:
    """(systems, tasks) minus the ranks of the systems by the items of each task, of scores (systems, tasks, items)."""
    sizes = map(np.arange, scores.shape)
    system, task, item = (part.ravel() for part in np.meshgrid(*sizes, indexing="ij"))
    out: Floats = long_ballots(system, task, scores.ravel(), item)["rankings"].to_numpy()
    return out


def _two_levels(scores: Floats, *, broken: bool) -> Any:
    """The plan of scores: by items within tasks, then by tasks."""
    rankings = np.repeat(_mean(scores)[:, None], 2, axis=1) if broken else _ballots(scores)
    return combine(rankings=rankings, method="borda")


def _mean(scores: Floats) -> Floats:
    out: Floats = np.nanmean(np.nanmean(scores, axis=2), axis=1)
    return out


def _standardised(scores: Floats) -> Floats:
    of_tasks = np.nanmean(scores, axis=2)
    out: Floats = ((of_tasks - of_tasks.mean(axis=0)) / (of_tasks.std(axis=0) + 1e-300)).mean(axis=1)
    return out


def _tau(first: Floats, second: Floats) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def _simulated(seed: int, *, broken: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    truth = rng.gumbel(size=SYSTEMS)
    skill = truth[:, None] + 0.7 * rng.normal(size=(SYSTEMS, TASKS))
    hardness = rng.normal(size=(TASKS, ITEMS))
    plain = skill[:, :, None] + hardness + 1.5 * rng.normal(size=(SYSTEMS, TASKS, ITEMS))
    scores = plain * np.exp(1.5 * rng.normal(size=TASKS))[:, None]
    plan = _two_levels(scores, broken=broken)
    bent = np.exp(plain / 3) * 10.0 ** np.arange(TASKS)[:, None]
    corrupted = scores.copy()
    corrupted[:, rng.integers(TASKS)] = 100 * scores.std() * rng.normal(size=(SYSTEMS, ITEMS))
    of_corrupted = _two_levels(corrupted, broken=broken)
    of_tasks = np.nanmean(scores, axis=2)
    ballots = of_tasks if broken else _ballots(scores)
    turnover = {"ours": 0, "mean": 0}
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, TASKS, TASKS)
        again = ballots[:, drawn].mean(axis=1) if broken else combine(rankings=ballots[:, drawn]).info["points"]
        turnover["ours"] += int(np.argmax(again)) != _first(plan)
        turnover["mean"] += int(of_tasks[:, drawn].mean(axis=1).argmax() != of_tasks.mean(axis=1).argmax())
    few = of_tasks[:8]
    least, borda = (combine(rankings=few, method=method) for method in ("kemeny", "borda"))
    return {
        "tau": _tau(plan.info["points"], truth),
        "tau of the mean": _tau(_mean(scores), truth),
        "tau of the standardised mean": _tau(_standardised(scores), truth),
        "corrupted": _tau(of_corrupted.info["points"], truth),
        "corrupted of the mean": _tau(_mean(corrupted), truth),
        "corrupted of the standardised mean": _tau(_standardised(corrupted), truth),
        "unchanged": float(np.array_equal(plan.info["points"], _two_levels(bent, broken=broken).info["points"])),
        "turnover": turnover["ours"] / RESAMPLES,
        "turnover of the mean": turnover["mean"] / RESAMPLES,
        "cost over the least": _overturned(few, borda.result) / max(_overturned(few, least.result), 1),
    }


def _first(plan: Any) -> int:
    return int(np.asarray(plan.result)[0])


def _overturned(table: Floats, order: Any) -> float:
    """How many preferences of the tasks an order overturns."""
    ranked = table[np.asarray(order)]
    upper = np.triu_indices(len(ranked), 1)
    return float((ranked[upper[0]] < ranked[upper[1]]).sum())


def _classifiers(seed: int, *, broken: bool) -> dict[str, float]:
    """Hits of classifiers, of every second set in another unit, and of each half of the rows."""
    rng = np.random.default_rng(seed)
    hits = [sheet(name, seed).correct for name in SETS]
    most = max(part.shape[1] for part in hits)
    scores = np.full((len(hits[0]), len(SETS), most), np.nan)
    half = rng.random((len(SETS), most)) < 0.5
    for task, part in enumerate(hits):
        scores[:, task, : part.shape[1]] = part * (100.0 if task % 2 else 1.0)
    plan = _two_levels(scores, broken=broken)
    first, second = (np.where(side, scores, np.nan) for side in (half, ~half))
    halves = [_two_levels(part, broken=broken).info["points"] for part in (first, second)]
    return {
        "differs": float(not np.array_equal(np.argsort(-_mean(scores), kind="stable"), np.asarray(plan.result))),
        "first differs": float(_first(plan) != int(_mean(scores).argmax())),
        "halves": _tau(*halves),
        "halves of the mean": _tau(_mean(first), _mean(second)),
        "halves of the standardised mean": _tau(_standardised(first), _standardised(second)),
    }
