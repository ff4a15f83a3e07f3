"""The house keeps its words: no new locals, arguments or attributes under names that say nothing of what they hold."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "kofn"
# Uses of each name in src/kofn, none of which may be added: CONTRIBUTING, "Words", has the words to take instead.
# Lower a number when uses go; raise none.
MOST = {
    "at": 7,
    "found": 3,
    "held": 7,
    "one": 1,
    "place": 6,
    "rule": 23,
    "rules": 0,
    "said": 0,
    "told": 0,
    "what": 0,
}


def names(tree: ast.AST) -> Counter[str]:
    """How often each name is used for a variable, an argument, a definition or an attribute of `self`."""
    counts: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            counts[node.id] += 1
        elif isinstance(node, ast.arg):
            counts[node.arg] += 1
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            counts[node.name] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            counts[node.attr] += 1
    return counts


@pytest.fixture(scope="module")
def uses() -> dict[str, Counter[str]]:
    """The names that each file uses, by its path under src/kofn."""
    files = sorted(SRC.rglob("*.py"))
    return {path.relative_to(SRC).as_posix(): names(ast.parse(path.read_text(encoding="utf-8"))) for path in files}


@pytest.mark.parametrize("word", MOST)
def test_a_vague_name_is_used_no_more_than_it_was(word: str, uses: dict[str, Counter[str]]) -> None:
    by_file = Counter({path: counts[word] for path, counts in uses.items() if counts[word]})
    files = ", ".join(f"{path} ({count})" for path, count in by_file.most_common(5))
    assert by_file.total() <= MOST[word], (
        f"{by_file.total()} uses of the name {word!r}, at most {MOST[word]} are left to mend; most in {files}. "
        "Call it what it is: an index, a position, a row, a member, candidates, a merge_rule, an objective"
    )


def test_names_are_counted_where_they_are_data() -> None:
    source = "def place(at, *, told):\n    self.held = np.add.at(at, other.found, told=1)\n"
    assert {word: count for word, count in names(ast.parse(source)).items() if word in MOST} == {
        "place": 1,
        "at": 2,
        "told": 1,
        "held": 1,
    }
