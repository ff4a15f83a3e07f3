"""What is tested, claimed and said to the laws stands beside what it is about: verb, family, method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kofn.core import dispatch
from kofn.core.registry import VERBS
from kofn.indexing.packages import ROOTS, exports

HERE = Path(__file__).resolve().parents[1]
SRC = HERE / "src" / "kofn"
# Files of one family, its `__init__` aside.
MOST_FILES = 12
# Peers' packages, and what claims share: they are about no family.
OF_NO_FAMILY = {"claims": ("harness", "outside"), "tests": ("docs", "packaging"), "src/kofn/laws": ()}


def families() -> list[Path]:
    """The folders of methods, steppers and modules, relative to `src/kofn`."""
    found = (folder for root in ROOTS for folder in sorted((SRC / root).iterdir()))
    return [folder.relative_to(SRC) for folder in found if (folder / "__init__.py").exists() and folder.name[0] != "_"]


def folders(tree: str) -> Iterator[Path]:
    """The folders of Python files in a tree that mirrors `src/kofn`, relative to it."""
    root = HERE / tree
    for folder in sorted(root.rglob("*")):
        relative = folder.relative_to(root)
        if folder.is_dir() and any(folder.glob("*.py")) and relative.parts[0] not in OF_NO_FAMILY[tree]:
            yield relative


@pytest.mark.parametrize("tree", OF_NO_FAMILY)
def test_every_folder_is_one_of_the_library(tree: str) -> None:
    strangers = [str(folder) for folder in folders(tree) if not (SRC / folder).is_dir()]
    assert not strangers, f"{tree}/ has folders that src/kofn/ has not: {strangers}"


def test_the_laws_have_files_of_families_only() -> None:
    laws = SRC / "laws"
    files = [path.relative_to(laws) for path in laws.glob("*/*.py") if path.name != "__init__.py"]
    strangers = [str(path) for path in files if not (SRC / path).exists() and not (SRC / path).with_suffix("").is_dir()]
    assert not strangers, f"src/kofn/laws/ has files of no family: {strangers}"


@pytest.mark.parametrize("family", families(), ids=str)
def test_every_family_is_tested_beside_its_path(family: Path) -> None:
    assert list((HERE / "tests" / family).glob("test_*.py")), f"tests/{family}/ has no test"


@pytest.mark.parametrize("family", families(), ids=str)
def test_a_family_is_a_few_private_files(family: Path) -> None:
    files = sorted(path for path in (SRC / family).glob("*.py") if path.name != "__init__.py")
    assert len(files) <= MOST_FILES, f"{family} has {len(files)} files; make it two families"
    assert [path.name for path in files if not path.name.startswith("_")] == []


def test_a_method_stands_in_a_file_of_its_name() -> None:
    strangers = []
    for verb in VERBS:
        for entry in dispatch.methods_of(verb).values():
            module = entry.path.partition(":")[0]
            path = SRC.joinpath(*module.split(".")[1:]).with_suffix(".py")
            # A few that share everything stand in the file of one of them.
            if path.stem[1:] not in exports(path):
                strangers.append(f"{entry.name} in {path.relative_to(SRC)}")
    assert not strangers, f"a file is called like one of the methods in it: {strangers}"


def test_nothing_imports_behind_the_linters_back() -> None:
    found = []
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args):
                continue
            if isinstance(node.args[0], ast.Constant) and str(node.args[0].value).startswith("kofn"):
                found.append(f"{path.relative_to(SRC)}:{node.lineno}")
    assert not found, f"these modules are imported by a string, where no linter sees it: {found}"
