"""A command that is killed while it writes leaves the old output or the new one, whole; the next run is as the first.

The signal comes at one of the child's own calls that create, rename or remove a file, or a moment after it. A few of
them are tried each day; `make test-deep` tries a hundred.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import attack
import numpy as np
import pytest
import time_budget
from command_line import make_pool

from kofn.core.plans import Plan

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

# Arguments: at which call, which signal, how many seconds after it; then the command line.
CHILD = """
import os, signal, sys, threading
at, number, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
here, seen, running = os.getcwd() + os.sep, 0, True

def strike():
    os.kill(os.getpid(), number)

def watch(event, arguments):
    global seen
    if event == "open":
        if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
        return
    if isinstance(arguments[0], int) or not os.path.abspath(os.fsdecode(arguments[0])).startswith(here):
        return
    seen += 1
    if seen == at and delay:
        timer = threading.Timer(delay, lambda: running and strike())
        timer.daemon = True
        timer.start()
    elif seen == at:
        strike()

sys.addaudithook(watch)
from kofn.cli import main
try:
    main(sys.argv[4:])
finally:
    running = False
    if not at:
        sys.stderr.write(f"\\ncalls {seen}")
"""


@dataclass(frozen=True)
class Job:
    """A command line, and the files or folders that it writes."""

    words: tuple[str, ...]
    outputs: tuple[str, ...]


SELECT = ("select", "pool.csv", "--columns", "tokens,age", "-k", "5")
JOBS = (
    Job((*SELECT, "-o", "o.csv", "--plan", "o.npz", "--report", "o.html"), ("o.csv", "o.npz", "o.html")),
    Job((*SELECT, "-o", "o.parquet"), ("o.parquet",)),
    Job((*SELECT, "--dedupe", "0.9", "-o", "o.jsonl", "--dropped", "d.csv"), ("o.jsonl", "d.csv")),
    Job(("assign", "pool.csv", "--columns", "age", "--k", "3", "--seed", "0", "-o", "o.tsv"), ("o.tsv",)),
    Job(("allocate", "curves.csv", "--id", "layer", "--budget", "4", "-o", "o.csv"), ("o.csv",)),
    Job(("combine", "a", "b", "-o", "m", "--force"), ("m",)),
    Job(
        ("combine", "a/model.safetensors", "b/model.safetensors", "-o", "m.safetensors", "--force"), ("m.safetensors",)
    ),
    Job(
        ("combine", "a", "b", "--base", "a", "-m", "ties", "-o", "m", "--force", "--report", "o.html"), ("m", "o.html")
    ),
)
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
# What a run that was stopped, or had ended before, may exit with.
CODES = {0, 3, 130}


def _inputs() -> None:
    from safetensors.numpy import save_file

    make_pool(40).drop("emb").write_csv("pool.csv")
    Path("curves.csv").write_text("layer,2,4,8\na,3,2,1\nb,5,1,0\n")
    for place, name in enumerate("ab"):
        Path(name).mkdir()
        rng = np.random.default_rng(place)
        save_file({f"w{i}": rng.normal(size=(64, 32)) for i in range(6)}, f"{name}/model.safetensors")


def _contents(names: tuple[str, ...] | None = None) -> dict[str, bytes]:
    """The bytes of these files and of all files in these folders; of everything where none is named."""
    roots = [Path()] if names is None else [Path(name) for name in names]
    files = [path for root in roots for path in (root.rglob("*") if root.is_dir() else (root,)) if path.is_file()]
    return {str(path): path.read_bytes() for path in sorted(files)}


def _run(job: Job, at: int, number: int, delay: float) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", CHILD, str(at), str(int(number)), str(delay), *job.words]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def _whole(name: str, old: dict[str, bytes], new: dict[str, bytes]) -> bool:
    """Whether an output is the old or the new one; pages and plans hold the seconds that the run took."""
    now = _contents((name,))
    if now in (old, new):
        return True
    if name.endswith(".html"):
        return now.keys() == new.keys() and now[name].rstrip().endswith(b"</html>")
    if name.endswith(".npz") and now:
        return bool(Plan.load(name).method)
    return False


@pytest.mark.parametrize("turn", range(attack.scaled(100, 2)))
def test_a_killed_command_leaves_whole_files(turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(f"{time_budget.DEEP_SEED or time_budget.DAY} {turn}")
    job, number = rng.choice(JOBS), rng.choice(SIGNALS)
    _inputs()
    inputs = _contents()
    first = _run(job, 0, signal.SIGKILL, 0)
    assert first.returncode == 0, first.stderr
    calls = int(first.stderr.rpartition("calls ")[2])
    new = {name: _contents((name,)) for name in job.outputs}
    assert calls >= 2
    assert all(new.values())
    old: dict[str, dict[str, bytes]] = {name: {} for name in job.outputs}
    if rng.random() < 0.5:
        # Something stands there already: for a table an older one, for a blend an older blend.
        for name in job.outputs:
            if Path(name).is_file() and not name.endswith(".safetensors"):
                Path(name).write_text("older\n")
            old[name] = _contents((name,))
    else:
        for name in job.outputs:
            for path in new[name]:
                os.unlink(path)
            if Path(name).is_dir():
                Path(name).rmdir()
    told = f"{job.words} after call {(at := rng.randint(1, calls))} of {calls} by {signal.Signals(number).name}"
    with attack.counted("kills"):
        killed = _run(job, at, number, rng.choice([0, 0, 0.001, 0.01]))
        assert "Traceback" not in killed.stderr, f"{told}: {killed.stderr}"
        assert killed.returncode in ({-signal.SIGKILL, 0} if number == signal.SIGKILL else CODES), f"{told}: {killed}"
        now = _contents()
        assert {name: now.get(name) for name in inputs} == inputs, f"{told}: an input changed"
        for name in job.outputs:
            assert _whole(name, old[name], new[name]), f"{told}: {name} is neither the old nor the new one"
        again = _run(job, 0, signal.SIGKILL, 0)
        assert again.returncode == 0, f"{told}, then {again.stderr}"
        for name in job.outputs:
            if not name.endswith((".html", ".npz")):
                assert _contents((name,)) == new[name], f"{told}: the next run's {name} is another"
        hidden = [path for path in Path().rglob(".*") if path.name != "."]
        assert not hidden, f"{told}: the next run left {hidden}"
