"""FIFOs, devices and damaged array files, wherever a command or a function reads or writes: one line, at once."""

from __future__ import annotations

import os
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attack
import numpy as np
import pytest
import scipy.sparse
import time_budget
from command_line import refused, run
from safetensors.numpy import save_file

import kofn
from kofn.combination.recipes import read_recipe
from kofn.core.checks import InputError, load_arrays
from kofn.core.plans import Plan
from kofn.io.opening import open_table
from kofn.io.tensors import Checkpoint

X = np.random.default_rng(0).normal(size=(12, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    Path("pool.csv").write_text("id,x,y\n" + "".join(f"{i},{i * i % 7},{i % 3}\n" for i in range(12)))
    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full(2, place, np.float32)}, f"{name}/model.safetensors")
        Path(f"{name}/config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def in_time() -> Iterator[None]:
    """Ends what waits for ever."""

    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


SELECT = ("select", "x.npy", "-k", "2")
PLACES = [
    *((name, ("select", name, "-k", "1")) for name in ("f.csv", "f.tsv", "f.parquet", "f.jsonl", "f.npy", "f.npz")),
    ("f.csv", ("assign", "f.csv", "--columns", "x", "--k", "2")),
    ("f.csv", ("allocate", "f.csv", "--id", "layer", "--budget", "3")),
    ("f.csv", ("compare", "f.csv", "y")),
    *((name, ("combine", name, "-o", "m")) for name in ("f.toml", "f.yaml")),
    ("f.safetensors", ("combine", "f.safetensors", "b", "-o", "m")),
    ("f.safetensors", ("combine", "a", "b", "--base", "f.safetensors", "-m", "ties", "-o", "m")),
    ("a/model.safetensors", ("combine", "a", "b", "-o", "m")),
    ("a/model.safetensors.index.json", ("combine", "a", "b", "-o", "m")),
    ("a/adapter_config.json", ("combine", "a", "b", "-o", "m")),
    ("a/config.json", ("combine", "a", "b", "-o", "m")),
    ("a/tokenizer.json", ("combine", "a", "b", "-o", "m")),
    ("a/modules.json", ("combine", "a", "b", "-o", "m")),
    (".m.kofn-12345678", ("combine", "a", "b", "-o", "m")),
    ("f.npz", (*SELECT, "--start", "f.npz")),
    ("f.txt", ("select", "pool.csv", "--columns", "x", "-k", "2", "--id", "id", "--include", "f.txt")),
    ("f.csv", ("select", "pool.csv", "--columns", "x", "-k", "2", "--id", "id", "--exclude", "f.csv")),
    ("f.csv", ("assign", "pool.csv", "--columns", "x", "--k", "2", "--id", "id", "--must-link", "f.csv")),
    ("f.npy", (*SELECT, "--queries", "@f.npy")),
    ("f.csv", (*SELECT, "--queries", "f.csv")),
    ("f.npy", (*SELECT, "-m", "rds_plus", "--option", "queries=@f.npy")),
    ("f.csv", (*SELECT, "-o", "f.csv")),
    ("f.npz", (*SELECT, "--plan", "f.npz")),
    ("f.html", (*SELECT, "--report", "f.html")),
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("fifo", "words"), PLACES)
def test_no_command_waits_for_a_fifo(
    fifo: str, words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(fifo).unlink(missing_ok=True)
    os.mkfifo(fifo)
    code, _, err = run(capsys, *words)
    # What a blend does not need, such as a tokenizer, may be left aside.
    assert code in ((0, 2) if "/" in fifo or fifo.startswith(".m") else (2,)), err
    assert err.count("\n") == 1 or code == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.usefixtures("in_time")
def test_no_function_waits_for_a_fifo(folder: Path) -> None:
    for name in ("f.npz", "f.csv", "f.toml", "f.safetensors", "f.npy"):
        os.mkfifo(name)
    for reads in (
        lambda: Plan.load("f.npz"),
        lambda: open_table("f.csv"),
        lambda: read_recipe("f.toml"),
        lambda: Checkpoint.open("f.safetensors"),
        lambda: load_arrays("f.npy"),
        lambda: kofn.combine(["f.safetensors", "b"]),
        lambda: kofn.select(X, k=2).save("f.npz"),
    ):
        with pytest.raises(InputError, match=r"^f\.\w+ is (no regular file|a FIFO that no program reads)"):
            reads()


def test_a_fifo_that_is_read_gets_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("f.csv")
    reader = os.open("f.csv", os.O_RDONLY | os.O_NONBLOCK)
    assert run(capsys, *SELECT, "-o", "f.csv")[0] == 0
    assert os.read(reader, 9).startswith(b"row")
    os.close(reader)


def _sources() -> dict[str, tuple[str, ...]]:
    """A file of each kind that holds arrays, and a command that reads it as "hurt"."""
    np.savez("two.npz", v=X, s=X[:, 0])
    np.savez_compressed("packed.npz", v=X)
    sparse = scipy.sparse.random(12, 12, 0.3, format="csr", random_state=0)
    scipy.sparse.save_npz("sparse.npz", sparse)
    scipy.sparse.save_npz("plain.npz", sparse, compressed=False)
    kofn.select(X, k=2).save("plan.npz")
    np.savez("images.npz", v=X, images=np.zeros((12, 4, 4), np.uint8))
    return {
        "x.npy": ("select", "hurt.npy", "-k", "2"),
        "two.npz": ("select", "hurt.npz", "--vectors", "v", "-k", "2"),
        "packed.npz": ("select", "hurt.npz", "-k", "2"),
        "sparse.npz": ("select", "hurt.npz", "--metric", "precomputed", "-k", "2"),
        "plain.npz": ("select", "hurt.npz", "--metric", "precomputed", "-k", "2"),
        "plan.npz": (*SELECT, "--start", "hurt.npz"),
        "images.npz": ("select", "hurt.npz", "--vectors", "v", "-k", "2", "--images", "images", "--report", "r.html"),
    }


def _hurt(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, or with a few bytes changed: in the first, the last or any of them."""
    damaged = bytearray(content)
    low, high = [(0, 300), (len(damaged) - 300, len(damaged)), (0, len(damaged))][rng.integers(3)]
    if rng.integers(4) == 0:
        return bytes(damaged[: rng.integers(len(damaged))])
    for place in rng.integers(max(0, low), min(high, len(damaged)), size=rng.integers(1, 6)).tolist():
        damaged[place] = rng.integers(256)
    return bytes(damaged)


@pytest.mark.parametrize("turn", range(attack.scaled(100, 12)))
def test_a_damaged_array_file_is_refused_in_one_line(
    turn: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng([time_budget.DEEP_SEED, turn])
    for source, words in _sources().items():
        content = Path(source).read_bytes()
        for other in (words, (*SELECT, "--queries", f"@hurt{Path(source).suffix}")):
            Path(f"hurt{Path(source).suffix}").write_bytes(_hurt(content, rng))
            with attack.counted("damaged files"):
                code, _, err = run(capsys, *other)
                assert code in (0, 1, 2), err
                assert code == 0 or (err.startswith("kofn: ") and err.count("\n") == 1), err


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_each_kind_of_damage_is_refused_by_name(method: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("good.npz", v=X)
    with zipfile.ZipFile("good.npz") as good, zipfile.ZipFile("hurt.npz", "w", method) as hurt:
        hurt.writestr("v.npy", good.read("v.npy"))
    whole = Path("hurt.npz").read_bytes()
    for place, byte in ((60, 7), (180, 99), (6, 1), (8, 99)):  # deflated data, the sum of it, encrypted, unknown method
        damaged = bytearray(whole)
        damaged[place] ^= byte
        directory = whole.index(b"PK\1\2")
        if place in (6, 8):
            damaged[directory + place + 2] ^= byte
        Path("hurt.npz").write_bytes(damaged)
        assert "hurt.npz" in refused(capsys, "select", "hurt.npz", "-k", "2")


def test_two_arrays_of_one_name_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("good.npz", v=X)
    shutil.copy("good.npz", "two.npz")
    content = zipfile.ZipFile("good.npz").read("v.npy")
    with zipfile.ZipFile("two.npz", "a") as two, pytest.warns(UserWarning, match="Duplicate"):
        two.writestr("v.npy", content)
    assert "two.npz holds two arrays 'v'" in refused(capsys, "select", "two.npz", "-k", "2")
    assert "holds two arrays 'v'" in refused(capsys, *SELECT, "--queries", "@two.npz")
