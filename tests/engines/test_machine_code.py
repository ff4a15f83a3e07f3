"""Loops in LLVM's assembly."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kofn.engines.machine_code import address, compiled, converts_float16, loop

_DOUBLE = """
  %to = getelementptr double, ptr %row, i64 %i
  %number = load double, ptr %to
  %twice = fadd double %number, %number
  store double %twice, ptr %to
"""
_SUM = """
  %from = getelementptr double, ptr %row, i64 %i
  %number = load double, ptr %from
  %carried = fadd double %before, %number
"""


def test_loops_run_over_all_numbers_and_hand_on_what_they_carry() -> None:
    text = loop("twice", ("ptr %row",), _DOUBLE) + loop("total", ("ptr %row",), _SUM, carried=("double", "0.0"))
    functions = compiled(text, {"twice": ("void", "ptr", "i64"), "total": ("double", "ptr", "i64")})
    assert functions is not None
    for n in (0, 1, 1000):
        row = np.arange(n, dtype=np.float64)
        functions["twice"](address(row), n)
        assert row.tolist() == [2.0 * i for i in range(n)]
        assert functions["total"](address(row), n) == row.sum()


def test_a_text_that_is_none_gives_no_functions() -> None:
    assert compiled("define nonsense", {"nonsense": ("void", "i64")}) is None


def test_without_llvmlite_there_are_no_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)  # what is None there cannot be imported
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert compiled(loop("twice", ("ptr %row",), _DOUBLE), {"twice": ("void", "ptr", "i64")}) is None
    assert not converts_float16()
