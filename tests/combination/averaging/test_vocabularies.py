"""Members with tokens of their own: rows of embeddings and heads are blended by token, and the output loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kofn
from kofn.combination import merge_recipe, preview_merge, task_arithmetic, ties, weighted_mean
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

BASE = ["<unk>", "a", "b", "c"]
EMBED, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"


def stored(
    folder: Path, name: str, tokens: list[str], rows: int, *, seed: int, dtype: Any = np.float32, own: int = 4
) -> str:
    """A model of these tokens, the first `own` the tokenizer's own, with some more rows than tokens."""
    rng = np.random.default_rng(seed)
    arrays = {
        EMBED: rng.normal(size=(rows, 4)).astype(dtype),
        HEAD: rng.normal(size=(rows, 4)).astype(dtype),
        BIAS: rng.normal(size=rows).astype(dtype),
        "model.proj.weight": rng.normal(size=(4, 4)).astype(dtype),
    }
    (folder / name).mkdir()
    write_arrays(folder / name / "model.safetensors", arrays)
    added = [{"id": i, "content": token, "special": True} for i, token in enumerate(tokens) if i >= own]
    vocabulary = {token: i for i, token in enumerate(tokens[:own])}
    content = {"added_tokens": added, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}}
    (folder / name / "tokenizer.json").write_text(json.dumps(content))
    (folder / name / "tokenizer_config.json").write_text(json.dumps({"of": name, "added_tokens_decoder": {}}))
    config = {"model_type": "x", "vocab_size": rows, "text_config": {"vocab_size": rows, "hidden_size": 4}}
    (folder / name / "config.json").write_text(json.dumps(config))
    return str(folder / name)


def row(path: str, tokens: list[str], token: str, name: str = EMBED) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(Checkpoint.open(path)[name].array(), np.float64)[tokens.index(token)]


A, B = [*BASE, "<x>", "<tool>"], [*BASE, "<tool>", "<y>", "<z>"]


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str, str]:
    """A base of 4 tokens, a member with 2 more, and one with 3 more in 8 rows."""
    base = stored(tmp_path, "base", BASE, 4, seed=0)
    return base, stored(tmp_path, "a", A, 6, seed=1), stored(tmp_path, "b", B, 8, seed=2)


@pytest.mark.parametrize("out", [False, True])
def test_the_union_has_each_token_over_the_members_that_have_it(
    models: tuple[str, str, str], out: bool, tmp_path: Path
) -> None:
    _, a, b = models
    blend = weighted_mean([a, b], weights=[1, 3], vocabulary="union", out=tmp_path / "out" if out else None)
    tokens = [*A, "<y>", "<z>"]
    for name in (EMBED, HEAD, BIAS):
        result = np.asarray(blend.result[name])
        assert len(result) == 8
        for i, token in enumerate(tokens):
            rows = [
                (weight, row(path, own, token, name)) for weight, path, own in ((1, a, A), (3, b, B)) if token in own
            ]
            exact = sum(weight * each for weight, each in rows) / sum(weight for weight, _ in rows)
            np.testing.assert_allclose(result[i], exact, rtol=1e-6, err_msg=token)
            if len(rows) == 1:
                assert result[i].tolist() == exact.tolist()
    whole = (row(a, ["0"], "0", "model.proj.weight") + 3 * row(b, ["0"], "0", "model.proj.weight")) / 4
    np.testing.assert_allclose(np.asarray(blend.result["model.proj.weight"])[0], whole, rtol=1e-6)
    figures = blend.info["vocabulary"]
    assert (figures["tokens"], figures["rows"], figures["lacking"]) == (8, 8, [2, 1])
    assert figures["added"] == {"<y>": 6, "<z>": 7}
    if out:
        content = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
        assert [(entry["id"], entry["content"], entry["special"]) for entry in content["added_tokens"]] == [
            (i, token, True) for i, token in enumerate(tokens) if i >= 4
        ]
        settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
        assert settings["of"] == "a"
        assert {number: entry["content"] for number, entry in settings["added_tokens_decoder"].items()} == {
            "6": "<y>",
            "7": "<z>",
        }
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config == {"model_type": "x", "vocab_size": 8, "text_config": {"vocab_size": 8, "hidden_size": 4}}
        assert Checkpoint.open(tmp_path / "out")[EMBED].shape == (8, 4)
        assert not [line for line in blend.info.get("warnings", []) if "tokenizer" in line]


def test_first_and_base_keep_their_tokens_and_files(models: tuple[str, str, str], tmp_path: Path) -> None:
    base, a, b = models
    blend = weighted_mean([b, a], vocabulary="first", out=tmp_path / "first")
    result = blend.result[EMBED]
    for i, token in enumerate(B):
        rows = [row(path, own, token) for path, own in ((b, B), (a, A)) if token in own]
        np.testing.assert_allclose(result[i], np.mean(rows, axis=0), rtol=1e-6)
    # The eighth row of `b` has no token, and `a` has none such.
    assert result[7].tolist() == np.asarray(Checkpoint.open(b)[EMBED].array())[7].tolist()
    assert blend.info["vocabulary"]["left_out"] == 1
    assert (tmp_path / "first" / "tokenizer.json").read_bytes() == (Path(b) / "tokenizer.json").read_bytes()
    blend = task_arithmetic([a, b], base=base, vocabulary="base", weights=[0.5, 0.5], out=tmp_path / "base_out")
    for i, token in enumerate(BASE):
        exact = (row(a, A, token) + row(b, B, token)) / 2
        np.testing.assert_allclose(blend.result[EMBED][i], exact, rtol=1e-5)
    assert (tmp_path / "base_out" / "tokenizer.json").read_bytes() == (Path(base) / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "base_out" / "config.json").read_text())["vocab_size"] == 4


@pytest.mark.parametrize("method", [task_arithmetic, ties])
def test_a_row_that_the_base_lacks_is_the_mean_of_those_that_have_it(method: Any, models: tuple[str, str, str]) -> None:
    base, a, b = models
    options = {"density": 1.0} if method is ties else {}
    blend = method([a, b], base=base, vocabulary="union", **options)
    tokens = [*BASE, "<x>", "<tool>", "<y>", "<z>"]
    rows = {token: [row(p, own, token) for p, own in ((a, A), (b, B)) if token in own] for token in tokens}
    for token in ("<x>", "<y>", "<z>"):
        assert blend.result[EMBED][tokens.index(token)].tolist() == pytest.approx(rows[token][0].tolist(), rel=1e-6)
    whole = {"e": np.array([*(row(base, BASE, token) for token in BASE), np.mean(rows["<tool>"], axis=0)])}
    shared = [*BASE, "<tool>"]
    members = [{"e": np.array([row(p, own, token) for token in shared])} for p, own in ((a, A), (b, B))]
    exact = method(members, base=whole, **options).result["e"]
    if method is task_arithmetic:  # what ties trims and elects depends on the other rows
        for i, token in enumerate(shared):
            np.testing.assert_allclose(blend.result[EMBED][tokens.index(token)], exact[i], rtol=1e-4, atol=1e-6)


def test_a_row_that_a_member_lacks_is_no_change_of_the_base(models: tuple[str, str, str]) -> None:
    base, a, b = models
    blend = task_arithmetic([b, base], base=a, vocabulary="base", weights=[1, 1])
    exact = row(a, A, "<tool>") + (row(b, B, "<tool>") - row(a, A, "<tool>")) / 2
    np.testing.assert_allclose(blend.result[EMBED][A.index("<tool>")], exact, rtol=1e-5)
    np.testing.assert_allclose(blend.result[EMBED][A.index("<x>")], row(a, A, "<x>"), rtol=1e-6)


def test_the_same_rows_in_another_order_and_in_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    tokens = [f"t{i}" for i in range(300)]
    paths, orders = [], []
    for i in range(3):
        order = rng.permutation(300)
        orders.append(order)
        names = [tokens[j] for j in order]
        paths.append(stored(tmp_path, f"m{i}", names, 300, seed=i, own=300, dtype=ml_dtypes.bfloat16))
    blend = weighted_mean(paths, vocabulary="first", max_memory="80KB", dtype="float32")
    tables = [np.asarray(Checkpoint.open(path)[EMBED].array(), np.float64) for path in paths]
    for i in range(300):
        token = orders[0][i]
        exact = np.mean([table[list(order).index(token)] for table, order in zip(tables, orders, strict=True)], axis=0)
        np.testing.assert_allclose(np.asarray(blend.result[EMBED])[i], exact, rtol=1e-6, atol=1e-7)


def test_weights_of_zero_and_searches_leave_no_token_without_a_row(models: tuple[str, str, str]) -> None:
    _, a, b = models
    blend = weighted_mean([a, b], weights=[1, 0], vocabulary="union")
    assert np.asarray(blend.result[EMBED])[7].tolist() == row(b, B, "<z>").tolist()
    assert np.asarray(blend.result[EMBED])[5].tolist() == row(a, A, "<tool>").tolist()
    seen: list[Any] = []

    def score(blend: Any) -> float:
        seen.append(np.asarray(blend[EMBED])[7].tolist())
        return float(-len(seen))

    kofn.combine([a, b], method="greedy_soup", score=score, vocabulary="union")
    assert seen[0] == row(b, B, "<z>").tolist()


def test_members_of_one_vocabulary_are_blended_as_without(tmp_path: Path) -> None:
    paths = [stored(tmp_path, name, A, 6, seed=seed) for seed, name in enumerate("ab")]
    blends = [
        weighted_mean(paths, vocabulary=vocabulary, out=tmp_path / f"out{vocabulary}") for vocabulary in (None, "union")
    ]
    assert blends[0].spread.tolist() == blends[1].spread.tolist()
    files = [(tmp_path / f"out{each}" / "model.safetensors").read_bytes() for each in (None, "union")]
    assert files[0] == files[1]


def test_pieces_of_another_tokenizer_are_told(tmp_path: Path) -> None:
    a = stored(tmp_path, "a", BASE, 4, seed=0)
    b = stored(tmp_path, "b", [*BASE, "piece"], 5, seed=1, own=5)
    blend = weighted_mean([a, b], vocabulary="union", out=tmp_path / "out")
    assert blend.info["warnings"] == [
        "1 of the new tokens are pieces of another vocabulary, which the tokenizer takes whole"
    ]
    for name in ("a", "b"):
        (tmp_path / name / "config.json").write_text('{"model_type": "x"}')
    blend = weighted_mean([a, b], vocabulary="union", out=tmp_path / "other")
    assert blend.info["warnings"][0] == "config.json names no vocab_size to set to 5: set it before loading"


def test_a_recipe_and_a_preview_match_by_token(models: tuple[str, str, str]) -> None:
    _, a, b = models
    blend = merge_recipe({"members": [a, b], "method": "weighted_mean", "weights": [1, 3]}, vocabulary="union")
    plain = weighted_mean([a, b], weights=[1, 3], vocabulary="union")
    assert np.asarray(blend.result[EMBED]).tobytes() == np.asarray(plain.result[EMBED]).tobytes()
    fates = {row["name"]: (row["shape"], row["fate"]) for row in preview_merge([a, b], vocabulary="union")}
    assert fates[EMBED] == ([8, 4], "weighted_mean, by token")
    assert fates["model.proj.weight"] == ([4, 4], "weighted_mean")


def test_what_cannot_be_matched_is_refused(models: tuple[str, str, str], tmp_path: Path) -> None:
    _, a, b = models
    with pytest.raises(
        InputError, match=r"another vocabulary\?.*; match rows by token with vocabulary='union' \(--vocabulary\), or"
    ):
        weighted_mean([a, b])
    with pytest.raises(InputError, match="vocabulary='unoin': choose one of union, base, first; did you mean 'union'"):
        weighted_mean([a, b], vocabulary="unoin")
    with pytest.raises(InputError, match="vocabulary='base' needs a base; give it, or take 'first' or 'union'"):
        weighted_mean([a, b], vocabulary="base")
    with pytest.raises(InputError, match="vocabulary needs the folders of checkpoints, with their tokenizers"):
        weighted_mean([{"w": np.ones(2)}] * 2, vocabulary="first")
    with pytest.raises(InputError, match=rf"matches the rows of '{EMBED}' by token; do not leave it out of the blend"):
        weighted_mean([a, b], vocabulary="first", skip="*embed*")
    with pytest.raises(
        InputError, match=r"is a file, and vocabulary='union' makes a tokenizer that belongs beside it;"
    ):
        weighted_mean([a, b], vocabulary="union", out=tmp_path / "out.safetensors")
    short = stored(tmp_path, "short", A, 5, seed=3)
    other = stored(tmp_path, "other", [*BASE, "<q>"], 5, seed=4)
    with pytest.raises(
        InputError, match=r"token '<tool>' \(id 5\) has no row of .* in any member; resize the embedding"
    ):
        weighted_mean([short, other], vocabulary="union")
    (tmp_path / "plain").mkdir()
    write_arrays(tmp_path / "plain" / "model.safetensors", {"w": np.ones(2, np.float32)})
    with pytest.raises(InputError, match=r"plain: holds no tokenizer.json \(nor vocab.json or vocab.txt\), so its"):
        weighted_mean([str(tmp_path / "plain")] * 2, vocabulary="union")
    (tmp_path / "plain" / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    with pytest.raises(InputError, match="has no embedding under a known name"):
        weighted_mean([str(tmp_path / "plain")] * 2, vocabulary="union")


@pytest.mark.parametrize("number", [40, 10**13, 2**62, 10**30])
def test_an_id_far_beyond_the_rows_is_refused(number: int, models: tuple[str, str, str]) -> None:
    _, a, b = models
    path = Path(b) / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][-1]["id"] = number
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"token '<z>' has id {number}, far beyond the 8 rows of '{EMBED}'"):
        weighted_mean([a, b], vocabulary="first")


@pytest.mark.parametrize("size", [[4], {}, True])
def test_a_vocab_size_that_is_no_number_stays(size: Any, models: tuple[str, str, str], tmp_path: Path) -> None:
    _, a, b = models
    for path in (a, b):
        (Path(path) / "config.json").write_text(json.dumps({"model_type": "x", "vocab_size": size}))
    weighted_mean([a, b], vocabulary="union", out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == size


def test_a_quantised_embedding_is_matched_in_a_wider_dtype(tmp_path: Path) -> None:
    paths = []
    for name, tokens in (("a", A), ("b", B)):
        path = stored(tmp_path, name, tokens, len(tokens), seed=len(tokens))
        arrays = {key: tensor.array() for key, tensor in Checkpoint.open(path).items()}
        arrays[EMBED] = arrays[EMBED].astype(ml_dtypes.float8_e4m3fn)
        arrays[EMBED.replace("weight", "weight_scale")] = np.full((len(tokens), 1), 2, np.float32)
        write_arrays(Path(path) / "model.safetensors", arrays)
        paths.append(path)
    with pytest.raises(
        InputError, match=r"which is quantised; give dtype='bfloat16' to write the blend without scales"
    ):
        weighted_mean(paths, vocabulary="union")
    blend = weighted_mean(paths, vocabulary="union", dtype="float32")
    exact = (row(paths[0], A, "<tool>") + row(paths[1], B, "<tool>")) * 2 / 2
    assert np.asarray(blend.result[EMBED])[5].tolist() == exact.tolist()


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_load_a_model_of_two_grown_vocabularies(tied: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

    def tokenizer(new: list[str]) -> Any:
        own = {token: i for i, token in enumerate(["<unk>", "</s>", *(f"w{i}" for i in range(20))])}
        model = tokenizers.Tokenizer(tokenizers.models.WordLevel(own, unk_token="<unk>"))
        model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token="</s>")
        fast.add_tokens(new, special_tokens=True)
        return fast

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=22,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    models, fasts = [], []
    for name, new in (("a", ["<x>", "<tool>"]), ("b", ["<tool>", "<y>"])):
        model, fast = transformers.LlamaForCausalLM(config), tokenizer(new)
        model.resize_token_embeddings(len(fast), pad_to_multiple_of=None if name == "a" else 16)
        model.save_pretrained(tmp_path / name)
        fast.save_pretrained(tmp_path / name)
        models.append(model)
        fasts.append(fast)
    weighted_mean([str(tmp_path / name) for name in "ab"], weights=[1, 3], vocabulary="union", out=tmp_path / "out")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert fast.convert_ids_to_tokens([22, 23, 24]) == ["<x>", "<tool>", "<y>"]
    assert merged.config.vocab_size == 25
    assert (merged.lm_head.weight is merged.get_input_embeddings().weight) == tied

    expected = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**config.to_dict(), "vocab_size": 25}))
    states = [model.state_dict() for model in models]
    state = {}
    for name, tensor in expected.state_dict().items():
        if tensor.shape[0] != 25:
            state[name] = (states[0][name] + 3 * states[1][name]) / 4
            continue
        rows = []
        for i in range(25):
            token = fast.convert_ids_to_tokens(i)
            parts = [
                (weight, each[name][own.get_vocab()[token]])
                for weight, each, own in zip((1, 3), states, fasts, strict=True)
                if token in own.get_vocab()
            ]
            rows.append(sum(weight * part for weight, part in parts) / sum(weight for weight, _ in parts))
        state[name] = torch.stack(rows)
    expected.load_state_dict(state)
    ids = torch.tensor([fast("w1 <tool> w3 <y> <x> w7")["input_ids"]])
    assert ids.tolist()[0][1] == 23
    with torch.no_grad():
        gap = (merged.eval()(ids).logits - expected.eval()(ids).logits).abs().max()
    assert float(gap) < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("method", ["ties", "dare", "task_arithmetic"])
def test_a_token_that_the_base_lacks_is_the_mean_whatever_the_method(tmp_path: Path, method: str, dtype: Any) -> None:
    base = stored(tmp_path, "base", BASE, 4, seed=0, dtype=dtype)
    tokens = [*BASE, "<x>"]
    paths = [stored(tmp_path, name, tokens, 5, seed=seed, dtype=dtype) for name, seed in (("a", 1), ("b", 2))]
    options = {"density": 1.0} | ({"consensus": "ties"} if method == "dare" else {})
    plan = kofn.combine(
        paths,
        base=base,
        method=method,
        weights=[0.7, 0.3],
        options={**({} if method == "task_arithmetic" else options), "vocabulary": "union"},
    )
    first, second = (row(path, tokens, "<x>") for path in paths)
    blended = np.asarray(plan.result[EMBED], np.float64)[tokens.index("<x>")]
    np.testing.assert_allclose(blended, 0.7 * first + 0.3 * second, rtol=1e-2 if dtype != np.float32 else 1e-6)
