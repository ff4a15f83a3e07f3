"""What `import kofn`, `kofn --help` and one verb read at the start: the same whatever the number of methods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kofn

# Reports the data files that are opened and the heavy packages that are imported while `code` runs.
WATCH = """
import io, sys
opened = []
def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".json"):
        opened.append(str(arguments[0]).rsplit("/", 1)[-1])
sys.addaudithook(note)
try:
    exec(sys.argv[1])
except SystemExit:
    pass
heavy = [m for m in ("numpy", "scipy", "numba", "polars", "sklearn", "torch", "rich") if m in sys.modules]
print("\\n" + repr((sorted(set(opened)), heavy)))
"""


@pytest.fixture(scope="module")
def four_hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library whose index has 400 methods."""
    root = tmp_path_factory.mktemp("library")
    shutil.copytree(Path(kofn.__file__).parent, root / "kofn", ignore=shutil.ignore_patterns("__pycache__"))
    for verb in ("select", "assign", "allocate", "combine"):
        path = root / "kofn" / "_index" / f"{verb}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        more = [{**rows[i % len(rows)], "name": f"generated_{i}"} for i in range(100)]
        path.write_text(json.dumps([*rows, *more]), encoding="utf-8")
    return root


def run(root: Path, code: str) -> tuple[list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    opened, heavy = eval(done.stdout.strip().rsplit("\n", 1)[-1])
    return opened, heavy


def test_importing_reads_nothing(four_hundred: Path) -> None:
    assert run(four_hundred, "import kofn") == ([], [])


def test_help_reads_nothing(four_hundred: Path) -> None:
    assert run(four_hundred, "from kofn.cli import main; main(['--help'])") == ([], [])


def test_a_verb_reads_its_own_file(four_hundred: Path) -> None:
    opened, _ = run(four_hundred, "import kofn; print(kofn.select([[0.0], [1.0]], k=1))")
    assert opened == ["select.json", "words.json"]
    opened, _ = run(four_hundred, "import kofn; print(len(kofn.methods('allocate')))")
    assert opened == ["allocate.json", "words.json"]
