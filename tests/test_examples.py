"""The examples run, and what they say is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, cwd=folder, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_beats_random_draws_and_writes_its_report(tmp_path: Path) -> None:
    said = run("digits.py", tmp_path)
    difference = re.search(r"difference\s+([+-][\d.]+)", said)
    assert difference is not None
    assert float(difference[1]) > 0
    page = (tmp_path / "out" / "digits.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64") >= 50
    assert str(tmp_path / "out" / "digits.html") in said


def test_the_pipeline(tmp_path: Path) -> None:
    shares = dict(re.findall(r"(chosen|random): ([\d.]+)", run("pipeline.py", tmp_path)))
    assert float(shares["chosen"]) > float(shares["random"])
