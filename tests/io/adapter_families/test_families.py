"""What is read as an adapter and what is refused, by family; products of factors against dense ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from adapter_files import FILES, kohya, lokr, mlx, peft, torchtune
from lora import refused

from kofn.combination import fold_adapter
from kofn.core.checks import FailureError, InputError
from kofn.io.adapter_families import FAMILIES, Saved, family_of
from kofn.io.adapter_families._peft import config_of
from kofn.io.adapters import CONFIG, Adapter, is_adapter, lora_pairs
from kofn.io.low_rank import block, hadamard, kronecker, plain
from kofn.io.module_names import ModuleNames, split

A, B = np.ones((2, 3), "f4"), np.ones((4, 2), "f4")
PAIR = {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B}
LOHA = {"m.hada_w1_a": B, "m.hada_w1_b": A, "m.hada_w2_a": B, "m.hada_w2_b": A}
LOKR = {"m.lokr_w1_a": np.ones((2, 1)), "m.lokr_w1_b": np.ones((1, 2)), "m.lokr_w2": np.ones((2, 2))}
MLX = {"q.lora_a": np.ones((3, 2)), "q.lora_b": np.ones((2, 4))}
NEW = {"unet.q.lora_A.weight": A, "unet.q.lora_B.weight": B}
OLD = {"unet.q.lora.down.weight": A, "unet.q.lora.up.weight": B}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_of_one_family(name: str) -> None:
    file = FILES[name]()
    saved = Saved(file.tensors, file.config or {}, file.metadata)
    owner = family_of(saved)
    assert [family for family in FAMILIES if family.owns(saved)] == [owner]
    assert owner is not None
    assert owner.name == file.family


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "OFT": ({**PAIR, "lora_unet_k.oft_blocks": A}, "'lora_unet_k.oft_blocks' is an orthogonal rotation (OFT, BOFT)"),
    "IA3": ({**PAIR, "lora_unet_k.on_input": A}, "a rescaling of activations (IA3)"),
    "GLoRA": ({**PAIR, "lora_unet_k.a1.weight": A}, "GLoRA, whose update depends on the weight"),
    "T-LoRA": ({**PAIR, "lora_unet_k.lambda_layer": A}, "T-LoRA, whose rank depends on the time"),
    "OFT alone": ({"lora_unet_k.oft_blocks": A}, "'lora_unet_k.oft_blocks' is an orthogonal rotation (OFT, BOFT)"),
    "another name": ({**PAIR, "lora_unet_q.bias": A}, "'lora_unet_q.bias' is of no known LoRA form of kohya"),
    "another name, MLX": ({**MLX, "q.bias": A}, "'q.bias' is of no known LoRA form of MLX"),
    "another name, diffusers": ({**OLD, "unet.q.bias": A}, "'unet.q.bias' is of no known LoRA form of diffusers"),
    "two families": ({**PAIR, **MLX}, "holds factors of kohya and of MLX; save them as two adapters"),
    "PEFT's LoHa": (
        {f"base_model.model.{name}": array for name, array in LOHA.items()},
        "'base_model.model.m.hada_w1_a' is LoHa or LoKr of PEFT",
    ),
    "no up": ({"lora_unet_q.lora_down.weight": A}, "module 'lora_unet_q' has no lora_up; save the adapter again"),
    "no up of a core": ({"q.lora_down.weight": A, "q.lora_mid.weight": np.ones((2, 2, 3, 3), "f4")}, "has no lora_up"),
    "alpha alone": ({**PAIR, "lora_unet_k.alpha": np.ones(())}, "module 'lora_unet_k' has 'alpha' and no factor"),
    "no alpha": (
        {**PAIR, "lora_unet_q.alpha": np.zeros(())},
        "is 0, which sd-scripts loads as the rank and merges as 0",
    ),
    "two alphas": ({**PAIR, "lora_unet_q.alpha": np.ones(2)}, "alpha of 'lora_unet_q' is array([1., 1.]); give one"),
    "unlike ranks": ({**PAIR, "lora_unet_q.lora_up.weight": np.ones((4, 3), "f4")}, "lora_down is (r, in) and lora_up"),
    "a whole and its core": (
        {**LOKR, "m.lokr_t2": np.ones((2, 2, 3, 3))},
        "module 'm' has lokr_w2 and lokr_t2, the whole and its core; save the adapter again",
    ),
    "unlike dtypes": ({**LOHA, "m.hada_w1_a": B.astype("f8")}, "factors of 'm' are float64 and float32"),
    "whole numbers": ({name: array.astype(int) for name, array in LOHA.items()}, "are int64 and int64"),
    "half of LoHa": ({"m.hada_w1_a": B, "m.hada_w1_b": A}, "module 'm' has no hada_w2_a"),
    "LoHa of two ranks": ({**LOHA, "m.hada_w1_a": np.ones((4, 3), "f4")}, "have shapes (4, 3) and (2, 3)"),
    "LoHa of two shapes": ({**LOHA, "m.hada_w1_a": np.ones((5, 2), "f4")}, "are (5, 3) and (4, 3)"),
    "LoHa beside a pair": ({**LOHA, "m.lora_up.weight": B}, "module 'm' has factors"),
    "a core that does not fit": ({**LOHA, "m.hada_t1": np.ones((3, 3, 2, 2), "f4")}, "they do not fit"),
    "half of LoKr": ({"m.lokr_w1": B, "m.lokr_w2_a": B}, "module 'm' has no lokr_w2_b"),
    "a flat half of LoKr": ({**LOKR, "m.lokr_w2": np.ones(3)}, "module 'm' has a lokr_w2 of shape (3,)"),
    "a kernel in the first half": (
        {"m.lokr_w1": np.ones((2, 2, 3, 3)), "m.lokr_w2": np.ones((2, 2))},
        "lokr_w1 of 'm' has",
    ),
    "an empty half of LoHa": ({**LOHA, "m.hada_w2_b": np.ones((0, 3), "f4")}, "a hada_w2_b of shape (0, 3)"),
    "LoKr of two ranks": (
        {**LOKR, "m.lokr_w2_a": np.ones((2, 3)), "m.lokr_w2_b": np.ones((3, 2)), "m.lokr_w2": None},
        "the factors of 'm' have ranks 1 and 3",
    ),
    "experts": ({"q.lora_a": np.ones((2, 3, 4)), "q.lora_b": np.ones((2, 4, 3))}, "factors of several experts in one"),
    "no b": ({"q.lora_a": A}, "module 'q' has no lora_b"),
    "no b of torchtune": ({"q.lora_a.weight": A}, "module 'q' has no lora_b"),
    "no half of diffusers": ({"unet.q.lora.down.weight": A}, "module 'unet.q' has no lora_B"),
    "an alpha of nothing": ({**OLD, "unet.k.alpha": np.ones(())}, "alpha of 'unet.k' belongs to no factors"),
}


@pytest.mark.parametrize(("tensors", "says"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_understood_is_refused_by_name(tensors: dict[str, Any], says: str) -> None:
    refused(lambda: Adapter({name: array for name, array in tensors.items() if array is not None}), says)


def test_scales_that_are_open_are_refused() -> None:
    for parameters, says in (
        ({"rank": 2, "scale": "x"}, "scale in lora_parameters is 'x'; give a finite number"),
        ({"rank": 2, "scale": 10**400}, "scale in lora_parameters is 1000"),
        ({"rank": 2, "scale": 10**200, "alpha": 10**200}, "scale * alpha / rank = inf, today's by scale"),
        ({"rank": 3, "scale": 2.0}, "gives the rank 3, the factors have 2"),
        ({"rank": 2, "scale": 10.0, "alpha": 16}, "scale * alpha / rank = 80, today's by scale"),
    ):
        refused(lambda parameters=parameters: Adapter(MLX, {"lora_parameters": parameters}), says)
    for parameters, scale in (({"scale": 10.0, "alpha": 2}, 10), ({"alpha": 6.0}, 3), ({}, 1)):
        assert Adapter(MLX, {"lora_parameters": parameters}).pairs["q"].scale == scale
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4})}
    assert Adapter(NEW, metadata=metadata).pairs["unet.q"].scale == 2
    alone = {"lora_adapter_metadata": json.dumps({"r": 2, "lora_alpha": 4})}
    plain_names = {name.removeprefix("unet."): array for name, array in NEW.items()}
    assert Adapter(plain_names, metadata=alone).pairs["q"].scale == 2
    refused(lambda: Adapter({**NEW, "unet.q.alpha": np.ones(())}, metadata=metadata), "has alphas and lora_adapter_")
    for text in ("{", "[]"):
        with pytest.raises(FailureError, match="lora_adapter_metadata"):
            Adapter(NEW, metadata={"lora_adapter_metadata": text})
    started = {
        "lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.init_lora_weights": "pissa"})
    }
    assert "init_lora_weights='pissa' changed the base" in Adapter(NEW, metadata=started).nonlinear()[0]


def test_a_configuration_that_scales_must_be_there(tmp_path: Path) -> None:
    for make, text, says in (
        (mlx, "{}", "lora_parameters=None; it must hold rank and scale"),
        (mlx, '{"lora_parameters": {"rank": 2}}', "no scale in lora_parameters"),
        (torchtune, '{"r": 2}', "lora_alpha=None; it must give a number"),
        (peft, '{"r": 2}', "lora_alpha=None; it must give a number"),
        (peft, '{"r": 2, "lora_alpha": 1%s}' % ("0" * 400), "' is 1000"),
        (peft, '{"r": 2, "lora_alpha": 2, "modules_to_save": 5}', "modules_to_save=5; it must list names of modules"),
        (peft, '{"r": 2, "lora_alpha": 2, "modules_to_save": [[1]]}', "modules_to_save=[[1]]; it must list names"),
        (torchtune, '{"r": 2, "lora_alpha": 2, "target_modules": 5}', "target_modules=5; it must list names"),
    ):
        folder = make().save(tmp_path / make.__name__)
        (folder / CONFIG).write_text(text)
        refused(lambda folder=folder: lora_pairs(folder), says)
        (folder / CONFIG).unlink()
        refused(lambda folder=folder: lora_pairs(folder), "adapter_config.json is missing, which says how the factors")
    refused(lambda: Adapter(lokr().tensors, {"peft_type": "LOKR"}), "is of no known LoRA form")
    path = kohya().save(tmp_path / "mlx" / "lora.safetensors")
    refused(lambda: lora_pairs(tmp_path / "nothing.safetensors"), "does not exist")
    (tmp_path / "mlx" / "adapters.safetensors").unlink()
    (tmp_path / "mlx" / CONFIG).write_text("{}")
    assert Adapter.read(path).config == {}  # a configuration beside it is another adapter's


def test_a_single_module_to_save_may_stand_alone() -> None:
    config = {"r": 2, "lora_alpha": 2, "modules_to_save": "head"}
    assert config_of(list(Adapter(PAIR).pairs.values()), [config])["modules_to_save"] == ["head"]


def test_files_that_are_not_read_are_known_as_adapters(tmp_path: Path) -> None:
    path = tmp_path / "oft.safetensors"
    safetensors.numpy.save_file({"lora_unet_k.oft_blocks": A, "lora_unet_k.alpha": np.ones((), "f4")}, path)
    assert is_adapter(path)
    refused(lambda: lora_pairs(path), "is an orthogonal rotation (OFT, BOFT), not a pair of factors; fold that adapter")


def test_spellings_of_diffusers_name_the_modules_of_today() -> None:
    names = {
        "unet.a.attn1.processor.to_q_lora": "unet.a.attn1.to_q",
        "unet.a.attn1.processor.to_out_lora": "unet.a.attn1.to_out.0",
        "text_encoder.a.self_attn.to_q_lora": "text_encoder.a.self_attn.q_proj",
        "text_encoder.a.self_attn.to_out_lora": "text_encoder.a.self_attn.out_proj",
        "text_encoder.a.self_attn.v_proj.lora_linear_layer": "text_encoder.a.self_attn.v_proj",
        "text_encoder.a.mlp.fc1.lora_linear_layer": "text_encoder.a.mlp.fc1",
        "unet.a.ff.net.0.proj.lora": "unet.a.ff.net.0.proj",
        "transformer.a.to_k.lora": "transformer.a.to_k",
    }
    tensors = {f"{name}.{way}.weight": half for name in names for way, half in (("down", A), ("up", B))}
    pairs = lora_pairs(
        {**tensors, "unet.a.attn1.to_q.alpha": np.array(1.0), "transformer.a.to_k.lora.alpha": np.ones(1)}
    )
    assert list(pairs) == list(names.values())
    halved = [module for module, pair in pairs.items() if pair.scale == 0.5]
    assert halved == ["unet.a.attn1.to_q", "transformer.a.to_k"]


def test_embeddings_of_mlx_are_tables() -> None:
    adapter = Adapter({"model.embed_tokens.lora_a": np.ones((9, 2)), "model.embed_tokens.lora_b": np.ones((2, 4))})
    pair = adapter.pairs["model.embed_tokens"]
    assert (pair.kind, pair.A.shape, pair.B.shape) == ("embedding", (2, 9), (4, 2))


def test_facts_name_ranks_and_scales() -> None:
    assert Adapter(kohya().tensors).facts() == {"family": "kohya", "modules": 3, "rank": "2..3", "scale": "1..2.5"}
    assert repr(Adapter(kohya().tensors)) == "Adapter(3 modules of rank 2..3 by kohya)"


def test_products_of_factors_are_exact() -> None:
    rng = np.random.default_rng(0)
    one, two = ((rng.integers(-3, 4, (5, r)), rng.integers(-3, 4, (r, 7))) for r in (1, 3))
    halves = [plain(*factors) for factors in (one, two)]
    dense = [b @ a for b, a in (one, two)]
    for product, want in (
        (hadamard(*halves), dense[0] * dense[1]),
        (hadamard(halves[1], halves[1]), dense[1] ** 2),
        (kronecker(*halves), np.kron(*dense)),
        (kronecker(block(dense[0]), block(dense[1].T)), np.kron(dense[0], dense[1].T)),
        (kronecker(block(dense[1]), block(dense[0])), np.kron(dense[1], dense[0])),
    ):
        np.testing.assert_array_equal(product.product(), want)
        assert product.rank <= min(want.shape)
        assert product.rows().shape == (product.rank, product.width)
        assert product.columns().shape == (product.out, product.rank)


def test_names_of_modules_correspond() -> None:
    names = ModuleNames(["down.0.to_q", "text_encoder.fc", "text_encoder_2.fc"])
    assert names.find("base_model.model.unet.down.0.to_q") == "down.0.to_q"
    assert names.find("lora_te2_fc") == "text_encoder_2.fc"
    assert names.find("lora_unet_fc") is None
    refused(lambda: names.find("fc"), "module 'fc' may be 'text_encoder.fc' or 'text_encoder_2.fc'")
    assert split("conditioner.embedders.0.transformer.a") == ("text encoder", "a")
    assert split("lycoris_a_b") == ("model", "a_b")


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_numbers_of_hundreds_of_digits_are_cut(key: str) -> None:
    tensors = {"q.lora_A.weight": np.ones((2, 3)), "q.lora_B.weight": np.ones((4, 2))}
    with pytest.raises(InputError) as caught:
        Adapter(tensors, {"r": 2, "lora_alpha": 4, key: int("9" * 401)})
    assert "999 ..." in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_mlx_adapter_in_full_holds_the_model_s_own_tensors(tmp_path: Path) -> None:
    tensors = {"layers.1.q.weight": np.ones((2, 3), "f4"), "layers.1.norm.weight": np.ones(3, "f4")}
    safetensors.numpy.save_file(tensors, tmp_path / "adapters.safetensors")
    (tmp_path / CONFIG).write_text(json.dumps({"fine_tune_type": "full", "num_layers": 1, "lora_parameters": {}}))
    adapter = Adapter.read(tmp_path)
    assert adapter.facts() == {"family": "MLX", "modules": 0, "rank": "none", "scale": "none", "full": 2}
    folded = fold_adapter({**{name: 3 * array for name, array in tensors.items()}, "x": A}, adapter, weight=0.5)
    assert all((folded[name] == 2).all() for name in tensors)
    assert folded["x"] is A
    refused(
        lambda: fold_adapter({"x": A}, adapter, weight=0.5),
        "it lacks 'layers.1.norm.weight'; it lacks 'layers.1.q.weight'",
    )
