"""mergekit's recipes run by mergekit and by kofn: the largest difference of each, in units of the last place.

Llama-like models of four layers are written to a folder, each recipe of `recipes.yaml` is run by both, and every tensor
is compared. Where mergekit is not installed, the figures that it gave stand in for it (`recipes.json`, two sums of each
tensor).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODELS = ("base", "a", "b", "c")
ROUNDED = {"base16": ("base", "bfloat16"), "a16": ("a", "bfloat16"), "b16": ("b", "bfloat16"), "bh": ("b", "float16")}
ADAPTER = "lora"
FIGURES = Path(__file__).with_name("recipes.json")
TEXTS = Path(__file__).with_name("recipes.yaml")
DIGITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}  # binary, after the leading one
NEAR = 8  # last places of the tensor's largest entry that sums in float32, there, may be off
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
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Text:
    """A recipe, or several in one file, in which names of models stand for their folders.

    `chance` says that a few entries may differ: mergekit's choice among equal changes of half-precision models is
    arbitrary. `exact` says that none may: of half-precision models mergekit rounds each step, and so do we.
    """

    title: str
    recipe: dict[str, Any] | list[dict[str, Any]]
    chance: bool = False
    exact: bool = False

    @property
    def dtype(self) -> str:
        """What the models are rounded to."""
        recipe = self.recipe[-1] if isinstance(self.recipe, list) else self.recipe
        return str(recipe.get("dtype") or "float64")


def recipes() -> dict[str, Text]:
    """The recipes of `recipes.yaml`, by title."""
    import yaml

    return {entry["title"]: Text(**entry) for entry in yaml.safe_load(TEXTS.read_text())}


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
    """The base, three models that were changed from it, and some of them rounded to half precision."""
    from kofn.combination._sweep.members import float_dtype
    from kofn.io.tensor_writer import write_arrays

    rng = np.random.default_rng(0)
    base = {name: rng.normal(1.0 if len(shape) == 1 else 0.0, 0.02, shape) for name, shape in shapes().items()}
    written: dict[str, Arrays] = {}
    for seed, model in enumerate(MODELS):
        drawn = np.random.default_rng(seed)
        changes = {name: 0.02 * bool(seed) * drawn.normal(size=array.shape) for name, array in base.items()}
        written[model] = {name: (array + changes[name]).astype(np.float32) for name, array in base.items()}
    for model, (source, dtype) in ROUNDED.items():
        written[model] = {name: array.astype(float_dtype(dtype)) for name, array in written[source].items()}
    _write_adapter(folder / ADAPTER)
    for model, arrays in written.items():
        (folder / model).mkdir()
        write_arrays(folder / model / "model.safetensors", arrays)
        config = CONFIG | ({"torch_dtype": ROUNDED[model][1]} if model in ROUNDED else {})
        (folder / model / "config.json").write_text(json.dumps(config))


def _write_adapter(folder: Path) -> None:
    """A LoRA adapter of some of the layers."""
    from kofn.io.tensor_writer import write_arrays

    rng, tensors = np.random.default_rng(7), {}
    for name, shape in shapes().items():
        if "q_proj" in name or "down_proj" in name:
            stem = "base_model.model." + name.removesuffix(".weight")
            tensors[f"{stem}.lora_A.weight"] = rng.normal(0, 0.1, (4, shape[1])).astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = rng.normal(0, 0.1, (shape[0], 4)).astype(np.float32)
    folder.mkdir()
    write_arrays(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def located(recipe: Any, folder: Path) -> Any:
    """The recipe with the models' folders in place of their names."""
    if isinstance(recipe, dict):
        return {key: located(value, folder) for key, value in recipe.items()}
    if isinstance(recipe, list | tuple):
        return [located(value, folder) for value in recipe]
    known = (*MODELS, *ROUNDED, ADAPTER)
    if not isinstance(recipe, str) or not all(part in known for part in recipe.split("+")[1:]):
        return recipe
    return "+".join(str(folder / part) if part in known else part for part in recipe.split("+"))


def ours(recipe: Any, folder: Path, out: Path) -> dict[str, NDArray[Any]]:
    """What kofn makes of a recipe, through its file."""
    from kofn.combination import merge_recipe
    from kofn.io.tensors import Checkpoint

    path = folder / "recipe.yaml"
    path.write_text(_text(recipe, folder))
    merge_recipe(path, out=out)
    return {name: tensor.array() for name, tensor in Checkpoint.open(out).items()}


def _text(recipe: Any, folder: Path) -> str:
    """The recipe as a file holds it."""
    import yaml

    documents = recipe if isinstance(recipe, list) else [recipe]
    return yaml.safe_dump_all([located(document, folder) for document in documents], sort_keys=False)


def theirs(recipe: Any, folder: Path, out: Path) -> dict[str, NDArray[Any]]:
    """What mergekit makes of it."""
    import logging

    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from kofn.io.tensors import Checkpoint

    logging.disable(logging.CRITICAL)
    options = MergeOptions(copy_tokenizer=False, quiet=True, lora_merge_cache=str(folder / "adapted"))
    if isinstance(recipe, list):
        _theirs_in_turn(_text(recipe, folder), folder / "made", out, options)
    else:
        run_merge(MergeConfiguration.model_validate(located(recipe, folder)), str(out), options)
    return {name: tensor.array() for name, tensor in Checkpoint.open(out).items()}


def _theirs_in_turn(text: str, made: Path, out: Path, options: Any) -> None:
    """What mergekit's command for several recipes in one file does."""
    from mergekit.graph import Executor
    from mergekit.scripts.multimerge import load_config, make_tasks

    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    configs, needed = load_config(text, str(made))
    tasks = make_tasks(configs, needed, options, str(made), str(out), False)
    Executor(tasks, math_device="cpu", storage_device="cpu").execute(desc="in turn")


def figures(arrays: dict[str, NDArray[Any]]) -> dict[str, list[float]]:
    """Two sums of each tensor: plain, and weighted so that entries that change places show."""
    out = {}
    for name, array in arrays.items():
        flat = array.astype(np.float64).reshape(-1)
        out[name] = [round(float(flat.sum()), 7), round(float(flat @ np.cos(np.arange(len(flat)))), 7)]
    return out


def differences(first: Arrays, second: Arrays, rounded: str = "float64") -> tuple[float, float]:
    """The largest difference of an entry, and the share of the entries that are farther apart than `NEAR`.

    Differences are in units of the last place at the tensor's largest entry, of its dtype, or of the dtype that the
    recipe has it `rounded` to, where that is narrower.
    """
    if first.keys() != second.keys():
        raise ValueError(f"tensors differ: {sorted(first.keys() ^ second.keys())[:4]}")
    worst, far, size = 0.0, 0, 0
    for name, array in first.items():
        other = second[name]
        if array.dtype != other.dtype or array.shape != other.shape:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, {other.dtype} {other.shape}")
        a, b = array.astype(np.float64), other.astype(np.float64)
        digits = min(DIGITS[array.dtype.name], DIGITS[rounded])
        apart = np.abs(a - b) / 2.0 ** (np.floor(np.log2(np.abs(a).max() or 1.0)) - digits)
        worst = max(worst, float(apart.max()))
        far, size = far + int(np.count_nonzero(apart > (NEAR if digits > 10 else 2))), size + a.size
    return worst, far / size


def sums_apart(expected: Mapping[str, list[float]], sums: Mapping[str, list[float]]) -> float:
    """The largest difference of a sum."""
    return max(abs(x - y) for name, pair in expected.items() for x, y in zip(pair, sums[name], strict=True))


def run(*, quick: bool = False, rounds: int = 1) -> dict[str, Any]:  # noqa: ARG001, the runner gives both
    """The table: recipe, and how far the two are apart."""
    peer = importlib.util.find_spec("mergekit") is not None
    expected = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    rows = {}
    columns = "apart, last places   farther entries" if peer else "largest sum apart"
    print(f"\n{'recipe':34s} {columns}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        for title, text in list(recipes().items())[: 3 if quick else None]:
            made = ours(text.recipe, folder, folder / "ours")
            if peer:
                reference = theirs(text.recipe, folder, folder / "theirs")
                expected[title] = figures(reference)
                worst, far = differences(made, reference, text.dtype)
                rows[title] = worst
                print(
                    f"{title:34s} {worst:<20.3g} {f'{far:.2%}' + ', equal changes' * text.chance if far else 0}",
                    flush=True,
                )
            else:
                rows[title] = sums_apart(expected[title], figures(made))
                print(f"{title:34s} {rows[title]:.3g}", flush=True)
            for out in ("ours", "theirs"):
                shutil.rmtree(folder / out, ignore_errors=True)
    if peer and not quick:
        FIGURES.write_text(json.dumps({title: expected[title] for title in rows}) + "\n")
    return {"mergekit": peer, "apart": rows}
