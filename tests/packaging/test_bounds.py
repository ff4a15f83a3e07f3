"""The bounds of dependencies: each has an oldest release, and one that the tests passed with that is no older."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = runpy.run_path(str(ROOT / ".ci" / "bounds.py"))["oldest"]()


def newest() -> dict[str, str]:
    lines = (ROOT / ".ci" / "newest.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


def test_every_dependency_has_an_oldest_release_that_ci_installs() -> None:
    assert {Requirement(text).name for text in PROJECT["dependencies"]} <= OLDEST.keys()


def test_every_bound_of_an_extra_can_be_read() -> None:
    for extra, requirements in PROJECT["optional-dependencies"].items():
        bare = [text for text in requirements if not Requirement(text).specifier and not text.startswith("kofn[")]
        assert not bare, f"[{extra}] {bare} have no oldest release"


def test_the_newest_tested_releases_are_of_the_same_dependencies_and_no_older() -> None:
    assert newest().keys() == OLDEST.keys()
    older = {name: release for name, release in newest().items() if Version(release) < Version(OLDEST[name])}
    assert not older


ARRAYS = """
import sys
sys.modules |= {"polars": None, "sklearn": None}  # what is None there cannot be imported
import numpy as np, kofn
X = np.random.default_rng(0).normal(size=(200, 8))
assert len(kofn.select(X, k=5)) == 5
assert len(kofn.select(scores=X[:, 0], k=5)) == 5
assert len(kofn.assign(X, k=3).labels) == 200
assert kofn.allocate([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]], budget=2).amounts.sum() == 2
assert kofn.combine([{"a": X}, {"a": X + 1}]).result["a"].shape == X.shape
kofn.select(X, k=5).save(sys.argv[1])
"""


def test_calls_on_arrays_need_neither_polars_nor_scikit_learn(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    done = subprocess.run([sys.executable, "-c", ARRAYS, str(plan)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert plan.exists()
