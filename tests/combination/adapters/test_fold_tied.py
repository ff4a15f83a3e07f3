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
    assert any("trained embedding and head apart" in note and "tie_word_embeddings is false" in note for note in notes)


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


def test_a_model_whose_tie_scales_is_not_untied(tmp_path: Path) -> None:
    base = tmp_path / "t5"
    base.mkdir()
    safetensors.numpy.save_file({"shared.weight": TABLE, "l.weight": np.eye(2)}, base / "model.safetensors")
    (base / "config.json").write_text('{"tie_word_embeddings": true}')
    refused(lambda: fold_adapter(base, {**ONES, HEAD: TABLE + 1}), "trained 'lm_head.weight' apart", "a copy of the")
