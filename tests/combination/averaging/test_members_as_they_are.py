"""Checkpoints as they are in the world: masks, counters, tensors that only some have, scales, factors, vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kofn
from kofn.combination import task_arithmetic, weighted_mean
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint


def stored(folder: Path, name: str, arrays: dict[str, Any], **config: Any) -> str:
    (folder / name).mkdir()
    write_arrays(folder / name / "model.safetensors", arrays)
    (folder / name / "config.json").write_text(json.dumps(config))
    (folder / name / "tokenizer.json").write_text(name)
    return str(folder / name)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64])
def test_equal_masks_of_infinities_are_copied(dtype: Any) -> None:
    mask = np.triu(np.full((3, 3), -np.inf), 1).astype(dtype)
    members = [{"w": np.full(2, value, dtype), "mask": mask} for value in (1, 3)]
    blend = weighted_mean(members)
    assert blend.result["mask"].tobytes() == mask.tobytes()
    assert blend.result["w"].astype(float).tolist() == [2, 2]
    assert np.isfinite(blend.spread).all()
    members[1]["mask"] = np.ascontiguousarray(mask.T)
    with pytest.raises(InputError, match=r"member 0: tensor 'mask' at .* is infinite"):
        weighted_mean(members)


def test_counters_of_batches_are_those_of_the_longest_run() -> None:
    runs = ((1.0, 10), (3.0, 25), (5.0, 7))
    members = [
        {"bn.running_mean": np.array([value]), "bn.num_batches_tracked": np.array(count)} for value, count in runs
    ]
    blend = weighted_mean(members)
    assert blend.result["bn.num_batches_tracked"].tolist() == 25
    assert blend.result["bn.running_mean"].tolist() == [3.0]
    counted = [{"w": np.ones(1), "step": np.array(count)} for count in (1, 2)]
    with pytest.raises(InputError, match=r"between member 0 \(1\) and member 1 \(2\); such values .* skip=\['step'\]"):
        weighted_mean(counted)
    assert weighted_mean(counted, skip=["step"]).result["step"].tolist() == 1


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_tensor_that_only_some_have_is_skipped_wherever_it_is(on_disk: bool, order: int, tmp_path: Path) -> None:
    members: Any = [
        {"w": np.ones(2, np.float32)},
        {"w": np.full(2, 3, np.float32), "head": np.arange(4, dtype=np.int8)},
    ][::order]
    if on_disk:
        members = [stored(tmp_path, str(i), arrays) for i, arrays in enumerate(members)]
    blend = weighted_mean(members, skip="head", out=tmp_path / "out" if on_disk else None)
    assert np.asarray(blend.result["w"]).tolist() == [2, 2]
    assert np.asarray(blend.result["head"]).tolist() == [0, 1, 2, 3]
    if on_disk:
        assert set(Checkpoint.open(tmp_path / "out")) == {"w", "head"}
    with pytest.raises(InputError, match="'head'"):
        weighted_mean(members)
    with pytest.raises(InputError, match="skip='hed' matches no tensor; did you mean 'head'"):
        weighted_mean(members, skip="hed")


def test_an_embedding_of_the_base_brings_its_configuration_and_tokenizer(tmp_path: Path) -> None:
    def arrays(rows: int, value: float) -> dict[str, Any]:
        return {"embed": np.full((rows, 2), value, np.float32), "w": np.full(3, value, np.float32)}

    base = stored(tmp_path, "base", arrays(4, 0), vocab_size=4)
    members = [stored(tmp_path, name, arrays(6, value), vocab_size=6) for name, value in (("a", 1), ("b", 3))]
    task_arithmetic(members, base=base, skip="embed", out=tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out")["embed"].shape == (4, 2)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 4
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "base"
    weighted_mean(members, out=tmp_path / "mean")
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["vocab_size"] == 6


PAIR = (np.ones((2, 4), np.float32), np.ones((4, 2), np.float32))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight"), "another trainer than PEFT"),
        (("unet.to_q.lora.down.weight", "unet.to_q.lora.up.weight"), "another trainer than PEFT"),
        (("unet.to_q_lora.down.weight", "unet.to_q_lora.up.weight"), "another trainer than PEFT"),
        (("layers.0.q_proj.lora_a.weight", "layers.0.q_proj.lora_b.weight"), "another trainer than PEFT"),
        (("model.layers.0.q_proj.lora_a", "model.layers.0.q_proj.lora_b"), "another trainer than PEFT"),
        (("fc.lora_A.weight", "fc.lora_B.weight"), "stack_adapters"),
        (("fc.lora_embedding_A", "fc.lora_embedding_B"), "stack_adapters"),
        (("lycoris_fc.hada_w1_a", "lycoris_fc.hada_w1_b"), "not linear in their factors"),
        (("lycoris_fc.lokr_w1", "lycoris_fc.lokr_w2_a"), "not linear in their factors"),
        (("lora_unet_fc.oft_blocks", "lora_unet_fc.rescale"), "not linear in their factors .OFT, IA3"),
        (("lora_unet_fc.on_input", "lora_unet_fc.weight"), "not linear in their factors .OFT, IA3"),
        (("lycoris_fc.a1.weight", "lycoris_fc.b1.weight"), "not linear in their factors .OFT, IA3"),
        (("fc.A", "fc.B"), "factors of a low rank .'fc.A' and its B"),
        (("fc.b.weight", "fc.a.weight"), "factors of a low rank .'fc.a.weight' and its B"),
        (("fc.lora_left", "fc.lora_right"), "LoRA adapters .'fc.lora_left"),
        (("conv.weight_g", "conv.weight_v"), "a length and a direction"),
        (("conv.parametrizations.weight.original0", "conv.parametrizations.weight.original1"), "a length and a dir"),
    ],
)
def test_factors_are_not_averaged_apart(names: tuple[str, str], says: str) -> None:
    member = dict(zip(names, PAIR, strict=True))
    with pytest.raises(InputError, match=says):
        weighted_mean([member, member])
    kept = weighted_mean([{**member, "w": np.ones(1)}] * 2, skip=list(names))
    assert kept.result["w"].tolist() == [1.0]


@pytest.mark.parametrize("shapes", [((4, 4), (4, 4)), ((4, 2), (4, 2)), ((4,), (4,)), ((6, 4), (8, 4))])
def test_a_and_b_that_make_no_product_of_low_rank_are_blended(shapes: tuple[tuple[int, ...], ...]) -> None:
    """State-space models have parameters of these names."""
    member = {f"ssm.{name}": np.ones(shape, np.float32) for name, shape in zip("AB", shapes, strict=True)}
    assert set(weighted_mean([member, member]).result) == {"ssm.A", "ssm.B"}


def test_8_bit_floats_without_scales_are_blended_as_they_are() -> None:
    plain = {"w.weight": np.ones((2, 2), ml_dtypes.float8_e4m3fn)}
    assert weighted_mean([plain, plain]).result["w.weight"].dtype == ml_dtypes.float8_e4m3fn


def test_the_configuration_names_the_dtype_that_is_written(tmp_path: Path) -> None:
    import json

    import kofn
    from kofn.io.tensor_writer import write_arrays

    config = {"torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "hidden_size": 4}}
    for name in "ab":
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"w": np.ones(2, np.float32)})
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    paths = [str(tmp_path / name) for name in "ab"]
    for dtype in ("float32", "float16"):
        kofn.combine(paths, out=tmp_path / dtype, dtype=dtype)
        written = json.loads((tmp_path / dtype / "config.json").read_text())
        assert written == {"torch_dtype": dtype, "text_config": {"dtype": dtype, "hidden_size": 4}}
    kofn.combine(paths, out=tmp_path / "same")
    assert json.loads((tmp_path / "same" / "config.json").read_text()) == config


def test_dtypes_are_a_mixture_only_where_a_tensor_is_of_several() -> None:
    low = np.dtype(ml_dtypes.float8_e4m3fn)
    member = {"w": np.ones(2, low), "b": np.ones(2, np.float16)}
    assert not [note for note in weighted_mean([member, member]).info.get("warnings", []) if "members are of" in note]
    other = {**member, "b": np.ones(2, np.float32)}
    blend = weighted_mean([member, other])
    (note,) = [note for note in blend.info["warnings"] if "members are of" in note]
    assert note == "members are of float16, float32: each is read as it is, the blend is float16"
    assert (blend.result["w"].dtype, blend.result["b"].dtype) == (low, np.dtype(np.float16))


def test_a_module_is_a_base_as_it_is_a_member() -> None:
    torch = pytest.importorskip("torch")
    first, second, base = (torch.nn.Linear(3, 2) for _ in range(3))
    states = [first.state_dict(), second.state_dict()]
    for method in ("task_arithmetic", "ties"):
        wanted = kofn.combine(states, base=base.state_dict(), method=method).result
        for members in ([first, second], states):
            blend = kofn.combine(members, base=base, method=method).result
            assert all(torch.equal(blend[name], wanted[name]) for name in wanted)
    with pytest.raises(InputError, match="base is a object; give an array, a torch module, a state dict or the path"):
        kofn.combine([first, second], base=object(), method="ties")
