"""Low-rank updates that compiled loops add to bfloat16 weights: bit for bit the exact sums, rounded once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from lora import SHAPES, mixed
from refusals import refused

from kofn.combination import fold_adapters
from kofn.combination._sweep.low_rank_loops import SCRATCH, Factors, LowRankLoops, low_rank_loops
from kofn.combination.adapters import _fold_adapter, _fold_rows
from kofn.combination.adapters._fold_rows import Scratch, rounded
from kofn.core.arrays import Array, Floats
from kofn.io.adapters import Adapter

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def compiled() -> LowRankLoops:
    loops = low_rank_loops()
    assert loops is not None
    return loops


def folded(words: Array, factors: Factors, rows: slice | None = None) -> tuple[Array, bool]:
    out = np.empty(words.size, BFLOAT16)
    rows = slice(0, len(words)) if rows is None else rows
    finite = compiled().fold(words.reshape(-1), factors, rows, out, np.empty(SCRATCH, np.uint8))
    return out.reshape(words.shape), finite


def expected(words: Array, left: Floats, right: Floats) -> Array:
    wide = words.astype(np.float64) + left @ right
    return rounded(wide.reshape(-1), BFLOAT16, Scratch()).copy().reshape(words.shape)


def test_sums_in_float64_are_rounded_once() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 40_000).astype(np.uint16)
    words = words[words & 0x7F80 != 0x7F80]  # the finite ones
    wide = words.view(BFLOAT16).astype(np.float64)
    step = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(wide), 2.0**-126))) - 7)  # a unit in the last place
    for share in (0.0, 0.5, -0.5, 1.5, 0.5 + 1e-12, 0.5 - 1e-12, -0.5 - 1e-12, 0.3):
        update = share * step
        out = np.empty_like(words)
        finite = compiled().add_rounded(words, update, out)
        want = rounded(wide + update, BFLOAT16, Scratch())
        assert out.tobytes() == want.tobytes()
        assert finite == np.isfinite(want.astype(float)).all()


@pytest.mark.parametrize("rank", [1, 2, 8, 16, 17, 64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 63), (4, 64), (5, 65), (9, 256), (7, 257), (66, 700)])
def test_products_give_the_bits_of_the_exact_sums(rows: int, columns: int, rank: int) -> None:
    """Factors have so few digits that float64 has their products exactly, in any order."""
    rng = np.random.default_rng(rows + rank)
    for scale in (2.0**-12, 2.0**-6, 2.0**-3, 1.0, 2.0**40):
        words = rng.normal(size=(rows, columns)).astype(BFLOAT16)
        left = np.round(rng.normal(size=(rows, rank)) * 2**9) * 2.0**-9
        right = np.round(rng.normal(size=(rank, columns)) * 2**9) * 2.0**-9 * scale
        left[rng.random(rows) < 0.2] = 0.0
        words[rng.random(words.shape) < 0.05] = -0.0
        out, finite = folded(words, Factors.of([(left, right)]))
        assert finite
        assert out.tobytes() == expected(words, left, right).tobytes()


def test_sums_that_are_half_way_or_cancel() -> None:
    """Updates of half a unit in the last place, of the weights themselves, and a hair beside both."""
    rng = np.random.default_rng(0)
    words = np.ldexp(1 + rng.integers(0, 128, (32, 300)) / 128, rng.integers(-9, 9, (32, 1))).astype(BFLOAT16)
    unit = 2.0 ** (np.floor(np.log2(words[:, :1].astype(np.float64))) - 7)
    for hair in (0.0, 2.0**-30, -(2.0**-30), 2.0**-17):
        for left, right in (
            (np.hstack([unit, unit * hair]), np.array([[0.5], [1.0]]) * np.ones((1, 300))),
            (np.hstack([-unit, unit * hair]), np.array([[0.5], [1.0]]) * np.ones((1, 300))),
            (np.hstack([-words.astype(np.float64)[:, :1], unit * hair]), np.ones((2, 300))),
        ):
            out, _ = folded(words, Factors.of([(left, right)]))
            assert out.tobytes() == expected(words, left, right).tobytes()


@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-30, 1e30])
def test_numbers_that_float32_hardly_has(size: float) -> None:
    rng = np.random.default_rng(0)
    words = (size * rng.normal(size=(5, 70))).astype(BFLOAT16)
    for share in (1e-20, 1.0, 1e20):
        left, right = np.full((5, 1), size * share), np.sign(rng.normal(size=(1, 70))) / share
        out, _ = folded(words, Factors.of([(left, right)]))
        assert out.tobytes() == expected(words, left, right).tobytes()


def test_several_products_and_some_rows() -> None:
    rng = np.random.default_rng(0)
    words = rng.normal(size=(40, 90)).astype(BFLOAT16)
    terms = [(rng.normal(size=(40, r)), rng.normal(size=(90, r)).T) for r in (3, 5)]
    factors = Factors.of(terms)
    whole = expected(words, np.hstack([left for left, _ in terms]), np.vstack([right for _, right in terms]))
    assert folded(words, factors)[0].tobytes() == whole.tobytes()
    for rows in (slice(0, 1), slice(3, 40), slice(38, 40)):
        assert folded(words[rows], factors, rows)[0].tobytes() == whole[rows].tobytes()


def test_the_bound_on_the_error_decides_what_is_summed_again() -> None:
    rng = np.random.default_rng(0)
    words = (0.02 * rng.normal(size=(400, 1000))).astype(BFLOAT16)
    left, right = rng.normal(size=(400, 16)), 0.01 * rng.normal(size=(16, 1000))
    factors, want = Factors.of([(left, right)]), expected(words, left, right)
    assert folded(words, factors)[0].tobytes() == want.tobytes()
    errors = np.zeros_like(factors.errors)
    addresses = (*factors.addresses[:2], errors.ctypes.data, *factors.addresses[3:])
    blind = dataclasses.replace(factors, errors=errors, addresses=addresses)
    assert (folded(words, blind)[0] != want).any()


def test_what_is_not_finite_is_told() -> None:
    words = np.ones((3, 100), BFLOAT16)
    ones = np.ones((1, 100))
    assert folded(words, Factors.of([(np.ones((3, 1)), ones)]))[1]
    for row in (0, 2):
        left = np.ones((3, 1))
        for number in (3.4e38, -3.4e38, 1e200, np.inf):
            left[row] = number
            with np.errstate(all="ignore"):
                assert not folded(words, Factors.of([(left, ones)]))[1]
        for number in (np.nan, np.inf):
            broken = words.copy()
            broken[row, 99] = number
            assert not folded(broken, Factors.of([(np.ones((3, 1)), ones)]))[1]


class Counting:
    """The loops, and how often each is used."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def add_rounded(self, *given: Array) -> bool:
        self.used.append("add_rounded")
        return compiled().add_rounded(*given)

    def fold(self, words: Array, factors: Factors, rows: slice, out: Array, scratch: Array) -> bool:
        self.used.append("fold")
        return compiled().fold(words, factors, rows, out, scratch)


@pytest.mark.parametrize(("low", "adapters", "loop"), [(64, 1, "fold"), (64, 2, "fold"), (0, 2, "add_rounded")])
def test_folding_by_the_compiled_loops(
    low: int, adapters: int, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large fold takes the compiled loops, and refuses what is beyond the range as before."""
    base = {f"{name}.weight": np.ones(shape, BFLOAT16) for name, shape in SHAPES.items()}
    base |= {"plain": np.arange(5, dtype=np.float32), "norm.bias": np.ones(3, BFLOAT16)}
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors")
    members = [Adapter(*mixed()[i]) for i in range(adapters)]
    want = fold_adapters(base, members)
    monkeypatch.setattr(_fold_adapter, "_COMPILED", 0)
    monkeypatch.setattr(_fold_rows, "_LOW", low)
    loops = Counting()
    monkeypatch.setattr(_fold_adapter, "low_rank_loops", lambda: loops)
    written = fold_adapters(tmp_path / "base.safetensors", members, out=tmp_path / "out.safetensors")
    assert set(loops.used) == {loop}
    assert {name: value.tobytes() for name, value in want.items()} == {n: v.tobytes() for n, v in written.items()}
    name = f"{next(iter(SHAPES))}.weight"
    base[name][:] = 3.38e38
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors")
    refused(
        lambda: fold_adapters(tmp_path / "base.safetensors", members, weights=[1e38] * adapters, out=tmp_path / "x"),
        "is beyond the range of bfloat16",
    )
