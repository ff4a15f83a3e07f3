"""Adapters as each trainer saves them, made by hand, with the updates that its own formula gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Arrays = dict[str, np.ndarray]
# The weights that every file changes, under the names of the model; the last is a convolution.
Q, V, CONV = "down.0.attn.to_q", "mid.attn.to_v", "up.1.conv_in"
SHAPES: dict[str, tuple[int, ...]] = {Q: (12, 8), V: (6, 10), CONV: (6, 4, 3, 3)}


@dataclass
class File:
    """An adapter: what is saved, and what it adds to each weight of the model."""

    tensors: Arrays
    updates: Arrays
    family: str
    config: dict[str, Any] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    name: str = "weights.safetensors"

    def save(self, path: Path) -> Path:
        """The folder of a family with a configuration, else one file; returns what to give to kofn."""
        file = path if self.config is None else path / self.name
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(self.tensors, file, {"format": "pt", **self.metadata})
        if self.config is not None:
            (path / "adapter_config.json").write_text(json.dumps(self.config))
        return path


def base(dtype: Any = np.float64, prefix: str = "") -> Arrays:
    rng = np.random.default_rng(5)
    arrays = {f"{prefix}{name}.weight": rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    return {**arrays, f"{prefix}{Q}.bias": rng.normal(size=12).astype(dtype)}


def _pairs(seed: int, dtype: Any, ranks: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Module -> A (r, in, kernel...), B (out, r), and the entries of B A as sums over the rank."""
    rng = np.random.default_rng(seed)
    out = {}
    for module, r in ranks.items():
        tall, *wide = SHAPES[module]
        A, B = rng.normal(size=(r, *wide)).astype(dtype), rng.normal(size=(tall, r)).astype(dtype)
        product = np.zeros(SHAPES[module])
        for i in range(r):
            product += np.multiply.outer(B[:, i].astype(np.float64), A[i].astype(np.float64))
        out[module] = (A, B, product)
    return out


def _ones(B: np.ndarray, A: np.ndarray) -> np.ndarray:
    return B.reshape(*B.shape, *(1,) * (A.ndim - 2))


def kohya(seed: int = 0, dtype: Any = np.float32) -> File:
    """One alpha that is not the rank, one missing."""
    out = File({}, {}, "kohya", metadata={"ss_network_dim": "2", "sshs_model_hash": "0f", "ss_tag": "x"})
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 3, CONV: 2}).items():
        flat = "lora_unet_" + module.replace(".", "_")
        out.tensors |= {f"{flat}.lora_down.weight": A, f"{flat}.lora_up.weight": _ones(B, A)}
        if module != V:
            out.tensors[f"{flat}.alpha"] = np.array(5.0, dtype)
        out.updates[module] = product if module == V else 2.5 * product
    return out


def diffusers_old(seed: int = 0, dtype: Any = np.float32) -> File:
    out = File({}, {}, "diffusers")
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 2}).items():
        stem, _, leaf = module.rpartition(".")
        name = f"unet.{stem}.processor.{leaf}_lora"
        out.tensors |= {f"{name}.down.weight": A, f"{name}.up.weight": B}
        out.updates[module] = product
    return out


def diffusers_lora(seed: int = 0, dtype: Any = np.float32) -> File:
    """With an alpha at one of them."""
    out = File({}, {}, "diffusers")
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 3, CONV: 2}).items():
        out.tensors |= {f"unet.{module}.lora.down.weight": A, f"unet.{module}.lora.up.weight": _ones(B, A)}
        out.updates[module] = product
    out.tensors[f"unet.{V}.alpha"] = np.array(1.5, np.float32)
    out.updates[V] = out.updates[V] * 0.5
    return out


def diffusers_new(seed: int = 0, dtype: Any = np.float32) -> File:
    """Spelt as PEFT spells, with its settings in the metadata."""
    settings = {
        "unet.r": 2,
        "unet.lora_alpha": 6,
        "unet.rank_pattern": {V: 3},
        "unet.alpha_pattern": {V: 12},
        "unet.use_rslora": False,
        "unet.target_modules": ["to_q", "to_v", "conv_in"],
    }
    out = File({}, {}, "diffusers", metadata={"lora_adapter_metadata": json.dumps(settings)})
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 3, CONV: 2}).items():
        out.tensors |= {f"unet.{module}.lora_A.weight": A, f"unet.{module}.lora_B.weight": _ones(B, A)}
        out.updates[module] = product * (4 if module == V else 3)
    return out


def torchtune(seed: int = 0, dtype: Any = np.float32) -> File:
    config = {"r": 2, "lora_alpha": 6, "target_modules": ["to_q", "to_v"]}
    out = File({}, {}, "torchtune", config, name="adapter_model.safetensors")
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 2}).items():
        out.tensors |= {f"{module}.lora_a.weight": A, f"{module}.lora_b.weight": B}
        out.updates[module] = 3 * product
    return out


def mlx(seed: int = 0, dtype: Any = np.float32) -> File:
    config = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0}}
    out = File({}, {}, "MLX", config, name="adapters.safetensors")
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 2}).items():
        out.tensors |= {f"{module}.lora_a": np.ascontiguousarray(A.T), f"{module}.lora_b": np.ascontiguousarray(B.T)}
        out.updates[module] = 20 * product
    return out


def peft(seed: int = 0, dtype: Any = np.float32) -> File:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["to_q", "to_v", "conv_in"]}
    out = File({}, {}, "PEFT", config, name="adapter_model.safetensors")
    for module, (A, B, product) in _pairs(seed, dtype, {Q: 2, V: 2, CONV: 2}).items():
        name = f"base_model.model.{module}"
        out.tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": _ones(B, A)}
        out.updates[module] = 3 * product
    return out


def _drawn(rng: np.random.Generator, dtype: Any, **shapes: tuple[int, ...]) -> Arrays:
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def _wide(parts: Arrays) -> Arrays:
    return {name: array.astype(np.float64) for name, array in parts.items()}


def loha(seed: int = 0, dtype: Any = np.float32, rank: int = 2) -> File:
    """A linear layer, one whose rank is beyond its sides, and a convolution by Tucker cores."""
    rng, out = np.random.default_rng(seed), File({}, {}, "LyCORIS")
    for module, r in {Q: rank, V: 3}.items():
        tall, wide = SHAPES[module]
        parts = _drawn(rng, dtype, hada_w1_a=(tall, r), hada_w1_b=(r, wide), hada_w2_a=(tall, r), hada_w2_b=(r, wide))
        w = _wide(parts)
        out.updates[module] = 1.5 / r * (w["hada_w1_a"] @ w["hada_w1_b"]) * (w["hada_w2_a"] @ w["hada_w2_b"])
        _put(out, module, {**parts, "alpha": np.array(1.5, dtype)})
    tall, wide, *kernel = SHAPES[CONV]
    sides = {f"hada_w{i}_a": (2, tall) for i in (1, 2)} | {f"hada_w{i}_b": (2, wide) for i in (1, 2)}
    parts = _drawn(rng, dtype, **sides, hada_t1=(2, 2, *kernel), hada_t2=(2, 2, *kernel))
    w = _wide(parts)
    halves = [np.einsum("ijkl,ip,jr->prkl", w[f"hada_t{i}"], w[f"hada_w{i}_a"], w[f"hada_w{i}_b"]) for i in (1, 2)]
    out.updates[CONV] = halves[0] * halves[1]
    _put(out, CONV, parts)
    return out


def lokr(seed: int = 0, dtype: Any = np.float32) -> File:
    """Both halves factorised; both whole, where alpha does not count; a convolution with one half whole."""
    rng, out = np.random.default_rng(seed), File({}, {}, "LyCORIS")
    shapes = {"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4)}
    parts = _drawn(rng, dtype, **shapes)
    w = _wide(parts)
    out.updates[Q] = 0.5 * np.kron(w["lokr_w1_a"] @ w["lokr_w1_b"], w["lokr_w2_a"] @ w["lokr_w2_b"])
    _put(out, Q, {**parts, "alpha": np.array(0.5, dtype)})
    parts = _drawn(rng, dtype, lokr_w1=(2, 2), lokr_w2=(3, 5))
    out.updates[V] = np.kron(*_wide(parts).values())
    _put(out, V, {**parts, "alpha": np.array(7.0, dtype)})
    parts = _drawn(rng, dtype, lokr_w1_a=(2, 1), lokr_w1_b=(1, 2), lokr_w2=(3, 2, 3, 3))
    w = _wide(parts)
    out.updates[CONV] = 4 * np.einsum("ac,bdkl->abcdkl", w["lokr_w1_a"] @ w["lokr_w1_b"], w["lokr_w2"]).reshape(
        SHAPES[CONV]
    )
    _put(out, CONV, {**parts, "alpha": np.array(4.0, dtype)})
    return out


def lokr_flat(seed: int = 0, dtype: Any = np.float32) -> File:
    """One half factorised: of a convolution its kernel is then flattened, and by a Tucker core it is not."""
    rng, out = np.random.default_rng(seed), File({}, {}, "LyCORIS")
    parts = _drawn(rng, dtype, lokr_w1=(2, 2), lokr_w2_a=(3, 2), lokr_w2_b=(2, 18))
    w = _wide(parts)
    second = (w["lokr_w2_a"] @ w["lokr_w2_b"]).reshape(3, 2, 3, 3)
    out.updates[CONV] = np.einsum("ac,bdkl->abcdkl", w["lokr_w1"], second).reshape(SHAPES[CONV])
    _put(out, CONV, parts)
    parts = _drawn(rng, dtype, lokr_w1=(3, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 4))
    w = _wide(parts)
    out.updates[Q] = 1.5 * np.kron(w["lokr_w1"], w["lokr_w2_a"] @ w["lokr_w2_b"])
    _put(out, Q, {**parts, "alpha": np.array(3.0, dtype)})
    return out


def locon(seed: int = 0, dtype: Any = np.float32) -> File:
    """Pairs beside a convolution with a Tucker core (`lora_mid`)."""
    out = kohya(seed, dtype)
    flat = "lora_unet_" + CONV.replace(".", "_")
    out.tensors = {name: array for name, array in out.tensors.items() if not name.startswith(flat)}
    rng = np.random.default_rng(seed + 100)
    tall, wide, *kernel = SHAPES[CONV]
    parts = _drawn(rng, dtype, down=(2, wide, 1, 1), mid=(2, 2, *kernel), up=(tall, 2, 1, 1))
    out.tensors |= {f"{flat}.lora_{part}.weight": array for part, array in parts.items()}
    w = _wide(parts)
    out.updates[CONV] = np.einsum("or,rskl,si->oikl", w["up"][:, :, 0, 0], w["mid"], w["down"][:, :, 0, 0])
    return out


def _put(file: File, module: str, parts: Arrays) -> None:
    flat = "lora_unet_" + module.replace(".", "_")
    file.tensors |= {f"{flat}.{part}": array for part, array in parts.items()}


FILES: dict[str, Callable[..., File]] = {
    "kohya": kohya,
    "LoCon": locon,
    "diffusers, old": diffusers_old,
    "diffusers, lora": diffusers_lora,
    "diffusers, new": diffusers_new,
    "torchtune": torchtune,
    "MLX": mlx,
    "PEFT": peft,
    "LoHa": loha,
    "LoKr": lokr,
    "LoKr, flat": lokr_flat,
}


def base_and_adapters() -> None:
    """A model base/ and two adapters of it, one/ and two/, in the working directory."""
    Path("base").mkdir()
    safetensors.numpy.save_file({"fc.weight": np.eye(2, dtype=np.float32)}, "base/model.safetensors")
    Path("base/config.json").write_text("{}")
    for name, value in (("one", 1.0), ("two", 3.0)):
        Path(name).mkdir()
        factors = {"A": np.full((1, 2), value, np.float32), "B": np.ones((2, 1), np.float32)}
        safetensors.numpy.save_file(
            {f"base_model.model.fc.lora_{half}.weight": array for half, array in factors.items()},
            f"{name}/adapter_model.safetensors",
        )
        Path(f"{name}/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))
