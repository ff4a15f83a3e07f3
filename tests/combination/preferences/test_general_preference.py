"""The general preference model: cycles, tournaments, Bradley and Terry's model as its limit, and what it refuses."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused
from command_line import run as ran
from scipy.optimize import minimize

import kofn
from kofn.combination import bradley_terry, general_preference, win_ballots
from kofn.combination.preferences._skew import planes
from kofn.core.checks import InputError

CYCLE = [[0, 10, 90], [90, 0, 10], [10, 90, 0]]


def _votes(rng: np.random.Generator, scores: np.ndarray, count: int) -> np.ndarray:
    won = np.triu(rng.binomial(count, 1 / (1 + np.exp(-scores))), 1)
    return (won + np.tril(count - won.T, -1)).astype(float)


def _planted(rng: np.random.Generator, n: int, size: float) -> np.ndarray:
    strength, (x, y) = rng.normal(size=n), rng.normal(size=(2, n))
    return strength[:, None] - strength + size * (np.outer(x, y) - np.outer(y, x))


def test_a_cycle_is_told_and_has_no_best() -> None:
    plan = kofn.combine(**win_ballots(CYCLE, ids=["rock", "paper", "scissors"]), method="general_preference", seed=0)
    scores = plan.info["scores"]
    assert (np.sign(scores) == np.sign(np.array(CYCLE) - np.transpose(CYCLE))).all()
    assert plan.info["cycles"]["supported"]
    first, second, third = plan.info["cycles"]["strongest"]
    assert min(scores[first, second], scores[second, third], scores[third, first]) > 1
    np.testing.assert_allclose(plan.info["lottery"], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(plan.info["points"], 0.5, atol=1e-6)
    strengths = bradley_terry(**win_ballots(CYCLE)).info["points"]
    np.testing.assert_allclose(strengths, 0, atol=1e-9)


def test_the_penalised_likelihood_is_at_its_maximum() -> None:
    """Against a general optimiser over all entries of the scores."""
    rng = np.random.default_rng(0)
    n = 5
    wins = _votes(rng, _planted(rng, n, 1.0), 40)
    plan = general_preference(**win_ballots(wins), penalty=0.2, folds=0)
    points = bradley_terry(**win_ballots(wins)).info["points"]
    total = wins + wins.T
    slope = wins - total / (1 + np.exp(points[None, :] - points[:, None]))
    np.fill_diagonal(slope, 0.0)
    penalty = 0.2 * np.linalg.norm((slope - slope.T) / 2, 2)
    upper = np.triu_indices(n, 1)

    def loss(parameters: np.ndarray) -> float:
        cyclic = np.zeros((n, n))
        cyclic[upper] = parameters[n:]
        cyclic -= cyclic.T
        scores = parameters[:n, None] - parameters[:n] + cyclic
        norm = np.linalg.svd(cyclic, compute_uv=False).sum()
        return float((wins * np.logaddexp(0.0, -scores)).sum() + penalty / 2 * norm)

    start = np.concatenate([points, 0.1 * rng.normal(size=len(upper[0]))])
    best = min(minimize(loss, start * size, method="L-BFGS-B").fun for size in (1.0, 3.0))
    embedding = plan.info["embedding"]
    own = np.concatenate([embedding[:, 0], (plan.info["scores"] - embedding[:, [0]] + embedding[:, 0])[upper]])
    assert loss(own) <= best + 1e-4 * abs(best)
    assert loss(own) >= best - 0.02 * abs(best)


def test_a_full_penalty_is_bradley_and_terrys_model_and_none_tells_every_pair() -> None:
    rng = np.random.default_rng(1)
    wins = _votes(rng, _planted(rng, 9, 1.0), 12)
    plan = general_preference(**win_ballots(wins), penalty=1.0, prior=0.1)
    points = bradley_terry(**win_ballots(wins), prior=0.1).info["points"]
    np.testing.assert_allclose(plan.info["scores"], points[:, None] - points, atol=1e-6)
    assert plan.info["cycles"]["planes"] == 0
    beats = np.triu(rng.integers(0, 2, (12, 12)), 1)
    beats = beats + np.tril(1 - beats.T, -1)
    free = general_preference(**win_ballots(beats), penalty=1e-4, folds=0, prior=0.1).info["scores"]
    assert (np.sign(free) == np.sign(beats - beats.T)).all()


def test_held_out_votes_say_whether_there_are_cycles() -> None:
    rng = np.random.default_rng(2)
    cyclic = general_preference(**win_ballots(_votes(rng, _planted(rng, 10, 1.5), 60)), seed=0, prior=0.1)
    plain = general_preference(**win_ballots(_votes(rng, _planted(rng, 10, 0.0), 60)), seed=0, prior=0.1)
    assert cyclic.info["cycles"]["supported"]
    assert not plain.info["cycles"]["supported"]
    assert cyclic.info["cycles"]["gain"] > 10 * abs(plain.info["cycles"]["gain"])
    unfolded = general_preference(**win_ballots(CYCLE), folds=0).info["cycles"]
    assert (unfolded["supported"], unfolded["gain"], unfolded["penalty"]) == (None, None, 0.3)


def test_the_lottery_loses_to_nobody_and_is_the_winner_who_beats_all() -> None:
    rng = np.random.default_rng(3)
    plan = general_preference(**win_ballots(_votes(rng, _planted(rng, 8, 2.0), 50)), seed=0, prior=0.1)
    likely = 1 / (1 + np.exp(-plan.info["scores"]))
    assert (plan.info["lottery"] @ (likely - 0.5)).min() > -1e-9
    winner = general_preference(**win_ballots([[0, 9, 8], [1, 0, 5], [2, 4, 0]]), seed=0).info["lottery"]
    np.testing.assert_allclose(winner, [1, 0, 0], atol=1e-9)


def test_planes_add_up_to_any_skew_symmetric_matrix() -> None:
    skew = np.random.default_rng(4).normal(size=(7, 7))
    skew = skew - skew.T
    x, y = planes(skew)[:, 0::2], planes(skew)[:, 1::2]
    assert x.shape[1] == 3
    np.testing.assert_allclose(x @ y.T - y @ x.T, skew, atol=1e-12)


def test_judges_are_held_out_whole_and_who_is_not_compared_is_last() -> None:
    scores = np.array([[9, 8, 7, 9], [5, 6, 5, 4], [7, 7, 9, 7], [np.nan] * 4])
    scores[3, 0] = np.nan
    plan = general_preference(scores, prior=0.5, seed=0)
    assert plan.result.tolist() == [0, 2, 1, 3]
    assert plan.info["never_compared"] == [3]
    assert np.isnan(plan.info["embedding"][3]).all()
    assert plan.info["lottery"][3] == 0
    alone = general_preference([[1.0], [2.0]], prior=1.0)
    assert alone.info["cycles"]["supported"] is None


def test_nothing_that_was_compared_leaves_all_even() -> None:
    alone = kofn.combine(rankings=[[1.0, 2.0]], method="general_preference")
    assert (alone.result.tolist(), alone.info["lottery"].tolist(), alone.info["scores"].tolist()) == (
        [0],
        [1.0],
        [[0.0]],
    )
    assert (alone.value, alone.info["never_compared"]) == (0.0, [0])
    apart = general_preference([[1.0, np.nan], [np.nan, 2.0]], prior=1.0)
    assert apart.info["lottery"].tolist() == [0.5, 0.5]
    assert np.isnan(apart.info["scores"]).tolist() == [[False, True], [True, False]]
    some = general_preference([[2.0, 1.0, np.nan], [1.0, 2.0, np.nan], [np.nan, np.nan, 1.0]], prior=1.0)
    assert some.info["lottery"].sum() == 1.0
    assert np.diag(some.info["scores"]).tolist() == [0.0, 0.0, 0.0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no penalty": ({"penalty": 0}, "penalty=0: give a share > 0"),
    "infinite": ({"penalty": np.inf}, "penalty=inf"),
    "negative prior": ({"prior": -1}, "prior=-1"),
    "folds": ({"folds": -1}, "folds=-1"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.combine(**win_ballots(CYCLE), method="general_preference", **words)


def test_no_strengths_and_too_many_are_refused() -> None:
    with pytest.raises(InputError, match="perfect separation"):
        general_preference([[2.0, 2.0], [1.0, 1.0]])
    with pytest.raises(InputError, match="rankings has 501 alternatives; general_preference takes 500"):
        general_preference(np.arange(501.0)[:, None], prior=1.0)


def test_the_command_says_whether_cycles_are_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["model_a,model_b,winner"]
    for a, b in (("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")):
        lines += [f"{a},{b},{a}"] * 18 + [f"{a},{b},{b}"] * 2
    Path("cycle.csv").write_text("\n".join(lines) + "\n")
    code, text, _ = ran(capsys, "combine", "cycle.csv", "-m", "general_preference", "--seed", "0")
    assert code == 0
    assert "cycles are supported: a held-out vote is" in text
    assert "each preferred to the next in 8" in text or "each preferred to the next in 9" in text
    assert ran(capsys, "combine", "cycle.csv", "-m", "general_preference", "--seed", "0", "--report", "g.html")[0] == 0
    page = " ".join(html.unescape(re.sub("<[^>]*>", "", Path("g.html").read_text())).split())
    told_of = [line for line in text.splitlines() if line.startswith(("cycles are", "strongest cycle"))]
    assert len(told_of) == 2
    for line in told_of:
        assert f"{line[0].upper()}{line[1:]}." in page
    assert "The log-likelihood of the votes is \N{MINUS SIGN}" in page
    told = json.loads(ran(capsys, "combine", "cycle.csv", "-m", "general_preference", "--seed", "0", "--json")[1])
    assert told["cycles"]["supported"]
    assert sorted(told["cycles"]["strongest"]) == ["paper", "rock", "scissors"]
    rng = np.random.default_rng(0)
    plain = ["winner,loser"]
    for _ in range(300):
        a, b = rng.choice(5, 2, replace=False)
        first = rng.random() < 1 / (1 + np.exp(b - a))
        plain.append(f"m{a if first else b},m{b if first else a}")
    Path("plain.csv").write_text("\n".join(plain) + "\n")
    assert "cycles are not supported" in ran(capsys, "combine", "plain.csv", "-m", "general_preference")[1]
    Path("one.csv").write_text("winner,loser\na,b\n")
    assert "perfect separation" in refused(capsys, "combine", "one.csv", "-m", "general_preference")
