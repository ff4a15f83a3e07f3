"""Adapters as mlx-lm writes them, against what it fuses; where MLX is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from kofn.combination import fold_adapter

mx = pytest.importorskip("mlx.core")
utils = pytest.importorskip("mlx_lm.tuner.utils")
llama = pytest.importorskip("mlx_lm.models.llama")
flatten = pytest.importorskip("mlx.utils").tree_flatten

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24, "num_attention_heads": 2}
CASES: dict[str, tuple[list[str] | None, int, bool]] = {
    "all modules of two layers": (None, 2, False),
    "named modules of all layers": (["self_attn.q_proj", "mlp.down_proj"], 3, False),
    "the table and a head": (["model.embed_tokens", "lm_head"], 1, False),
    "DoRA": (["self_attn.q_proj", "mlp.gate_proj"], 2, True),
    "DoRA of the table": (["model.embed_tokens"], 1, True),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_folded_is_what_mlx_fuses(name: str, tmp_path: Path) -> None:
    keys, layers, dora = CASES[name]
    mx.random.seed(0)
    settings = {"model_type": "llama", "rms_norm_eps": 1e-6, "vocab_size": 32, "tie_word_embeddings": False}
    model = llama.Model(llama.ModelArgs(**settings, **SIZES))
    base = {key: np.array(value) for key, value in flatten(model.parameters())}
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors")
    parameters: dict[str, Any] = {"rank": 4, "scale": 10.0, "dropout": 0.0, **({} if keys is None else {"keys": keys})}
    model.freeze()
    utils.linear_to_lora_layers(model, layers, parameters, use_dora=dora)
    trained = {key: value + 0.1 * mx.random.normal(value.shape) for key, value in flatten(model.trainable_parameters())}
    model.load_weights(list(trained.items()), strict=False)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    mx.save_safetensors(str(adapter / "adapters.safetensors"), trained)
    config = {"fine_tune_type": "dora" if dora else "lora", "num_layers": layers, "lora_parameters": parameters}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    fused = {
        f"{key}.weight": np.array(layer.fuse().weight) for key, layer in model.named_modules() if hasattr(layer, "fuse")
    }
    folded = fold_adapter(tmp_path / "base.safetensors", adapter, out=tmp_path / "out.safetensors")
    assert fused
    for key, array in base.items():
        assert np.abs(folded[key] - fused.get(key, array)).max() < 2e-6, key
