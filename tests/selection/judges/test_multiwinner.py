"""multiwinner against brute force over committees, ties and unrated items by their definition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import multiwinner


def elected(ballots: Any, **words: Any) -> Any:
    """`multiwinner` of a table with one row a judge."""
    return multiwinner(np.asarray(ballots).T, **words)


def points(ballot: np.ndarray, places: list[float]) -> np.ndarray:
    """Mean points over every order that the ballot allows: ties in any order, unrated items last in any order."""
    values = np.where(np.isnan(ballot), -np.inf, ballot)
    n = len(ballot)
    total, count = np.zeros(n), 0
    for order in itertools.permutations(range(n)):
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order)):
            count += 1
            for place, item in enumerate(order):
                total[item] += places[place]
    return total / count


def worth(ballots: np.ndarray, picks: tuple[int, ...], rule: str) -> float:
    n = ballots.shape[1]
    places = {
        "borda": range(n - 1, -1, -1),
        "sntv": [1] + [0] * (n - 1),
        "bloc": [1] * len(picks) + [0] * (n - len(picks)),
        "chamberlin_courant": range(n - 1, -1, -1),
    }[rule]
    table = np.array([points(ballot, list(places)) for ballot in ballots])[:, list(picks)]
    return float(table.max(axis=1).sum() if rule == "chamberlin_courant" else table.sum())


@pytest.mark.parametrize("rule", ["borda", "sntv", "bloc", "chamberlin_courant"])
@pytest.mark.parametrize("seed", range(8))
def test_committees_against_brute_force(rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ballots = rng.integers(0, 4, (5, 6)).astype(float)
    if seed % 2:
        ballots[rng.random((5, 6)) < 0.3] = np.nan
        ballots[:, 0] = np.nan_to_num(ballots[:, 0])
    groups = np.array(list("aabbbb"))
    words = {"groups": groups, "quotas": {"a": (1, 1)}} if seed % 3 else {}
    plan = elected(ballots, k=3, rule=rule, **words)
    allowed = [
        picks for picks in itertools.combinations(range(6), 3) if not words or (groups[list(picks)] == "a").sum() == 1
    ]
    best = max(worth(ballots, picks, rule) for picks in allowed)
    told = worth(ballots, tuple(plan.indices.tolist()), rule)
    assert plan.value == pytest.approx(told, rel=1e-12)
    assert tuple(sorted(plan.indices.tolist())) in allowed
    assert plan.bound >= best - 1e-9
    if rule == "chamberlin_courant":
        assert plan.value >= (0.5 if words else 1 - 1 / math.e) * best
        assert plan.status == "approximate"
    else:
        assert plan.value == pytest.approx(best, rel=1e-12)
        assert plan.status == "optimal"


@pytest.mark.parametrize("seed", range(6))
def test_representatives_at_twelve_are_within_their_share(seed: int) -> None:
    ballots = np.random.default_rng(seed).random((9, 12))
    table = ballots.argsort(axis=1).argsort(axis=1).astype(float)
    plan = elected(ballots, k=4, rule="chamberlin_courant")
    best = max(table[:, picks].max(axis=1).sum() for picks in itertools.combinations(range(12), 4))
    assert (1 - 1 / math.e) * best <= plan.value <= best <= plan.bound + 1e-9
    # The greedy itself, step by step.
    chosen: list[int] = []
    for _ in range(4):
        after = [table[:, [*chosen, item]].max(axis=1).sum() if item not in chosen else -1 for item in range(12)]
        chosen.append(int(np.argmax(after)))
    assert plan.indices.tolist() == chosen


def test_many_ballots_are_ranked_in_parts() -> None:
    ballots = np.random.default_rng(0).random((2500, 1000)).astype(np.float32)
    plan = elected(ballots, k=3)
    total = ballots.argsort(axis=1).argsort(axis=1).sum(axis=0)
    assert plan.indices.tolist() == np.argsort(-total, kind="stable")[:3].tolist()
    assert plan.value == total[plan.indices].sum()


def test_constraints_and_refusals() -> None:
    ballots = np.array([[5.0, 4, 3, 2, 1], [5, 3, 4, 1, 2]])
    plan = elected(ballots, k=3, include=[4], exclude=[0], rule="chamberlin_courant")
    assert plan.indices[0] == 4
    assert 0 not in plan.indices
    assert elected(ballots, k=2, start=[3]).indices.tolist() == [3, 0]
    with pytest.raises(InputError, match=r"rule='copeland': choose one of borda, sntv, bloc, chamberlin_courant"):
        elected(ballots, k=2, rule="copeland")
    with pytest.raises(InfeasibleError, match="k=6 of 5 items"):
        elected(ballots, k=6)
    with pytest.raises(InfeasibleError, match=r"quotas\['a'\] asks for at least 3"):
        elected(ballots, k=4, groups=list("aabbb"), quotas={"a": (3, None)}, rule="chamberlin_courant")
