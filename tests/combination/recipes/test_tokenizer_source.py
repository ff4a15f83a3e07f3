"""`tokenizer_source` of mergekit recipes gives mergekit's rows, or is refused by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recipes import CONFIG, shapes
from kofn.combination import merge_recipe
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OWN = ["<unk>", *"abcdefgh"]
# Added tokens in orders of their own; `padded` has rows without a token.
TOKENS = {
    "base": OWN,
    "a": [*OWN, "<x>", "<tool>"],
    "b": [*OWN, "<tool>", "<y>", "<z>"],
    "c": [*OWN, "<z>", "<x>"],
    "padded": [*OWN, "<x>"],
}
ROWS = {"padded": 16}


def write_tokenizer(folder: Path, tokens: list[str]) -> None:
    added = [
        {"id": i, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for i, token in enumerate(tokens)
        if i >= len(OWN)
    ]  # fmt: skip
    model = {"type": "BPE", "vocab": {token: i for i, token in enumerate(OWN)}, "merges": [], "unk_token": "<unk>"}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that grew from one base, each with rows of its own for its tokens."""
    folder = tmp_path_factory.mktemp("models")
    origin = {name: 0.02 * np.random.default_rng(0).normal(size=shape) for name, shape in shapes().items()}
    for seed, (name, tokens) in enumerate(TOKENS.items()):
        rng = np.random.default_rng(seed + 1)
        rows = ROWS.get(name, len(tokens))
        arrays = {}
        for tensor, start in origin.items():
            own = 0.02 * rng.normal(size=start.shape) if seed else 0.0
            arrays[tensor] = (start + own)[: rows if tensor in (EMBED, HEAD) else None].astype(np.float32)
        (folder / name).mkdir()
        write_arrays(folder / name / "model.safetensors", arrays)
        (folder / name / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": rows}))
        write_tokenizer(folder / name, tokens)
    return folder


def listed(*names: str, **settings: Any) -> list[dict[str, Any]]:
    weights = (0.9, 0.3, 0.5)
    return [
        {"model": name, "parameters": {"weight": weight, **settings}}
        for name, weight in zip(names, weights, strict=False)
    ]


RECIPES: dict[str, dict[str, Any]] = {
    "linear, union": {"merge_method": "linear", "base_model": "base", "models": listed("base", "a", "b"),
                      "tokenizer_source": "union"},
    "linear, base is a member": {"merge_method": "linear", "base_model": "a", "models": listed("a", "b", "c"),
                                 "tokenizer_source": "union"},
    "linear, base": {"merge_method": "linear", "base_model": "a", "models": listed("a", "b", "c"),
                     "tokenizer_source": "base"},
    "linear, a model": {"merge_method": "linear", "base_model": "a", "models": listed("a", "b", "c"),
                        "tokenizer_source": "c"},
    "task arithmetic, union": {"merge_method": "task_arithmetic", "base_model": "base", "models": listed("a", "b", "c"),
                               "tokenizer_source": "union"},
    "ties, union": {"merge_method": "ties", "base_model": "base", "models": listed("a", "b", "c", density=0.6),
                    "tokenizer_source": "union"},
    "ties, base": {"merge_method": "ties", "base_model": "base", "models": listed("a", "b", density=0.6),
                   "tokenizer_source": "base"},
    "slerp, union": {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}],
                     "parameters": {"t": 0.3}, "tokenizer_source": "union"},
    "rows without a token are dropped": {"merge_method": "linear", "base_model": "padded",
                                         "models": listed("padded", "a"), "tokenizer_source": "base"},
    "the long form": {"merge_method": "linear", "base_model": "base", "models": listed("base", "a", "b"),
                      "tokenizer": {"source": "union"}},
    "rows of single tokens": {"merge_method": "linear", "base_model": "base", "models": listed("base", "a", "b"),
                              "tokenizer": {"source": "union", "tokens": {
                                  "<x>": {"source": "a"}, "<tool>": {"source": "b", "force": True},
                                  "<y>": {"source": {"kind": "model_token", "model": "a", "token": "d"}},
                                  "<z>": {"source": {"kind": "zero"}},
                                  "<new>": {"source": {"kind": "model_token", "model": "b", "token_id": 3}},
                                  "d": {"source": "a", "force": True}}}},
    "rows of single tokens, ties": {"merge_method": "ties", "base_model": "base", "models": listed("a", "b", density=1),
                                    "tokenizer": {"source": "base", "tokens": {
                                        "b": {"source": "a"}, "d": {"source": {"kind": "zero"}, "force": True}}}},
    "rows up to a multiple": {"merge_method": "linear", "base_model": "base", "models": listed("base", "a", "b"),
                              "tokenizer": {"source": "union", "pad_to_multiple_of": 8}},
    "rows up to a multiple, of a base": {"merge_method": "task_arithmetic", "base_model": "base",
                                         "models": listed("a", "b", "c"),
                                         "tokenizer": {"source": "base", "pad_to_multiple_of": 16, "tokens": {
                                             "d": {"source": "b", "force": True}}}},
    "stacked layers": {"merge_method": "passthrough", "base_model": "a", "tokenizer_source": "base", "slices": [
        {"sources": [{"model": "a", "layer_range": [0, 3]}]}, {"sources": [{"model": "a", "layer_range": [1, 4]}]}]},
}  # fmt: skip


def located(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: located(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [located(item, folder) for item in value]
    return str(folder / value) if isinstance(value, str) and value in TOKENS and value != "base" else value


def written(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe with paths; the word base is a model but in `tokenizer_source`."""
    out = located(recipe, folder)
    if out.get("base_model") == "base":
        out["base_model"] = str(folder / "base")
    for entry in out.get("models", ()):
        entry["model"] = str(folder / "base") if entry["model"] == "base" else entry["model"]
    return out


def ours(recipe: dict[str, Any], folder: Path, out: Path) -> Checkpoint:
    (out.parent / "r.yaml").write_text(json.dumps(written(recipe, folder)))
    merge_recipe(out.parent / "r.yaml", out=out)
    return Checkpoint.open(out)


def tokens_in(folder: Path) -> dict[str, int]:
    content = json.loads((folder / "tokenizer.json").read_text())
    return {**content["model"]["vocab"], **{each["content"]: each["id"] for each in content["added_tokens"]}}


if importlib.util.find_spec("mergekit"):  # the extra kofn[peers]

    @pytest.mark.parametrize("title", RECIPES)
    def test_mergekit_makes_the_same(title: str, models: Path, tmp_path: Path) -> None:
        import logging

        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        logging.disable(logging.CRITICAL)
        config = MergeConfiguration.model_validate(written(RECIPES[title], models))
        run_merge(config, str(tmp_path / "theirs"), MergeOptions(quiet=True))
        made, reference = ours(RECIPES[title], models, tmp_path / "ours"), Checkpoint.open(tmp_path / "theirs")
        assert made.keys() == reference.keys()
        own, other = tokens_in(tmp_path / "ours"), tokens_in(tmp_path / "theirs")
        assert own.keys() == other.keys()
        if "union" not in (RECIPES[title].get("tokenizer_source"), RECIPES[title].get("tokenizer", {}).get("source")):
            assert own == other
        for name, tensor in reference.items():
            assert made[name].shape == tensor.shape, name
            array = tensor.array()
            if name in (EMBED, HEAD):  # mergekit goes through the models of a union in an order that changes by the run
                array = np.concatenate([array[[other[token] for token in own]], array[len(own) :]])
                assert list(own.values()) == list(range(len(own)))
            np.testing.assert_allclose(made[name].array(), array, rtol=1e-5, atol=2e-8, err_msg=name)
        sizes = [json.loads((tmp_path / side / "config.json").read_text())["vocab_size"] for side in ("ours", "theirs")]
        assert sizes[0] == sizes[1] == made[EMBED].shape[0]


def rows_of(folder: Path, model: str, tensor: str = EMBED) -> dict[str, np.ndarray]:
    table = Checkpoint.open(folder / model)[tensor].array().astype(np.float64)
    return {token: table[i] for i, token in enumerate(TOKENS[model])}


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
def test_what_lacks_a_row_gets_the_bases_or_the_plain_mean(tensor: str, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = ours(RECIPES["task arithmetic, union"], models, out)[tensor].array()
    owned = {name: rows_of(models, name, tensor) for name in ("base", "a", "b", "c")}
    for token, number in tokens_in(out).items():
        have = [rows[token] for rows in owned.values() if token in rows]
        default = owned["base"].get(token, np.mean(have, axis=0))
        origin = owned["base"].get(token, default)
        changes = [w * (owned[m].get(token, default) - origin) for m, w in zip("abc", (0.9, 0.3, 0.5), strict=True)]
        np.testing.assert_allclose(made[number], origin + np.sum(changes, axis=0), atol=1e-7, err_msg=token)
    assert list(tokens_in(out))[len(OWN) :] == ["<x>", "<tool>", "<y>", "<z>"]
    assert json.loads((out / "config.json").read_text())["vocab_size"] == len(OWN) + 4


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
def test_rows_that_a_recipe_decides(tensor: str, models: Path, tmp_path: Path) -> None:
    made = ours(RECIPES["rows of single tokens"], models, tmp_path / "out")[tensor].array()
    tokens = tokens_in(tmp_path / "out")
    base, a, b = (rows_of(models, name, tensor) for name in ("base", "a", "b"))
    table = Checkpoint.open(models / "b")[tensor].array()
    total = 0.9 + 0.3 + 0.5
    expected = {
        "<x>": a["<x>"],  # one model has it, and the others get its row
        "<tool>": b["<tool>"],
        "<y>": (0.9 * a["d"] + 0.3 * a["d"] + 0.5 * b["<y>"]) / total,
        "<z>": 0.5 * b["<z>"] / total,
        "<new>": table[3],
        "d": a["d"],
        "e": (0.9 * base["e"] + 0.3 * a["e"] + 0.5 * b["e"]) / total,
    }
    for token, row in expected.items():
        np.testing.assert_allclose(made[tokens[token]], row, atol=1e-7, err_msg=token)
    assert [*tokens][-1] == "<new>"


def test_rows_without_a_token_are_the_mean_of_the_others(models: Path, tmp_path: Path) -> None:
    recipe = RECIPES["rows up to a multiple"]
    made = ours(recipe, models, tmp_path / "out")
    count = len(tokens_in(tmp_path / "out"))
    for name in (EMBED, HEAD):
        rows = made[name].array().astype(np.float64)
        assert count == 13
        assert len(rows) == 16
        np.testing.assert_allclose(rows[count:], np.tile(rows[:count].mean(axis=0), (3, 1)), atol=1e-7)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 16
    again = ours({**recipe, "tokenizer": {"source": "union", "pad_to_multiple_of": 5}}, models, tmp_path / "out5")
    assert again[EMBED].shape[0] == again[HEAD].shape[0] == 15


def test_the_output_has_the_tokens_that_are_named(models: Path, tmp_path: Path) -> None:
    for title, model in (
        ("linear, base", "a"),
        ("linear, a model", "c"),
        ("rows without a token are dropped", "padded"),
    ):
        made = ours(RECIPES[title], models, tmp_path / model)
        assert tokens_in(tmp_path / model) == {token: i for i, token in enumerate(TOKENS[model])}
        assert made[EMBED].shape[0] == made[HEAD].shape[0] == len(TOKENS[model])
        config = json.loads((tmp_path / model / "config.json").read_text())
        assert config["vocab_size"] == len(TOKENS[model])


def test_a_model_without_a_tokenizer_has_the_bases_tokens(models: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in (models / "a").iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "b" / "tokenizer.json").unlink()
    recipe = {"merge_method": "linear", "base_model": "a", "models": listed("a", "b"), "tokenizer_source": "union"}
    made = ours(recipe, tmp_path, tmp_path / "out")
    assert made[EMBED].array().tolist() == Checkpoint.open(models / "a")[EMBED].array().tolist()
    (tmp_path / "a" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="holds no tokenizer; save it there"):
        ours(recipe, tmp_path, tmp_path / "out2")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"tokenizer": {"source": "union"}, "tokenizer_source": "base"},
            "tokenizer_source and tokenizer are both given",
        ),
        ({"tokenizer": "union"}, "tokenizer: 'union' is no table"),
        ({"tokenizer": {"tokens": ["<x>"]}}, "tokenizer: tokens: ['<x>'] is no table"),
        (
            {"tokenizer": {"tokens": {"<x>": "d"}}},
            "tokens: '<x>': 'd' names no source; give the token, as text, a table",
        ),
        ({"tokenizer": {"tokens": {"<x>": {"force": True}}}}, "tokens: '<x>': {'force': True} names no source"),
        (
            {"tokenizer": {"tokens": {"<x>": {"source": "a", "forced": 1}}}},
            "tokens: '<x>' has no key 'forced'; did you",
        ),
        (
            {"tokenizer": {"tokens": {"<x>": {"source": "a", "force": "very"}}}},
            "force: 'very' is neither true nor false",
        ),
        ({"tokenizer": {"tokens": {"<x>": {"source": {"kind": "one"}}}}}, "kind='one'"),
        (
            {"tokenizer": {"tokens": {"<x>": {"source": {"kind": "model_token", "model": "a"}}}}},
            "tokens: '<x>': give either token, a text, or token_id, a number",
        ),
        (
            {"tokenizer": {"tokens": {"<n>": {"source": {"kind": "model_token", "model": "a", "token_id": 99}}}}},
            "which has no row 99; name a token or a row that it has",
        ),
        ({"tokenizer": {"tokens": {"<n>": {"source": "a"}}}}, "which has no token '<n>'; name a token or a row"),
        ({"tokenizer": {"tokens": {"<n>": {"source": "c"}}}}, "which is none of the models that are blended"),
        ({"tokenizer": {"source": "base", "pad_to_multiple_of": 0}}, "tokenizer: pad_to_multiple_of"),
        ({"tokenizer": {"sauce": "base"}}, "tokenizer has no key 'sauce'; did you mean 'source'"),
        ({"tokenizer_source": "nowhere"}, "model 'nowhere' is no folder here"),
        ({"tokenizer_source": 3}, "tokenizer_source: 3 is no path"),
    ],
)
def test_what_is_not_read_is_refused_by_name(changes: dict[str, Any], says: str, models: Path, tmp_path: Path) -> None:
    recipe = {"merge_method": "linear", "base_model": "a", "models": listed("a", "b"), **changes}
    with pytest.raises(InputError) as caught:
        ours(recipe, models, tmp_path / "out")
    assert says in str(caught.value)


def test_one_word_decides_the_tokens(models: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(written(RECIPES["linear, union"], models)))
    with pytest.raises(InputError, match="the recipe says tokenizer_source: union, and vocabulary='first' is given"):
        merge_recipe(tmp_path / "r.yaml", vocabulary="first")


def test_stacks_of_models_with_other_tokens_are_refused(models: Path, tmp_path: Path) -> None:
    slices = [{"sources": [{"model": name, "layer_range": [0, 2]}]} for name in ("a", "b")]
    recipe = {"merge_method": "passthrough", "slices": slices, "tokenizer_source": "union"}
    with pytest.raises(InputError, match=r"has other tokens than .*, and layers of both are stacked"):
        ours(recipe, models, tmp_path / "out")


def test_a_token_without_a_row_is_refused(models: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in (models / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    write_tokenizer(tmp_path / "b", [*TOKENS["b"], "<far>"])
    recipe = {"merge_method": "linear", "base_model": "a", "models": listed("a", "b"), "tokenizer_source": "union"}
    with pytest.raises(InputError, match=r"token '<far>' .* has no row"):
        ours(recipe, tmp_path, tmp_path / "out")
