"""Task vectors, spheres, precisions, layers: against sorting and float64; copies bit for bit; killed runs go on."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kofn
from kofn.combination import layer_changes, measures_by_layer, merge_means, task_arithmetic, ties, weighted_mean
from kofn.combination._sweep import blockwise as _blockwise
from kofn.combination._sweep import quantiles
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

DTYPES = [np.dtype(name) for name in ("float16", "float32", "float64")] + [
    np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
]


def drawn(count: int, shape: tuple[int, ...] = (40, 30), dtype: Any = np.float64, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for _ in range(count)]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


COPIES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "weighted_mean": (3, {"weights": [0.5, 0.3, 0.2]}, {}),
    "task_arithmetic": (3, {"weights": [2.0, -0.7, 1.0]}, {}),
    "ties": (3, {"weights": [0.5, 0.3, 0.2]}, {"density": 1.0}),
    "dare": (3, {}, {"density": 1.0}),
    "slerp": (2, {"weights": [0.3, 0.7]}, {}),
    "variance_corrected_mean": (3, {"weights": [0.5, 0.3, 0.2]}, {}),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", COPIES)
def test_copies_give_the_copy_bit_for_bit(name: str, dtype: np.dtype[Any]) -> None:
    count, given, options = COPIES[name]
    base, member = drawn(2, (300,), dtype)
    member[:2] = 0.0, -0.0
    member[2] = np.array(1e-3).astype(dtype)
    base[2] = np.array(100.0).astype(dtype)  # the copy is small beside the base
    if name in ("task_arithmetic", "ties", "dare"):
        given = {**given, "base": base}
    assert same_bits(kofn.combine([member] * count, method=name, options=options, **given).result, member)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_give_the_copy_whatever_the_precisions(dtype: np.dtype[Any]) -> None:
    member, rng = drawn(1, (300,), dtype)[0], np.random.default_rng(1)
    fisher = [10.0 ** rng.integers(-12, 9, 300) * rng.integers(0, 2, 300) for _ in range(3)]
    assert same_bits(kofn.combine([member] * 3, method="fisher_merging", options={"fisher": fisher}).result, member)


def naive_ties(members: list[np.ndarray], base: np.ndarray, weights: Any, density: float) -> np.ndarray:
    deltas = []
    for member in members:
        delta = member - base
        least = np.sort(np.abs(delta).ravel())[::-1][int(np.ceil(density * delta.size)) - 1]
        deltas.append(np.where(np.abs(delta) >= least, delta, 0.0))
    sign = np.sign(sum(w * d for w, d in zip(weights, deltas, strict=True)))
    agrees = [np.sign(d) * sign > 0 for d in deltas]
    total = sum(w * d * a for w, d, a in zip(weights, deltas, agrees, strict=True))
    heard = sum(w * a for w, a in zip(weights, agrees, strict=True))
    return base + np.divide(total, heard, out=np.zeros_like(base), where=heard > 0)


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(7,), (200, 110)])  # the larger takes the compiled loops
def test_ties_is_what_sorting_gives(density: float, shape: tuple[int, ...]) -> None:
    # Changes in steps that float32 holds: magnitudes tie, and no rounding decides.
    rng = np.random.default_rng(3)
    base = rng.integers(-9, 9, shape).astype(np.float64)
    members = [base + rng.integers(-50, 50, shape) / 8 for _ in range(3)]
    got = kofn.combine(members, base=base, weights=[2, 1, 1], method="ties", options={"density": density})
    np.testing.assert_allclose(got.result, naive_ties(members, base, [0.5, 0.25, 0.25], density), rtol=1e-12)


@pytest.mark.parametrize("size", [12, 1 << 15])  # below and above what is worth a compiled loop
@pytest.mark.parametrize("unit", [1.2, 1e-300, 5e-324, 3e38, 1e150])
@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_ties_of_float64_tells_neighbouring_numbers_apart(size: int, unit: float, scope: str) -> None:
    # Steps of one bit: float32 holds all of them as one number, as zero or as infinite.
    steps = np.random.default_rng(size).permutation(size)
    changes = (np.array([unit]).view(np.int64) + steps).view(np.float64) * (-1.0) ** steps
    got = kofn.combine([changes], base=np.zeros(size), method="ties", density=0.25, scope=scope).result
    np.testing.assert_array_equal(got, np.where(steps >= size - size // 4, changes, 0.0))


def test_ties_of_few_float64_tensors_decides_those_of_other_dtypes_alike() -> None:
    members = [{"w": np.float32([1, -2, 3, 4]), "v": np.array([1.0, 2.0, 3.0, 4.0])} for _ in range(2)]
    base = {name: np.zeros_like(tensor) for name, tensor in members[0].items()}
    got = kofn.combine(members, base=base, method="ties", density=0.5).result
    assert got["w"].tolist() == got["v"].tolist() == [0, 0, 3, 4]


def test_ties_trims_a_whole_model_where_asked() -> None:
    small, large = drawn(2, (50,))
    base = {"a": np.zeros(50), "b": np.zeros(50)}
    member = {"a": 0.01 * small, "b": large}
    got = kofn.combine([member], base=base, method="ties", options={"density": 0.5, "scope": "model"}).result
    assert (np.count_nonzero(got["a"]), np.count_nonzero(got["b"])) == (1, 49)
    kept = kofn.combine([member], base=base, method="ties", options={"density": 0.5}).result
    assert (np.count_nonzero(kept["a"]), np.count_nonzero(kept["b"])) == (25, 25)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("size", [40, 1 << 15])  # below and above what is worth a compiled loop
@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(ml_dtypes.bfloat16)], ids=str)
def test_the_elected_sign_does_not_depend_on_the_order(dtype: np.dtype[Any], size: int, device: str | None) -> None:
    if device is not None:
        pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    # The large changes cancel, and the small one, which is below their rounding, decides.
    scale = float(ml_dtypes.finfo(dtype).eps) if dtype.itemsize == 2 else 1e-17
    large = rng.normal(size=size).astype(dtype)
    small = (large.astype(np.float64) * scale * rng.normal(size=size) * 1e-3).astype(dtype)
    members = [large, small, -large]
    base = np.zeros(size, dtype)
    want = np.sign([math.fsum(column) for column in np.array(members, np.float64).T.tolist()])
    ways = [
        ties([members[i] for i in order], base=base, density=1.0, device=device).result.astype(np.float64)
        for order in itertools.permutations(range(3))
    ]
    for got in ways:
        np.testing.assert_array_equal(np.sign(got), want)


@pytest.mark.parametrize("count", [1, 5, 40_000])
def test_order_statistics_are_those_of_a_sort(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(np.float32).round(2)
    for magnitudes, keyed in ((False, quantiles.keys(values)), (True, quantiles.magnitude_keys(values))):
        ordered = np.sort(np.abs(values) if magnitudes else values)
        for rank in {0, count // 3, count - 1}:
            upper, left = quantiles.locate(quantiles.coarse(keyed), rank)
            lower, _ = quantiles.locate(quantiles.fine(keyed, upper), left)
            assert quantiles.value_of((upper << 16) | lower, magnitudes=magnitudes) == ordered[rank]


def test_dare_is_unbiased_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base, *members = drawn(3, (400,))
    target = kofn.combine(members, base=base, method="task_arithmetic", options={"scale": 0.7}).result
    runs = [
        kofn.combine(members, base=base, method="dare", seed=seed, options={"density": 0.4, "scale": 0.7}).result
        for seed in range(400)
    ]
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    assert np.abs((np.mean(runs, axis=0) - target) / error).max() < 5
    monkeypatch.setattr(_blockwise, "_BLOCK", 257)
    again = kofn.combine(members, base=base, method="dare", seed=7, options={"density": 0.4, "scale": 0.7}).result
    assert same_bits(again, runs[7])


def naive_pcb(members: list[np.ndarray], base: np.ndarray, density: float) -> np.ndarray:
    deltas = np.array([(member - base).ravel() for member in members])
    d = deltas.shape[1]
    sizes = np.sort(np.abs(deltas), axis=1)
    low, high = sizes[:, [int(d * 1e-4)]], sizes[:, [d - 1 - int(d * 1e-4)]]
    clipped = np.clip(np.abs(deltas), low, high)
    score = np.exp(len(members) * ((clipped - low) / (high - low)) ** 2) * np.tanh(deltas * deltas.sum(axis=0))
    least = np.sort(score, axis=1)[:, [int(d * (1 - density))]]
    top = score.max(axis=1, keepdims=True)
    share = (np.maximum(score, least) - least) / (top - least)
    return base + (((np.sign(deltas) * clipped * share).sum(axis=0)) / np.maximum(share.sum(axis=0), 1e-12)).reshape(
        base.shape
    )


@pytest.mark.parametrize("shape", [(30,), (220, 100)])
def test_pcb_merging_is_what_sorting_gives(shape: tuple[int, ...]) -> None:
    base, *members = drawn(4, shape, np.float32)
    wide = [member.astype(np.float64) for member in members]
    got = kofn.combine(members, base=base, method="pcb_merging", options={"density": 0.3}).result
    want = naive_pcb(wide, base.astype(np.float64), 0.3)
    # An order statistic of float32 scores moves the shares by that precision.
    assert np.quantile(np.abs(got - want), 0.99) < 1e-5
    alone = kofn.combine(members[:1], base=base, method="pcb_merging", options={"density": 1.0}).result
    assert np.mean(np.isclose(alone, members[0], rtol=1e-5)) > 0.95


def test_slerp_goes_along_the_arc() -> None:
    a, b = drawn(2, (500,))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    got = kofn.combine([a, b], weights=[0.75, 0.25], method="slerp").result
    theta = np.arccos(a @ b / (a @ a))
    assert np.isclose(np.linalg.norm(got), np.linalg.norm(a))
    assert np.isclose(np.arccos(got @ a / (a @ a)), 0.25 * theta)
    opposite = kofn.combine([a, -a], weights=[0.75, 0.25], method="slerp").result
    np.testing.assert_allclose(opposite, 0.5 * a)


def test_fisher_merging_of_shards_is_the_pooled_regression() -> None:
    # With a diagonal design the Fisher information is diagonal, and the mode of the product is the pooled solution.
    rng = np.random.default_rng(0)
    true = rng.normal(size=20)
    fits, fisher, top, bottom = [], [], np.zeros(20), np.zeros(20)
    for _ in range(4):
        scale = rng.uniform(0.01, 10, 20)
        seen = true + rng.normal(size=20) / scale
        fits.append(seen)
        fisher.append(scale**2)
        top, bottom = top + scale**2 * seen, bottom + scale**2
    blend = kofn.combine(fits, method="fisher_merging", options={"fisher": fisher})
    np.testing.assert_allclose(blend.result, top / bottom, rtol=1e-10)
    plain = kofn.combine(fits).result
    assert np.square(blend.result - true).sum() < np.square(plain - true).sum()
    halves = [
        kofn.combine(fits[s], method="fisher_merging", options={"fisher": fisher[s]}, weights=np.ones(2)).statistic
        for s in (slice(0, 2), slice(2, 4))
    ]
    total, heard = (sum(half[name] for half in halves) for name in ("sum", "precision"))
    np.testing.assert_allclose(total / heard, blend.result, rtol=1e-12)


def test_fisher_merging_balances_and_fills() -> None:
    a, b = np.zeros(3), np.ones(3)
    loud = [np.full(3, 1e6), np.ones(3)]
    mean = kofn.combine([a, b], method="fisher_merging", options={"fisher": loud, "balance": True}).result
    np.testing.assert_allclose(mean, 0.5)
    silent = [np.array([1.0, 0, 0]), np.array([1.0, 1, 0])]
    filled = kofn.combine([a, b], method="fisher_merging", options={"fisher": silent}).result
    np.testing.assert_allclose(filled, [0.5, 1.0, 0.5])


@pytest.mark.parametrize(
    ("fisher", "says"),
    [
        ([np.ones(2)], "fisher has 1 diagonals for 2 members"),
        ([np.ones(3)] * 2, "has shape (3,), in the members (2,)"),
        ([np.ones(2), np.array([1.0, -1.0])], "fisher of member 1: '' at (1,) is -1; give finite values >= 0"),
        ([np.ones(2), np.array([np.nan, 1.0])], "at (0,) is nan"),
    ],
)
def test_bad_precisions_are_refused(fisher: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        kofn.combine([np.zeros(2), np.ones(2)], method="fisher_merging", options={"fisher": fisher})
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["ties", "pcb_merging", "slerp", "fisher_merging", "variance_corrected_mean"])
def test_votes_cannot_be_negative(name: str) -> None:
    options = {"fisher": [np.ones(2)] * 2} if name == "fisher_merging" else {}
    given = {"base": np.zeros(2)} if name in ("ties", "pcb_merging") else {}
    with pytest.raises(InputError, match="weights"):
        kofn.combine([np.ones(2), np.ones(2)], weights=[2, -1], method=name, options=options, **given)


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("ties", {"density": 0}, "density=0 keeps nothing"),
        ("ties", {"density": 1.5}, "density"),
        ("ties", {"scope": "layer"}, "scope"),
        ("dare", {"consensus": "vote"}, "consensus"),
        ("ties", {"only": "x*"}, "only='x*' matches no tensor"),
        ("ties", {"skip": ["w"]}, "leave no tensor to blend"),
        ("ties", {"only": []}, "only=[]: give patterns"),
    ],
)
def test_bad_options_are_refused(method: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        kofn.combine([{"w": np.ones(2)}], base={"w": np.zeros(2)}, method=method, options=options)
    assert says in str(caught.value)


def test_variance_is_given_back_and_correlated_members_are_left() -> None:
    members = drawn(8, (4000,))
    blend = kofn.combine(members, method="variance_corrected_mean").result
    assert np.isclose(blend.var(), np.mean([member.var() for member in members]))
    assert np.isclose(blend.mean(), np.mean(members))
    near = [members[0] + 0.01 * member for member in members[1:]]
    np.testing.assert_allclose(
        kofn.combine(near, method="variance_corrected_mean").result, np.mean(near, axis=0), atol=1e-3
    )


def test_layers_are_swapped_where_the_experts_changed() -> None:
    rng = np.random.default_rng(0)
    names = ["embed.weight", *(f"layers.{at}.w" for at in range(8)), "norm.weight", "head.weight"]
    base = {name: rng.normal(size=20) for name in names}
    task, other = ({name: value.copy() for name, value in base.items()} for _ in range(2))
    for at in range(8):
        task[f"layers.{at}.w"] += rng.normal(size=20) * (1.0 if 2 <= at < 5 else 0.1)
        other[f"layers.{at}.w"] += rng.normal(size=20) * (0.1 if 2 <= at < 5 else 1.0)
    blend = kofn.combine([task, other], base=base, method="layer_swap")
    assert (blend.info["bottom"], blend.info["top"], blend.info["layers"]) == (2, 3, 8)
    for at in range(8):
        assert same_bits(blend.result[f"layers.{at}.w"], (task if 2 <= at < 5 else other)[f"layers.{at}.w"])
    assert same_bits(blend.result["embed.weight"], other["embed.weight"])
    assert same_bits(blend.result["head.weight"], other["head.weight"])
    mixed = kofn.combine([task, other], method="layer_swap", options={"bottom": 2, "top": 3, "transition": 1})
    assert mixed.weights["layers.2.w"].tolist() == mixed.weights["layers.4.w"].tolist() == [0.5, 0.5]
    assert mixed.weights["layers.3.w"].tolist() == [1.0, 0.0]
    bottom = kofn.combine([task, other], method="layer_swap", options={"bottom": 2, "top": 0}).result
    assert same_bits(bottom["embed.weight"], other["embed.weight"])
    assert same_bits(bottom["head.weight"], task["head.weight"])
    top = kofn.combine([task, other], method="layer_swap", options={"bottom": 0, "top": 1}).result
    assert same_bits(top["embed.weight"], task["embed.weight"])
    assert same_bits(top["head.weight"], other["head.weight"])
    shares = layer_changes([task, other], base)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for options, says in (
        ({"bottom": 5, "top": 4}, "bottom=5 and top=4 are more than the 8 layers"),
        ({}, "needs base to find the cut"),
    ):
        with pytest.raises(InputError, match=says):
            kofn.combine([task, other], method="layer_swap", options=options)


def test_what_is_left_out_is_copied_and_need_not_match() -> None:
    base = {"embed": np.zeros((4, 2)), "w": np.zeros(3)}
    a = {"embed": np.ones((5, 2)), "w": np.full(3, 2.0)}
    b = {"embed": np.ones((4, 2)), "w": np.full(3, 4.0)}
    with pytest.raises(InputError, match=r"\(1 row fewer: another vocabulary\?\).*leave these tensors out with skip"):
        weighted_mean([a, b])
    assert weighted_mean([a, b], skip="embed").result["embed"].shape == (5, 2)
    kept = kofn.combine([a, b], base=base, method="task_arithmetic", options={"skip": ["emb*"], "scale": 0.5})
    assert same_bits(kept.result["embed"], base["embed"])
    np.testing.assert_allclose(kept.result["w"], 1.5)
    assert kept.info["copied"] == ["embed"]


def test_nonfinite_values_are_skipped_where_asked() -> None:
    a, b, c = np.array([1.0, np.nan, 3.0]), np.array([3.0, 4.0, np.inf]), np.array([5.0, 8.0, 6.0])
    blend = weighted_mean([a, b, c], weights=[2, 1, 1], skip_nonfinite=True)
    np.testing.assert_allclose(blend.result, [2.5, 6.0, 4.0])
    assert blend.info["nonfinite"] == [1, 1, 0]
    based = kofn.combine([a, b], base=np.zeros(3), method="ties", options={"density": 1.0, "skip_nonfinite": True})
    np.testing.assert_allclose(based.result, [2.0, 4.0, 3.0])
    with pytest.raises(InputError, match=r"at \(0,\) is finite in no member"):
        weighted_mean([np.array([np.nan])] * 2, skip_nonfinite=True)
    with pytest.raises(InputError, match=r"member 0: the array at \(1,\) is NaN"):
        weighted_mean([a, b])


def test_measures_say_what_each_tensor_lost() -> None:
    base = {"w": np.zeros(1000), "v": np.zeros(10)}
    x, y = drawn(2, (1000,))
    members = [{"w": x, "v": np.ones(10)}, {"w": y, "v": np.ones(10)}]
    blend = kofn.combine(members, base=base, method="task_arithmetic", options={"measure": True})
    seen = blend.info["measures"]["w"]
    np.testing.assert_allclose(seen["cosine"][0, 1], x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    np.testing.assert_allclose(seen["kept"], ((x + y) / 2).var() / ((x.var() + y.var()) / 2))
    agreeing = np.mean(np.sign(x) == np.sign(y))
    np.testing.assert_allclose(seen["agreement"], agreeing + (1 - agreeing) / 2)
    np.testing.assert_allclose(seen["distance"], np.linalg.norm((x - y) / 2))
    length = np.linalg.norm((x + y) / 2) / np.sqrt((x @ x + y @ y) / 2)
    np.testing.assert_allclose(seen["length"], length)
    flat = blend.info["measures"]["v"]
    np.testing.assert_allclose([flat["kept"], flat["agreement"], flat["cosine"][0, 1], flat["length"]], 1)
    assert blend.info["base"] == "in memory"
    assert blend.info["dtype"] == "float64"


def test_measures_are_grouped_by_the_names_there_are() -> None:
    def layers(*names: str) -> list[int | str]:
        members = [{name: np.ones(2) for name in names}, {name: np.zeros(2) for name in names}]
        return [row["layer"] for row in measures_by_layer(weighted_mean(members, measure=True).info["measures"])]

    assert layers("norm.w", "model.layers.10.w", "model.layers.2.w", "embed.w") == ["before", 2, 10, "after"]
    assert layers("2.bias", "0.weight", "2.weight") == [0, 2]
    assert layers("bn1.weight", "conv1.weight", "conv1.bias", "alone") == ["bn1", "conv1", "alone"]
    assert layers("encoder.block.0.w", "decoder.block.0.w", "decoder.block.1.w", "lm_head.w") == [
        "encoder.block.0",
        "decoder.block.0",
        "decoder.block.1",
        "after",
    ]


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_variance_below_zero_is_named(on_disk: bool, tmp_path: Path) -> None:
    base = {"bn.running_var": np.full(3, 1.0), "bn.weight": np.ones(3)}
    members = [{**base, "bn.running_var": np.full(3, 0.1)}, base]
    given: dict[str, Any] = {"base": base, "normalize": False, "scale": 2.0, "weights": [1, 1]}
    blend = task_arithmetic(members, **given, **({"out": tmp_path / "x.safetensors"} if on_disk else {}))
    [warning] = blend.info["warnings"]
    assert "'bn.running_var' is below zero" in warning
    assert "skip='*.running_*'" in warning
    assert "warnings" not in task_arithmetic(members, **given, skip="*.running_*").info


def folders(tmp_path: Path, count: int = 3, size: int = 5_000_000) -> list[str]:
    paths = []
    for place in range(count):
        folder = tmp_path / f"m{place}"
        folder.mkdir()
        rng = np.random.default_rng(place)
        arrays = {f"layers.{at}.w": rng.normal(size=size).astype(ml_dtypes.bfloat16) for at in range(4)}
        write_arrays(folder / "model.safetensors", arrays)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "rope_theta": place}))
        if place == 1:
            (folder / "tokenizer.json").write_text("{}")
        paths.append(str(folder))
    return paths


def test_configuration_and_tokenizer_come_along(tmp_path: Path) -> None:
    paths = folders(tmp_path, size=10)
    blend = weighted_mean([*paths, paths[0]], out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rope_theta"] == 0
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    said = " / ".join(blend.info["warnings"])
    assert "rope_theta is 1 in member 1" in said
    assert "is the same as member 0" in said
    (Path(paths[2]) / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match=r"config.json: model_type is 'gpt2' in member 2"):
        weighted_mean(paths, out=tmp_path / "out")
    for path in paths:
        (Path(path) / "config.json").unlink()
        (Path(path) / "tokenizer.json").unlink(missing_ok=True)
    said = " / ".join(weighted_mean(paths, out=tmp_path / "new").info["warnings"])
    assert "no member has a config.json" in said
    assert "no member has a tokenizer" in said


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    paths = folders(tmp_path)
    code = (
        "import os, sys, time; from kofn.combination import weighted_mean\n"
        "from kofn.combination._sweep import blockwise\n"
        "blockwise._BATCH = 5_000_000\n"
        "old = blockwise.Sweep._batch\n"
        "def slow(self, names, *rest):\n"
        "    print(names[0], flush=True); time.sleep(60 if names[0].startswith(os.environ['HELD']) else 0.5)\n"
        "    return old(self, names, *rest)\n"
        "blockwise.Sweep._batch = slow\n"
        "print(weighted_mean(sys.argv[1:-1], weights=[3, 2, 1], out=sys.argv[-1]).info['resumed'], flush=True)\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, *paths, str(out)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HELD": "layers.2"})
    assert first.stdout is not None
    while not first.stdout.readline().startswith("layers.2"):
        assert first.poll() is None
    left = next(path for path in tmp_path.iterdir() if path.name.startswith(".out.kofn-job-"))
    # What the disk has is noted while the next batch is blended.
    until = time.monotonic() + 30
    while (left / "journal.jsonl").read_text().count("\n") < 2 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not out.exists()
    assert (left / "journal.jsonl").read_text().count("\n") == 2
    second = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "HELD": "none"})
    assert second.stdout.split() == ["layers.2.w", "layers.3.w", "2"]
    whole = weighted_mean(paths, weights=[3, 2, 1], out=tmp_path / "whole")
    ours, theirs = Checkpoint.open(out), Checkpoint.open(tmp_path / "whole")
    assert all(same_bits(ours[name].array(), theirs[name].array()) for name in theirs)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert whole.info["resumed"] == 0
    # Another job on the same output starts afresh, and what the first left is removed.
    left.mkdir()
    time.sleep(0.01)
    assert weighted_mean(paths, weights=[1, 2, 1], out=out).info["resumed"] == 0
    assert not left.exists()


def test_merging_means_leaves_out_what_was_copied() -> None:
    parts = [weighted_mean([{"a": np.ones(2), "b": np.ones(1)}], skip="b", statistic=True).statistic for _ in range(2)]
    assert set(merge_means(*parts)["sum"]) == {"a"}


def test_tied_tensors_are_blended_once(tmp_path: Path) -> None:
    def model(seed: int) -> dict[str, np.ndarray]:
        embed, other = drawn(2, (5, 4), np.float32, seed)
        return {"embed": embed, "body": other, "head": embed}

    members = [model(seed) for seed in range(2)]
    blend = weighted_mean(members, out=tmp_path / "m.safetensors")
    assert blend.info["tied"] == {"head": "embed"}
    assert list(blend.result) == ["body", "embed"]
    torch, safe = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    held = torch.nn.Module()
    held.embed = held.head = torch.nn.Parameter(torch.zeros(5, 4))
    held.body = torch.nn.Parameter(torch.zeros(5, 4))
    safe.load_model(held, tmp_path / "m.safetensors")
    np.testing.assert_allclose(held.head.detach().numpy(), (members[0]["embed"] + members[1]["embed"]) / 2, rtol=1e-6)
    inside = weighted_mean(members).result
    assert inside["head"] is inside["embed"]
    members[1]["head"] = members[1]["embed"].copy()
    assert "tied" not in weighted_mean(members).info  # not tied in every member


@pytest.mark.parametrize("shape", [(50,), (40_000,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
def test_a_device_adds_up_to_the_same_bits(shape: tuple[int, ...], dtype: Any) -> None:
    pytest.importorskip("torch")
    base, *members = drawn(4, shape, dtype)
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("weighted_mean", {"weights": [0.5, 0.3, 0.2]}, {}),
        ("weighted_mean", {}, {}),
        ("task_arithmetic", {"base": base}, {"scale": 0.7}),
        ("ties", {"base": base}, {"density": 0.3}),
        ("dare", {"base": base, "seed": 0}, {"density": 0.3}),
        ("dare", {"base": base, "seed": 0}, {"density": 0.3, "consensus": "ties"}),
    ]
    plain = [kofn.combine(members, method=name, options=options, **given).result for name, given, options in cases]
    # torch's own CPU stands in for a GPU: the same code, the same rounding.
    for (name, given, options), want in zip(cases, plain, strict=True):
        got = kofn.combine(members, method=name, options=options, device="torch:cpu", **given).result
        assert same_bits(got, want), name


def test_devices_that_are_not_there_are_refused() -> None:
    pytest.importorskip("torch")
    for device, says in (("cuda:77", "torch sees none here"), ("toaster", "none that torch knows")):
        with pytest.raises(InputError, match=says):
            weighted_mean([np.ones(2)], device=device)
    assert weighted_mean([np.ones(2)], device="auto").result.tolist() == [1.0, 1.0]


def test_factors_of_adapters_are_not_blended_apart() -> None:
    adapter = {"w.lora_A.weight": np.ones((1, 3)), "w.lora_B.weight": np.ones((3, 1))}
    with pytest.raises(InputError, match="does not blend their product; use stack_adapters"):
        weighted_mean([adapter, adapter])
    with pytest.raises(InputError, match="use stack_adapters"):
        kofn.combine([adapter, adapter], method="slerp")


def test_a_base_of_another_architecture_is_refused(tmp_path: Path) -> None:
    paths = folders(tmp_path, size=10)
    (Path(paths[2]) / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match=r"config.json: model_type is 'gpt2' in base"):
        kofn.combine(paths[:2], base=paths[2], method="ties", options={"out": tmp_path / "out"})
    assert not (tmp_path / "out").exists()
