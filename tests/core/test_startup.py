"""What `import kofn`, `kofn --help` and one verb read at the start: the same whatever the number of methods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

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


@pytest.mark.parametrize("flags", [["base", "adapter"], ["base", "base", "--weights", "1,2"]], ids=["fold", "mean"])
def test_checkpoints_are_combined_without_what_tables_and_large_loops_need(
    flags: list[str], four_hundred: Path, tmp_path: Path
) -> None:
    """polars, Numba, SciPy and scikit-learn take longer to load than a gigabyte takes to be blended."""
    save_file({"fc.weight": np.eye(3, dtype=np.float32)}, tmp_path / "base.safetensors")
    factors = {"fc.lora_A.weight": np.ones((1, 3), np.float32), "fc.lora_B.weight": np.ones((3, 1), np.float32)}
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    known = {"base": tmp_path / "base.safetensors", "adapter": tmp_path / "adapter"}
    paths = [str(known.get(word, word)) for word in flags]
    call = ["combine", *paths, "-o", str(tmp_path / "out.safetensors")]
    _, heavy = run(four_hundred, f"from kofn.cli import main; main({call!r})")
    assert (tmp_path / "out.safetensors").exists()
    assert heavy == ["numpy"]
