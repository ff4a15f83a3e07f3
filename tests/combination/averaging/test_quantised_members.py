"""Members of 8-bit numbers beside scales: the blend is that of the products, quantised as member 0 is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import kofn
from kofn.combination import (
    merge_recipe,
    permute,
    preview_merge,
    slerp,
    task_arithmetic,
    ties,
    weighted_mean,
)
from kofn.core.checks import FailureError, InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

F8 = ml_dtypes.float8_e4m3fn
Arrays = dict[str, NDArray[Any]]


def limit(dtype: Any) -> float:
    return 127.0 if np.dtype(dtype) == np.int8 else float(ml_dtypes.finfo(dtype).max)


def spread_out(scales: NDArray[Any], shape: tuple[int, ...], side: int) -> NDArray[np.float64]:
    """Scales, one for each entry of a weight: of the whole, of rows or of square blocks."""
    table = np.asarray(scales, np.float64)
    if table.size == 1:
        return np.full(shape, table.flat[0])
    if table.size == shape[0]:
        return np.broadcast_to(table.reshape(-1, 1), shape)
    return np.kron(table, np.ones((side, side)))[: shape[0], : shape[1]]


def quantised(weight: NDArray[Any], name: str, shape: tuple[int, ...], dtype: Any = F8, side: int = 4) -> Arrays:
    """A weight as 8-bit numbers and scales of this shape, made entry by entry."""
    scales = np.empty(shape, np.float32)
    for index in np.ndindex(shape):
        if scales.size == 1:
            block = weight
        elif scales.size == len(weight):
            block = weight[index[0]]
        else:
            block = weight[index[0] * side : (index[0] + 1) * side, index[1] * side : (index[1] + 1) * side]
        scales[index] = np.abs(block).max() / limit(dtype)
    ratios = weight / spread_out(scales, weight.shape, side)
    numbers = np.rint(ratios).astype(np.int8) if dtype is np.int8 else ratios.astype(dtype)
    stored = scales * np.float32(127) if name.endswith("SCB") else scales
    return {"fc.weight": numbers, name: stored, "norm": np.ones(3, np.float32)}


def products(arrays: Any, name: str, side: int = 4) -> NDArray[np.float64]:
    weight = np.asarray(arrays["fc.weight"])
    scales = np.asarray(arrays[name], np.float64) / (127 if name.endswith("SCB") else 1)
    return weight.astype(np.float64) * spread_out(scales, weight.shape, side)


def half_step(blend: NDArray[np.float64], scales: NDArray[np.float64], dtype: Any) -> NDArray[np.float64]:
    """Half the distance between neighbouring numbers of the dtype at each entry of the blend."""
    if dtype is np.int8:
        return scales / 2
    facts = ml_dtypes.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(blend) / scales, float(facts.smallest_normal))))
    return scales * 2.0 ** (exponent - facts.nmant) / 2


FORMS: list[tuple[str, tuple[int, ...], Any]] = [
    ("fc.weight_scale_inv", (2, 3), F8),
    ("fc.weight_scale", (), F8),
    ("fc.weight_scale", (1,), ml_dtypes.float8_e5m2),
    ("fc.weight_scale", (7, 1), F8),
    ("fc.weight_scale", (7,), np.int8),
    ("fc.scale_weight", (), ml_dtypes.float8_e5m2),
    ("fc.scale", (), F8),
    ("fc.scale", (7, 1), np.int8),
    ("fc.SCB", (7,), np.int8),
]


def stored(folder: Path, name: str, arrays: Arrays, **config: Any) -> str:
    (folder / name).mkdir()
    write_arrays(folder / name / "model.safetensors", arrays)
    (folder / name / "config.json").write_text(json.dumps(config))
    return str(folder / name)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("name", "shape", "dtype"), FORMS)
def test_the_blend_is_that_of_the_products(
    name: str, shape: tuple[int, ...], dtype: Any, on_disk: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    arrays = [quantised(rng.normal(size=(7, 10)) * size, name, shape, dtype) for size in (1.0, 5.0)]
    exact = 0.3 * products(arrays[0], name) + 0.7 * products(arrays[1], name)
    members: Any = arrays
    if on_disk:
        config = {"quantization_config": {"weight_block_size": [4, 4]}}
        members = [stored(tmp_path, str(i), each, **config) for i, each in enumerate(arrays)]
    elif shape == (2, 3):
        members = [
            {name: array.reshape(shape) if name == "fc.weight_scale_inv" else array for name, array in each.items()}
            for each in arrays
        ]
        with pytest.raises(InputError, match=r"member 0: 'fc.weight_scale_inv' is float32 of shape \(2, 3\), which is"):
            weighted_mean(members)
        return
    blend = weighted_mean(members, weights=[3, 7], out=tmp_path / "out" if on_disk else None)
    result = {key: np.asarray(value) for key, value in blend.result.items()}
    assert {key: (value.dtype, value.shape) for key, value in result.items()} == {
        key: (value.dtype, value.shape) for key, value in arrays[0].items()
    }
    gaps = np.abs(products(result, name) - exact)
    scales = spread_out(result[name] / (127 if name.endswith("SCB") else 1), exact.shape, 4)
    assert (gaps <= half_step(exact, scales, dtype) * (1 + 1e-5)).all()
    assert blend.info["requantised"] == {
        "fc.weight": pytest.approx(np.linalg.norm(gaps) / np.linalg.norm(exact), rel=1e-4)
    }
    plain = weighted_mean(members, weights=[3, 7], dtype="float64")
    np.testing.assert_allclose(plain.result["fc.weight"], exact, rtol=1e-15)
    assert set(plain.result) == {"fc.weight", "norm"}
    assert "requantised" not in plain.info


@pytest.mark.parametrize(("name", "shape", "dtype"), [form for form in FORMS if form[1] != (2, 3)])
def test_a_member_blended_with_itself_comes_back_bit_for_bit(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(1)
    member, other = (quantised(rng.normal(size=(7, 10)), name, shape, dtype) for _ in range(2))
    member[name] = (member[name] * np.float32(1.37)).astype(np.float32)  # wider than the largest value asks for
    for blend in (
        weighted_mean([member, member]),
        weighted_mean([member]),
        weighted_mean([other, member], weights=[0, 1]),
        task_arithmetic([member], base=other),
        slerp([member, member]),
    ):
        assert {key: value.tobytes() for key, value in blend.result.items()} == {
            key: value.tobytes() for key, value in member.items()
        }
        assert blend.info["requantised"] == {"fc.weight": 0.0}
        assert blend.spread[-1] == 0.0


def test_the_blocks_of_a_configuration_and_those_of_128(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(200, 260))
    arrays = quantised(weight, "fc.weight_scale_inv", (2, 3), side=128)
    blend = weighted_mean([arrays, arrays], dtype="float64")
    np.testing.assert_array_equal(blend.result["fc.weight"], products(arrays, "fc.weight_scale_inv", 128))
    arrays = quantised(weight, "fc.weight_scale_inv", (2, 3), side=100)
    groups = {"g": {"weights": {"block_structure": [100, 100]}}}
    for name, config in (("a", {"weight_block_size": [100, 100]}), ("b", {"config_groups": groups})):
        member = stored(tmp_path, name, arrays, quantization_config=config)
        blend = weighted_mean([member, member], dtype="float64")
        np.testing.assert_array_equal(blend.result["fc.weight"], products(arrays, "fc.weight_scale_inv", 100))


@pytest.mark.parametrize("size", ["[Infinity, 2]", "[1e400, 2]", '"22"', "true", "[0, 2]", "[true, 2]", "7"])
def test_blocks_of_no_size_are_refused(size: str, tmp_path: Path) -> None:
    arrays = quantised(np.ones((8, 8)), "fc.weight_scale_inv", (2, 2))
    member = stored(tmp_path, "a", arrays)
    (Path(member) / "config.json").write_text(f'{{"quantization_config": {{"weight_block_size": {size}}}}}')
    with pytest.raises(InputError, match=r"a/config.json: weight_block_size is .*; it must list whole numbers > 0"):
        weighted_mean([member, member])


def test_a_configuration_nested_too_deep_is_refused(tmp_path: Path) -> None:
    member = stored(tmp_path, "a", {"w": np.ones(2, np.float32)})
    for depth in (101, 900, 5000):
        (Path(member) / "config.json").write_text('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(FailureError, match="nested more than 100 deep"):
            weighted_mean([member, member], out=tmp_path / "out")


def test_a_weight_without_numbers_is_named() -> None:
    arrays = {"fc.weight": np.empty((0, 3), F8), "fc.weight_scale": np.empty((0, 1), np.float32)}
    with pytest.raises(InputError, match=r"'fc.weight_scale' is a scale, and 'fc.weight' holds no number"):
        weighted_mean([arrays, arrays])


@pytest.mark.parametrize("method", [task_arithmetic, ties])
def test_rules_see_the_products(method: Any) -> None:
    rng = np.random.default_rng(3)
    arrays = [quantised(rng.normal(size=(8, 16)), "fc.weight_scale", (8, 1)) for _ in range(3)]
    whole = [{"fc.weight": products(each, "fc.weight_scale"), "norm": each["norm"]} for each in arrays]
    exact = method(whole[1:], base=whole[0]).result["fc.weight"]
    result = method(arrays[1:], base=arrays[0]).result
    scales = spread_out(result["fc.weight_scale"], exact.shape, 4)
    gaps = np.abs(products(result, "fc.weight_scale") - exact)
    assert (gaps <= half_step(exact, scales, F8) * (1 + 1e-5)).all()
    np.testing.assert_allclose(method(arrays[1:], base=arrays[0], dtype="float64").result["fc.weight"], exact)


def test_rows_of_experts_and_of_kernels_have_scales() -> None:
    rng = np.random.default_rng(4)
    for shape, scale in (((3, 4, 6), (3, 4, 1)), ((3, 4, 6), (3,)), ((3, 4, 6), (3, 1, 6)), ((5, 2, 3, 3), (5, 1))):
        numbers = rng.normal(size=shape).astype(F8)
        scales = rng.uniform(1, 2, scale).astype(np.float32)
        table = scales.reshape(*scale, *(1,) * (len(shape) - len(scale))).astype(np.float64)
        member = {"experts.up": numbers, "experts.up_scale": scales}
        blend = weighted_mean([member, {**member, "experts.up_scale": 3 * scales}], dtype="float64")
        np.testing.assert_allclose(blend.result["experts.up"], numbers.astype(np.float64) * table * 2)
        assert weighted_mean([member, member]).result["experts.up"].tobytes() == numbers.tobytes()


def test_scales_that_are_powers_of_two_stay_so() -> None:
    rng = np.random.default_rng(5)
    members = []
    for _ in range(2):
        exponents = rng.integers(120, 130, (4, 2)).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)
        members.append({"fc.weight": rng.normal(size=(4, 64)).astype(F8), "fc.weight_scale": exponents})
    blend = weighted_mean(members)
    exact = sum(
        np.asarray(each["fc.weight"], np.float64)
        * np.repeat(each["fc.weight_scale"].astype(np.float64), 32, axis=1)
        / 2
        for each in members
    )
    scales = blend.result["fc.weight_scale"]
    assert scales.dtype == ml_dtypes.float8_e8m0fnu
    table = np.repeat(scales.astype(np.float64), 32, axis=1)
    gaps = np.abs(blend.result["fc.weight"].astype(np.float64) * table - exact)
    assert (gaps <= half_step(exact, table, F8) * (1 + 1e-5)).all()
    assert (np.abs(exact) / table).max() <= 448


def test_quantised_and_plain_members_meet(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    narrow = quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1))
    plain = {"fc.weight": rng.normal(size=(6, 10)).astype(ml_dtypes.bfloat16), "norm": np.ones(3, np.float32)}
    exact = (products(narrow, "fc.weight_scale") + plain["fc.weight"].astype(np.float64)) / 2
    settings = {"quantization_config": {"quant_method": "compressed-tensors"}}
    a, b = stored(tmp_path, "a", narrow, **settings), stored(tmp_path, "b", plain, model_type="llama")
    blend = weighted_mean([b, a], out=tmp_path / "plain")
    assert set(Checkpoint.open(tmp_path / "plain")) == {"fc.weight", "norm"}
    assert blend.result["fc.weight"].tobytes() == exact.astype(ml_dtypes.bfloat16).tobytes()
    assert blend.info["warnings"][-1] == (
        f"'fc.weight' of member 0 ({b}) is not quantised, member 1 ({a}) is float8_e4m3fn: the blend is as the first"
    )
    assert json.loads((tmp_path / "plain" / "config.json").read_text()) == {"model_type": "llama"}
    weighted_mean([a, b], out=tmp_path / "narrow")
    written = Checkpoint.open(tmp_path / "narrow")
    assert written["fc.weight"].dtype == F8
    assert written["fc.weight_scale"].shape == (6, 1)
    assert json.loads((tmp_path / "narrow" / "config.json").read_text()) == settings
    weighted_mean([a, b], dtype="bfloat16", out=tmp_path / "wide")
    written = Checkpoint.open(tmp_path / "wide")
    assert set(written) == {"fc.weight", "norm"}
    assert written["fc.weight"].array().tobytes() == exact.astype(ml_dtypes.bfloat16).tobytes()
    assert json.loads((tmp_path / "wide" / "config.json").read_text()) == {}
    # The base's configuration is the donor's; what it says of quantisation is not its own to say here.
    (tmp_path / "recipe.yaml").write_text(
        f"{{merge_method: task_arithmetic, base_model: {b}, models: [{{model: {a}, parameters: {{weight: 1}}}}]}}"
    )
    merge_recipe(tmp_path / "recipe.yaml", out=tmp_path / "recipe")
    assert json.loads((tmp_path / "recipe" / "config.json").read_text()) == {"model_type": "llama", **settings}
    assert Checkpoint.open(tmp_path / "recipe")["fc.weight"].array().tobytes() == narrow["fc.weight"].tobytes()


def test_scales_in_a_shard_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    members = []
    for name in "ab":
        arrays = quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1))
        scales = {"fc.weight_scale": arrays.pop("fc.weight_scale")}
        (tmp_path / name).mkdir()
        parts = {"model-00001-of-00002.safetensors": arrays, "model-00002-of-00002.safetensors": scales}
        for file, part in parts.items():
            write_arrays(tmp_path / name / file, part)
        index = {"metadata": {}, "weight_map": {key: file for file, part in parts.items() for key in part}}
        (tmp_path / name / "model.safetensors.index.json").write_text(json.dumps(index))
        members.append(arrays | scales)
    paths = [str(tmp_path / name) for name in "ab"]
    exact = weighted_mean(members)
    for out in ("narrow", "narrow"):  # again, over its own output
        blend = weighted_mean(paths, out=tmp_path / out)
        assert {name: np.asarray(value).tobytes() for name, value in blend.result.items()} == {
            name: value.tobytes() for name, value in exact.result.items()
        }
    for _ in range(2):
        weighted_mean(paths, dtype="bfloat16", out=tmp_path / "wide")
        assert [path.name for path in (tmp_path / "wide").glob("*.safetensors")] == ["model-00001-of-00002.safetensors"]
    with pytest.raises(InputError, match=r"is where member 1 .* lies; name another path"):
        weighted_mean(paths, out=tmp_path / "b" / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_compressed_tensors_reads_the_blend(strategy: str) -> None:
    torch = pytest.importorskip("torch")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    settings = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs(
        num_bits=8, type="float", strategy=strategy, symmetric=True
    )
    torch.manual_seed(0)
    members, whole = [], []
    for size in (1.0, 5.0):
        weight = torch.randn(64, 96) * size
        largest = weight.abs().amax(1, keepdim=True) if strategy == "channel" else weight.abs().amax().reshape(1)
        scale = largest / 448
        zero = torch.zeros_like(scale)
        numbers = forward.quantize(weight, scale, zero, settings, dtype=torch.float8_e4m3fn)
        members.append({"fc.weight": numbers, "fc.weight_scale": scale})
        whole.append(forward.dequantize(numbers, scale, zero, args=settings).double())
    result = kofn.combine(members, method="weighted_mean").result
    scale = result["fc.weight_scale"]
    back = forward.dequantize(result["fc.weight"], scale, torch.zeros_like(scale), args=settings).double()
    exact = (whole[0] + whole[1]) / 2
    assert ((back - exact).abs() <= exact.abs() * 2**-4 * 1.001 + scale * 2**-10).all()


def test_the_lazy_blend_and_a_search_have_the_members_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    arrays = [quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1)) for _ in range(2)]
    paths = [stored(tmp_path, str(i), each) for i, each in enumerate(arrays)]
    blend = weighted_mean(arrays)
    lazy = weighted_mean(paths)
    assert {name: np.asarray(value).tobytes() for name, value in lazy.result.items()} == {
        name: value.tobytes() for name, value in blend.result.items()
    }
    assert lazy.info["requantised"] == blend.info["requantised"]
    seen: list[set[str]] = []

    def score(blend: Any) -> float:
        seen.append(set(blend))
        return -float(np.abs(products(blend, "fc.weight_scale")).sum())

    kofn.combine(paths, method="greedy_soup", score=score)
    assert seen[0] == {"fc.weight", "fc.weight_scale", "norm"}


def test_what_lies_beside_a_weight_is_written_as_it_must_be() -> None:
    rng = np.random.default_rng(8)
    members = [quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1)) for _ in range(2)]
    for member, bound in zip(members, (0.5, 2.0), strict=True):
        member |= {"fc.input_scale": np.array(bound, np.float32), "attn.k_scale": np.ones(1, np.float32)}
    blend = weighted_mean(members)
    assert blend.result["fc.input_scale"].tolist() == 2.0
    assert blend.result["attn.k_scale"].tolist() == [1.0]
    assert blend.info["warnings"] == [
        "scales of activations differ between members ('fc.input_scale'): the largest are written"
    ]
    members[1]["fc.input_scale"] = np.ones(1, np.float32)
    with pytest.raises(InputError, match=r"member 1: 'fc.input_scale' is of another shape than in member 0; skip it"):
        weighted_mean(members)
    eight = quantised(rng.normal(size=(6, 10)), "fc.SCB", (6,), np.int8) | {"fc.weight_format": np.array(0, np.uint8)}
    assert weighted_mean([eight, eight]).result["fc.weight_format"].tolist() == 0
    with pytest.raises(InputError, match=r"'fc.weight_format' says a format that is not read"):
        weighted_mean([eight, {**eight, "fc.weight_format": np.array(2, np.uint8)}])
    comfy = quantised(rng.normal(size=(6, 10)), "fc.weight_scale", ())
    comfy |= {"fc.comfy_quant": np.frombuffer(b'{"format": "float8_e4m3fn"}', np.uint8), "scaled_fp8": np.zeros(0, F8)}
    assert set(weighted_mean([comfy, comfy]).result) == set(comfy)
    assert set(weighted_mean([comfy, comfy], dtype="bfloat16").result) == {"fc.weight", "norm"}


def test_a_copied_weight_is_copied_with_its_own_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    members = [quantised(rng.normal(size=(6, 10)) * size, "fc.weight_scale", (6, 1)) for size in (1, 5)]
    base = {"fc.weight": np.ones((6, 10), np.float32), "norm": np.zeros(3, np.float32)}
    for skip in ("fc.weight", ["fc.weight", "fc.weight_scale"], "fc.*"):
        blend = weighted_mean(members, skip=skip)
        assert blend.result["fc.weight"].tobytes() == members[0]["fc.weight"].tobytes()
        assert blend.result["fc.weight_scale"].tobytes() == members[0]["fc.weight_scale"].tobytes()
        result = task_arithmetic(members, base=base, skip=skip).result
        assert set(result) == {"fc.weight", "norm"}
        assert result["fc.weight"].tolist() == base["fc.weight"].tolist()
        result = task_arithmetic([base], base=members[1], skip=skip).result
        assert products(result, "fc.weight_scale").tolist() == products(members[1], "fc.weight_scale").tolist()
    assert weighted_mean(members, only="fc.weight").info["requantised"].keys() == {"fc.weight"}
    with pytest.raises(InputError, match=r"skip names 'fc.weight_scale' and not its weight 'fc.weight'; skip both, or"):
        weighted_mean(members, skip="fc.weight_scale")
    paths = [stored(tmp_path, str(i), each) for i, each in enumerate([members[0], base])]
    weighted_mean([paths[1], paths[0]], skip="fc.*", out=tmp_path / "out")
    assert set(Checkpoint.open(tmp_path / "out")) == {"fc.weight", "norm"}
    task_arithmetic([paths[0]], base=paths[1], skip="fc.*", out=tmp_path / "of_base")
    assert set(Checkpoint.open(tmp_path / "of_base")) == {"fc.weight", "norm"}
    task_arithmetic([paths[1]], base=paths[0], skip="fc.*", out=tmp_path / "of_narrow")
    written = {name: tensor.array().tobytes() for name, tensor in Checkpoint.open(tmp_path / "of_narrow").items()}
    assert written == {name: array.tobytes() for name, array in {**members[0], "norm": base["norm"]}.items()}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"fc.qweight": np.ones((2, 2), np.int32), "fc.scales": np.ones(2)}, "'fc.qweight': GPTQ or AWQ"),
        ({"fc.weight": np.ones(4, np.uint8), "fc.weight.absmax": np.ones(2)}, "bitsandbytes 4 bit"),
        ({"fc.weight": np.ones(4, np.uint8), "fc.weight_scale": np.ones(2), "fc.weight_scale_2": np.ones(1)}, "NVFP4"),
        ({"fc.weight_packed": np.ones(4, np.int32), "fc.weight_scale": np.ones(2)}, "packed integers"),
        ({"fc.weight": np.ones(4, np.int8), "fc.weight_scale": np.ones(1), "fc.weight_zero_point": np.ones(1)}, "zero"),
        (
            {"fc.weight": np.ones((2, 32), np.int8), "fc.weight_scale": np.ones((2, 2), ml_dtypes.float8_e8m0fnu)},
            "int8 with the scales of packed 4-bit codes",
        ),
        ({"fc.weight": np.ones((2, 32), np.int8), "fc.weight_scale": np.ones((2, 2))}, "packed 4-bit codes"),
        ({"up_blocks": np.ones(4, np.uint8), "up_scales": np.ones(4, np.uint8)}, "MXFP4"),
        ({"fc.weight": np.ones(4, F8), "fc.input_scale": np.ones(1)}, "'fc.weight' has no scale of its own"),
        ({"fc.weight": np.ones(4, F8), "fc.weight_scales": np.ones(1)}, "'fc.weight_scales' is a scale"),
        ({"fc.weight._data": np.ones(4, F8), "fc.weight._scale": np.ones(1)}, "'fc.weight._scale' is a scale"),
        ({"fc.weight": np.ones(4, F8), "fc.scales": np.ones(1)}, "'fc.scales' is a scale"),
        ({"fc.weight": np.ones(4, F8), "fc.wscale_b": np.ones(1)}, "'fc.wscale_b' is a scale"),
        ({"fc.weight": np.ones(4, np.int8), "fc.weight_scales": np.ones(1)}, "'fc.weight' has no scale of its own"),
        ({"fc.weight": np.ones(4), "fc.weight_scale": np.ones(1), "w": np.ones(2, F8), "w_scale": np.ones(1)}, "lone"),
    ],
)
def test_forms_that_are_not_read_are_refused_by_name(tensors: Arrays, says: str) -> None:
    member = {**tensors, "norm": np.ones(2)}
    wanted = "its weight is not there, or not of 8 bits" if says == "lone" else says
    with pytest.raises(InputError, match=rf"member 0 is quantised in a form that is not read \(.*{wanted}.*; .*skip"):
        weighted_mean([member, member])
    assert weighted_mean([member, member], skip=list(tensors)).result["norm"].tolist() == [1, 1]


def test_weights_and_scales_of_other_shapes_and_dtypes_are_refused() -> None:
    rng = np.random.default_rng(10)
    member = quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1))
    with pytest.raises(InputError, match=r"'fc.weight_scale' is float32 of shape \(4,\), which is no scale of"):
        weighted_mean([member, {**member, "fc.weight_scale": np.ones(4, np.float32)}])
    with pytest.raises(InputError, match=r"dtype='float8_e5m2': members are quantised, with scales; leave dtype out"):
        weighted_mean([member, member], dtype="float8_e5m2")
    with pytest.raises(InputError, match="permute does not take quantised members"):
        permute(member, {}, architecture=None)
    broken = member["fc.weight"].copy()
    broken[2, 3] = np.nan
    with pytest.raises(InputError, match=r"tensor 'fc.weight' at \(2, 3\) is NaN"):
        weighted_mean([member, {**member, "fc.weight": broken}])


def test_the_room_to_quantise_is_within_the_limit() -> None:
    member = quantised(np.random.default_rng(11).normal(size=(64, 512)), "fc.weight_scale", (64, 1))
    least = 5 * 64 * 512
    with pytest.raises(InputError, match="is too little to quantise the largest tensor, which is held whole; give at"):
        weighted_mean([member, member], max_memory=least)
    few = weighted_mean([member, {**member, "norm": np.zeros(3, np.float32)}], max_memory=least + (1 << 16))
    assert few.result["fc.weight"].tobytes() == member["fc.weight"].tobytes()


def test_a_preview_says_what_is_quantised_again() -> None:
    member = quantised(np.random.default_rng(12).normal(size=(6, 10)), "fc.weight_scale", (6, 1))
    rows = {row["name"]: (row["dtype"], row["fate"]) for row in preview_merge([member, member])}
    assert rows == {
        "fc.weight": ("float8_e4m3fn", "weighted_mean, requantised"),
        "fc.weight_scale": ("float32", "scales of the blended fc.weight"),
        "norm": ("float32", "weighted_mean"),
    }
    rows = {row["name"]: (row["dtype"], row["fate"]) for row in preview_merge([member, member], dtype="bfloat16")}
    assert rows == {"fc.weight": ("bfloat16", "weighted_mean"), "norm": ("bfloat16", "weighted_mean")}


def test_a_run_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.combination._sweep import blockwise

    rng = np.random.default_rng(13)
    arrays = []
    for _ in range(2):
        parts = [quantised(rng.normal(size=(6, 10)), "fc.weight_scale", (6, 1)) for _ in range(3)]
        arrays.append({f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()})
    paths = [stored(tmp_path, str(i), each) for i, each in enumerate(arrays)]
    whole = weighted_mean(paths, out=tmp_path / "whole")
    monkeypatch.setattr(blockwise, "_BATCH", 1)
    ran: list[str] = []
    batch = blockwise.Sweep._batch

    def cut(self: Any, names: list[str], *rest: Any) -> None:
        ran.extend(names)
        if len(ran) == 4:
            raise KeyboardInterrupt
        batch(self, names, *rest)

    monkeypatch.setattr(blockwise.Sweep, "_batch", cut)
    with pytest.raises(KeyboardInterrupt):
        weighted_mean(paths, out=tmp_path / "out")
    ran.extend(["", ""])
    resumed = weighted_mean(paths, out=tmp_path / "out")
    assert resumed.info["resumed"] == 3
    assert resumed.info["requantised"] == whole.info["requantised"]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert files[0] == files[1]


def test_the_scale_of_a_norm_is_no_scale_of_a_weight() -> None:
    member = {"fc.weight": np.ones(4, F8), "norm.scale": np.full(3, 2.0)}
    blend = weighted_mean([member, {**member, "norm.scale": np.full(3, 4.0)}]).result
    assert blend["norm.scale"].tolist() == [3, 3, 3]
    assert blend["fc.weight"].dtype == F8


@pytest.mark.parametrize("scale", [(1,), (1, 1), ()])
def test_the_smallest_int8_comes_back(scale: tuple[int, ...]) -> None:
    codes = np.array([[-128, 5, 127, -61]], np.int8)
    member = {"l.weight": codes, "l.weight_scale": np.full(scale, 0.01, np.float32)}
    plan = kofn.combine([member, member])
    np.testing.assert_array_equal(plan.result["l.weight"], codes)
    np.testing.assert_array_equal(plan.result["l.weight_scale"], member["l.weight_scale"])
    assert max(plan.info["requantised"].values()) == 0


WORDS = ("scale", "scales", "scaling", "zero", "zeros", "zero_point", "absmax", "qparams", "scale_inv", "zp")


def spellings(weight: str) -> list[str]:
    """Names of a scale: in the weight's module, or going on from the weight's name or its module's."""
    module, dot, leaf = weight.rpartition(".")
    inside = module + dot
    names = [
        weight + join + word for join in (".", "_", "._", ".weight_", ".quantizer.", "_quantizer._") for word in WORDS
    ]
    names += [inside + word for word in WORDS] + [f"{inside}{word}_{leaf}" for word in WORDS]
    names += [f"{inside}w{word}_b" for word in WORDS[:3]]
    if module:
        names += [f"{module}_{word}" for word in WORDS]
    if dot and leaf == "weight":
        names += [f"{module}.quantizer._{word}" for word in WORDS]
    return names


@pytest.mark.parametrize("dtype", [F8, ml_dtypes.float8_e5m2, np.int8, np.uint8])
@pytest.mark.parametrize("weight", ["fc.weight", "a.b.weight", "a.wq", "wq", "weight"])
def test_no_scale_is_averaged_apart_whatever_it_is_called(weight: str, dtype: Any) -> None:
    rng = np.random.default_rng(15)
    numbers = rng.integers(1, 100, (6, 10)).astype(dtype)
    module, dot, leaf = weight.rpartition(".")
    known = {weight + "_scale", weight + "_scale_inv"} if dtype is not np.uint8 else set()
    if known and leaf == "weight":
        known |= {module + dot + "scale_weight"} | ({module + ".scale"} if module else set())
    for name in spellings(weight):
        for shape in [(), (6, 1), (2, 5)]:
            scales = [rng.uniform(size, 2 * size, shape).astype(np.float32) for size in (1, 9)]
            members = [{weight: numbers, name: scale, "norm": np.ones(3, np.float32)} for scale in scales]
            if name not in known:
                with pytest.raises(InputError, match=rf"{re.escape(repr(name))}.*skip th(is tensor|ese tensors)$"):
                    weighted_mean(members, dtype="float64")
                continue
            blend = weighted_mean(members, dtype="float64").result
            assert set(blend) == {weight, "norm"}
            grid = shape or (1, 1)
            spread = [np.kron(scale.reshape(grid), np.ones((6 // grid[0], 10 // grid[1]))) for scale in scales]
            exact = numbers.astype(np.float64) * (spread[0] + spread[1]) / 2
            np.testing.assert_allclose(blend[weight], exact, rtol=1e-7)


def test_a_parameter_that_is_called_a_scale_is_blended() -> None:
    narrow = np.ones((2, 3), F8)
    parameters = {
        "norm.scale": np.full(3, 2.0),  # of a module without a weight
        "a.norm.scale": np.full(3, 2.0),  # of a module within that of a weight
        "ln.scale": np.full(3, 2.0),  # beside the bias of a norm
        "logit_scale": np.array(2.0, F8),  # of a model that was cast to float8 whole
    }
    members = [
        {"fc.weight": narrow, "a.wq": narrow, "ln.bias": np.ones(3, F8), "projection": narrow}
        | {name: (array * size).astype(array.dtype) for name, array in parameters.items()}
        for size in (1, 2)
    ]
    blend = weighted_mean(members).result
    for name in parameters:
        assert np.unique(np.asarray(blend[name], np.float64)).tolist() == [3.0]
    # CLIP's temperature is kept in float32 beside its projections.
    members = [{"text_projection": narrow, "logit_scale": np.array(size, np.float32)} for size in (2, 4)]
    assert weighted_mean(members).result["logit_scale"] == 3


def test_a_zero_point_beside_a_weight_that_is_read_is_refused() -> None:
    member = quantised(np.random.default_rng(16).normal(size=(6, 10)), "fc.weight_scale", (6, 1), np.int8)
    with pytest.raises(InputError, match=r"'fc.zeros' is a scale, and 'fc.weight' is read by 'fc.weight_scale' alone"):
        weighted_mean([member | {"fc.zeros": np.ones((6, 1))}] * 2)
