"""How far long work is: a bar on a terminal or in a notebook, a line a minute elsewhere, or a callable of the caller's.

>>> steps = []
>>> display = display_for(steps.append, "greedy", 10)
>>> display.begin(); display.step(4); display.end()
>>> steps[-1].done, steps[-1].total, steps[-1].share
(4, 10, 0.4)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

# Seconds between two calls of a callable, two drawings of a notebook's bar, and two lines of a file.
_CALLS, _DRAWINGS, _LINES = 0.1, 0.5, 60.0


class Step(NamedTuple):
    """How far a piece of work is.

    Attributes:
        title: what is done.
        done: how many of its steps.
        total: how many there are, 0 where that is not known.
        seconds: since it began.
    """

    title: str
    done: int
    total: int
    seconds: float

    @property
    def share(self) -> float | None:
        """How much is done, between 0 and 1; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at the speed so far; None where that is not known."""
        share = self.share
        return self.seconds * (1 - share) / share if share else None

    def __str__(self) -> str:
        text = f"{self.title}: {self.done:,}"
        if self.total:
            text += f" of {self.total:,} ({self.share:.0%})"
        return text + f" in {clock(self.seconds)}" + ("" if self.left is None else f", about {clock(self.left)} left")


def clock(seconds: float) -> str:
    """A time as people read it.

    >>> clock(7), clock(75), clock(3700)
    ('7 s', '1:15', '1:01:40')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Display(Protocol):
    """What shows how far one piece of work is."""

    def begin(self) -> None: ...

    def step(self, done: int) -> None: ...

    def end(self) -> None: ...


def display_for(progress: Any, title: str, total: int) -> Display:
    """The display that `progress` asks for, here."""
    if callable(progress):
        return _Told(progress, title, total, _CALLS)
    if in_notebook():
        return _Notebook(title, total)
    return _Bar(title, total) if sys.stderr.isatty() else _Told(_line, title, total, _LINES, first=_LINES)


def in_notebook() -> bool:
    """Whether the process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    running = getattr(shell, "get_ipython", lambda: None)()
    return type(running).__name__ == "ZMQInteractiveShell"


class _Told:
    """Steps for a callable, so many seconds apart; the last one is told in any case where one was before.

    Whatever the callable raises ends the work.
    """

    def __init__(
        self, tell: Callable[[Step], Any], title: str, total: int, apart: float, *, first: float = 0.0
    ) -> None:
        self._tell, self._title, self._total, self._apart = tell, title, total, apart
        self._began = time.monotonic()
        self._next = self._began + first
        self._last: int | None = None
        self._left_out = False

    def begin(self) -> None:
        """The clock runs."""

    def step(self, done: int) -> None:
        """Tell the step, if the last one is long enough ago."""
        now = time.monotonic()
        self._left_out = now < self._next
        self._latest = done
        if not self._left_out:
            self._next = now + self._apart
            self._last = done
            self._tell(Step(self._title, done, self._total, now - self._began))

    def end(self) -> None:
        """Tell the last step, unless the work is failing already."""
        if self._left_out and self._last is not None and sys.exception() is None:
            self._tell(Step(self._title, self._latest, self._total, time.monotonic() - self._began))


def _line(step: Step) -> None:
    print(step, file=sys.stderr, flush=True)


class _Bar:
    """A bar on a terminal."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total

    def begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        # What has no known end moves to and fro.
        self._task = self._bar.add_task(self._title, total=self._total or None)

    def step(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def end(self) -> None:
        self._bar.stop()


class _Notebook:
    """A bar below the cell, which goes when the work ends."""

    def __init__(self, title: str, total: int) -> None:
        self._told = _Told(self._draw, title, total, _DRAWINGS, first=_DRAWINGS)
        self._handle: Any = None

    def begin(self) -> None:
        """Nothing is drawn of what is short."""

    def step(self, done: int) -> None:
        self._told.step(done)

    def end(self) -> None:
        if self._handle is not None:
            from IPython.display import HTML

            self._handle.update(HTML(""))

    def _draw(self, step: Step) -> None:
        from html import escape

        from IPython.display import HTML, display

        value = "" if step.share is None else f' value="{step.share:.3f}"'
        bar = HTML(f"<progress{value}></progress> <small>{escape(str(step))}</small>")
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        else:
            self._handle.update(bar)
