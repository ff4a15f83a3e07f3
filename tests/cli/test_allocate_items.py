"""`kofn allocate` of items that have no curves but a number each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn


def _files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rates = rng.integers(0, 9, 30) / 8
    names = [f"q{row}" for row in range(30)]
    columns = {"prompt": names, "rate": rates, "tried": [8] * 30, "tokens": rng.integers(1, 4, 30)}
    pl.DataFrame(columns).write_csv(folder / "prompts.csv")
    curves = {"group": ["a", "b"], "100": [0.5, 0.4], "200": [0.4, 0.3], "400": [0.35, 0.25], "price": [1, 2]}
    pl.DataFrame(curves).write_csv(folder / "groups.csv")


def test_scores_costs_and_columns_of_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _files(folder)
    call = ("allocate", "prompts.csv", "--id", "prompt", "--score", "rate", "--cost", "tokens", "--trials", "tried")
    told = json.loads(run(capsys, *call, "-m", "rollout_knapsack", "--budget", 400, "--max", 20, "--json")[1])
    table = pl.read_csv(folder / "prompts.csv")
    plan = kofn.allocate(
        scores=table["rate"].to_numpy(),
        costs=table["tokens"].to_numpy(),
        trials=table["tried"].to_numpy(),
        budget=400,
        bounds=(None, 20),
        method="rollout_knapsack",
    )
    assert told["amounts"] == plan.amounts.tolist()
    shown = run(capsys, *call, "-m", "difficulty_aware_trials", "--budget", 400)[1]
    assert "value of the same for all" in shown


def test_curves_beside_costs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _files(folder)
    call = ("allocate", "groups.csv", "--id", "group", "--cost", "price", "-m", "equitable_collection")
    told = json.loads(run(capsys, *call, "--budget", 500, "--json")[1])
    assert np.dot(told["amounts"], [1, 2]) == told["used"] <= 500
    assert "levels by the names of the columns: 100, 200, 400" in run(capsys, *call, "--budget", 500)[1]


def test_scores_without_a_method_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _files(folder)
    said = refused(capsys, "allocate", "prompts.csv", "--score", "rate", "--budget", 100)
    assert "-m rollout_knapsack" in said
    said = refused(
        capsys, "allocate", "prompts.csv", "--score", "rate", "--budget", 10, "-m", "rollout_knapsack", "--id", "prompt"
    )
    assert "budget=10 is 50 short: the least rollouts of all prompts cost 60" in said


@pytest.mark.parametrize(
    ("name", "meant"), [("hamilton", "'largest_remainder'"), ("dhont", "'dhondt'"), ("sainte_lage", "'sainte_lague'")]
)
def test_an_unknown_method_is_said_first(
    name: str, meant: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Votes are no curves: what a file of them lacks for curves says nothing of a name that is misspelt."""
    (folder / "votes.csv").write_text("party,votes\na,10\nb,20\n")
    for flags in ([], ["--score", "votes"], ["--columns", "lacks"]):
        said = refused(capsys, "allocate", "votes.csv", "--id", "party", "--budget", 200, "-m", name, *flags)
        assert f"method={name!r}: no such allocate method; did you mean {meant}?" in said


@pytest.mark.parametrize("verb", ["select", "assign", "combine"])
def test_no_file_is_read_for_an_unknown_method(verb: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"method='lazzy': no such {verb} method" in refused(capsys, verb, "absent.csv", "-m", "lazzy")
