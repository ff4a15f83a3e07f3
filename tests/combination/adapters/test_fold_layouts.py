"""Adapters folded into bases that name, join or split their layers otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from lora import P, refused

from kofn.combination import fold_adapter, stack_adapters
from kofn.io.adapters import Adapter


def pair_of(module: str, out: int, into: int, rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    factors = {"A": rng.normal(size=(rank, into)), "B": rng.normal(size=(out, rank))}
    return {f"{P}{module}.lora_{half}.weight": array for half, array in factors.items()}


def product(tensors: dict[str, np.ndarray], module: str) -> np.ndarray:
    return tensors[f"{P}{module}.lora_B.weight"] @ tensors[f"{P}{module}.lora_A.weight"]


LANGUAGE = ["model.language_model.layers.0.q", "language_model.model.layers.0.q", "model.layers.0.q", "layers.0.q"]


@pytest.mark.parametrize("saved", LANGUAGE)
@pytest.mark.parametrize("stored", LANGUAGE)
def test_a_language_model_is_found_wherever_it_lies(stored: str, saved: str) -> None:
    tensors = pair_of(saved, 3, 4)
    base = {f"{stored}.weight": np.ones((3, 4)), "vision_tower.layers.0.q.weight": np.ones((3, 4))}
    folded = fold_adapter(base, tensors)
    np.testing.assert_allclose(folded[f"{stored}.weight"], 1 + product(tensors, saved))
    assert folded["vision_tower.layers.0.q.weight"] is base["vision_tower.layers.0.q.weight"]
    head = {**tensors, f"{P}lm_head.weight": np.full(5, 7.0)}
    base["language_model.lm_head.weight"] = np.zeros(5)
    assert fold_adapter(base, head)["language_model.lm_head.weight"].tolist() == [7] * 5


@pytest.mark.parametrize(
    "lead",
    [
        (f"_orig_mod.{P}", ""),
        (f"module.{P}", ""),
        (f"{P}_fsdp_wrapped_module.", "_fsdp_wrapped_module."),
        (P, "_checkpoint_wrapped_module._orig_mod."),
    ],
)
def test_what_torch_wraps_around_modules_is_not_of_their_names(lead: tuple[str, str]) -> None:
    tensors = pair_of("model.layers.0.q", 3, 4)
    first, layer = lead
    saved = {f"{first}{n.removeprefix(P)}".replace("layers.0.", f"layers.0.{layer}"): a for n, a in tensors.items()}
    assert all(name not in saved for name in tensors)
    folded = fold_adapter({"model.layers.0.q.weight": np.ones((3, 4))}, saved)
    np.testing.assert_allclose(folded["model.layers.0.q.weight"], 1 + product(tensors, "model.layers.0.q"))
    refused(lambda: fold_adapter({"model.layers.0.q.weight": np.ones((3, 4))}, saved | tensors), "holds a module twice")


def test_a_module_of_two_language_models_is_refused() -> None:
    base = {f"{name}.weight": np.ones((3, 4)) for name in LANGUAGE[1:3]}
    refused(lambda: fold_adapter(base, pair_of(LANGUAGE[0], 3, 4)), "may be 'language_model.model.layers.0.q' or")
    assert fold_adapter(base, pair_of(LANGUAGE[2], 3, 4))[f"{LANGUAGE[1]}.weight"] is base[f"{LANGUAGE[1]}.weight"]


@pytest.mark.parametrize(("stored", "saved"), [("", "bert."), ("bert.", ""), ("roberta.", "")])
def test_a_body_is_found_in_a_model_and_alone(stored: str, saved: str) -> None:
    tensors = pair_of(f"{saved}encoder.0.q", 3, 4) | pair_of(f"{saved}encoder.1.q", 3, 4, seed=1)
    base = {f"{stored}encoder.{i}.q.weight": np.ones((3, 4)) for i in range(2)} | {"classifier.weight": np.ones(3)}
    folded = fold_adapter(base, tensors)
    for i in range(2):
        want = 1 + product(tensors, f"{saved}encoder.{i}.q")
        np.testing.assert_allclose(folded[f"{stored}encoder.{i}.q.weight"], want)
    # A prefix that serves some modules only is none.
    refused(lambda: fold_adapter(base, tensors | pair_of(f"{saved}encoder.2.q", 3, 4)), "it lacks")


def experts(module: str, count: int, out: int, into: int, rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    return pair_of(module, out, into, rank * count, seed)


def each_expert(tensors: dict[str, np.ndarray], module: str, count: int) -> np.ndarray:
    """(experts, out, in), by the formula of PEFT's own code."""
    A, B = (tensors[f"{P}{module}.lora_{half}.weight"] for half in "AB")
    return np.einsum("ore,eri->eoi", B.reshape(len(B), -1, count), A.reshape(count, -1, A.shape[1]))


PARAMETERS = {"r": 2, "lora_alpha": 6, "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_in_one_parameter(transposed: bool, tmp_path: Path) -> None:
    count, hidden, inner = 3, 5, 4
    tensors = experts("mlp.experts.base_layer", count, 2 * inner, hidden) | experts("mlp.experts", count, hidden, inner)
    base = {
        "mlp.experts.gate_up_proj": np.ones((count, 2 * inner, hidden)),
        "mlp.experts.down_proj": np.ones((count, hidden, inner)),
    }
    want = {
        "mlp.experts.gate_up_proj": 1 + 3 * each_expert(tensors, "mlp.experts.base_layer", count),
        "mlp.experts.down_proj": 1 + 3 * each_expert(tensors, "mlp.experts", count),
    }
    if transposed:
        base = {name: np.ascontiguousarray(array.swapaxes(1, 2)) for name, array in base.items()}
        want = {name: array.swapaxes(1, 2) for name, array in want.items()}
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors")
    adapter = Adapter(tensors, PARAMETERS)
    assert adapter.facts()["rank"] == "2"
    for folded in (fold_adapter(base, adapter), fold_adapter(tmp_path / "base.safetensors", adapter)):
        for name, array in want.items():
            np.testing.assert_allclose(folded[name], array)
    written = fold_adapter(tmp_path / "base.safetensors", adapter, weight=-1, out=tmp_path / "out.safetensors")
    for name, array in want.items():
        np.testing.assert_allclose(written[name], 2 - array)
    other = Adapter(experts("mlp.experts", count, hidden, inner, seed=1), PARAMETERS)
    refused(lambda: stack_adapters([adapter, other]), "hold several experts in one")


def test_experts_that_the_base_keeps_apart() -> None:
    count, hidden, inner = 3, 5, 4
    tensors = experts("m.mlp.experts.base_layer", count, 2 * inner, hidden)
    tensors |= experts("m.mlp.experts", count, hidden, inner)
    joint = each_expert(tensors, "m.mlp.experts.base_layer", count)
    down = each_expert(tensors, "m.mlp.experts", count)
    for stem, words in (
        ("mlp.experts", ("gate_proj", "up_proj", "down_proj")),
        ("block_sparse_moe.experts", ("w1", "w3", "w2")),
    ):
        shapes = ((inner, hidden), (inner, hidden), (hidden, inner))
        base = {
            f"m.{stem}.{i}.{word}.weight": np.ones(shape)
            for i in range(count)
            for word, shape in zip(words, shapes, strict=True)
        }
        folded = fold_adapter(base, Adapter(tensors, PARAMETERS))
        for i in range(count):
            for word, want in zip(words, (joint[i, :inner], joint[i, inner:], down[i]), strict=True):
                np.testing.assert_allclose(folded[f"m.{stem}.{i}.{word}.weight"], 1 + 3 * want)
    del base[f"m.{stem}.2.w2.weight"]
    refused(lambda: fold_adapter(base, Adapter(tensors, PARAMETERS)), "has 3 experts of (5, 4) in the adapter, and")


def test_experts_whose_parameters_cannot_be_told_are_refused(tmp_path: Path) -> None:
    square = {"mlp.experts.down_proj": np.ones((3, 4, 4))}
    config = {**PARAMETERS, "target_parameters": ["experts.down_proj"]}
    tensors = experts("mlp.experts", 3, 4, 4)
    refused(lambda: fold_adapter(square, Adapter(tensors, config)), "is square, and no config.json says whether")
    (tmp_path / "base").mkdir()
    safetensors.numpy.save_file(square, tmp_path / "base" / "model.safetensors")
    each = each_expert(tensors, "mlp.experts", 3)
    for kind_of, want in (("qwen3_moe", each), ("gpt_oss", each.swapaxes(1, 2))):
        (tmp_path / "base" / "config.json").write_text(f'{{"model_type": "{kind_of}"}}')
        folded = fold_adapter(tmp_path / "base", Adapter(tensors, config))
        np.testing.assert_allclose(folded["mlp.experts.down_proj"], 1 + 3 * want)
    two = {"mlp.experts.gate_up_proj": np.ones((3, 4, 4)), **square}
    both = tensors | experts("mlp.experts.base_layer", 3, 4, 4)
    refused(lambda: fold_adapter(two, Adapter(both, PARAMETERS)), "in more than one way; merge that adapter with PEFT")
    refused(lambda: fold_adapter({"mlp.w": np.ones(2)}, Adapter(tensors, config)), "no such parameter")


def flux(block: int = 0, hidden: int = 4, mlp: int = 6) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, slice]]]:
    """Layers of Flux as its authors name them, and where each layer of diffusers lies in them."""
    rng = np.random.default_rng(3)
    tall = {"double_blocks.0.img_attn.qkv": 3 * hidden, "double_blocks.0.txt_attn.qkv": 3 * hidden}
    tall |= {"double_blocks.0.img_attn.proj": hidden, "single_blocks.0.linear1": 3 * hidden + mlp}
    base = {f"{name}.weight": rng.normal(size=(height, hidden)) for name, height in tall.items()}
    thirds = [slice(i * hidden, (i + 1) * hidden) for i in range(3)]
    places = {"transformer_blocks.0.attn.to_out.0": ("double_blocks.0.img_attn.proj", slice(0, hidden))}
    for stem, words in (("img", ("to_q", "to_k", "to_v")), ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"))):
        for word, rows in zip(words, thirds, strict=True):
            places[f"transformer_blocks.0.attn.{word}"] = (f"double_blocks.0.{stem}_attn.qkv", rows)
    for word, rows in zip(("to_q", "to_k", "to_v"), thirds, strict=True):
        places[f"single_transformer_blocks.0.attn.{word}"] = ("single_blocks.0.linear1", rows)
    places["single_transformer_blocks.0.proj_mlp"] = ("single_blocks.0.linear1", slice(3 * hidden, 3 * hidden + mlp))
    return base, places


def test_layers_of_flux_that_are_joined_or_split() -> None:
    joint, places = flux()
    apart = {f"{name}.weight": joint[f"{whole}.weight"][rows] for name, (whole, rows) in places.items()}
    # An adapter of the joint layers, as kohya saves it, folded into the split ones.
    rng = np.random.default_rng(4)
    kohya, update = {}, {}
    for name, array in joint.items():
        stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        A, B = rng.normal(size=(2, array.shape[1])), rng.normal(size=(len(array), 2))
        kohya |= {f"{stem}.lora_down.weight": A, f"{stem}.lora_up.weight": B}
        update[name.removesuffix(".weight")] = B @ A
    for prefix in ("", "transformer."):
        folded = fold_adapter({prefix + name: array for name, array in apart.items()}, kohya)
        for name, (whole, rows) in places.items():
            np.testing.assert_allclose(folded[f"{prefix}{name}.weight"], apart[f"{name}.weight"] + update[whole][rows])
    # And one of the split layers, as ai-toolkit saves it, into the joint ones.
    split = {}
    for i, (name, (_, rows)) in enumerate(places.items()):
        split |= {
            key.replace(P, "transformer."): array
            for key, array in pair_of(name, rows.stop - rows.start, 4, seed=i).items()
        }
    for prefix in ("", "model.diffusion_model."):
        folded = fold_adapter({prefix + name: array for name, array in joint.items()}, split, weight=0.5)
        want = {name: array.copy() for name, array in joint.items()}
        for name, (whole, rows) in places.items():
            factors = [split[f"transformer.{name}.lora_{half}.weight"] for half in "BA"]
            want[f"{whole}.weight"][rows] += 0.5 * factors[0] @ factors[1]
        for name, array in want.items():
            np.testing.assert_allclose(folded[prefix + name], array)
    wrong = {name: array[:-1] for name, array in apart.items()}
    refused(lambda: fold_adapter(wrong, kohya), "it lacks 'lora_unet_double_blocks_0_img_attn_qkv.weight'")


def test_other_forms_of_a_model_are_named() -> None:
    down = pair_of("x", 3, 4)
    unet = {
        f"lora_unet_down_blocks_0_attn_to_q.lora_{word}.weight": array
        for word, array in zip(("down", "up"), down.values(), strict=True)
    }
    single = {"model.diffusion_model.input_blocks.1.1.attn.to_q.weight": np.ones((3, 4))}
    refused(
        lambda: fold_adapter(single, unet), "the base is a single file of Stable Diffusion", "from_single_file(FILE)"
    )
    ldm = {name.replace("down_blocks_0_attn", "input_blocks_1_1_attn"): array for name, array in unet.items()}
    refused(
        lambda: fold_adapter({"unet.down_blocks.0.attn.to_q.weight": np.ones((3, 4))}, ldm), "single file of Stable"
    )
    refused(
        lambda: fold_adapter({"layers.0.attn.qkv_proj.weight": np.ones((9, 4))}, pair_of("layers.0.attn.q_proj", 3, 4)),
        "the base keeps queries, keys and values in one, the adapter does not",
    )
    refused(
        lambda: fold_adapter({"layers.0.attn.q_proj.weight": np.ones((3, 4))}, pair_of("layers.0.attn.qkv_proj", 9, 4)),
        "the base keeps queries, keys and values apart",
    )
    factors = {f"layers.0.attn.q_proj.lora_{half}.weight": np.ones((2, 2)) for half in "ab"}
    refused(
        lambda: fold_adapter({"model.layers.0.self_attn.q_proj.weight": np.ones((2, 2))}, factors),
        "the adapter has torchtune's names and the base those of transformers",
        "give the adapter_model.safetensors",
    )


def test_a_parameter_has_the_patterns_of_its_own_name() -> None:
    base = {"mlp.experts.down_proj": np.ones((3, 5, 4))}
    config = {**PARAMETERS, "target_parameters": ["experts.down_proj"], "alpha_pattern": {"experts.down_proj": 8}}
    tensors = experts("mlp.experts", 3, 5, 4, rank=4)
    # A pattern of the module's name alone is none of a parameter's.
    for pattern in ({"experts.down_proj": 4}, {"down_proj": 4, "experts": 6}):
        folded = fold_adapter(base, Adapter(tensors, {**config, "rank_pattern": pattern}))
        want = 1 + 2 * each_expert(tensors, "mlp.experts", 3)
        np.testing.assert_allclose(folded["mlp.experts.down_proj"], want)
    both = {**PARAMETERS, "rank_pattern": {"down_proj": 4}}
    refused(lambda: Adapter(tensors, both), "rank_pattern gives 'mlp.experts.gate_up_proj' 2 and others of its module")


OLD_AND_NEW = {
    "vit.encoder.layer.0.attention.attention.query": "vit.layers.0.attention.q_proj",
    "vit.encoder.layer.0.attention.output.dense": "vit.layers.0.attention.o_proj",
    "vit.encoder.layer.0.intermediate.dense": "vit.layers.0.mlp.fc1",
    "vit.encoder.layer.0.output.dense": "vit.layers.0.mlp.fc2",
    "model.layers.0.block_sparse_moe.gate": "model.layers.0.mlp.gate",
    "embed_out": "lm_head",
}


@pytest.mark.parametrize("turned", [False, True])
def test_layers_that_were_renamed_are_found(turned: bool) -> None:
    for stored, saved in OLD_AND_NEW.items():
        stored, saved = (saved, stored) if turned else (stored, saved)
        tensors = pair_of(saved, 3, 4)
        folded = fold_adapter({f"{stored}.weight": np.ones((3, 4))}, tensors)
        np.testing.assert_allclose(folded[f"{stored}.weight"], 1 + product(tensors, saved))


def test_layers_that_an_adapter_stacks_are_refused() -> None:
    adapter = Adapter(pair_of("layers.0.q", 3, 4), {"layer_replication": [[0, 1], [0, 1]]})
    refused(lambda: fold_adapter({"layers.0.q.weight": np.ones((3, 4))}, adapter), "layer_replication stacks layers")


def layered(folder: Path, model_type: str | None, tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    if model_type is not None:
        (folder / "config.json").write_text(json.dumps({"decoder": {"model_type": model_type}}))
    return folder


@pytest.mark.parametrize("setting", [False, True])
def test_the_architecture_decides_whether_a_square_layer_is_transposed(setting: bool, tmp_path: Path) -> None:
    square, head, wide = "h.0.attn.c_proj", "lm_head", "h.0.attn.c_attn"
    tensors = pair_of(square, 4, 4) | pair_of(head, 4, 4)
    adapter = Adapter(tensors, {"fan_in_fan_out": setting})
    zeros = {f"{square}.weight": np.zeros((4, 4)), f"{head}.weight": np.zeros((4, 4))}
    for dtype in (None, "float32"):
        folded = fold_adapter(layered(tmp_path / f"of {dtype}", "gpt2", zeros), adapter, dtype=dtype)
        np.testing.assert_allclose(folded[f"{square}.weight"], product(tensors, square).T, rtol=1e-6)
        np.testing.assert_allclose(folded[f"{head}.weight"], product(tensors, head), rtol=1e-6)
    # Without a configuration, or one that is not known, the layers beside it tell, and gpt_bigcode's are the other way.
    for shape, update in (((4, 12), product(tensors, square).T), ((12, 4), product(tensors, square))):
        base = {f"{square}.weight": np.zeros((4, 4)), f"{wide}.weight": np.zeros(shape)}
        only = Adapter(pair_of(square, 4, 4), {"fan_in_fan_out": setting})
        folder = layered(tmp_path / f"shape {shape}", "other", base)
        for given in (base, folder):
            np.testing.assert_allclose(fold_adapter(given, only)[f"{square}.weight"], update)


def test_a_setting_that_contradicts_the_layers_is_refused(tmp_path: Path) -> None:
    tensors = pair_of("q", 4, 4) | pair_of("up", 6, 4)
    base = {"q.weight": np.zeros((4, 4)), "up.weight": np.zeros((6, 4))}
    transposed = Adapter(tensors, {"fan_in_fan_out": True})
    refused(lambda: fold_adapter(base, transposed), "'q.weight' is square and fan_in_fan_out is true")
    refused(lambda: fold_adapter(base, transposed), "set it to false in adapter_config.json")
    turned = {"q.weight": np.zeros((4, 4)), "up.weight": np.zeros((4, 6))}
    refused(lambda: fold_adapter(turned, Adapter(tensors, {})), "set it to true in adapter_config.json")
    np.testing.assert_allclose(fold_adapter(turned, transposed)["q.weight"], product(tensors, "q").T)
    # PEFT goes by the kind of the layer: of square ones alone, config.json says it.
    alone = Adapter(pair_of("q", 4, 4), {"fan_in_fan_out": True})
    del base["up.weight"]
    llama = layered(tmp_path / "llama", "llama", base)
    refused(lambda: fold_adapter(llama, alone), "the model_type 'llama'")
    unknown = fold_adapter(layered(tmp_path / "plain", None, base), alone)
    np.testing.assert_allclose(unknown["q.weight"], product(tensors, "q").T)
