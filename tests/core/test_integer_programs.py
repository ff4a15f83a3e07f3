"""What HiGHS prints below Python is kept off standard output, and nothing else is."""

from __future__ import annotations

import ast
import ctypes
import os
from pathlib import Path
from typing import Any

import pytest
import scipy.optimize

from kofn.core import integer_programs

SRC = Path(__file__).resolve().parents[2] / "src" / "kofn"
LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"


@pytest.mark.parametrize("raises", [False, True])
def test_lines_of_the_solver_are_dropped_and_others_given_on(
    raises: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    solved = scipy.optimize.OptimizeResult(x=[1.0])

    def solver(*_: Any, **__: Any) -> Any:
        os.write(1, b"before\n")
        ctypes.CDLL(None).printf(LINE)
        print("of Python")
        if raises:
            raise ValueError("broken")
        return solved

    monkeypatch.setattr(scipy.optimize, "milp", solver)
    if raises:
        with pytest.raises(ValueError, match="broken"):
            integer_programs.milp([1.0])
    else:
        assert integer_programs.milp([1.0]) is solved
    shown = capfd.readouterr().out
    assert "Highs" not in shown
    assert sorted(shown.split("\n")) == ["", "before", "of Python"]


def test_every_integer_program_goes_through_the_silent_call() -> None:
    strangers = []
    for path in SRC.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name == "integer_programs.py" or "milp" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            of_scipy = isinstance(node, ast.ImportFrom) and node.module == "scipy.optimize"
            if of_scipy and any(alias.name == "milp" for alias in node.names):
                strangers.append(path.name)
            if isinstance(node, ast.Attribute) and node.attr == "milp" and ast.unparse(node.value) != "self":
                strangers.append(path.name)
    assert not strangers, f"take kofn.core.integer_programs.milp in {strangers}"


def test_a_program_that_the_reductions_lose_is_solved_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS ends with "Solve error" then, of programs that it solves when told not to reduce them."""
    optimize = scipy.optimize
    asked = []

    def losing(c: Any, **program: Any) -> Any:
        asked.append(program.get("options"))
        if (program.get("options") or {}).get("presolve", True):
            return optimize.OptimizeResult(x=None, status=4, message="(HiGHS Status 4: Solve error)")
        return solve(c, **program)

    solve = optimize.milp
    monkeypatch.setattr(optimize, "milp", losing)
    answer = integer_programs.milp([1.0], integrality=[1], bounds=optimize.Bounds(2.5, 9), options={"time_limit": 5.0})
    assert answer.x.tolist() == [3.0]
    assert asked == [{"time_limit": 5.0}, {"time_limit": 5.0, "presolve": False}]
