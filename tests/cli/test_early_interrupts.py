"""An interrupt while a command imports its modules is raised after the import, and ends in one line with exit code 130.

The child sends itself the signal in the middle of an import that it makes, so that no clock decides what is tested.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import refused

from kofn import cli
from kofn._interrupts import handled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if sys.platform != "win32" else []

# The signal comes while the module of this name is sought by an import.
CHILD = """
import os, sys
number, name = int(sys.argv[1]), sys.argv[2]
def watch(event, arguments):
    global name
    if event == "import" and arguments[0] == name:
        name = ""
        os.kill(os.getpid(), number)
sys.addaudithook(watch)
sys.argv[1:] = sys.argv[3:]
from kofn.__main__ import main
main()
"""


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A shell leaves Ctrl-C ignored in what it runs in the background, and the command then ignores it too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("module", "number"),
    [*(("polars", number) for number in SIGNALS), *((name, signal.SIGINT) for name in ("click", "polars._reexport"))],
)
def test_an_interrupt_waits_for_the_imports(folder: Path, module: str, number: int) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(400, 3)))
    typed = ("select", "x.npy", "-k", "30", "-m", "naive_greedy", "-o", "o.csv", "--report", "o.html")
    child = [sys.executable, "-c", CHILD, str(int(number)), module, *typed]
    run = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 130, run.stderr
    assert run.stderr.lstrip() == "kofn: interrupted; no output was written\n"
    assert os.listdir() == ["x.npy"]


@pytest.mark.parametrize("error", [AttributeError("half a module"), OSError(5, "x"), SystemError("in C")])
def test_what_an_interrupt_broke_counts_as_the_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error

    monkeypatch.setattr(cli.app, "main", broken)
    assert refused(capsys, "methods", code=130) == "kofn: interrupted; no output was written\n"


def test_ignored_signals_stay_ignored_and_handlers_come_back() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with handled() as outer, handled() as inner:
            assert outer is inner
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert {number: signal.getsignal(number) for number in SIGNALS} == before
    finally:
        signal.signal(signal.SIGHUP, old)


# What the command `kofn` does with its arguments, Ctrl-C coming while a module is sought that the package imports.
AS_A_COMMAND = """
import os, sys
name = sys.argv[1]
def watch(event, arguments):
    global name
    if event == "import" and arguments[0] == name:
        name = ""
        os.kill(os.getpid(), 2)
sys.addaudithook(watch)
sys.argv = [sys.argv[2], "methods"]
from kofn.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typing", "kofn._version", "kofn.core.lazy", "kofn.core.old_paths", "threading"])
def test_an_interrupt_of_the_first_imports_ends_the_command_in_one_line(module: str) -> None:
    child = [sys.executable, "-S", "-c", AS_A_COMMAND.replace("import os, sys\n", _paths()), module, "/bin/kofn"]
    run = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "kofn: interrupted; no output was written\n")


def test_an_interrupt_of_the_first_imports_of_the_library_is_raised() -> None:
    child = [sys.executable, "-S", "-c", AS_A_COMMAND.replace("import os, sys\n", _paths()), "kofn._version", "mine.py"]
    run = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != 130
    assert "KeyboardInterrupt" in run.stderr


def _paths() -> str:
    """Python's first line of the child, which loads nothing that the command does not."""
    return f"import os, sys\nsys.path[:0] = {[path for path in sys.path if path]!r}\n"


def test_an_interrupt_waits_for_a_finaliser() -> None:
    """What a finaliser raises is printed and lost."""
    script = """
import os, signal, time
from kofn._interrupts import handled
class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        print("let go")
try:
    with handled():
        held = Held()
        del held
        time.sleep(5)
        print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["let go", "interrupted"], "")
