"""How long a first look takes: `import kofn`, `kofn --help`, a small call, with today's index and with 400 methods.

Every figure is a fresh process; the least of several runs is quoted, beside a Python that imports nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kofn

COMMANDS = {
    "python alone": "pass",
    "import kofn": "import kofn",
    "kofn --help": "from kofn.cli import main; main(['--help'])",
    "kofn find": "from kofn.cli import main; main(['find', 'must-link'])",
    "kofn.methods()": "import kofn; kofn.methods()",
    "a small select": "import kofn; kofn.select([[0.0], [1.0], [2.0]], k=2)",
}


def library(root: Path, methods: int) -> None:
    """A copy of the library whose index has so many methods; none more than there are for 0."""
    shutil.copytree(Path(kofn.__file__).parent, root / "kofn", ignore=shutil.ignore_patterns("__pycache__"))
    for verb in ("select", "assign", "allocate", "combine") if methods else ():
        path = root / "kofn" / "_index" / f"{verb}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        more = [{**rows[i % len(rows)], "name": f"generated_{i}"} for i in range(methods // 4 - len(rows))]
        path.write_text(json.dumps([*rows, *more]), encoding="utf-8")


def seconds(root: Path, code: str, rounds: int) -> float:
    """The least wall time of a fresh process over some rounds, after one that fills the caches."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    best = float("inf")
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environment, check=False, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def run(*, quick: bool = False, rounds: int = 5) -> dict[str, Any]:
    """Print and return the seconds of every command."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        roots = {0: Path(folder) / "as_it_is", 400: Path(folder) / "four_hundred"}
        for methods, root in roots.items():
            library(root, methods)
        print(f"{'seconds, a fresh process':28s}{'as it is':>10s}{'400 methods':>13s}")
        for name, code in COMMANDS.items():
            row = {methods: seconds(root, code, 1 if quick else max(rounds, 3)) for methods, root in roots.items()}
            results[name] = row
            print(f"{name:28s}{row[0]:10.3f}{row[400]:13.3f}")
    return results
