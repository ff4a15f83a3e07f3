"""Sample-level benchmarking: Plackett and Luce's strengths from sparse comparisons of models, sample by sample.

Every sample ranks the models that were measured on it, by its own metric. One pool is drawn: 30 models and 5,000
samples of an item-response model, half of them right or wrong, half with a number on a scale of their own. The other is
real: what 13 classifiers get right of the rows of five labelled sets, where the truth is their share of all rows.
Measurements are deleted at random, or so that better models are mostly measured on harder samples.
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

MODELS, SAMPLES = 30, 5000
SHARES = (0.0, 0.8, 0.95)
STEPS = (4.0, 8.0, 16.0, 32.0)
WAYS = ("plackett_luce", "mean", "elo")
PRIOR = 0.1  # so that a model that lost to nobody has a strength too


@claim(
    paper=240,
    says="With 95% of measurements missing, Plackett and Luce's ranking of models is nearly that of all measurements; "
    "where better models are measured on harder samples, it is nearer to the truth than the mean; nearer than Elo's",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """A drawn pool and a real one; broken: models are averaged over their own samples, not compared within samples."""
    runs = 10 if scale == "small" else 40
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    taus = {key: {way: np.array([row[key][way] for row in rows]) for way in WAYS} for key in rows[0]}
    full = {pool: taus[f"{pool}, 0% missing"]["plackett_luce"] for pool in ("drawn", "real")}
    kept = {pool: difference(taus[f"{pool}, 95% missing"]["plackett_luce"], full[pool]) for pool in full}
    biased = {
        pool: difference(taus[f"{pool}, biased"]["plackett_luce"], taus[f"{pool}, biased"]["mean"]) for pool in full
    }
    elo = {
        pool: difference(taus[f"{pool}, 95% missing"]["plackett_luce"], taus[f"{pool}, 95% missing"]["elo"])
        for pool in full
    }
    criteria = {
        **{f"{pool}: tau at 95% missing within 0.05 of that of all": gap.above(-0.05) for pool, gap in kept.items()},
        **{f"{pool}: above the mean where missing is not random": gap.above(0) for pool, gap in biased.items()},
        **{f"{pool}: above Elo at 95% missing": gap.above(0) for pool, gap in elo.items()},
        "real: correlates with the mean of all measurements": bool(np.mean(full["real"]) >= 0.9),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "tau to the truth": {
                key: {way: round(float(each.mean()), 3) for way, each in ways.items()} for key, ways in taus.items()
            },
            "95% missing less all": {pool: gap.figures() for pool, gap in kept.items()},
            "less the mean, biased": {pool: gap.figures() for pool, gap in biased.items()},
            "less Elo at 95% missing": {pool: gap.figures() for pool, gap in elo.items()},
        },
        expected="lower 95% limits: above -0.05 against all measurements, above 0 against the mean where missing is "
        "not random and against Elo; tau of at least 0.9 with the mean where nothing is missing",
        baseline="the mean of the scores that are there, standardised within a sample's metric, and Elo's updates over "
        "all comparisons in random order with the best of four step sizes, chosen by the truth",
        kind="measured",
    )


def _drawn(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Scores (models, samples), the models' abilities and the samples' difficulties."""
    ability, difficulty = rng.normal(size=MODELS), rng.normal(0, 1.5, SAMPLES)
    slope = rng.uniform(0.5, 2.0, SAMPLES)
    logit = slope * (ability[:, None] - difficulty)
    right = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
    graded = rng.uniform(1, 100, SAMPLES) * (1 / (1 + np.exp(-(logit + rng.normal(size=logit.shape)))))
    return np.where(np.arange(SAMPLES) % 2, right, graded), ability, difficulty


def _real(seed: int) -> tuple[Any, Any, Any]:
    correct = np.hstack([sheet(name, seed).correct for name in SETS])
    return correct, correct.mean(axis=1), -correct.mean(axis=0)


def _measured(scores: Any, share: float, ability: Any, difficulty: Any, rng: np.random.Generator) -> Any:
    """The scores of which this share is missing; with `ability`, a model sees more of the samples near to it."""
    odds = rng.random(scores.shape)
    if ability is not None:
        # A good model is measured on hard samples: the nearer in rank the two, the likelier.
        own, theirs = (np.argsort(np.argsort(each)) / (len(each) - 1) for each in (ability, difficulty))
        odds = np.abs(own[:, None] - theirs) + 0.5 * odds
    out = scores.copy()
    out[odds > np.quantile(odds, 1 - share)] = np.nan
    return out


def _points(table: Any, way: str, truth: Any, rng: np.random.Generator, *, broken: bool) -> Any:
    if way == "mean" or broken:
        # Metrics have their own scale; of what is right or wrong it is 1.
        scale = np.nanmax(np.where(np.isnan(table), 0, table), axis=0)
        return np.nanmean(table / np.where(scale > 0, scale, 1), axis=1)
    compared = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if way == "plackett_luce":
        return kofn.combine(rankings=compared, method="plackett_luce", options={"prior": PRIOR}).info["points"]
    return max((_elo(compared, step, rng) for step in STEPS), key=lambda points: _tau(points, truth))


def _elo(table: Any, step: float, rng: np.random.Generator) -> Any:
    """Ratings after at most 20,000 comparisons of unequal scores, in random order."""
    pairs: list[tuple[int, int]] = []
    for sample in rng.permutation(table.shape[1])[:4000]:
        rated = rng.permutation(np.flatnonzero(~np.isnan(table[:, sample])))[:6]
        for i, first in enumerate(rated.tolist()):
            for second in rated[:i].tolist():
                if table[first, sample] != table[second, sample]:
                    pairs.append((first, second) if table[first, sample] > table[second, sample] else (second, first))
    ratings = [0.0] * len(table)
    for index in rng.permutation(len(pairs))[:20_000].tolist():
        winner, loser = pairs[index]
        change = step / (1 + 10 ** ((ratings[winner] - ratings[loser]) / 400))
        ratings[winner] += change
        ratings[loser] -= change
    return np.array(ratings)


def _tau(points: Any, truth: Any) -> float:
    return float(kendalltau(np.nan_to_num(points, nan=-1e9).round(9), truth).statistic)


def _run(seed: int, *, broken: bool) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    out = {}
    for pool, (scores, truth, difficulty) in (("drawn", _drawn(rng)), ("real", _real(seed))):
        tables = {f"{pool}, {share:.0%} missing": _measured(scores, share, None, None, rng) for share in SHARES}
        tables[f"{pool}, biased"] = _measured(scores, 0.8, truth, difficulty, rng)
        for key, table in tables.items():
            ways = {way: _points(table, way, truth, rng, broken=broken) for way in WAYS}
            out[key] = {way: _tau(points, truth) for way, points in ways.items()}
    return out
