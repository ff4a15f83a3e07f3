"""Runs on one output do not mix, and what killed runs leave behind is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run

from kofn.io.atomic import atomic_path, claimed

pytest.importorskip("fcntl")

CALLS = {
    "select": ("select", "x.npy", "-k", 2, "-o", "out.csv"),
    "plan": ("select", "x.npy", "-k", 2, "--plan", "out.csv"),
    "assign": ("assign", "x.npy", "-k", 2, "-o", "out.csv"),
}


@pytest.fixture
def pool(folder: Path) -> Path:
    from safetensors.numpy import save_file

    np.save("x.npy", np.arange(12.0).reshape(6, 2))
    for name in "ab":
        Path(name).mkdir()
        save_file({"w": np.ones(2, np.float32)}, f"{name}/model.safetensors")
    return folder


@pytest.mark.parametrize("name", ["select", "plan", "assign"])
def test_a_second_run_on_one_output_is_refused_in_words(
    pool: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with claimed("./out.csv"):
        assert "out.csv is being written by another run" in refused(capsys, *CALLS[name])
        assert not Path("out.csv").exists()
    assert run(capsys, *CALLS[name])[0] == 0
    assert not [path for path in pool.iterdir() if path.name.startswith(".")]


def test_two_jobs_on_one_checkpoint(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed("merged"):
        assert "merged is being written by another run" in refused(capsys, "combine", "a", "b", "-o", "merged")
    assert run(capsys, "combine", "a", "b", "-o", "merged")[0] == 0


def test_a_killed_run_gives_up_its_claim_and_its_temporary_file(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os; from kofn.io.atomic import atomic_path, claimed\n"
        "with claimed('out.csv'), atomic_path('out.csv') as path:\n    path.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=pool, check=False).returncode == 9
    left = [path.name for path in pool.iterdir() if path.name.startswith(".")]
    assert len(left) == 2
    mine = Path(".out.csv.tmp")
    mine.write_text("of somebody else")
    assert run(capsys, *CALLS["select"])[0] == 0
    assert [path.name for path in pool.iterdir() if path.name.startswith(".")] == [".out.csv.tmp"]


def test_files_of_living_runs_stay(pool: Path) -> None:
    with atomic_path("one.csv") as first:
        first.write_text("1")
        assert f".kofn-{os.getpid()}-" in first.name
        with atomic_path("two.csv") as second:
            second.write_text("2")
    assert Path("one.csv").read_text() + Path("two.csv").read_text() == "12"
