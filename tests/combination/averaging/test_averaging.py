"""Weighted means against NumPy in float64 and the safetensors package; exactness, memory, files, bad input."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from float_members import FLOATS, close_members, dtype_of, finite_values, models, on_disk
from hypothesis import given, settings
from hypothesis import strategies as st

import kofn
from kofn.combination import fisher_merging, merge_means, slerp, weighted_mean
from kofn.combination._sweep import blockwise as _blockwise
from kofn.core.checks import InputError
from kofn.core.plans import Plan
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint


def same(a: Any, b: Any) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


# ---- what it computes


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    ("weights", "normalize"), [(None, True), ([3, 1, 2], True), ([2, -1, 0.5], True), ([0.4, 2, -1], False)]
)
@pytest.mark.parametrize("keep", [True, False])
def test_agrees_with_float64(name: str, weights: list[float] | None, normalize: bool, keep: bool) -> None:
    members = close_members(name, 3, (5, 7))
    blend = weighted_mean(members, weights=weights, normalize=normalize, statistic=keep)
    wide = np.array([x.astype(np.complex128 if "complex" in name else np.float64) for x in members])
    used = np.ones(3) if weights is None else np.array(weights)
    used = used / used.sum() if normalize else used
    exact = np.tensordot(used, wide, 1)
    rounded = exact.astype(members[0].dtype)
    # The float32 sum may fall on the other side of a rounding boundary, hence one unit in the last place.
    unit = np.abs(exact) * 2.0 ** -{"float8_e5m2": 2, "float8_e5m2fnuz": 2, "float16": 10, "bfloat16": 7}.get(
        name, 3 if "float8" in name else 22 if name in ("float32", "complex64") else 50
    )
    assert blend.result.dtype == members[0].dtype
    assert (np.abs(blend.result.astype(exact.dtype) - rounded.astype(exact.dtype)) <= unit + 2**-9 * 0.02).all()
    if members[0].dtype not in (np.float64, np.complex128):
        assert np.mean(blend.result.astype(exact.dtype) == rounded.astype(exact.dtype)) > 0.9
    spread = [np.linalg.norm((x - blend.result.astype(exact.dtype)).ravel()) for x in wide]
    np.testing.assert_allclose(blend.spread, spread, rtol=1e-6)
    np.testing.assert_allclose(blend.weights, used, rtol=1e-14, atol=1e-15)
    if normalize:
        assert blend.value == pytest.approx(float(used @ np.square(blend.spread)), rel=1e-12)
        assert (blend.sense, blend.status, blend.bound) == ("min", "optimal", blend.value)
    else:
        assert math.isnan(blend.value)
        assert blend.status == "heuristic"


def test_form() -> None:
    x = [np.array([0.0, 0.0]), np.array([0.0, 1.0])]
    for weights, normalize, form in (
        (None, True, "simplex"),
        ([0, 2], True, "simplex"),
        ([3, -1], True, "affine"),
        ([0.3, 0.7], False, "simplex"),
        ([1.5, -0.5], False, "affine"),
        ([1, 1], False, "linear"),
        ([0, 0], False, "linear"),
    ):
        blend = weighted_mean(x, weights=weights, normalize=normalize)
        assert blend.form == form
        assert blend.result[0] == 0
        assert blend.result[1] == pytest.approx(blend.weights[1])


@pytest.mark.parametrize("name", FLOATS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_copies_give_the_copy_bit_for_bit(name: str, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 9))
    low = data.draw(st.sampled_from([0.0, -0.9]))
    weights = np.array(data.draw(st.lists(st.floats(low, 1.0), min_size=m, max_size=m)))
    if weights.sum() < 0.05:
        weights = weights - weights.min() + 0.01
    copy = finite_values(name, 500, data.draw(st.integers(0, 99)))
    blend = weighted_mean([copy] * m, weights=weights, statistic=data.draw(st.booleans()))
    assert same(blend.result, copy)
    assert (blend.spread == 0).all()
    assert blend.value == 0


@pytest.mark.parametrize("m", [700, 5000])
def test_many_copies(m: int) -> None:
    copy = finite_values("float16", 200, 3)
    weights = np.random.default_rng(0).random(m)
    assert same(weighted_mean([copy] * m, weights=weights, statistic=False).result, copy)


@pytest.mark.parametrize("name", FLOATS[:8])
@given(seed=st.integers(0, 999), m=st.integers(2, 6), keep=st.booleans())
@settings(deadline=None, max_examples=25)
def test_a_simplex_blend_stays_in_the_box(name: str, seed: int, m: int, keep: bool) -> None:
    members = [finite_values(name, 300, seed + i)[:100] for i in range(m)]
    wide = np.array([x.astype(np.float64) for x in members])
    blend = weighted_mean(members, weights=np.random.default_rng(seed).random(m) + 1e-3, statistic=keep)
    result = blend.result.astype(np.float64)
    assert (wide.min(axis=0) <= result).all()
    assert (result <= wide.max(axis=0)).all()


@pytest.mark.parametrize("name", FLOATS)
def test_all_the_weight_on_one_gives_that_one(name: str) -> None:
    members = [finite_values(name, 400, seed)[:200] for seed in (1, 2, 3)]
    for keep in (True, False):
        assert same(weighted_mean(members, weights=[0, 5, 0], statistic=keep).result, members[1])


@given(shift=st.integers(-8, 8), scale=st.integers(-8, 8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_affine_and_linear_identities(shift: int, scale: int, seed: int) -> None:
    members = np.random.default_rng(seed).normal(size=(3, 4, 5))
    for weights, normalize in (([1, 2, 3], True), ([2, -2, 1], True), ([0.2, 3, -1], False)):
        plain = weighted_mean(members, weights=weights, normalize=normalize)
        moved = weighted_mean(members + shift, weights=weights, normalize=normalize)
        scaled = weighted_mean(members * scale, weights=weights, normalize=normalize)
        total = 1 if normalize else sum(weights)
        np.testing.assert_allclose(moved.result, plain.result + shift * total, atol=1e-12)
        np.testing.assert_allclose(scaled.result, plain.result * scale, atol=1e-12)
        np.testing.assert_allclose(scaled.spread, plain.spread * abs(scale), atol=1e-12)


def test_no_representable_tensor_is_better() -> None:
    """`optimal` is meant among tensors of the dtype: neither neighbour of any coordinate lowers the objective."""
    members = close_members("float16", 4, (300,))
    blend = weighted_mean(members, weights=[1, 2, 3, 4], statistic=False)
    wide = np.array([x.astype(np.float64) for x in members])

    def cost(y: np.ndarray) -> np.ndarray:
        return blend.weights @ np.square(wide - y.astype(np.float64))

    for direction in (-np.inf, np.inf):
        neighbour = np.nextafter(blend.result, np.float16(direction))
        assert (cost(neighbour) >= cost(blend.result) * (1 - 1e-6)).all()


@pytest.mark.parametrize(("name", "size"), [("bfloat16", 1e-30), ("bfloat16", 1e30), ("float64", 1e-140)])
def test_distances_neither_overflow_nor_vanish(name: str, size: float) -> None:
    members = [(x * size).astype(dtype_of(name)) for x in close_members("float64", 2, (50,))]
    blend = weighted_mean(members, statistic=False)
    wide = [x.astype(np.float64) - blend.result.astype(np.float64) for x in members]
    np.testing.assert_allclose(blend.spread, [np.linalg.norm(x / size) * size for x in wide], rtol=1e-6)
    far = [np.full(3, 3e38).astype(ml_dtypes.bfloat16), np.full(3, -3e38).astype(ml_dtypes.bfloat16)]
    assert weighted_mean(far, statistic=False).spread == pytest.approx([3e38 * 3**0.5] * 2, rel=1e-2)


# ---- merging


@given(data=st.data(), named=st.booleans())
@settings(deadline=None, max_examples=40)
def test_statistics_merge_over_any_partition(data: st.DataObject, named: bool) -> None:
    m = data.draw(st.integers(2, 7))
    name = data.draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    arrays = close_members(name, m, (6,), data.draw(st.integers(0, 99)))
    weights = np.array(data.draw(st.lists(st.integers(1, 9), min_size=m, max_size=m)), float)
    members: list[Any] = [{"w": x, "n": np.arange(2)} for x in arrays] if named else arrays
    whole = weighted_mean(members, weights=weights, statistic=True).statistic
    label = np.array(data.draw(st.lists(st.integers(0, 2), min_size=m, max_size=m)))
    parts = [
        weighted_mean([members[i] for i in group], weights=weights[group], statistic=True).statistic
        for group in (np.flatnonzero(label == part) for part in data.draw(st.permutations(range(3))))
        if len(group)
    ]
    merged = merge_means(parts[0], merge_means(*parts[1:])) if len(parts) > 1 else merge_means(*parts)
    assert merged["weight"] == pytest.approx(whole["weight"])
    for a, b in [(merged["sum"][k], whole["sum"][k]) for k in ("w", "n")] if named else [(merged["sum"], whole["sum"])]:
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    exact = np.average([x.astype(float) for x in arrays], axis=0, weights=weights)
    total = whole["sum"]["w"] if named else whole["sum"]
    np.testing.assert_allclose(total / whole["weight"], exact, rtol=1e-12, atol=1e-14)


def test_the_mean_of_means_is_another_thing() -> None:
    x = [np.array([0.0]), np.array([0.0]), np.array([9.0])]
    naive = weighted_mean([weighted_mean(x[:2]).result, weighted_mean(x[2:]).result]).result
    merged = merge_means(weighted_mean(x[:2]).statistic, weighted_mean(x[2:]).statistic)
    assert merged["sum"] / merged["weight"] == 3.0
    assert naive[0] == 4.5


def test_merging_refuses_what_does_not_fit() -> None:
    one = weighted_mean([np.zeros(2)]).statistic
    two = weighted_mean([np.zeros(3)]).statistic
    with pytest.raises(InputError, match=r"statistic 1 has shape \(3,\), statistic 0 \(2,\)"):
        merge_means(one, two)
    named = [weighted_mean([{name: np.zeros(2)}], statistic=True).statistic for name in "ab"]
    with pytest.raises(InputError, match="do not both hold 'a'"):
        merge_means(*named)
    with pytest.raises(InputError, match="empty"):
        merge_means()


@pytest.mark.parametrize(("method", "bytes_of_sums"), [(weighted_mean, 8), (fisher_merging, 16)])
def test_sums_that_a_limit_has_no_room_for_are_not_kept(method: Any, bytes_of_sums: int) -> None:
    n = 40_000
    members = list(np.random.default_rng(0).normal(size=(3, n)))
    words: dict[str, Any] = {"fisher": [np.ones(n)] * 3} if method is fisher_merging else {}
    needed, free = bytes_of_sums * n, method(members, **words)
    for limit, kept in ((2 * needed, True), (2 * needed - 2, False)):
        plan = method(members, **words, max_memory=limit)
        assert same(plan.result, free.result)
        assert (plan.statistic is not None) == kept
        if kept:
            assert all(np.array_equal(plan.statistic[name], free.statistic[name]) for name in free.statistic)
    assert method([member[:100] for member in members], **{"fisher": [np.ones(100)] * 3} if words else {}).statistic


def test_sums_that_were_asked_for_are_kept_or_refused() -> None:
    members = list(np.zeros((2, 40_000)))
    with pytest.raises(InputError, match=r"needs about 320,000 bytes .* max_memory=500000"):
        weighted_mean(members, statistic=True, max_memory=500_000)


def test_linear_statistics_take_the_weights_as_they_are() -> None:
    blend = weighted_mean([np.ones(2), np.ones(2)], weights=[3, 1], normalize=False)
    assert blend.statistic["sum"].tolist() == [4, 4]
    assert blend.statistic["weight"] == 4


# ---- mappings, torch, files


def test_mappings() -> None:
    members = models(3)
    blend = weighted_mean(members, weights=[1, 2, 3])
    assert list(blend.result) == list(members[0])
    assert blend.statistic is None
    squares = np.zeros(3)
    for name in members[0]:
        column = [member[name] for member in members]
        assert blend.result[name].dtype == column[0].dtype
        assert blend.result[name].shape == column[0].shape
        if name in ("ids", "mask", "scale"):
            assert same(blend.result[name], column[0])
        elif column[0].size:
            alone = weighted_mean(column, weights=[1, 2, 3])
            assert same(blend.result[name], alone.result)
            squares += alone.spread**2
    np.testing.assert_allclose(blend.spread, np.sqrt(squares), rtol=1e-12)
    assert blend.info["tensors"] == len(members[0])


def test_torch_state_dicts() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).bfloat16() for _ in range(2)]
    states = [net.state_dict() for net in nets]
    blend = weighted_mean(states)
    for name, tensor in blend.result.items():
        mean = sum(state[name].double() for state in states) / 2
        assert tensor.dtype == states[0][name].dtype
        assert torch.equal(mean.to(tensor.dtype), tensor)
    assert weighted_mean([torch.ones(2), torch.zeros(2)]).result.tolist() == [0.5, 0.5]


def test_members_that_lie_oddly_in_memory() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 8))
    expected = weighted_mean([base[::2].T.copy(), base[1::2].T.copy()])
    assert same(weighted_mean([base[::2].T, base[1::2].T]).result, expected.result)
    swapped = weighted_mean([base[::2].T.astype(">f8"), base[1::2].T.astype(">f8")])
    assert same(swapped.result, expected.result)
    assert weighted_mean([[1, 2], [3, 5]]).result.tolist() == [2.0, 3.5]
    assert weighted_mean(np.arange(6.0).reshape(3, 2)).result.tolist() == [2.0, 3.0]
    assert weighted_mean([1.0, 4.0], weights=[2, 1]).result == 2.0


def test_files_and_mappings_agree(tmp_path: Path) -> None:
    members = models(3)
    paths = on_disk(tmp_path, members)
    held = weighted_mean(members, weights=[1, 2, 3])
    lazy = weighted_mean(paths, weights=[1, 2, 3])
    written = weighted_mean([str(path) for path in paths], weights=[1, 2, 3], out=tmp_path / "out")
    single = weighted_mean([Checkpoint.open(path) for path in paths], weights=[1, 2, 3], out=tmp_path / "o.safetensors")
    stored = weighted_mean(members, weights=[1, 2, 3], out=tmp_path / "m.safetensors")
    assert set(lazy.result) == set(held.result)
    for blend in (lazy, written, single, stored):
        assert all(same(blend.result[name], held.result[name]) for name in held.result)
        assert blend.spread == pytest.approx(held.spread, rel=1e-12)
        assert blend.value == pytest.approx(held.value, rel=1e-12)
    theirs = safetensors.deserialize((tmp_path / "out" / "model.safetensors").read_bytes())
    assert {name: bytes(item["data"]) for name, item in theirs} == {n: a.tobytes() for n, a in held.result.items()}
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "o.safetensors").read_bytes()


def test_copies_of_a_sharded_checkpoint_give_its_files(tmp_path: Path) -> None:
    shards = {
        "model-00001-of-00002.safetensors": {"a": finite_values("bfloat16", 30, 0).reshape(5, 6)},
        "model-00002-of-00002.safetensors": {"b": finite_values("float16", 8, 1), "c": np.arange(3)},
    }
    source = tmp_path / "source"
    source.mkdir()
    for name, arrays in shards.items():
        safetensors.numpy.save_file(arrays, source / name, {"format": "pt"})
    index = {"metadata": {"total_size": 100}, "weight_map": {t: name for name, held in shards.items() for t in held}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    by_index = source / "model.safetensors.index.json"
    weighted_mean([by_index, source, source], weights=[0.2, 0.5, 0.3], out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in source.iterdir())
    for path in source.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_torch_reads_the_output(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    states = [{"w": torch.full((2, 2), float(i), dtype=torch.bfloat16)} for i in (1, 2)]
    for place, state in enumerate(states):
        save_file(state, tmp_path / f"{place}.safetensors")
    weighted_mean([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], out=tmp_path / "o.safetensors")
    got = load_file(tmp_path / "o.safetensors")["w"]
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_plans_are_saved_and_loaded(tmp_path: Path) -> None:
    paths = on_disk(tmp_path, models(2))
    for blend in (
        weighted_mean(models(2), weights=[1, 3]),
        weighted_mean(paths, weights=[1, 3], out=tmp_path / "out"),
        weighted_mean([np.arange(3.0), np.ones(3)]),
    ):
        loaded = Plan.load(blend.save(tmp_path / "plan.npz"))
        assert loaded.equals(blend)
        assert blend.equals(loaded)


def test_the_verb() -> None:
    blend = kofn.combine([np.array([1.0, 2.0]), np.array([3.0, 6.0])], weights=[3, 1])
    assert blend.method == "weighted_mean"
    assert blend.result.tolist() == [1.5, 3.0]
    with pytest.raises(InputError, match="no option 'trim'"):
        kofn.combine([[1.0], [2.0]], method="weighted_mean", options={"trim": 1})


# ---- threads and memory


def test_threads_and_blocks_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [{"a": x, "b": y} for x, y in zip(close_members("bfloat16", 3, (70_001,)), models(3), strict=True)]
    members = [{"a": member["a"], **{f"b.{name}": array for name, array in member["b"].items()}} for member in members]
    paths = on_disk(tmp_path, members)
    monkeypatch.setattr(_blockwise, "_THREADED", 0)
    monkeypatch.setattr(_blockwise, "_TASK", 10_000)
    blends = [weighted_mean(paths, n_threads=count, max_memory="1MB") for count in (1, 2, 4)]
    for blend in blends[1:]:
        assert blend.equals(blends[0])
    small = weighted_mean(paths, n_threads=2, max_memory=30_000)
    assert all(same(small.result[name], blends[0].result[name]) for name in small.result)
    assert small.spread == pytest.approx(blends[0].spread, rel=1e-12)
    with pytest.raises(InputError, match=r"max_memory=100 is too little for 3 members; give at least \d+"):
        weighted_mean(paths, max_memory=100)


def test_memory_is_the_blocks_and_not_the_models(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in range(3):
        array = rng.normal(size=8_000_000).astype(np.float32).astype(ml_dtypes.bfloat16)
        write_arrays(tmp_path / f"{place}.safetensors", {"w": array})
        del array
    paths = [tmp_path / f"{place}.safetensors" for place in range(3)]
    tracemalloc.start()
    weighted_mean(paths, out=tmp_path / "out", max_memory="4MB", n_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000  # one tensor has 16 MB


def test_the_largest_number_of_bytes_is_read_once(tmp_path: Path) -> None:
    paths = on_disk(tmp_path, models(2))
    info = weighted_mean(paths).info
    assert info["bytes_read"] == 2 * sum(array.nbytes for array in models(1)[0].values())
    assert info["elements"] == sum(array.size for array in models(1)[0].values())


def test_opposite_tensors_are_counted_where_slerp_has_no_arc(tmp_path: Path) -> None:
    w, other = np.array([1.0, -2.0, 3.0]), np.array([2.0, 1.0, 0.5])
    one = {"a": w, "b": 2 * w, "c": w, "same": w, "scalar": np.array([2.0]), "zero": np.zeros(3)}
    two = {"a": -w, "b": -w, "c": other, "same": 3 * w, "scalar": np.array([-2.0]), "zero": w}
    for members in ([one, two], on_disk(tmp_path, [one, two])):
        blend = slerp(members)
        (line,) = blend.info["warnings"]
        assert line.startswith("2 tensors are opposite in the two members (cosine -1)")
        np.testing.assert_array_equal(blend.result["a"], np.zeros(3))
    assert slerp([w, -w]).info["warnings"][0].startswith("1 tensor is opposite")
    assert (
        "warnings"
        not in slerp([{"c": w, "same": w, "scalar": np.ones(1)}, {"c": other, "same": w, "scalar": -np.ones(1)}]).info
    )
