"""Merging three sharded bf16 checkpoints of 0.87 GB on disk: CPU seconds and memory, against the plain float32 mean.

The floor is what anybody writes: tensor by tensor with safetensors and torch, members summed in float32, cast back,
saved. mergekit takes part where its command `mergekit-yaml` is on the PATH (or named by MERGEKIT); its linear blend is
compared with ours value by value. Shapes are a Llama's; values are noise around a common base. Then an adapter is
folded into that base, and two checkpoints of 4 GB (or of KOFN_BENCHMARK_GB) are merged, killed and continued.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process, merge_disk

MEMBERS = ("a", "b", "c")
SHARD = 320_000_000
LINEAR, CONSENSUS = "weighted_mean", "ties"


def shapes(d: int, layers: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A Llama's tensors."""
    yield "model.embed_tokens.weight", (vocabulary, d)
    for at in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"model.layers.{at}.self_attn.{name}.weight", (d, d)
        yield f"model.layers.{at}.mlp.gate_proj.weight", (4 * d, d)
        yield f"model.layers.{at}.mlp.up_proj.weight", (4 * d, d)
        yield f"model.layers.{at}.mlp.down_proj.weight", (d, 4 * d)
        yield f"model.layers.{at}.input_layernorm.weight", (d,)
        yield f"model.layers.{at}.post_attention_layernorm.weight", (d,)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (vocabulary, d)


def make(folder: Path, d: int, layers: int, vocabulary: int) -> int:
    """Writes a base and three fine-tunes, each in shards with an index; returns the bytes of one."""
    from safetensors.numpy import save_file

    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    for name, shape in shapes(d, layers, vocabulary):
        if sum(2 * int(np.prod(held)) for _, held in shards[-1]) > SHARD:
            shards.append([])
        shards[-1].append((name, shape))
    for seed, who in enumerate(("base", *MEMBERS)):
        (folder / who).mkdir()
        common, own, places = np.random.default_rng(0), np.random.default_rng(seed), {}
        for at, shard in enumerate(shards):
            file = f"model-{at + 1:05d}-of-{len(shards):05d}.safetensors"
            tensors: dict[str, NDArray[Any]] = {}
            for name, shape in shard:
                values = 0.02 * common.standard_normal(shape, dtype=np.float32)
                if seed:
                    values += 0.002 * own.standard_normal(shape, dtype=np.float32)
                tensors[name], places[name] = values.astype(ml_dtypes.bfloat16), file
            save_file(tensors, folder / who / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": places}
        (folder / who / "model.safetensors.index.json").write_text(json.dumps(index))
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": d,
            "intermediate_size": 4 * d,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": vocabulary,
        }
        (folder / who / "config.json").write_text(json.dumps(config))
    return sum(file.stat().st_size for file in (folder / "a").glob("*.safetensors"))


def work(who: Any, folder: str) -> dict[str, Any]:
    """One merge in a fresh process; CPU seconds of its threads, imports included."""
    began = time.perf_counter()
    paths = [os.path.join(folder, member) for member in MEMBERS]
    if who == "floor":
        _floor(paths, Path(folder) / "floor")
    else:
        from kofn import combine

        given: dict[str, Any] = {"base": os.path.join(folder, "base"), "density": 0.5} if who == CONSENSUS else {}
        combine(paths, method=who, out=os.path.join(folder, who), **given)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "seconds": time.perf_counter() - began}


def _floor(paths: list[str], out: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir(exist_ok=True)
    for file in sorted(path.name for path in Path(paths[0]).glob("*.safetensors")):
        opened = [safe_open(os.path.join(path, file), "pt") for path in paths]
        tensors = {}
        for name in opened[0].keys():  # noqa: SIM118 (not a mapping)
            total = opened[0].get_tensor(name).float()
            for other in opened[1:]:
                total += other.get_tensor(name).float()
            tensors[name] = (total / len(paths)).to(torch.bfloat16)
        save_file(tensors, out / file, metadata={"format": "pt"})
    shutil.copyfile(Path(paths[0]) / "model.safetensors.index.json", out / "model.safetensors.index.json")


def _mergekit(command: str, method: str, folder: Path) -> dict[str, Any]:
    """mergekit's own run of the same blend."""
    base = folder / "base"
    parameters = "{weight: 1.0, density: 0.5}" if method == "ties" else "{weight: 1.0}"
    models = "".join(f"  - model: {folder / member}\n    parameters: {parameters}\n" for member in MEMBERS)
    root = f"base_model: {base}\n" if method == "ties" else ""
    recipe, out = folder / f"{method}.yaml", folder / f"mergekit_{method}"
    recipe.write_text(f"merge_method: {method}\n{root}models:\n{models}dtype: bfloat16\n")
    shutil.rmtree(out, ignore_errors=True)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([command, str(recipe), str(out), "--lazy-unpickle"], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not list(out.glob("*.safetensors")):  # it ends with a traceback where there is no tokenizer, its blend written
        return {"error": "mergekit wrote nothing"}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "seconds": time.perf_counter() - began}


def _apart(one: Path, other: Path) -> dict[str, int]:
    """How many bf16 values differ between two checkpoints, and by how many units in the last place at most."""
    from kofn.io.tensors import Checkpoint

    def order(values: NDArray[Any]) -> NDArray[np.int32]:
        bits = values.view(np.int16).astype(np.int32)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    ours, theirs = Checkpoint.open(one), Checkpoint.open(other)
    differ, most = 0, 0
    for name in ours:
        gap = np.abs(order(ours[name].array()) - order(theirs[name].array()))
        differ, most = differ + int((gap > 0).sum()), max(most, int(gap.max(initial=0)))
    return {"differ": differ, "ulp": most}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    rounds = 1 if quick else rounds
    command = os.environ.get("MERGEKIT") or shutil.which("mergekit-yaml")
    size = {"d": 256, "layers": 4, "vocabulary": 2000} if quick else {"d": 1024, "layers": 22, "vocabulary": 32_000}
    out: dict[str, Any] = {"rows": {}}
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        nbytes = make(folder, **size)
        print(
            f"\nthree bf16 checkpoints of {nbytes / 1e9:.2f} GB in shards into one: median of {rounds} rounds in turn"
        )
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for who in ("floor", LINEAR, CONSENSUS):
                runs.setdefault(who, []).append(in_fresh_process("benchmarks.merge", {"who": who, "folder": held}))
            for method in ("linear", "ties") if command else ():
                assert command
                runs.setdefault(f"mergekit {method}", []).append(_mergekit(command, method, folder))
        for who, found in runs.items():
            good = [one for one in found if "error" not in one]
            if not good:
                print(f"{who:<16} {found[0]['error']}")
                continue
            out["rows"][who] = {key: median(one[key] for one in good) for key in good[0]}
        floor = out["rows"]["floor"]["cpu_seconds"]
        print("who              cpu s  seconds  x floor  peak MB")
        for who, row in out["rows"].items():
            held = f"{row['peak_bytes'] / 1e6:>8.0f}" if "peak_bytes" in row else ""
            print(
                f"{who:<16} {row['cpu_seconds']:>5.1f} {row['seconds']:>8.1f} {row['cpu_seconds'] / floor:>8.2f} {held}"
            )
        out["floor_apart"] = _apart(folder / LINEAR, folder / "floor")
        print(
            f"linear against the floor: {out['floor_apart']['differ']:,} values differ, "
            f"by {out['floor_apart']['ulp']} ulp at most"
        )
        if "mergekit linear" in out["rows"]:
            out["mergekit_apart"] = _apart(folder / LINEAR, folder / "mergekit_linear")
            gap = out["mergekit_apart"]
            print(f"linear against mergekit: {gap['differ']:,} values differ, by {gap['ulp']} ulp")
        elif command is None:
            print("mergekit-yaml is not on the PATH: not compared")
        out["fold"] = merge_disk.fold(folder, shapes(**size), rounds)
    with tempfile.TemporaryDirectory() as held:
        out["large"] = merge_disk.large(Path(held), shapes, quick)
    return out
