"""Calls of plain functions and classes by words that they do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kofn.selection import SieveStreaming, farthest_first

X = [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: farthest_first(X, k=1, metrc="cosine"), "farthest_first() got .* 'metrc'; did you mean 'metric'?"),
        (lambda: farthest_first(X, n_clusters=1), "did you mean 'k'?"),
        (lambda: farthest_first(k=1, random_state=0), "did you mean 'seed'?"),
        (lambda: SieveStreaming(2, windw=5), "SieveStreaming() got an unexpected keyword argument 'windw'"),
    ],
)
def test_a_misspelt_word_of_a_plain_call_is_answered(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(TypeError, match=says.replace("()", r"\(\)").replace("?", r"\?")):
        call()
