"""8-bit numbers and their scales: numbers round as a cast does, scales are the largest magnitude's."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kofn.io.quantised import FLOAT8, Scheme, requantise


def scheme(dtype: Any, shape: tuple[int, ...], blocks: tuple[int, ...], scale_dtype: Any = np.float32) -> Scheme:
    grid = tuple(-(-extent // block) for extent, block in zip(shape, blocks, strict=True))
    return Scheme(np.dtype(dtype), shape, "scale", np.dtype(scale_dtype), grid, blocks, 1.0, False)


@pytest.mark.parametrize("dtype", sorted(FLOAT8, key=str))
def test_floats_round_as_a_cast_does(dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(0)
    numbers = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    middles = (numbers[1:] + numbers[:-1]) / 2
    values = np.concatenate(
        [
            [numbers.max(), -0.0],
            numbers,
            middles,
            np.nextafter(middles, np.float32(np.inf)),
            np.nextafter(middles, np.float32(-np.inf)),
            rng.normal(size=10_000).astype(np.float32) * np.float32(2) ** rng.integers(-30, 5, 10_000),
        ]
    ).astype(np.float32)
    values = np.clip(values, -numbers.max(), numbers.max())
    rounded, scales, _, _ = requantise(values, scheme(dtype, values.shape, values.shape))
    assert scales.tolist() == [1.0]
    assert rounded.tobytes() == values.astype(dtype).tobytes()


def test_scales_are_those_of_the_largest_magnitudes() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 7)).astype(np.float32)
    values[0, :3] = 0
    for blocks in ((5, 7), (1, 7), (5, 1), (2, 3)):
        form = scheme(np.int8, (5, 7), blocks)
        numbers, scales, errors, squares = requantise(values.reshape(-1), form)
        back = np.empty((5, 7))
        for i, j in np.ndindex(5, 7):
            cell = tuple(index // block for index, block in zip((i, j), blocks, strict=True))
            block = values[
                cell[0] * blocks[0] : (cell[0] + 1) * blocks[0], cell[1] * blocks[1] : (cell[1] + 1) * blocks[1]
            ]
            wanted = np.float32(float(np.abs(block).max()) / 127) if block.any() else np.float32(1)
            assert scales[cell] == wanted
            back[i, j] = float(numbers.reshape(5, 7)[i, j]) * float(scales[cell])
        assert errors == pytest.approx(np.square(back - values).sum(), rel=1e-6)
        assert squares == pytest.approx(np.square(values.astype(float)).sum(), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_scale_too_small_for_its_dtype_is_the_smallest(dtype: Any) -> None:
    values = np.array([1e-41, -1e-42], np.float32)
    numbers, scales, _, _ = requantise(values, scheme(ml_dtypes.float8_e4m3fn, (2,), (2,), dtype))
    assert float(scales[0]) == float(ml_dtypes.finfo(dtype).smallest_subnormal)
    assert np.isfinite(numbers.astype(float)).all()


def test_a_scale_that_fits_is_kept_block_by_block() -> None:
    rng = np.random.default_rng(2)
    form = scheme(ml_dtypes.float8_e4m3fn, (4, 8), (1, 8))
    numbers = rng.normal(size=(4, 8)).astype(form.dtype)
    kept = rng.uniform(1, 2, 4).astype(np.float32)
    values = (numbers.astype(np.float64) * kept[:, None]).astype(np.float32)
    values[3] = rng.normal(size=8)
    again, scales, _, _ = requantise(values.reshape(-1), form, [np.ones(4, np.float32), kept])
    assert again.reshape(4, 8)[:3].tobytes() == numbers[:3].tobytes()
    assert scales[:3, 0].tobytes() == kept[:3].tobytes()
    assert scales[3, 0] == np.float32(float(np.abs(values[3]).max()) / 448)
