"""Bits for the tensors of a model: time and memory on 1 GB of bfloat16, and what a real model's quality gains.

The floor of the time is the same measurement with torch, tensor by tensor and width by width. The model is MiniLM with
the weights that `kofn[minilm]` brings: verses are embedded by the model as it is and by each allocation's output, which
sentence-transformers loads from the folder that `apply_plan` writes. Judged by verses that no statistic has seen: the
mean cosine distance of an embedding to the original's, and the share of the original's ten nearest verses that are
found again.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process

GB = 1.0
MEANS = (2.5, 3.0, 3.5, 4.0)
SEEN, JUDGED, NEAR = 100, 400, 10
LONGEST = 40
GROUP = 128


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Time and memory, then quality where the model is installed."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("KOFN_BENCHMARK_FOLDER")) as name:
        folder = Path(name)
        nbytes = make(folder / "model", 0.05 if quick else GB)
        print(f"{nbytes / 1e9:.2f} GB of bf16, at 2..8 bits, affine and symmetric: median of {rounds} rounds")
        print(f"{'who':10} {'cpu s':>7} {'MB a cpu s':>11} {'seconds':>8} {'peak MB':>8}")
        for who in ("kofn", "torch"):
            runs = [in_fresh_process("benchmarks.quantise", {"who": who, "folder": name}) for _ in range(rounds)]
            if "error" in runs[0]:
                print(f"{who:10} {runs[0]['error']}")
                continue
            middle = {key: median(one[key] for one in runs) for key in ("cpu_seconds", "seconds", "peak_bytes")}
            results[who] = middle
            speed = nbytes / 1e6 / middle["cpu_seconds"]
            print(
                f"{who:10} {middle['cpu_seconds']:7.1f} {speed:11.0f} {middle['seconds']:8.1f} "
                f"{middle['peak_bytes'] / 1e6:8.0f}"
            )
        results["quality"] = quality(folder, MEANS[1:2] if quick else MEANS)
    return results


def make(folder: Path, gigabytes: float) -> int:
    """Writes layers of a Llama's shapes, block by block; returns their bytes."""
    from kofn.io.tensor_writer import CheckpointWriter
    from kofn.io.tensors import Layout, Shard, TensorSpec

    kind, d = np.dtype(ml_dtypes.bfloat16), 2048
    layers = max(1, round(gigabytes * 1e9 / (2 * 16 * d * d)))
    specs = [TensorSpec(name, kind, shape) for i in range(layers) for name, shape in _layer(i, d)]
    rng = np.random.default_rng(0)
    with CheckpointWriter(folder, Layout((Shard("model.safetensors", tuple(specs)),))) as writer:
        for spec in specs:
            for row in range(0, spec.shape[0], 256):
                block = 0.02 * rng.standard_normal((min(256, spec.shape[0] - row), spec.shape[1]), dtype=np.float32)
                writer.write(spec.name, row * spec.shape[1], block.astype(kind))
    return sum(spec.nbytes for spec in specs)


def _layer(i: int, d: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for part in "qkvo":
        yield f"model.layers.{i}.self_attn.{part}_proj.weight", (d, d)
    yield f"model.layers.{i}.mlp.gate_proj.weight", (4 * d, d)
    yield f"model.layers.{i}.mlp.up_proj.weight", (4 * d, d)
    yield f"model.layers.{i}.mlp.down_proj.weight", (d, 4 * d)


def work(who: str, folder: str) -> dict[str, Any]:
    """One measurement in a fresh process; CPU seconds of its threads, imports included."""
    began = time.perf_counter()
    path = os.path.join(folder, "model")
    if who == "torch":
        error = _with_torch(path)
    else:
        from kofn.allocation import allocate_checkpoint

        error = allocate_checkpoint(path, bits=3.0).uniform
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "seconds": time.perf_counter() - began,
        "uniform": error,
    }


def _with_torch(path: str) -> float:
    """The affine error of all tensors at 3 bits; all widths and both kinds are measured."""
    import torch
    from safetensors import safe_open

    total = 0.0
    with safe_open(os.path.join(path, "model.safetensors"), "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 (not a mapping)
            groups = opened.get_tensor(name).float().reshape(-1, GROUP)
            low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
            for bits in range(2, 9):
                scale = ((high - low) / (2**bits - 1)).bfloat16().float()
                zero = (-low / scale).round().clamp(0, 2**bits - 1)
                affine = ((groups / scale).round() + zero).clamp(0, 2**bits - 1).sub(zero).mul(scale)
                half = (torch.maximum(-low, high) / ((2**bits - 1) / 2)).bfloat16().float()
                symmetric = (groups / half).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).mul(half)
                errors = (affine - groups).square().sum().item(), (symmetric - groups).square().sum().item()
                total += errors[0] if bits == 3 else 0.0
    return total


def quality(folder: Path, means: tuple[float, ...]) -> dict[str, Any]:
    """MiniLM's embeddings after each allocation, against the original's."""
    try:
        import sentence_transformers  # noqa: F401
        import torch

        from kofn import datasets
        from kofn.io.embedders import _minilm_folder
        from kofn.nn import activation_gram, noise_sensitivity

        source = shutil.copytree(_minilm_folder(), folder / "minilm")
    except Exception as error:
        print(f"quality: not run ({error})")
        return {}
    texts = datasets.load("verses").texts
    rows = np.random.default_rng(0).choice(len(texts), SEEN + JUDGED, replace=False)
    seen, judged = [texts[i] for i in rows[:SEEN]], [texts[i] for i in rows[SEEN:]]
    model = _loaded(source)
    inside = model[0].auto_model
    names = [
        name
        for name, part in inside.named_modules()
        if isinstance(part, torch.nn.Linear) and not name.startswith("pooler")
    ]
    cut = {"padding": True, "truncation": True, "max_length": LONGEST, "return_tensors": "pt"}
    batches = [dict(model.tokenizer(seen[i : i + 50], **cut)) for i in range(0, SEEN, 50)]

    def embedded(_model: Any, inputs: Any) -> Any:
        return model(dict(inputs))["sentence_embedding"]

    grams = activation_gram(inside, batches, modules=names, logits=embedded)
    factors = noise_sensitivity(inside, batches, modules=names, logits=embedded, seed=0)

    def similarities(given: Any, inputs: Any) -> Any:
        vectors = torch.nn.functional.normalize(embedded(given, inputs), dim=1)
        return vectors @ vectors.T

    alike = noise_sensitivity(inside, batches, modules=names, logits=similarities, seed=0)
    original = model.encode(judged, normalize_embeddings=True)
    contenders: dict[str, dict[str, Any]] = {
        "uniform": {"tie": "*"},
        "no statistics": {},
        "no statistics, relative": {"criterion": "relative"},
        "gram, relative": {"statistics": grams},
        "gram, squared": {"statistics": grams, "criterion": "squared"},
        "noise, embeddings": {"statistics": factors},
        "noise, similarities": {"statistics": alike},
    }
    print(f"MiniLM, {JUDGED} verses: cosine distance to the original's embedding, share of its {NEAR} nearest found")
    print(f"{'bits':>5} {'who':24} {'predicted':>10} {'distance':>9} {'found':>7}")
    out: dict[str, Any] = {}
    for mean in means:
        for who, given in contenders.items():
            if who == "uniform" and mean != int(mean):
                continue
            row = _judged(source, folder / "out", mean, {"only": names, **given}, judged, original)
            out[f"{mean} {who}"] = row
            print(f"{mean:5} {who:24} {row['saved']:9.1%} {row['distance']:9.4f} {row['found']:7.3f}", flush=True)
    return out


def _judged(
    source: Path, out: Path, mean: float, given: dict[str, Any], texts: list[str], original: NDArray[Any]
) -> dict[str, float]:
    from kofn.allocation import allocate_checkpoint, apply_plan

    plan = allocate_checkpoint(source, bits=mean, group_size=GROUP, **given)
    apply_plan(plan, out=out)
    mine = _loaded(out).encode(texts, normalize_embeddings=True)
    shutil.rmtree(out)
    return {
        "saved": 1 - plan.error / plan.uniform,
        "distance": float(1 - (mine * original).sum(axis=1).mean()),
        "found": _found(mine, original),
    }


def _loaded(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = LONGEST
    return model


def _found(mine: NDArray[Any], original: NDArray[Any]) -> float:
    nearest = []
    for vectors in (mine, original):
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(np.argsort(-similarity, axis=1)[:, :NEAR])
    pairs = zip(*nearest, strict=True)
    return float(np.mean([len(set(a) & set(b)) / NEAR for a, b in pairs]))
