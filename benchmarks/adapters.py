"""Adapters of every trainer as kofn reads, adds and folds them, against the trainers' own code and their formulas.

Each row is the largest difference of an entry, over the largest entry. A trainer that is not installed is left out, by
name; its formula is computed in float64 in any case.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Updates = dict[str, NDArray[np.float64]]
OUT, IN, RANK, ALPHA = 24, 20, 3, 5.0
KERNEL = (3, 3)


def drawn(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def apart(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> float:
    """The largest difference over the largest entry; names must be the same."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"names differ: {sorted(ours.keys() ^ theirs.keys())[:4]}")
    worst = 0.0
    for name, array in theirs.items():
        mine, other = np.asarray(ours[name], np.float64).reshape(-1), np.asarray(array, np.float64).reshape(-1)
        worst = max(worst, float(np.abs(mine - other).max() / (np.abs(other).max() or 1.0)))
    return worst


def read(tensors: Arrays, config: dict[str, Any] | None = None) -> Updates:
    """The updates that kofn reads, by module."""
    from kofn.io.adapters import Adapter

    return {module: pair.delta() for module, pair in Adapter(tensors, config).pairs.items()}


def kohya() -> dict[str, float]:
    tensors: Arrays = {
        "lora_unet_q.lora_down.weight": drawn(0, RANK, IN),
        "lora_unet_q.lora_up.weight": drawn(1, OUT, RANK),
        "lora_unet_q.alpha": np.array(ALPHA, np.float32),
        "lora_unet_c.lora_down.weight": drawn(2, RANK, IN, *KERNEL),
        "lora_unet_c.lora_up.weight": drawn(3, OUT, RANK, 1, 1),
    }
    wide = {name: array.astype(np.float64) for name, array in tensors.items()}
    formula = {
        "lora_unet_q": ALPHA / RANK * wide["lora_unet_q.lora_up.weight"] @ wide["lora_unet_q.lora_down.weight"],
        "lora_unet_c": np.einsum(
            "or,rikl->oikl", wide["lora_unet_c.lora_up.weight"][:, :, 0, 0], wide["lora_unet_c.lora_down.weight"]
        ),
    }
    return {"kohya, its formula": apart(read(tensors), formula)}


def lycoris_files() -> dict[str, Arrays]:
    """A module of each parametrisation: its tensors without the module's name."""
    alpha = {"alpha": np.array(ALPHA, np.float32)}
    loha = {f"hada_w{half}_a": drawn(half, OUT, RANK) for half in (1, 2)}
    loha |= {f"hada_w{half}_b": drawn(2 + half, RANK, IN) for half in (1, 2)}
    tucker = {f"hada_t{half}": drawn(half, RANK, RANK, *KERNEL) for half in (1, 2)}
    tucker |= {f"hada_w{half}_a": drawn(2 + half, RANK, OUT) for half in (1, 2)}
    tucker |= {f"hada_w{half}_b": drawn(4 + half, RANK, IN) for half in (1, 2)}
    whole = {"lokr_w1": drawn(1, 4, 4), "lokr_w2": drawn(2, 6, 5)}
    half = {"lokr_w1": drawn(1, 4, 4), "lokr_w2_a": drawn(2, 6, 2), "lokr_w2_b": drawn(3, 2, 5)}
    both = {"lokr_w1_a": drawn(4, 4, 1), "lokr_w1_b": drawn(5, 1, 4)}
    both |= {"lokr_w2_a": drawn(2, 6, 1), "lokr_w2_b": drawn(3, 1, 5)}
    mid = {
        "lora_down.weight": drawn(1, RANK, IN, 1, 1),
        "lora_mid.weight": drawn(2, RANK, RANK, *KERNEL),
        "lora_up.weight": drawn(3, OUT, RANK, 1, 1),
    }
    return {
        "LoHa": loha | alpha,
        "LoHa, Tucker": tucker | alpha,
        "LoKr, whole": whole | alpha,
        "LoKr, one factorised": half | alpha,
        "LoKr, both factorised": both | alpha,
        "LoCon, Tucker": mid | alpha,
    }


def lycoris() -> dict[str, float]:
    """The weight that LyCORIS's modules add in their forward pass."""
    import torch
    from lycoris.functional.general import weight_decompose
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    from kofn.combination import fold_adapter

    kinds = {"LoHa": LohaModule, "LoKr": LokrModule, "LoCon": LoConModule}
    rows = {}
    for title, tensors in lycoris_files().items():
        kind = kinds[title.partition(",")[0]]
        layer = torch.nn.Conv2d(IN, OUT, KERNEL) if "Tucker" in title else torch.nn.Linear(IN, OUT)
        given = [tensors.get(name) for name in kind.weight_list]
        with torch.no_grad():
            module = kind.make_module_from_state_dict(
                "m", layer, *(None if array is None else torch.from_numpy(array) for array in given)
            )
            added = module.make_weight() * module.scale if kind is LoConModule else module.get_weight(module.shape)
            scaled = torch.from_numpy(1 + np.abs(drawn(9, OUT, *(1,) * (layer.weight.ndim - 1))))
            rescaled = weight_decompose(layer.weight + added, scaled, 1, True)
        ours = {f"lora_unet_m.{name}": array for name, array in tensors.items()}
        rows[f"{title}, LyCORIS"] = apart(read(ours), {"lora_unet_m": added.numpy()})
        dora = fold_adapter({"m.weight": layer.weight.detach()}, {**ours, "lora_unet_m.dora_scale": scaled})
        rows[f"{title}, DoRA"] = apart(dora, {"m.weight": rescaled.numpy()})
    return rows


def mlx() -> dict[str, float]:
    """What mlx-lm fuses into a linear layer."""
    import mlx.core as mx
    from mlx import nn
    from mlx_lm.tuner.lora import LoRALinear

    layer = nn.Linear(IN, OUT, bias=False)
    start = np.array(layer.weight)
    with_lora = LoRALinear.from_base(layer, r=RANK, scale=2.5)
    with_lora.lora_a, with_lora.lora_b = mx.array(drawn(0, IN, RANK)), mx.array(drawn(1, RANK, OUT))
    tensors = {"q.lora_a": drawn(0, IN, RANK), "q.lora_b": drawn(1, RANK, OUT)}
    ours = read(tensors, {"lora_parameters": {"rank": RANK, "scale": 2.5}})
    folded = {"q": start.astype(np.float64) + ours["q"]}
    return {"MLX, fused": apart(folded, {"q": np.array(with_lora.fuse().weight)})}


def mlx_models() -> dict[str, float]:
    """kofn's sum of two, loaded by mlx-lm into a small Llama and fused, and folded by kofn."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.utils import load_adapters

    from kofn.combination import fold_adapters, stack_adapters

    mx.random.seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24, "num_attention_heads": 2}
    model = Model(ModelArgs(model_type="llama", rms_norm_eps=1e-6, vocab_size=32, **sizes))
    base = {name: np.array(value) for name, value in tree_flatten(model.parameters())}
    modules = ["model.layers.2.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for i, module in enumerate(modules):
            tall, wide = base[f"{module}.weight"].shape
            paths.append(Path(name) / str(i))
            paths[-1].mkdir()
            factors = {f"{module}.lora_a": drawn(i, wide, 2 + i), f"{module}.lora_b": drawn(5 + i, 2 + i, tall)}
            written = {name: mx.array(array) for name, array in factors.items()}
            mx.save_safetensors(str(paths[-1] / "adapters.safetensors"), written)  # as its trainer does
            config = {"num_layers": 1 + i, "lora_parameters": {"rank": 2 + i, "scale": 20.0, "dropout": 0.0}}
            (paths[-1] / "adapter_config.json").write_text(json.dumps(config))
        stack_adapters(paths, normalize=False, out=Path(name) / "sum")
        load_adapters(model, str(Path(name) / "sum"))
        fused = {
            f"{name}.weight": layer.fuse().weight for name, layer in model.named_modules() if hasattr(layer, "fuse")
        }
        folded = fold_adapters(base, paths)
    theirs = {name: np.array(fused.get(name, array)) for name, array in base.items()}
    return {"MLX, kofn's sum loaded": apart(folded, theirs)}


def torchtune() -> dict[str, float]:
    """What torchtune merges."""
    import torch
    from torchtune.modules.peft import get_merged_lora_ckpt

    factors = {"q.lora_a.weight": drawn(0, RANK, IN), "q.lora_b.weight": drawn(1, OUT, RANK)}
    base = drawn(2, OUT, IN)
    state = {name: torch.from_numpy(array.copy()) for name, array in ({"q.weight": base} | factors).items()}
    merged = get_merged_lora_ckpt(state, rank=RANK, alpha=ALPHA)
    ours = read(factors, {"r": RANK, "lora_alpha": ALPHA})
    return {"torchtune, merged": apart({"q.weight": base + ours["q"]}, {"q.weight": merged["q.weight"].numpy()})}


def peft() -> dict[str, float]:
    """PEFT's `merge_and_unload` of an adapter, and its weighted sum by `cat`, through files."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    from kofn.combination import fold_adapter, stack_adapters

    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = {"fc": torch.nn.Linear(IN, OUT), "conv": torch.nn.Conv2d(4, OUT, KERNEL)}
        return torch.nn.ModuleDict(layers)

    def arrays(network: torch.nn.Module) -> Arrays:
        return {name: value.detach().numpy() for name, value in network.state_dict().items()}

    rows = {}
    base = arrays(model())
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for seed, (r, rslora) in enumerate(((2, False), (3, True))):
            config = LoraConfig(r=r, lora_alpha=5, use_rslora=rslora, target_modules=["fc", "conv"])
            trained = get_peft_model(model(), config)
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter.data.normal_(generator=torch.Generator().manual_seed(seed))
            paths.append(Path(name) / str(seed))
            trained.save_pretrained(paths[-1])
        merged = PeftModel.from_pretrained(model(), paths[1]).merge_and_unload()
        rows["PEFT, merged"] = apart(fold_adapter(base, paths[1]), arrays(merged))
        both = PeftModel.from_pretrained(model(), paths[0], adapter_name="0")
        both.load_adapter(paths[1], adapter_name="1")
        both.add_weighted_adapter(["0", "1"], [0.25, 0.75], "sum", combination_type="cat")
        both.set_adapter("sum")
        stack_adapters(paths, weights=[0.25, 0.75], out=Path(name) / "sum")
        summed = fold_adapter(base, Path(name) / "sum")
        rows["PEFT, weighted sum"] = apart(summed, arrays(both.merge_and_unload()))
        loaded = PeftModel.from_pretrained(model(), Path(name) / "sum").merge_and_unload()
        rows["PEFT, kofn's sum loaded"] = apart(summed, arrays(loaded))
    return rows


def diffusers() -> dict[str, float]:
    """A small U-Net with an adapter in each spelling, loaded and fused by diffusers; and kofn's sum of two."""
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    from kofn.combination import fold_adapter, stack_adapters

    def model() -> Any:
        torch.manual_seed(0)
        return UNet2DConditionModel(
            block_out_channels=(32, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=4,
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )

    network = model()
    base = {name: value.numpy() for name, value in network.state_dict().items()}
    linear = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear) and "attn" in name]
    modules = [name for name in linear if name.endswith(("to_q", "to_out.0"))]

    def adapter(ranks: tuple[int, int], seed: int) -> Arrays:
        out = {}
        for i, module in enumerate(modules):
            tall, wide = base[f"{module}.weight"].shape
            rank = ranks[i % 2]
            out[f"unet.{module}.lora_A.weight"] = drawn(seed + i, rank, wide)
            out[f"unet.{module}.lora_B.weight"] = drawn(seed + 50 + i, tall, rank)
        return out

    def fused(path: Path) -> Arrays:
        network = model()
        network.load_lora_adapter(str(path), weight_name="pytorch_lora_weights.safetensors", prefix="unet")
        network.fuse_lora()
        network.unload_lora()
        return {name: value.numpy() for name, value in network.state_dict().items()}

    from safetensors.numpy import save_file

    rows = {}
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for seed, ranks in enumerate(((2, 2), (3, 1))):
            paths.append(Path(name) / str(seed))
            paths[-1].mkdir()
            save_file(adapter(ranks, 100 * seed), paths[-1] / "pytorch_lora_weights.safetensors")
        rows["diffusers, fused"] = apart(fold_adapter(base, paths[0]), fused(paths[0]))
        stack_adapters(paths, weights=[2, -0.5], normalize=False, out=Path(name) / "sum")
        summed = fold_adapter(fold_adapter(base, paths[0], weight=2), paths[1], weight=-0.5)
        rows["diffusers, kofn's sum loaded"] = apart(summed, fused(Path(name) / "sum"))
        flat = flattened(base)
        state, alphas = _convert_non_diffusers_lora_to_diffusers({k: torch.from_numpy(v) for k, v in flat.items()})
        network = model()
        network.load_lora_adapter(state, network_alphas=alphas, prefix="unet")
        network.fuse_lora()
        network.unload_lora()
        theirs = {name: value.numpy() for name, value in network.state_dict().items()}
        rows["kohya, fused by diffusers"] = apart(fold_adapter(base, flat), theirs)
    return rows


def flattened(base: Arrays) -> Arrays:
    """kohya's adapter of every linear layer of attention and every convolution of width 3, with one rank and alpha."""
    out = {}
    for i, (name, weight) in enumerate(base.items()):
        attention = weight.ndim == 2 and "attn" in name
        if attention or (weight.shape[2:] == KERNEL and "resnets" in name):
            module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            tall, wide, *kernel = weight.shape
            out[f"{module}.lora_down.weight"] = drawn(i, RANK, wide, *kernel)
            out[f"{module}.lora_up.weight"] = drawn(1000 + i, tall, RANK, *(1 for _ in kernel))
            out[f"{module}.alpha"] = np.array(ALPHA, np.float32)
    return out


def conversions() -> dict[str, float]:
    """One update saved by every family, added across families: the sum against its formula."""
    from kofn.combination import stack_adapters

    A, B = drawn(0, RANK, IN), drawn(1, OUT, RANK)
    members: list[Any] = [
        {"lora_unet_mid_to_q.lora_down.weight": A, "lora_unet_mid_to_q.lora_up.weight": B},
        {"unet.mid.to_q.lora_A.weight": A, "unet.mid.to_q.lora_B.weight": B},
        {"mid.to_q.lora_a": A.T, "mid.to_q.lora_b": B.T},
        {"mid.to_q.lora_a.weight": A, "mid.to_q.lora_b.weight": B},
        {"base_model.model.mid.to_q.lora_A.weight": A, "base_model.model.mid.to_q.lora_B.weight": B},
    ]
    plan = stack_adapters(members, weights=[1, 2, 3, 4, 5], normalize=False)
    (pair,) = plan.result.pairs.values()
    return {"five families added": apart({"q": pair.delta()}, {"q": 15 * B.astype(np.float64) @ A})}


CASES: dict[str, tuple[str | None, Callable[[], dict[str, float]]]] = {
    "kohya": (None, kohya),
    "five families": (None, conversions),
    "LyCORIS": ("lycoris", lycoris),
    "mlx-lm": ("mlx_lm", lambda: mlx() | mlx_models()),
    "torchtune": ("torchtune", torchtune),
    "PEFT": ("peft", peft),
    "diffusers": ("diffusers", diffusers),
}


def run(*, quick: bool = False, rounds: int = 1) -> dict[str, Any]:  # noqa: ARG001, the runner gives both
    """The table: what is compared, and the largest difference."""
    rows: dict[str, float] = {}
    absent = []
    print(f"\n{'adapters':30s} largest difference over the largest entry")
    for title, (package, case) in CASES.items():
        if package is not None and importlib.util.find_spec(package) is None:
            absent.append(title)
            continue
        try:
            measured = case()
        except ImportError as error:  # a trainer beside a release of a library that it does not take
            absent.append(f"{title} ({' '.join(str(error).split())[:90]})")
            continue
        rows |= measured
        for row, difference in measured.items():
            print(f"{row:30s} {difference:.2g}", flush=True)
    if absent:
        print(f"not installed: {', '.join(absent)}")
    return {"apart": rows, "not installed": absent}
