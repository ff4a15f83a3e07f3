"""A deep run that was stopped goes on where it was, with its seed and its counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deep_journal import Journal

HERE = Path(__file__).resolve().parent
TESTS = """
import os, pathlib
import attack, pytest, time_budget

@pytest.mark.parametrize("turn", range(4))
def test_attacks(turn, tmp_path, monkeypatch):
    here = pathlib.Path.cwd()
    monkeypatch.chdir(tmp_path)  # as attacks on files do
    attack.count("kills", 10)
    (here / "ran").open("a").write(f"{turn} {time_budget.DEEP_SEED}\\n")
    if turn == 2:
        with attack.counted("limits"):
            assert not (here / "fails").exists()
"""


def _run(folder: Path, *options: str, **environment: str) -> str:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "attack", "-p", "no:cacheprovider", *options, "test_few.py"]
    known = {**os.environ, "PYTHONPATH": str(HERE), "KOFN_EXAMPLES": "1", "KOFN_JOURNAL": "journal.jsonl"}
    known.pop("KOFN_SEED", None)
    known.pop("PYTEST_XDIST_WORKER", None)
    ran = subprocess.run(
        words, cwd=folder, env=known | environment, capture_output=True, text=True, timeout=120, check=False
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_run_that_was_stopped_goes_on(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_few.py").write_text(TESTS)
    (tmp_path / "fails").touch()
    output = _run(tmp_path, *options, KOFN_SEED="77")
    assert "attack: 40 kills, 0 half-written" in output
    assert "attack: 1 limits, 1 limits broken" in output
    assert "the same command goes on" in output
    (tmp_path / "fails").unlink()
    output = _run(tmp_path, *options)
    assert "attack: 40 kills, 0 half-written" in output
    assert "attack: 1 limits, 0 limits broken" in output
    assert "3 tests of these had passed in an earlier run" in output
    assert not (tmp_path / "journal.jsonl").exists()
    assert sorted((tmp_path / "ran").read_text().splitlines()) == ["0 77", "1 77", "2 77", "2 77", "3 77"]
    _run(tmp_path, *options, KOFN_SEED="78")
    assert (tmp_path / "ran").read_text().count(" 78") == 4


def test_a_journal_is_of_one_seed_scale_and_code(tmp_path: Path) -> None:
    path, scale = tmp_path / "build" / "deep.jsonl", {"attack": "1", "code": "a"}
    journal = Journal(path, scale, None)
    journal.begin(5)
    journal.note("one", {"kills": 1})
    with path.open("a") as file:
        file.write('{"test": "two", "cou')  # killed while it wrote
    again = Journal(path, scale, None)
    assert (again.seed, again.passed) == (5, {"one": {"kills": 1}})
    again.begin(5)
    again.note("three", {})
    assert Journal(path, scale, 5).passed == {"one": {"kills": 1}, "three": {}}
    for other in (Journal(path, scale, 6), Journal(path, {**scale, "code": "b"}, None)):
        assert other.passed == {}
        assert other.seed in (6, None)
    other.begin(9)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"attack": "1", "code": "b", "seed": 9}]
    path.write_text("no journal")
    assert Journal(path, scale, None).seed is None
