"""No two files of the library import each other, by whatever way: for types and inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"


def modules(source: Path) -> dict[str, Path]:
    """The files by their names; a package's face only hands names on, so it is none of them."""
    paths = (path for path in source.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(source).with_suffix("").parts): path for path in paths}


def named(node: ast.AST) -> Iterator[str]:
    """What one statement imports."""
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def imports(path: Path) -> Iterator[str]:
    """What a file names in its imports, wherever they stand: modules, and names in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        yield from named(node)


def circle(source: Path) -> list[str]:
    """Files that import each other, in turn; none where there are no such files."""
    known = modules(source)
    graph = {
        name: {other for other in imports(path) if other in known and other != name} for name, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def at_once(path: Path) -> set[str]:
    """What a file imports whenever it is imported itself, for types excepted."""
    return {name for node in ast.parse(path.read_text(encoding="utf-8")).body for name in named(node)}


def test_only_torch_forms_import_torch() -> None:
    known = modules(SOURCE)
    # `make index` and a base install have no torch: it is imported where it is used.
    heavy = {name for name, path in known.items() if "torch" in at_once(path)}
    while more := {name for name, path in known.items() if at_once(path) & heavy} - heavy:
        heavy |= more
    assert [name for name in sorted(heavy) if name.split(".")[1] not in ("nn", "engines", "objectives")] == []


def test_no_files_import_each_other() -> None:
    assert not circle(SOURCE)


@pytest.mark.parametrize("first", ["import b", "from b import x", "def f():\n    from b import x", "from b import *"])
def test_a_circle_is_found(first: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(first)
    (tmp_path / "b.py").write_text("if TYPE_CHECKING:\n    from a import y")
    assert set(circle(tmp_path)) == {"a", "b"}
