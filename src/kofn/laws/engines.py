"""Engines that a method must not notice: one finishes tasks in a random order and fails each of them once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kofn.engines.base import Work, task


class Shuffled:
    """Runs a few tasks at a time in a random order; each is lost once after it was done, and done again.

    Args:
        seed: of the order.
        workers: half of how many tasks are under way at a time.
    """

    name = "shuffled"

    def __init__(self, seed: int = 0, workers: int = 2) -> None:
        self._rng, self._workers = np.random.default_rng(seed), workers
        self.tasks = self.retries = 0

    @property
    def workers(self) -> int:
        return self._workers

    def share(self, value: Any) -> Any:
        return value

    def map(
        self, work: Work, items: Iterable[Any], *, shared: Sequence[Any] = (), stopped: Callable[[], bool] | None = None
    ) -> Iterator[Any]:
        left = iter(items)
        while under_way := list(itertools.islice(left, 2 * self._workers)):
            results: dict[int, Any] = {}
            for position in self._rng.permutation(len(under_way)).tolist():
                with task(stopped):
                    # What the first attempt gave is lost with its worker.
                    work(under_way[position], *shared)
                    results[position] = work(under_way[position], *shared)
                self.tasks, self.retries = self.tasks + 1, self.retries + 1
            yield from (results[position] for position in range(len(under_way)))

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "workers": self.workers, "tasks": self.tasks, "retries": self.retries}

    def close(self) -> None:
        return
