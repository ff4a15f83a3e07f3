"""What steers the program stands in fields of a plan; `info` is for people."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCES = sorted(Path(__file__).parents[2].glob("src/kofn/**/*.py"))
STEERING = {"objective", "guarantee", "additive", "short", "at_most_k"}


def _keys_of_info(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and key of whatever puts a steering key into `info`, or reads one from there."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "info" and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            found += [(node.value.lineno, str(key)) for key in keys]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _is_info(node.value):
            found.append((node.lineno, str(node.slice.value)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_info(node.func.value):
            found += [(node.lineno, str(key.value)) for key in node.args[:1] if isinstance(key, ast.Constant)]
    return [(line, key) for line, key in found if key in STEERING]


def _is_info(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "info"


def test_nothing_is_decided_by_info() -> None:
    found = {str(path): _keys_of_info(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {path: keys for path, keys in found.items() if keys} == {}


def test_the_search_finds_what_it_looks_for() -> None:
    code = "Selection(info={'short': 1})\nplan.info['objective']\nplan.info.get('guarantee')\nplan.info['seconds']"
    assert sorted(_keys_of_info(ast.parse(code))) == [(1, "short"), (2, "objective"), (3, "guarantee")]
