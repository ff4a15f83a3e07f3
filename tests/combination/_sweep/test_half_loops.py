"""The compiled loops over half-precision numbers against NumPy, and blends with and without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from kofn.combination import task_arithmetic, ties, weighted_mean
from kofn.combination._sweep import blocks, half_loops
from kofn.combination._sweep.half_loops import BFLOAT16, FLOAT16, HalfLoops
from kofn.combination.task_vectors import _sign_election, dare
from kofn.engines import machine_code

DTYPES = [BFLOAT16, FLOAT16]


def loops_for(dtype: np.dtype[Any]) -> HalfLoops:
    loops = half_loops.half_loops()
    assert loops is not None
    if dtype not in loops.dtypes:
        pytest.skip(f"this processor does not convert {dtype} itself")
    return loops


def every_word(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_words_are_widened_as_numpy_widens_them(dtype: np.dtype[Any]) -> None:
    words, row = every_word(dtype), np.empty(1 << 16, np.float32)
    loops_for(dtype).widen(words, row)
    want = words.astype(np.float32)
    known = ~np.isnan(want)
    assert row[known].tobytes() == want[known].tobytes()
    assert np.isnan(row[~known]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_are_narrowed_as_numpy_narrows_them(dtype: np.dtype[Any]) -> None:
    """All ties, numbers beside them, infinities, NaN, what is beyond the range, and bits at random."""
    wide = every_word(dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        middle = (wide[:-1] + wide[1:]) / 2
        beside = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
        bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
        numbers = np.concatenate([wide, middle, *beside, bits, np.float32([3.4e38, -3.4e38, np.inf, -np.inf, -0.0])])
        want = numbers.astype(dtype)
    row, words = numbers.copy(), np.empty(len(numbers), dtype)
    loops_for(dtype).narrow(row, words)
    known = ~np.isnan(numbers)
    assert words[known].tobytes() == want[known].tobytes()
    assert row[known].tobytes() == want[known].astype(np.float32).tobytes()
    assert np.isnan(row[~known]).all()
    assert np.isnan(words[~known].astype(np.float32)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 17, 2048, 5000])
def test_a_blend_is_the_sum_of_rounded_products(dtype: np.dtype[Any], n: int) -> None:
    loops, rng = loops_for(dtype), np.random.default_rng(n)
    rows = [rng.standard_normal(n).astype(dtype) for _ in range(4)]
    rows[0][: n // 2] = rows[2][: n // 2] = -0.0
    factors, scale = [-0.3, 0.0, 1.1, 0.2], 1.7
    out, scratch = np.empty(n, dtype), np.empty(loops.scratch_bytes(4), np.uint8)
    squares = loops.blend(rows, factors, scale, out, scratch)
    wide = [row.astype(np.float32) for row in rows]
    total = wide[0] * np.float32(-0.3) + wide[2] * np.float32(1.1) + wide[3] * np.float32(0.2)
    want = (total * np.float32(scale)).astype(dtype)
    assert out.tobytes() == want.tobytes()
    np.testing.assert_allclose(squares, [np.sum((row - want.astype(np.float32)).astype(float) ** 2) for row in wide])


def test_sums_of_rows_are_numpys() -> None:
    loops, rng = loops_for(BFLOAT16), np.random.default_rng(0)
    row, sums = rng.standard_normal((2, 3001)).astype(np.float32)
    got, factor = np.empty_like(row), 0.1
    loops.scale(row, factor, got)
    assert got.tobytes() == (row * np.float32(factor)).tobytes()
    loops.add_scaled(sums, factor, got)
    assert got.tobytes() == (row * np.float32(factor) + sums * np.float32(factor)).tobytes()
    assert loops.square_distance(row, sums) == pytest.approx(np.sum((row - sums).astype(float) ** 2), rel=1e-14)


CALLS: dict[str, Any] = {
    "mean": lambda members, base, **words: weighted_mean(members, weights=[3, 1, 0, 2], **words),
    "equal mean": lambda members, base, **words: weighted_mean(members, **words),
    "affine mean": lambda members, base, **words: weighted_mean(members, weights=[3, 1, -1, 2], **words),
    "sum": lambda members, base, **words: weighted_mean(members, weights=[1, 2, 3, -1], normalize=False, **words),
    "tiny weight": lambda members, base, **words: weighted_mean(members, weights=[1, 1, 1, 1e-60], **words),
    "changes": lambda members, base, **words: task_arithmetic(members, base=base, scale=0.7, **words),
    "changes that cancel the base": lambda members, base, **words: task_arithmetic(members, base=base, **words),
    "measured": lambda members, base, **words: weighted_mean(members, measure=True, **words),
    "another dtype": lambda members, base, **words: weighted_mean(members, dtype="float32", **words),
    "ties": lambda members, base, **words: ties(members, base=base, density=0.4, **words),
    "dare": lambda members, base, **words: dare(members, base=base, density=0.4, consensus="ties", seed=1, **words),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_blends_are_the_same_with_and_without_the_loops(
    name: str, dtype: np.dtype[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte that is written; distances up to the order of their sums."""
    loops = loops_for(dtype)
    rng = np.random.default_rng(0)
    common = {"a": rng.standard_normal((300, 100)), "b": rng.standard_normal(70_000), "s": np.array(0.5)}
    paths = []
    for member in range(5):
        own = {key: value + 0.1 * member * rng.standard_normal(value.shape) for key, value in common.items()}
        tensors = {key: np.asarray(value).astype(dtype) for key, value in own.items()}
        tensors["count"] = np.array([3])
        if name not in ("another dtype", "measured"):  # infinities are copied in their own, and have no measures
            tensors["mask"] = np.array([0, -np.inf]).astype(dtype)
        paths.append(tmp_path / f"{member}.safetensors")
        safetensors.numpy.save_file(tensors, paths[-1])
    *members, base = paths
    outcomes = []
    for compiled in (False, True):
        monkeypatch.setattr(blocks, "_COMPILED", 0 if compiled else 1 << 60)
        monkeypatch.setattr(
            "kofn.combination._sweep.device.ready", lambda compiled=compiled: loops if compiled else None
        )
        monkeypatch.setattr(_sign_election, "_COMPILED", 1 if compiled else 1 << 60)
        plan = CALLS[name](members, base, out=tmp_path / "out.safetensors")
        outcomes.append(((tmp_path / "out.safetensors").read_bytes(), plan.spread, plan.info.get("measures")))
    (plain, spread, _), (fast, near, _) = outcomes
    assert plain == fast
    np.testing.assert_allclose(near, spread, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_as_without_the_loops(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    loops_for(BFLOAT16)
    members = [{"w": np.ones(5000, BFLOAT16)} for _ in range(2)]
    members[1]["w"][4321] = value
    messages = []
    for threshold in (0, 1 << 60):
        monkeypatch.setattr(blocks, "_COMPILED", threshold)
        with pytest.raises(ValueError, match="4321") as caught:
            weighted_mean(members)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_beyond_the_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loops_for(FLOAT16)
    monkeypatch.setattr(blocks, "_COMPILED", 0)
    members = [{"w": np.full(10, 6e4, np.float16)} for _ in range(2)]
    with pytest.raises(ValueError, match="beyond the range of float16"):
        weighted_mean(members, weights=[1, 1], normalize=False)


def test_without_a_compiler_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code.sys, "byteorder", "big")
    half_loops._compiled.cache_clear()
    try:
        assert half_loops.half_loops() is None
        monkeypatch.setattr(blocks, "_COMPILED", 0)
        mean = weighted_mean([{"w": np.ones(5, BFLOAT16)}, {"w": np.zeros(5, BFLOAT16)}])
        assert mean.result["w"].astype(float).tolist() == [0.5] * 5
    finally:
        half_loops._compiled.cache_clear()
