"""What the tests attack with, counted: `make test-deep` prints the counts at its end, `make test` those of its slice.

`KOFN_ATTACK` scales a deep run: 1, the default, is 10,000 hostile calls, as many command lines, and 100 kills.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import time_budget

SCALE = float(os.environ.get("KOFN_ATTACK", "1")) if time_budget.DEEP else 0.0
# What a run tries, and what must not come of it.
TRIED = {
    "hostile calls": ("tracebacks",),
    "command lines": ("tracebacks of commands",),
    "damaged files": ("tracebacks of files",),
    "kills": ("half-written or lost files",),
    "brute-forced calls": ("false certificates",),
    "limits": ("limits broken",),
}
_counts: Counter[str] = Counter()


def scaled(whole: int, slice_: int) -> int:
    """How many of a deep run's `whole`, or as many as a plain run's slice."""
    return max(slice_, round(whole * SCALE)) if time_budget.DEEP else slice_


def count(what: str, number: int = 1) -> None:
    """Count what was tried, or what came of it."""
    _counts[what] += number


@contextmanager
def counted(what: str) -> Iterator[None]:
    """Count one try, and as its failure whatever leaves the block."""
    _counts[what] += 1
    try:
        yield
    except BaseException:
        _counts[TRIED[what][0]] += 1
        raise


def lines(counts: Counter[str]) -> list[str]:
    """What was tried and what came of it, a line each; nothing where nothing was tried.

    >>> lines(Counter({"kills": 9, "half-written or lost files": 1}))
    ['attack: 9 kills, 1 half-written or lost files']
    """
    tried = {what: bad for what, bad in TRIED.items() if counts[what]}
    return [f"attack: {counts[what]:,} {what}, {counts[bad]:,} {bad}" for what, (bad,) in tried.items()]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker to the run that started it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["attack"] = dict(_counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of a worker that ends."""
    _counts.update(getattr(node, "workeroutput", {}).get("attack", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts, below the tests."""
    for line in lines(_counts):
        terminalreporter.write_line(line)
