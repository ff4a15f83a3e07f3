"""Blocks of work over local threads, for kernels that release the interpreter lock."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_most: ContextVar[int | None] = ContextVar("threads of the running call", default=None)


@contextmanager
def limited(n_threads: int | None) -> Iterator[None]:
    """Inside, nothing runs on more threads: neither our loops nor linear algebra, which has threads of its own."""
    if n_threads is None:
        yield
        return
    before = _most.set(n_threads)
    try:
        # More threads than cores would only make linear algebra wait.
        if n_threads < _available():
            with linear_algebra(n_threads):
                yield
        else:
            yield
    finally:
        _most.reset(before)


def linear_algebra(n_threads: int, kind: str | None = None) -> AbstractContextManager[Any]:
    """Inside, libraries of linear algebra and OpenMP run on no more threads.

    Args:
        n_threads: how many.
        kind: "blas" for linear algebra alone, None for all.
    """
    return _libraries(len(sys.modules)).limit(limits=n_threads, user_api=kind)


@functools.lru_cache(maxsize=1)
def _libraries(_modules: int) -> ThreadpoolController:
    """The libraries that are loaded: found anew once Python has imported more, since looking takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, our loops take one thread. Linear algebra keeps its own, which belong to the whole process."""
    before = _most.set(1)
    try:
        yield
    finally:
        _most.reset(before)


def cores(n_threads: int | None = None) -> int:
    """The number of threads to use: `n_threads`, by default what the call is limited to, else all available cores."""
    if n_threads is None:
        n_threads = _most.get()
    return _available() if n_threads is None else max(1, n_threads)


def _available() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="kofn")


# A forked child inherits the pool but none of its threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(work: Callable[[int, int], None], n_blocks: int, n_threads: int, shares: int = 1) -> None:
    """Run `work(low, high)` over the blocks 0..n_blocks-1, cut into `shares` ranges a thread.

    Blocks must not share output, so that the cut changes nothing but the time. The calling thread takes its part, and
    one thread means no pool at all. Between two ranges it takes Ctrl-C, after which no further one begins.
    """
    parts = min(n_blocks, n_threads * shares)
    if parts <= 1:
        work(0, n_blocks)
        return
    ranges = list(itertools.pairwise(n_blocks * part // parts for part in range(parts + 1)))
    if n_threads == 1:
        for low, high in ranges:
            work(low, high)
        return
    pending = [_pool(n_threads - 1).submit(work, low, high) for low, high in ranges[:-1]]
    try:
        work(*ranges[-1])
        # This thread does the ranges that no worker has begun, last first.
        for future, (low, high) in zip(reversed(pending), reversed(ranges[:-1]), strict=True):
            if future.cancel():
                work(low, high)
        for future in pending:
            if not future.cancelled():
                future.result()
    except BaseException:
        for future in pending:
            future.cancel()
        raise
