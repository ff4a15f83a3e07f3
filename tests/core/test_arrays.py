"""Names of array types, and what several families do to arrays."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.arrays import csr, directions, near_one
from kofn.core.checks import InputError


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_directions_have_the_bits_of_plain_division_at_ordinary_scales(kind: type) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        X = (rng.normal(size=(rng.integers(1, 40), rng.integers(1, 60))) * 10.0 ** rng.integers(-9, 9)).astype(kind)
        X[rng.random(len(X)) < 0.2] = 0
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        plain = np.divide(X, norms, out=np.zeros_like(X), where=norms > 0)
        assert directions(X).dtype == kind
        assert np.array_equal(directions(X), plain)


def test_directions_have_no_scale() -> None:
    X = np.random.default_rng(1).normal(size=(50, 6))
    for scale in (2.0**-900, 2.0**900):
        assert np.array_equal(directions(X * scale), directions(X))
    assert np.abs(directions(X * 1e300) - directions(X)).max() < 1e-15
    assert np.abs(directions(X * 1e-300) - directions(X)).max() < 1e-15
    tiny = directions(np.array([[5e-324, 0.0], [1.7e308, 1.7e308]]))
    assert np.abs(tiny - [[1.0, 0.0], [0.5**0.5, 0.5**0.5]]).max() < 1e-15


def test_near_one_is_exact_and_undone_by_its_factor() -> None:
    X = np.random.default_rng(2).normal(size=(30, 4)) * 10.0 ** np.arange(-150, 150, 10)[:, None]
    scaled, factor = near_one(X)
    assert np.array_equal(scaled / factor, X)
    assert ((np.abs(scaled).max(axis=1) >= 0.5) & (np.abs(scaled).max(axis=1) < 1)).all()
    across, factors = near_one(X.T, axis=0)
    assert np.array_equal(across.T, scaled)
    assert np.array_equal(factors.T, factor)


def test_csr_lists_pairs_by_row() -> None:
    table = np.random.default_rng(3).random((7, 5)) < 0.3
    rows, columns = np.nonzero(table)
    indptr, listed = csr(rows, columns, 7)
    assert (indptr.dtype, listed.dtype) == (np.int64, np.int32)
    assert [listed[indptr[i] : indptr[i + 1]].tolist() for i in range(7)] == [np.flatnonzero(r).tolist() for r in table]
    assert csr(np.empty(0, np.int64), np.empty(0, np.int64), 2)[0].tolist() == [0, 0, 0]


def test_no_module_names_array_types_anew() -> None:
    """One name, one meaning: `Floats` is float64 everywhere, and comes from `kofn.core.arrays`."""
    root = Path(kofn.__file__).parent
    again = [
        f"{file.relative_to(root)}: {line}"
        for file in root.rglob("*.py")
        if file != root / "core" / "arrays.py"
        for line in re.findall(r"^\w+(?:: TypeAlias)? = NDArray\[.*\]$", file.read_text(), re.M)
    ]
    assert not again


def test_a_polars_column_of_vectors_is_a_matrix() -> None:
    X = np.random.default_rng(0).normal(size=(12, 3))
    want = kofn.select(X, k=3).indices.tolist()
    frames = [pl.DataFrame({"v": X}), pl.DataFrame({"v": X.tolist()}), pl.DataFrame({"v": X.tolist()}).lazy()]
    for frame in (*frames, frames[0]["v"], frames[1]["v"]):
        assert kofn.select(frame, k=3).indices.tolist() == want
    # Beside others it is what rows are compared by, as in a file.
    assert kofn.select(frames[0].with_columns(a=1, b=pl.lit("x")), k=3).indices.tolist() == want
    several = frames[0].with_columns(w=pl.col("v"))
    with pytest.raises(InputError, match=r"X has several columns of vectors \(v, w\); name one with vectors"):
        kofn.select(several, k=3)
