"""Groups of weights that are pruned and rounded as one: against least squares, and stored bits by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import GroupSparse, group_sparse


def drawn(out: int = 12, width: int = 16) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(200, width)) @ rng.normal(size=(width, width))
    return rng.normal(size=(out, width)), inputs.T @ inputs / 200


def test_without_moments_the_largest_groups_are_kept() -> None:
    weight, _ = drawn()
    layer = group_sparse(weight, group=4, keep=0.25, bits=16)
    assert isinstance(layer, GroupSparse)
    sums = (weight.reshape(12, 4, 4) ** 2).sum(axis=2)
    kept = layer.kept.reshape(12, 4, 4)
    assert (kept.all(axis=2) == (sums >= np.sort(sums.ravel())[-12])).all()
    assert (layer.weight[~layer.kept] == 0).all()
    assert layer.counts.sum() == 12
    np.testing.assert_allclose(layer.weight[layer.kept], weight[layer.kept], atol=1e-3)


def test_kept_weights_are_the_least_squares_fit_and_the_loss_is_that_of_the_outputs() -> None:
    weight, gram = drawn()
    layer = group_sparse(weight, gram, group=4, keep=0.5, bits=16, damp=0.0)
    root = np.linalg.cholesky(gram).T
    best = 0.0
    for row, own in zip(weight, layer.kept, strict=True):
        if own.any():
            best += float(np.linalg.lstsq(root[:, own], root @ row)[1].sum())
        else:
            best += float(((root @ row) ** 2).sum())
    off = root @ (weight - layer.weight).T
    assert layer.loss == pytest.approx(float((off**2).sum()), rel=1e-9)
    assert layer.loss == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("pattern", ["groups", "2:4", "dense"])
def test_errors_that_later_columns_take_up_leave_less_than_rounding_alone(pattern: Any) -> None:
    weight, gram = drawn()
    layer = group_sparse(weight, gram, group=4, bits=3, pattern=pattern)
    # The same weights, each rounded on its own: without moments there is nothing to take up.
    given = layer.kept.reshape(12, -1, 4).any(axis=2) if pattern == "groups" else None
    plain = group_sparse(weight, group=4, bits=3, pattern=pattern, kept=given)
    off = weight - plain.weight
    assert layer.loss < float(np.einsum("ij,jk,ik->", off, gram, off))


def test_stored_bits_by_hand_and_loads() -> None:
    weight, _ = drawn()
    # 24 of 48 groups: 4 weights of 4 bits, a scale of 16, a zero point of 4, a column of 2; 12 offsets of 5 bits.
    assert group_sparse(weight, group=4, keep=0.5).stored_bits == 24 * (16 + 20 + 2) + 12 * 5
    assert group_sparse(weight, group=8, bits=2, pattern="dense").stored_bits == 192 * 2 + 24 * 18
    two = group_sparse(weight, group=4, pattern="2:4")
    assert two.stored_bits == 96 * (4 + 2) + 48 * 20
    assert (two.kept.reshape(12, 4, 4).sum(axis=2) == 2).all()
    given = np.zeros((12, 4))
    given[:3] = 1
    layer = group_sparse(weight, group=4, kept=given)
    assert layer.loads(4).tolist() == [3, 3, 3, 3]
    assert layer.loads(4, by="rows").tolist() == [12, 0, 0, 0]


def test_refusals() -> None:
    weight, gram = drawn()
    refused(lambda: group_sparse(weight, group=5), "weight has 16 inputs, no multiple of 5")
    refused(lambda: group_sparse(weight, bits=17), "bits=17: give a whole number from 1 to 16")
    refused(lambda: group_sparse(weight, gram[:8, :8]), "gram has shape (8, 8); weight has 16 inputs")
    refused(lambda: group_sparse(weight, np.triu(gram)), "gram is not symmetric")
    refused(lambda: group_sparse(weight, -gram), "a mean square is never below 0")
    refused(lambda: group_sparse(weight, kept=np.ones((12, 3))), "kept has shape (12, 3); give one entry a group")
    refused(lambda: group_sparse(weight, kept=np.ones((12, 1)), pattern="dense"), "kept with pattern='dense'")
