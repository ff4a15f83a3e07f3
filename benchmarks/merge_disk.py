"""Parts of the benchmark `merge` that the disk decides: an adapter folded into a checkpoint, and a large sharded merge.

Both are held against copying: of the base (which the system does itself, and programs that read and write every byte on
all cores do not), and of one member while the other is read. The large merge runs twice, whole
and killed (SIGKILL) half-way and continued; the two outputs are compared byte by byte.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process

RANK = 16
SHARD = 320_000_000
BLOCK = 1 << 19  # bytes, of what is read and written as it is
PAIR = ("first", "second")
LARGE = "KOFN_BENCHMARK_GB"  # size of a member of the large merge

Shapes = Callable[[int, int, int], Iterator[tuple[str, tuple[int, ...]]]]


def make_adapter(folder: Path, shapes: Iterator[tuple[str, tuple[int, ...]]]) -> None:
    """An adapter of all linear layers."""
    from safetensors.numpy import save_file

    rng, tensors = np.random.default_rng(0), {}
    for name, shape in shapes:
        if "_proj" in name:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = 0.01 * rng.standard_normal((RANK, shape[1]), dtype=np.float32)
            tensors[f"{stem}.lora_B.weight"] = 0.01 * rng.standard_normal((shape[0], RANK), dtype=np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_pair(folder: Path, shapes: Iterator[tuple[str, tuple[int, ...]]]) -> int:
    """Two sharded checkpoints of repeated noise; returns the bytes of one."""
    from safetensors.numpy import save_file

    noise = 0.02 * np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)
    named = list(shapes)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    for name, shape in named:
        if sum(2 * int(np.prod(held)) for _, held in shards[-1]) > SHARD:
            shards.append([])
        shards[-1].append((name, shape))
    for shift, who in enumerate(PAIR):
        values = np.roll(noise, 1001 * shift).astype(ml_dtypes.bfloat16)
        (folder / who).mkdir()
        homes: dict[str, str] = {}
        for number, shard in enumerate(shards):
            file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
            tensors = {name: _repeated(values, shape) for name, shape in shard}
            save_file(tensors, folder / who / file)
            homes |= dict.fromkeys((name for name, _ in shard), file)
        index = {"metadata": {}, "weight_map": homes}
        (folder / who / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(file.stat().st_size for file in _shards(folder / PAIR[0]))


def _repeated(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    out = np.empty(int(np.prod(shape)), values.dtype)
    for low in range(0, len(out), len(values)):
        out[low : low + len(values)] = values[: len(out) - low]
    return out.reshape(shape)


def work(who: str, folder: str) -> dict[str, Any]:
    """One run in a fresh process; seconds from the call on, of the command with imports, as CPU seconds are."""
    home, resumed = Path(folder), 0
    if who == "fold":
        from kofn.combination import fold_adapter

        began = time.perf_counter()
        fold_adapter(home / "base", home / "adapter", out=home / "folded")
    elif who == "command":
        began = time.perf_counter()  # with the imports, as on the command line
        from kofn.cli import main

        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main(["combine", str(home / "base"), str(home / "adapter"), "-o", str(home / "merged")])
    elif who == "read and write":
        began = time.perf_counter()
        _pass_through(home / "base", home / "passed")
    elif who == "copy":
        began = time.perf_counter()
        _copy(home / "base", home / "copied")
    elif who == "read and copy":
        began = time.perf_counter()
        _copy(home / PAIR[0], home / "copied", beside=home / PAIR[1])
    else:
        from kofn import combine

        began = time.perf_counter()
        blend = combine([home / name for name in PAIR], method="weighted_mean", out=home / who)
        resumed = blend.info["resumed"]
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "resumed": resumed}


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _copy(source: Path, target: Path, beside: Path | None = None) -> None:
    """Copy the shards, each synced; read those of `beside` in turn."""
    target.mkdir()
    buffer = bytearray(8 << 20)
    for file in _shards(source):
        if beside is not None:
            with open(beside / file.name, "rb", buffering=0) as other:
                while other.readinto(buffer):
                    pass
        shutil.copyfile(file, target / file.name)
        with open(target / file.name, "rb+") as copied:
            os.fsync(copied.fileno())


def _pass_through(source: Path, target: Path) -> None:
    """Read every byte and write it as it is, on all cores: no program that looks at the weights takes less."""
    target.mkdir()
    local = threading.local()

    def work(task: tuple[int, int, int]) -> None:
        source, target, start = task
        buffer = local.__dict__.setdefault("buffer", bytearray(BLOCK))
        done = os.preadv(source, [buffer], start)
        os.pwrite(target, memoryview(buffer)[:done], start)

    with contextlib.ExitStack() as stack:
        tasks = []
        for file in _shards(source):
            opened, written = (
                stack.enter_context(open(path, mode)) for path, mode in ((file, "rb"), (target / file.name, "wb"))
            )
            ends = (opened.fileno(), written.fileno())
            tasks += [(*ends, start) for start in range(0, file.stat().st_size, BLOCK)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(work, tasks))
        for descriptor in dict.fromkeys(task[1] for task in tasks):
            os.fsync(descriptor)


def fold(folder: Path, shapes: Iterator[tuple[str, tuple[int, ...]]], rounds: int) -> dict[str, Any]:
    """The adapter of all linear layers into `folder/base`, against copying the base."""
    make_adapter(folder / "adapter", shapes)
    targets = {"copy": "copied", "read and write": "passed", "fold": "folded", "command": "merged"}
    runs: dict[str, list[dict[str, Any]]] = {who: [] for who in targets}
    for _ in range(rounds):
        for who, target in targets.items():
            runs[who].append(in_fresh_process("benchmarks.merge_disk", {"who": who, "folder": str(folder)}))
            shutil.rmtree(folder / target, ignore_errors=True)
    print(f"\nan adapter of rank {RANK} on every linear layer folded into it; median of {rounds} rounds in turn")
    return _table(runs, "copy")


def large(folder: Path, shapes: Shapes, quick: bool) -> dict[str, Any]:
    """Two large sharded checkpoints into one, whole, and killed half-way and continued."""
    size = 0.2 if quick else float(os.environ.get(LARGE, 4))
    d = 256 if quick else 2048 if size < 10 else 4096
    free = shutil.disk_usage(folder).free / 1e9
    if 4.2 * size > free:
        print(f"\na merge of two checkpoints of {size:g} GB needs {4.2 * size:.0f} GB of disk, {free:.0f} are free")
        return {"skipped": "disk"}
    vocabulary = 2000 if quick else 32_000
    layers = max(1, round((size * 1e9 / 2 - 2 * vocabulary * d) / (16 * d * d)))
    nbytes = make_pair(folder, shapes(d, layers, vocabulary))
    print(f"\ntwo checkpoints of {nbytes / 1e9:.1f} GB in {len(_shards(folder / PAIR[0]))} shards into one")
    runs: dict[str, list[dict[str, Any]]] = {}
    for who in ("read and copy", "whole"):
        runs[who] = [in_fresh_process("benchmarks.merge_disk", {"who": who, "folder": str(folder)}, timeout=3600)]
        shutil.rmtree(folder / "copied", ignore_errors=True)
    total = len(list(shapes(d, layers, vocabulary)))
    killed = _killed(folder, total)
    runs["continued"] = [
        in_fresh_process("benchmarks.merge_disk", {"who": "continued", "folder": str(folder)}, timeout=3600)
    ]
    out = _table(runs, "read and copy") | {"bytes": nbytes, "tensors": total, "done_when_killed": killed}
    same = _digests(folder / "whole") == _digests(folder / "continued")
    resumed = out["continued"]["resumed"] if "continued" in out else 0
    print(
        f"killed with {killed} of {total} tensors safe, {resumed:.0f} of them taken over; the files are "
        f"{'' if same else 'NOT '}the same"
    )
    return out | {"same": same}


def _killed(folder: Path, total: int) -> int:
    """Start the merge, kill it once half of the tensors are noted as safe; returns how many are."""
    code = "import sys; from benchmarks.merge_disk import work; work('continued', sys.argv[1])"  # the same call again
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.DEVNULL)
    safe = 0
    while process.poll() is None and safe < total / 2:
        time.sleep(0.02)
        safe = _noted(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _noted(folder) if process.returncode == -signal.SIGKILL else total


def _noted(folder: Path) -> int:
    journals = glob.glob(str(folder / ".continued.kofn-job-*" / "journal.jsonl"))
    lines = [line for path in journals for line in Path(path).read_text().splitlines(True) if line.endswith("\n")]
    return sum(len(json.loads(line)) for line in lines)


def _digests(folder: Path) -> list[str]:
    digests = []
    for file in _shards(folder):
        with open(file, "rb") as content:
            digests.append(hashlib.file_digest(content, "blake2b").hexdigest())
    return digests


def _table(runs: dict[str, list[dict[str, Any]]], floor: str) -> dict[str, Any]:
    """Medians of the runs, printed beside the floor."""
    out: dict[str, Any] = {}
    print(f"{'who':<16} seconds  cpu s  x {floor}  peak MB")
    for who, each in runs.items():
        if errors := [run["error"] for run in each if "error" in run]:
            print(f"{who:<16} {errors[0]}")
            continue
        row = out[who] = {key: median(run[key] for run in each) for key in each[0]}
        ratio = row["seconds"] / out[floor]["seconds"] if floor in out else float("nan")
        print(
            f"{who:<16} {row['seconds']:>7.1f} {row['cpu_seconds']:>6.1f} {ratio:>{len(floor) + 2}.2f} "
            f"{row['peak_bytes'] / 1e6:>8.0f}"
        )
    return out
