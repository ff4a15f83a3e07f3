"""Adapters of tiny transformers trained by PEFT: what is folded loads, and is what PEFT merges."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from kofn.combination import fold_adapter, fold_adapters
from kofn.core.checks import InputError
from kofn.io.tensors import Checkpoint

peft = pytest.importorskip("peft", reason="a peer: pip install 'kofn[peers]'")
transformers = pytest.importorskip("transformers", reason="a peer: pip install 'kofn[peers]'")
torch = pytest.importorskip("torch")

TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 8}


def _named(model: str, config: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**settings))


def _llava() -> Any:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_index=5,
    )
    return transformers.LlavaForConditionalGeneration(config)


def _qwen_vl() -> Any:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "rope_scaling": rope, "rope_parameters": rope},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4},
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def _gemma() -> Any:
    config = transformers.Gemma3Config(text_config={**TEXT, "head_dim": 8}, vision_config=VISION, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config)


LLAMA = _named("LlamaForCausalLM", "LlamaConfig", **TEXT)
TIED = _named("LlamaForCausalLM", "LlamaConfig", **TEXT, tie_word_embeddings=True)
CLASSES = _named("LlamaForSequenceClassification", "LlamaConfig", **TEXT, num_labels=3)
QWEN_EXPERTS = _named("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **TEXT, **EXPERTS, num_experts=4, decoder_sparse_step=1)
MIXTRAL = _named("MixtralForCausalLM", "MixtralConfig", **TEXT, num_local_experts=4)
GPT_OSS = _named(
    "GptOssForCausalLM",
    "GptOssConfig",
    **{**TEXT, "intermediate_size": 16},  # down_proj is square, as in the models that there are
    num_local_experts=4,
    head_dim=8,
)


def trained(model: Any, folder: Path, seed: int = 0, **settings: Any) -> Any:
    """An adapter of drawn values, saved; returns the model with it."""
    config = peft.LoraConfig(**{"r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], **settings})
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))  # views stay shared
    wrapped.save_pretrained(folder)
    return wrapped


def made(model: Callable[[], Any], folder: Path, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made_model = model()
    made_model.save_pretrained(folder)
    return made_model


def same(loaded: Any, merged: Any) -> None:
    ours, theirs = loaded.state_dict(), merged.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].shape == array.shape, name
        assert torch.allclose(ours[name].float(), array.float(), atol=1e-6), name


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (LLAMA, {}),
    "llama, patterns and rsLoRA": (
        LLAMA,
        {"use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"v_proj": 7}},
    ),
    "llama, DoRA": (LLAMA, {"use_dora": True}),
    "llama, alpha 0": (LLAMA, {"lora_alpha": 0}),
    "llama, embedding": (LLAMA, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "gpt2, Conv1D": (
        _named("GPT2LMHeadModel", "GPT2Config", vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2),
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    ),
    "mistral": (_named("MistralForCausalLM", "MistralConfig", **TEXT), {"target_modules": "all-linear"}),
    "qwen2, tied": (
        _named("Qwen2ForCausalLM", "Qwen2Config", **TEXT, tie_word_embeddings=True),
        {"target_modules": "all-linear", "use_dora": True},
    ),
    "bert": (
        _named("BertForMaskedLM", "BertConfig", **{k: v for k, v in TEXT.items() if "key_value" not in k}),
        {"target_modules": ["query", "value", "dense"]},
    ),
    "t5": (
        _named(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=64,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
        ),
        {"target_modules": ["q", "v", "wi", "wo"]},
    ),
    "whisper": (
        _named(
            "WhisperForConditionalGeneration",
            "WhisperConfig",
            vocab_size=64,
            d_model=16,
            num_mel_bins=8,
            max_source_positions=16,
            pad_token_id=0,
            **{f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")},
            max_target_positions=16,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            decoder_start_token_id=1,
        ),
        {"target_modules": ["q_proj", "out_proj", "fc1"]},
    ),
    "llava": (_llava, {}),
    "llava, all linear": (_llava, {"target_modules": "all-linear"}),
    "qwen2-vl": (_qwen_vl, {"target_modules": ["q_proj", "qkv"]}),
    "gemma3": (_gemma, {}),
    "qwen3 experts": (
        QWEN_EXPERTS,
        {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "qwen3, one parameter": (QWEN_EXPERTS, {"target_parameters": ["mlp.experts.down_proj"]}),
    "mixtral experts": (MIXTRAL, {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    "gpt-oss experts": (GPT_OSS, {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    "gpt-oss, the square one": (GPT_OSS, {"target_parameters": ["experts.down_proj"]}),
    "tokens": (LLAMA, {"trainable_token_indices": [3, 60, 7]}),
    "tokens of a tied model": (TIED, {"trainable_token_indices": {"embed_tokens": [3, 60]}}),
    "tokens of both tables": (LLAMA, {"trainable_token_indices": {"embed_tokens": [3], "lm_head": [3, 5]}}),
    "tokens that are new": (TIED, {"trainable_token_indices": [3, 64, 65]}),
    "qwen3, patterns of a parameter": (
        QWEN_EXPERTS,
        {
            "target_parameters": ["experts.down_proj"],
            "rank_pattern": {"experts.down_proj": 4},
            "alpha_pattern": {"experts.down_proj": 3},
        },
    ),
    "qwen3, patterns of modules alone": (
        QWEN_EXPERTS,
        {
            "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
            "rank_pattern": {"experts": 4},
            "use_rslora": True,
        },
    ),
    "one weight as a parameter": (LLAMA, {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
    "vit": (
        _named("ViTForImageClassification", "ViTConfig", **VISION, num_labels=3),
        {"target_modules": "all-linear", "modules_to_save": ["classifier"]},
    ),
    "tied, trained as one": (TIED, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "norms in full": (LLAMA, {"modules_to_save": ["input_layernorm"]}),
    "all biases": (
        _named("GPT2LMHeadModel", "GPT2Config", vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2),
        {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True},
    ),
    "tables in full": (LLAMA, {"modules_to_save": ["embed_tokens", "lm_head"]}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_folded_is_what_peft_merges(name: str, tmp_path: Path) -> None:
    make, settings = CASES[name]
    model = made(make, tmp_path / "base")
    if name == "tokens that are new":
        model.resize_token_embeddings(66)
    wrapped = trained(model, tmp_path / "adapter", **settings)
    merged = wrapped.merge_and_unload()
    fold_adapter(tmp_path / "base", tmp_path / "adapter", out=tmp_path / "out")
    same(type(merged).from_pretrained(tmp_path / "out"), merged)


@pytest.mark.parametrize("dora", [False, True])
def test_a_wrong_setting_does_not_turn_square_layers_round(dora: bool, tmp_path: Path) -> None:
    make, settings = CASES["gpt2, Conv1D"]
    merged = trained(made(make, tmp_path / "base"), tmp_path / "adapter", **settings, use_dora=dora).merge_and_unload()
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fan_in_fan_out": False}))
    fold_adapter(tmp_path / "base", tmp_path / "adapter", out=tmp_path / "out")
    same(type(merged).from_pretrained(tmp_path / "out"), merged)


APART: dict[str, dict[str, Any]] = {
    "factors of the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "factors of the head": {"target_modules": ["lm_head", "q_proj"]},
    "factors of both": {"target_modules": ["embed_tokens", "lm_head"]},
    "the embedding": {"modules_to_save": ["embed_tokens"]},
    "the head": {"modules_to_save": ["lm_head"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens, others of each": {"trainable_token_indices": {"embed_tokens": [3], "lm_head": [3, 5]}},
}
AS_ONE: dict[str, dict[str, Any]] = {
    "factors": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "factors of the head": {"target_modules": ["lm_head", "q_proj"], "ensure_weight_tying": True},
    "the embedding": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tokens": {"trainable_token_indices": [3, 5]},
}


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("name", [*(("apart", name) for name in APART), *(("as one", name) for name in AS_ONE)])
def test_a_tied_model_computes_what_the_trained_one_did(name: tuple[str, str], copied: bool, tmp_path: Path) -> None:
    kind, case = name
    wrapped = trained(
        made(TIED, tmp_path / "base"), tmp_path / "adapter", **(APART if kind == "apart" else AS_ONE)[case]
    )
    if copied:
        file = tmp_path / "base" / "model.safetensors"
        arrays = dict(Checkpoint.open(file).arrays())
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()
        safetensors.numpy.save_file(arrays, file, {"format": "pt"})
    ids = torch.arange(24).reshape(2, 12)
    fold_adapter(tmp_path / "base", tmp_path / "adapter", out=tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.tie_word_embeddings is (kind == "as one")
    with torch.no_grad():
        wanted, folded = wrapped.eval()(input_ids=ids).logits, loaded.eval()(input_ids=ids).logits
    assert torch.allclose(folded, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("tied", "settings"),
    [
        (False, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        (False, {}),
        (True, {}),
        (True, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ],
)
@pytest.mark.parametrize("rows", [70, 60])
def test_a_vocabulary_may_have_been_resized(settings: dict[str, Any], rows: int, tied: bool, tmp_path: Path) -> None:
    model = made(TIED if tied else LLAMA, tmp_path / "base")
    model.resize_token_embeddings(rows)
    wrapped = trained(model, tmp_path / "adapter", **settings)
    if not settings:
        wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    merged = wrapped.merge_and_unload()
    fold_adapter(tmp_path / "base", tmp_path / "adapter", out=tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.vocab_size == rows
    same(loaded, merged)


def test_a_head_that_the_base_lacks_is_added(tmp_path: Path) -> None:
    made(LLAMA, tmp_path / "base")
    model = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    wrapped = trained(model, tmp_path / "adapter", task_type="SEQ_CLS")
    merged = wrapped.merge_and_unload()
    fold_adapter(tmp_path / "base", tmp_path / "adapter", out=tmp_path / "out")
    same(transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=3), merged)


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_body_alone_and_within_a_model(prefixed: bool, tmp_path: Path) -> None:
    sizes = {key: TEXT[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    config = transformers.BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=32)
    torch.manual_seed(0)
    whole = transformers.BertForMaskedLM(config)
    whole.bert.save_pretrained(tmp_path / "alone")
    whole.save_pretrained(tmp_path / "whole")
    model = whole if prefixed else transformers.BertModel.from_pretrained(tmp_path / "alone")
    wrapped = trained(model, tmp_path / "adapter", target_modules=["query", "value"])
    merged = wrapped.merge_and_unload()
    base = tmp_path / ("alone" if prefixed else "whole")
    folded = fold_adapter(base, tmp_path / "adapter")
    state = merged.state_dict()
    for key, array in folded.items():
        theirs = state.get(key, state.get(f"bert.{key}", state.get(key.removeprefix("bert."))))
        if theirs is not None:
            np.testing.assert_allclose(array, theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_result_has_the_dtype_that_was_asked_for(dtype: str, tmp_path: Path) -> None:
    wrapped = trained(made(LLAMA, tmp_path / "base"), tmp_path / "adapter")
    merged = wrapped.merge_and_unload().to(getattr(torch, dtype))
    fold_adapter(tmp_path / "base", tmp_path / "adapter", dtype=dtype, out=tmp_path / "out")
    assert {tensor.dtype.name for tensor in Checkpoint.open(tmp_path / "out").values()} == {dtype}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    for name, array in merged.state_dict().items():
        assert loaded.state_dict()[name].dtype == array.dtype
        assert torch.allclose(loaded.state_dict()[name].float(), array.float(), rtol=1e-2, atol=1e-6)


def test_several_adapters_with_tables_of_their_own(tmp_path: Path) -> None:
    wrapped = [
        trained(made(LLAMA, tmp_path / "base"), tmp_path / str(seed), seed, modules_to_save=["lm_head"])
        for seed in (1, 2)
    ]
    heads = [each.merge_and_unload().lm_head.weight.detach().numpy() for each in wrapped]
    start = Checkpoint.open(tmp_path / "base")["lm_head.weight"].array()
    both = [tmp_path / "1", tmp_path / "2"]
    mean = fold_adapters(tmp_path / "base", both, weights=[0.5, 0.5])["lm_head.weight"]
    np.testing.assert_allclose(mean, (heads[0] + heads[1]) / 2, atol=1e-6)
    added = fold_adapters(tmp_path / "base", both)["lm_head.weight"]
    np.testing.assert_allclose(added, heads[0] + heads[1] - start, atol=1e-6)
    for seed in (1, 2):
        model = made(LLAMA, tmp_path / "base")
        model.resize_token_embeddings(70)
        trained(model, tmp_path / f"grown{seed}", seed, modules_to_save=["embed_tokens", "lm_head"])
    with pytest.raises(InputError, match="rows of one number may be of different tokens"):
        fold_adapters(tmp_path / "base", [tmp_path / "grown1", tmp_path / "grown2"])
    tokenizer = {"model": {"vocab": {f"t{i}": i for i in range(70)}}, "added_tokens": []}
    for seed in (1, 2):
        (tmp_path / f"grown{seed}" / "tokenizer.json").write_text(json.dumps(tokenizer))
    grown = [Checkpoint.open(tmp_path / f"grown{seed}" / "adapter_model.safetensors") for seed in (1, 2)]
    tables = [each["base_model.model.lm_head.weight"].array() for each in grown]
    out = tmp_path / "out"
    fold_adapters(tmp_path / "base", [tmp_path / "grown1", tmp_path / "grown2"], weights=[1, 3], out=out)
    folded = Checkpoint.open(out)["lm_head.weight"].array()
    np.testing.assert_allclose(folded[64:], (tables[0] + 3 * tables[1])[64:] / 4, atol=1e-6)
    np.testing.assert_allclose(folded[:64], (tables[0] + 3 * tables[1])[:64] - 3 * start, atol=1e-5)
    assert json.loads((out / "tokenizer.json").read_text()) == tokenizer
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 70
