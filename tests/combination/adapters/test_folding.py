"""Adapters added to their base, and rounds of clients that each send one."""

from __future__ import annotations

import errno
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from lora import SHAPES, P, kind, mixed, network, refused, save, updates

from kofn.combination import fold_adapter, fold_adapters, stack_adapters, weighted_mean
from kofn.combination.adapters._fold_rows import Scratch, rounded
from kofn.core.checks import FailureError
from kofn.io.adapters import Adapter

WEIGHTS_USED = [0.5, 0.3, 0.2]


def test_folding_adds_the_update() -> None:
    base, (tensors, config) = network(), mixed()[1]
    folded = fold_adapter(base, Adapter(tensors, config), weight=0.5)
    for module, update in updates(tensors, config).items():
        np.testing.assert_allclose(
            folded[f"{module}.weight"], base[f"{module}.weight"] + update / 2, rtol=1e-14, atol=1e-14
        )
    assert folded["norm.bias"] is base["norm.bias"]
    turned = fold_adapter(
        {name: value.T for name, value in base.items()}, Adapter(tensors, {**config, "fan_in_fan_out": True})
    )
    whole = fold_adapter(base, Adapter(tensors, config))
    for module in SHAPES:
        np.testing.assert_array_equal(turned[f"{module}.weight"], whole[f"{module}.weight"].T)


def test_folding_a_sum_is_folding_its_parts() -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    base = network()
    folded = fold_adapter(base, stack_adapters(members, weights=WEIGHTS_USED).result)
    step = base
    for weight, member in zip(WEIGHTS_USED, members, strict=True):
        step = fold_adapter(step, member, weight=weight)
    for name in base:
        np.testing.assert_allclose(folded[name], step[name], atol=1e-12)


def test_several_adapters_are_added_at_once() -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    base = network()
    folded = fold_adapters(base, members, weights=WEIGHTS_USED)
    step = base
    for weight, member in zip(WEIGHTS_USED, members, strict=True):
        step = fold_adapter(step, member, weight=weight)
    for name in base:
        np.testing.assert_allclose(folded[name], step[name], atol=1e-12)
    whole = fold_adapters(base, members[:1])
    for name in base:
        np.testing.assert_array_equal(whole[name], fold_adapter(base, members[0])[name])
    refused(lambda: fold_adapters(base, members[:1], weights=[1, 1]), "weights has 2 values for 1 adapters")
    refused(lambda: fold_adapters(base, []), "adapters is empty")


def test_folding_what_is_more_than_a_product() -> None:
    base = network() | {"embed.weight": np.ones((9, 4)), "conv.weight": np.ones((4, 3, 3, 3))}
    tensors, config = kind("embedding")
    A, B = tensors[P + "embed.lora_embedding_A"], tensors[P + "embed.lora_embedding_B"]
    np.testing.assert_allclose(fold_adapter(base, Adapter(tensors, config))["embed.weight"], 1 + 2.5 * (B @ A).T)
    tensors, config = kind("convolution")
    A, B = tensors[P + "conv.lora_A.weight"], tensors[P + "conv.lora_B.weight"]
    got = fold_adapter(base, Adapter(tensors, config))["conv.weight"]
    np.testing.assert_allclose(got, 1 + 2.5 * np.einsum("or,rihw->oihw", B[:, :, 0, 0], A))
    tensors, config = kind("bias of B")
    got = fold_adapter(base | {f"{m}.bias": np.zeros(s[0]) for m, s in SHAPES.items()}, Adapter(tensors, config))
    np.testing.assert_allclose(got["layers.0.q_proj.bias"], 2.5 * tensors[P + "layers.0.q_proj.lora_B.bias"])
    tensors, config = kind("bias")
    for weight in (1.0, 0.25):
        got = fold_adapter(base, Adapter(tensors, config), weight=weight)
        for name, saved in (("norm.bias", "norm.bias"), ("layers.0.q_proj.bias", "layers.0.q_proj.base_layer.bias")):
            np.testing.assert_allclose(got[name], base[name] + weight * (tensors[P + saved] - base[name]))
    head = fold_adapter(base, Adapter(*kind("head")))
    assert (head["head.weight"] == kind("head")[0][P + "head.weight"]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_folding_DoRA_gives_rows_their_magnitude(turned: bool) -> None:
    tensors, config = kind("DoRA")
    module = "layers.0.q_proj"
    only = {name: value for name, value in tensors.items() if module in name}
    base = {f"{module}.weight": network()[f"{module}.weight"].T if turned else network()[f"{module}.weight"]}
    got = fold_adapter(base, Adapter(only, {**config, "fan_in_fan_out": turned}))[f"{module}.weight"]
    summed = network()[f"{module}.weight"] + updates(only, config)[module]
    magnitude = only[f"{P}{module}.lora_magnitude_vector"]
    want = summed / np.linalg.norm(summed, axis=1, keepdims=True) * magnitude[:, None]
    np.testing.assert_allclose(got, want.T if turned else want, rtol=1e-13)
    refused(lambda: fold_adapter(base, Adapter(only, config), weight=0.5), "weight=0.5: a DoRA adapter is folded whole")


def test_folding_on_disk(tmp_path: Path) -> None:
    base = {name: value.astype(np.float32) for name, value in network().items()}
    (tmp_path / "base").mkdir()
    safetensors.numpy.save_file(base, tmp_path / "base" / "model.safetensors")
    adapter = Adapter(*mixed()[0])
    want = fold_adapter(base, adapter)
    lazy = fold_adapter(tmp_path / "base", adapter)
    written = fold_adapter(tmp_path / "base", adapter, out=tmp_path / "out")
    back = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    for name, value in want.items():
        for other in (lazy[name], written[name], back[name]):
            assert other.dtype == np.float32
            assert other.tobytes() == value.tobytes()
    refused(lambda: fold_adapter(tmp_path / "base", adapter, out=tmp_path / "base"), "is where the base lies")
    refused(lambda: fold_adapter(base, adapter, out=tmp_path / "x"), "the base is in memory")
    saved = save(tmp_path / "adapter", *mixed()[0])
    refused(
        lambda: fold_adapter(tmp_path / "base", saved, out=saved), "is where the adapter", "lies; name another path"
    )
    refused(lambda: fold_adapter(tmp_path / "base", saved, out=saved / "x.safetensors"), "files are read together")
    tensors, config = kind("head")
    refused(
        lambda: fold_adapter(tmp_path / "base", Adapter(tensors, {**config, "modules_to_save": None})),
        "it lacks 'head.weight'",
    )
    refused(lambda: fold_adapter(tmp_path / "base", Adapter(tensors, config), weight=0.5), "it lacks 'head.weight'")
    headed = fold_adapter(tmp_path / "base", Adapter(tensors, config), out=tmp_path / "headed")
    assert set(headed) == {*base, "head.weight"}
    assert headed["head.weight"].tolist() == tensors[P + "head.weight"].tolist()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_large_tensors_are_folded_in_blocks(turned: bool, dora: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(4, 300)).astype(np.float32), rng.normal(size=(700, 4)).astype(np.float32)
    weight = rng.normal(size=(700, 300)).astype(ml_dtypes.bfloat16)
    tensors = {"fc.lora_A.weight": down, "fc.lora_B.weight": up}
    want = weight.astype(np.float64) + 0.5 * (up.astype(np.float64) @ down.astype(np.float64))
    if dora:
        tensors["fc.lora_magnitude_vector"] = rng.uniform(1, 2, 700).astype(np.float32)
        want *= (tensors["fc.lora_magnitude_vector"] / np.linalg.norm(want, axis=1))[:, None]
    base = {"fc.weight": np.ascontiguousarray(weight.T if turned else weight), "plain": rng.normal(size=70_000)}
    adapter = Adapter(tensors, {"lora_alpha": 2, "r": 4, "fan_in_fan_out": turned})
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors")
    folded = fold_adapter(base, adapter)
    written = fold_adapter(tmp_path / "base.safetensors", adapter, out=tmp_path / "out.safetensors")
    lazy = fold_adapter(tmp_path / "base.safetensors", adapter)
    for other in (written, lazy):
        assert all(other[name].tobytes() == folded[name].tobytes() for name in base)
    np.testing.assert_array_equal(folded["fc.weight"], nearest(want.T if turned else want))


def nearest(exact: np.ndarray) -> np.ndarray:
    """The bfloat16 nearest to float64 values, by search among all of them."""
    every = np.arange(1 << 16, dtype=np.uint16)
    every = every[every & 0x7F80 != 0x7F80].view(ml_dtypes.bfloat16)
    grid, first = np.unique(every.astype(np.float64), return_index=True)
    upper = np.clip(np.searchsorted(grid, exact), 1, len(grid) - 1)
    lower = upper - (exact - grid[upper - 1] < grid[upper] - exact)
    tie = exact - grid[upper - 1] == grid[upper] - exact
    even = every[first].view(np.uint16) % 2 == 0
    return every[first][np.where(tie, np.where(even[upper], upper, upper - 1), lower)]


def test_sums_are_rounded_once() -> None:
    middle = np.nextafter(1 + 2.0**-8, np.array([0.0, 2.0]))  # beside the middle of two bfloat16, in float32 it is it
    wide = np.concatenate([[1 + 2.0**-8, 1 + 3 * 2.0**-8], middle, -middle, [0.0, 2.0**-134, 3.39e38]])
    got = rounded(wide, np.dtype(ml_dtypes.bfloat16), Scratch())
    assert got.tobytes() == nearest(wide).tobytes()
    assert got[:4].astype(float).tolist() == [1, 1 + 2.0**-6, 1, 1 + 2.0**-7]
    assert rounded(np.array([1e39]), np.dtype(ml_dtypes.bfloat16), Scratch()).astype(float)[0] == np.inf


def test_what_the_system_cannot_copy_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies within the system, across file systems, and of a file that shrank meanwhile."""
    base = network() | {"plain": np.arange(300_000, dtype=np.float32)}
    source, adapter = tmp_path / "base.safetensors", Adapter(*mixed()[0])
    safetensors.numpy.save_file(base, source)
    fold_adapter(source, adapter, out=tmp_path / "out.safetensors")
    for error in (errno.EXDEV, errno.ENOSYS, 0):

        def copies(*_: int, error: int = error, **__: int) -> int:
            if error:
                raise OSError(error, "not here")
            return 0

        monkeypatch.setattr("os.copy_file_range", copies)
        fold_adapter(source, adapter, out=tmp_path / "other.safetensors")
        assert (tmp_path / "other.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()

    def full(*_: int, **__: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.copy_file_range", full)
    with pytest.raises(FailureError, match="disk full"):
        fold_adapter(source, adapter, out=tmp_path / "third.safetensors")
    assert not (tmp_path / "third.safetensors").exists()


def test_folding_refuses_what_does_not_fit() -> None:
    base, adapter = network(), Adapter(*mixed()[0])
    refused(lambda: fold_adapter(3, adapter), "base is int")
    refused(lambda: fold_adapter(base, adapter, weight=np.nan), "weight=nan: give a finite number")
    less = {"layers.0.q_proj.weight": base["layers.0.q_proj.weight"], "layers.1.q_proj.weight": np.ones((2, 2))}
    refused(
        lambda: fold_adapter(less, adapter),
        "it lacks 'layers.1.v_proj.weight'",
        "'layers.1.q_proj.weight' is (2, 2), the adapter's (7, 5)",
    )
    refused(lambda: fold_adapter(base, Adapter(*kind("bias of B"))), "it lacks 'layers.1.q_proj.bias'")
    refused(lambda: fold_adapter(base, Adapter(*kind("head")), weight=0.5), "it lacks 'head.weight'")
    refused(lambda: fold_adapter(base, Adapter(*kind("PiSSA"))), "changed the base", "it cannot be folded")
    narrow = {name: value.astype(np.float16) for name, value in base.items()}
    refused(lambda: fold_adapter(narrow, adapter, weight=1e6), "folded is beyond the range of float16")
    narrow = {name: value.astype(ml_dtypes.bfloat16) for name, value in base.items()}
    refused(lambda: fold_adapter(narrow, adapter, weight=1e39), "folded is beyond the range of bfloat16")
    biases = {f"{module}.bias": np.zeros(2) for module in SHAPES}
    refused(
        lambda: fold_adapter(base | biases, Adapter(*kind("bias of B"))), "q_proj.bias' is (2,), the adapter's (7,)"
    )
    tensors, config = kind("bias")
    refused(
        lambda: fold_adapter({**base, "norm.bias": np.ones(4)}, Adapter(tensors, config)),
        "'norm.bias' is (4,), the adapter's (3,)",
    )
    tensors, config = kind("embedding")
    tensors[P + "embed.lora_magnitude_vector"] = np.ones(4)
    refused(lambda: fold_adapter(base | {"embed.weight": np.ones((9, 4))}, Adapter(tensors, config)), "DoRA on")


ONES = {"l.lora_A.weight": np.ones((1, 2), np.float32), "l.lora_B.weight": np.ones((2, 1), np.float32)}
CODES = np.full((2, 2), 100.0)


@pytest.mark.parametrize(
    "scale",
    [
        "weight_scale",
        "weight_scale_inv",
        "scale_weight",
        "SCB",
        "weight.absmax",
        "weight.scale",
        "scales",
        "weight_zeros",
    ],
)
@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.float8_e4m3fn])
def test_an_update_is_not_added_to_codes(scale: str, dtype: type, tmp_path: Path) -> None:
    base = {"l.weight": CODES.astype(dtype), f"l.{scale}": np.array([0.01], np.float32)}
    safetensors.numpy.save_file({**base, "l.weight": CODES.astype(np.int8)}, tmp_path / "base.safetensors")
    for given in (base, str(tmp_path / "base.safetensors")):
        refused(
            lambda given=given: fold_adapter(given, ONES),
            "base is quantised in a form" if scale == "weight.absmax" else "base is quantised ('l.weight' beside",
        )


def test_an_update_is_not_added_to_packed_codes_of_mlx(tmp_path: Path) -> None:
    names = {"weight": np.zeros((2, 4), np.uint32), "scales": np.ones((2, 1)), "biases": np.ones((2, 1))}
    base = {f"l.{name}": array for name, array in names.items()}
    adapter = {"l.lora_a": np.ones((32, 2)), "l.lora_b": np.ones((2, 2))}
    for dtype in (None, "float32"):
        refused(lambda dtype=dtype: fold_adapter(base, adapter, dtype=dtype), "MLX: packed codes", "mlx_lm.convert")
    refused(lambda: weighted_mean([base, base]), "MLX: packed codes with scales and biases")
    plain = {"l.weight": np.zeros((2, 32)), "l.biases": np.ones(2)}
    assert fold_adapter(plain, adapter)["l.weight"].any()
    assert weighted_mean([plain, plain]).result["l.biases"].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.bool_])
def test_an_update_is_not_added_to_whole_numbers(dtype: type) -> None:
    refused(lambda: fold_adapter({"l.weight": CODES.astype(dtype)}, ONES), "no update can be added")


def test_an_embedding_saved_beside_its_factors_gets_the_update() -> None:
    base = {"l.weight": np.arange(4.0).reshape(2, 2)}
    for saved in (base["l.weight"], base["l.weight"] + 5):
        adapter = {**ONES, "l.base_layer.weight": saved}
        np.testing.assert_array_equal(fold_adapter(base, adapter)["l.weight"], saved + 1)
    both = fold_adapters(base, [{**ONES, "l.base_layer.weight": base["l.weight"]}] * 2)
    np.testing.assert_array_equal(both["l.weight"], base["l.weight"] + 2)


def test_what_was_trained_in_full_is_read_under_each_name_of_it() -> None:
    base = {"l.weight": np.zeros((2, 2)), "head.weight": np.zeros(3)}
    adapter = {
        **ONES,
        "head.original_module.weight": np.zeros(3),
        "head.weight": np.full(3, 7.0),
        "head.modules_to_save.weight": np.full(3, 7.0),
    }
    assert fold_adapter(base, adapter)["head.weight"].tolist() == [7.0] * 3


def test_a_base_saved_beside_factors_is_no_part_of_the_sum() -> None:
    own = np.arange(4.0, dtype=np.float32).reshape(2, 2)
    first = {**ONES, "l.base_layer.weight": own}
    for normalize in (True, False):
        summed = stack_adapters(
            [first, ONES, {**ONES, "l.lora_B.weight": np.zeros((2, 1), np.float32)}], normalize=normalize
        )
        np.testing.assert_array_equal(summed.result["l.base_layer.weight"], own)
        np.testing.assert_allclose(
            fold_adapter({"l.weight": own}, summed.result)["l.weight"], own + (2 / 3 if normalize else 2), rtol=1e-6
        )


def test_a_dora_adapter_without_magnitudes_is_refused() -> None:
    tensors, config = kind("DoRA")
    lost = {name: array for name, array in tensors.items() if "magnitude" not in name}
    refused(lambda: fold_adapter(network(), Adapter(lost, config)), "is a DoRA adapter without the magnitudes of")
    other = Adapter({"l.lora_a": np.ones((2, 1)), "l.lora_b": np.ones((1, 2))}, {"fine_tune_type": "dora"})
    refused(lambda: fold_adapter({"l.weight": np.eye(2)}, other), "is a DoRA adapter without the magnitudes of 'l'")
