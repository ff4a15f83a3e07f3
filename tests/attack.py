"""What the tests attack with, counted: `make test-deep` prints the counts at its end, `make test` those of its slice.

`KOFN_ATTACK` scales a deep run: 1, the default, is 10,000 hostile calls, as many command lines, and 100 kills.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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
# What this process has counted, when its test began, and what all tests of the run have.
_counts: Counter[str] = Counter()
_before: Counter[str] = Counter()
_total: Counter[str] = Counter()
_PROPERTY = "attack"
_WORKER = "PYTEST_XDIST_WORKER" in os.environ


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


def pytest_sessionstart() -> None:
    """Take over what an earlier run with this seed has done."""
    if time_budget.JOURNAL is not None and not _WORKER:
        time_budget.JOURNAL.begin(time_budget.DEEP_SEED)
        for counts in time_budget.JOURNAL.passed.values():
            _total.update(counts)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that passed then."""
    passed = {} if time_budget.JOURNAL is None else time_budget.JOURNAL.passed
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


def pytest_runtest_setup() -> None:
    """What was counted before a test."""
    _before.clear()
    _before.update(_counts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Report the counts of a test with it, to the run that started a worker too."""
    if call.when == "call":
        item.user_properties.append((_PROPERTY, dict(_counts - _before)))
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the counts, and keep those of tests that passed."""
    counts = dict(report.user_properties).get(_PROPERTY) if report.when == "call" else None
    if isinstance(counts, dict):
        _total.update(counts)
        if time_budget.JOURNAL is not None and not _WORKER and report.passed:
            time_budget.JOURNAL.note(report.nodeid, counts)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Forget a run that is through: nothing failed, or nothing was left to do."""
    through = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if time_budget.JOURNAL is not None and not _WORKER and exitstatus in through:
        time_budget.JOURNAL.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts, below the tests."""
    for line in lines(_total):
        terminalreporter.write_line(line)
    journal = time_budget.JOURNAL
    if journal is not None and journal.passed:
        terminalreporter.write_line(f"attack: {len(journal.passed):,} tests of these had passed in an earlier run")
    if journal is not None and journal.path.exists():
        terminalreporter.write_line(f"attack: not through; the same command goes on, as {journal.path} says")
