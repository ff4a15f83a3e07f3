"""Folders of transformers' models, blended on disk, load with `from_pretrained` and are the mean of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kofn

transformers = pytest.importorskip("transformers", reason="a peer: pip install 'kofn[peers]'")
torch = pytest.importorskip("torch")

_DECODER = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}


def _named(model: str, config: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**settings))


# Tied and untied heads, decoders, encoders and both, images and sound.
MODELS = {
    "llama": _named("LlamaForCausalLM", "LlamaConfig", **_DECODER),
    "llama, tied": _named("LlamaForCausalLM", "LlamaConfig", **_DECODER, tie_word_embeddings=True),
    "mistral": _named("MistralForCausalLM", "MistralConfig", **_DECODER),
    "qwen2": _named("Qwen2ForCausalLM", "Qwen2Config", **_DECODER, tie_word_embeddings=True),
    "gpt2": _named("GPT2LMHeadModel", "GPT2Config", vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2),
    "bert": _named(
        "BertForMaskedLM",
        "BertConfig",
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    ),
    "t5": _named(
        "T5ForConditionalGeneration", "T5Config", vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
    ),
    "vit": _named(
        "ViTForImageClassification",
        "ViTConfig",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
    ),
    "whisper": _named(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        vocab_size=64,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
}


def saved(name: str, folder: Path, dtype: Any) -> tuple[list[Any], list[str]]:
    """Two models of one architecture with unlike weights, and the folders that they were saved to."""
    models, paths = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        model = MODELS[name]().to(dtype)
        paths.append(str(folder / f"model{seed}"))
        model.save_pretrained(paths[-1])
        models.append(model)
    return models, paths


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_blend_loads_and_is_the_mean(name: str, dtype: Any, tmp_path: Path) -> None:
    models, paths = saved(name, tmp_path, dtype)
    kofn.combine(paths, out=tmp_path / "blend")
    loaded, missing = type(models[0]).from_pretrained(tmp_path / "blend", dtype=dtype, output_loading_info=True)
    assert not missing["missing_keys"]
    assert not missing["unexpected_keys"]
    assert not missing["mismatched_keys"]
    states = [model.state_dict() for model in models]
    assert loaded.state_dict().keys() == states[0].keys()
    for key, blended in loaded.state_dict().items():
        mean = np.mean([state[key].double().numpy() for state in states], axis=0)
        assert torch.equal(blended, torch.from_numpy(mean).to(dtype)), key


@pytest.mark.parametrize("name", ["llama, tied", "t5", "whisper"])
def test_modules_in_memory_are_blended_and_load(name: str, tmp_path: Path) -> None:
    models, _ = saved(name, tmp_path, torch.float32)
    blend = kofn.combine(models).result
    target = MODELS[name]()
    target.load_state_dict(blend)
    for key, blended in target.state_dict().items():
        assert torch.allclose(blended, (models[0].state_dict()[key] + models[1].state_dict()[key]) / 2, atol=1e-7), key
