"""`--engine` and `--address`: where a selection runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run

X = np.random.default_rng(0).normal(size=(60, 3))


def test_the_local_engine_is_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    words = ("select", "x.npy", "-k", 4, "--seed", 1, "--part-rows", 10)
    assert run(capsys, *words, "-o", "a.csv")[0] == 0
    assert run(capsys, *words, "--engine", "local", "-o", "b.csv")[0] == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--engine", "spork"), "choose one of local, ray"),
        (("--address", "auto"), "say --engine ray too"),
        (("--engine", "ray", "-m", "farthest_first"), "-m farthest_first reads all rows at once"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(
    typed: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    assert says in refused(capsys, "select", "x.npy", "-k", 4, "-o", "a.csv", *typed)
    assert not Path("a.csv").exists()
