"""How far long work is: told to a callable, drawn on a terminal or in a notebook, a line a minute elsewhere."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core import progress
from kofn.core.checks import InputError
from kofn.core.progress import Step, display_for
from kofn.core.runtime import Control

X = np.random.default_rng(0).normal(size=(200, 6))
SCORES = np.random.default_rng(1).random((60, 4))


class Clock:
    """A clock that goes on by as much as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


class Shell(io.StringIO):
    """A file that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_step_says_what_is_left() -> None:
    step = Step("greedy", 25, 100, 30.0)
    assert (step.share, step.left) == (0.25, 90.0)
    assert str(step) == "greedy: 25 of 100 (25%) in 30 s, about 1:30 left"
    assert str(Step("swaps", 1200, 0, 61.0)) == "swaps: 1,200 in 1:01"
    assert Step("k", 0, 10, 1.0).left is None


def test_a_callable_is_told_at_most_ten_times_a_second_and_the_end(clock: Clock) -> None:
    steps: list[Step] = []
    with Control(progress=steps.append, total=100, title="work") as control:
        for done in range(1, 101):
            clock.now += 0.03
            control.step(done)
    told = [step.done for step in steps]
    assert len(told) == 26
    assert told[-1] == 100
    assert told == sorted(set(told))
    assert steps[-1].seconds == pytest.approx(3.0)


def test_what_the_callable_raises_ends_the_work() -> None:
    class Enough(Exception):
        pass

    def stop(step: Step) -> None:
        raise Enough

    with pytest.raises(Enough):
        kofn.select(X, k=5, progress=stop)


def test_where_nobody_looks_there_is_a_line_a_minute(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(terminal=False)
    monkeypatch.setattr(sys, "stderr", shell)
    with Control(progress=True, total=1000, title="work") as control:
        for done in range(1, 301):
            clock.now += 1.0
            control.step(done)
    lines = shell.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "work: 60 of 1,000 (6%) in 1:00, about 15:40 left"


def test_short_work_prints_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(terminal=False)
    monkeypatch.setattr(sys, "stderr", shell)
    with Control(progress=True, total=50, title="work") as control:
        for done in range(1, 51):
            clock.now += 1.0
            control.step(done)
    assert shell.getvalue() == ""


def test_a_terminal_has_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(terminal=True)
    monkeypatch.setattr(sys, "stderr", shell)
    monkeypatch.setenv("TERM", "xterm")
    with Control(progress=True, total=2, title="work") as control:
        control.step(1)
        control._display._bar.refresh()  # type: ignore[union-attr]
    assert re.search(r"work.*50%", shell.getvalue())


def test_a_notebook_has_a_bar_that_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, shown: Any) -> None:
            drawn.append(shown)

    class Module:
        HTML = str

        @staticmethod
        def get_ipython() -> Any:
            return ZMQInteractiveShell()

        @staticmethod
        def display(shown: Any, display_id: bool) -> Any:
            drawn.append(shown)
            return Handle()

    monkeypatch.setitem(sys.modules, "IPython", Module)
    monkeypatch.setitem(sys.modules, "IPython.display", Module)
    display = display_for(True, "work <b>", 10)
    display.begin()
    for done in range(1, 6):
        clock.now += 1.0
        display.step(done)
    display.end()
    assert len(drawn) == 6
    assert (
        drawn[0]
        == '<progress value="0.100"></progress> <small>work &lt;b&gt;: 1 of 10 (10%) in 1 s, about 9 s left</small>'
    )
    assert drawn[-1] == ""


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("select", {"X": X, "k": 6}),
        ("select", {"X": X, "k": 6, "method": "farthest_first"}),
        ("select", {"X": X, "k": 6, "method": "typiclust"}),
        ("select", {"X": X, "k": 6, "method": "partitioned_greedy"}),
        ("select", {"X": X, "k": 6, "method": "sparse_greedy"}),
        ("select", {"X": X, "k": 6, "method": "gist"}),
        ("select", {"X": X, "k": 6, "method": "marginal_relevance", "queries": X[:2]}),
        ("assign", {"X": X, "k": 6}),
        ("assign", {"X": X, "k": 6, "method": "alternating"}),
        ("assign", {"X": X, "k": 6, "method": "fastclara"}),
        ("assign", {"X": X, "k": 6, "capacity": 50}),
        ("assign", {"X": X, "k": "auto", "k_max": 3}),
    ],
)
def test_long_searches_tell_their_steps(verb: str, words: dict[str, Any]) -> None:
    steps: list[Step] = []
    plan = getattr(kofn, verb)(progress=steps.append, **words)
    assert steps
    assert steps[-1].title
    assert all(0 <= step.done <= (step.total or step.done) for step in steps)
    assert "progress" not in plan.options
    silent = getattr(kofn, verb)(**words, seed=plan.seed and int(plan.seed)) if plan.seed else plan
    assert np.array_equal(np.asarray(silent), np.asarray(plan))


def test_merging_tells_its_steps() -> None:
    steps: list[Step] = []
    members = [{f"w{i}": np.ones(4) * scale for i in range(5)} for scale in (1.0, 2.0)]
    kofn.combine(members, progress=steps.append)
    assert steps[-1].done == steps[-1].total == 20


def test_anything_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"progress=3: give True or False, or a callable"):
        kofn.select(X, k=2, progress=3)
    with pytest.raises(InputError, match=r"give True or False, or a callable"):
        kofn.select(X, k=2, progress=dict)
