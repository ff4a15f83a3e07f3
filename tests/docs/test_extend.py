"""What *Extend* says works: every file of the page is written, and every block run, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extend.md"
BLOCK = re.compile(r"^```(python|pycon|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (src/kofn/[\w/]+\.py)\n")
INDEX = "$ make index"
MADE = ("every_nth", "trimmed_mean", "Latest")


def blocks() -> list[tuple[str, str]]:
    """The blocks of the page, as (language, text)."""
    return [(match[1], match[2]) for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the page has been followed."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "tests", "claims"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "papers.toml"):
        shutil.copy2(ROOT / name, folder / name)
    for _, text in blocks():
        named = FILE.match(text)
        if named:
            target = folder / named[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.split("\n", 1)[1], encoding="utf-8")
    # Each file of the page is followed by `make index`, which takes all of them at once.
    assert INDEX in "".join(text for language, text in blocks() if language == "console")
    python(folder, "-m", "kofn.indexing")
    for language, text in blocks():
        if FILE.match(text):
            continue
        if language == "python":
            python(folder, "-c", text)
        elif language == "pycon":
            python(folder, "-c", f"import doctest; __doc__ = {text!r}; assert not doctest.testmod()[0]")
        else:
            for line in text.splitlines():
                if line != INDEX:
                    command(folder, line.removeprefix("$ "))
    return folder


def command(folder: Path, line: str) -> None:
    """A line of a console block, without an environment of its own."""
    program, *arguments = line.split()
    assert program == "kofn", line
    python(folder, "-c", "from kofn.cli import main; main()", *arguments)


def python(folder: Path, *arguments: str) -> str:
    """Run Python on the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments[:2]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_every_block_runs(copy: Path) -> None:
    assert len([text for _, text in blocks() if FILE.match(text)]) == 4


def test_what_is_made_is_found_with_its_call_and_its_file(copy: Path) -> None:
    code = f"import json, kofn; print(json.dumps([str(kofn.find(name)[0]) for name in {MADE!r}]))"
    for name, shown in zip(MADE, json.loads(python(copy, "-c", code)), strict=True):
        assert shown.startswith(f"{name}:")
        assert "src/kofn/" in shown


def test_what_is_made_is_a_method_of_its_verb(copy: Path) -> None:
    code = "import kofn; print(*(e.name for v in ('select', 'combine') for e in kofn.methods(v)))"
    assert {"every_nth", "trimmed_mean"} <= set(python(copy, "-c", code).split())


def test_what_is_made_keeps_the_laws_and_passes_the_tests_of_every_method(copy: Path) -> None:
    every = ["tests/core/test_registry.py", "tests/core/test_hostile.py"]
    laws = ["tests/laws/test_laws.py", "tests/laws/test_steppers.py", "tests/nn/test_parity.py"]
    files = [*laws, *every, "src/kofn/combination/averaging/_trimmed_mean.py"]
    # The tests of the package that has a method more, too.
    package = " or ".join(f"averaging and {Path(name).stem}" for name in every)
    words = " or ".join((*MADE, package))
    passed = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", words, "-rA")
    assert "failed" not in passed
    for name in files:
        assert re.search(rf"^PASSED {name}::", passed, re.MULTILINE), f"no test of {name} was chosen"


def test_what_is_made_is_formatted_and_clean(copy: Path) -> None:
    made = [match[1] for _, text in blocks() if (match := FILE.match(text))]
    for action in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *action, *made], cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
