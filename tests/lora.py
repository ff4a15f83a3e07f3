"""LoRA adapters of every kind, made for tests, and their updates as dense matrices."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from refusals import refused as refused_once

from kofn.io.adapters import CONFIG, WEIGHTS


def refused(call: Callable[[], Any], *says: str) -> None:
    for one in says:
        refused_once(call, one)


SHAPES = {"layers.0.q_proj": (7, 5), "layers.1.q_proj": (7, 5), "layers.1.v_proj": (4, 6)}
P = "base_model.model."


def factors(ranks: Mapping[str, int], seed: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for name, r in ranks.items():
        tall, wide = SHAPES.get(name, (6, 6))
        out[f"{P}{name}.lora_A.weight"] = rng.normal(size=(r, wide)).astype(dtype)
        out[f"{P}{name}.lora_B.weight"] = rng.normal(size=(tall, r)).astype(dtype)
    return out


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "org/base",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "init_lora_weights": True,
        **changes,
    }


def save(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Path:
    """As PEFT does, by the reference implementation of the format."""
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=2, sort_keys=True))
    return folder


def scaling(config: Mapping[str, Any], module: str, r: int) -> float:
    """PEFT's: the first key of the pattern that matches the module's name or its end."""
    alpha = config["lora_alpha"]
    for key, value in config["alpha_pattern"].items():
        if re.match(rf"(.*\.)?({key})$", module):
            alpha = value
            break
    return alpha / math.sqrt(r) if config["use_rslora"] else alpha / r


def updates(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """module -> update, multiplied out."""
    out = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight").removeprefix(P)
            A = np.asarray(tensors[name], np.float64)
            B = np.asarray(tensors[name.replace("lora_A", "lora_B")], np.float64)
            out[module] = scaling(config, module, len(A)) * (B @ A)
    return out


def mixed() -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Three adapters: plain; rsLoRA with patterns; one that adapts fewer modules."""
    return [
        (factors(dict.fromkeys(SHAPES, 2), 1), settings(lora_alpha=5)),
        (
            factors({"layers.0.q_proj": 3, "layers.1.q_proj": 5, "layers.1.v_proj": 3}, 2),
            settings(
                r=3,
                lora_alpha=7,
                use_rslora=True,
                rank_pattern={"layers.1.q_proj": 5},
                alpha_pattern={"layers.1.q_proj": 4, "q_proj": 9},
            ),
        ),
        (factors({"layers.0.q_proj": 1}, 3), settings(r=1, lora_alpha=3, target_modules=["q_proj"])),
    ]


def total(weights: Any, adapters: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for weight, (tensors, config) in zip(weights, adapters, strict=True):
        for module, update in updates(tensors, config).items():
            out[module] = out.get(module, 0) + weight * update
    return out


def norm(values: Mapping[str, np.ndarray]) -> float:
    return math.sqrt(sum(float((value**2).sum()) for value in values.values()))


def extra(name: str, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One adapter of each kind."""
    rng = np.random.default_rng(7)
    module = P + "layers.0.q_proj"
    if name == "rsLoRA":
        config |= {"use_rslora": True, "lora_alpha": 7}
    elif name == "DoRA":
        config["use_dora"] = True
        tensors[module + ".lora_magnitude_vector"] = rng.normal(size=7)
    elif name == "bias":
        config["bias"] = "all"
        tensors |= {module + ".base_layer.bias": rng.normal(size=7), P + "norm.bias": rng.normal(size=3)}
    elif name == "bias of B":
        config["lora_bias"] = True
        tensors |= {f"{P}{one}.lora_B.bias": rng.normal(size=shape[0]) for one, shape in SHAPES.items()}
    elif name == "head":
        config["modules_to_save"] = ["head"]
        tensors[P + "head.weight"] = rng.normal(size=(3, 4))
    elif name == "embedding":
        config["target_modules"] = ["q_proj", "v_proj", "embed"]
        tensors |= {P + "embed.lora_embedding_A": rng.normal(size=(2, 9))}
        tensors |= {P + "embed.lora_embedding_B": rng.normal(size=(4, 2))}
    elif name == "convolution":
        tensors |= {P + "conv.lora_A.weight": rng.normal(size=(2, 3, 3, 3))}
        tensors |= {P + "conv.lora_B.weight": rng.normal(size=(4, 2, 1, 1))}
    elif name == "grouped convolution":
        tensors |= {P + "conv.lora_A.weight": rng.normal(size=(2, 3, 3, 3))}
        tensors |= {P + "conv.lora_B.weight": rng.normal(size=(4, 1, 1, 1))}
    elif name == "PiSSA":
        config["init_lora_weights"] = "pissa_niter_4"
    elif name == "QA-LoRA":
        config["use_qalora"] = True
    elif name == "experts":
        config["target_parameters"] = ["experts.down"]
    elif name == "half":
        tensors = {key: value.astype(ml_dtypes.bfloat16) for key, value in tensors.items()}
    return tensors, config


def kind(name: str, seed: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    return extra(name, factors(dict.fromkeys(SHAPES, 2), seed), settings(lora_alpha=5))


def network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    base = {f"{name}.weight": rng.normal(size=shape) for name, shape in SHAPES.items()}
    return base | {"layers.0.q_proj.bias": rng.normal(size=7), "norm.bias": rng.normal(size=3)}
