"""Near-duplicates against the definition, row by row in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from threadpoolctl import threadpool_limits

import kofn
from kofn.core.checks import InputError
from kofn.selection.training_data import _near_vectors as dedupe
from kofn.selection.training_data._near_duplicates import near_duplicates


def by_definition(X, threshold):
    """Each row against every earlier kept row, in float64."""
    wide = np.asarray(X, np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    of = np.full(len(wide), -1)
    kept: list[int] = []
    for i, row in enumerate(wide):
        if lengths[i] > 0:
            for j in kept:
                if row @ wide[j] / (lengths[i] * lengths[j]) >= threshold - 1e-9:
                    of[i] = j
                    break
        elif (lengths[:i] == 0).any():
            of[i] = int((lengths == 0).argmax())
        if of[i] < 0 and lengths[i] > 0:
            kept.append(i)
    return of


def planted(rng, n, d, copies, noise, dtype=np.float32):
    """Rows around fewer centres, in random order."""
    centres = rng.standard_normal((n // copies, d))
    X = centres[rng.integers(0, len(centres), n)] + noise * rng.standard_normal((n, d))
    return X.astype(dtype)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("d", [2, 7, 40])
def test_equals_the_definition(threshold, d):
    X = planted(np.random.default_rng(d), 500, d, 4, 0.1)
    keep, of, _ = near_duplicates(X, threshold)
    expected = by_definition(X, threshold)
    np.testing.assert_array_equal(of, expected)
    np.testing.assert_array_equal(keep, expected < 0)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-2, 2)),
    st.sampled_from([0.0, 0.5, 0.7, 0.95, 1.0]),
)
@settings(deadline=None, max_examples=200)
def test_equals_the_definition_on_small_grids_with_ties_and_zeros(X, threshold):
    np.testing.assert_array_equal(near_duplicates(X, threshold).of, by_definition(X, threshold))


@pytest.mark.parametrize("d", [64, 300])
def test_projected_filter_equals_the_full_products(d, monkeypatch):
    # Small tiles make many blocks of a small pool, and a pool large enough for the filter.
    monkeypatch.setattr(dedupe, "_ROWS", 64)
    monkeypatch.setattr(dedupe, "_KEPT", 96)
    rng = np.random.default_rng(d)
    spectrum = 1 / np.arange(1, d + 1)
    X = (planted(rng, 1500, d, 3, 0.3, np.float64) * spectrum).astype(np.float32)
    expected = by_definition(X, 0.97)
    assert 100 < (expected >= 0).sum() < 1400
    full = []
    for r in (8, 16, 0):
        monkeypatch.setattr(dedupe, "_rank", lambda *_, r=r: r)
        np.testing.assert_array_equal(near_duplicates(X, 0.97).of, expected)
        monkeypatch.setattr(dedupe, "_DENSE", 1.0)  # every candidate on its own, none by a second full product
        np.testing.assert_array_equal(near_duplicates(X, 0.97).of, expected)
        monkeypatch.setattr(dedupe, "_DENSE", 1e-6)
        full.append(near_duplicates(X, 0.97).of)
    np.testing.assert_array_equal(full, [expected] * 3)


def test_filter_is_as_thin_as_the_sample_allows():
    rng = np.random.default_rng(0)
    U = rng.standard_normal((600, 256))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    nearness = dedupe.Nearness(lambda rows: U[rows], True, 0.95)
    directions = dedupe._leading(U, 256)
    assert 8 <= dedupe._rank(U @ directions, U, nearness, 256) <= 64
    same = np.repeat(U[:1], 600, axis=0)
    assert dedupe._rank(same @ directions, same, nearness, 256) == 0


def test_filter_bounds_every_cosine():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((200, 50)) * np.linspace(3, 0.1, 50)
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    P = dedupe._leading(U, 50)[:, :8]
    np.testing.assert_allclose(P.T @ P, np.eye(8), atol=1e-12)
    rest = np.linalg.norm(U - U @ P @ P.T, axis=1)
    assert ((U @ P) @ (U @ P).T + np.outer(rest, rest) >= U @ U.T - 1e-12).all()


def test_no_two_kept_rows_are_near_and_every_dropped_row_has_one():
    X = planted(np.random.default_rng(0), 3000, 24, 5, 0.15)
    keep, of, _ = near_duplicates(X, 0.95)
    U = X / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    among = U[keep] @ U[keep].T
    np.fill_diagonal(among, 0)
    assert among.max() < 0.95
    dropped = np.flatnonzero(~keep)
    assert len(dropped) > 500
    assert keep[of[dropped]].all()
    assert (of[dropped] < dropped).all()
    assert np.einsum("ij,ij->i", U[dropped], U[of[dropped]]).min() >= 0.95 - 1e-9


def test_identical_rows_leave_the_first():
    keep, of, _ = near_duplicates(np.ones((2500, 40), np.float32), 1.0)
    assert keep.sum() == 1
    assert keep[0]
    assert (of[1:] == 0).all()


def test_scale_and_dtype_do_not_matter():
    X = planted(np.random.default_rng(1), 300, 16, 3, 0.2, np.float64)
    of = near_duplicates(X).of
    rows = 10.0 ** np.random.default_rng(2).integers(-200, 200, (300, 1))
    np.testing.assert_array_equal(near_duplicates(X * rows).of, of)
    half = X.astype(np.float16)
    np.testing.assert_array_equal(near_duplicates(half).of, by_definition(half, 0.95))


def test_rows_of_zeros_are_duplicates_of_each_other():
    found = near_duplicates([[0, 0], [1, 1], [0, 0], [2, 2]])
    assert found.of.tolist() == [-1, -1, 0, 1]
    np.testing.assert_allclose(found.similarity[2:], 1)


def test_same_for_any_number_of_threads():
    X = planted(np.random.default_rng(5), 6000, 48, 2, 0.22)
    answers = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            answers.append(near_duplicates(X).of)
    assert (answers[0] >= 0).sum() > 100
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_order_decides_who_stays():
    X = np.array([[1.0, 0.0], [0.96, 0.28], [0.84, 0.54]])
    assert near_duplicates(X, 0.95).keep.tolist() == [True, False, True]
    assert near_duplicates(X[[1, 0, 2]], 0.95).keep.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("X", "threshold", "says"),
    [
        ([[1.0, np.nan]], 0.9, "row 0, column 1 is NaN"),
        ([[1.0, 2.0]], 1.5, "threshold=1.5"),
        ([[1.0, 2.0]], -0.1, "threshold=-0.1"),
        ([1.0, 2.0], 0.9, "reshape"),
        (np.empty((0, 3)), 0.9, "no rows"),
    ],
)
def test_refuses(X, threshold, says):
    with pytest.raises(InputError, match=says):
        near_duplicates(X, threshold)


def test_integers_that_floats_round_to_the_same_are_no_repeats():
    X = np.array([[2**63 - 1, 0], [2**63 - 2, 0], [0, 0], [2**63 - 1, 0]])
    with pytest.raises(InputError, match="rows 0 and 1 differ only beyond double precision, so threshold=1"):
        near_duplicates(X, threshold=1)
    assert kofn.select(X, k=2).info["duplicate_rows"] == 1
    assert near_duplicates(X[[0, 2, 3]], threshold=1).keep.tolist() == [True, True, False]
