"""Samples of each stratum: against enumeration, against Wright's rule on large strata, and from a table."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused as refused_command
from command_line import run
from refusals import refused

import kofn
from kofn.allocation import neyman
from kofn.core.checks import InfeasibleError


def least_variance(sd: Any, sizes: Any, costs: Any, budget: float, low: Any, high: Any) -> float:
    """The least variance of a total over all counts within the bounds."""
    best = math.inf
    for counts in itertools.product(*(range(a, b + 1) for a, b in zip(low, high, strict=True))):
        if np.dot(counts, costs) <= budget:
            taken = np.array(counts)
            best = min(best, float((np.square(sizes * sd) * (1 / taken - 1 / sizes)).sum()))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_those_of_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    sd, sizes = rng.choice([0.0, 0.5, 1.0, 3.0, 10.0], n), rng.integers(1, 12, n)
    costs: Any = np.ones(n, np.int64) if seed % 3 == 0 else rng.integers(1, 5, n)
    costs = costs * 0.7 if seed % 3 == 2 else costs
    low = np.minimum(2, sizes)
    budget = float(np.dot(low, costs)) + rng.uniform(0, 1) * float(np.dot(sizes - low, costs))
    plan = neyman(sd, population=sizes, costs=costs, budget=budget)
    best = least_variance(sd, sizes, costs, budget * (1 + 1e-12), low.tolist(), sizes.tolist())
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(best, abs=1e-9)
    assert (plan.amounts >= low).all()
    assert (plan.amounts <= sizes).all()
    assert plan.info["standard_error"] == pytest.approx(math.sqrt(plan.value) / sizes.sum())
    assert plan.value <= min(plan.info["equal"], plan.info["by_size"]) + 1e-9


def test_large_strata_of_one_cost_get_wrights_priorities() -> None:
    rng = np.random.default_rng(3)
    sd, sizes, budget = rng.gamma(2, 3, 30), rng.integers(100, 400_000, 30), 5000
    weight = sizes * sd
    counts = np.full(30, 2)
    for _ in range(budget - counts.sum()):
        counts[np.where(counts < sizes, weight / np.sqrt(counts * (counts + 1)), 0.0).argmax()] += 1
    plan = kofn.allocate(scores=sd, population=sizes, budget=budget, method="neyman")
    assert plan.amounts.tolist() == counts.tolist()
    assert (plan.status, plan.used["budget"]) == ("optimal", budget)


def test_unlike_costs_are_spent_to_a_proved_optimum_and_the_price_is_what_more_brings() -> None:
    rng = np.random.default_rng(4)
    sd, sizes, costs = rng.gamma(2, 3, 40), rng.integers(50, 9000, 40), rng.integers(1, 60, 40)
    plan = neyman(sd, population=sizes, costs=costs, budget=20_000)
    assert plan.status == "optimal"
    assert 20_000 - 60 < plan.used["budget"] <= 20_000
    ideal = sizes * sd / np.sqrt(costs)
    ideal *= 20_000 / (costs @ ideal)
    free = (ideal > 3) & (ideal < sizes - 1)
    assert np.abs(plan.amounts - ideal)[free].max() < 3
    more = neyman(sd, population=sizes, costs=costs, budget=20_060)
    assert 0 < plan.value - more.value <= plan.price * 100


def test_strata_without_sizes_are_alike_and_without_end() -> None:
    plan = neyman([3.0, 1.0], budget=40)
    assert plan.amounts.tolist() == [30, 10]
    assert plan.value == pytest.approx(9 / 30 + 1 / 10)
    assert neyman([0.0, 0.0], budget=5).value == 0


def test_calls_that_cannot_be() -> None:
    call: dict[str, Any] = {"scores": [1.0, 2.0], "population": [10, 10], "budget": 10, "method": "neyman"}
    for change, says in (
        ({"scores": [1.0, -2.0]}, "standard deviations are 0 or more"),
        ({"costs": [1, 0]}, "a sample costs something"),
        ({"population": [10, 0]}, "give how many units there are"),
        ({"population": [10]}, "give one a stratum"),
        ({"bounds": (11, 12)}, "give no more than its population"),
        ({"scores": [1e200, 1.0]}, "beyond what squares hold"),
        ({"bounds": (None, 1)}, "raise it, or give the least: bounds=(1, ...)"),
    ):
        refused(lambda change=change: kofn.allocate(**{**call, **change}), says)
    short = "budget=3 is 1 short: the least samples of all strata cost 4"
    refused(lambda: kofn.allocate(**{**call, "budget": 3}), short, InfeasibleError)


def test_strata_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strata.csv").write_text("stratum,n,sd,cost\na,5000,10,4\nb,3000,2,1\nc,60,40,1\n")
    call = (
        "allocate",
        "strata.csv",
        "--id",
        "stratum",
        "--score",
        "sd",
        "--population",
        "n",
        "-m",
        "neyman",
        "--budget",
        100,
    )
    text = run(capsys, *call, "--cost", "cost")[1]
    assert "  a: 23" in text
    assert "in proportion to the sizes" in text
    assert json.loads(run(capsys, *call, "--json")[1])["amounts"] == [86, 10, 4]
    assert json.loads(run(capsys, *call, "--max", "n", "--min", 3, "--json")[1])["amounts"] == [86, 10, 4]
    assert "the least samples of all strata" in refused_command(capsys, *call[:-1], 4)


def test_a_most_leaves_the_least_as_it_is() -> None:
    call: dict[str, Any] = {"scores": [0.0, 9.0, 1.0], "population": [50, 50, 1], "budget": 20}
    assert neyman(**call).amounts.tolist() == [2, 17, 1]
    assert neyman(**call, bounds=(None, 15)).amounts.tolist() == [2, 15, 1]
    assert neyman(**call, bounds=[(None, 15), (None, None), (0, 1)]).amounts.tolist() == [2, 17, 1]
    assert neyman(**call, bounds=(1, None)).amounts.tolist() == [1, 18, 1]
    assert neyman(**call, bounds=(1, 1)).amounts.tolist() == [1, 1, 1]


def test_the_least_and_the_next_step_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = "abcdefghijklmnop"
    rows = [f"{name},{100 + i},{i},{1 if i < 15 else 400}" for i, name in enumerate(names)]
    Path("strata.csv").write_text("\n".join(["stratum,n,sd,cost", *rows]))
    call = ("allocate", "strata.csv", "--id", "stratum", "--score", "sd", "-m", "neyman", "--budget", 60)
    text = run(capsys, *call, "--max", 20)[1]
    assert "  a: 2" in text
    assert "value of equal amounts" in text
    assert "the sizes" not in text
    assert "--min 1" in refused_command(capsys, *call[:-1], 31)
    assert "--min 1" in refused_command(capsys, *call, "--max", 1)
    assert "two samples a stratum or more (--min 1" in " ".join(run(capsys, *call, "--help")[1].split())
    assert "-m neyman" in refused_command(capsys, *call[:-4], "--budget", 60)
    priced = run(capsys, *call[:-1], 2000, "--population", "n", "--cost", "cost", "--report", "r.html")[1]
    steps = next(line for line in priced.split("\n") if "a next step brings most" in line)
    assert "at p:" not in steps
    page = Path("r.html").read_text()
    assert "value of equal amounts" in page
    assert "population of each item" in page
    assert "16 numbers, 100 to 115" in page
    assert "25 values" not in page


@pytest.mark.parametrize(
    "words", ["neyman", "samples per stratum", "optimal allocation of sample sizes", "stratified sampling"]
)
def test_the_fields_words_find_it(words: str) -> None:
    assert "neyman" in [entry.name for entry in kofn.find(words)][:3]
