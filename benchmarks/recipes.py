"""mergekit's recipes run by mergekit and by kofn: the largest difference of each, in units of the last place.

Four Llama-like models of four layers are written to a folder, each recipe is run by both, and every tensor is compared.
Where mergekit is not installed, the figures that it gave (`recipes.json`, two sums of each tensor) stand in for it.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODELS = ("base", "a", "b", "c")
FIGURES = Path(__file__).with_name("recipes.json")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 64,
}
# Names of models stand for their folders.
RECIPES: dict[str, dict[str, Any]] = {
    "linear": {
        "merge_method": "linear",
        "models": [
            {"model": "a", "parameters": {"weight": 0.9}},
            {"model": "b", "parameters": {"weight": 0.3}},
            {"model": "c", "parameters": {"weight": 0.5}},
        ],
    },
    "linear global": {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 0.9}}, {"model": "b"}],
        "parameters": {"weight": 0.1},
    },
    "linear raw": {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 0.9}}, {"model": "b", "parameters": {"weight": -0.3}}],
        "parameters": {"normalize": False},
    },
    "linear negative": {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 1.9}}, {"model": "b", "parameters": {"weight": -0.3}}],
    },
    "linear base": {
        "merge_method": "linear",
        "base_model": "a",
        "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 1}}],
    },
    "ties": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "base"},
            {"model": "a", "parameters": {"weight": 1.0, "density": 0.5}},
            {"model": "b", "parameters": {"weight": 0.5, "density": 0.3}},
        ],
        "parameters": {"normalize": True, "int8_mask": True},
    },
    "ties defaults": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 1.0}}, {"model": "b", "parameters": {"weight": 0.5}}],
    },
    "ties raw": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.5, "density": 0.5}},
            {"model": "b", "parameters": {"weight": 0.5, "density": 0.5}},
        ],
        "parameters": {"normalize": False, "lambda": 1.3},
    },
    "ties negative": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 1, "density": 0.6}},
            {"model": "b", "parameters": {"weight": -0.4, "density": 0.6}},
            {"model": "c", "parameters": {"weight": 0.7}},
        ],
    },
    "ties rescale": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 1, "density": 0.6}},
            {"model": "b", "parameters": {"weight": 0.4, "density": 0.3}},
        ],
        "parameters": {"rescale": True},
    },
    "ties gradient": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 1.0, "density": [1, 0.7, 0.1]}},
            {"model": "b", "parameters": {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}},
            {"model": "c", "parameters": {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]}},
        ],
        "parameters": {"normalize": True, "int8_mask": True},
    },
    "ta": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.6}}, {"model": "b", "parameters": {"weight": -0.4}}],
    },
    "ta norm base weight": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {"model": "base", "parameters": {"weight": 1}},
            {"model": "a", "parameters": {"weight": 0.6}},
            {"model": "b", "parameters": {"weight": 0.2}},
        ],
        "parameters": {"normalize": True, "lambda": 0.5},
    },
    "dare_ties dense": {
        "merge_method": "dare_ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.6, "density": 1}},
            {"model": "b", "parameters": {"weight": 0.6, "density": 1}},
        ],
    },
    "dare_linear dense norm": {
        "merge_method": "dare_linear",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.6}}, {"model": "b", "parameters": {"weight": 0.6}}],
        "parameters": {"normalize": True},
    },
    "breadcrumbs": {
        "merge_method": "breadcrumbs",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.6, "density": 0.7, "gamma": 0.1}},
            {"model": "b", "parameters": {"weight": 0.6, "density": 0.9}},
        ],
    },
    "breadcrumbs_ties": {
        "merge_method": "breadcrumbs_ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.6, "density": 0.7, "gamma": 0.05}},
            {"model": "b", "parameters": {"weight": 0.6, "density": 0.9, "gamma": 0.05}},
        ],
    },
    "slerp": {
        "merge_method": "slerp",
        "base_model": "b",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"t": 0.25},
    },
    "slerp base only": {
        "merge_method": "slerp",
        "base_model": "a",
        "models": [{"model": "b"}],
        "parameters": {"t": 0.25},
    },
    "slerp gradient": {
        "merge_method": "slerp",
        "base_model": "a",
        "slices": [{"sources": [{"model": "a", "layer_range": [0, 4]}, {"model": "b", "layer_range": [0, 4]}]}],
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                {"value": 0.5},
            ]
        },
    },
    "nuslerp": {
        "merge_method": "nuslerp",
        "models": [{"model": "a", "parameters": {"weight": 0.3}}, {"model": "b", "parameters": {"weight": 0.7}}],
    },
    "nuslerp base": {
        "merge_method": "nuslerp",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.3}}, {"model": "b", "parameters": {"weight": 0.7}}],
    },
    "multislerp": {
        "merge_method": "multislerp",
        "models": [
            {"model": "a", "parameters": {"weight": 0.3}},
            {"model": "b", "parameters": {"weight": 0.7}},
            {"model": "c", "parameters": {"weight": 0.2}},
        ],
    },
    "multislerp base": {
        "merge_method": "multislerp",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.3}},
            {"model": "b", "parameters": {"weight": 0.7}},
            {"model": "c", "parameters": {"weight": 0.2}},
        ],
    },
    "karcher": {"merge_method": "karcher", "models": [{"model": "a"}, {"model": "b"}, {"model": "c"}]},
    "model_stock": {
        "merge_method": "model_stock",
        "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}, {"model": "c"}],
    },
    "nearswap": {
        "merge_method": "nearswap",
        "base_model": "base",
        "models": [{"model": "a"}],
        "parameters": {"t": 0.01},
    },
    "sce": {"merge_method": "sce", "base_model": "base", "models": [{"model": "a"}, {"model": "b"}, {"model": "c"}]},
    "sce top": {
        "merge_method": "sce",
        "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}, {"model": "c"}],
        "parameters": {"select_topk": 0.4},
    },
    "passthrough": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 3]}]},
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    },
    "passthrough scale": {
        "merge_method": "passthrough",
        "slices": [
            {
                "sources": [
                    {
                        "model": "a",
                        "layer_range": [0, 3],
                        "parameters": {
                            "scale": [
                                {"filter": "o_proj", "value": 0.0},
                                {"filter": "down_proj", "value": 0.0},
                                {"value": 1.0},
                            ]
                        },
                    }
                ]
            },
            {"sources": [{"model": "b", "layer_range": [1, 4]}]},
        ],
    },
    "linear slices": {
        "merge_method": "linear",
        "slices": [
            {
                "sources": [
                    {"model": "a", "layer_range": [0, 2], "parameters": {"weight": 1}},
                    {"model": "b", "layer_range": [0, 2], "parameters": {"weight": [0.2, 0.8]}},
                ]
            },
            {
                "sources": [
                    {"model": "b", "layer_range": [1, 4], "parameters": {"weight": 1}},
                    {"model": "c", "layer_range": [0, 3], "parameters": {"weight": [0, 1, 2]}},
                ]
            },
        ],
    },
    "ties slices": {
        "merge_method": "ties",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 4]},
                    {"model": "a", "layer_range": [0, 4], "parameters": {"weight": 1, "density": [0.2, 0.8]}},
                    {"model": "b", "layer_range": [0, 4], "parameters": {"weight": 0.5, "density": 0.5}},
                ],
                "parameters": {"normalize": False},
            }
        ],
    },
    "bf16": {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 1}}],
        "dtype": "bfloat16",
    },
    "out_dtype": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.5}}, {"model": "b", "parameters": {"weight": 1}}],
        "out_dtype": "bfloat16",
    },
    "long": {
        "merge_method": "task_arithmetic",
        "base_model": {"model": {"path": "base"}},
        "models": [{"model": {"model": {"path": "a"}}, "parameters": {"weight": 0.5, "nonsense": 3}}],
        "name": "x",
    },
    "unused": {
        "merge_method": "linear",
        "models": [
            {"model": "a", "parameters": {"weight": 1, "density": 0.3}},
            {"model": "b", "parameters": {"weight": 1}},
        ],
        "parameters": {"lambda": 3, "t": 4, "int8_mask": True},
    },
}

Arrays = dict[str, NDArray[np.float32]]


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a model."""
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (64, 32)}
    for layer in range(4):
        lead = f"model.layers.{layer}."
        out |= {f"{lead}self_attn.{name}_proj.weight": (16 if name in "kv" else 32, 32) for name in "qkvo"}
        out |= {f"{lead}mlp.{name}_proj.weight": (48, 32) for name in ("gate", "up")}
        out |= {f"{lead}mlp.down_proj.weight": (32, 48)}
        out |= {f"{lead}{name}_layernorm.weight": (32,) for name in ("input", "post_attention")}
    return out | {"model.norm.weight": (32,), "lm_head.weight": (64, 32)}


def write_models(folder: Path) -> None:
    """The base, and three models that were changed from it."""
    from kofn.io.tensor_writer import write_arrays

    rng = np.random.default_rng(0)
    base = {name: rng.normal(1.0 if len(shape) == 1 else 0.0, 0.02, shape) for name, shape in shapes().items()}
    for seed, model in enumerate(MODELS):
        drawn = np.random.default_rng(seed)
        changes = {name: 0.02 * bool(seed) * drawn.normal(size=array.shape) for name, array in base.items()}
        (folder / model).mkdir()
        arrays = {name: (array + changes[name]).astype(np.float32) for name, array in base.items()}
        write_arrays(folder / model / "model.safetensors", arrays)
        (folder / model / "config.json").write_text(json.dumps(CONFIG))


def located(recipe: Any, folder: Path) -> Any:
    """The recipe with the models' folders in place of their names."""
    if isinstance(recipe, dict):
        return {key: located(value, folder) for key, value in recipe.items()}
    if isinstance(recipe, list | tuple):
        return [located(value, folder) for value in recipe]
    return str(folder / recipe) if isinstance(recipe, str) and recipe in MODELS else recipe


def ours(recipe: dict[str, Any], folder: Path, out: Path) -> dict[str, NDArray[Any]]:
    """What kofn makes of a recipe, through its file."""
    import yaml

    from kofn.combination import merge_recipe
    from kofn.io.tensors import Checkpoint

    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(located(recipe, folder), sort_keys=False))
    merge_recipe(path, out=out)
    return {name: tensor.array() for name, tensor in Checkpoint.open(out).items()}


def theirs(recipe: dict[str, Any], folder: Path, out: Path) -> dict[str, NDArray[Any]]:
    """What mergekit makes of it."""
    import logging

    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from kofn.io.tensors import Checkpoint

    logging.disable(logging.CRITICAL)
    config = MergeConfiguration.model_validate(located(recipe, folder))
    run_merge(config, str(out), MergeOptions(copy_tokenizer=False, quiet=True))
    return {name: tensor.array() for name, tensor in Checkpoint.open(out).items()}


def figures(arrays: dict[str, NDArray[Any]]) -> dict[str, list[float]]:
    """Two sums of each tensor: plain, and weighted so that entries that change places show."""
    out = {}
    for name, array in arrays.items():
        flat = array.astype(np.float64).reshape(-1)
        out[name] = [round(float(flat.sum()), 7), round(float(flat @ np.cos(np.arange(len(flat)))), 7)]
    return out


def difference(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> float:
    """The largest difference of an entry, in units of the last place of the dtype at the tensor's largest entry."""
    if first.keys() != second.keys():
        raise ValueError(f"tensors differ: {sorted(first.keys() ^ second.keys())[:4]}")
    worst = 0.0
    for name, array in first.items():
        other = second[name]
        if array.dtype != other.dtype or array.shape != other.shape:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, {other.dtype} {other.shape}")
        a, b = array.astype(np.float64), other.astype(np.float64)
        place = 2.0 ** (np.floor(np.log2(np.abs(a).max() or 1.0)) - (23 if array.dtype == np.float32 else 7))
        worst = max(worst, float(np.abs(a - b).max() / place))
    return worst


def run(*, quick: bool = False, rounds: int = 1) -> dict[str, Any]:  # noqa: ARG001, the runner gives both
    """The table: recipe, and how far the two are apart."""
    peer = importlib.util.find_spec("mergekit") is not None
    expected = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    rows = {}
    print(
        "\nrecipe                       apart, last places"
        if peer
        else "\nrecipe                       largest sum apart"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        for title, recipe in list(RECIPES.items())[: 3 if quick else None]:
            made = ours(recipe, folder, folder / f"ours {title}")
            if peer:
                reference = theirs(recipe, folder, folder / f"theirs {title}")
                expected[title] = figures(reference)
                rows[title] = difference(made, reference)
            else:
                sums = figures(made)
                rows[title] = max(
                    abs(x - y) for key, pair in expected[title].items() for x, y in zip(pair, sums[key], strict=True)
                )
            print(f"{title:28s} {rows[title]:.3g}", flush=True)
    if peer and not quick:
        FIGURES.write_text(json.dumps(expected) + "\n")
    return {"mergekit": peer, "apart": rows}
