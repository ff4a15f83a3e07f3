"""What draws, holds and breaks a call names no method: what it must know of one is declared at the method."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from law_runs import ENTRIES

from kofn.core.draws import KINDS, Draw
from kofn.laws import LAWS
from kofn.laws.families import files, gather

HERE = Path(__file__).resolve().parents[2]
FRAME = [
    *sorted((HERE / "src" / "kofn" / "laws").rglob("*.py")),
    HERE / "tests" / "laws" / "test_laws.py",
    HERE / "tests" / "law_runs.py",
    HERE / "tests" / "bad_values.py",
    HERE / "tests" / "core" / "test_hostile.py",
]
# Objectives that are called like the method that is best known for them.
OBJECTIVES = set(itertools.chain(gather("FUNCTIONS"), gather("RECOUNTS")))
METHODS = {entry.name for entry in ENTRIES} - OBJECTIVES


def named(path: Path) -> list[str]:
    """The methods that a file's strings and identifiers name, prose aside, with their lines."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            # A key such as "method word" names the method too; a sentence does not.
            words = node.value.split()
            names = words if len(words) <= 2 else []
        for field in ("id", "arg", "attr", "name"):
            names.append(str(getattr(node, field, "")))
        found += [f"{name} at line {getattr(node, 'lineno', 0)}" for name in names if name in METHODS]
    return found


@pytest.mark.parametrize("path", FRAME, ids=lambda path: str(path.relative_to(HERE)))
def test_no_method_is_named(path: Path) -> None:
    assert named(path) == [], "declare it at the method: @method(..., draws=Draw(...))"


def test_a_name_would_be_found(tmp_path: Path) -> None:
    text = '"""Prose of top_k."""\nDISTINCT = ("pam", "lazy_greedy members", "a sentence about top_k")\nif top_k: ...\n'
    (tmp_path / "frame.py").write_text(text)
    assert named(tmp_path / "frame.py") == ["top_k at line 3", "pam at line 2", "lazy_greedy at line 2"]


def test_declared_laws_and_drawers_exist() -> None:
    for entry in ENTRIES:
        declared: Draw = entry.draws
        assert set(declared.silent) <= LAWS.keys(), entry.name
        assert declared.options.keys() <= entry.options.keys(), entry.name
        assert declared.units.keys() | set(declared.absolute) <= entry.options.keys(), entry.name
        assert set(declared.units.values()) <= {"input", "distance"}, entry.name
        assert not declared.promise or declared.promise in gather("PROMISES"), entry.name
        assert declared.plain.keys() <= {*entry.accepted, *entry.options}, entry.name
        assert declared.kinds.keys() <= set(entry.accepted), entry.name


def test_options_of_a_file_belong_to_its_family() -> None:
    for family, module in files().items():
        own = [entry for entry in ENTRIES if entry.path.startswith(f"kofn.{family}.")]
        known = {name for entry in own for name in entry.options}
        known |= {values for entry in own for values in entry.draws.options.values() if str(values) == values}
        assert set(getattr(module, "OPTIONS", {})) <= known, family


def test_a_kind_that_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(ValueError, match="members has no kind 'trees'"):
        Draw(kinds={"members": "trees"})
    assert all(sentence for kinds in KINDS.values() for sentence in kinds.values())
