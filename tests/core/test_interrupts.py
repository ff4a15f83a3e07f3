"""Ctrl-C ends a call as a whole, whichever of its searches it meets, with what there is by then."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from limit_calls import ask, sized_call

import kofn
from kofn.core import dispatch, problems
from kofn.core.registry import VERBS, Entry
from kofn.core.runtime import Control, limited_since

ENTRIES = [
    pytest.param(entry, id=entry.name)
    for verb in VERBS
    for entry in dispatch.methods_of(verb).values()
    if "time_limit" in entry.accepted
]
# Searches of a call that are interrupted, one after the other.
SEARCHES = 3
# Their first search makes the first blend, before which there is nothing to return.
BLENDS = ("evolved_mean", "greedy_soup")


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_what_interrupts_a_part_interrupts_the_whole() -> None:
    with Control() as whole, Control() as part, Control() as inner:
        press()
    assert whole.interrupted
    assert part.interrupted
    assert inner.interrupted


def test_a_part_that_begins_after_an_interrupt_does_not_begin() -> None:
    with Control() as whole:
        press()
        with Control(time_limit=60) as part:
            assert part.stopped()
            assert part.left() == 0
    with Control() as another:
        assert not another.stopped()
    assert whole.interrupted


def test_what_is_interrupted_later_leaves_a_part_that_ended_as_it_was() -> None:
    with Control() as whole:
        with Control() as part:
            pass
        press()
    assert whole.interrupted
    assert not part.interrupted


def test_the_second_ctrl_c_ends_the_process() -> None:
    def presses_twice() -> None:
        with Control(), Control():
            press()
            press()

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        presses_twice()
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("entry", ENTRIES)
def test_whichever_search_is_interrupted_the_call_ends(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    call = sized_call(entry, 40)
    entered: list[Control] = []
    begin = Control.__enter__

    def begun(control: Control) -> Control:
        begin(control)
        entered.append(control)
        if len(entered) == position:
            press()
        return control

    monkeypatch.setattr(Control, "__enter__", begun)
    for position in range(1, SEARCHES + 1):
        entered.clear()
        if entry.name in BLENDS and position <= 2:
            # Part of a blend is of no use, and there is no other yet.
            with pytest.raises(KeyboardInterrupt):
                ask(entry, call, n_threads=1)
            continue
        plan: Any = ask(entry, call, n_threads=1)
        if len(entered) < position:
            break
        # What only values the picks may be too short to be stopped; nothing new is searched for.
        assert plan.status == "stopped" or len(entered) == position
        assert len(entered) - position <= 1 or all(control.interrupted for control in entered[position:-1])


def test_a_call_that_was_checked_for_long_has_that_much_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    build = problems.build

    def slow(*words: Any, **more: Any) -> Any:
        clock[0] += 10.0
        return build(*words, **more)

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(problems, "build", slow)
    X = [[0.0], [1.0], [3.0], [7.0]]
    assert kofn.select(X, k=3, method="farthest_first", time_limit=9.0).status == "stopped"
    assert kofn.select(X, k=3, method="farthest_first", time_limit=11.0).status != "stopped"


def test_only_the_limit_of_the_call_counts_from_its_beginning() -> None:
    with limited_since(time.monotonic() - 5.0, 3.0):
        assert Control(time_limit=3.0).stopped()
        assert not Control(time_limit=2.0).stopped()
        assert not Control().stopped()
    assert not Control(time_limit=3.0).stopped()


def test_a_run_that_ignores_ctrl_c_goes_on() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Control() as whole, Control() as part:
            press()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not whole.interrupted
        assert not part.interrupted
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
