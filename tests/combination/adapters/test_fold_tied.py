"""Bases with one tensor for embedding and head, where adapters trained the two apart or as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from lora import P, refused

from kofn.combination import fold_adapter, fold_adapters
from kofn.combination.adapters._fold_adapter import open_fold
from kofn.io.adapters import Adapter

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TABLE = np.arange(8, dtype=np.float32).reshape(4, 2)
A, B = np.array([[1, 2, 3, 4]], np.float32), np.array([[5], [6]], np.float32)
ONES = {"l.lora_A.weight": np.ones((1, 2), np.float32), "l.lora_B.weight": np.ones((2, 1), np.float32)}
OF_EMBEDDING = {P + "model.embed_tokens.lora_embedding_A": A, P + "model.embed_tokens.lora_embedding_B": B}
OF_HEAD = {P + "lm_head.lora_A.weight": B.T.copy(), P + "lm_head.lora_B.weight": 2 * A.T}
UPDATE = A.T @ B.T
ENSURED = {"ensure_weight_tying": True}
SAVED = {"modules_to_save": ["embed_tokens", "lm_head"]}
TIED = {"tie_word_embeddings": True, "architectures": ["Qwen2ForCausalLM"]}
CONFIGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (TIED, {**TIED, "tie_word_embeddings": False}),
    ({"text_config": {"tie_word_embeddings": True, "n": 1}}, {"text_config": {"tie_word_embeddings": False, "n": 1}}),
    (
        {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True}},
        {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False}},
    ),
    ({"architectures": ["GemmaForCausalLM"]}, {"architectures": ["GemmaForCausalLM"], "tie_word_embeddings": False}),
]


def based(folder: Path, config: dict[str, Any] | None = None, **tensors: np.ndarray) -> Path:
    folder.mkdir()
    arrays = {EMBEDDING: TABLE, "l.weight": np.zeros((2, 2), np.float32), **tensors}
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIED if config is None else config))
    return folder


def adapted(tensors: dict[str, np.ndarray], **config: Any) -> Adapter:
    return Adapter({**ONES, **tensors}, config)


def folded(base: Path, adapters: list[Adapter], out: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    lazy = fold_adapters(base, adapters)
    fold_adapters(base, adapters, out=out)
    arrays = safetensors.numpy.load_file(out / "model.safetensors")
    assert arrays.keys() == lazy.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(lazy[name], array)
    return arrays, json.loads((out / "config.json").read_text())


NEW, OTHER = TABLE[::-1] + 1, TABLE * 3
APART: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray, np.ndarray]] = {
    "factors of the embedding": (OF_EMBEDDING, {}, TABLE + UPDATE, TABLE),
    "and the base's own beside": (
        {**OF_EMBEDDING, P + "model.embed_tokens.base_layer.weight": TABLE, P + HEAD: TABLE},
        {},
        TABLE + UPDATE,
        TABLE,
    ),
    "factors of the head": (OF_HEAD, {}, TABLE, TABLE + 2 * UPDATE),
    "factors of both": ({**OF_EMBEDDING, **OF_HEAD}, {}, TABLE + UPDATE, TABLE + 2 * UPDATE),
    "both, not as one in spite of the setting": (
        {**OF_EMBEDDING, **OF_HEAD},
        ENSURED,
        TABLE + UPDATE,
        TABLE + 2 * UPDATE,
    ),
    "the embedding": ({P + EMBEDDING: NEW}, {"modules_to_save": ["embed_tokens"]}, NEW, TABLE),
    "the head": ({P + HEAD: NEW}, {"modules_to_save": ["lm_head"]}, TABLE, NEW),
    "both": ({P + EMBEDDING: NEW, P + HEAD: OTHER}, SAVED, NEW, OTHER),
    "factors of one, the other in full": ({**OF_EMBEDDING, P + HEAD: OTHER}, SAVED, TABLE + UPDATE, OTHER),
    "other rows": (
        {
            P + "model.embed_tokens.token_adapter.trainable_tokens_delta": OTHER[:1],
            P + "lm_head.token_adapter.trainable_tokens_delta": OTHER[1:2],
        },
        {"trainable_token_indices": {"embed_tokens": [2], "lm_head": [3]}},
        np.concatenate([TABLE[:2], OTHER[:1], TABLE[3:]]),
        np.concatenate([TABLE[:3], OTHER[1:2]]),
    ),
}
# Those that trained one of the two, and which.
ALONE = {
    "factors of the embedding": "embedding and not the head",
    "and the base's own beside": "embedding and not the head",
    "factors of the head": "head and not the embedding",
    "the embedding": "embedding and not the head",
    "the head": "head and not the embedding",
}
AS_ONE: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]] = {
    "factors": (OF_EMBEDDING, ENSURED, TABLE + UPDATE),
    "factors of the head": (OF_HEAD, ENSURED, TABLE + 2 * UPDATE),
    "factors of both, transposed": (
        {**OF_EMBEDDING, P + "lm_head.lora_A.weight": B.T.copy(), P + "lm_head.lora_B.weight": A.T.copy()},
        ENSURED,
        TABLE + UPDATE,
    ),
    "the embedding": ({P + EMBEDDING: NEW}, {"modules_to_save": ["embed_tokens"], **ENSURED}, NEW),
    "the head": ({P + HEAD: NEW}, {"modules_to_save": ["lm_head"], **ENSURED}, NEW),
    "both alike": ({P + EMBEDDING: NEW, P + HEAD: NEW.copy()}, SAVED, NEW),
    "resized, not trained": ({P + EMBEDDING: NEW}, {}, NEW),
    "rows": (
        {P + "model.embed_tokens.token_adapter.trainable_tokens_delta": OTHER[:1]},
        {"trainable_token_indices": [2]},
        np.concatenate([TABLE[:2], OTHER[:1], TABLE[3:]]),
    ),
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("case", APART)
def test_what_was_trained_apart_gets_tensors_of_its_own(case: str, stored: bool, tmp_path: Path) -> None:
    tensors, settings, embedding, head = APART[case]
    adapter = adapted(tensors, **settings)
    base = based(tmp_path / "base", **({HEAD: TABLE.copy()} if stored else {}))
    arrays, config = folded(base, [adapter], tmp_path / "out")
    np.testing.assert_array_equal(arrays[EMBEDDING], embedding)
    np.testing.assert_array_equal(arrays[HEAD], head)
    assert config == {**TIED, "tie_word_embeddings": False}
    notes = open_fold(base, [adapter]).folding.notes
    phrase = "trained embedding and head apart"
    if case in ALONE:
        phrase = f"trained the {ALONE[case]}, which are one tensor in the base"
    assert any(phrase in note and "tie_word_embeddings is false" in note for note in notes)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("case", AS_ONE)
def test_what_was_trained_as_one_stays_one(case: str, stored: bool, tmp_path: Path) -> None:
    tensors, settings, table = AS_ONE[case]
    base = based(tmp_path / "base", **({HEAD: TABLE.copy()} if stored else {}))
    arrays, config = folded(base, [adapted(tensors, **settings)], tmp_path / "out")
    assert (HEAD in arrays) is stored
    for name in {EMBEDDING, HEAD} & arrays.keys():
        np.testing.assert_array_equal(arrays[name], table)
    assert config == TIED


@pytest.mark.parametrize(("config", "wanted"), CONFIGS)
def test_every_place_that_ties_says_no(config: dict[str, Any], wanted: dict[str, Any], tmp_path: Path) -> None:
    base = based(tmp_path / "base", config)
    arrays, written = folded(base, [adapted(OF_EMBEDDING)], tmp_path / "out")
    assert written == wanted
    np.testing.assert_array_equal(arrays[HEAD], TABLE)
    folded(base, [adapted({})], tmp_path / "untouched")
    assert json.loads((tmp_path / "untouched/config.json").read_text()) == config


def test_one_of_several_trained_apart(tmp_path: Path) -> None:
    base = based(tmp_path / "base")
    members = [adapted(OF_EMBEDDING), adapted(OF_EMBEDDING, **ENSURED)]
    arrays, config = folded(base, members, tmp_path / "out")
    np.testing.assert_array_equal(arrays[EMBEDDING], TABLE + 2 * UPDATE)
    np.testing.assert_array_equal(arrays[HEAD], TABLE + UPDATE)
    assert not config["tie_word_embeddings"]
    np.testing.assert_array_equal(
        fold_adapter(base, members[0], weight=0.5, dtype="float64")[EMBEDDING], TABLE + UPDATE / 2
    )


def test_a_head_of_its_own_beside_a_flag_that_ties(tmp_path: Path) -> None:
    base = based(tmp_path / "base", **{HEAD: OTHER})
    arrays, config = folded(base, [adapted({})], tmp_path / "out")
    np.testing.assert_array_equal(arrays[HEAD], OTHER)
    assert not config["tie_word_embeddings"]


def test_grown_tables_apart(tmp_path: Path) -> None:
    tables = {P + EMBEDDING: np.ones((6, 2), np.float32), P + HEAD: np.full((6, 2), 2, np.float32)}
    base = based(tmp_path / "base", {**TIED, "vocab_size": 4})
    arrays, config = folded(base, [adapted(tables, **SAVED)], tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        np.testing.assert_array_equal(arrays[name], tables[P + name])
    assert config == {**TIED, "vocab_size": 6, "tie_word_embeddings": False}
    del tables[P + HEAD]
    lone = adapted(tables, modules_to_save=["embed_tokens"])
    refused(lambda: fold_adapter(base, lone), "'lm_head.weight' keeps 4 rows where", "save_embedding_layers=True")


BIAS = np.array([1, 2, 3, 4], np.float32)
MASKED = "bert.embeddings.word_embeddings.weight"
# Families that keep tables under other names: class and settings, the embedding, biases, and the head.
FAMILIES: dict[str, tuple[dict[str, Any], str, tuple[str, ...], str]] = {
    "bert": ({"architectures": ["BertForMaskedLM"]}, MASKED, ("cls.predictions",), "cls.predictions.decoder"),
    "roberta": ({"architectures": ["RobertaForMaskedLM"]}, MASKED, ("lm_head",), "lm_head.decoder"),
    "albert": ({"architectures": ["AlbertForMaskedLM"]}, MASKED, ("predictions",), "predictions.decoder"),
    "distilbert": ({"architectures": ["DistilBertForMaskedLM"]}, MASKED, ("vocab_projector",), "vocab_projector"),
    "electra": ({"architectures": ["ElectraForMaskedLM"]}, MASKED, ("generator_lm_head",), "generator_lm_head"),
    "modernbert": (
        {"architectures": ["ModernBertForMaskedLM"]},
        "model.embeddings.tok_embeddings.weight",
        ("decoder",),
        "decoder",
    ),
    "whisper": (
        {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
        "model.decoder.embed_tokens.weight",
        (),
        "proj_out",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_of_every_family_are_written_apart(family: str, tmp_path: Path) -> None:
    config, table, biased, head = FAMILIES[family]
    base = tmp_path / "base"
    base.mkdir()
    biases = {f"{name}.bias": BIAS for name in biased}
    arrays = {table: TABLE, "l.weight": np.zeros((2, 2), np.float32), **biases}
    safetensors.numpy.save_file(arrays, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(config))
    stem = table.removesuffix(".weight")
    of_table = {P + f"{stem}.lora_embedding_A": A, P + f"{stem}.lora_embedding_B": B}
    of_head = {P + f"{head}.lora_A.weight": B.T.copy(), P + f"{head}.lora_B.weight": 2 * A.T}
    for number, (tensors, embedded, out) in enumerate(
        ((of_table, TABLE + UPDATE, TABLE), (of_head, TABLE, TABLE + 2 * UPDATE))
    ):
        written, settings = folded(base, [adapted(tensors)], tmp_path / str(number))
        np.testing.assert_array_equal(written[table], embedded)
        np.testing.assert_array_equal(written[f"{head}.weight"], out)
        assert settings == {**config, "tie_word_embeddings": False}
        if biased:
            np.testing.assert_array_equal(written[f"{head}.bias"], BIAS)
    if biased:  # a bias that was trained has two names in an untied model
        trained = {**of_table, P + f"{biased[0]}.bias": BIAS + 1}
        written, _ = folded(base, [adapted(trained)], tmp_path / "bias")
        assert {tuple(array) for name, array in written.items() if name.endswith(".bias")} == {tuple(BIAS + 1)}
    none = {**config, "architectures": [config["architectures"][0].split("For")[0] + "Model"]}
    (base / "config.json").write_text(json.dumps(none))
    written, settings = folded(base, [adapted(of_table)], tmp_path / "no head")
    assert f"{head}.weight" not in written
    assert settings == none


@pytest.mark.parametrize(("scale", "model_type"), [(2**-0.5, "t5"), (1.0, "bart")])
def test_tables_that_encoder_and_decoder_share(scale: float, model_type: str, tmp_path: Path) -> None:
    """A head of its own, scaled as the tied one is; what stands in the place of the shared table is read by nothing."""
    lead = "" if model_type == "t5" else "model."
    table = lead + "shared.weight"
    config = {"model_type": model_type, "d_model": 2, "architectures": ["XForConditionalGeneration"]}
    base = tmp_path / "base"
    base.mkdir()
    arrays = {table: TABLE, "l.weight": np.zeros((2, 2), np.float32)}
    safetensors.numpy.save_file(arrays, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    unread = {P + f"{lead}shared.lora_embedding_A": A, P + f"{lead}shared.lora_embedding_B": B}
    for number, tensors in enumerate((OF_HEAD, {**OF_HEAD, **unread})):
        written, settings = folded(base, [adapted(tensors)], tmp_path / str(number))
        for name in (table, f"{lead}encoder.embed_tokens.weight", f"{lead}decoder.embed_tokens.weight"):
            np.testing.assert_array_equal(written[name], TABLE)
        np.testing.assert_allclose(written[HEAD], scale * (TABLE + 2 * UPDATE), rtol=1e-6)
        wanted = {**config, "tie_word_embeddings": False}
        assert settings == (wanted if scale == 1 else {**wanted, "scale_decoder_outputs": False})
    written, settings = folded(base, [adapted(unread)], tmp_path / "unread")
    assert written.keys() == arrays.keys()
    np.testing.assert_array_equal(written[table], TABLE)
    assert settings["tie_word_embeddings"]
    notes = open_fold(base, [adapted(unread)]).folding.notes
    assert any(f"{table!r} stays as it is" in note for note in notes)


def test_a_quantised_table_is_written_apart(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    arrays = {EMBEDDING: TABLE.astype(np.int8), EMBEDDING + "_scale": np.full((4, 1), 0.5, np.float32)}
    safetensors.numpy.save_file(arrays | {"l.weight": np.zeros((2, 2), np.float32)}, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(TIED))
    refused(lambda: fold_adapter(base, adapted(OF_EMBEDDING)), "dtype")
    fold_adapter(base, adapted(OF_EMBEDDING), dtype="float32", out=tmp_path / "out")
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == {EMBEDDING, HEAD, "l.weight"}
    np.testing.assert_array_equal(written[EMBEDDING], TABLE / 2 + UPDATE)
    np.testing.assert_array_equal(written[HEAD], TABLE / 2)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


def test_a_setting_that_peft_does_not_heed(tmp_path: Path) -> None:
    """`ensure_weight_tying` ties what has the names `embed_tokens` and `lm_head` alone."""
    base = tmp_path / "base"
    base.mkdir()
    safetensors.numpy.save_file(
        {"transformer.wte.weight": TABLE, "l.weight": np.zeros((2, 2), np.float32)}, base / "m.safetensors"
    )
    (base / "config.json").write_text(json.dumps({**TIED, "architectures": ["GPT2LMHeadModel"]}))
    tensors = {P + "transformer.wte.lora_embedding_A": A, P + "transformer.wte.lora_embedding_B": B}
    fold_adapter(base, adapted(tensors, **ENSURED), out=tmp_path / "out")
    written = safetensors.numpy.load_file(tmp_path / "out" / "m.safetensors")
    np.testing.assert_array_equal(written["transformer.wte.weight"], TABLE + UPDATE)
    np.testing.assert_array_equal(written[HEAD], TABLE)


def test_a_model_whose_tie_scales_is_not_untied(tmp_path: Path) -> None:
    base = tmp_path / "t5"
    base.mkdir()
    safetensors.numpy.save_file({"shared.weight": TABLE, "l.weight": np.eye(2)}, base / "model.safetensors")
    (base / "config.json").write_text('{"tie_word_embeddings": true}')
    refused(lambda: fold_adapter(base, {**ONES, HEAD: TABLE + 1}), "trained 'lm_head.weight' apart", "a copy of the")


def test_each_adapter_is_said_to_have_trained_what_it_did(tmp_path: Path) -> None:
    base = based(tmp_path / "base")
    adapters = [adapted(OF_HEAD), adapted({**OF_EMBEDDING, **OF_HEAD}), adapted(OF_EMBEDDING)]
    (note,) = [note for note in open_fold(base, adapters).folding.notes if "one tensor in the base" in note]
    assert "trained the head and not the embedding, " in note
    assert "trained embedding and head apart, " in note
    assert "trained the embedding and not the head, which are one tensor" in note
    # What is left out was not folded, whoever trained it.
    left = open_fold(base, adapters[1:2], skip="*lm_head*").folding.notes
    assert any("trained the embedding and not the head" in note for note in left)
