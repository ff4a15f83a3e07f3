"""Seeds that derive from one, and the same work for each of them over a few processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_MOST_PROCESSES = 4


def derive(seed: int, count: int, *, stream: int = 0) -> list[int]:
    """`count` seeds that derive from one; streams of the same seed share none."""
    return [int(word) for word in np.random.SeedSequence([seed, stream]).generate_state(count, np.uint32)]


def spread(work: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """`[work(item) for item in items]` over a few processes; `work` is a function of a module, or a partial of one.

    Each item brings its own seed and runs on one BLAS thread, so that the answers do not depend on how many there are.
    """
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    return list(_pool().map(work, items))


@functools.cache
def _pool() -> ProcessPoolExecutor:
    count = min(_MOST_PROCESSES, os.cpu_count() or 1)
    # Forking a process whose BLAS or OpenMP threads have run can hang it.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    import scipy.linalg  # noqa: F401  loads the BLAS that the limit is for
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
