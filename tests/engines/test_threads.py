"""Blocks over threads: each once, errors seen, the same for any number."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kofn.core.digests import digest
from kofn.engines.threads import cores, spread


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("shares", [1, 4])
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 7, 100])
def test_every_block_is_done_once(n_blocks, n_threads, shares):
    done = np.zeros(n_blocks, int)

    def work(low, high):
        done[low:high] += 1

    spread(work, n_blocks, n_threads, shares)
    assert (done == 1).all()


@pytest.mark.parametrize("bad", [0, 3, 9])
def test_an_error_in_any_block_is_raised(bad):
    def work(low, high):
        if low <= bad < high:
            raise ValueError("block")

    with pytest.raises(ValueError, match="block"):
        spread(work, 10, 3, 2)


def test_one_thread_takes_ranges_too():
    ranges = []
    spread(lambda low, high: ranges.append((low, high)), 60, 1, 20)
    assert ranges == [(low, low + 3) for low in range(0, 60, 3)]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_no_range_begins_after_an_interrupt(n_threads):
    begun = []
    raised = threading.Event()

    def work(low, high):
        begun.append(low)
        if threading.current_thread() is threading.main_thread():
            raised.set()
            raise KeyboardInterrupt
        # A worker's first range is under way by then.
        raised.wait(10)

    with pytest.raises(KeyboardInterrupt):
        spread(work, 60, n_threads, 20)
    time.sleep(0.05)
    assert len(begun) <= 2 * n_threads


def test_default_is_the_cores_this_process_may_use():
    assert cores(3) == 3
    assert 1 <= cores() <= (os.cpu_count() or 1)


_FORK = """
import os
import subprocess
import sys
from kofn.engines.threads import spread
spread(lambda low, high: None, 4, 2)
child = os.fork()
if child == 0:
    done = []
    spread(lambda low, high: done.append((low, high)), 8, 2, 2)
    os._exit(0 if len(done) == 4 else 1)
raise SystemExit(os.waitpid(child, 0)[1] != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    # In a process of its own: a fork of the tests' process also copies locks that threads of other libraries hold.
    assert subprocess.run([sys.executable, "-c", _FORK], timeout=120, check=False).returncode == 0


def test_digest_of_a_large_array_is_the_same_for_any_number_of_threads() -> None:
    X = np.arange(2**23 + 5, dtype=np.float64)
    told = {digest({"X": X, "n_threads": threads}) for threads in (1, 2, 3, None)}
    assert len(told) == 1
    # A change in any part counts, and so does the shape.
    for at in (0, 2**22, len(X) - 1):
        other = X.copy()
        other[at] += 1
        assert digest({"X": other}) not in told
    assert digest({"X": X[:, None]}) not in told
