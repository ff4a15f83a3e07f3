"""Tables of tokens, tensors trained in full, other dtypes and chosen modules, where adapters are folded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from lora import P, kind, mixed, network, refused

from kofn.combination import fold_adapter, fold_adapters, stack_adapters, weighted_mean
from kofn.combination.adapters._fold_adapter import open_fold
from kofn.core.checks import InputError
from kofn.io.adapters import Adapter

ONES = {"l.lora_A.weight": np.ones((1, 2), np.float32), "l.lora_B.weight": np.ones((2, 1), np.float32)}


def tabled(rows: int, seed: int = 0, **names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(rows, 2)).astype(np.float32) for name in ("model.embed_tokens.weight", "lm_head.weight")
    }


def on_disk(folder: Path, arrays: dict[str, np.ndarray], config: str = '{"vocab_size": 4}') -> Path:
    folder.mkdir()
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(config)
    return folder


@pytest.mark.parametrize("rows", [6, 3])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_tables_of_tokens_get_the_rows_of_the_adapter(rows: int, weight: float, tmp_path: Path) -> None:
    start = {**tabled(4), "l.weight": np.zeros((2, 2), np.float32)}
    tables = tabled(rows, seed=1)
    adapter = Adapter({**ONES, **{P + name: array for name, array in tables.items()}})
    config = '{"vocab_size": 4, "text_config": {"vocab_size": 4}, "hidden_size": 4}'
    base = on_disk(tmp_path / "base", start, config)
    fold_adapter(base, adapter, weight=weight, out=tmp_path / "out")
    notes = open_fold(base, [adapter]).folding.notes
    assert any("3 rows of tokens, the base 4: the last 1 are left out" in note for note in notes) is (rows == 3)
    shared = min(rows, 4)
    for folded in (
        fold_adapter(start, adapter, weight=weight),
        safetensors.numpy.load_file(tmp_path / "out/model.safetensors"),
    ):
        for name, table in tables.items():
            assert folded[name].shape == (rows, 2)
            want = start[name][:shared] + weight * (table[:shared] - start[name][:shared])
            np.testing.assert_allclose(folded[name][:shared], want, atol=1e-6)
            np.testing.assert_array_equal(folded[name][shared:], table[shared:])
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written == {"vocab_size": rows, "text_config": {"vocab_size": rows}, "hidden_size": 4}
    only = Adapter({**ONES, P + "lm_head.weight": tables["lm_head.weight"]})
    if rows > 4:
        refused(
            lambda: fold_adapter(base, only), "'model.embed_tokens.weight' keeps 4 rows where", "save_embedding_layers"
        )
    else:
        folded = fold_adapter(base, only)
        assert folded["lm_head.weight"].shape == folded["model.embed_tokens.weight"].shape == (3, 2)
    wide = Adapter({**ONES, P + "lm_head.weight": np.ones((rows, 3), np.float32)})
    refused(lambda: fold_adapter(base, wide), f"'lm_head.weight' is (4, 2), the adapter's ({rows}, 3)")
    unlike = Adapter(
        {
            **ONES,
            P + "lm_head.weight": tables["lm_head.weight"],
            P + "model.embed_tokens.weight": tabled(7)["lm_head.weight"],
        }
    )
    refused(lambda: fold_adapter(base, unlike), "tables of tokens get one number of rows")


def test_single_rows_are_put_in_the_place_of_the_bases() -> None:
    start = tabled(5) | {"l.weight": np.zeros((2, 2), np.float32)}
    new = np.array([[10, 11], [20, 21]], np.float32)
    delta = "model.embed_tokens.token_adapter.trainable_tokens_delta"
    tensors = {**ONES, P + delta: new}
    for listed in ([3, 0], {"embed_tokens": [3, 0]}, {"model.embed_tokens": [3, 0], "lm_head": [1]}):
        folded = fold_adapter(start, Adapter(tensors, {"trainable_token_indices": listed}))
        want = start["model.embed_tokens.weight"].copy()
        want[[3, 0]] = new
        np.testing.assert_array_equal(folded["model.embed_tokens.weight"], want)
        assert folded["lm_head.weight"] is start["lm_head.weight"]
    one = Adapter(tensors, {"trainable_token_indices": [3, 0]})
    half = fold_adapter(start, one, weight=0.5)["model.embed_tokens.weight"]
    np.testing.assert_allclose(half, (start["model.embed_tokens.weight"] + want) / 2, rtol=1e-6)
    other = Adapter({**ONES, P + delta: new + 1}, {"trainable_token_indices": [3, 4]})
    both = fold_adapters(start, [one, other], weights=[0.5, 0.5])["model.embed_tokens.weight"]
    origin = start["model.embed_tokens.weight"]
    np.testing.assert_allclose(both[3], [10.5, 11.5], rtol=1e-6)
    np.testing.assert_allclose(both[0], (origin[0] + new[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(both[4], (origin[4] + new[1] + 1) / 2, rtol=1e-6)
    assert both[1].tolist() == origin[1].tolist()
    refused(lambda: stack_adapters([one, other]), "rows of single tokens are trained in full")
    assert stack_adapters([one]).result is one
    for listed in (None, [3], [3, 3], [3, -1], [3, 1.0], {"lm_head": [3, 0]}, "ab"):
        refused(lambda listed=listed: Adapter(tensors, {"trainable_token_indices": listed}), "trainable_token_indices")
    far = Adapter(tensors, {"trainable_token_indices": [3, 6]})
    refused(
        lambda: fold_adapter(start, far), "is (5, 2), the adapter's (2, 2) of rows up to 6 without values for the new"
    )
    near = Adapter(tensors, {"trainable_token_indices": [3, 5]})
    refused(lambda: fold_adapter(start, near), "'lm_head.weight' keeps 5 rows where")
    del start["lm_head.weight"]
    grown = fold_adapter(start, near)["model.embed_tokens.weight"]
    np.testing.assert_array_equal(grown, [*origin[:3], new[0], origin[4], new[1]])


def test_what_several_trained_in_full_is_their_sum_or_mean(tmp_path: Path) -> None:
    base = {"l.weight": np.zeros((2, 2)), "head.weight": np.array([1.0, 2.0])}
    heads = [np.array([3.0, 3.0]), np.array([0.0, 8.0])]
    members = [Adapter({**ONES, "head.weight": head}) for head in heads]
    summed = fold_adapters(base, members)["head.weight"]
    assert summed.tolist() == [1 + 2 - 1, 2 + 1 + 6]
    assert fold_adapters(base, members[::-1])["head.weight"].tolist() == summed.tolist()
    assert fold_adapters(base, members, weights=[0.5, 0.5])["head.weight"].tolist() == [1.5, 5.5]
    alone = fold_adapters(base, [members[0], Adapter(ONES)])["head.weight"]
    assert alone.tolist() == heads[0].tolist()
    # A sum of adapters, folded, is the sum of the folds.
    stacked = stack_adapters(members, weights=[2, -0.5], normalize=False, base=base).result
    folded, parts = fold_adapter(base, stacked), fold_adapters(base, members, weights=[2, -0.5])
    for name in base:
        np.testing.assert_allclose(folded[name], parts[name], rtol=1e-6)


def test_another_dtype_and_quantised_bases(tmp_path: Path) -> None:
    codes = np.array([[100, -50], [25, 127]], np.int8)
    base = {"l.weight": codes, "l.weight_scale": np.array([0.5], np.float32), "norm": np.array([1.5, 2], np.float32)}
    path = on_disk(tmp_path / "base", base, '{"torch_dtype": "float16", "quantization_config": {"x": 1}}')
    for given in (base, path):
        refused(lambda given=given: fold_adapter(given, ONES), "base is quantised", "give dtype='bfloat16' (--dtype)")
        folded = fold_adapter(given, ONES, dtype="float32")
        assert set(folded) == {"l.weight", "norm"}
        np.testing.assert_array_equal(folded["l.weight"], codes * 0.5 + 1)
    written = fold_adapter(path, ONES, weight=2, dtype="bfloat16", out=tmp_path / "out")
    assert {array.dtype.name for array in written.values()} == {"bfloat16"}
    np.testing.assert_array_equal(written["l.weight"].astype(float), codes * 0.5 + 2)
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"torch_dtype": "bfloat16"}
    plain = {"l.weight": np.eye(2, dtype=np.float32), "steps": np.array([3]), "norm": np.ones(2, np.float16)}
    folded = fold_adapter(plain, ONES, dtype="float64")
    assert {name: array.dtype.name for name, array in folded.items()} == {
        "l.weight": "float64",
        "steps": "int64",
        "norm": "float64",
    }
    refused(lambda: fold_adapter(plain, ONES, dtype="float17"), "dtype='float17'")


def test_modules_are_chosen_by_only_and_skip() -> None:
    base, (tensors, config) = network(), mixed()[0]
    adapter = Adapter(tensors, config)
    for patterns in ("layers.1.*", ["*1.q_proj", P + "layers.1.v_proj"]):
        folded = fold_adapter(base, adapter, only=patterns)
        assert [name for name in base if folded[name] is not base[name]] == [
            "layers.1.q_proj.weight",
            "layers.1.v_proj.weight",
        ]
    folded = fold_adapter(base, adapter, only="layers.1.*", skip="*v_proj")
    assert [name for name in base if folded[name] is not base[name]] == ["layers.1.q_proj.weight"]
    refused(lambda: fold_adapter(base, adapter, only="layers.7.*"), "only='layers.7.*' matches no module")
    refused(lambda: fold_adapter(base, adapter, only="layers.1.*", skip="layers.1*"), "leave no module to fold")
    headed = Adapter(*kind("head"))
    assert set(fold_adapter(base, headed, skip="head.weight")) == set(base)


def test_grown_tables_of_unlike_rows_are_refused_with_the_way_through() -> None:
    members = [
        Adapter({**ONES, P + "lm_head.weight": np.ones((rows, 2), np.float32)}, {"modules_to_save": ["lm_head"]})
        for rows in (5, 6)
    ]
    refused(lambda: stack_adapters(members), "members do not match in 1 place", "fold each adapter apart into the base")
    members[1] = Adapter({**ONES, P + "lm_head.weight": np.ones((5, 3), np.float32)}, {"modules_to_save": ["lm_head"]})
    with pytest.raises(InputError) as caught:
        stack_adapters(members)
    assert "fold each" not in str(caught.value)


def test_factors_of_a_recipe_are_sent_outside_it() -> None:
    factors = dict(ONES)
    refused(lambda: weighted_mean([factors, factors]), "those of a recipe outside it, kofn combine A B --weights")
