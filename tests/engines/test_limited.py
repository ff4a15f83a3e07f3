"""`n_threads` limits all of a call: our loops, linear algebra, and methods that have no threads of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import kofn
from kofn.core import dispatch
from kofn.engines.threads import cores, limited

X = np.random.default_rng(0).normal(size=(40, 3))


def _threads() -> int:
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def test_a_limit_holds_inside_and_not_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    before = _threads()
    with limited(1):
        assert (cores(), _threads()) == (1, 1)
        with limited(None):
            assert cores() == 1
        with limited(3):
            assert cores() == 3
        assert cores(2) == 2
        assert (cores(), _threads()) == (1, 1)
    assert (cores(), _threads()) == (4, before)


def test_a_limit_is_kept_after_a_failure() -> None:
    with pytest.raises(ValueError, match="broken"), limited(1):
        raise ValueError("broken")
    assert cores() == cores(len(os.sched_getaffinity(0)))


def test_every_method_keeps_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    seen: list[tuple[int, int]] = []

    def watching(X: Any, k: int, n_threads: int | None = None) -> list[int]:
        seen.append((cores(), _threads()))
        return list(range(k))

    kofn.select(X, k=2, method=watching, n_threads=1)
    assert seen == [(1, 1)]
    run = dispatch.execute

    def watched(*arguments: Any, **words: Any) -> Any:
        seen.append((cores(), _threads()))
        return run(*arguments, **words)

    monkeypatch.setattr(dispatch, "execute", watched)
    kofn.select(scores=[1.0, 2.0], k=1, method="top_k", n_threads=1)
    kofn.select(scores=[1.0, 2.0], k=1, method="top_k")
    assert seen[1] == (1, 1)
    assert seen[2][0] == 4


_LATER = """
from threadpoolctl import threadpool_info
from kofn.engines.threads import linear_algebra
import numpy
with linear_algebra(1):
    before = len(threadpool_info())
import scipy.linalg
with linear_algebra(1):
    pools = threadpool_info()
assert len(pools) > before, pools
assert all(pool["num_threads"] == 1 for pool in pools), pools
"""


def test_libraries_that_are_loaded_later_are_limited_too() -> None:
    environment = {**os.environ, **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "3")}
    assert subprocess.run([sys.executable, "-c", _LATER], env=environment, check=False).returncode == 0
