"""Embedding tables within bytes: what is looked up, what is shared, and what they take."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.core.checks import InfeasibleError  # noqa: E402
from kofn.nn import CompressedEmbedding  # noqa: E402


@pytest.mark.parametrize("kind", ["hash", "quotient_remainder", "mixed"])
@pytest.mark.parametrize("budget", [1600, 6400])
def test_bytes_are_kept_and_every_row_learns(kind: str, budget: int) -> None:
    table = CompressedEmbedding(200, 8, budget, kind=kind, counts=1000 // np.arange(1, 201))
    assert table.stored_bytes <= budget
    ids = torch.arange(200).view(20, 10)
    out = table(ids)
    assert out.shape == (20, 10, 8)
    torch.testing.assert_close(table(ids.flip(0)), out.flip(0))
    out.square().sum().backward()
    assert all((p.grad.abs().sum(dim=1) > 0).all() for p in table.tables.parameters())


def test_which_rows_are_the_same() -> None:
    hashed = CompressedEmbedding(50, 4, 10 * 16, kind="hash")
    assert torch.equal(hashed(torch.tensor(3)), hashed(torch.tensor(13)))
    composed = CompressedEmbedding(50, 4, 20 * 16, kind="quotient_remainder")
    assert len(torch.unique(composed(torch.arange(50)), dim=0)) == 50
    whole = CompressedEmbedding(30, 4, 30 * 16, kind="mixed")
    assert whole.stored_bytes == 30 * 16


@pytest.mark.parametrize("kind", ["hash", "quotient_remainder", "mixed"])
@pytest.mark.parametrize("outside", [-1, 50, 10**9])
def test_ids_outside_are_refused_as_by_an_embedding(kind: str, outside: int) -> None:
    table = CompressedEmbedding(50, 4, 20 * 16, kind=kind)
    with pytest.raises(IndexError, match=rf"ids at \(0, 1\) is {outside}; the table has rows 0 to 49"):
        table(torch.tensor([[49, outside]]))
    assert table(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 4)


def test_refusals() -> None:
    refused(lambda: CompressedEmbedding(50, 4, 8), "hold no hash table", InfeasibleError)
    refused(lambda: CompressedEmbedding(50, 4, 999, kind="tensor"), "kind")
    refused(lambda: CompressedEmbedding(50, 4, 999, kind="mixed", counts=[1.0]), "counts")
