"""Command lines drawn from the commands' own flags, with plausible and hostile values on whole and damaged files.

Each must end in an exit code of the contract, without a traceback, with its inputs as they were, no half-written output
and in time. `make test-deep` draws many more, of other seeds.
"""

from __future__ import annotations

import io
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import attack
import click
import numpy as np
import polars as pl
import time_budget
from command_line import make_pool

import kofn.cli
from kofn.cli import app

CODES = {0, 1, 2, 3, 130}
SECONDS = 20
COMMANDS = ("select", "assign", "allocate", "combine", "find", "methods")
HOSTILE = (
    *(
        "",
        " ",
        "0",
        "-1",
        "nan",
        "inf",
        "1e400",
        "9" * 400,
        "1e-320",
        "\0",
        "é",
        "😀",
        "a\nb",
        "'",
        '"',
        "[",
        "{}",
        "--",
    ),
    *(
        ",",
        ",,",
        "=",
        "a=b",
        ":",
        "@",
        "@nothing.npy",
        "@x.npy",
        "/dev/null",
        "/",
        ".",
        "..",
        "None",
        "true",
        "[1,",
        "*",
    ),
    *(
        "x" * 300,
        "__import__('os')",
        "%s",
        "-k",
        "1,2,3",
        "1:2",
        "lang=de:1-2",
        "lang=de:9" + "9" * 30 + "-",
        "lang=:-",
    ),
)
PLAIN = ("1", "2", "3", "5", "0.5", "0.9", "auto", "20", "100", "1,2", ".5,.5")
WORDS = ("key", "body", "lang", "tokens", "age", "score", "emb", "tokens,age", "2,4,8", "layer", "model", "x,y", "row")
OUTPUTS = ("o.csv", "o.tsv", "o.jsonl", "o.parquet", "out", "o.safetensors", "o.html", "o.npz", "no/o.csv", "pool.csv")


def _files(rng: random.Random) -> None:
    """Real files, and copies of them with a few bytes changed, cut, doubled or put in."""
    from safetensors.numpy import save_file

    pool = make_pool(24)
    pool.write_parquet("pool.parquet")
    pool.write_ndjson("pool.jsonl")
    pool.drop("emb").write_csv("pool.csv")
    pool.drop("emb").write_csv("pool.tsv", separator="\t")
    X = np.random.default_rng(0).normal(size=(12, 4))
    np.save("x.npy", X)
    np.save("square.npy", np.abs(X @ X.T))
    np.savez("x.npz", v=X, score=X[:, 0])
    Path("curves.csv").write_text("layer,params,2,4,8\na,10,3,2,1\nb,20,5,1,0\n")
    Path("board.csv").write_text("model,x,y\na,3,1\nb,2,9\nc,2,2\n")
    Path("keys.txt").write_text("r001\nr002\n")
    Path("pairs.csv").write_text("a,b\n1,2\n3,4\n")
    Path("r.toml").write_text('members = ["a", "b"]\nmethod = "weighted_mean"\n')
    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full((2, 3), place, np.float32)}, f"{name}/model.safetensors")
    Path("empty.csv").touch()
    for path in [path for path in sorted(Path().iterdir()) if path.is_file()]:
        for i in range(2):
            damaged = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(damaged) + 1)
                change = rng.choice(["byte", "cut", "double", "put"])
                if change == "byte" and at < len(damaged):
                    damaged[at] = rng.randrange(256)
                elif change == "cut":
                    del damaged[at : at + rng.choice([1, 8, 10_000])]
                elif change == "double":
                    damaged[at:at] = damaged[max(0, at - 20) : at]
                else:
                    damaged[at:at] = rng.choice([b'"', b",", b"\n", b"\xff", b"\0", b"{", b"NA", "é".encode("utf-16")])
            Path(f"damaged{i}_{path.name}").write_bytes(damaged)


def _value(rng: random.Random, param: click.Option, names: list[str]) -> str:
    from kofn.core import dispatch

    kind = rng.random()
    if param.name == "method" and kind < 0.8:
        return rng.choice(
            sorted({name for verb in ("select", "assign", "allocate", "combine") for name in dispatch.methods_of(verb)})
        )
    if param.name in ("output", "report", "plan_path", "dropped") and kind < 0.9:
        return rng.choice(OUTPUTS)
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType) and kind < 0.7:
        return rng.choice(PLAIN[:8])
    if kind < 0.5:
        return rng.choice(WORDS)
    return rng.choice((*HOSTILE, *PLAIN, *WORDS, *names) if kind > 0.75 else (*names, *PLAIN))


def drawn(rng: random.Random, names: list[str]) -> list[str]:
    """A command line: half of them begin as one that works."""
    starts = (
        "select pool.csv --columns tokens,age -k 3", "select pool.jsonl --text body -k 3", "select x.npy -k 3",
        "select pool.parquet --vectors emb -k 3", "select pool.csv --score score -k 3", "select x.npz --vectors v -k 2",
        "assign x.npy -k 2", "assign pool.csv --columns age -k 2", "assign x.npy --scores --capacity 3",
        "allocate curves.csv --size params --mean-budget 4", "combine a b -o out", "combine board.csv --id model",
    )  # fmt: skip
    words = rng.choice(starts).split()
    if rng.random() < 0.25:
        words = [rng.choice(COMMANDS), *rng.sample(names, rng.choice([0, 1, 1, 1, 2]))]
    elif rng.random() < 0.4:
        words[1] = rng.choice([name for name in names if name.endswith(words[1].partition(".")[2])])
    command = app.get_command(click.Context(app), words[0])
    assert command is not None
    flags = [param for param in command.params if isinstance(param, click.Option)]
    for param in rng.choices(flags, k=rng.choice([0, 1, 1, 1, 2, 3])):
        flag = rng.choice([*param.opts, *param.secondary_opts])
        words += [flag] if param.is_flag else [flag, _value(rng, param, names)]
    return words


def _contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(words: list[str], inputs: dict[str, bytes]) -> str | None:
    """What is wrong with how this command line ended; None if nothing is. The folder is as it was afterwards."""
    try:
        return _fault(words, inputs)
    finally:
        for name, content in _contents().items():
            if name not in inputs:
                os.unlink(name)
            elif content != inputs[name]:
                Path(name).write_bytes(inputs[name])


def _fault(words: list[str], inputs: dict[str, bytes]) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    try:
        with _alarm(), redirect_stdout(out), redirect_stderr(err):
            code = kofn.cli._run(words)
    except BaseException:  # a panic of a reader is none of the usual kinds
        return traceback.format_exc()
    found = _contents()
    # A file that is named only as an output, once, may be written over.
    changed = [name for name, content in inputs.items() if found.get(name) != content and words.count(name) != 1]
    made = [Path(name) for name in found if name not in inputs]
    if code not in CODES or "Traceback" in err.getvalue() or "panicked" in err.getvalue():
        return f"exit code {code}: {err.getvalue()}"
    if code in (1, 2) and not err.getvalue().startswith("kofn: ") and words:
        return f"exit code {code} in other words: {err.getvalue()!r}"
    if changed:
        return f"changed {changed}"
    if hidden := [path for path in made if path.name.startswith(".")]:
        return f"left {hidden}"
    readers: dict[str, Callable[[Path], object]] = {
        ".csv": pl.read_csv, ".tsv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet,
    }  # fmt: skip
    for path in made:
        if path.parent == Path() and path.suffix in readers and path.stat().st_size and "--plan" not in words:
            readers[path.suffix](path)
    return None


def run_many(count: int, seed: int) -> list[str]:
    """The faults of this many command lines."""
    _files(random.Random(seed))
    inputs = _contents()
    names = sorted({*(name for name in inputs if "/" not in name), "a", "b", "nothing.csv"})
    faults = []
    for number in range(count):
        words = drawn(random.Random(f"{seed} {number}"), names)
        began = time.monotonic()
        found = fault(words, inputs)
        if found is not None:
            faults.append(f"{seed} {number} ({time.monotonic() - began:.1f} s): kofn {words}\n{found}")
    return faults


def test_drawn_command_lines_end_as_they_should(folder: Path) -> None:
    count, seed = attack.scaled(10_000, 200), time_budget.DEEP_SEED if time_budget.DEEP else time_budget.DAY
    faults = run_many(count, seed)
    attack.count("command lines", count)
    attack.count("tracebacks of commands", len(faults))
    assert not faults, f"{len(faults)} of {count} command lines\n" + "\n".join(faults[:5])


def test_the_drawing_reaches_working_commands(folder: Path) -> None:
    """The fuzz would pass where every line is refused."""
    _files(random.Random(0))
    names = sorted(path.name for path in Path().iterdir())
    ends = []
    for number in range(60):
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ends.append(kofn.cli._run(drawn(random.Random(number), names)))
    assert ends.count(0) >= 6
    assert ends.count(2) >= 6
