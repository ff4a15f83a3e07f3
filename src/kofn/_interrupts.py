"""Ctrl-C, SIGTERM and SIGHUP while a command runs, from its first import on."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# How long an interrupt waits for the imports that are under way: it looks again after so many seconds, so many times.
_PAUSE, _MOST_PAUSES = 0.02, 500
_ENDING = ("SIGTERM", "SIGHUP")


class Interrupts:
    """The interrupts of one command; `received` once there was one that raised.

    A module whose import is interrupted is neither loaded nor unloaded, and whoever asks for it next fails in its own
    words. What a finaliser raises is printed and lost. So an interrupt that comes during either is raised after it.
    """

    def __init__(self) -> None:
        self.received = False
        self._waits = False
        self._pauses = 0

    def interrupt(self, _number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, after the imports and finalisers that are under way."""
        if not _must_end_first(frame) or self._pauses >= _MOST_PAUSES:
            self._waits, self.received = False, True
            raise KeyboardInterrupt
        self._pauses += 1
        self._waits = True
        # Not `threading.Thread`, whose locks the interrupted code may hold.
        _thread.start_new_thread(self._again, ())

    def end(self, _number: int, frame: FrameType | None) -> None:
        """Do as Ctrl-C does, whoever handles that at the time, also where Ctrl-C itself is ignored."""
        current = signal.getsignal(signal.SIGINT)
        (current if callable(current) else self.interrupt)(signal.SIGINT, frame)

    def settle(self) -> None:
        """Raise at once what waits, where the imports are known to be done."""
        if self._waits:
            self._waits, self.received = False, True
            raise KeyboardInterrupt

    def drop(self) -> None:
        """Forget what waits."""
        self._waits = False

    def _again(self) -> None:
        time.sleep(_PAUSE)
        if self._waits:
            _thread.interrupt_main()


def _must_end_first(frame: FrameType | None) -> bool:
    """Whether the code that runs was called by an import or by a finaliser."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>" or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


# Of the command that runs, where one does.
_current: list[Interrupts] = []


def settle() -> None:
    """Raise the interrupt that waits for imports, if there is one: they are done."""
    for interrupts in _current:
        interrupts.settle()


@contextmanager
def handled() -> Iterator[Interrupts]:
    """Within it the three signals interrupt the command; what is ignored stays so (nohup). One within another is one.

    Only the main thread can handle signals; in others nothing changes.
    """
    if _current or threading.current_thread() is not threading.main_thread():
        yield _current[0] if _current else Interrupts()
        return
    interrupts = Interrupts()
    handlers = {"SIGINT": interrupts.interrupt, **dict.fromkeys(_ENDING, interrupts.end)}
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: old for number in numbers if (old := signal.getsignal(number)) not in (None, signal.SIG_IGN)}
    _current.append(interrupts)
    try:
        for number in before:
            signal.signal(number, numbers[number])
        yield interrupts
    finally:
        interrupts.drop()
        for number, old in before.items():
            signal.signal(number, old)
        _current.clear()
