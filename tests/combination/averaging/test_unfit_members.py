"""Members of a weighted mean that do not go together, or cannot be: refused by name, with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from float_members import FLOATS, close_members, dtype_of, models, on_disk

import kofn
from kofn.combination import variance_corrected_mean, weighted_mean
from kofn.core.checks import FailureError, InputError

# ---- what is refused


def refused(members: Any, says: str, **options: Any) -> None:
    with pytest.raises(InputError, match=says) as caught:
        weighted_mean(members, **options)
    assert "\n" not in str(caught.value)


def mixed() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    dtypes = (ml_dtypes.bfloat16, np.float16, np.float32)
    return [{"w": rng.normal(size=(5, 3)).astype(dtype), "steps": np.array([4])} for dtype in dtypes]


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("stored", [False, True])
def test_members_of_several_float_dtypes_are_rounded_once(dtype: str | None, stored: bool, tmp_path: Path) -> None:
    members = mixed()
    given: Any = on_disk(tmp_path, members) if stored else members
    out = tmp_path / "out.safetensors" if stored else None
    blend = weighted_mean(given, weights=[1, 2, 3], dtype=dtype, out=out)
    exact = sum(w * m["w"].astype(np.float64) for w, m in zip((1, 2, 3), members, strict=True)) / 6
    got = np.asarray(blend.result["w"])
    assert got.dtype == np.dtype(getattr(ml_dtypes, dtype or "bfloat16", None) or dtype)
    if got.dtype == np.float64:
        np.testing.assert_allclose(got, exact, rtol=1e-14, atol=1e-15)
    else:
        assert got.tobytes() == exact.astype(got.dtype).tobytes()
    assert np.asarray(blend.result["steps"]).tolist() == [4]
    assert any("bfloat16, float16, float32" in line and got.dtype.name in line for line in blend.info["warnings"])


def test_dtype_is_a_float_dtypes_name() -> None:
    members = [{"w": np.ones(3, np.float32)}] * 2
    assert weighted_mean(members, dtype="torch.bfloat16").result["w"].dtype == ml_dtypes.bfloat16
    refused(members, "dtype='float31'; did you mean 'float32'", dtype="float31")
    refused(members, "dtype='int8'.*; give one of bfloat16", dtype="int8")


def test_mismatches_are_listed_all_at_once(tmp_path: Path) -> None:
    first = {f"t{i}": np.zeros(3, np.float32) for i in range(20)}
    second = {**first, "t1": np.zeros(4, np.float32), "t2": np.zeros(3, np.int64), "extra": np.zeros(1)}
    del second["t0"]
    says = (
        r"members do not match in 4 places: member 1 lacks tensor 't0'; "
        r"member 1: tensor 't1' has shape \(4,\), in member 0 \(3,\); "
        r"member 1: tensor 't2' is int64, in member 0 float32; "
        r"member 1 has tensor 'extra', which member 0 lacks; blend"
    )
    refused([first, second], says)
    refused([first, {}], r"20 places: .*'t7'; and 12 more; blend")
    paths = on_disk(tmp_path, [first, second])
    refused(paths, r"4 places: member 1 \(.*1\.safetensors\) lacks tensor 't0'")
    refused([np.zeros(3), np.zeros(1)], r"1 place: member 1: the array has shape \(1,\), in member 0 \(3,\)")
    refused([np.zeros((3, 3)), np.zeros((1, 3))], r"shape \(1, 3\), in member 0 \(3, 3\)")


@pytest.mark.parametrize("name", FLOATS)
def test_nan_and_infinity_are_named(name: str, tmp_path: Path) -> None:
    for bad, says in ((np.nan, "NaN"), (np.inf, "infinite")):
        members = close_members(name, 3, (4, 5))
        members[2][1, 3] = bad
        if np.isfinite(np.abs(members[2][1, 3].astype(np.complex128))):
            continue  # this dtype has no infinity
        kind = says if name not in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz") else "NaN"
        refused(members, rf"member 2: the array at \(1, 3\) is {kind}; leave that member out")
        refused(members, "member 2", weights=[1, 1, 0])
        if "complex128" not in name:
            paths = on_disk(tmp_path, [{"ok": np.zeros(2), "w": member} for member in members])
            refused(paths, rf"member 2 \(.*2\.safetensors\): tensor 'w' at \(1, 3\) is {kind}", out=tmp_path / "o")
            assert not (tmp_path / "o").exists()


def test_overflow_is_named() -> None:
    big = np.array([1.0, 60000.0], np.float16)
    refused(
        [big, big], r"the blend of the array at \(1,\) is beyond the range of float16", weights=[1, 1], normalize=False
    )


def test_integers_that_differ() -> None:
    members = [{"w": np.zeros(2), "ids": np.array([[1, 2], [3, 4 + i]])} for i in range(2)]
    says = r"tensor 'ids' is int64 and differs at \(1, 1\) between member 0 \(4\) and member 1 \(5\); .* cast"
    refused(members, says)
    refused([np.array([True]), np.array([False])], r"the array is bool and differs at \(0,\)")


def test_weights_that_cannot_be() -> None:
    x = [np.zeros(2), np.ones(2)]
    refused(x, "weights sum to 0; relative weights need a positive sum", weights=[1, -1])
    refused(x, "weights sum to 0", weights=[0, 0])
    with pytest.raises(InputError, match=r"need a positive sum$"):  # which has no option normalize
        variance_corrected_mean(x, weights=[1, -1])
    refused(x, "weights sum to -1", weights=[1, -2])
    refused(x, "weights has 3 values", weights=[1, 2, 3])
    refused(x, "NaN", weights=[1, np.nan])
    refused([np.zeros(1)] * 3, "weights sum to", weights=[0.1, 0.2, -0.3])


def test_members_that_cannot_be(tmp_path: Path) -> None:
    refused([], "members is empty")
    refused([{}], "member 0 holds no tensor")
    refused([np.zeros(2), {"a": np.zeros(2)}], "mix plain arrays with mappings")
    refused([{3: np.zeros(2)}], "names are non-empty text")
    refused([["a", "b"]], "dtype <U1; give numbers")
    refused([[[1], [2, 3]]], "ragged")
    refused([np.zeros(2, np.longdouble)], "up to 64 bits")
    refused([str(tmp_path / "nope")], "no such file or folder")
    paths = on_disk(tmp_path, models(2))
    refused(paths, "statistics?=True: the sums of checkpoints", statistic=True)
    refused([np.zeros(2)], "plain arrays have no names", out=tmp_path / "o")
    for out in (paths[1], tmp_path):
        refused(paths, r"is where member \d \(.*\) lies; name another path", out=out)
    refused(paths, "does not exist; create it", out=tmp_path / "no" / "where")
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(FailureError, match=r"1\.safetensors: truncated: tensor"):
        weighted_mean(paths)


def test_names_that_differ_by_a_prefix_are_refused_in_one_clause() -> None:
    plain = {f"layer.{i}.weight": np.ones(2) for i in range(18)}
    for prefix in ("module.", "base.model."):
        wrapped = {prefix + name: value for name, value in plain.items()}
        for members, place in (([plain, wrapped], 1), ([wrapped, plain], 0)):
            with pytest.raises(InputError) as refusal:
                weighted_mean(members)
            assert str(refusal.value) == (
                f"every tensor of member {place} has the prefix {prefix!r}, which member {1 - place} lacks; "
                f"save member {place} without it"
            )


def test_what_wrappers_add_is_named_with_their_prefix() -> None:
    plain = {f"layer.{i}.weight": np.ones(2) for i in range(18)}
    averaged = {"n_averaged": np.array(3), **{f"module.{name}": value for name, value in plain.items()}}
    with pytest.raises(InputError, match=r"prefix 'module\.'.* save member 1 without it and leave out 'n_averaged'"):
        weighted_mean([plain, averaged])
    inner = {name.replace("layer.", "layer._checkpoint_wrapped_module."): value for name, value in plain.items()}
    for members, place in (([plain, inner], 1), ([inner, plain], 0)):
        with pytest.raises(InputError, match=rf"member {place} has names such as 'layer\._checkpoint_wrapped_module"):
            weighted_mean(members)


def test_an_output_named_as_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name a \.safetensors file or a folder"):
        weighted_mean([{"w": np.ones(2)}], out=tmp_path / "blend.pt")
    assert not list(tmp_path.iterdir())


def test_overflow_names_the_dtype_that_holds_the_blend() -> None:
    for name, large, wider in (
        ("float16", 6e4, "float32"),
        ("bfloat16", 3e38, "float64"),
        ("float32", 3e38, "float64"),
    ):
        big = np.array([1.0, large], dtype_of(name))
        more = {"weights": [1, 1], "normalize": False}
        refused([big, big], rf"beyond the range of {name}; .*, or give dtype='{wider}'", **more)
        sums = weighted_mean([big, big], dtype=wider, **more).result
        assert sums.dtype == wider
        assert np.isfinite(sums).all()
    with pytest.raises(InputError) as refusal:
        weighted_mean([np.array([1e308]), np.array([1e308])], weights=[1, 1], normalize=False)
    assert str(refusal.value).endswith("use weights that sum to one")


def test_lists_of_layers_are_told_to_be_named() -> None:
    """Lists of arrays, a layer each, are what Flower passes: neither one ragged array nor silently one stack."""
    layers = [[np.full(3, i), np.full((2, 2), i)] for i in (1.0, 0.0)]
    says = r"member 0 is a list of 2 arrays of unlike shapes \(0 is \(3,\), 1 is \(2, 2\)\); .* enumerate\(layers\)"
    for members in (layers, [tuple(each) for each in layers]):
        with pytest.raises(InputError, match=says):
            kofn.combine(members, weights=[1, 3])
    named = kofn.combine([{str(i): layer for i, layer in enumerate(each)} for each in layers], weights=[1, 3])
    np.testing.assert_allclose(named.result["1"], np.full((2, 2), 0.25))
    alike = kofn.combine([[np.ones(2), np.ones(2)], [np.zeros(2), np.zeros(2)]])
    assert alike.result.shape == (2, 2)
    assert any("lists of 2 arrays of shape (2,), each read as one array" in line for line in alike.info["warnings"])
    for plain in ([[1.0, 2.0], [3.0, 6.0]], [np.ones((2, 2)), np.zeros((2, 2))], [[np.float64(1)], [np.float64(2)]]):
        assert "warnings" not in kofn.combine(plain).info


def test_lists_of_tensors_of_torch_are_layers_too() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="unlike shapes"):
        kofn.combine([[torch.ones(3), torch.zeros(2, 2)], [torch.zeros(3), torch.ones(2, 2)]])
