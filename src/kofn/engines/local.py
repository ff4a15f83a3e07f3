"""Tasks on threads or processes of this machine."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from kofn.engines.base import Work, task, task_of_process
from kofn.engines.threads import cores

# What the tasks of a worker process share.
_shared: tuple[Any, ...] = ()


class Local:
    """Tasks on this machine.

    Args:
        workers: how many run at a time, default all cores (or what the running call is limited to).
        processes: True runs them in processes of their own, for work that holds the interpreter lock; kofn's kernels
            release it, so threads are the default.

    Examples:
        >>> list(Local(2).map(pow, [3, 4], shared=(2,)))
        [9, 16]
    """

    name = "local"

    def __init__(self, workers: int | None = None, *, processes: bool = False) -> None:
        self._workers, self.processes = workers, processes
        self.tasks = 0

    @property
    def workers(self) -> int:
        return cores(self._workers)

    def share(self, value: Any) -> Any:
        return value

    def map(
        self, work: Work, items: Iterable[Any], *, shared: Sequence[Any] = (), stopped: Callable[[], bool] | None = None
    ) -> Iterator[Any]:
        if self.workers == 1 and not self.processes:
            yield from self._in_turn(work, items, shared, stopped)
            return
        with self._pool(tuple(shared)) as pool:
            pending: deque[Future[Any]] = deque()
            try:
                for item in items:
                    if stopped is not None and stopped():
                        break
                    self.tasks += 1
                    pending.append(self._submit(pool, work, item, shared, stopped))
                    if len(pending) >= 2 * self.workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _in_turn(
        self, work: Work, items: Iterable[Any], shared: Sequence[Any], stopped: Callable[[], bool] | None
    ) -> Iterator[Any]:
        for item in items:
            if stopped is not None and stopped():
                return
            self.tasks += 1
            yield _run(work, item, shared, stopped)

    def _pool(self, shared: tuple[Any, ...]) -> contextlib.AbstractContextManager[Executor]:
        if not self.processes:
            return ThreadPoolExecutor(self.workers, thread_name_prefix="kofn task")
        import multiprocessing

        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=_keep, initargs=(shared,))

    def _submit(
        self, pool: Any, work: Work, item: Any, shared: Sequence[Any], stopped: Callable[[], bool] | None
    ) -> Future[Any]:
        submitted: Future[Any] = (
            pool.submit(_run_kept, work, item) if self.processes else pool.submit(_run, work, item, shared, stopped)
        )
        return submitted

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "workers": self.workers, "tasks": self.tasks, "retries": 0}

    def close(self) -> None:
        return


def _run(work: Work, item: Any, shared: Sequence[Any], stopped: Callable[[], bool] | None) -> Any:
    with task(stopped):
        return work(item, *shared)


def _keep(shared: tuple[Any, ...]) -> None:
    global _shared
    _shared = shared


def _run_kept(work: Work, item: Any) -> Any:
    with task_of_process():
        return work(item, *_shared)
