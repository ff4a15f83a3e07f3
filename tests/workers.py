"""What is done before the tests start: workers get a thread each, code is compiled once, garbage is left alone."""

from __future__ import annotations

import compileall
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
from _pytest.assertion import rewrite

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
# A thread a core in each worker would mostly wait for the others'. Laws that any number of threads keeps say theirs:
# `law_runs.keeps_laws_at_size`.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def prepare(config: pytest.Config) -> None:
    """Prepare for the workers of this run, where there are any."""
    workers = config.getoption("numprocesses", None)
    if workers and not hasattr(config, "workerinput"):
        # What the user has set stays.
        os.environ.update(ONE_THREAD | os.environ)
        _compile(workers)


def draw_the_same() -> None:
    """Keep Hypothesis from drawing constants that it finds in the source of whatever modules happen to be loaded.

    A seed would then draw other calls in each worker, and after each change of the code; reading the source takes
    seconds. It has no setting for that.
    """
    try:
        from hypothesis.internal.conjecture import providers
    except ImportError:
        return  # releases before 6.125 take nothing from the source
    if hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = lambda: providers._local_constants


# Objects made between two looks of the garbage collector; Python's own 700 cost the tests a twelfth of their time.
_OBJECTS_BETWEEN_LOOKS = 20_000


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at a million objects of collected tests again and again."""
    draw_the_same()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, *gc.get_threshold()[1:])


def _compile(workers: int) -> None:
    """Compile stale files side by side; each worker would compile them all."""
    reading = Thread(target=_read_once)
    reading.start()
    # The largest take longest, and one of them is what others inline.
    files = sorted(filter(_stale, SOURCE.rglob("*kernels.py")), key=lambda path: -path.stat().st_size)
    modules = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in files]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(_import, modules))
    reading.join()


def _read_once() -> None:
    """Keep Python's own form of every file, which each worker would make anew.

    Asserts of the tests are rewritten, as pytest does on import; it has no public name for that.
    """
    if sys.dont_write_bytecode:
        return
    compileall.compile_dir(SOURCE, quiet=2)
    for path in sorted(TESTS.rglob("test_*.py")):
        kept = rewrite.get_cache_dir(path) / (path.stem + rewrite.PYC_TAIL)
        if not kept.exists() or kept.stat().st_mtime < path.stat().st_mtime:
            status, code = rewrite._rewrite_test(path, None)
            kept.parent.mkdir(exist_ok=True)
            rewrite._write_pyc(None, code, status, kept)


def _stale(path: Path) -> bool:
    """Whether no compiled form of this file is on disk, or only an older one."""
    made = [kept.stat().st_mtime for kept in (path.parent / "__pycache__").glob(f"{path.stem}.*.nbi")]
    return "njit(" in path.read_text(encoding="utf-8") and min(made, default=0.0) < path.stat().st_mtime


def _import(module: str) -> None:
    # A fault in a file is for the tests of that file to show.
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=SOURCE, capture_output=True, check=False)
