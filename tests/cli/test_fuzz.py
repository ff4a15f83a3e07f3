"""Command lines drawn from the commands' own flags, with plausible and hostile values on whole and damaged files.

Each must end in an exit code of the contract, without a traceback, with its inputs as they were, no half-written output
and in time. `make test-deep` draws many more, of other seeds.
"""

from __future__ import annotations

import functools
import gzip
import io
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import attack
import click
import numpy as np
import polars as pl
import pytest
import time_budget
from command_line import make_pool
from scipy import sparse

import kofn.cli
from kofn.cli import app

CODES = {0, 1, 2, 3, 130}
# Of the processor, and in all.
SECONDS, WAITING = 20, 200
COMMANDS = ("select", "assign", "allocate", "combine", "compare", "find", "methods")
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
# Values that fit one flag alone.
FITTING: dict[str, tuple[str, ...]] = {
    "quotas": ("lang=de:1-3", "lang=de:20%-", "lang=en:-1", "lang=fr:2", "part=de:0-1", "lang=xx:1-"),
    "each": ("lang=1", "lang=2", "part=1", "key=1", "lang=0"),
    "proportional": ("lang", "part", "key", "age"),
    "metric": ("cosine", "euclidean", "sqeuclidean", "rbf", "precomputed", "manhattan"),
    "impute": ("median", "mean", "most_frequent", "zero"),
    "na": ("NA", "-", "NA,-,?", "0", "-999"),
    "decimal": (",", ".", ";"),
    "delimiter": (";", "tab", "|", ",", "\t", "ab"),
    "encoding": (
        "latin-1",
        "utf-16",
        "cp1252",
        "utf-8-sig",
        "rot13",
        "base64",
        "idna",
        "klingon",
        "utf-32",
        "punycode",
    ),
    "queries": ("red car", "queries.txt", "pool.csv", "x.npy", "zebra", "@x.npy"),
    "private": ("pool.csv", "pool.parquet", "x.npy", "@x.npy"),
    "model": ("none", "GaussianNB", "logistic_regression", "ridge", "dummy", "DecisionTreeClassifier"),
    "embedder": ("tfidf", "minilm", "nothing", "./a", "x.onnx"),
    "label_column": ("part", "lang", "key", "age"),
    "id_column": ("key", "body", "age", "row"),
    "categories": ("lang", "tokens", "lang,tokens", "age"),
    "columns": ("tokens,age", "lang,part", "tokens,lang", "part", "emb", "body", "a b"),
    "objective": ("facility_location", "graph_cut", "coverage", "modular", "log_determinant", "saturated_coverage"),
    "start": ("plan.npz", "keys.txt", "r001,r002", "0,1", "pool.csv"),
    "include": ("r001", "keys.txt", "0,1", "r001,r001"),
    "exclude": ("r001", "keys.txt", "0,1", "pool.csv"),
    "dedupe": ("0.5", "90%", "1", "0", "101%"),
    "method": ("typiclust", "top_k", "random_sample", "farthest_first", "lazy_greedy", "uncertainty_herding"),
    "must_link": ("pairs.csv", "keys.txt", "pool.csv"),
    "cannot_link": ("pairs.csv", "curves.csv"),
}
OUTPUTS = ("o.csv", "o.tsv", "o.jsonl", "o.parquet", "out", "o.safetensors", "o.html", "o.npz", "no/o.csv", "pool.csv")


def _files(rng: random.Random) -> None:
    """Real files, and copies of them with a few bytes changed, cut, doubled or put in."""
    from safetensors.numpy import save_file

    pool = make_pool(24)
    some = pl.Series("part", [None if i % 3 else lang for i, lang in enumerate(pool["lang"])], dtype=pl.String)
    pool = pool.with_columns(some)
    pool.write_parquet("pool.parquet")
    pool.write_ndjson("pool.jsonl")
    flat = pool.drop("emb")
    flat.write_csv("pool.csv")
    flat.write_csv("pool.tsv", separator="\t")
    _dialects(pool, flat)
    X = np.random.default_rng(0).normal(size=(12, 4))
    np.save("x.npy", X)
    np.save("square.npy", np.abs(X @ X.T))
    np.savez("x.npz", v=X, score=X[:, 0])
    np.save("half.npy", X.astype(np.float16))
    np.save("whole.npy", np.arange(12) + 2**60)
    np.save("words.npy", np.array(["red car", "blue bus"]))
    sparse.save_npz("sparse.npz", sparse.csr_matrix(np.maximum(X, 0)))
    Path("queries.txt").write_text("red car\nblue bus\n")
    with redirect_stdout(io.StringIO()):
        kofn.cli._run(["select", "pool.csv", "--columns", "age", "-k", "2", "--id", "key", "--plan", "plan.npz"])
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


def _dialects(pool: pl.DataFrame, flat: pl.DataFrame) -> None:
    """The same table as others write it, with cells that are no numbers, nested values and odd names."""
    text = flat.write_csv()
    Path("semicolons.csv").write_text(flat.write_csv(separator=";").replace(".", ","))
    Path("wide.csv").write_bytes(text.encode("utf-16"))
    Path("latin.csv").write_bytes(text.replace("red", "r\xe9d").encode("latin-1"))
    Path("mark.jsonl").write_bytes(b"\xef\xbb\xbf" + flat.write_ndjson().encode())
    Path("packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    Path("gzipped.csv").write_bytes(gzip.compress(text.encode()))
    Path("na.csv").write_text(text.replace("1", "NA", 3))
    Path("names.csv").write_text(',a b,"c,d"\n' + "".join(f"{i},{i % 3},x{i % 2}\n" for i in range(9)))
    nested = pool.with_columns(
        chat=pl.struct(role=pl.lit("user"), content="body"),
        blob=pl.lit(b"x"),
        none=pl.lit(None),
        when=pl.date(2024, 1, 2),
    )
    nested.write_parquet("nested.parquet")
    nested.drop("blob").write_ndjson("nested.jsonl")


def _value(rng: random.Random, param: click.Option, names: list[str]) -> str:
    from kofn.core import dispatch

    if param.name in FITTING and rng.random() < 0.6:
        return rng.choice(FITTING[param.name])
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
        "select pool.csv --text body --label part -k 3 --all -o o.csv", "select pool.csv --text body --dedupe 0.9",
        "select pool.csv --columns lang,tokens --quota lang=de:1- -k 4", "select pool.csv --text body --queries red",
        "select pool.csv --text body --budget 90 --cost tokens --id key", "select pool.csv --text body --each lang=1",
        "select nested.jsonl --text chat -k 2 -o o.jsonl", "select sparse.npz --metric cosine -k 2",
        "compare pool.csv --columns tokens,age --judge lang -k 3 --time-limit 1",
    )  # fmt: skip
    words = rng.choice(starts).split()
    if rng.random() < 0.25:
        words = [rng.choice(COMMANDS), *rng.sample(names, rng.choice([0, 1, 1, 1, 2]))]
    elif rng.random() < 0.4:
        words[1] = rng.choice([name for name in names if name.endswith(words[1].partition(".")[2])])
    command = app.get_command(click.Context(app), words[0])
    assert command is not None
    flags = [param for param in command.params if isinstance(param, click.Option)]
    flags += _own_flags(words, rng)
    for param in rng.choices(flags, k=rng.choice([0, 1, 1, 1, 2, 3])):
        flag = rng.choice([*param.opts, *param.secondary_opts])
        words += [flag] if param.is_flag else [flag, _value(rng, param, names)]
    return words


def _own_flags(words: list[str], rng: random.Random) -> list[click.Option]:
    """The flags of a method, which a fifth of the lines name, several times each: so that they are drawn."""
    from kofn.core import dispatch

    if words[0] not in dispatch.VERBS or rng.random() < 0.8:
        return []
    entry = dispatch.methods_of(words[0])[rng.choice(sorted(dispatch.methods_of(words[0])))]
    words += ["-m", entry.name]
    options = [click.Option([f"--{name.replace('_', '-')}", name]) for name in entry.options]
    return options * (40 // max(1, len(options)))


def _contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


@contextmanager
def _alarm() -> Iterator[None]:
    """End what takes too much of the processor, and what waits for ever; a busy machine alone is no fault."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    if not hasattr(signal, "setitimer"):
        yield
        return
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, WAITING)}
    before = {number: signal.signal(number, ring) for number in timers}
    try:
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


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
        ".csv": pl.read_csv, ".tsv": functools.partial(pl.read_csv, separator="\t"), ".jsonl": pl.read_ndjson,
        ".parquet": pl.read_parquet,
    }  # fmt: skip
    for path in made:
        if path.parent == Path() and path.suffix in readers and path.stat().st_size and "--plan" not in words:
            try:
                readers[path.suffix](path)
            except pl.exceptions.PolarsError as error:
                return f"wrote {path}, which cannot be read: {error}"
    return None


def run_many(numbers: Iterable[int], seed: int) -> list[str]:
    """The faults of the command lines of these numbers."""
    with redirect_stdout(io.StringIO()):
        # What compiles for the first time is no hang.
        kofn.cli._run(["warmup"])
    _files(random.Random(seed))
    inputs = _contents()
    names = sorted({*(name for name in inputs if "/" not in name), "a", "b", "nothing.csv"})
    faults = []
    for number in numbers:
        words = drawn(random.Random(f"{seed} {number}"), names)
        began = time.monotonic()
        found = fault(words, inputs)
        if found is not None:
            faults.append(f"{seed} {number} ({time.monotonic() - began:.1f} s): kofn {words}\n{found}")
    return faults


# Command lines of one test: a run that is stopped goes on with the next ones, and none takes longer than a hang may.
AT_ONCE = 200


@pytest.mark.parametrize("turn", range(attack.scaled(10_000, AT_ONCE) // AT_ONCE))
def test_drawn_command_lines_end_as_they_should(folder: Path, turn: int) -> None:
    seed = time_budget.DEEP_SEED if time_budget.DEEP else time_budget.DAY
    faults = run_many(range(turn * AT_ONCE, (turn + 1) * AT_ONCE), seed)
    attack.count("command lines", AT_ONCE)
    attack.count("tracebacks of commands", len(faults))
    assert not faults, f"{len(faults)} of {AT_ONCE} command lines\n" + "\n".join(faults[:5])


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
