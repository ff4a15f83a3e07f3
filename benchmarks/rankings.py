"""Rankings: strengths against choix, two million votes with resamples, and Kemeny's optimum with its proof.

Times are processor time, of one run after another in one process, after a warm-up. choix gets its data as it wants
them, a list of pairs, made before its clock starts; kofn gets the table of wins, and its time includes the standard
errors and the intervals of ranks, which choix does not have.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import kofn
from kofn.combination import bradley_terry, kemeny, order_strengths, plackett_luce, vote_ballots, win_strengths


def battles(n: int, votes: int, seed: int = 0) -> tuple[Any, Any]:
    """Winners and losers of votes between alternatives of normal strengths."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(size=n)
    first = rng.integers(0, n, votes)
    second = (first + rng.integers(1, n, votes)) % n
    won = rng.random(votes) < 1 / (1 + np.exp(strength[second] - strength[first]))
    return np.where(won, first, second), np.where(won, second, first)


def clocked(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """The least processor time of some runs, and what the last one gave."""
    best = np.inf
    for _ in range(rounds):
        began = time.process_time()
        out = call()
        best = min(best, time.process_time() - began)
    return best, out


def likelihood(wins: Any, strength: Any) -> float:
    return -float((wins * np.logaddexp(0.0, strength[None, :] - strength[:, None])).sum())


def strengths(n: int, votes: int, rounds: int) -> list[dict[str, Any]]:
    """Bradley and Terry's strengths, and Plackett and Luce's of rankings of five, by kofn and by choix."""
    winner, loser = battles(n, votes)
    wins = np.zeros((n, n))
    np.add.at(wins, (winner, loser), 1)
    seconds, plan = clocked(lambda: win_strengths(wins), rounds)
    rows = [{"who": "kofn pairs", "seconds": seconds, "likelihood": likelihood(wins, plan.info["points"])}]
    rng = np.random.default_rng(1)
    truth = rng.normal(size=n)
    shown = np.array([rng.choice(n, 5, replace=False) for _ in range(votes // 10)])
    ranked = np.take_along_axis(shown, np.argsort(-(truth[shown] + rng.gumbel(size=shown.shape)), axis=1), axis=1)
    scores = np.full((n, len(ranked)), np.nan)
    scores[ranked.T, np.arange(len(ranked))] = np.arange(5, 0, -1)[:, None]
    seconds, plan = clocked(lambda: plackett_luce(scores), rounds)
    rows.append({"who": "kofn table", "seconds": seconds, "likelihood": plan.value})
    lists = ranked.tolist()
    seconds, plan = clocked(lambda: order_strengths(lists, ids=range(n)), rounds)
    rows.append({"who": "kofn lists", "seconds": seconds, "likelihood": _of_rankings(ranked, plan.info["points"])})
    try:
        choix = importlib.import_module("choix")
    except ImportError:
        print("choix is not installed")
        return rows
    pairs = list(zip(winner.tolist(), loser.tolist(), strict=True))
    calls = {
        "choix ilsr_pairwise": (lambda: choix.ilsr_pairwise(n, pairs), lambda s: likelihood(wins, s)),
        "choix opt_pairwise": (lambda: choix.opt_pairwise(n, pairs), lambda s: likelihood(wins, s)),
        "choix ilsr_rankings": (
            lambda: choix.ilsr_rankings(n, lists),
            lambda s: _of_rankings(ranked, s),
        ),
    }
    for who, (call, value) in calls.items():
        seconds, answer = clocked(call, 1 if "opt" in who else rounds)
        rows.append({"who": who, "seconds": seconds, "likelihood": value(np.asarray(answer))})
    return rows


def _of_rankings(ranked: Any, strength: Any) -> float:
    own = strength[ranked]
    left = np.logaddexp.accumulate(own[:, ::-1], axis=1)[:, ::-1]
    return float((own - left).sum())


def arena(n: int, votes: int, resamples: int) -> list[dict[str, Any]]:
    """Votes one a row, counted, fitted, and fitted again for each resample."""
    winner, loser = battles(n, votes)
    names = np.array([f"model {i}" for i in range(n)])
    counting, ballots = clocked(lambda: vote_ballots(names[winner], names[loser], names[winner]), 1)
    whole, _ = clocked(lambda: kofn.combine(**ballots, method="bradley_terry", resamples=resamples), 1)
    wins = np.zeros((n, n))
    np.add.at(wins, (winner, loser), 1)
    table, _ = clocked(lambda: win_strengths(wins, resamples=resamples), 1)
    return [
        {"what": "vote_ballots", "seconds": counting},
        {"what": f"kofn.combine, {resamples} resamples", "seconds": whole},
        {"what": f"win_strengths, {resamples} resamples", "seconds": table},
    ]


def optima(sizes: tuple[int, ...], seeds: int) -> list[dict[str, Any]]:
    """Kemeny's optimum of judges who agree on nothing, the hardest there are, and of judges who agree a little."""
    rows = []
    for n in sizes:
        for kind, agreed in (("no agreement", 0.0), ("some agreement", 0.1)):
            times, proven = [], 0
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                scores = agreed * np.arange(n)[:, None] + rng.normal(size=(n, int(rng.integers(5, 40))))
                seconds, plan = clocked(functools.partial(kemeny, scores), 1)
                times.append(seconds)
                proven += plan.status == "optimal"
            rows.append(
                {"n": n, "judges": kind, "median": float(np.median(times)), "worst": max(times), "proven": proven}
            )
    return rows


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    n, votes = (50, 5_000) if quick else (200, 50_000)
    bradley_terry([[1, 2], [2, 1]])
    plackett_luce([[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    kemeny(np.random.default_rng(0).random((5, 3)))
    print(f"\nstrengths of {n} alternatives: {votes:,} comparisons; {votes // 10:,} rankings of five")
    fitted = strengths(n, votes, 1 if quick else max(rounds, 3))
    for row in fitted:
        print(f"{row['who']:<22} {row['seconds']:>8.3f} cpu s  log-likelihood {row['likelihood']:.9g}")
    n, votes, resamples = (30, 20_000, 20) if quick else (300, 2_000_000, 200)
    print(f"\n{votes:,} votes between {n} models")
    counted = arena(n, votes, resamples)
    for row in counted:
        print(f"{row['what']:<36} {row['seconds']:>8.2f} cpu s")
    seeds = 2 if quick else 10
    print(f"\nKemeny's optimum, {seeds} draws of 5 to 39 judges each")
    solved = optima((12,) if quick else (12, 20, 30), seeds)
    for row in solved:
        print(
            f"n={row['n']:<4} {row['judges']:<16} median {row['median']:.3f}, worst {row['worst']:.3f} cpu s, proven "
            f"{row['proven']} of {seeds}"
        )
    return {"strengths": fitted, "votes": counted, "kemeny": solved}
