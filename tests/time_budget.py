"""How much time the tests may take, and over how many drawn calls the laws are held in it.

Both are printed at the head and the end of every run. CONTRIBUTING, "Time", says how they are kept as papers come.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deep_journal import Journal, state_of_code
from workers import prepare

# `make test` on two cores.
SECONDS = 600
# Machines that run the checks differ: a run there fails only where it takes longer than this many times the budget.
SLOWER_MACHINES = 1.5

# Drawn calls on which laws are held in one run, all pairs of a method and a law together.
LAW_CALLS = 20_000
# However many methods there are, every pair is held on at least so many calls, and on no more than is of use.
FEWEST, MOST = 10, 50
# A day holds one of this many parts of the pairs on MOST calls, whatever the budget; the parts take turns.
PARTS = 10
# A pair is drawn with the seeds 0, 1, ...: a day changes how far they are followed, not what is drawn.
DAY = int(os.environ.get("KOFN_DAY", datetime.date.today().toordinal()))
# `make test-deep`: every pair on so many calls, of seeds that follow this one, which is another in every run.
DEEP = int(os.environ.get("KOFN_EXAMPLES", "0"))


def _journal() -> Journal | None:
    """Where a deep run keeps what it has done, if it was told to."""
    if not DEEP or "KOFN_JOURNAL" not in os.environ:
        return None
    seed = int(os.environ["KOFN_SEED"]) if "KOFN_SEED" in os.environ else None
    scale = {"examples": DEEP, "attack": os.environ.get("KOFN_ATTACK", "1"), "code": state_of_code()}
    return Journal(Path(os.environ["KOFN_JOURNAL"]), scale, seed)


JOURNAL = _journal()
DEEP_SEED = 0
if DEEP:
    # A run that goes on has its seed already, and workers begin with the same one.
    DEEP_SEED = (JOURNAL and JOURNAL.seed) or int(os.environ.get("KOFN_SEED", time.time_ns() % 2**32))
    os.environ["KOFN_SEED"] = str(DEEP_SEED)


def law_calls(position: int, pairs: int) -> int:
    """On how many calls the pair at this position among all `pairs` is held today."""
    if DEEP:
        return DEEP
    if (position + DAY) % PARTS == 0:
        return MOST
    return min(MOST, max(FEWEST, LAW_CALLS // pairs))


def stated() -> str:
    """The budget in words."""
    if DEEP:
        return f"laws on {DEEP} calls a pair, KOFN_SEED={DEEP_SEED}; no limit of time"
    part = -DAY % PARTS
    return (
        f"{SECONDS} s on two cores; laws on {LAW_CALLS} calls, {FEWEST} to {MOST} a pair, "
        f"part {part} of {PARTS} on {MOST} (KOFN_DAY={DAY})"
    )


def pytest_report_header() -> str:
    """The budget, above the tests."""
    return f"budget: {stated()}"


_BEGAN = pytest.StashKey[float]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to count, compiling included."""
    session.config.stash[_BEGAN] = time.monotonic()
    prepare(session.config)


def _seconds(config: pytest.Config) -> float:
    return time.monotonic() - config.stash[_BEGAN]


def overdrawn(seconds: float) -> bool:
    """Whether a run of the checks took longer than slower machines may."""
    return bool(os.environ.get("CI")) and not DEEP and seconds > SECONDS * SLOWER_MACHINES


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Fail a run of the checks that took too long, tests passing or not."""
    yield
    if not hasattr(session.config, "workerinput") and exitstatus == 0 and overdrawn(_seconds(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The time used, below the tests."""
    seconds = _seconds(config)
    terminalreporter.write_line(f"time: {seconds:.0f} s of {stated()}")
    if overdrawn(seconds):
        limit = SECONDS * SLOWER_MACHINES
        terminalreporter.write_line(f"FAILED: longer than {limit:.0f} s; see CONTRIBUTING, Time", red=True)
