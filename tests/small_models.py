"""Small torch models for tests of what merges them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(seed: int, dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    parts = [torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(6, 3)).to(dtype)
    model[1].running_mean.normal_()
    return model


class Speaker(torch.nn.Module):
    """A tiny language model: keywords in, `.logits` out, head tied to the embedding."""

    def __init__(self, words: int = 7, width: int = 4) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(words, width)
        self.inner = torch.nn.Linear(width, width)
        self.head = torch.nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Any) -> Any:
        class Out:
            logits = self.head(torch.tanh(self.inner(self.embed(input_ids).cumsum(dim=1))))

        return Out


def rows(seed: int, n: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
