"""Families of models that tie their heads: what is folded computes what the model trained by PEFT did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kofn.combination import fold_adapter
from kofn.combination.adapters._fold_adapter import open_fold

peft = pytest.importorskip("peft", reason="a peer: pip install 'kofn[peers]'")
transformers = pytest.importorskip("transformers", reason="a peer: pip install 'kofn[peers]'")
torch = pytest.importorskip("torch")

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
PARTS = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
SPEECH = {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 32, "bos_token_id": 1}
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
# The model, its settings, its embedding and its head as PEFT's targets.
FAMILIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "T5ForConditionalGeneration": ("T5Config", T5 | {"decoder_start_token_id": 0}, "shared", "lm_head"),
    "BartForConditionalGeneration": ("BartConfig", PARTS | {"max_position_embeddings": 32}, "shared", "lm_head"),
    "MarianMTModel": (
        "MarianConfig",
        PARTS | {"max_position_embeddings": 32, "forced_eos_token_id": 1},
        "shared",
        "lm_head",
    ),
    "WhisperForConditionalGeneration": ("WhisperConfig", PARTS | SPEECH, "embed_tokens", "proj_out"),
    "BertForMaskedLM": ("BertConfig", SIZES, "word_embeddings", "cls.predictions.decoder"),
    "BertForPreTraining": ("BertConfig", SIZES, "word_embeddings", "cls.predictions.decoder"),
    "RobertaForMaskedLM": ("RobertaConfig", SIZES, "word_embeddings", "lm_head.decoder"),
    "MPNetForMaskedLM": ("MPNetConfig", SIZES, "word_embeddings", "lm_head.decoder"),
    "AlbertForMaskedLM": ("AlbertConfig", SIZES | {"embedding_size": 8}, "word_embeddings", "predictions.decoder"),
    "ElectraForMaskedLM": ("ElectraConfig", SIZES | {"embedding_size": 8}, "word_embeddings", "generator_lm_head"),
    "DebertaV2ForMaskedLM": ("DebertaV2Config", SIZES, "word_embeddings", "cls.predictions.decoder"),
    "DistilBertForMaskedLM": (
        "DistilBertConfig",
        {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 32},
        "word_embeddings",
        "vocab_projector",
    ),
    "ModernBertForMaskedLM": (
        "ModernBertConfig",
        SIZES | dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
        "tok_embeddings",
        "decoder",
    ),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
        "wte",
        "lm_head",
    ),
}


def trained(family: str, folder: Path, **settings: Any) -> Any:
    """A base and an adapter of random values, saved; the model that was trained, and a function of its logits."""
    config, sizes, *_ = FAMILIES[family]
    torch.manual_seed(0)
    model = getattr(transformers, family)(getattr(transformers, config)(**sizes))
    for value in model.parameters():
        value.data.normal_(0, 0.3 if value.dim() > 1 else 0.1)
    model.save_pretrained(folder / "base")
    model = type(model).from_pretrained(folder / "base")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, **settings))
    for name, value in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name or "token" in name.rpartition("tokens_")[1]:
            value.data.add_(0.3 * torch.randn(value.shape))
    wrapped.save_pretrained(folder / "adapter")
    return wrapped.eval()


def logits(model: Any) -> Any:
    ids = 3 + torch.arange(24).reshape(2, 12)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    given = {"input_ids": ids}
    if base.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    if base.config.model_type == "whisper":
        features = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
        given = {"input_features": features, "decoder_input_ids": ids}
    out = model.eval()(**given)
    return getattr(out, "logits", None) if hasattr(out, "logits") else out.prediction_logits


# PEFT 0.21 cannot compute with tables of encoder and decoder trained in full where it ties them.
KINDS = [(kind, ensured) for kind in ("embedding", "head", "both") for ensured in (False, True)]


@pytest.mark.parametrize(("kind", "ensured"), [*KINDS, ("embedding in full", False), ("head in full", False)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_model_computes_what_the_trained_one_did(family: str, kind: str, ensured: bool, tmp_path: Path) -> None:
    _, _, embedding, head = FAMILIES[family]
    named = {"embedding": [embedding], "head": [head], "both": [embedding, head]}[kind.split()[0]]
    word = "modules_to_save" if "full" in kind else "target_modules"
    inner = {} if word == "target_modules" else {"target_modules": [r"q_proj", "query", "q", "q_lin", "c_attn", "Wqkv"]}
    inner |= {"target_modules": ["query_proj"]} if inner and family.startswith("Deberta") else {}
    wrapped = trained(family, tmp_path, **{word: named}, **inner, ensure_weight_tying=ensured)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    notes = open_fold(base, [adapter]).folding.notes
    fold_adapter(base, adapter, out=tmp_path / "out")
    loaded, seen = type(wrapped.get_base_model()).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not seen["missing_keys"]
    assert not seen["unexpected_keys"]
    with torch.no_grad():
        assert torch.allclose(logits(loaded), logits(wrapped), atol=1e-4)
    if kind.startswith("embedding") and embedding == "shared":
        assert any("did not read the module in its place" in note for note in notes)
    elif not ensured:
        assert any("is false in config.json" in note for note in notes)
