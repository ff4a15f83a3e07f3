"""`--engine` and `--address`: where a selection runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from command_line import run

X = np.random.default_rng(0).normal(size=(60, 3))


def test_the_local_engine_is_the_usual_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    words = ("select", "x.npy", "-k", 4, "--seed", 1, "--part-rows", 10)
    assert run(*words, "-o", "a.csv").exit_code == 0
    assert run(*words, "--engine", "local", "-o", "b.csv").exit_code == 0
    assert pl.read_csv("a.csv").equals(pl.read_csv("b.csv"))


def test_an_unknown_engine_and_an_address_without_one_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    words = ("select", "x.npy", "-k", 4, "-o", "a.csv")
    for typed, says in (
        (("--engine", "spork"), "choose one of local, ray"),
        (("--address", "auto"), "say --engine ray too"),
        (("--engine", "ray", "-m", "farthest_first"), "-m farthest_first reads all rows at once"),
    ):
        done = run(*words, *typed)
        assert done.exit_code != 0
        assert says in done.output
    assert not Path("a.csv").exists()
