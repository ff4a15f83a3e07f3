"""b4 against the posterior by exhaustion, best_of_k against all subsets, and what both refuse."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import comb

from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import b4, best_of_k
from kofn.selection.judges._best_of_k import best_of_weights, efficiency


def picked(ballots: Any, **words: Any) -> Any:
    """`b4` of a table with one row a judge."""
    return b4(np.asarray(ballots).T, **words)


def drawn(rng: np.random.Generator, n: int, tests: int, theta: tuple[float, float, float, float]) -> tuple:
    """(verdicts (tests, n), right programs) from the model: theta of x, y, 1 and 0."""
    x, y = rng.random(n) < theta[0], rng.random(tests) < theta[1]
    rate = np.where(x, y[:, None], np.where(y[:, None], theta[2], theta[3]))
    return (rng.random((tests, n)) < rate).astype(float), x


def integral(hits: int, of: int, prior: tuple[float, float]) -> float:
    """Chance of the verdicts with the rate integrated out numerically."""
    a, b = prior
    return quad(lambda t: t ** (hits + a - 1) * (1 - t) ** (of - hits + b - 1), 0, 1, epsabs=0, epsrel=1e-11)[0]


@pytest.mark.parametrize("seed", range(12))
def test_b4_is_the_integral_over_the_rates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, _ = drawn(rng, 5, 4, (0.4, 0.5, 0.4, 0.1))
    if seed % 2:
        table[rng.integers(4), rng.integers(5)] = np.nan
    priors = {"prior_x": (2.0, 3.0), "prior_y": (3.0, 2.0), "prior_1": (2.0, 2.0), "prior_0": (1.0, 4.0)}
    plan = picked(table, k=5, **priors)
    for item, score in zip(plan.indices.tolist(), plan.gains.tolist(), strict=True):
        members = [j for j in range(5) if np.array_equal(table[:, j], table[:, item], equal_nan=True)]
        others = [j for j in range(5) if j not in members]
        passed, failed = table[:, item] == 1, table[:, item] == 0
        total = math.log(integral(len(members), 5, priors["prior_x"]))
        total += math.log(integral(int(passed.sum()), int((passed | failed).sum()), priors["prior_y"]))
        for tests, prior in ((passed, priors["prior_1"]), (failed, priors["prior_0"])):
            seen = table[np.ix_(tests, others)]
            total += math.log(integral(int(np.nansum(seen)), int((~np.isnan(seen)).sum()), prior))
        assert score == pytest.approx(total, abs=1e-7)


def test_b4_finds_the_posteriors_maximum() -> None:
    """Over every set of right programs and right tests, with the true rates as priors: the same answer, nearly always.

    The model's mode may leave members of a group out, which the score never does; the group is the same.
    """
    rng = np.random.default_rng(5)
    prior = {"prior_x": (3.0, 7.0), "prior_y": (5.0, 5.0), "prior_1": (4.0, 6.0), "prior_0": (1.0, 9.0)}
    agree = cases = 0
    for _ in range(60):
        theta = tuple(rng.beta(*prior[f"prior_{letter}"]) for letter in "xy10")
        table, x = drawn(rng, 7, 6, theta)
        if not x.any():
            continue
        cases += 1
        best, chosen = -math.inf, ()
        for size in range(1, 8):
            for right in itertools.combinations(range(7), size):
                y = table[:, right[0]]
                if any((table[:, j] != y).any() for j in right):
                    continue  # a right program passes the right tests and no other
                rest = [j for j in range(7) if j not in right]
                counts = [
                    (size, 7, prior["prior_x"]),
                    (int(y.sum()), 6, prior["prior_y"]),
                    (int(table[np.ix_(y == 1, rest)].sum()), int(y.sum()) * len(rest), prior["prior_1"]),
                    (int(table[np.ix_(y == 0, rest)].sum()), int((1 - y).sum()) * len(rest), prior["prior_0"]),
                ]
                score = sum(
                    math.lgamma(h + a) + math.lgamma(o - h + b) - math.lgamma(o + a + b) for h, o, (a, b) in counts
                )
                if score > best:
                    best, chosen = score, right
        plan = picked(table, k=1, **prior)
        agree += plan.info["groups"][plan.indices[0]] == plan.info["groups"][chosen[0]]
    assert cases >= 40
    assert agree >= 0.9 * cases


def test_b4_is_the_authors_formula() -> None:
    """Counted as their script counts, on one table by hand."""
    table = np.array([[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]], float)
    plan = picked(table, k=4, prior_x=(10, 1), prior_y=(10, 1), prior_0=(1, 10))

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    # Candidates 0 and 1: two of four, two of three tests; of the others' 4 on these tests 1 passes, of 2 on the third 1
    score = log_beta(12, 3) + log_beta(12, 2) + log_beta(2, 4) + log_beta(2, 11)
    assert plan.gains[plan.indices == 0][0] == pytest.approx(score, rel=1e-13)
    assert plan.info["groups"].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("heuristic", "scores"),
    [("codet", [2 * 2**0.5, 2 * 2**0.5, 1, 3]), ("mbr_exec", [2, 2, 1, 1]), ("max_pass", [2, 2, 1, 3])],
)
def test_heuristics_are_their_definitions(heuristic: str, scores: list[float]) -> None:
    table = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1]], float)
    plan = picked(table, k=4, heuristic=heuristic)
    assert plan.gains.tolist() == pytest.approx(sorted(scores, reverse=True))
    assert [scores[item] for item in plan.indices] == plan.gains.tolist()


def test_verdicts_not_run_say_nothing() -> None:
    table = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], float)
    more = np.vstack([table, [[np.nan] * 2 + [1.0]], [[1.0] + [np.nan] * 2]])
    assert picked(more, k=1).info["groups"].tolist() == [0, 1, 2]
    silent = np.where(np.arange(3)[:, None] == 2, np.nan, table)
    silent[2, 2] = 1.0
    assert picked(silent, k=1).indices[0] == 0


def test_rows_of_one_judge_are_merged() -> None:
    table = np.array([[1, np.nan, 0], [np.nan, 1, 0], [0, 0, 1]], float)
    merged = picked(table, k=3, judges=["a", "a", "b"])
    assert merged.gains.tolist() == picked([[1, 1, 0], [0, 0, 1]], k=3).gains.tolist()
    table[1, 0] = 0.0
    with pytest.raises(InputError, match=r"judge 'a' contradicts itself: at row 0 it says 1 and, in column 1, 0"):
        picked(table, judges=["a", "a", "b"])
    with pytest.raises(InputError, match="judges has 2 names, rankings has 3 columns"):
        picked(table, judges=["a", "b"])


def test_b4_refuses() -> None:
    with pytest.raises(InputError, match=r"rankings at row 0, column 1 is 0.5; a verdict is 1"):
        picked([[1, 0], [0.5, 1]])
    with pytest.raises(InputError, match=r"prior_0=\(1, 0\): give \(a, b\) of a Beta distribution"):
        picked([[1, 0]], prior_0=(1, 0))
    with pytest.raises(InputError, match="prior_x=3"):
        picked([[1, 0]], prior_x=3)
    with pytest.raises(InputError, match=r"heuristic='codeT': choose one of .*; did you mean 'codet'"):
        picked([[1, 0]], heuristic="codeT")
    with pytest.raises(InfeasibleError, match="k=3 of 2 items"):
        picked([[1, 0]], k=3)


@pytest.mark.parametrize("k", range(1, 8))
def test_best_of_k_is_the_mean_over_all_subsets(k: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 4, 7) * rng.random()
    subsets = [max(pick) for pick in itertools.combinations(scores.tolist(), k)]
    assert best_of_k(scores, k) == pytest.approx(np.mean(subsets), rel=1e-13)


def test_best_of_k_of_verdicts_is_pass_at_k() -> None:
    for n, right in ((5, 0), (5, 5), (20, 3), (30, 29)):
        scores = np.arange(n) < right
        for k in (1, 2, n // 2, n):
            assert best_of_k(scores, k) == pytest.approx(1 - comb(n - right, k) / comb(n, k), abs=1e-13)


@pytest.mark.parametrize("k", [1, 2, 50, 40_000, 99_999, 100_000])
def test_weights_of_many_samples_are_finite_and_sum_to_one(k: int) -> None:
    weights = best_of_weights(100_000, k)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert math.fsum(weights.tolist()) == pytest.approx(1, abs=1e-11)
    # The worst k - 1 are the best of no subset; the one before them of just one, which may be too small for a float.
    assert not weights[100_000 - k + 1 :].any()


def test_best_of_k_takes_tasks_and_counts() -> None:
    table = np.random.default_rng(0).random((3, 6))
    out = best_of_k(table, [1, 2, 6])
    assert out.shape == (3, 3)
    assert out[1, 1] == best_of_k(table[1], 2)
    assert best_of_k(table, 6).tolist() == table.max(axis=1).tolist()
    assert best_of_k(table[0], np.array([1, 6])).tolist() == pytest.approx([table[0].mean(), table[0].max()])


@pytest.mark.parametrize(
    ("scores", "k", "says"),
    [
        ([1, 2], 3, "k=3 of 2 samples: the best of k needs n >= k"),
        ([1, 2], 0, "k=0: ask for at least 1"),
        ([1, 2], 1.5, "k=1.5: give a whole number"),
        ([1, 2], [], "k is empty"),
        ([1, np.nan], 1, "scores at row 1 is NaN"),
        ([[1, 2], [1, np.inf]], 1, "scores at row 1, column 1 is infinite"),
        ([[1, 2], [1]], 1, "scores is ragged"),
        ([], 1, "scores is empty"),
    ],
)
def test_best_of_k_refuses(scores: object, k: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        best_of_k(scores, k)


def test_efficiency_is_the_right_censored_share() -> None:
    # The limit is 2 * 4 = 8: the second level of the second sample was cut off, so its third counts for nothing.
    times = [[1, 2, 4], [1, np.nan, 4], [0.5, 8.0, 1], [3, 5, 6]]
    out = efficiency(times, [1, 2, 4], hardness=[3, 3, 4])
    assert out.tolist() == pytest.approx([1, 0.3, 0.3 * 7.5 / 7, (3 * 5 / 7 + 3 * 3 / 6 + 4 * 2 / 4) / 10])
    for bad, says in (
        ({"times": [[1, 2]]}, r"times has shape \(1, 2\); give \(n, 3\)"),
        ({"times": [[-1, 2, 3]]}, "times at row 0, column 0 is -1"),
        ({"reference": [1, 0, 2]}, "reference at row 1 is 0"),
        ({"factor": 1}, "factor=1: give a number above 1"),
        ({"hardness": [1, 2]}, "hardness has 2 values, reference has 3 levels"),
    ):
        with pytest.raises(InputError, match=says):
            efficiency(**{"times": times, "reference": [1, 2, 4], **bad})
