"""Where tasks run: the interface that methods for pools are written against, and what a task may ask.

A task is `work(item, *shared)`: `work` is a function of a module, pure, whose random numbers come from the item alone.
Results come in the order of the items, so that what is made of them does not depend on who finished first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from kofn.engines.threads import alone, linear_algebra

Work = Callable[..., Any]

_asked: ContextVar[Callable[[], bool] | None] = ContextVar("whether the running task should stop", default=None)


@runtime_checkable
class Engine(Protocol):
    """Runs tasks and gives their results in order.

    Attributes:
        name: "local", "ray", ...
        workers: how many tasks run at a time.
    """

    name: str

    @property
    def workers(self) -> int: ...

    def share(self, value: Any) -> Any:
        """A handle of a value that many tasks read; it is sent to each node once."""

    def map(
        self, work: Work, items: Iterable[Any], *, shared: Sequence[Any] = (), stopped: Callable[[], bool] | None = None
    ) -> Iterator[Any]:
        """`work(item, *shared)` of every item, in their order, with no more than a few tasks under way at a time.

        Args:
            work: a pure function that a module defines.
            items: small values that can be pickled.
            shared: handles of `share`, or values; the task gets the values.
            stopped: asked between results; once it is true, the results end early.
        """

    def facts(self) -> dict[str, Any]:
        """What the plan's `info["engine"]` says: name, workers, tasks, retries."""

    def close(self) -> None:
        """Give back what the engine started; what the user started goes on."""


def stopping() -> bool:
    """Whether the running task should stop and give what it has; asked between steps of less than a second."""
    asked = _asked.get()
    return asked is not None and asked()


@contextmanager
def task(stopped: Callable[[], bool] | None = None) -> Iterator[None]:
    """Inside, a task runs: on one thread, since the engine fills the cores with tasks, and asking `stopped`."""
    before = _asked.set(stopped)
    try:
        with alone():
            yield
    finally:
        _asked.reset(before)


@contextmanager
def task_of_process() -> Iterator[None]:
    """Inside, a task runs in a process that the engine started: linear algebra takes one thread there too."""
    with linear_algebra(1), task():
        yield
