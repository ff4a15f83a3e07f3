"""Adapters of every trainer: sums and folds against each trainer's formula, files against what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapter_files
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from adapter_files import CONV, FILES, SHAPES, File, Q, V, base
from lora import refused

from kofn.combination import fold_adapter, fold_adapters, reduce_adapters, stack_adapters
from kofn.core.plans import Plan
from kofn.io.adapters import CONFIG, Adapter, is_adapter

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def opened(file: File) -> Adapter:
    return Adapter(file.tensors, file.config, metadata=file.metadata)


def added(adapter: Any, dtype: Any = np.float64, **options: Any) -> dict[str, np.ndarray]:
    """What folding adds to each weight of a model that is zero."""
    zeros = {f"{name}.weight": np.zeros(shape, dtype) for name, shape in SHAPES.items()}
    folded = fold_adapter(zeros, adapter, **options)
    return {name: folded[f"{name}.weight"] for name in SHAPES if folded[f"{name}.weight"].any()}


def agree(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], places: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].shape == array.shape
        assert np.abs(ours[name] - array).max() <= places * np.abs(array).max()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", FILES)
def test_an_adapter_is_read_as_its_trainer_reads_it(name: str, dtype: Any) -> None:
    file = FILES[name](dtype=dtype)
    adapter = opened(file)
    assert adapter.family.name == file.family
    # Metadata and alphas in half precision are exact here, and products are taken in float64.
    agree(added(adapter), file.updates, 1e-14)


@pytest.mark.parametrize("name", FILES)
def test_one_adapter_is_given_back_as_it_is(name: str, tmp_path: Path) -> None:
    file = FILES[name]()
    given = file.save(tmp_path / ("one" if file.config is not None else "one.safetensors"))
    out = tmp_path / ("two" if file.config is not None else "two.safetensors")
    plan = stack_adapters([given], out=out)
    assert plan.info["families"] == [plan.result.facts()]
    assert plan.info["family"] == file.family
    if file.config is not None:
        assert (given / CONFIG).read_bytes() == (out / CONFIG).read_bytes()
        given, out = given / file.name, out / file.name
    with safetensors.safe_open(given, "numpy") as before, safetensors.safe_open(out, "numpy") as after:
        assert before.metadata() == after.metadata()
        assert list(before.offset_keys()) == list(after.offset_keys())
    assert {key: array.tobytes() for key, array in plan.result.items()} == {
        key: array.tobytes() for key, array in file.tensors.items()
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", FILES)
def test_a_sum_is_the_sum_of_the_updates(name: str, dtype: Any, tmp_path: Path) -> None:
    files = [FILES[name](seed, dtype) for seed in (1, 2, 3)]
    ending = "" if files[0].config is not None else ".safetensors"
    paths = [file.save(tmp_path / f"{i}{ending}") for i, file in enumerate(files)]
    out = tmp_path / f"sum{ending}"
    plan = stack_adapters(paths, weights=[2, -0.5, 0.25], normalize=False, out=out)
    weights = {0: 2, 1: -0.5, 2: 0.25}
    want = {key: sum(w * files[i].updates[key] for i, w in weights.items()) for key in files[0].updates}
    family = "kohya" if files[0].family == "LyCORIS" else files[0].family
    assert plan.result.family.name == plan.info["family"] == family
    assert [row["family"] for row in plan.info["families"]] == [files[0].family] * 3
    # Each factor is rounded once to the dtype.
    sizes = sum(abs(w) * max(np.abs(array).max() for array in files[i].updates.values()) for i, w in weights.items())
    slack = 16 * float(ml_dtypes.finfo(dtype).eps) * sizes
    got = added(out)
    assert got.keys() == want.keys()
    for key, array in want.items():
        assert np.abs(got[key] - array).max() <= slack
    assert all(array.dtype == np.dtype(dtype) for key, array in plan.result.items() if "alpha" not in key)
    assert {pair.scale for pair in plan.result.pairs.values()} == {1.0}
    if np.dtype(dtype).itemsize < 4:
        wide = stack_adapters(paths, weights=[2, -0.5, 0.25], normalize=False, dtype="float32")
        assert wide.info["rounding"] < 1e-6
        sharp = added(wide.result)
        assert max(np.abs(sharp[key] - array).max() for key, array in want.items()) <= 1e-5 * sizes


@pytest.mark.parametrize("name", FILES)
def test_a_sum_has_the_names_of_the_first(name: str, tmp_path: Path) -> None:
    files = [FILES[name](seed) for seed in (1, 2)]
    result = stack_adapters([opened(file) for file in files]).result
    if files[0].family == "LyCORIS":
        assert {key.rpartition(".")[2] for key in result} == {"weight", "alpha"}
        assert all(".lora_up." in key or ".lora_down." in key for key in result if not key.endswith("alpha"))
        return
    factors = {key for key in files[0].tensors if not key.endswith("alpha") and "lora_mid" not in key}
    assert factors == {key for key in result if not key.endswith("alpha")}
    if name == "kohya":
        ranks = {module: pair.rank for module, pair in result.pairs.items()}
        assert {key: float(result[f"{key}.alpha"]) for key in ranks} == ranks
        assert result.saved.metadata == {"ss_network_dim": "Dynamic", "ss_tag": "x"}


def test_models_of_one_rank_get_one_rank() -> None:
    for make in (adapter_files.mlx, adapter_files.torchtune):
        one, two = make(1), make(2)
        two.tensors = {key: array for key, array in two.tensors.items() if key.startswith(Q)}
        result = stack_adapters([opened(one), opened(two)], normalize=False).result
        assert {pair.rank for pair in result.pairs.values()} == {4}
        agree(added(result), {Q: one.updates[Q] + two.updates[Q], V: one.updates[V]}, 1e-6)
    assert result.config == {"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_v"]}


def test_the_settings_of_a_sum_for_mlx() -> None:
    files = [adapter_files.mlx(1), adapter_files.mlx(2)]
    for file, layers in zip(files, (4, 7), strict=True):
        moved = {"model.layers.3.q_proj" if key.startswith(Q) else "lm_head": key for key in (Q, V)}
        file.tensors = {
            f"{name}.{half}": file.tensors[f"{key}.{half}"]
            for name, key in moved.items()
            for half in ("lora_a", "lora_b")
        }
        file.config = {**(file.config or {}), "num_layers": layers, "model": "org/base"}
    config = stack_adapters([opened(file) for file in files]).result.config
    assert config["num_layers"] == 7
    assert config["model"] == "org/base"
    assert config["lora_parameters"] == {"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": ["lm_head", "q_proj"]}
    files[0].config = {**(files[0].config or {}), "num_layers": -1}
    assert stack_adapters([opened(file) for file in files]).result.config["num_layers"] == -1


def test_ranks_that_differ_are_settings_of_diffusers() -> None:
    files = [adapter_files.diffusers_lora(seed) for seed in (1, 2)]
    result = stack_adapters([opened(file) for file in files]).result
    settings = json.loads(result.saved.metadata["lora_adapter_metadata"])
    assert (settings["unet.r"], settings["unet.lora_alpha"]) == (4, 4)
    assert settings["unet.rank_pattern"] == settings["unet.alpha_pattern"] == {V: 6}
    plain = [adapter_files.diffusers_old(seed) for seed in (1, 2)]
    assert stack_adapters([opened(file) for file in plain]).result.saved.metadata == {}


@pytest.mark.parametrize("name", FILES)
def test_folding_adds_the_update_to_the_base(name: str, tmp_path: Path) -> None:
    file, start = FILES[name](), base(np.float32)
    path = file.save(tmp_path / ("one" if file.config is not None else "one.safetensors"))
    safetensors.numpy.save_file(start, tmp_path / "base.safetensors")
    fold_adapters(tmp_path / "base.safetensors", [path, path], weights=[1, -0.25], out=tmp_path / "out.safetensors")
    folded = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    for key, array in start.items():
        update = file.updates.get(key.removesuffix(".weight"), 0) if key.endswith(".weight") else 0
        want = (array.astype(np.float64) + 1.0 * update - 0.25 * np.asarray(update)).astype(np.float32)
        assert np.abs(folded[key] - want).max() <= np.spacing(np.abs(want).max())


@pytest.mark.parametrize("prefix", ["", "unet.", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("name", ["kohya", "diffusers, new", "LoKr"])
def test_the_base_may_name_its_part_of_the_model(name: str, prefix: str) -> None:
    file, start = FILES[name](), base(prefix=prefix)
    folded = fold_adapter(start, opened(file))
    for key, update in file.updates.items():
        np.testing.assert_allclose(folded[f"{prefix}{key}.weight"], start[f"{prefix}{key}.weight"] + update, rtol=1e-12)


def test_text_encoders_are_not_taken_for_each_other() -> None:
    A, B = np.ones((1, 2)), np.ones((2, 1))
    pair = {"lora_te1_fc.lora_down.weight": A, "lora_te1_fc.lora_up.weight": B}
    start = {f"{part}.fc.weight": np.zeros((2, 2)) for part in ("text_encoder", "text_encoder_2", "unet")}
    folded = fold_adapter(start, pair)
    assert [name for name, array in folded.items() if array.any()] == ["text_encoder.fc.weight"]
    second = {name.replace("te1", "te2"): array for name, array in pair.items()}
    folded = fold_adapter(start, second)
    assert [name for name, array in folded.items() if array.any()] == ["text_encoder_2.fc.weight"]
    twice = {"a.b_c.weight": np.ones((2, 2)), "a_b.c.weight": np.ones((2, 2))}
    flat = {name.replace("te1_fc", "unet_a_b_c"): array for name, array in pair.items()}
    refused(lambda: fold_adapter(twice, flat), "'lora_unet_a_b_c' may be 'a.b_c' or 'a_b.c'")
    both = {**pair, **{name.replace("te1", "te"): array for name, array in pair.items()}}
    refused(
        lambda: fold_adapter(start, both), "'lora_te_fc' is the second that corresponds to 'text_encoder.fc.weight'"
    )


def test_modules_are_left_out_by_skip() -> None:
    file = adapter_files.kohya()
    text = {"lora_te_fc.lora_down.weight": np.ones((1, 2), "f4"), "lora_te_fc.lora_up.weight": np.ones((2, 1), "f4")}
    adapter = Adapter({**file.tensors, **text})
    refused(lambda: fold_adapter(base(), adapter), "it lacks 'lora_te_fc.weight'", "or leave modules out with skip")
    agree(added(adapter, skip="lora_te_*"), file.updates, 1e-14)
    refused(lambda: fold_adapter(base(), adapter, skip=["te_*"]), "skip='te_*' matches no module")
    refused(lambda: fold_adapter(base(), adapter, skip="*"), "only and skip leave no module to fold")


def test_a_layer_of_width_1_may_be_linear_or_a_convolution() -> None:
    A, B = np.arange(6.0).reshape(2, 3), np.ones((4, 2))
    flat = {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B}
    wide = {name: array[:, :, None, None] for name, array in flat.items()}
    for tensors in (flat, wide):
        for shape in ((4, 3), (4, 3, 1, 1)):
            folded = fold_adapter({"q.weight": np.zeros(shape)}, tensors)["q.weight"]
            assert folded.shape == shape
            np.testing.assert_array_equal(folded.reshape(4, 3), B @ A)
    refused(lambda: fold_adapter({"q.weight": np.zeros((4, 5, 1, 1))}, flat), "is (4, 5, 1, 1), the adapter's (4, 3)")


LINEAR = ["kohya", "diffusers, old", "diffusers, new", "torchtune", "MLX", "PEFT", "LoHa", "LoKr"]


@pytest.mark.parametrize("second", LINEAR)
@pytest.mark.parametrize("first", LINEAR)
def test_families_add_up_where_modules_correspond(first: str, second: str) -> None:
    files = [_only_linear(FILES[name](seed)) for seed, name in enumerate((first, second))]
    result = stack_adapters([opened(file) for file in files], weights=[1, -2], normalize=False).result
    want = {key: files[0].updates[key] - 2 * files[1].updates[key] for key in (Q, V)}
    agree(added(result), want, 1e-5)
    assert result.family.name == files[0].family.replace("LyCORIS", "kohya")


def _only_linear(file: File) -> File:
    flat = CONV.replace(".", "_")
    file.tensors = {key: array for key, array in file.tensors.items() if CONV not in key and flat not in key}
    file.updates = {key: array for key, array in file.updates.items() if key != CONV}
    return file


def test_families_whose_modules_do_not_correspond_are_refused() -> None:
    few, many = opened(_only_linear(adapter_files.mlx())), opened(adapter_files.kohya())
    refused(
        lambda: stack_adapters([few, many]),
        "member 1, an adapter of kohya, changes 'lora_unet_up_1_conv_in'",
        "no module of member 0, an adapter of MLX",
        "put first the one that changes more",
    )
    assert stack_adapters([many, few]).result.family.name == "kohya"
    pairs = {f"{name}.lora_{half}.weight": np.ones((2, 2)) for name in ("unet.a", "transformer.a") for half in "AB"}
    one = {"lora_unet_a.lora_down.weight": np.ones((2, 2)), "lora_unet_a.lora_up.weight": np.ones((2, 2))}
    refused(lambda: stack_adapters([one, pairs]), "'unet.a' and 'transformer.a' both correspond to 'lora_unet_a'")
    embedding = {"a.lora_embedding_A": np.ones((2, 2)), "a.lora_embedding_B": np.ones((2, 2))}
    refused(lambda: stack_adapters([one, embedding]), "is embedding float64")


def test_what_a_family_has_no_name_for_is_refused() -> None:
    one = {"lora_unet_a.lora_down.weight": np.ones((2, 2)), "lora_unet_a.lora_up.weight": np.ones((2, 2))}
    pair = {f"a.lora_{half}.weight": np.ones((2, 2)) for half in "AB"}
    refused(
        lambda: stack_adapters([one, {**pair, "a.lora_B.bias": np.ones(2)}]),
        "'lora_unet_a' has a pair of kind 'bias of lora_B', which adapters of kohya do not hold; use format='peft'",
    )
    refused(
        lambda: stack_adapters([one, {**pair, "head": np.ones(2)}], base={"head": np.zeros(2)}),
        "'head' is trained in full, which adapters of kohya do not hold; use format='peft'",
    )
    table = {"embed.lora_a": np.ones((3, 2)), "embed.lora_b": np.ones((2, 2))}
    embedding = {"embed.lora_embedding_A": np.ones((2, 3)), "embed.lora_embedding_B": np.ones((2, 2))}
    assert stack_adapters([table, embedding]).result.family.name == "MLX"
    refused(
        lambda: stack_adapters(
            [{"x.lora_a.weight": np.ones((2, 3, 1)), "x.lora_b.weight": np.ones((2, 2, 1))}],
            weights=[2],
            normalize=False,
        ),
        "'x' has a pair of kind 'conv', which adapters of torchtune do not hold",
    )


@pytest.mark.parametrize("name", FILES)
def test_every_family_becomes_a_folder_of_peft(name: str, tmp_path: Path) -> None:
    files = [FILES[name](seed) for seed in (1, 2)]
    flat = files[0].family in ("kohya", "LyCORIS")
    given = base() if flat else None
    for count in (1, 2):
        members = [opened(file) for file in files[:count]]
        plan = stack_adapters(members, normalize=False, base=given, format="peft", out=tmp_path / str(count))
        want = {key: sum(file.updates[key] for file in files[:count]) for key in files[0].updates}
        config = json.loads((tmp_path / str(count) / CONFIG).read_text())
        assert config["peft_type"] == "LORA"
        assert sorted(plan.result.pairs) == sorted(f"base_model.model.{key}" for key in want)
        if name != "PEFT":
            assert sorted(config["target_modules"]) == sorted(want)
        agree(added(tmp_path / str(count)), want, 3e-6)
    if flat:
        refused(lambda: stack_adapters(members, format="peft"), "has lost its dots; give base")
    refused(lambda: stack_adapters(members, format="kohya"), "format='kohya'")


def test_a_folder_of_peft_is_of_one_model() -> None:
    pairs = {f"{name}.lora_{half}.weight": np.ones((2, 2)) for name in ("unet.a", "text_encoder.a") for half in "AB"}
    refused(
        lambda: stack_adapters([pairs], format="peft"),
        "format='peft' is for an adapter of one model; 'unet.a' is of the denoiser, 'text_encoder.a' of the text",
    )


def test_names_of_a_model_stay_its_own_in_peft() -> None:
    names = {"transformer.h.0.attn": "base_model.model.transformer.h.0.attn", "lm_head": "base_model.model.lm_head"}
    pairs = {f"{name}.lora_{half}": np.ones((2, 2)) for name in names for half in "ab"}
    assert sorted(stack_adapters([pairs], format="peft").result.pairs) == sorted(names.values())
    # The base's names serve members that have more modules than PEFT's own.
    members = [
        opened(_only_linear(adapter_files.peft(1))),
        opened(adapter_files.kohya(2)),
        opened(adapter_files.mlx(3)),
    ]
    result = stack_adapters(members, format="peft", base=base()).result
    assert sorted(result.pairs) == sorted(f"base_model.model.{name}" for name in SHAPES)
    refused(lambda: stack_adapters(members, format="peft"), "changes 'lora_unet_up_1_conv_in'", "no module of member 0")


def test_a_product_beyond_the_sides_of_its_weight_stands_beside_an_identity() -> None:
    """LoHa of rank 3 has products of rank 9, of a weight of 6 by 10."""
    files = [adapter_files.loha(seed, np.float32, rank=3) for seed in (1, 2)]
    ranks = {module: pair.rank for module, pair in opened(files[0]).pairs.items()}
    assert ranks["lora_unet_mid_attn_to_v"] == 6
    assert ranks["lora_unet_down_0_attn_to_q"] == 8
    plan = stack_adapters([opened(file) for file in files])
    assert plan.info["ranks"] == ranks | {"lora_unet_up_1_conv_in": 6}
    for file, spread in zip(files, plan.spread, strict=True):
        gap = sum(np.square(file.updates[key] - sum(f.updates[key] for f in files) / 2).sum() for key in file.updates)
        assert np.isclose(spread, np.sqrt(gap), rtol=1e-10)
    cut = reduce_adapters([opened(file) for file in files], rank=2)
    for module, key in {"lora_unet_down_0_attn_to_q": Q, "lora_unet_mid_attn_to_v": V}.items():
        u, s, v = np.linalg.svd(sum(file.updates[key] for file in files) / 2, full_matrices=False)
        best = (u[:, :2] * s[:2]) @ v[:2]
        assert np.abs(cut.result.pairs[module].delta() - best).max() < 1e-5 * s[0]


def test_kernels_that_factors_flatten_are_the_base_s() -> None:
    files = [adapter_files.lokr_flat(seed) for seed in (1, 2)]
    module = "lora_unet_up_1_conv_in"
    flat = stack_adapters([opened(file) for file in files])
    assert flat.result[f"{module}.lora_down.weight"].shape == (6, 36)
    assert flat.info["warnings"][0].startswith(f"{module!r} and other convolutions are saved with a flat kernel")
    assert "warnings" not in stack_adapters([opened(files[0])]).info
    shaped = stack_adapters([opened(file) for file in files], base=base())
    assert "warnings" not in shaped.info
    assert shaped.result[f"{module}.lora_down.weight"].shape == (6, 4, 3, 3)
    assert shaped.result[f"{module}.lora_up.weight"].shape == (6, 6, 1, 1)
    for plan in (flat, shaped):
        agree(added(plan.result), {key: sum(file.updates[key] for file in files) / 2 for key in (Q, CONV)}, 1e-6)


def test_layers_are_given_one_shape() -> None:
    plain, flat = adapter_files.kohya(1), adapter_files.lokr_flat(2)
    want = {key: plain.updates[key] + np.asarray(flat.updates.get(key, 0)) for key in SHAPES}
    for members in ([plain, flat], [flat, plain]):
        result = stack_adapters([opened(file) for file in members], normalize=False).result
        assert result.pairs["lora_unet_up_1_conv_in"].A.shape[1:] == (4, 3, 3)
        assert "warnings" not in stack_adapters([opened(file) for file in members]).info
        agree(added(result), want, 1e-5)
    A, B = np.arange(6.0).reshape(2, 3), np.ones((4, 2))
    linear = {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B}
    wide = {name: array[:, :, None, None] for name, array in linear.items()}
    for members, shape in (([linear, wide], (4, 3)), ([wide, linear], (4, 3, 1, 1))):
        result = stack_adapters(members, normalize=False).result
        np.testing.assert_array_equal(
            fold_adapter({"q.weight": np.zeros(shape)}, result)["q.weight"].ravel(), (2 * B @ A).ravel()
        )
        assert result.pairs["lora_unet_q"].A.shape == (4, *shape[1:])
    tall = {**wide, "lora_unet_q.lora_down.weight": np.ones((2, 1, 3, 1))}
    across = {**wide, "lora_unet_q.lora_down.weight": np.ones((2, 1, 1, 3))}
    refused(
        lambda: stack_adapters([tall, across]), "conv float64 from (1, 1, 3) to (4,), in member 0", "from (1, 3, 1)"
    )


def test_files_of_other_models_are_not_added() -> None:
    files = [adapter_files.kohya(seed) for seed in (1, 2)]
    for file, version in zip(files, ("sd_v1", "sdxl_base_v1-0"), strict=True):
        file.metadata["ss_base_model_version"] = version
    members = [opened(file) for file in files]
    refused(lambda: stack_adapters(members), "member 1 is for the base model 'sdxl_base_v1-0', others for 'sd_v1'")
    assert stack_adapters(members, other_base=True).n == 2
    named = adapter_files.peft(3)
    named.config = {**(named.config or {}), "base_model_name_or_path": "org/base"}
    assert stack_adapters([members[0], opened(named)]).n == 2


def test_half_and_single_precision_are_added_in_single() -> None:
    files = [adapter_files.kohya(1, np.float16), adapter_files.diffusers_lora(2, np.float32)]
    members = [opened(file) for file in files]
    refused(lambda: stack_adapters(members), "linear float32 from (8,) to (12,), in member 0 linear float16")
    refused(lambda: stack_adapters(members), "; dtype='float32' adds half and single precision")
    result = stack_adapters(members, normalize=False, dtype="float32").result
    assert {array.dtype for array in result.values()} == {np.dtype(np.float32)}
    agree(added(result), {key: files[0].updates[key] + files[1].updates[key] for key in SHAPES}, 1e-6)
    double = [members[0], opened(adapter_files.diffusers_lora(2, np.float64))]
    refused(lambda: stack_adapters(double, dtype="float32"), "float64 from (8,)")


def test_a_plan_keeps_the_families(tmp_path: Path) -> None:
    plan = stack_adapters([opened(adapter_files.kohya(1)), opened(adapter_files.mlx(2))])
    plan.save(tmp_path / "plan.kofn")
    assert Plan.load(tmp_path / "plan.kofn").info["families"] == [
        {"family": "kohya", "modules": 3, "rank": "2..3", "scale": "1..2.5"},
        {"family": "MLX", "modules": 2, "rank": "2", "scale": "20"},
    ]


def test_sums_of_parts_keep_their_family() -> None:
    plan = stack_adapters([opened(adapter_files.kohya(1)), opened(adapter_files.kohya(2))], statistic=True)
    mean = plan.statistic.mean()
    assert mean.family.name == "kohya"
    agree(added(mean), added(plan.result), 1e-6)


def test_dora_of_other_trainers_is_folded_and_not_added() -> None:
    rng = np.random.default_rng(0)
    A, B, start = rng.normal(size=(2, 5)), rng.normal(size=(7, 2)), rng.normal(size=(7, 5))
    size = rng.uniform(1, 2, 7)
    kohya = {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B}
    members = {
        "kohya": Adapter({**kohya, "lora_unet_q.dora_scale": size[:, None]}),
        "MLX": Adapter({"q.lora_a": A.T, "q.lora_b": B.T, "q.m": size}, {"fine_tune_type": "dora"}),
        "torchtune": Adapter({"q.lora_a.weight": A, "q.lora_b.weight": B, "q.magnitude": size}),
    }
    summed = start + B @ A
    want = summed * (size / np.linalg.norm(summed, axis=1))[:, None]
    for name, member in members.items():
        assert member.family.name == name
        np.testing.assert_allclose(fold_adapter({"q.weight": start}, member)["q.weight"], want, rtol=1e-13)
        refused(
            lambda member=member: stack_adapters([member], weights=[2], normalize=False),
            "DoRA rescales the rows or columns",
        )
        whole = {"q.weight": start}
        refused(
            lambda member=member, whole=whole: stack_adapters([member], format="peft", base=whole),
            "DoRA",
            "given back as it is",
        )
        assert stack_adapters([member]).result is member
    short = Adapter({**kohya, "lora_unet_q.dora_scale": np.ones((6, 1))})
    refused(lambda: fold_adapter({"q.weight": start}, short), "DoRA on 'lora_unet_q' has 6 magnitudes for 7 rows")
    columns = Adapter({**kohya, "lora_unet_q.dora_scale": np.ones((1, 5))})
    want = summed * (np.ones(5) / np.linalg.norm(summed, axis=0))
    np.testing.assert_allclose(fold_adapter({"q.weight": start}, columns)["q.weight"], want, rtol=1e-13)
    refused(lambda: stack_adapters([columns], weights=[2], normalize=False), "DoRA rescales the rows or columns")
    long = Adapter({**kohya, "lora_unet_q.dora_scale": np.ones((1, 7))})
    refused(lambda: fold_adapter({"q.weight": start}, long), "DoRA on 'lora_unet_q' has 7 magnitudes for 5 inputs")


def test_magnitudes_of_the_inputs_of_a_convolution() -> None:
    for file in (adapter_files.kohya(), adapter_files.lokr_flat()):
        module, sizes = "lora_unet_" + CONV.replace(".", "_"), np.arange(1.0, 5.0).reshape(1, 4, 1, 1)
        parts = {name: array for name, array in file.tensors.items() if name.startswith(module)}
        parts[f"{module}.dora_scale"] = sizes.astype(np.float32)
        summed = base()[f"{CONV}.weight"] + file.updates[CONV]
        want = summed * sizes / np.sqrt(np.square(summed).sum((0, 2, 3), keepdims=True))
        np.testing.assert_allclose(fold_adapter(base(), parts)[f"{CONV}.weight"], want, rtol=1e-13)


def test_adapters_are_known_by_the_names_of_their_tensors(tmp_path: Path) -> None:
    for name, make in FILES.items():
        file = make()
        path = file.save(tmp_path / (name if file.config is not None else f"{name}.safetensors"))
        assert is_adapter(path)
        if file.config is None:
            (tmp_path / f"in {name}").mkdir()
            path.rename(tmp_path / f"in {name}" / "lora.safetensors")
            assert is_adapter(tmp_path / f"in {name}")
            assert Adapter.read(tmp_path / f"in {name}").family.name == file.family
    safetensors.numpy.save_file(base(np.float32), tmp_path / "base.safetensors")
    assert not is_adapter(tmp_path / "base.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    assert not is_adapter(tmp_path / "damaged.safetensors")
    assert not is_adapter(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["kohya", "LoKr", "diffusers, new"])
def test_differences_beside_factors_are_added_as_they_are(name: str, tmp_path: Path) -> None:
    """LyCORIS saves what norms gained so (`w_norm`, `b_norm`), and a layer trained in full (`diff`, `diff_b`)."""
    file, rng, start = FILES[name](), np.random.default_rng(3), base(np.float32)
    start |= {
        f"{leaf}.{part}": rng.normal(size=4).astype("f4") for leaf in ("norm", "other") for part in ("weight", "bias")
    }
    start["full.weight"] = rng.normal(size=(3, 2, 2)).astype("f4")
    prefix = "unet." if name.startswith("diffusers") else "lora_unet_"
    flat = {Q: prefix + (Q if prefix == "unet." else Q.replace(".", "_"))}
    added = {
        f"{prefix}norm.w_norm": ("norm.weight", start["other.weight"]),
        f"{prefix}norm.b_norm": ("norm.bias", start["other.bias"]),
        f"{prefix}full.diff": ("full.weight", start["full.weight"] ** 2),
        f"{flat[Q]}.diff_b": (f"{Q}.bias", start[f"{Q}.bias"] ** 2),
    }
    file.tensors |= {key: array for key, (_, array) in added.items()}
    file.tensors[f"{prefix}full.alpha"] = np.array(7, "f4")  # of no factors: without meaning
    safetensors.numpy.save_file(start, tmp_path / "base.safetensors")
    adapter = file.save(tmp_path / "adapter.safetensors")
    fold_adapters(tmp_path / "base.safetensors", [adapter], weights=[-0.5], out=tmp_path / "out.safetensors")
    folded = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    for _, (key, array) in added.items():
        np.testing.assert_allclose(folded[key], start[key] - 0.5 * array, rtol=1e-6)
    agree({Q: folded[f"{Q}.weight"]}, {Q: start[f"{Q}.weight"] - 0.5 * file.updates[Q]}, 1e-6)
    assert folded["other.weight"].tobytes() == start["other.weight"].tobytes()
    part = fold_adapter(start, adapter, skip=[f"{prefix}norm.*", "*.bias"])
    assert all(part[key] is start[key] for key in ("norm.weight", "norm.bias", f"{Q}.bias"))
    refused(
        lambda: stack_adapters([adapter], weights=[2], normalize=False),
        "differences in full (diff, diff_b, w_norm, b_norm) are no pairs of factors",
        "can only be given back alone, at weight 1, or folded into its base",
    )
    assert len(stack_adapters([adapter]).result.differences) == len(added)


def test_a_file_of_differences_alone_is_an_adapter(tmp_path: Path) -> None:
    start = {"a.b.weight": np.ones((2, 3), "f4"), "n.weight": np.ones(3, "f4")}
    tensors = {"lycoris_a_b.diff": np.full((2, 3), 2, "f4"), "lycoris_n.w_norm": np.full(3, 3, "f4")}
    safetensors.numpy.save_file(tensors, tmp_path / "full.safetensors")
    assert is_adapter(tmp_path / "full.safetensors")
    adapter = Adapter.read(tmp_path / "full.safetensors")
    assert adapter.facts() == {"family": "LyCORIS", "modules": 0, "rank": "none", "scale": "none", "differences": 2}
    folded = fold_adapter(start, adapter, weight=0.5)
    assert (folded["a.b.weight"] == 2).all()
    assert (folded["n.weight"] == 2.5).all()
    refused(lambda: fold_adapter({"n.weight": np.ones(4, "f4")}, adapter), "it lacks 'lycoris_a_b.weight'", "(3,)")
    twice = {"a.diff": np.ones(2, "f4"), "a.w_norm": np.ones(2, "f4")}
    refused(lambda: Adapter(twice), "'a.w_norm' is the second difference of 'a.weight'")


def test_a_sum_does_not_replace_the_file_of_a_member(tmp_path: Path) -> None:
    paths = [adapter_files.kohya(seed).save(tmp_path / f"{seed}" / "lora.safetensors") for seed in (1, 2)]
    refused(lambda: stack_adapters(paths, out=paths[0]), "is where member 0")
    refused(lambda: stack_adapters(paths, out=paths[0].parent), "is where member 0")
    stack_adapters(paths, out=tmp_path / "sum")
    assert [file.name for file in (tmp_path / "sum").iterdir()] == ["lora.safetensors"]
    refused(
        lambda: stack_adapters([opened(adapter_files.mlx())], out=tmp_path / "x.safetensors"),
        "an adapter is a folder of adapter_config.json and adapters.safetensors in MLX",
    )


def test_modules_are_matched_whatever_the_denoiser_is_called() -> None:
    first, second = (FILES["diffusers, lora"](seed=seed) for seed in (0, 1))
    other = {f"diffusion_model.{name.partition('.')[2]}": array for name, array in second.tensors.items()}
    for members in ([opened(first), Adapter(other)], [opened(first), opened(FILES["kohya"](seed=1))]):
        plan = stack_adapters(members, normalize=False)
        assert not any("no module in common" in line for line in plan.info.get("warnings", []))
        assert not plan.info["absent"]
    alike = stack_adapters([opened(first), opened(second)], normalize=False).result
    blend = stack_adapters([opened(first), Adapter(other)], normalize=False).result
    assert blend.keys() == alike.keys()
    assert all((blend[name] == alike[name]).all() for name in alike)
