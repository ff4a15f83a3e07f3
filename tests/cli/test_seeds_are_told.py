"""What draws without a seed of the user's says which it drew, and the same seed gives the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run
from safetensors.numpy import save_file

from kofn.verbs import methods

OOF = ("combine", "oof.csv", "--label", "y")
SHARDS = ("combine", "draws_0.npy", "draws_1.npy")
# A call of every method of `combine` that takes a seed on the command line, and one or two of other verbs.
CALLS: dict[str, tuple[tuple[str, ...], str]] = {
    "ensemble_selection": ((*OOF, "--columns", "a,b,c", "--bags", "3"), "blend.csv"),
    "stacking": ((*OOF, "--columns", "a,b,c"), "blend.csv"),
    "dynamic_ensemble_selection": ((*OOF, "--feature-columns", "x"), "blend.csv"),
    "gaussian_product": (SHARDS, "draws.npy"),
    "kernel_product": ((*SHARDS, "--sweeps", "2"), "draws.npy"),
    "credal_mixture": ((*SHARDS, "--weights", "3,1"), "draws.npy"),
    "hierarchical_normal": (SHARDS, "draws.npy"),
    "general_preference": (("combine", "votes.csv"), "ranking.csv"),
    "dare": (("combine", "one.safetensors", "two.safetensors", "--base", "base.safetensors"), "out.safetensors"),
    "fasterpam": (("assign", "oof.csv", "--columns", "a,b,c", "-k", "3"), "groups.csv"),
    "random_sample": (("select", "oof.csv", "-k", "3"), "picks.csv"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Predictions, draws, votes and checkpoints."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    chances = {name: 1 / (1 + np.exp(rng.normal(size=40) - y)) for name in "abc"}
    pl.DataFrame({"x": rng.normal(size=40), **chances, "y": y}).write_csv("oof.csv")
    for shard in range(2):
        np.save(f"draws_{shard}.npy", rng.normal(size=(50, 2)))
    sides = [("p", "q"), ("q", "r"), ("r", "p")] * 4
    first, second = zip(*sides, strict=True)
    winner = rng.choice(["model_a", "model_b"], 12)
    pl.DataFrame({"model_a": first, "model_b": second, "winner": winner}).write_csv("votes.csv")
    for name in ("base", "one", "two"):
        save_file({"w": rng.normal(size=(8, 8)).astype(np.float32)}, f"{name}.safetensors")
    return tmp_path


def test_every_method_with_a_seed_is_called_here() -> None:
    drawing = {
        entry.name
        for entry in methods("combine")
        if "seed" in entry.accepted and entry.form in ("function", "merge_rule") and not entry.python_only
    }
    assert drawing == {name for name, (words, _) in CALLS.items() if words[0] == "combine"}


@pytest.mark.parametrize("name", CALLS)
def test_the_seed_that_is_told_repeats_the_files(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, output = CALLS[name]
    call: tuple[Any, ...] = (*words, "-m", name, "-o")
    code, text, err = run(capsys, *call, output)
    assert code == 0, err
    (line,) = [line for line in text.splitlines() if line.startswith("drawn with --seed ")]
    seed = line.split()[3].rstrip(",")
    code, text, err = run(capsys, *call, f"again_{output}", "--seed", seed)
    assert code == 0, err
    assert "drawn with --seed" not in text
    assert (folder / output).read_bytes() == (folder / f"again_{output}").read_bytes()
    code, text, err = run(capsys, *call, f"json_{output}", "--seed", seed, "--json")
    assert json.loads(text)["seed"] == seed, err


def test_what_draws_nothing_tells_no_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((*SHARDS, "-m", "consensus_monte_carlo"), ("combine", "votes.csv")):
        code, text, _ = run(capsys, *words)
        assert (code, "--seed" in text) == (0, False)
