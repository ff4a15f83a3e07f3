"""The wheel as a user's type checkers see it: every Python block of README and the docs, and calls that are wrong.

The wheel is built and installed, with mypy and pyright (as `basedpyright`, which needs nothing but PyPI), into an
environment of its own, so that nothing of the source tree is seen.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?:python|py|\{code-(?:block|cell)\} *(?:python|ipython3))\b.*?\n(.*?)^```", re.M | re.S)

# Folders of docs/ that a build of the docs writes.
BUILT = ("_build", "gallery", "generated", "reference")

# The type of each name that README and the docs use without defining it.
PLACEHOLDERS = {
    "X": "np.ndarray",
    "S": "np.ndarray",
    "Q": "np.ndarray",
    "R": "np.ndarray",
    "accuracy": "Callable[[Any], float]",
    "curves": "np.ndarray",
    "data": "list[Any]",
    "lang": "list[str]",
    "models": "list[dict[str, np.ndarray]]",
    "nets": "list[Any]",
    "paths": "list[str]",
    "t1": "np.ndarray",
    "t2": "np.ndarray",
    "t3": "np.ndarray",
    "team": "list[str]",
    "tokens": "list[int]",
}
GIVEN = ("from collections.abc import Callable", "from typing import Any", "import numpy as np")
# What each is wrong in, the call, and the same call without the fault.
WRONG = {
    "a misspelled method": ('kofn.select(X, k=2, method="lazy_gredy")', 'kofn.select(X, k=2, method="lazy_greedy")'),
    "a misspelled option": (
        'kofn.combine([X, X], base=X, method="ties", densty=0.2)',
        'kofn.combine([X, X], base=X, method="ties", density=0.2)',
    ),
    "an option of another method": (
        'kofn.select(X, k=2, method="farthest_first", eps=0.1)',
        'kofn.select(X, k=2, method="stochastic_greedy", eps=0.1)',
    ),
}
# A verb's answer has its type: were the wheel without `py.typed`, it would be Any.
KINDS = """
from typing import assert_type

from kofn.core.plans import Allocation, Assignment, Blend, Selection

assert_type(kofn.select(X, k=2), Selection)
assert_type(kofn.assign(X, k=2, method="fasterpam"), Assignment)
assert_type(kofn.allocate(curves, budget=2.0), Allocation)
assert_type(kofn.combine([X, X]), Blend)
"""
MYPY = """[mypy]
mypy_path = pages
ignore_missing_imports = True
allow_redefinition = True
disable_error_code = no-redef
"""
PYRIGHT = {
    "typeCheckingMode": "standard",
    "venvPath": ".",
    "venv": "env",
    "include": ["pages"],
    "reportMissingImports": False,
    "reportMissingModuleSource": False,
    "reportRedeclaration": False,
}


def pages() -> dict[str, str]:
    """The Python of every page: its blocks one after another, as they are read; gallery scripts as they are."""
    found = {}
    written = [path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT).parts[1] not in BUILT]
    for path in [ROOT / "README.md", *sorted(written)]:
        blocks = FENCE.findall(path.read_text())
        if blocks:
            found[path.relative_to(ROOT).as_posix()] = "\n\n".join(blocks)
    for path in sorted((ROOT / "docs" / "worked").rglob("*.py")):
        found[path.relative_to(ROOT).as_posix()] = path.read_text()
    return found


def undefined(code: str) -> list[str]:
    """Names that the code reads and never binds, in order."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(vars(builtins)) | {"__file__"}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    return sorted({node.id for node in names} - bound - {"kofn"})


def page(code: str) -> str:
    """The code behind imports of the names that it does not define."""
    given = ", ".join(name for name in undefined(code) if name in PLACEHOLDERS)
    lines = ["import kofn", f"from given import {given}" if given else "", ""]
    return "\n".join(lines) + code.replace("from __future__ import annotations\n", "")


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, list[str]]]]:
    """What each checker says of each page, by checker and page: `line: message`."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

    def run(*arguments: object) -> None:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, cwd=home, check=False)
        assert not done.returncode, done.stderr

    run(*pip, "wheel", "--no-deps", "--wheel-dir", home, ROOT)
    run(sys.executable, "-m", "venv", "--without-pip", home / "env")
    install = [*pip, "--python", home / "env" / "bin" / "python", "install", "--no-compile"]
    run(*install, "mypy", "basedpyright")
    # Of what kofn depends on, its signatures name only these two. They are as they are here, and large to copy.
    packages = next((home / "env").rglob("site-packages"))
    for name in ("numpy", "polars"):
        (packages / name).symlink_to(Path(find_spec(name).origin).parent)
    run(*install, "--no-deps", next(home.glob("*.whl")))
    (home / "pages").mkdir()
    given = [f"{name}: {kind}" for name, kind in PLACEHOLDERS.items()]
    (home / "pages" / "given.pyi").write_text("\n".join([*GIVEN, *given, ""]))
    (home / "mypy.ini").write_text(MYPY)
    (home / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    written = {name: page(code) for name, code in pages().items()}
    written["kinds"] = page(KINDS)
    for kind, (wrong, right) in WRONG.items():
        written[kind], written[f"not {kind}"] = page(wrong), page(right)
    files = {re.sub(r"\W", "_", name) + ".py": name for name in written}
    for file, name in files.items():
        (home / "pages" / file).write_text(written[name])
    with ThreadPoolExecutor() as threads:
        yield dict(
            zip(("mypy", "pyright"), threads.map(lambda check: check(home, files), (mypy, pyright)), strict=True)
        )


def mypy(home: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """The errors of mypy, by page."""
    run = [home / "env" / "bin" / "python", "-m", "mypy", *(f"pages/{file}" for file in files)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=home, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    found: dict[str, list[str]] = {name: [] for name in files.values()}
    for file, message in re.findall(r"^pages/(\w+\.py):(\d+: error: .*)$", done.stdout, re.M):
        found[files[file]].append(message)
    return found


def pyright(home: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """The errors of pyright, by page."""
    run = [home / "env" / "bin" / "python", "-m", "basedpyright", "--outputjson"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=home, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files) + 1
    found: dict[str, list[str]] = {name: [] for name in files.values()}
    for row in report["generalDiagnostics"]:
        if row["severity"] == "error":
            line = row["range"]["start"]["line"] + 1
            found[files[Path(row["file"]).name]].append(f"{line}: {row['message']}")
    return found


def test_every_name_of_the_pages_has_a_type() -> None:
    assert "README.md" in pages()
    missing = {name: [word for word in undefined(code) if word not in PLACEHOLDERS] for name, code in pages().items()}
    assert not {name: words for name, words in missing.items() if words}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_pages_are_typed(errors: dict[str, dict[str, list[str]]], checker: str) -> None:
    assert {name: errors[checker][name] for name in [*pages(), "kinds"] if errors[checker][name]} == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_calls_are_errors(errors: dict[str, dict[str, list[str]]], checker: str, kind: str) -> None:
    assert errors[checker][kind]
    assert not errors[checker][f"not {kind}"]
