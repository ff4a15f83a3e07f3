"""`--dry-run`: what a run would take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import run


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("pool.npy", np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32))
    code, text, err = run(capsys, "select", "pool.npy", "-k", 5, "-o", "picks.csv", "--dry-run")
    assert code == 0, err
    for word in ("seconds", "bytes", "exact"):
        assert word in text
    assert not Path("picks.csv").exists()


@pytest.mark.parametrize("n", [40, 3500])
def test_links_labels_and_judges_are_drawn_with_the_sample(
    folder: Path, capsys: pytest.CaptureFixture[str], n: int
) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.random(n), "b": rng.random(n), "y": ["x", "-1"] * (n // 2)})
    frame.write_csv("pool.csv")
    Path("pairs.csv").write_text(f"p,q\n0,1\n2,{n - 1}\n")
    calls: list[list[object]] = [
        ["assign", "pool.csv", "--columns", "a,b", "-k", 3, "--must-link", "pairs.csv", "--capacity", n // 2],
        ["assign", "pool.csv", "--columns", "a,b", "--label", "y", "-m", "laplacian_shot"],
        ["select", "pool.csv", "--columns", "a,b", "--rankings", "-k", 3],
        ["assign", "pool.csv", "--columns", "a,b", "--scores", "--capacity", f"{n},{n}"],
    ]
    for call in calls:
        code, text, err = run(capsys, *call, "--dry-run", "--json")
        assert code == 0, err
        assert json.loads(text)["seconds"].startswith("about ")
