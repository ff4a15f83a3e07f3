"""Arcee Fusion against its definition, tensor by tensor, with sorted importances."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from kofn import combine
from kofn.combination import arcee_fusion
from kofn.core.arrays import Array
from kofn.core.checks import InputError

SHAPES = {"matrix": (40, 30), "vector": (500,), "cube": (3, 20, 10), "scalar": (), "empty": (0, 4), "rows": (1, 90)}


def pair(seed: int, dtype: type = np.float64, change: float = 0.5) -> tuple[dict[str, Array], dict[str, Array]]:
    rng = np.random.default_rng(seed)
    base = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    moved = {name: (array + change * rng.normal(size=array.shape)).astype(dtype) for name, array in base.items()}
    return base, moved


def fused(base: Array, values: Array) -> Array:
    b, x = (np.atleast_1d(np.asarray(each, np.float64)) for each in (base, values))
    if not b.size:
        return base
    p, q = softmax(x, axis=-1) + 1e-8, softmax(b, axis=-1) + 1e-8
    importance = np.abs(x - b) * rel_entr(p, q).sum(axis=-1, keepdims=True)
    ordered = np.sort(importance, axis=None)
    low, median, high = ordered[[quarter * (len(ordered) - 1) // 4 for quarter in (1, 2, 3)]]
    taken = importance >= median + 1.5 * (high - low)
    return np.where(taken.reshape(np.shape(values)), values, base)


@pytest.mark.parametrize(
    ("dtype", "change"),
    # Small changes of bfloat16 are multiples of one another, and some lie at the threshold but for rounding.
    [(np.float64, 0.5), (np.float64, 0.01), (np.float32, 0.5), (np.float32, 0.01), (ml_dtypes.bfloat16, 0.5)],
)
def test_the_entries_are_those_of_the_definition(dtype: type, change: float) -> None:
    base, moved = pair(0, dtype, change)
    blend = arcee_fusion([moved], base=base)
    for name, array in blend.result.items():
        assert array.tobytes() == np.ascontiguousarray(fused(base[name], moved[name])).tobytes(), name
    matrix = blend.result["matrix"]
    assert 0 < (matrix != base["matrix"]).mean() < 0.2  # the few entries far above the median


def test_blocks_and_threads_do_not_decide() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(3000, 40)).astype(np.float32)
    moved = base + 0.1 * rng.normal(size=base.shape).astype(np.float32)
    whole = arcee_fusion([moved], base=base).result
    np.testing.assert_array_equal(whole, fused(base, moved))
    for options in ({"max_memory": 200_000}, {"n_threads": 2}):
        assert arcee_fusion([moved], base=base, **options).result.tobytes() == whole.tobytes()


def test_what_hardly_changed() -> None:
    """Equal importances lie at the threshold and count, so that a copy and a single change are taken."""
    base = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(arcee_fusion([base], base=base).result, base)
    moved = base.copy()
    moved[1, 2] += 1
    np.testing.assert_array_equal(arcee_fusion([moved], base=base).result, moved)
    huge = 1e200 * np.random.default_rng(0).normal(size=(20, 20))
    result = arcee_fusion([2 * huge], base=huge).result
    assert (np.isin(result, huge) | np.isin(result, 2 * huge)).all()


def test_the_softened_rows_decide() -> None:
    """A change in a row that stays as it is, but for a constant, has no divergence, however large it is."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(10, 50))
    moved = base + 0.5 * rng.normal(size=base.shape)
    moved[3] = base[3] + 100.0
    result = arcee_fusion([moved], base=base).result
    np.testing.assert_array_equal(result[3], base[3])
    assert (result != base).any()


def test_refusals() -> None:
    base, moved = pair(0)
    with pytest.raises(InputError, match="members has 2; arcee_fusion takes one beside the base"):
        arcee_fusion([moved, moved], base=base)
    with pytest.raises(InputError, match="needs base"):
        combine([moved], method="arcee_fusion")
    broken = {**moved, "vector": np.full(500, np.nan)}
    with pytest.raises(InputError, match=r"member 0: tensor 'vector' at .* is NaN"):
        arcee_fusion([broken], base=base)


def test_divergences_are_bounded_as_those_of_mergekit() -> None:
    # By plain divergences, 41.9 and 17.9, entry (0, 1) would count; with 1e-8 beside each probability none does.
    base = np.array([[22.23, -19.67], [-5.64, 12.28]])
    values = np.array([[4.07, 33.35], [-9.43, -27.97]])
    np.testing.assert_array_equal(arcee_fusion([values], base=base).result, fused(base, values))
    np.testing.assert_array_equal(arcee_fusion([values], base=base).result, base)
