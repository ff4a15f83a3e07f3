"""Long work that can be watched and stopped: time limits, Ctrl-C, progress."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any, Self

from kofn.core.checks.errors import KofnError
from kofn.core.progress import Display, display_for

# How far beyond its limit a run may go to complete and value what it found: this share of the limit, and these seconds.
_GRACE_SHARE, _GRACE_SECONDS = 0.05, 0.3


# The time limit of the call under way, and when that call began.
_call: ContextVar[tuple[float | None, float]] = ContextVar("call", default=(None, 0.0))


@contextmanager
def limited_since(began: float, time_limit: float | None) -> Iterator[None]:
    """Count a call's time limit from when it began: its arguments were checked before the search starts its clock.

    Args:
        began: of `time.monotonic`.
        time_limit: of the call. A search under any other limit, such as what is left to a part, counts from its start.
    """
    token = _call.set((time_limit, began))
    try:
        yield
    finally:
        _call.reset(token)


def is_interrupted() -> bool:
    """Whether Ctrl-C was pressed in the innermost search of the main thread that is under way."""
    handler = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return isinstance(handler, Control) and handler.interrupted


class Stopped(Exception):
    """The time was up, or Ctrl-C was pressed, in the middle of a step."""


class Control:
    """Long work asks `stopped()` between steps: True once the time limit has passed or Ctrl-C was pressed.

    Inside the `with` block the first Ctrl-C only sets a flag, so that the search can return its valid prefix with
    status "stopped"; a second one interrupts as usual, and so does the first where the search then fails. What
    interrupts a search within a search interrupts both.

    Args:
        time_limit: seconds; None for no limit. That of the call under way counts from where the call began.
        progress: True shows how far the work is: a bar on a terminal and in a notebook, elsewhere a line a minute. A
            callable is given each `kofn.core.progress.Step` instead.
        total: the number of steps in all, 0 where it is not known.
        title: the text in front of the bar.
    """

    def __init__(
        self, *, time_limit: float | None = None, progress: Any = None, total: int = 0, title: str = ""
    ) -> None:
        of_the_call, began = _call.get()
        start = began if time_limit == of_the_call else time.monotonic()
        self._deadline = None if time_limit is None else start + time_limit
        self._grace = 0.0 if time_limit is None else _GRACE_SHARE * time_limit + _GRACE_SECONDS
        self._display: Display | None = display_for(progress, title, total) if progress else None
        self._interrupted = False
        self._old: Any = None

    def __enter__(self) -> Self:
        # A run in the background of a shell is started to go on after Ctrl-C: where that is ignored it stays so.
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN):
            self._old = before
            signal.signal(signal.SIGINT, self._interrupt)
            # Pressed between two searches of the same work.
            self._interrupted |= self._around is not None and self._around.interrupted
        if self._display is not None:
            self._display.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.end()
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
        if self._interrupted and isinstance(error, KofnError) and self._around is None:
            # There was nothing yet to return: no limit of time and no input is to blame.
            raise KeyboardInterrupt from error

    def interrupt(self) -> None:
        """Take on an interrupt that came during an earlier step of the same work, and so do those around this."""
        self._interrupted = True
        if self._around is not None:
            self._around.interrupt()

    @property
    def _around(self) -> Control | None:
        """The control of the work that this is a part of."""
        around = getattr(self._old, "__self__", None)
        return around if isinstance(around, Control) else None

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self.interrupt()

    def stopped(self) -> bool:
        """True once the work should stop."""
        return self._interrupted or (self._deadline is not None and time.monotonic() >= self._deadline)

    def check(self) -> None:
        """For work within a step.

        Raises:
            Stopped: the work should stop.
        """
        if self.stopped():
            raise Stopped

    def check_late(self) -> None:
        """The same for work without which no value is known, which the grace is for.

        Raises:
            Stopped: the grace has passed as well, or Ctrl-C was pressed.
        """
        if self._interrupted or self.late():
            raise Stopped

    @property
    def interrupted(self) -> bool:
        """True once Ctrl-C was pressed: the user wants what there is, not a completion of it."""
        return self._interrupted

    def left(self) -> float:
        """Seconds until the limit: infinite without one, none once the work was interrupted."""
        if self._interrupted:
            return 0.0
        return math.inf if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def late(self) -> bool:
        """True once the limit has passed by so much that even completing the answer must take no more time."""
        return self._deadline is not None and time.monotonic() >= self._deadline + self._grace

    def step(self, done: int) -> None:
        """Show that `done` of the total is done."""
        if self._display is not None:
            self._display.step(done)
