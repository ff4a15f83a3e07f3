"""The command line as a whole: its help, its commands, nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run
from pages import Reader
from safetensors.numpy import save_file

from kofn.cli import COMMANDS

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_loads_nothing_heavy(kofn: Run) -> None:
    heavy = ["numpy", "scipy", "sklearn", "numba", "polars", "altair", "torch", "rich.progress"]
    before = f"import atexit; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))"
    done = kofn("--help", before=before)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert command in done.stdout
    code = f"import sys, kofn; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_folding_an_adapter_loads_nothing_of_other_blends(kofn: Run, tmp_path: Path) -> None:
    others = [
        "polars",
        "rich.progress",
        "numba",
        "sklearn",
        "multiprocessing",
        "kofn.report",
        "kofn.tables.predictions",
    ]
    others += ["kofn.cli.combine_draws", "kofn.cli.combine_predictions", "kofn.cli.combine_ranking"]
    before = f"import atexit, sys; atexit.register(lambda: print([m for m in {others} if m in sys.modules]))"
    save_file({"fc.weight": np.zeros((2, 3), "f4")}, tmp_path / "base.safetensors")
    factors = {"fc.lora_down.weight": np.ones((1, 3), "f4"), "fc.lora_up.weight": np.ones((2, 1), "f4")}
    save_file(factors, tmp_path / "adapter.safetensors")
    done = kofn("combine", "base.safetensors", "adapter.safetensors", "-o", "out.safetensors", before=before)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"


def test_kofn_alone_prints_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys)
    assert (code, err) == (2, "")
    assert text.startswith("Usage: kofn [OPTIONS]")
    assert text.count("\n") > 10
    assert run(capsys, "help") == (0, text, "")
    assert run(capsys, "help", "warmup") == run(capsys, "warmup", "--help")
    assert "did you mean 'select'" in refused(capsys, "selct")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "kofn", "selct"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kofn: no command 'selct'; did you mean 'select'")


def test_the_report_shows_what_was_typed_and_not_this_process(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "another command"])
    np.save("points.npy", np.random.default_rng(0).normal(size=(12, 2)))
    Path("curves.csv").write_text("0,1\n3,1\n2,1\n")
    Path("board.csv").write_text("name,x,y\na,1,2\nb,2,1\n")
    calls: list[list[object]] = [
        ["select", "points.npy", "-k", 2],
        ["assign", "points.npy", "-k", 2],
        ["allocate", "curves.csv", "--budget", 1],
        ["combine", "board.csv", "--id", "name"],
    ]
    for call in calls:
        typed = [*call, "--report", "r.html"]
        assert run(capsys, *typed)[0] == 0
        page = Reader(Path("r.html").read_text(encoding="utf-8")).text
        assert " ".join(map(str, ["kofn", *typed])) in page
        assert "another command" not in page


def test_what_a_library_warns_of_is_a_line_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Python 2 wrote whole numbers with an L.
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (12L, 2L), }".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    Path("old.npy").write_bytes(start + np.random.default_rng(0).normal(size=(12, 2)).tobytes())
    code, _, err = run(capsys, "select", "old.npy", "-k", 2)
    assert code == 0, err
    assert err.startswith("kofn: warning: Reading `.npy`")
    assert all(line.startswith("kofn: ") for line in err.splitlines())
