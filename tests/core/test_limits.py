"""Three laws of the whole index, at sizes at which the limit binds: time, memory and threads; and Ctrl-C.

Everything is counted in processor time and bytes. A part of the methods is held to them each day, all of them in
`make test-deep`.
"""

from __future__ import annotations

import sys
from typing import Any

import attack
import pytest
import time_budget
from limit_calls import (
    PATIENCE,
    PRESSED,
    after_an_interrupt,
    at_the_memory_limit,
    at_the_time_limit,
    memory_of,
    other_threads,
)

import kofn
from kofn.core import dispatch
from kofn.core.registry import VERBS, Entry

ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]


def todays(entries: list[Entry]) -> list[Any]:
    """The methods of today's part; all of them in a deep run."""
    turn = [entry for place, entry in enumerate(entries) if (place + time_budget.DAY) % (3 * time_budget.PARTS) == 0]
    return [pytest.param(entry, id=entry.name) for entry in (entries if time_budget.DEEP else turn)]


def taking(limit: str) -> list[Entry]:
    """The methods that take a limit."""
    return [entry for entry in ENTRIES if limit in entry.accepted]


@pytest.mark.parametrize("entry", todays(taking("time_limit")))
def test_a_time_limit_is_kept(entry: Entry) -> None:
    run = at_the_time_limit(entry)
    with attack.counted("limits"):
        assert run.in_time, f"{run.seconds:.2f} s of processor time for {run.n} items"
    if run.n and sys.platform != "win32":
        with attack.counted("limits"):
            plan, seconds = after_an_interrupt(entry, 2 * run.n)
            assert seconds <= PRESSED + PATIENCE, f"back {seconds - PRESSED:.2f} s after Ctrl-C"
            assert plan is None or plan.status == "stopped" or seconds <= PRESSED


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("entry", todays(taking("max_memory")))
def test_a_limit_on_memory_is_kept(entry: Entry) -> None:
    n, held = at_the_memory_limit(entry)
    if n:
        with attack.counted("limits"):
            memory, beside = memory_of(entry)
            assert held <= 1.1 * memory + beside, f"{held / 2**20:.0f} MB of {memory / 2**20:.0f} for {n} items"


@pytest.mark.parametrize("entry", todays(ENTRIES))
def test_one_thread_is_one_thread(entry: Entry) -> None:
    everyone, others = other_threads(entry, 1_500)
    with attack.counted("limits"):
        assert others <= 0.1 * everyone + 0.05, f"{others:.2f} of {everyone:.2f} s in other threads"


@pytest.mark.parametrize("limit", ["time_limit", "max_memory"])
def test_what_cannot_keep_a_limit_refuses_it(limit: str) -> None:
    from limit_calls import ask, sized_call

    for entry in ENTRIES:
        if limit not in entry.accepted:
            with attack.counted("limits"), pytest.raises(kofn.InputError, match=f"cannot keep {limit}"):
                ask(entry, sized_call(entry, 40), **{limit: 1e9})
