"""What HiGHS prints below Python is kept off standard output, and nothing else is; Ctrl-C ends its programs."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from kofn.allocation import balans, constrained_knapsack
from kofn.core import highs
from kofn.core.runtime import Control

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
            highs.milp([1.0])
    else:
        assert highs.milp([1.0]) is solved
    shown = capfd.readouterr().out
    assert "Highs" not in shown
    assert sorted(shown.split("\n")) == ["", "before", "of Python"]


def test_every_program_goes_through_the_silent_call_that_ends() -> None:
    strangers = []
    for path in SRC.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # The laws check answers by what they do not share with them.
        if path.name == "highs.py" or "laws" in path.parts or not ("milp" in text or "linprog" in text):
            continue
        for node in ast.walk(ast.parse(text)):
            of_scipy = isinstance(node, ast.ImportFrom) and node.module == "scipy.optimize"
            if of_scipy and any(alias.name in ("milp", "linprog") for alias in node.names):
                strangers.append(path.name)
            called = isinstance(node, ast.Attribute) and node.attr in ("milp", "linprog")
            if called and ast.unparse(node.value) != "self":
                strangers.append(path.name)
    assert not strangers, f"take milp and linprog of kofn.core.highs in {strangers}"


def split_evenly() -> dict[str, Any]:
    """A program of a few bits on which HiGHS works for hours."""
    A = np.random.default_rng(0).integers(0, 100, (5, 40))
    half = A.sum(axis=1) // 2
    limits = scipy.optimize.LinearConstraint(A, half, half)
    return {"integrality": np.ones(40), "bounds": scipy.optimize.Bounds(0, 1), "constraints": limits}


@contextlib.contextmanager
def pressed_soon() -> Iterator[None]:
    """Ctrl-C while the solver works."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no alarms")
def test_ctrl_c_ends_a_program() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pressed_soon(), Control() as control:
        answer = highs.milp(np.zeros(40), stoppable=True, **split_evenly())
    assert control.interrupted
    assert answer.status == 1
    with pressed_soon(), pytest.raises(KeyboardInterrupt):
        highs.milp(np.zeros(40), stoppable=True, **split_evenly())
    # Where only the optimum will do there is no answer.
    with pressed_soon(), Control() as control, pytest.raises(KeyboardInterrupt):
        highs.milp(np.zeros(40), **split_evenly())
    assert control.interrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_no_program_begins_after_ctrl_c() -> None:
    A = np.kron(np.eye(30), np.ones(30))
    words: dict[str, Any] = {"A_eq": np.vstack([A, np.tile(np.eye(30), 30)]), "b_eq": np.ones(60)}
    costs = np.random.default_rng(0).random(900)
    with Control() as control:
        assert highs.linprog(costs, **words).status == 0
        control.interrupt()
        assert highs.linprog(costs, stoppable=True, **words).x is None
        with pytest.raises(KeyboardInterrupt):
            highs.linprog(costs, **words)


@pytest.mark.skipif(sys.platform == "win32", reason="has no alarms")
def test_a_search_that_has_nothing_yet_is_interrupted() -> None:
    """It said that a `time_limit` which nobody had given was too short."""
    limits = split_evenly()["constraints"]
    with pressed_soon(), pytest.raises(KeyboardInterrupt):
        balans(np.zeros(40), limits.A, low=limits.lb, high=limits.ub)
    # Half of the items, of every resource exactly half: at most that, and at most that of what the others take.
    both = {
        f"{name} {row}": side[row] for row in range(5) for name, side in (("of", limits.A), ("less", 100 - limits.A))
    }
    most = {f"of {row}": int(limits.ub[row]) for row in range(5)}
    most |= {f"less {row}": 2000 - int(limits.ub[row]) for row in range(5)}
    with pressed_soon(), pytest.raises(KeyboardInterrupt):
        constrained_knapsack(
            np.tile([1.0, 0.0], (40, 1)),
            budget=20,
            groups=["all"] * 40,
            quotas={"all": (20, 20)},
            resources=both,
            limits=most,
        )


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
    answer = highs.milp([1.0], integrality=[1], bounds=optimize.Bounds(2.5, 9), options={"time_limit": 5.0})
    assert answer.x.tolist() == [3.0]
    assert asked == [{"time_limit": 5.0}, {"time_limit": 5.0, "presolve": False}]
