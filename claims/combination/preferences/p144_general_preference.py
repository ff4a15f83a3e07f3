"""Preferences that go in cycles, by a skew-symmetric embedding, against Bradley and Terry's strengths.

Drawn: rock, paper and scissors; random tournaments of twenty; votes by strengths alone; votes by strengths and two
planes. Real: votes between thirteen classifiers, a vote for every row of five labelled sets that one of two gets right.
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
from kofn.combination import bradley_terry, general_preference, win_ballots

Floats = NDArray[np.float64]
ITEMS, VOTES, PRIOR = 20, 30, 0.1


@claim(
    paper=144,
    says="A skew-symmetric embedding tells cycles and any tournament where Bradley and Terry's model guesses, is as "
    "good as that on votes by strengths and better on cyclic ones, and consistent by construction",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Votes of every kind; broken: the penalty leaves no cyclic part."""
    runs = 10 if scale == "small" else 40
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))

    def of(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    transitive = difference(of("transitive"), of("transitive, strengths"))
    cyclic = difference(of("cyclic, strengths"), of("cyclic"))
    real = difference(of("real, strengths"), of("real"))
    criteria = {
        "rock, paper, scissors: every pair told with one plane, strengths tell at most two in three": all(
            row["cycle"] == 1 and row["cycle, planes"] == 1 and row["cycle, strengths"] <= 2 / 3 for row in rows
        ),
        "random tournaments: every pair told": min(of("tournament")) == 1,
        "random tournaments: strengths tell fewer": difference(of("tournament"), of("tournament, strengths")).above(
            0.1
        ),
        "votes by strengths: no more than 0.002 nats behind them": transitive.high < 0.002,
        "votes by planes: fewer nats than strengths": cyclic.above(0),
        "cycles are supported where they were drawn, and seldom where not": float(np.mean(of("cyclic, supported"))) == 1
        and float(np.mean(of("transitive, supported"))) <= 0.1,
        "probabilities of (i, j) and (j, i) sum to one exactly": all(row["consistent"] for row in rows),
        "scores of any kind are reproduced": max(of("reproduced")) < 1e-3,
        "the lottery loses to nobody": min(of("lottery")) > -1e-9,
        "classifiers: no more than 0.002 nats behind strengths": real.low > -0.002,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "means": {name: round(float(np.mean(of(name))), 5) for name in rows[0]},
            "nats a vote behind strengths on votes by strengths": transitive.figures(),
            "nats a vote fewer than strengths on cyclic votes": cyclic.figures(),
            "nats a vote fewer than strengths on classifiers": real.figures(),
        },
        expected="every pair of the cycle and of tournaments told; paired 95% limits: at most 0.002 nats a test vote "
        "behind Bradley and Terry's model on its own votes and on classifiers, fewer on cyclic ones; cycles supported "
        "in all cyclic runs and at most a tenth of the others; exact consistency; scores from exact shares within 1e-3",
        baseline="Bradley and Terry's most likely strengths, on the same votes with the same prior; test votes are "
        "drawn anew, or are of rows held out",
        kind="measured",
    )


def _run(seed: int, *, broken: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    model = functools.partial(general_preference, seed=seed % 2**31, penalty=2.0 if broken else None)
    free: dict[str, Any] = {"penalty": 2.0 if broken else 1e-4, "folds": 0, "prior": PRIOR}
    out: dict[str, float] = {}
    cycle = np.array([[0.0, 3, 17], [17, 0, 3], [3, 17, 0]]) + rng.integers(0, 2, (3, 3)) * (1 - np.eye(3))
    plan = model(**win_ballots(cycle))
    out["cycle"], out["cycle, planes"] = _told(plan.info["scores"], cycle), plan.info["cycles"]["planes"]
    out["cycle, strengths"] = _told(_strengths(cycle), cycle)
    upper = np.triu(rng.integers(0, 2, (ITEMS, ITEMS)), 1)
    beats: Floats = (upper + np.tril(1 - upper.T, -1)).astype(np.float64)
    out["tournament"] = _told(general_preference(**win_ballots(beats), **free).info["scores"], beats)
    out["tournament, strengths"] = _told(_strengths(beats), beats)
    strength = rng.normal(size=ITEMS)
    plain = strength[:, None] - strength
    x, y = rng.normal(size=(2, ITEMS, 2))
    cyclic = plain + x @ y.T - y @ x.T
    for name, scores in (("transitive", plain), ("cyclic", cyclic)):
        votes, test = _drawn(rng, scores, VOTES), _drawn(rng, scores, 20 * VOTES)
        plan = model(**win_ballots(votes), prior=PRIOR)
        out[name], out[f"{name}, strengths"] = _nats(plan.info["scores"], test), _nats(_strengths(votes), test)
        out[f"{name}, supported"] = float(bool(plan.info["cycles"]["supported"]) and not broken)
    likely = 1 / (1 + np.exp(-plan.info["scores"]))
    # By the scores, since 1 / (1 + exp(-s)) and 1 / (1 + exp(s)) each round.
    out["consistent"] = float(np.array_equal(plan.info["scores"], -plan.info["scores"].T))
    out["lottery"] = float((plan.info["lottery"] @ (likely - 0.5)).min())
    skew = rng.normal(size=(8, 8))
    skew = (skew - skew.T) / 2
    exact = 100 / (1 + np.exp(-skew)) * (1 - np.eye(8))
    tight: dict[str, Any] = {**free, "prior": 0.0, "penalty": 2.0 if broken else 1e-5}
    out["reproduced"] = float(np.abs(general_preference(**win_ballots(exact), **tight).info["scores"] - skew).max())
    votes, test = _classifiers(seed)
    plan = model(**win_ballots(votes), prior=PRIOR)
    out["real"], out["real, strengths"] = _nats(plan.info["scores"], test), _nats(_strengths(votes), test)
    out["real, supported"] = float(bool(plan.info["cycles"]["supported"]))
    return out


def _strengths(wins: Floats) -> Floats:
    """Bradley and Terry's scores of every pair."""
    points = np.asarray(bradley_terry(**win_ballots(wins), prior=PRIOR).info["points"])
    out: Floats = points[:, None] - points
    return out


def _told(scores: Floats, wins: Floats) -> float:
    """The share of pairs whose more frequent winner has the higher score; no lead is no telling."""
    upper = np.triu_indices(len(wins), 1)
    lead, won = scores[upper], (wins - wins.T)[upper]
    return float((np.sign(lead.round(6)) == np.sign(won)).mean())


def _drawn(rng: np.random.Generator, scores: Floats, votes: int) -> Floats:
    """So many votes of every pair."""
    won = np.triu(rng.binomial(votes, 1 / (1 + np.exp(-scores))), 1)
    out: Floats = (won + np.tril(votes - won.T, -1)).astype(np.float64)
    return out


def _nats(scores: Floats, wins: Floats) -> float:
    """The mean loss of a vote."""
    return float((wins * np.logaddexp(0.0, -scores)).sum() / wins.sum())


def _classifiers(seed: int) -> tuple[Floats, Floats]:
    """Wins of the row's classifier over the column's on half of the rows of five sets, and on the other half."""
    rng = np.random.default_rng([seed, 1])
    parts: tuple[list[Floats], list[Floats]] = ([], [])
    for name in SETS:
        correct = sheet(name, seed).correct
        side = rng.random(correct.shape[1]) < 0.5
        for chosen, wins in zip((side, ~side), parts, strict=True):
            wins.append(correct[:, chosen] @ (1 - correct[:, chosen]).T)
    votes, test = (np.sum(wins, axis=0) for wins in parts)
    return votes, test
